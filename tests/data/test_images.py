from __future__ import annotations

import pytest
import torch

from textadv.batch import Role
from textadv.data import DataError, ImageRows, Rows


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


def test_arrays_repeated_ids_and_negative_labels_are_refused() -> None:
    pixels = torch.zeros(2, 1, 4, 4)
    with pytest.raises(DataError, match="pixels must be a tensor, got ndarray. Convert arrays by torch.from_numpy"):
        ImageRows(pixels.numpy(), (0, 1), (0, 1))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="ids must be unique, and 7 stands for more than one row"):
        ImageRows(pixels, (0, 1), (7, 7))
    with pytest.raises(DataError, match="labels must be class numbers from 0 on, got -1"):
        ImageRows(pixels, (0, -1), (0, 1))
