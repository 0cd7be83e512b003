"""Folders in place of a Hub id: those that datasets saved, and those with files of every split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from PIL import Image

from textadv.data import DataError, load_image_splits, load_splits

NAMES = ["pos", "neg"]
FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def part(name: str, rows: int = 10) -> datasets.Dataset:
    columns = {"text": [f"{name} {n}" for n in range(rows)], "label": [n % 2 for n in range(rows)]}
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def parts() -> dict[str, datasets.Dataset]:
    return {name: part(name) for name in ("train", "validation", "test")}


def test_saved_folders_of_all_splits(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    datasets.DatasetDict(parts()).save_to_disk(folder)
    splits = load_splits(folder)
    assert splits.labels == ("pos", "neg") and splits.train.labels == (0, 1) * 5
    assert [found.texts[0] for found in (splits.train, splits.validation, splits.test)] == [
        "train 0",
        "validation 0",
        "test 0",
    ]
    sliced = load_splits(folder, train="train[:40%]", validation="train[5:8]")
    assert sliced.train.texts == tuple(f"train {n}" for n in range(4))
    assert sliced.validation.texts == tuple(f"train {n}" for n in range(5, 8))
    with pytest.raises(DataError, match="data.test: .*saved has no split 'dev'; there are train, validation, test"):
        load_splits(folder, test="dev")


def test_a_saved_folder_of_one_split_is_train_and_may_be_cut(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    part("row").save_to_disk(folder)
    splits = load_splits(folder, train="train[:6]", validation="train[6:8]", test="train[8:]")
    assert [len(found) for found in (splits.train, splits.validation, splits.test)] == [6, 2, 2]
    with pytest.raises(DataError, match="data.test: no test split"):
        load_splits(folder)


def test_saved_folders_of_images(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    images = {"image": [Image.new("L", (4, 4), n) for n in range(8)], "label": [n % 2 for n in range(8)]}
    made = datasets.Dataset.from_dict(images, features=features)
    folder = str(tmp_path / "saved")
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(folder)
    splits = load_image_splits(folder, validation_fraction=0.25)
    assert splits.labels == ("pos", "neg") and [len(found) for found in splits.parts.values()] == [6, 2, 8]
    assert splits.test.images[3].tolist() == [[3] * 4] * 4


WRITERS: dict[str, Callable[[datasets.Dataset, str], object]] = {
    "csv": lambda rows, path: rows.to_csv(path, index=False),
    "parquet": lambda rows, path: rows.to_parquet(path),
    "json": lambda rows, path: rows.to_json(path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_folders_of_files(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, rows in parts().items():
        WRITERS[kind](rows, str(folder / f"{name}.{kind}"))
    splits = load_splits(str(folder))
    assert splits.labels == (("pos", "neg") if kind == "parquet" else ("0", "1"))
    assert splits.test.labels == (0, 1) * 5 and splits.test.texts[3] == "test 3"


def test_what_a_folder_or_a_name_is_not(tmp_path: Path) -> None:
    for name, rows in parts().items():
        rows.to_csv(str(tmp_path / f"{name}.csv"), index=False, sep=";")
    told = "there are text;label. They look separated by a semicolon. .* set data.name: files and name the files"
    with pytest.raises(DataError, match=told):
        load_splits(str(tmp_path))
    with pytest.raises(DataError, match="data.name: .*train.csv is a file. Set data.name: files and name the file in"):
        load_splits(str(tmp_path / "train.csv"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="data.name: the data set '.*broken' .*cannot be loaded: Parquet"):
        load_splits(str(broken))


def test_class_names_in_parquet_files_are_the_classes(tmp_path: Path) -> None:
    paths = {name: str(tmp_path / f"{name}.parquet") for name in ("train", "validation", "test")}
    for name, rows in parts().items():
        rows.to_parquet(paths[name])
    assert load_splits("files", **paths).labels == ("pos", "neg")
    assert load_splits("files", **paths, labels=NAMES[::-1]).train.labels == (1, 0) * 5
    other = part("other").cast_column("label", datasets.ClassLabel(names=NAMES[::-1]))
    other.to_parquet(str(tmp_path / "other.parquet"))
    assert load_splits("files", **paths | {"test": str(tmp_path / "other.parquet")}).test.labels == (1, 0) * 5
    with pytest.raises(DataError, match="data.train: the files declare other classes of label: .*pos, neg; .*neg, pos"):
        load_splits("files", **paths | {"train": [paths["train"], str(tmp_path / "other.parquet")]})


# ---- what a folder holds, and what of it is read


def written(folder: Path, **contents: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return str(folder)


def test_csv_in_a_folder_means_what_it_means_as_a_file(tmp_path: Path) -> None:
    rows = "text,label\n" + "".join(
        f"{text},{label}\n" for text, label in zip("abcdef", ["NA", "EU", "AS"] * 2, strict=True)
    )
    folder = written(tmp_path / "files", train__csv=rows, test__csv=rows.replace("a,", "None,"))
    splits = load_splits(folder, labels=["NA", "EU", "AS"], validation_fraction=0.5)
    assert splits.test.labels == (0, 1, 2) * 2 and splits.test.texts[0] == "None"
    with pytest.raises(DataError, match="has the label 'NA', .*Where 'NA' is a class, name every class in data.labels"):
        load_splits(folder)


def test_a_format_that_was_set_before_saving_is_not_what_is_read(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    datasets.DatasetDict({name: rows.with_format("torch") for name, rows in parts().items()}).save_to_disk(folder)
    assert load_splits(folder).train.labels == (0, 1) * 5


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_validation_splits_by_their_other_names(tmp_path: Path, name: str) -> None:
    folder = str(tmp_path / "saved")
    datasets.DatasetDict({"train": part("train"), name: part("held", 4), "test": part("test")}).save_to_disk(folder)
    splits = load_splits(folder)
    assert len(splits.train) == 10 and splits.validation.texts == tuple(f"held {n}" for n in range(4))


def test_slices_of_several_splits(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    datasets.DatasetDict(parts()).save_to_disk(folder)
    splits = load_splits(folder, train="train[:4]+validation[:50%]")
    assert splits.train.texts == tuple(
        f"{name} {n}" for name, rows in (("train", 4), ("validation", 5)) for n in range(rows)
    )
    for wrong in ("train[a:b]", "trian[:4]", "train+dev"):
        with pytest.raises(DataError, match="data.train: .*saved has no split '.*'; there are train, validation, test"):
            load_splits(folder, train=wrong)


def test_lists_of_one_class_each_have_its_name(tmp_path: Path) -> None:
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=NAMES))}
    )
    rows = datasets.Dataset.from_dict({"text": list("abcd"), "label": [[0], [1]] * 2}, features=kinds)
    folder = str(tmp_path / "saved")
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(folder)
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    rows.to_parquet(str(tmp_path / "others.parquet"))
    files = {"train": tmp_path / "rows.parquet", "test": tmp_path / "others.parquet"}
    for splits in (
        load_splits(folder, validation_fraction=0.5),
        load_splits("files", **files, validation_fraction=0.5),
    ):
        assert splits.labels == ("pos", "neg") and splits.test.labels == (0, 1) * 2


def test_what_a_folder_leaves_out_is_told(tmp_path: Path) -> None:
    rows = "text,label\na,0\nb,1\nc,0\nd,1\n"
    folder = written(
        tmp_path / "files", train__csv=rows, test__csv=rows, README__md="-", more__jsonl="{}", notes__txt="-"
    )
    told = f"data.name: {folder}: 2 of 4 files are not read: 1 with .jsonl, 1 with .txt."
    assert load_splits(folder, validation_fraction=0.5).notes == (told,)
    images = tmp_path / "images"
    for split in ("train", "test"):
        for name in NAMES:
            (images / split / name).mkdir(parents=True)
            for number in range(3):
                ending = "img" if number == 2 else "png"
                Image.new("L", (4, 4), number).save(images / split / name / f"{number}.{ending}", format="PNG")
    splits = load_image_splits(str(images), validation_fraction=0.5)
    assert splits.notes == (f"data.name: {images}: 4 of 12 files are not read: 4 with .img.",)


def test_classes_that_train_lacks_are_told(tmp_path: Path) -> None:
    three = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    made = {
        name: datasets.Dataset.from_dict({"text": [f"{name} {n}" for n in range(4)], "label": labels}, features=three)
        for name, labels in (("train", [0, 2] * 2), ("validation", [0, 2] * 2), ("test", [0, 1] * 2))
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "saved"))
    (note,) = load_splits(str(tmp_path / "saved")).notes
    assert note.startswith(
        "data.train: no row is of 1 of the 3 classes (b), and 0 of 4 validation rows and 2 of 4 test"
    )
