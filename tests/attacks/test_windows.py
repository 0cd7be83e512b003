"""Windows of the Square attack: their sizes, where they may lie, and the bumps that fill them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from textadv.attacks.parts.windows import Draws, bump, canvas_of, drawn_window, tiles, window_sides
from textadv.values.randomness import row_generators


def test_windows_have_their_share_of_the_area_and_reach_the_last_offset_of_oblong_pictures() -> None:
    canvas = canvas_of(torch.ones((1, 3, 6, 20), dtype=torch.bool))
    for share, sides in ((0.3, (6, 6)), (0.8, (6, 16)), (0.05, (2, 2)), (0.001, (1, 1)), (1.0, (6, 20))):
        assert tuple(int(side) for side in window_sides(canvas, share)) == sides
    tall = canvas_of(torch.ones((1, 3, 20, 6), dtype=torch.bool))
    assert tuple(int(side) for side in window_sides(tall, 0.8)) == (16, 6)
    assert tuple(int(side) for side in window_sides(canvas, 0.001, odd=True)) == (3, 3)
    assert tuple(int(side) for side in window_sides(canvas, 0.15, odd=True)) == (5, 5)
    corners = set()
    for down in (0.0, 0.5, 1 - 2**-24):
        for right in (0.0, 1 - 2**-24):
            window = drawn_window(canvas, window_sides(canvas, 0.05), torch.tensor([down]), torch.tensor([right]))
            corners.add((int(window.top), int(window.left)))
            assert int(window.mask(canvas).sum()) == 4
    assert corners == {(0, 0), (0, 18), (2, 0), (2, 18), (4, 0), (4, 18)}


def test_only_lines_with_an_editable_cell_are_places() -> None:
    mask = torch.zeros((2, 1, 5, 6), dtype=torch.bool)
    mask[0, :, 1:4, 2:] = True
    mask[1, :, [0, 4], 3] = True
    canvas = canvas_of(mask)
    assert (canvas.height.tolist(), canvas.width.tolist()) == ([3, 2], [4, 1])
    assert canvas.y.tolist() == [[-1, 0, 1, 2, -1], [0, -1, -1, -1, 1]]
    assert canvas.x.tolist() == [[-1, -1, 0, 1, 2, 3], [-1, -1, -1, 0, -1, -1]]


def nested(tall: int, wide: int) -> Tensor:
    """One bump as its authors build it: rectangles around the centre, each a cell larger and flatter; of norm 1."""
    heights = torch.zeros((tall, wide), dtype=torch.float64)
    y, x = tall // 2, wide // 2
    for n in range(max(y, x) + 1):
        heights[max(y - n, 0) : y + n + 1, max(x - n, 0) : x + n + 1] += 1 / (n + 1) ** 2
    return heights / heights.norm() if heights.any() else heights


@pytest.mark.parametrize("sides", [(3, 3), (5, 5), (4, 7), (9, 6), (1, 4), (1, 1)])
def test_a_bump_is_the_papers_each_half_of_norm_1(sides: tuple[int, int]) -> None:
    tall, wide = sides
    sizes, shape = (torch.tensor([tall]), torch.tensor([wide])), (10, 8)
    above = torch.cat([nested(tall // 2, wide), -nested(tall - tall // 2, wide)])
    beside = torch.cat([nested(tall, wide // 2), -nested(tall, wide - wide // 2)], dim=1)
    for upright, expected in ((True, above), (False, beside)):
        found = bump(sizes, torch.tensor([upright]), shape)[0]
        assert torch.allclose(found[:tall, :wide], expected)
        assert not found[tall:].any() and not found[:, wide:].any()


def test_tiles_of_a_fifth_rounded_down_stand_in_the_middle_each_with_its_own_sign_and_way() -> None:
    canvas = canvas_of(torch.ones((1, 2, 13, 15), dtype=torch.bool))
    signs, upright = torch.ones((1, 2, 25), dtype=torch.int64), torch.ones((1, 25), dtype=torch.bool)
    signs[0, 1, 7], upright[0, 3] = -1, False
    found = tiles(canvas, signs, upright)
    one, lying = torch.cat([nested(1, 3), -nested(1, 3)]), torch.cat([nested(2, 1), -nested(2, 2)], dim=1)
    expected = torch.zeros(13, 15, dtype=torch.float64)
    expected[1:11] = one.repeat(5, 5)
    expected[1:3, 9:12] = lying
    assert torch.allclose(found[0, 0], expected)
    assert torch.allclose(found[0, 1, 3:5, 6:9], -one)
    assert int((found[0, 0] != found[0, 1]).sum()) == int((one != 0).sum())
    small = tiles(canvas_of(torch.ones((1, 1, 3, 4), dtype=torch.bool)), signs[:, :1], upright)
    assert int((small != 0).sum()) == 12


def test_the_last_offset_can_be_left_out_but_where_it_is_the_only_one() -> None:
    canvas = canvas_of(torch.ones((1, 1, 6, 8), dtype=torch.bool))
    nearly = torch.tensor([1 - 2**-24])
    for side, last, corner in ((3, True, (3, 5)), (3, False, (2, 4)), (6, False, (0, 1))):
        window = drawn_window(canvas, (torch.tensor([side]), torch.tensor([side])), nearly, nearly, last=last)
        assert (int(window.top), int(window.left)) == corner


def test_a_rows_numbers_do_not_depend_on_which_rows_are_dropped() -> None:
    ids = torch.tensor([5, 6, 7])
    together, alone = (Draws.of(row_generators(0, 0, rows, 0), 3) for rows in (ids, ids[2:]))
    assert torch.equal(together.numbers(4)[2], alone.numbers(4)[0])
    for query in range(600):
        if query == 100:
            together = together.rows(torch.tensor([True, False, True]))
        if query == 256:
            together = together.rows(torch.tensor([False, True]))
        assert torch.equal(together.query()[-1], alone.query()[0])
