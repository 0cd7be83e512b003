"""Image rows: batches in the order of the index, values and shapes that are refused, bytes and half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from textadv.data import DataError, ImageRows, Rows, require_labelled
from textadv.values.batch import Role


def some_rows() -> ImageRows:
    pixels = torch.arange(4 * 3 * 2 * 5).reshape(4, 3, 2, 5) / 119
    return ImageRows(pixels, labels=(3, 1, 4, 1), ids=(10, 11, 12, 13))


def test_batch_takes_rows_in_the_order_of_the_index() -> None:
    rows: Rows = some_rows()
    batch = rows.batch([2, 0])
    assert torch.equal(batch.inputs["pixel_values"], some_rows().pixels[[2, 0]])
    assert batch.labels.tolist() == [4, 3]
    assert batch.ids.tolist() == [12, 10]
    assert batch.labels.dtype == batch.ids.dtype == torch.int64
    assert batch.role.tolist() == [Role.CLEAN, Role.CLEAN]
    assert batch.editable.shape == (2, 1, 2, 5)
    assert batch.editable.all()
    assert len(rows) == 4
    assert rows.lengths == (10, 10, 10, 10)


def test_batch_does_not_share_memory_with_the_rows() -> None:
    rows = some_rows()
    rows.batch([0]).inputs["pixel_values"].zero_()
    assert torch.equal(rows.pixels, some_rows().pixels)


def test_empty_index_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        some_rows().batch([])


@pytest.mark.parametrize("value", [-0.01, 1.5, float("nan")])
def test_values_outside_the_unit_interval_are_refused(value: float) -> None:
    pixels = torch.full((3, 3, 2, 2), 0.5)
    pixels[1, 2, 0, 1] = value
    with pytest.raises(DataError, match=r"\[0, 1\].* in row 1 .*255"):
        ImageRows(pixels, labels=(0, 1, 0), ids=(0, 1, 2))


@pytest.mark.parametrize(
    "pixels", [torch.zeros(2, 4, 4, 4), torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 4, dtype=torch.int64)]
)
def test_wrong_shape_or_type_is_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"\(N, 3, height, width\)"):
        ImageRows(pixels, labels=(0, 1), ids=(0, 1))


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="2, 3 and 2"):
        ImageRows(torch.zeros(2, 3, 4, 4), labels=(0, 1, 1), ids=(0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_divided_by_255_in_the_batch(channels: int) -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(2, channels, 3, 1)
    batch = ImageRows(pixels, labels=(0, 1), ids=(4, 5)).batch([1])
    assert batch.inputs["pixel_values"].dtype == torch.float32
    assert torch.equal(batch.inputs["pixel_values"][0, 0, 0], torch.tensor([0.0, 51 / 255, 1.0]))


def test_positions_of_hidden_states_take_the_place_of_pixels() -> None:
    rows = ImageRows(torch.zeros(2, 3, 4, 4), labels=(0, 1), ids=(0, 1), positions=(5, 2))
    assert rows.batch([0, 1]).editable.tolist() == [[False, False, True, True, True]] * 2


@pytest.mark.parametrize(("stored", "given"), [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")])
def test_pixels_of_half_precision_are_single_in_the_batch(stored: str, given: str) -> None:
    """In half precision pixel + delta would be rounded, by more than a small radius."""
    pixels = torch.rand(2, 3, 4, 4).to(vars(torch)[stored])
    batch = ImageRows(pixels, labels=(0, 1), ids=(0, 1)).batch([1])
    assert batch.inputs["pixel_values"].dtype == vars(torch)[given]
    assert torch.equal(batch.inputs["pixel_values"].to(pixels.dtype), pixels[1:])


def test_repeated_ids_and_negative_labels_are_refused() -> None:
    pixels = torch.zeros(2, 1, 4, 4)
    with pytest.raises(DataError, match="ids must be unique, and 7 stands for more than one row"):
        ImageRows(pixels, (0, 1), (7, 7))
    with pytest.raises(DataError, match="labels must be class numbers from 0 on, got -1"):
        ImageRows(pixels, (0, -1), (0, 1))


FORMATS = ["<f4", ">f4", "<f8", ">f8", "<f2", "|u1"]


@pytest.mark.parametrize("dtype", FORMATS)
def test_numpy_arrays_of_any_byte_order_and_stride_are_the_rows_that_tensors_are(dtype: str) -> None:
    values = np.random.default_rng(0).random((3, 5, 4, 3))
    values = (values * 255 if dtype == "|u1" else values).astype(dtype)
    last, first = values.transpose(0, 3, 1, 2)[::-1], np.ascontiguousarray(values.transpose(0, 3, 1, 2)[::-1])
    rows = ImageRows(last, np.array([2, 0, 1]), np.array([7, 5, 9]))
    tensor = torch.from_numpy(first.astype(first.dtype.newbyteorder("=")))
    same = ImageRows(tensor, (2, 0, 1), (7, 5, 9))
    assert torch.equal(rows.pixels, same.pixels) and rows.pixels.dtype == same.pixels.dtype
    assert (rows.labels, rows.ids) == ((2, 0, 1), (7, 5, 9)) == (same.labels, same.ids)
    assert all(type(number) is int for number in (*rows.labels, *rows.ids))


def test_an_array_is_copied_and_rows_are_numbered_from_0() -> None:
    values = np.full((2, 1, 2, 2), 0.5, dtype=np.float32)
    values.setflags(write=False)
    rows = ImageRows(values, [1, 0])
    assert rows.ids == (0, 1) and torch.equal(rows.batch([1]).ids, torch.tensor([1]))
    rows.pixels.zero_()
    assert float(values.min()) == 0.5


LABELS = [
    torch.tensor([2, 0]),
    torch.tensor([2, 0], dtype=torch.uint8),
    torch.tensor([[2.0], [0.0]]),
    np.array([2, 0], dtype=np.int16),
    np.array([[2], [0]]),
    [np.int64(2), 0.0],
    (2, 0),
]


@pytest.mark.parametrize("labels", LABELS, ids=range(len(LABELS)))
def test_classes_may_be_whole_numbers_of_any_form(labels: object) -> None:
    assert ImageRows(torch.zeros(2, 1, 2, 2), labels).labels == (2, 0)  # type: ignore[arg-type]


WRONG_LABELS = {
    "halves": (np.array([0.5, 1.0]), DataError, "labels must be whole numbers, one for each row, got 0.5 in row 0"),
    "nan": (torch.tensor([1.0, float("nan")]), DataError, "got nan in row 1"),
    "one-hot": (np.eye(2), DataError, r"got shape \(2, 2\). One-hot rows are classes by argmax\(1\)"),
    "names": (["cat", "dog"], DataError, "got a list of 2, <U3 in it. Classes by name are numbered"),
    "ragged": ([[1], [1, 2]], DataError, "labels must be whole numbers, one for each row, got a list of 2"),
    "text": ("01", TypeError, "labels must be whole numbers, one for each row, in a sequence or array, got the text"),
    "number": (3, TypeError, "got the number 3"),
    "negative": ([1, -1], DataError, "labels must be class numbers from 0 on, got -1 in row 1"),
    "mapping": ({0: 1}, TypeError, "got a dict of 1"),
}


@pytest.mark.parametrize(("labels", "kind", "told"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_what_is_no_class_is_told_in_one_sentence(labels: object, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        ImageRows(torch.zeros(2, 1, 2, 2), labels)  # type: ignore[arg-type]


def test_images_in_a_list_are_to_be_stacked() -> None:
    with pytest.raises(TypeError, match="pixels must be a torch tensor or a numpy array, got a list of 2. Stack"):
        ImageRows([torch.zeros(1, 2, 2)] * 2, (0, 1))  # type: ignore[arg-type]


def test_rows_without_classes_can_be_looked_at_and_not_measured() -> None:
    rows = ImageRows(torch.zeros(3, 1, 2, 2))
    assert rows.labels == (-1, -1, -1) and rows.select([2, 0]).ids == (2, 0)
    assert rows.batch([1]).inputs["pixel_values"].shape == (1, 1, 2, 2)
    with pytest.raises(DataError, match=r"labels are missing at 3 of 3 rows, first row ids \[0, 1, 2\]. Give each row"):
        require_labelled(rows)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["0", "2", "1"]),
        np.array(["0", "2", "1"], dtype=object),
        np.array([0, 2, 1], dtype=object),
        np.array([b"0", b"2", b"1"]),
        ["0", "2.0", " 1"],
        pd.Series([0, 2, 1]),
        pd.Series(["0", "2", "1"]).astype("category"),
    ],
    ids=["texts", "objects", "numbers as objects", "bytes", "list", "series", "categories"],
)
def test_labels_are_read_however_they_are_spelled(labels: Any) -> None:
    assert ImageRows(np.zeros((3, 1, 2, 2), np.float32), labels).labels == (0, 2, 1)


def test_a_tensor_that_is_changed_afterwards_does_not_change_the_rows() -> None:
    pixels = torch.full((2, 1, 2, 2), 0.5)
    rows = ImageRows(pixels)
    pixels.zero_()
    assert rows.batch([0]).inputs["pixel_values"].eq(0.5).all()
