"""Image data sets: from what was read to checked splits, and to rows of a model's size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from textadv.data.characters import Surrogates
from textadv.data.classification import held_out_rows
from textadv.data.examples import sampled
from textadv.data.hub import unread
from textadv.data.image_files import (
    ImageSplits,
    Labelled,
    Pictures,
    SomeImages,
    check_distinct,
    read_hub_images,
    read_npz,
    read_parquet,
)
from textadv.data.image_folders import read_folder, read_folders
from textadv.data.images import ImageRows
from textadv.data.labels import read_labels
from textadv.data.shapes import shapes
from textadv.values.errors import DataError
from textadv.values.host.phases import each
from textadv.values.host.reading import machine_memory, size

SHAPES_NAME, FILES = "builtin:shapes", "files"
ROLES = ("train", "validation", "test")
CONVERTED = {1: "L", 3: "RGB"}


def load_image_splits(
    name: str,
    *,
    path: str | None = None,
    config: str | None = None,
    train: str | Sequence[str] | None = None,
    validation: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    keys: Mapping[str, Sequence[str]] | None = None,
    image: str = "image",
    label: str = "label",
    labels: Sequence[str] | None = None,
    label_offset: int = 0,
    unlabelled: Literal["error", "drop"] = "error",
    validation_fraction: float = 0.1,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    surrogates: Surrogates = "error",
    seed: int = 0,
) -> ImageSplits:
    """Train, validation and test images of one data set, checked.

    name: "builtin:shapes"; "files"; or a Hub data set (then train, validation and test are its split names).
    path: with "files", an npz file that holds all splits, or a folder that holds one folder for each split, with a
        folder of images for each class inside; train, validation and test are then other names of these folders.
    train, validation, test: with "files" and no path, a folder of class folders or parquet file(s) each.
    keys: the arrays of images and labels of each split in an npz file, where they have other names than x_train,
        y_train and the like. image, label: column names, for parquet files and the Hub.
    labels, label_offset, unlabelled, validation_fraction, surrogates (in labels), the numbers of rows and seed: as for
        `load_splits`.

    Raises DataError, naming the key to change.
    """
    sources = {"train": train, "validation": validation, "test": test}
    if name == SHAPES_NAME:
        splits = shapes()
    else:
        found = _files(path, sources, keys or {}, image, label) if name == FILES else {}
        if name != FILES:
            found = read_hub_images(name, config, _split_names(sources), image, label)
        splits = _checked(found, labels, label_offset, unlabelled, surrogates, validation_fraction, seed)
    sizes = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    parts = {role: sampled(part, sizes[role], seed) for role, part in splits.parts.items()}
    if len(set(parts["train"].labels)) < 2:
        raise DataError(f"data.train_rows: all {len(parts['train'])} train rows are of one class. Raise it.")
    left = () if name in (SHAPES_NAME, FILES) else unread(name, config)
    return ImageSplits(**parts, labels=splits.labels, notes=(*left, *splits.notes))


def _files(
    path: str | None,
    sources: Mapping[str, str | Sequence[str] | None],
    keys: Mapping[str, Sequence[str]],
    image: str,
    label: str,
) -> dict[str, Labelled]:
    """What data.path holds, or what data.train, data.validation and data.test do."""
    if path is not None and not Path(path).exists():
        raise DataError(f"data.path: there is no file or folder {path} (looked in {Path.cwd()}).")
    given = {role: [source] if isinstance(source, str) else list(source) for role, source in sources.items() if source}
    if path is not None and not Path(path).is_dir():
        if given:
            role = next(iter(given))
            raise DataError(
                f"data.{role} cannot be set for the npz file {path}, which holds all splits. Leave it out, and name "
                f"the split's arrays in data.keys.{role} if need be."
            )
        return read_npz(Path(path), keys)
    if keys:
        raise DataError("data.keys names the arrays of an npz file, and data.path is none. Leave data.keys out.")
    if path is not None:
        return read_folders(Path(path), _split_names(sources))
    check_distinct({role: [Path(source).resolve() for source in paths] for role, paths in given.items()})
    return {role: _source(paths, f"data.{role}", image, label) for role, paths in given.items()}


def _source(paths: list[str], key: str, image: str, label: str) -> Labelled:
    if len(paths) == 1 and not paths[0].endswith(".parquet"):
        return read_folder(Path(paths[0]), key)
    return read_parquet(paths, key, image, label)


def _split_names(sources: Mapping[str, str | Sequence[str] | None]) -> dict[str, str | None]:
    for role, source in sources.items():
        if source is not None and not isinstance(source, str):
            raise DataError(f"data.{role} must be one name, got {list(source)}.")
    names = {role: source if isinstance(source, str) else None for role, source in sources.items()}
    check_distinct({role: [name] for role, name in names.items() if name is not None})
    return names


def _checked(
    found: Mapping[str, Labelled],
    labels: Sequence[str] | None,
    offset: int,
    unlabelled: Literal["error", "drop"],
    surrogates: Surrogates,
    fraction: float,
    seed: int,
) -> ImageSplits:
    """The splits with class ids, validation held out of train where there is none."""
    for role in ("train", "test"):
        if role not in found:
            raise DataError(
                f"data.{role}: no {role} split. Name one: the report needs rows that neither training nor the choice "
                "of a checkpoint has seen; validation can be held out of train by data.validation_fraction."
            )
    read = read_labels({role: part.labels for role, part in found.items()}, labels, offset, unlabelled, surrogates)
    names = read.names
    parts = {role: _pictures(part, read.ids[role]) for role, part in found.items()}
    empty = sorted(set(range(len(names))) - set(parts["train"].labels))
    if empty:
        raise DataError(
            f"data.train: no row of {parts['train'].place} is of class {names[empty[0]]!r} ({len(empty)} of "
            f"{len(names)} classes are empty). Correct data.labels, or name a split that holds every class."
        )
    if "validation" not in parts:
        kept, held = held_out_rows(parts["train"].labels, fraction, seed)
        whole = parts["train"]
        parts |= {"train": whole.select(kept), "validation": whole.select(held)}
    notes = [note for part in found.values() for note in part.notes]
    return ImageSplits(**parts, labels=names, notes=(*notes, *read.notes))


def _pictures(part: Labelled, ids: Sequence[int | None]) -> Pictures:
    """The images that have a class."""
    kept = {row: label for row, label in enumerate(ids) if label is not None}
    images = part.images if len(kept) == len(ids) else SomeImages(part.images, tuple(kept))
    return Pictures(images, tuple(kept.values()), tuple(kept), part.labels.place)


def own_shape(part: Pictures) -> tuple[int, int, int]:
    """Channels, height and width of the first image."""
    first = _with_channels(part.images[0], part.place)
    height, width, channels = first.shape
    return channels, height, width


class ImageParts(NamedTuple):
    """The rows of each split."""

    train: ImageRows
    validation: ImageRows
    test: ImageRows


@dataclass(frozen=True)
class Fitting:
    """What images are brought to: channels, height and width, and Pillow's filter for those of another size.

    convert: give grey images three equal channels, or make colours grey, where channels differ. resize: where the size
    differs. Without these an image that differs is an error.
    """

    channels: int
    height: int
    width: int
    resample: int = Image.Resampling.BILINEAR
    convert: bool = False
    resize: bool = False


def fitted(part: Pictures, fitting: Fitting) -> ImageRows:
    """The images as rows of one size and with so many channels; nothing else is done to them, bytes stay bytes.

    Raises DataError where an image differs that is not to be changed, or pixels are neither bytes nor in [0, 1].
    """
    first = _fitted(part, 0, fitting)
    needed, memory = len(part) * first.nbytes, machine_memory()
    if memory is not None and needed > memory:
        raise DataError(
            f"data.image_size: {len(part)} images of {tuple(first.shape)} take {size(needed)}, and this machine has "
            f"{size(memory)}. Lower it, or the number of rows."
        )
    pixels = torch.empty((len(part), *first.shape), dtype=first.dtype)
    for row in each("reading images", range(len(part)), len(part)):
        pixels[row] = _fitted(part, row, fitting)
    return ImageRows(pixels, part.labels, part.ids)


def _fitted(part: Pictures, row: int, fitting: Fitting) -> Tensor:
    """One image (channels, height, width)."""
    channels, size = fitting.channels, (fitting.height, fitting.width)
    place = f"row {part.ids[row]} of {part.place}"
    image = _with_channels(part.images[row], place)
    if image.dtype != np.uint8 and not (image.min() >= 0 and image.max() <= 1):
        raise DataError(
            f"data: pixels must lie in [0, 1], got {image.min():g} to {image.max():g} in {place} (from 0). "
            "Store bytes as uint8 or divide them by 255; leave the normalisation by mean and deviation to the model."
        )
    if image.shape[2] != channels and not fitting.convert:
        raise DataError(
            f"data.channels: {place} has {image.shape[2]} channels, expected {channels}. Set "
            "data.channels: 3 to give grey images three equal channels, or 1 to make all of them grey."
        )
    if image.shape[2] != channels:
        image = np.repeat(image, 3, axis=2) if channels == 3 else _grey(image)
    if image.shape[:2] != size and not fitting.resize:
        raise DataError(
            f"data.image_size: {place} has {image.shape[0]} x {image.shape[1]} pixels, expected {size[0]} x {size[1]}. "
            "Set data.image_size to resize all images."
        )
    if image.shape[:2] != size:
        image = _resized(image, size, fitting.resample)
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))


def _with_channels(image: np.ndarray, place: str) -> np.ndarray:
    """The image as (height, width, channels)."""
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in CONVERTED:
        first = image.ndim == 3 and image.shape[0] in CONVERTED
        remedy = "Move them there: images.transpose(0, 2, 3, 1)." if first else "Convert the images to grey or RGB."
        raise DataError(
            f"data: {place} must have 1 or 3 channels, in the last dimension, got an image of shape {image.shape}. "
            f"{remedy}"
        )
    return image


def _grey(image: np.ndarray) -> np.ndarray:
    """Luminance (ITU-R 601-2) of an image of three channels."""
    weighed = image @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return (np.round(weighed) if image.dtype == np.uint8 else weighed.clip(0, 1)).astype(image.dtype)[..., None]


def _resized(image: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """Resized by Pillow, channel by channel; filters that overshoot are cut off at [0, 1]."""
    box, filtered = (size[1], size[0]), Image.Resampling(resample)
    planes = [np.asarray(Image.fromarray(image[..., n]).resize(box, filtered)) for n in range(image.shape[2])]
    return np.stack(planes, axis=2) if image.dtype == np.uint8 else np.stack(planes, axis=2).clip(0, 1)


def shared_images(a: ImageRows, b: ImageRows) -> int:
    """How many rows of `b` are pixel by pixel a row of `a`."""
    seen = set(_digests(a))
    return sum(row in seen for row in _digests(b))


def _digests(rows: ImageRows) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in rows.pixels.numpy()]


def images_digest(rows: ImageRows) -> str:
    """SHA-256 of pixels, labels and ids, in hex: which rows a result is about."""
    found = hashlib.sha256(rows.pixels.numpy().tobytes())
    found.update(repr((rows.labels, rows.ids, tuple(rows.pixels.shape))).encode())
    return found.hexdigest()
