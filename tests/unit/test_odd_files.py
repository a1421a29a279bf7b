"""Images, texts and arrays as cameras, scanners and laptops write them: read right, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shoal.common.config import Scenario
from shoal.common.errors import ShoalError, UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations import datasets


def load(path: Path, source: str, **partition: object) -> Population:
    given = {
        "name": "t",
        "data": {"source": source, "path": str(path)},
        "model": {"name": "mlp"},
        "partition": {"min_rows": 2} | partition,
    }
    return datasets.load_population(Scenario.model_validate(given))


def folder_of(path: Path, image: Image.Image, name: str = "x.png", **options: object) -> Population:
    """Load one image, as all images of two sites and two labels."""
    for site in "ab":
        for label in ("low", "high"):
            place = path / "im" / site / label
            place.mkdir(parents=True, exist_ok=True)
            for i in range(4):
                image.save(place / f"{i}{name}", **options)
    return load(path / "im", "images")


def pixels(population: Population) -> np.ndarray:
    """Return the first image, (height, width, 3)."""
    return population.shard(0).columns["image"][0]


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bits_are_scaled_to_8(tmp_path: Path, name: str) -> None:
    """65,535 = 257 · 255, so 257 is 1, and 20,000 / 257 = 77.8 rounds to 78."""
    deep = np.array([[0, 257], [20_000, 65_535]], np.uint16)
    assert pixels(folder_of(tmp_path, Image.fromarray(deep), name))[..., 0].tolist() == [[0, 1], [78, 255]]


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    """EXIF orientation 6: the camera was turned, and the image must be turned right by 90 degrees."""
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(folder_of(tmp_path, image, exif=exif))
    assert found.shape == (3, 2, 3)
    assert found[0, 1].tolist() == [255, 0, 0]  # the corner at the top left is now at the top right


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_whatever_colour_they_hide(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (9, 9, 9, 0))
    assert pixels(folder_of(tmp_path, image.convert(mode))).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["1", "CMYK"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    found = pixels(folder_of(tmp_path, Image.new("RGB", (2, 2), "white").convert(mode), "x.tif"))
    assert (found == 255).all()


def test_what_has_no_known_range_or_several_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataError, match=r"x\.tif has pixels of 32 bits \(mode F\)"):
        folder_of(tmp_path / "f", Image.fromarray(np.ones((2, 2), np.float32)), "x.tif")
    frames = {"save_all": True, "append_images": [Image.new("L", (2, 2), 200)]}
    with pytest.raises(UnreadableDataError, match=r"x\.tif holds 2 images; expected one"):
        folder_of(tmp_path / "n", Image.new("L", (2, 2)), "x.tif", **frames)


def test_folders_of_labels_without_sites_are_divided_by_the_partition(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(12):
            Image.new("L", (2, 2), i).save(tmp_path / label / f"{i:02}.png")
        (tmp_path / label / "._00.png").write_bytes(b"Mac OS X")  # of the system, beside each copied file
    found = load(tmp_path, "images", scheme="iid", clients=2)
    assert found.schema.classes == ("cat", "dog")
    assert sum(found.rows(client) for client in range(len(found))) == 24


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_word(tmp_path: Path, encoding: str) -> None:
    for site in "ab":
        for label in ("x", "y"):
            (tmp_path / site / label).mkdir(parents=True)
            for i in range(4):
                (tmp_path / site / label / f"{i}.txt").write_bytes("很好 喜欢".encode(encoding))
    assert set(load(tmp_path, "text").shard(0).columns["text"]) == {"很好 喜欢"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"holds a single array \(\.npy\); expected an \.npz file"),
        (b"", r"cannot be read as \.npz"),
        (b"PK\x03\x04 broken", r"cannot be read as \.npz"),
    ],
    ids=["npy", "empty", "broken"],
)
def test_a_file_that_is_no_npz_is_refused_by_name(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "w.npz"
    with path.open("wb") as file:
        if content is None:
            np.save(file, np.zeros((9, 2)))
        else:
            file.write(content)
    with pytest.raises(ShoalError, match=told):
        load(path, "npz")
