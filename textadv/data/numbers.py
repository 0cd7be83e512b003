"""Numbers that come in arrays: classes, row ids, and numpy arrays as tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textadv.values.errors import DataError
from textadv.values.kinds import told, wrong_kind

WHOLE = "whole numbers, one for each row"
WRITTEN = re.compile(r"\s*[+-]?[0-9]+(\.0*)?\s*")


def from_numpy(array: NDArray[Any]) -> Tensor | None:
    """A copy as a tensor, of any shape, strides and byte order; None where torch has no such numbers."""
    native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False)
    try:
        return torch.from_numpy(native)
    except TypeError:
        return None


def class_numbers(given: object, name: str) -> tuple[int, ...] | None:
    """The classes of N rows, from a sequence or array of shape (N,) or (N, 1); None where none are given.

    Whole numbers may be of any number format, or texts that spell them, as `fetch_openml` has them.
    Raises DataError or TypeError, naming `name`, where they are not classes.
    """
    if given is None:
        return None
    found = _whole(given, name, "Classes by name are numbered in the order of the model's logits.")
    if found and min(found) < 0:
        raise DataError(f"{name} must be class numbers from 0 on, got {min(found)} in row {found.index(min(found))}.")
    return found


def row_numbers(given: object, count: int) -> tuple[int, ...]:
    """The ids of rows, each once; 0 to count - 1 where none are given."""
    if given is None:
        return tuple(range(count))
    found = _whole(given, "ids", "Leave ids out to number the rows.")
    if len(set(found)) < len(found):
        twice = Counter(found).most_common(1)[0][0]
        raise DataError(f"ids must be unique, and {twice} stands for more than one row. Number the rows.")
    return found


def _whole(given: object, name: str, remedy: str) -> tuple[int, ...]:
    """The whole numbers that these are."""
    if isinstance(given, Tensor):
        array = given.detach().cpu().to(torch.float64 if given.is_floating_point() else torch.int64).numpy()
    elif (isinstance(given, Sequence) and not isinstance(given, str | bytes)) or hasattr(given, "__array__"):
        try:
            array = _spelled(np.asarray(given))
        except (ValueError, TypeError, RuntimeError):
            array = np.asarray(None)
    else:
        raise wrong_kind(name, given, f"{WHOLE}, in a sequence or array", remedy)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        raise DataError(f"{name} must be {WHOLE}, got shape {array.shape}. One-hot rows are classes by argmax(1).")
    if array.ndim != 1 or (len(array) and not (array.dtype == bool or np.issubdtype(array.dtype, np.number))):
        raise DataError(f"{name} must be {WHOLE}, got {_contents(given, array)}. {remedy}")
    if np.iscomplexobj(array) or not bool(np.all(np.isfinite(array) & (array == np.floor(array)))):
        odd = int(np.nonzero(~(np.isfinite(array) & (array == np.floor(array.real))))[0][0])
        raise DataError(f"{name} must be {WHOLE}, got {array[odd]} in row {odd}.")
    return tuple(int(value) for value in array.tolist())


def _spelled(array: NDArray[Any]) -> NDArray[Any]:
    """The array; whole numbers in it that stand as texts or as objects, as numbers."""
    if array.dtype.kind not in "OUS" or not array.size:
        return array
    spelled = [value.decode() if isinstance(value, bytes) else str(value) for value in array.reshape(-1).tolist()]
    if not all(WRITTEN.fullmatch(text) for text in spelled):
        return array
    return np.asarray([int(text.partition(".")[0]) for text in spelled]).reshape(array.shape)


def _contents(given: object, array: NDArray[Any]) -> str:
    """What was given, with the kind of what is in it."""
    return told(given) if array.ndim != 1 else f"{told(given)}, {array.dtype} in it"
