"""Reading images: npz files, folders, parquet, the built-in shapes; splits, resizing, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from textadv.data import (
    DataError,
    Fitting,
    ImageRows,
    ImageSplits,
    Pictures,
    fitted,
    images_digest,
    load_image_splits,
    own_shape,
    shapes,
    shared_images,
)

SIDE = 6


def drawn(rows: int, channels: int | None = None, seed: int = 0) -> np.ndarray:
    shape = (rows, SIDE, SIDE) if channels is None else (rows, SIDE, SIDE, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    found = {"x_train": drawn(20), "y_train": np.arange(20) % 2, "x_test": drawn(6, seed=1), "y_test": np.arange(6) % 2}
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


def npz(folder: Path, **changes: Any) -> str:
    path = folder / "images.npz"
    np.savez(path, **arrays(**changes))
    return str(path)


def pictures(images: np.ndarray) -> Pictures:
    return Pictures(images, tuple(n % 2 for n in range(len(images))), tuple(range(len(images))), "made up")


def as_stored(splits: ImageSplits, part: str = "train") -> ImageRows:
    return fitted(splits.parts[part], Fitting(*own_shape(splits.train)))


def class_folders(root: Path, **classes: int) -> Path:
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for row in range(count):
            Image.fromarray(drawn(1, 3, seed=10 * number + row)[0]).save(root / name / f"{row}.png")
    return root


def encoded(image: Image.Image, **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return {"bytes": buffer.getvalue(), "path": None}


def test_an_npz_file_gives_its_splits_and_validation_is_held_out_class_by_class(tmp_path: Path) -> None:
    splits = load_image_splits("files", path=npz(tmp_path), validation_fraction=0.2, seed=3)
    assert [len(part) for part in splits.parts.values()] == [16, 4, 6]
    assert splits.labels == ("0", "1") and sorted(splits.validation.labels) == [0, 0, 1, 1]
    assert sorted(splits.train.ids + splits.validation.ids) == list(range(20))
    rows = as_stored(splits)
    assert rows.pixels.shape == (16, 1, SIDE, SIDE) and rows.pixels.dtype == torch.uint8
    wanted = torch.from_numpy(arrays()["x_train"][list(splits.train.ids)])
    assert torch.equal(rows.pixels[:, 0], wanted)
    assert [int(label) for label in arrays()["y_train"][list(splits.train.ids)]] == list(rows.labels)


def test_colour_arrays_have_their_channels_moved_to_the_front(tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=drawn(20, 3), x_test=drawn(6, 3))
    splits = load_image_splits("files", path=path)
    assert own_shape(splits.train) == (3, SIDE, SIDE)
    row = splits.train.ids[0]
    assert torch.equal(as_stored(splits).pixels[0, 2], torch.from_numpy(drawn(20, 3)[row, :, :, 2]))


def test_arrays_of_other_names_are_found_or_named(tmp_path: Path) -> None:
    known = arrays()
    path = tmp_path / "medical.npz"
    np.savez(
        path,
        train_images=known["x_train"],
        train_labels=known["y_train"][:, None],
        a=known["x_test"],
        b=known["y_test"],
    )
    splits = load_image_splits("files", path=str(path), keys={"test": ["a", "b"]})
    assert len(splits.test) == 6 and splits.test.labels == (0, 1, 0, 1, 0, 1)
    with pytest.raises(DataError, match=r"data.keys.test must name the array .* there are train_images"):
        load_image_splits("files", path=str(path), keys={"test": ["a", "missing"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_train": drawn(20).astype(np.float32)},
            r"pixels must lie in \[0, 1\], got \d+ to 2\d\d in row \d+ of the train",
        ),
        ({"x_train": drawn(20) / 200 - 0.1}, r"pixels must lie in \[0, 1\], got -0.0\d+ to 1"),
        ({"x_train": np.full((20, SIDE, SIDE), np.nan)}, r"pixels must lie in \[0, 1\], got nan"),
        ({"x_train": drawn(20) // 255}, "none is above 1"),
        ({"x_train": drawn(20).astype(np.int64)}, "images must be uint8, or floating point"),
        ({"x_train": drawn(20, 4)}, "must have 1 or 3 channels"),
        ({"x_train": drawn(19)}, "19 images and 20 labels"),
        ({"y_test": np.array([0, 1, 2, 0, 1, 0])}, r"row 2 .* has the label 2, but the 2 classes are 0 to 1"),
        ({"y_train": np.arange(20) % 2 * 2}, "counted from 0 without gaps"),
        ({"y_train": np.zeros(20, dtype=int)}, "of one class"),
        ({"x_test": None}, "data.test: no test split"),
        ({"y_train": np.array([{}] * 20, dtype=object)}, "plain arrays"),
        ({"y_train": np.arange(20) % 2 + 0.5}, "row 0 .* has the label 0.5, a score"),
        ({"y_train": np.eye(4)[np.arange(20) % 4] + np.eye(4)[0]}, "several labels per row"),
        ({"y_train": np.array(0)}, "20 images and 1 labels"),
        ({"y_test": np.array([0, 1, -1, 0, 1, 0])}, "row 2 .* has the label -1, .* Set data.unlabelled: drop"),
    ],
)
def test_what_an_npz_file_may_not_hold(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_stored(load_image_splits("files", path=npz(tmp_path, **changes)))


def test_a_class_without_training_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no row of .* is of class 'bird' \(1 of 3 classes are empty\)"):
        load_image_splits("files", path=npz(tmp_path), labels=["cat", "dog", "bird"])


def test_folders_of_classes_are_read_when_they_are_fitted(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", cat=6, dog=4)
    class_folders(tmp_path / "val", cat=2, dog=1)
    class_folders(tmp_path / "test", dog=3)
    splits = load_image_splits("files", path=str(tmp_path), validation_fraction=0.4)
    assert splits.labels == ("cat", "dog") and splits.test.labels == (1, 1, 1)
    assert [len(part) for part in splits.parts.values()] == [10, 3, 3]
    rows = as_stored(splits)
    assert torch.equal(rows.pixels[7], torch.from_numpy(drawn(1, 3, seed=11)[0]).permute(2, 0, 1))
    other = load_image_splits("files", train=str(tmp_path / "train"), test=str(tmp_path / "test"))
    assert other.test == splits.test and len(other.validation) == 1

    (tmp_path / "train" / "cat" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="broken.png cannot be read as an image"):
        as_stored(load_image_splits("files", path=str(tmp_path)))


def test_an_empty_class_folder_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", cat=2, dog=0)
    class_folders(tmp_path / "test", cat=2)
    with pytest.raises(DataError, match="data.train: the class dog is empty"):
        load_image_splits("files", path=str(tmp_path))
    with pytest.raises(DataError, match="data.path: there is no file or folder"):
        load_image_splits("files", path=str(tmp_path / "nowhere.npz"))
    with pytest.raises(DataError, match="holds no folder train or test"):
        load_image_splits("files", path=str(tmp_path / "train"))
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="data.test: there is no folder"):
        load_image_splits("files", train=str(tmp_path / "test"), test=str(tmp_path / "gone"))


def test_parquet_files_hold_encoded_images(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [encoded(Image.fromarray(drawn(1, seed=n)[0])) for n in range(8)], "kind": [n % 2 for n in range(8)]}
    declared, plain, test = (str(tmp_path / f"{name}.parquet") for name in ("declared", "plain", "test"))
    datasets.Dataset.from_dict(rows, features=features).to_parquet(declared)
    for path in (plain, test):
        datasets.Dataset.from_dict(rows).to_parquet(path)
    part = {"validation_fraction": 0.25}
    for path, names in ((declared, ("cat", "dog")), (plain, ("0", "1"))):
        splits = load_image_splits("files", train=[path], test=test, image="img", label="kind", **part)
        assert splits.labels == names
        assert torch.equal(as_stored(splits, "test").pixels[3, 0], torch.from_numpy(drawn(1, seed=3)[0]))
    with pytest.raises(DataError, match=r"data.image: no column 'image' .* there are img, kind"):
        load_image_splits("files", train=plain, test=test, label="kind")
    with pytest.raises(DataError, match="which is no image"):
        as_stored(load_image_splits("files", train=plain, test=test, image="kind", label="kind", **part))


def png_bytes(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize("harm", ["no image", "cut", "too large"])
@pytest.mark.parametrize("stored", ["folder", "parquet"])
def test_a_broken_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, stored: str) -> None:
    whole = png_bytes(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    content = {"no image": b"nothing", "cut": whole[: len(whole) // 2], "too large": whole}[harm]
    if harm == "too large":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    if stored == "folder":
        for split in ("train", "test"):
            class_folders(tmp_path / split, cat=3, dog=3)
            (tmp_path / split / "cat" / "0.png").write_bytes(content)
        splits, place = load_image_splits("files", path=str(tmp_path), validation_fraction=0.4), "0.png"
    else:
        rows = [{"image": {"bytes": content if n == 0 else whole}, "label": n % 2} for n in range(8)]
        for split in ("train", "test"):
            datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / f"{split}.parquet"))
        paths = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
        splits, place = load_image_splits("files", **paths, validation_fraction=0.4), "row 0 "
    with pytest.raises(DataError, match=f"{place}.*cannot be read as an image: .* Replace it, or leave it out"):
        splits.test.images[0]


def test_what_an_archive_leaves_beside_its_images_is_no_image_and_no_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        class_folders(tmp_path / split, cat=3, dog=3)
        (tmp_path / split / "cat" / "._0.png").write_bytes(b"nothing")
        (tmp_path / split / "__MACOSX").mkdir()
    splits = load_image_splits("files", path=str(tmp_path), validation_fraction=0.4)
    assert splits.labels == ("cat", "dog") and len(splits.test) == 6


def test_parquet_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    for number, more in enumerate(({}, {"more": 1}, {})):
        rows = [{"image": {"bytes": png_bytes(drawn(1)[0])}, "label": n % 2, **more} for n in range(4)]
        datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / f"{number}.parquet"))
    paths = [str(tmp_path / f"{number}.parquet") for number in range(3)]
    with pytest.raises(DataError, match="data.train: .* do not have the same columns"):
        load_image_splits("files", train=paths[:2], test=paths[2])


def test_two_splits_may_not_be_the_same_images(tmp_path: Path) -> None:
    one, other = (str(class_folders(tmp_path / name, cat=4, dog=4)) for name in ("one", "other"))
    class_folders(tmp_path / "one" / "dog" / "more", cat=2, dog=2)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    told = r"data.{}: \S+ and data.{}: \S+ hold the same images"
    both = told.format("validation", "test")
    for sources, message in (
        ({"train": one, "validation": other, "test": other}, both),
        ({"train": one, "test": str(tmp_path / "link")}, told.format("train", "test")),
        ({"train": one, "test": str(tmp_path / "one" / "dog" / "more")}, told.format("train", "test")),
        ({"train": one, "validation": [one], "test": other}, told.format("train", "validation")),
        ({"train": "a", "validation": ["b.parquet", "c.parquet"], "test": "./c.parquet"}, both),
        ({"path": str(tmp_path), "train": "one", "validation": "other", "test": "other"}, both),
        ({"path": str(tmp_path), "train": "one", "test": "link"}, told.format("train", "test")),
    ):
        with pytest.raises(DataError, match=message):
            load_image_splits("files", **sources)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=both):
        load_image_splits("some/set", validation="test", test="test")
    splits = load_image_splits("files", train=one, test=other, validation_fraction=0.25)
    assert [len(part) for part in splits.parts.values()] == [9, 3, 8]


def test_a_folder_or_an_array_that_one_split_names_is_not_found_for_another(tmp_path: Path) -> None:
    class_folders(tmp_path / "val", cat=8, dog=8)
    class_folders(tmp_path / "test", cat=2, dog=2)
    splits = load_image_splits("files", path=str(tmp_path), train="val", validation_fraction=0.25)
    assert [len(part) for part in splits.parts.values()] == [12, 4, 4]
    path = npz(tmp_path, x_val=drawn(8, seed=2), y_val=np.arange(8) % 2)
    splits = load_image_splits("files", path=path, keys={"test": ["x_val", "y_val"]})
    assert [len(part) for part in splits.parts.values()] == [18, 2, 8]
    with pytest.raises(DataError, match="data.keys.validation: x_test and data.keys.test: x_test hold the same images"):
        load_image_splits("files", path=path, keys={"validation": ["x_test", "y_test"], "test": ["x_test", "y_test"]})


def test_names_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path)
    for role in ("train", "validation", "test"):
        with pytest.raises(DataError, match=rf"data.{role} cannot be set for the npz file .* data.keys.{role}"):
            load_image_splits("files", path=path, **{role: "extra"})
    for sources in ({"path": str(tmp_path)}, {"train": str(tmp_path)}):
        with pytest.raises(DataError, match="data.keys names the arrays of an npz file"):
            load_image_splits("files", keys={"test": ["x_test", "y_test"]}, **sources)


def test_images_stand_upright_wherever_they_are_read(tmp_path: Path) -> None:
    import datasets

    lying = drawn(1, 3)[0, :4]
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = torch.from_numpy(np.rot90(lying, -1).copy()).permute(2, 0, 1)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for row in range(2):
                Image.fromarray(lying).save(tmp_path / split / name / f"{row}.png", exif=exif)
    splits = load_image_splits("files", path=str(tmp_path), validation_fraction=0.5)
    assert own_shape(splits.train) == (3, SIDE, 4) and torch.equal(as_stored(splits).pixels[0], upright)

    rows = {"image": [encoded(Image.fromarray(lying), exif=exif)] * 4, "label": [0, 1, 0, 1]}
    declared = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for name, features in (("plain", None), ("declared", declared)):
        for split in ("train", "test"):
            datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / f"{split}.parquet"))
        files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
        read = as_stored(load_image_splits("files", **files, validation_fraction=0.5))
        assert torch.equal(read.pixels[0], upright), name


def test_exif_that_cannot_be_read_turns_nothing_and_transparency_is_laid_on_white(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", cat=2, dog=2)
    class_folders(tmp_path / "test", cat=1, dog=1)
    clear = np.concatenate([drawn(1, 3)[0], np.full((SIDE, SIDE, 1), 51, np.uint8)], axis=2)
    Image.fromarray(clear).save(tmp_path / "test" / "cat" / "0.png")
    Image.fromarray(drawn(1, 3)[0]).save(tmp_path / "test" / "dog" / "0.png", exif=b"no EXIF")
    found = as_stored(load_image_splits("files", path=str(tmp_path), validation_fraction=0.5), "test").pixels
    assert torch.equal(found[1], torch.from_numpy(drawn(1, 3)[0]).permute(2, 0, 1))
    wanted = torch.from_numpy(0.2 * drawn(1, 3)[0] + 0.8 * 255).permute(2, 0, 1)
    assert (found[0] - wanted).abs().max() <= 1


def test_shapes_are_four_balanced_classes_drawn_from_a_seed() -> None:
    splits, other = shapes(), shapes(1)
    assert [len(part) for part in splits.parts.values()] == [1600, 400, 400] and len(splits.labels) == 4
    assert {splits.test.labels.count(label) for label in range(4)} == {100}
    rows = {name: as_stored(splits, name) for name in splits.parts}
    assert rows["train"].pixels.shape == (1600, 1, 20, 20)
    assert images_digest(rows["test"]) == images_digest(as_stored(shapes(), "test"))
    assert images_digest(rows["test"]) != images_digest(as_stored(other, "test"))
    assert shared_images(rows["train"], rows["test"]) == shared_images(rows["train"], rows["validation"]) == 0


def test_images_are_resized_by_pillow_only_where_they_are_asked_to() -> None:
    part = pictures(drawn(4))
    with pytest.raises(DataError, match=r"data.image_size: row 0 of made up has 6 x 6 pixels, expected 12 x 9"):
        fitted(part, Fitting(1, 12, 9))
    rows = fitted(part, Fitting(1, 12, 9, Image.Resampling.BICUBIC, resize=True))
    direct = np.asarray(Image.fromarray(drawn(4)[2]).resize((9, 12), Image.Resampling.BICUBIC))
    assert torch.equal(rows.pixels[2, 0], torch.from_numpy(direct.copy()))
    floating = fitted(pictures(drawn(4) / np.float32(255)), Fitting(1, 12, 9, Image.Resampling.BICUBIC, resize=True))
    assert floating.pixels.dtype == torch.float32 and float(floating.pixels.max()) == 1 and floating.pixels.min() == 0
    smooth = Fitting(1, 12, 9, resize=True)
    one, other = (fitted(pictures(images), smooth).pixels for images in (drawn(4), drawn(4) / np.float32(255)))
    assert torch.allclose(other * 255, one.float(), atol=1.1)


def test_channels_are_changed_only_where_they_are_asked_to() -> None:
    grey, colour = pictures(drawn(4)), pictures(drawn(4, 3))
    with pytest.raises(DataError, match="has 1 channels, expected 3. Set data.channels: 3"):
        fitted(grey, Fitting(3, SIDE, SIDE))
    repeated = fitted(grey, Fitting(3, SIDE, SIDE, convert=True)).pixels
    assert all(torch.equal(repeated[:, n], torch.from_numpy(drawn(4))) for n in range(3))
    made = fitted(colour, Fitting(1, SIDE, SIDE, convert=True)).pixels
    direct = torch.from_numpy(np.asarray(Image.fromarray(drawn(4, 3)[1]).convert("L")).copy())
    assert (made[1, 0].int() - direct.int()).abs().max() <= 1


def test_images_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", cat=2, dog=2)
    class_folders(tmp_path / "test", cat=2, dog=2)
    class_folders(tmp_path / "val", cat=2, dog=2)
    Image.fromarray(drawn(1)[0].astype(np.uint16) * 200).save(tmp_path / "train" / "cat" / "wide.png")
    with pytest.raises(DataError, match="wide.png has more than 8 bits"):
        as_stored(load_image_splits("files", path=str(tmp_path)))


def test_subsets_are_seeded_and_keep_their_numbers(tmp_path: Path) -> None:
    path = npz(tmp_path)
    one, same, other = (load_image_splits("files", path=path, train_rows=8, test_rows=3, seed=s) for s in (0, 0, 1))
    assert len(one.train) == 8 and len(one.test) == 3 and one.train.ids == same.train.ids != other.train.ids
    with pytest.raises(DataError, match="data.train_rows: all 1 train rows are of one class"):
        load_image_splits("files", path=path, train_rows=1)


def test_images_that_stand_in_two_splits_are_counted(tmp_path: Path) -> None:
    known = arrays()
    doubled = np.concatenate([known["x_test"][:4], known["x_train"][[3, 3]]])
    splits = load_image_splits("files", path=npz(tmp_path, x_test=doubled, x_val=drawn(2, seed=7), y_val=np.arange(2)))
    assert shared_images(as_stored(splits), as_stored(splits, "test")) == 2


def test_the_real_mnist_and_cifar_files_are_read(shared: Path) -> None:
    for name, channels, side, sizes in (
        ("mnist/mnist.npz", 1, 28, (60000, 10000)),
        ("cifar10_subset/cifar10_4000_1000.npz", 3, 32, (4000, 1000)),
    ):
        path = shared / "data" / name
        if not path.is_file():
            pytest.skip(f"no {name} in the folder with the real data")
        splits = load_image_splits("files", path=str(path))
        assert own_shape(splits.train) == (channels, side, side)
        assert (len(splits.train) + len(splits.validation), len(splits.test)) == sizes and len(splits.labels) == 10
