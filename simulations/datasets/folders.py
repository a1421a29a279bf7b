"""The user's own folders of texts or images: one folder per site, with one folder per label in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.common import arguments
from shoal.common.arguments import Argument
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, UnreadableDataError
from shoal.common.schema import Population
from shoal.common.tabular.file_format import FileFormat
from shoal.simulations.datasets.loading import existing_path, spread
from shoal.simulations.datasets.raw import Raw

_IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_LARGEST: Final = 128  # pixels; larger images are taken only at a size that the user names
# Of "size" the default stands for the type only: without it images keep theirs.
_IMAGE_ARGUMENTS: Final = {"size": Argument(28, least=1, most=4096), "grayscale": Argument(False)}


def load_text(scenario: Scenario) -> Population:
    """Load text files, site/label/*.txt; `data.args` may set their encoding."""
    folder = existing_path(scenario, folder=True)
    encoding = FileFormat.from_args(scenario.data.args).encoding or "utf-8"
    rows = []
    for site, label, file in _files(folder, (".txt",)):
        try:
            rows.append((file.read_text(encoding=encoding), label, site))
        except (OSError, UnicodeDecodeError):
            raise UnreadableDataError(
                f"{file} cannot be read as text in {encoding.upper()}",
                hint='save it as UTF-8, or set its encoding, e.g. data.args.encoding = "gbk"',
            ) from None
    table = pa.table(list(map(list, zip(*rows, strict=True))), names=["text", "label", "site"])
    return spread(Raw(table, label="label", site="site", text="text"), scenario)


def load_images(scenario: Scenario) -> Population:
    """Load image files, site/label/*.png and the like.

    `data.args` may set size (of a side in pixels; without it all images must have the same size) and
    grayscale.

    Raises:
        ConfigError: bad arguments, or a size is needed. UnreadableDataError: it names the file.
    """
    folder = existing_path(scenario, folder=True)
    given = scenario.data.args
    problems = list(arguments.problems("data.args", "images", given, _IMAGE_ARGUMENTS))
    if problems:
        raise ConfigError(problems)
    size, gray = given.get("size"), given.get("grayscale", False)
    pixels, labels, sites = [], [], []
    for site, label, file in _files(folder, _IMAGES):
        pixels.append(_decode(file, size, "L" if gray else "RGB"))
        labels.append(label)
        sites.append(site)
        if size is None and (pixels[-1].shape != pixels[0].shape or max(pixels[0].shape) > _LARGEST):
            raise ConfigError(
                f"data.args.size: must be set for images of different sizes or above {_LARGEST} pixels "
                f"({file}), e.g. size = 64"
            )
    table = pa.table({"label": labels, "site": sites})
    return spread(Raw(table, label="label", site="site", tensors={"image": np.stack(pixels)}), scenario)


def _decode(file: Path, size: int | None, mode: str) -> NDArray[np.uint8]:
    """Return an image (height, width, channels)."""
    from PIL import Image

    try:
        with Image.open(file) as found:
            image = found.convert(mode)
            if size is not None:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableDataError(f"{file} cannot be read as an image: {type(error).__name__}") from None
    array = np.asarray(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, Path]]:
    found = [
        (file.parent.parent.name, file.parent.name, file)
        for file in sorted(folder.glob("*/*/*"))
        if file.suffix.lower() in suffixes
    ]
    if not found:
        raise UnreadableDataError(
            f"{folder} contains no files site/label/*{suffixes[0]}",
            hint="put the files of each site into a folder, with one folder per label in it",
        )
    yield from found
