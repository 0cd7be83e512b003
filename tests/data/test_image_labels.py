"""The labels of images: in every type of array and column the same classes, and what has no label told or left out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from textadv.data import DataError, ImageSplits, load_image_splits, own_shape
from textadv.data.tables import parquet_table

ROWS = np.arange(48) % 12
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 4, 4), dtype=np.uint8)


def of_npz(folder: Path, labels: Any, **options: Any) -> ImageSplits:
    path = folder / "images.npz"
    np.savez(path, x_train=IMAGES, y_train=labels, x_val=IMAGES, y_val=ROWS, x_test=IMAGES, y_test=labels)
    return load_image_splits("files", path=str(path), **options)


@pytest.mark.parametrize(
    "labels",
    [
        ROWS.astype(np.uint8),
        ROWS.astype(np.float32),
        ROWS[:, None],
        ROWS.astype(str),
        ROWS.astype(float).astype(str),
        ROWS.astype(bytes),
        np.eye(12)[ROWS],
        np.eye(12, dtype=bool)[ROWS],
    ],
    ids=lambda labels: f"{labels.dtype}{labels.shape}",
)
def test_arrays_of_labels_of_every_type_are_the_same_classes(tmp_path: Path, labels: np.ndarray) -> None:
    splits = of_npz(tmp_path, labels)
    assert splits.labels == tuple(map(str, range(12)))
    assert splits.train.labels == splits.test.labels == splits.validation.labels == tuple(ROWS.tolist())


def test_true_and_false_are_two_classes(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        x_train=IMAGES,
        y_train=ROWS > 5,
        x_val=IMAGES,
        y_val=ROWS % 2,
        x_test=IMAGES,
        y_test=ROWS < 1,
    )
    splits = load_image_splits("files", path=str(tmp_path / "a.npz"))
    assert splits.labels == ("False", "True") and splits.train.labels[4:8] == (0, 0, 1, 1)
    assert splits.validation.labels[:2] == (0, 1)


@pytest.mark.parametrize("mark", [-1.0, np.nan, -100])
def test_images_without_a_label_are_told_or_left_out(tmp_path: Path, mark: float) -> None:
    labels = np.where(np.arange(48) % 16 == 5, mark, ROWS)
    with pytest.raises(DataError, match="row 5 .* not labelled, as are 3 of 48 train rows, 3 of 48 test rows"):
        of_npz(tmp_path, labels)
    splits = of_npz(tmp_path, labels, unlabelled="drop")
    assert len(splits.train) == 45 and len(splits.validation) == 48
    assert splits.train.ids[4:6] == (4, 6) and splits.train.labels[4:6] == (4, 6)
    assert np.array_equal(splits.train.images[5], IMAGES[6])
    assert splits.notes == (
        "data.label: 3 of 48 train rows, 3 of 48 test rows have no label and are left out (data.unlabelled: drop).",
    )


def test_categories_and_nulls_in_parquet_files(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(stream, "png")
    names = ["dog", "cat", None, "dog"] * 4
    frame = pd.DataFrame({"image": [{"bytes": stream.getvalue(), "path": None}] * 16, "label": pd.Categorical(names)})
    paths = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    for path in paths.values():
        frame.to_parquet(path)
    assert parquet_table(paths["test"]).column("label").to_pylist() == names
    assert str(parquet_table(paths["test"]).schema.field("label").type).endswith("string")
    with pytest.raises(DataError, match="row 2 .* has the label None, which is none of the classes cat, dog"):
        load_image_splits("files", **paths)
    splits = load_image_splits("files", **paths, unlabelled="drop", validation_fraction=0.25)
    assert splits.labels == ("cat", "dog") and splits.test.labels == (1, 0, 1) * 4


def test_declared_classes_and_minus_one(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    rows = {"image": [Image.fromarray(image) for image in IMAGES[:12]], "label": [0, 1, -1] * 4}
    paths = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    for path in paths.values():
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    splits = load_image_splits("files", **paths, unlabelled="drop", validation_fraction=0.25, labels=["cat", "dog"])
    assert splits.test.labels == (1, 0) * 4 and splits.test.ids == (0, 1, 3, 4, 6, 7, 9, 10)


# ---- files and arrays that are no images


OTHER_FILES: dict[str, tuple[str, Any, str]] = {
    "one array": ("a.npy", lambda path: np.save(path, np.zeros((4, 2, 2))), "a.npy is no npz file, which numpy.savez"),
    "a pickle": (
        "a.pt",
        lambda path: path.write_bytes(b"\x80\x04abc"),
        "a.pt is no npz file, which numpy.savez writes",
    ),
    "objects": (
        "a.npz",
        lambda path: np.savez(path, x_train=np.array([None]), y_train=np.zeros(1)),
        "Arrays of objects would run what they hold: store numbers",
    ),
}


@pytest.mark.parametrize(("name", "write", "told"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files_end_with_one_message(tmp_path: Path, name: str, write: Any, told: str) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError) as caught:
        load_image_splits("files", path=str(tmp_path / name))
    assert told in str(caught.value) and "allow_pickle=`" not in str(caught.value)


def test_channels_that_stand_first_and_pixels_that_are_all_but_black(tmp_path: Path) -> None:
    labels = np.array([0, 1] * 4)
    bytes_ = np.random.default_rng(0).integers(0, 256, (8, 3, 6, 6), dtype=np.uint8)
    for name, images, told in (
        ("first", bytes_, r"got an image of shape .3, 6, 6.\. Move them there: images.transpose.0, 2, 3, 1.\."),
        ("black", (bytes_ / 255 / 255).transpose(0, 2, 3, 1), "none is above 1/255, so they would be all but black"),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
        with pytest.raises(DataError, match=told):
            own_shape(load_image_splits("files", path=str(path), validation_fraction=0.5).train)
