"""The user's own folders of texts or images: one folder per site, with one folder per label in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shoal.common import arguments
from shoal.common.arguments import Argument
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, UnreadableDataError
from shoal.common.schema import Population
from shoal.common.tabular.file_bytes import read_text_file
from shoal.common.tabular.file_format import FileFormat
from shoal.simulations.datasets.loading import existing_path, spread
from shoal.simulations.datasets.raw import Raw

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_DEEP: Final = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of 16 bits
_LARGEST: Final = 128  # pixels; larger images are taken only at a size that the user names
# Of "size" the default stands for the type only: without it images keep theirs.
_IMAGE_ARGUMENTS: Final = {"size": Argument(28, least=1, most=4096), "grayscale": Argument(False)}


def load_text(scenario: Scenario) -> Population:
    """Load text files, site/label/*.txt; in UTF-8 or the encoding that `data.args` names.

    Raises:
        UnreadableDataError: it names the file.
    """
    folder = existing_path(scenario, folder=True)
    encoding = FileFormat.from_args(scenario.data.args).encoding or "utf-8"
    rows = []
    for site, label, file in _files(folder, (".txt",)):
        rows.append((read_text_file(file, encoding).data.decode(), label, site))
    table = pa.table(list(map(list, zip(*rows, strict=True))), names=["text", "label", "site"])
    return spread(Raw(table, label="label", site=_site_column(rows), text="text"), scenario)


def load_images(scenario: Scenario) -> Population:
    """Load image files, site/label/*.png and the like, or label/*.png without sites.

    They are turned as their EXIF data says; transparent parts become white; 16 bits are rounded to 8.

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
    site_column = _site_column(zip(pixels, labels, sites, strict=True))
    return spread(Raw(table, label="label", site=site_column, tensors={"image": np.stack(pixels)}), scenario)


def _decode(file: Path, size: int | None, mode: str) -> NDArray[np.uint8]:
    """Return an image (height, width, channels)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as found:
            _require_one_image(file, found)
            image = _in_8_bits(ImageOps.exif_transpose(found)).convert(mode)
            if size is not None:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableDataError(f"{file} cannot be read as an image: {type(error).__name__}") from None
    array = np.asarray(image, np.uint8)
    return array if array.ndim == 3 else array[..., None]


def _require_one_image(file: Path, found: Image) -> None:
    """Refuse files of several images, and pixels whose range is unknown."""
    frames = getattr(found, "n_frames", 1)
    if frames > 1:
        raise UnreadableDataError(
            f"{file} holds {frames} images; expected one", hint="save each of them as a file of its own"
        )
    if found.mode in ("I", "F"):
        raise UnreadableDataError(
            f"{file} has pixels of 32 bits (mode {found.mode}), whose range is unknown; expected 8 or 16",
            hint="save it with 16 bits a channel, or give arrays in [0, 1] as .npz",
        )


def _in_8_bits(image: Image) -> Image:
    """Return an image of 8 bits a channel without transparency."""
    from PIL import Image

    if image.mode in _DEEP:
        # 65,535 = 257 · 255. Pillow's own conversion would make everything above 255 white.
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, Path]]:
    def matching(pattern: str) -> list[Path]:
        # Names that start with a dot are those of the system, such as ._17.png beside 17.png.
        return [
            file
            for file in sorted(folder.glob(pattern))
            if file.suffix.lower() in suffixes and not file.name.startswith(".")
        ]

    found = [(file.parent.parent.name, file.parent.name, file) for file in matching("*/*/*")]
    found = found or [("", file.parent.name, file) for file in matching("*/*")]
    if not found:
        raise UnreadableDataError(
            f"{folder} contains no files site/label/*{suffixes[0]}",
            hint="put the files of each site into a folder, with one folder per label in it; or of all into "
            "folders by label, label/*, to be divided as [partition] says",
        )
    yield from found


def _site_column(rows: Iterable[tuple[object, object, str]]) -> str | None:
    """Return the column of sites; `None` for folders without sites, which all rows then are of."""
    return "site" if any(site for *_, site in rows) else None
