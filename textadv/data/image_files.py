"""Images from npz files, parquet files and the Hub, as they are stored there."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps

from textadv.data.array_files import Arrays, opened_arrays
from textadv.data.hub import declared, hub_rows
from textadv.data.labels import LabelColumn
from textadv.data.tables import Table, parquet_table
from textadv.values.errors import DataError
from textadv.values.host.reading import HostileError, parsed

ARRAYS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("X_train", "y_train")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels"), ("x_validation", "y_validation")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels"), ("X_test", "y_test")),
}
LARGEST_IMAGE = 2**26
"""Pixels of one image: far more than a camera's, and no more than a second's work."""
GREY_MODES = ("1", "L", "LA")
WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


class Source(Protocol):
    """Images by number: arrays (height, width) or (height, width, channels), uint8 or floating point."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> np.ndarray:
        """One image: (height, width), or (height, width, 3) and the like."""
        ...


class Labelled(NamedTuple):
    """One split as it was read: images, and the column of their labels. notes: what was left out, a sentence each."""

    images: Source
    labels: LabelColumn
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """One split with class ids; images keep the size and the channels that they are stored with.

    ids: the row's index in its source before any sub-sampling. place: what the source is called in errors.
    """

    images: Source
    labels: tuple[int, ...]
    ids: tuple[int, ...]
    place: str

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, index: Sequence[int]) -> Pictures:
        """The rows at these positions, in the order given."""
        return Pictures(
            SomeImages(self.images, tuple(index)),
            tuple(self.labels[i] for i in index),
            tuple(self.ids[i] for i in index),
            self.place,
        )


@dataclass(frozen=True)
class ImageSplits:
    """Train, validation and test images, and the class names in the order of the class ids.

    notes: what reading did that whoever trusts the numbers must know, a sentence each.
    """

    train: Pictures
    validation: Pictures
    test: Pictures
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Pictures]:
        """The splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class SomeImages:
    """Some rows of a source."""

    source: Source
    index: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int, /) -> np.ndarray:
        """One image, shaped as the source has it."""
        return self.source[self.index[place]]


@dataclass(frozen=True)
class _Column:
    """A column of images of a data set of `datasets`."""

    rows: Any
    column: str
    place: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int, /) -> np.ndarray:
        with readable(f"row {place} (counted from 0) of {self.place}"):
            value = self.rows[place][self.column]
            content = value.get("bytes") if isinstance(value, dict) else value
            if isinstance(content, bytes):
                value = Image.open(io.BytesIO(content))
            if not isinstance(value, Image.Image):
                raise DataError(
                    f"data.image: row {place} (counted from 0) of {self.place} has a {type(value).__name__} in column "
                    f"{self.column!r}, which is no image. Name another column, or write it as datasets.Image() does: "
                    "the bytes of an image file."
                )
            return pixels_of(value, f"row {place} of {self.place}")


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Whatever Pillow raises at a broken file, or at one so large that it may be an attack, as a DataError."""
    try:
        # It warns of images that `pixels_of` refuses.
        with parsed(DataError), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except HostileError as error:
        told = str(error).rstrip(". ")
        raise DataError(f"data: {place} cannot be read as an image: {told}. Replace it, or leave it out.") from error


def pixels_of(image: Image.Image, place: str) -> np.ndarray:
    """Grey images as (height, width), others as (height, width, 3); transparent ones are laid on white.

    They stand upright: turned as their EXIF orientation says, where there is one that can be read. Raises DataError
    where they are of more than 8 bits, or larger than `LARGEST_IMAGE`.
    """
    if image.width * image.height > LARGEST_IMAGE:
        raise DataError(
            f"data: {place} has {image.width} x {image.height} pixels, and at most {LARGEST_IMAGE:,} are read. Replace "
            "it by a smaller one, or leave it out."
        )
    if image.mode in WIDE_MODES:
        raise DataError(
            f"data: {place} has more than 8 bits a pixel (mode {image.mode}), and what its white is cannot be known. "
            "Convert it to 8 bits."
        )
    with suppress(SyntaxError):
        ImageOps.exif_transpose(image, in_place=True)
    mode = "L" if image.mode in GREY_MODES else "RGB"
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return np.asarray(image.convert(mode))


def check_distinct(parts: Mapping[str, Sequence[str | Path]], key: str = "data") -> None:
    """Raises DataError where two splits have the same source, or one's folder lies in that of the other.

    parts: what each split is read from, by role: resolved paths, or names. key: what the roles are subkeys of.
    """
    for first, second in (("validation", "test"), ("train", "test"), ("train", "validation")):
        for one, other in product(parts.get(first, ()), parts.get(second, ())):
            if one == other or _nested(one, other):
                raise DataError(
                    f"{key}.{first}: {one} and {key}.{second}: {other} hold the same images. Each split needs images "
                    "of its own: what was trained or chosen on test images would look better than it is. Name others; "
                    f"without {key}.validation images are held out of train."
                )


def _nested(one: str | Path, other: str | Path) -> bool:
    if not isinstance(one, Path) or not isinstance(other, Path):
        return False
    return (one in other.parents and other.is_dir()) or (other in one.parents and one.is_dir())


def read_npz(path: Path, keys: Mapping[str, Sequence[str]]) -> dict[str, Labelled]:
    """The splits of an npz file: of each, images (N, height, width[, channels]) and labels (N,), (N, 1) or one-hot.

    keys: the names of the two arrays of a split; by default x_train and y_train or the like, see `ARRAYS`.
    Raises DataError where an array is missing or is not that, or the file cannot be read without running code.
    """
    if not path.is_file():
        raise DataError(f"data.path: {path} is neither a file nor a folder. Name an npz file, or a folder of images.")
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise DataError(
                f"data.path: {path} is no npz file, which numpy.savez writes. Write images and labels as one (x_train, "
                "y_train, x_test, y_test), or name a folder of images."
            )
    arrays = opened_arrays(path, "data.path")
    pairs = {role: pair for role, known in ARRAYS.items() if (pair := _pair(role, known, arrays, keys))}
    check_distinct({role: pair[:1] for role, pair in pairs.items()}, "data.keys")
    found = {}
    for role, pair in pairs.items():
        missing = [name for name in pair if name not in arrays]
        if len(pair) != 2 or missing:
            raise DataError(
                f"data.keys.{role} must name the array of images and that of labels in {path}, got {list(pair)}; there "
                f"are {', '.join(arrays)}."
            )
        images, labels = (arrays[name] for name in pair)
        _check_arrays(images, labels, f"{pair[0]} and {pair[1]} of {path}")
        column = LabelColumn(labels.tolist(), f"the {role} split of {path}")
        found[role] = Labelled(images if images.dtype == np.uint8 else images.astype(np.float32), column)
    if not found:
        raise DataError(f"data.keys: {path} holds {', '.join(arrays)}. Say which are images and labels of which split.")
    return found


def _pair(
    role: str, known: Sequence[tuple[str, str]], arrays: Arrays, keys: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """The names of a split's arrays: those in `keys`, or known ones that are no other split's; empty where none are."""
    if keys.get(role):
        return tuple(keys[role])
    taken = {name for pair in keys.values() for name in pair[:1]}
    return next((pair for pair in known if set(pair) <= set(arrays) and pair[0] not in taken), ())


def _check_arrays(images: np.ndarray, labels: np.ndarray, place: str) -> None:
    kind = images.dtype == np.uint8 or np.issubdtype(images.dtype, np.floating)
    if images.ndim not in (3, 4) or not kind or not len(images):
        raise DataError(
            f"data.path: {place}: images must be uint8, or floating point in [0, 1], of shape (rows, height, width) or "
            f"(rows, height, width, channels), got {images.dtype} of shape {images.shape}."
        )
    if labels.ndim == 0 or len(labels) != len(images):
        raise DataError(f"data.path: {place}: {len(images)} images and {len(np.atleast_1d(labels))} labels.")
    if images.dtype != np.uint8 and images.min() >= 0 and images.max() <= 1 / 255:
        raise DataError(
            f"data.path: {place}: the images are floating point and none is above 1/255, so they would be all but "
            "black, as bytes are that were divided by 255 twice. Store bytes as uint8, or divide once."
        )
    if images.dtype == np.uint8 and images.max() <= 1:
        raise DataError(
            f"data.path: {place}: the images are bytes and none is above 1, so they would be all but black. Store "
            "bytes as 0 to 255, or numbers in [0, 1] as floating point."
        )


def read_parquet(paths: Sequence[str], key: str, image: str, label: str) -> Labelled:
    """The images and labels of parquet files. Raises DataError, naming `key`, where a file or a column is missing."""
    import datasets
    import pyarrow

    tables = []
    for path in paths:
        try:
            tables.append(parquet_table(path))
        except DataError as error:
            raise DataError(f"{key}: {path} {error}") from error
    try:
        joined = pyarrow.concat_tables(tables)
    except ValueError as error:
        raise DataError(f"{key}: {', '.join(paths)} do not have the same columns: {error}") from error
    try:
        with parsed(DataError):
            return _columns(datasets.Dataset(joined), ", ".join(paths), image, label)
    except HostileError as error:
        raise DataError(f"{key}: {', '.join(paths)} cannot be read as .parquet: {error}. Repair the files.") from error


def read_hub_images(
    name: str, config: str | None, wanted: Mapping[str, str | None], image: str, label: str
) -> dict[str, Labelled]:
    """The splits of a Hub data set, by role, see `read_hub`."""
    found = hub_rows(name, config, wanted)
    return {role: _columns(rows, place, image, label) for role, (place, rows) in found.items()}


def _columns(rows: Any, place: str, image: str, label: str) -> Labelled:
    empty = Table(place, {name: [] for name in rows.column_names}, {})
    empty.column(image, "data.image")
    empty.column(label, "data.label")
    names = declared(rows.features).get(label, ())
    return Labelled(_Column(rows, image, place), LabelColumn(list(rows[label]), place, names))
