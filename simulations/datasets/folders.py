"""The user's own folders of texts or images: one folder a site, in it one a label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from common.config import Scenario
from common.errors import UnreadableDataError
from common.schema import Population
from simulations.datasets.loading import existing_path, spread
from simulations.datasets.raw import Raw

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def load_text(scenario: Scenario) -> Population:
    """Load text files: site/label/*.txt, UTF-8."""
    folder = existing_path(scenario, folder=True)
    rows = []
    for site, label, file in _files(folder, (".txt",)):
        try:
            rows.append((file.read_text(encoding="utf-8"), label, site))
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableDataError(
                f"{file} cannot be read as UTF-8 text: {type(error).__name__}"
            ) from None
    table = pa.table(list(map(list, zip(*rows, strict=True))), names=["text", "label", "site"])
    return spread(Raw(table, label="label", site="site", text="text"), scenario)


def load_images(scenario: Scenario) -> Population:
    """Load image files: site/label/*.png and the like; all are brought to data.args.size pixels."""
    from keras.utils import img_to_array, load_img  # TensorFlow takes seconds to import

    folder = existing_path(scenario, folder=True)
    size = int(scenario.data.args.get("size", 32))
    mode = "grayscale" if scenario.data.args.get("grayscale", False) else "rgb"
    pixels, labels, sites = [], [], []
    for site, label, file in _files(folder, _IMAGES):
        try:
            image = load_img(file, color_mode=mode, target_size=(size, size))
        except (OSError, ValueError) as error:
            raise UnreadableDataError(f"{file} cannot be read as an image: {type(error).__name__}") from None
        pixels.append(img_to_array(image, dtype="uint8"))
        labels.append(label)
        sites.append(site)
    table = pa.table({"label": labels, "site": sites})
    return spread(Raw(table, label="label", site="site", tensors={"image": np.stack(pixels)}), scenario)


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, Path]]:
    found = [
        (file.parent.parent.name, file.parent.name, file)
        for file in sorted(folder.glob("*/*/*"))
        if file.suffix.lower() in suffixes
    ]
    if not found:
        raise UnreadableDataError(
            f"{folder} holds no files site/label/*{suffixes[0]}",
            hint="put the files of each site into a folder, and in it one folder a label",
        )
    yield from found
