"""Folders of classes as cameras and browsers leave them: every ending that Pillow reads, and what is left out told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textadv.data import DataError, ImageSplits, load_image_splits
from textadv.data.image_folders import image_endings

FORMATS = {
    ".png": "PNG",
    ".jfif": "JPEG",
    ".JPE": "JPEG",
    ".JPG": "JPEG",
    ".tiff": "TIFF",
    ".BMP": "BMP",
    ".jp2": "JPEG2000",
}
FORMATS |= {".pbm": "PPM", ".tga": "TGA", ".ico": "ICO", "": "PNG"}


def encoded(kind: str, value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(stream, format=kind)
    return stream.getvalue()


def folders(root: Path, names: tuple[str, ...] = ("cat", "dog"), images: int = 4) -> Path:
    for split in ("train", "test"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                (root / split / name / f"{number}.png").write_bytes(encoded("PNG", number))
    return root


def read(root: Path, **options: object) -> ImageSplits:
    return load_image_splits("files", path=str(root), validation_fraction=0.25, **options)  # type: ignore[arg-type]


def test_every_ending_that_pillow_reads_is_an_image(tmp_path: Path) -> None:
    folders(tmp_path)
    for ending, kind in FORMATS.items():
        (tmp_path / "test" / "dog" / f"more{ending}").write_bytes(encoded(kind, 200))
    splits = read(tmp_path)
    assert len(splits.test) == 8 + len(FORMATS) and splits.notes == ()
    for row in range(len(splits.test)):
        assert splits.test.images[row].shape[:2] == (16, 16)
    assert {".jfif", ".jpe", ".jpeg", ".webp", ".ppm", ".gif", ".mpo"} <= image_endings()
    assert not {".pdf", ".eps", ".h5", ".txt", ".csv", ""} & image_endings()


def test_the_first_picture_of_a_moving_one_is_read(tmp_path: Path) -> None:
    folders(tmp_path)
    frames = [Image.new("L", (16, 16), value) for value in (10, 200)]
    frames[0].save(tmp_path / "test" / "cat" / "moving.gif", save_all=True, append_images=frames[1:])
    splits = read(tmp_path)
    assert len(splits.test) == 9 and splits.test.images[4].max() == 10


def test_files_that_are_left_out_are_counted_by_their_endings(tmp_path: Path) -> None:
    folders(tmp_path)
    for name in ("a.heic", "b.HEIC", "notes.txt", "Thumbs.db", "noted", ".hidden", "paper.pdf"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"no image")
    for name in ("loose.jfif", "other.png", "labels.csv", ".hidden.png"):
        (tmp_path / "test" / name).write_bytes(encoded("PNG"))
    splits = read(tmp_path)
    assert [len(part) for part in splits.parts.values()] == [6, 2, 8]
    assert splits.notes == (
        f"data.train: {tmp_path / 'train'}: 6 files in the class folders have no ending of an image, and are left "
        "out: 1 with .db, 2 with .heic, 1 with .pdf, 1 with .txt, 1 with no ending.",
        f"data.test: {tmp_path / 'test'}: 2 images in no class folder are left out, such as loose.jfif.",
    )


def test_a_class_of_other_files_is_empty_and_says_what_it_holds(tmp_path: Path) -> None:
    folders(tmp_path)
    (tmp_path / "train" / "bird").mkdir()
    for name in ("a.heic", "b.heic"):
        (tmp_path / "train" / "bird" / name).write_bytes(b"no image")
    with pytest.raises(DataError, match="the class bird is empty: .* no image that Pillow reads, but 2 with .heic."):
        read(tmp_path)
    (tmp_path / "images.csv").write_text("file,label")
    with pytest.raises(DataError, match="data.train: .*images.csv is a file, and not parquet. Name a folder"):
        load_image_splits("files", train=str(tmp_path / "images.csv"), test=str(tmp_path / "test"))
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "metadata.csv").write_text("file_name,label")
    with pytest.raises(
        DataError, match="has no folders in it.* With metadata.csv in it, it is a data set: set data.name"
    ):
        load_image_splits("files", train=str(flat), test=str(tmp_path / "test"))


def test_folders_are_classes_whatever_they_are_called(tmp_path: Path) -> None:
    assert read(folders(tmp_path / "a", ("NA", "None", "nan"))).labels == ("NA", "None", "nan")
    numbers = tuple(map(str, range(12)))
    assert read(folders(tmp_path / "b", numbers)).labels == numbers
    assert read(folders(tmp_path / "c", ("00", "01", "10", "02", *numbers[3:10]))).labels == numbers[:11]
    with pytest.raises(DataError, match="'Cat' .4 rows. and 'cat' .4 rows. .* differ only in case"):
        read(folders(tmp_path / "d", ("Cat", "cat", "dog")))
    assert read(tmp_path / "d", labels=["cat", "Cat", "dog"]).labels == ("cat", "Cat", "dog")


def test_hidden_folders_inside_a_class_are_no_images_of_it(tmp_path: Path) -> None:
    copies = folders(tmp_path) / "train" / "cat" / ".ipynb_checkpoints"
    copies.mkdir()
    (copies / "0-checkpoint.png").write_bytes(encoded("PNG"))
    splits = load_image_splits("files", path=str(tmp_path), validation_fraction=0.25)
    assert len(splits.train) + len(splits.validation) == 8 and splits.notes == ()
