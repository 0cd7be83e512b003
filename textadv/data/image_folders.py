"""Images from folders that hold one folder for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from textadv.data.folders import endings_text, files_below, is_hidden
from textadv.data.hub import SAVED
from textadv.data.image_files import Labelled, check_distinct, pixels_of, readable
from textadv.data.labels import LabelColumn
from textadv.values.errors import DataError
from textadv.values.plurals import some

FOLDERS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
HIDDEN = (".", "__MACOSX")
# Pillow knows their endings, and opens them not at all or by means of another program.
NO_IMAGES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PALM", "PDF", "WMF")
# What datasets puts into a folder of images without folders of classes.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class _Files:
    """Images that are opened when they are asked for."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int, /) -> np.ndarray:
        with readable(str(self.paths[place])), Image.open(self.paths[place]) as image:
            return pixels_of(image, str(self.paths[place]))


def read_folders(path: Path, names: Mapping[str, str | None]) -> dict[str, Labelled]:
    """The splits of a folder that holds one folder for each split; names: other names than train, validation, test.

    Raises DataError as `read_folder` and `check_distinct`.
    """
    folders = {}
    for role, known in FOLDERS.items():
        there = (name for name in known if (path / name).is_dir() and name not in names.values())
        name = names.get(role) or next(there, None)
        if name is not None:
            folders[role] = path / name
    if not folders:
        raise DataError(f"data.path: {path} holds no folder train or test. Name them in data.train and data.test.")
    check_distinct({role: [folder.resolve()] for role, folder in folders.items()})
    return {role: read_folder(folder, f"data.{role}") for role, folder in folders.items()}


def read_folder(path: Path, key: str) -> Labelled:
    """The images of a folder that holds one folder of images for each class, in the order of their names.

    Images are files of an ending that Pillow reads, and files without an ending that it opens. Others are counted in a
    note, hidden ones excepted.
    Raises DataError, naming `key`, where there is no such folder, no class in it, or a class without images.
    """
    if path.is_file():
        raise DataError(f"{key}: {path} is a file, and not parquet. Name a folder that has one folder for each class.")
    if not path.is_dir():
        raise DataError(f"{key}: there is no folder {path} (looked in {Path.cwd()}).")
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(HIDDEN))
    if not classes:
        described = next((name for name in (*METADATA, *SAVED) if (path / name).is_file()), None)
        more = f" With {described} in it, it is a data set: set data.name to its folder." if described else ""
        raise DataError(f"{key}: {path} has no folders in it. It needs one for each class, with its images.{more}")
    endings = image_endings()
    files: list[Path] = []
    labels: list[str] = []
    others: list[Path] = []
    for folder in classes:
        # As what notebooks and macOS put there.
        shown = [file for file in files_below(folder, key) if not is_hidden(file, folder, HIDDEN)]
        images = [file for file in shown if _is_image(file, endings)]
        if not images:
            there = f", but {endings_text(shown)}" if shown else ""
            raise DataError(
                f"{key}: the class {folder.name} is empty: {folder} holds no image that Pillow reads{there}."
            )
        files += images
        labels += [folder.name] * len(images)
        others += sorted(set(shown) - set(images))
    loose = [file for file in path.iterdir() if file.suffix.lower() in endings and not file.name.startswith(HIDDEN)]
    notes = _notes(f"{key}: {path}", others, loose)
    return Labelled(_Files(tuple(files)), LabelColumn(labels, str(path), complete=True), notes)


def image_endings() -> frozenset[str]:
    """The endings of the files that Pillow reads, in lower case; plug-ins that were imported add theirs."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind not in NO_IMAGES)


def _is_image(file: Path, endings: frozenset[str]) -> bool:
    if file.suffix:
        return file.suffix.lower() in endings
    try:
        with readable(str(file)), Image.open(file):
            return True
    except DataError:
        return False


def _notes(place: str, others: Sequence[Path], loose: Sequence[Path]) -> tuple[str, ...]:
    """What was left out of a folder: files that are no images, and images outside the folders of the classes."""
    notes = []
    if others:
        notes.append(
            f"{place}: {len(others)} files in the class folders have no ending of an image, and are left out: "
            f"{endings_text(others)}."
        )
    if loose:
        notes.append(
            f"{place}: {some(len(loose), 'image in no class folder is', 'images in no class folder are')} left out, "
            f"such as {min(loose).name}."
        )
    return tuple(notes)
