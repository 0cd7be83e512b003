"""The picture of attacked images: what stands where, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from textadv.measuring import InspectedImage
from textadv.report import write_grid
from textadv.report.grid import GAP, SIDE


def row(original: torch.Tensor, adversarial: torch.Tensor) -> InspectedImage:
    return InspectedImage(7, "cat", original, adversarial, 1.0, 0.1, ("cat", 0.9), ("dog", 0.6))


def cells(path: Path, side: int, rows: int = 1) -> list[np.ndarray]:
    """The three cells of the first row, every square of pixels as one."""
    with Image.open(path) as image:
        sheet = np.asarray(image)
    scale = SIDE // side
    assert sheet.shape[1] == 3 * side * scale + 4 * GAP and sheet.shape[0] > rows * side * scale
    return [
        sheet[GAP : GAP + side * scale, left : left + side * scale][scale // 2 :: scale, scale // 2 :: scale]
        for left in (GAP + column * (side * scale + GAP) for column in range(3))
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_original_adversarial_and_difference_stand_side_by_side(tmp_path: Path, channels: int) -> None:
    original = torch.full((channels, 4, 4), 0.4)
    adversarial = original.clone()
    adversarial[:, 1, 2] += 0.1
    adversarial[:, 3, 0] -= 0.05
    path = write_grid([row(original, adversarial)], tmp_path / "deep" / "grid.png")
    first, second, third = cells(path, 4)
    assert (first == 102).all()
    assert second[1, 2].tolist() == [128] * 3 and second[0, 0].tolist() == [102] * 3
    # Grey where nothing changed; the largest change up is white, half of it down is half-way to black.
    assert third[1, 2].tolist() == [255] * 3 and third[0, 0].tolist() == [128] * 3
    assert abs(int(third[3, 0, 0]) - 64) <= 1


def test_one_channel_moved_is_seen_in_its_colour(tmp_path: Path) -> None:
    original = torch.zeros(3, 2, 2)
    adversarial = original.clone()
    adversarial[0, 0, 0] = 0.2
    third = cells(write_grid([row(original, adversarial)], tmp_path / "grid.png"), 2)[2]
    assert third[0, 0].tolist() == [255, 128, 128]


def test_rows_that_did_not_move_and_several_rows(tmp_path: Path) -> None:
    still = row(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    assert (cells(write_grid([still, still, still], tmp_path / "grid.png"), 4, rows=3)[2] == 128).all()
    with pytest.raises(ValueError, match="at least one row"):
        write_grid([], tmp_path / "none.png")
