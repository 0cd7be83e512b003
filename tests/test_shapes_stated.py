"""Every public function, method and field on tensors states its shapes, and what is stated comes back."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from tests.shapes_seen import SEEN, Seen
from tests.shapes_stated import LETTERS, aliases, unstated
from tests.style import PACKAGE, ROOT, parse, sources

MARGIN = "def margin(logits: Tensor) -> Tensor:\n    "


def test_every_public_function_method_and_field_on_tensors_states_its_shapes() -> None:
    files = sources(PACKAGE)
    known = aliases(files)
    places = [place for source in files for place in unstated(source, known[source.module])]
    assert not places, "\n" + "\n".join(places)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MARGIN + '"""Logits (B, C) to (B,)."""', []),
        (MARGIN + '"""Of logits of any shape."""', []),
        (MARGIN + '"""Shaped as `logits`, (B, C)."""', []),
        (MARGIN + '"""The margin."""', ["margin states no shape"]),
        (MARGIN + '"""The margin of rows (low, high), see f() and (B)."""', ["margin states no shape"]),
        (MARGIN + '"""The margin, (B,)."""', ["margin states the shapes it takes or those it returns, not both"]),
        (
            MARGIN + '"""Logits (B, Q) to (B,)."""',
            ["margin has a shape with Q: take B, S, D, V, C, K, N, T, G, P or a word"],
        ),
        ("def table() -> dict[str, Tensor]:\n    ...", ["table states no shape"]),
        ("def take(rows: 'Tensor | None') -> None:\n    ...", ["take states no shape"]),
        ("def take(image: np.ndarray) -> None:\n    ...", ["take states no shape"]),
        ("def size(batch: Batch) -> int:\n    ...", []),
        ("def _own(rows: Tensor) -> Tensor:\n    ...", []),
        (
            "Row = dict[str, Tensor]\ndef take(row: Row) -> None:\n    ...",
            ["the type Row states no shape", "take states no shape"],
        ),
        ("Row = dict[str, Tensor]\n'''Each (B,).'''\ndef take(row: Row) -> None:\n    '''row: (B,).'''", []),
        ("class A:\n    def take(self, row: Tensor) -> None:\n        ...", ["A.take states no shape"]),
        ("class A:\n    def _take(self, row: Tensor) -> None:\n        ...", []),
        ("class A:\n    '''take: of rows (B,).'''\n    def take(self, row: Tensor) -> None:\n        ...", []),
        ("class A:\n    '''Rows (B,).'''\n    low: Tensor", ["the field A.low states no shape"]),
        ("class A:\n    '''Rows.\n\n    low, high: (B,), both.\n    '''\n    low: Tensor\n    high: Tensor", []),
        (
            "class A:\n    '''low: (B,). high: the end.'''\n    low: Tensor\n    high: Tensor",
            ["the field A.high states no shape"],
        ),
        ("class A:\n    '''A.'''\n    name: str\n    _low: Tensor", []),
        ("class A:\n    def __call__(self, by: Tensor) -> None:\n        '''See `Attack` for the arguments.'''", []),
        ("class A:\n    def __call__(self, by: Tensor) -> None:\n        '''Calls.'''", ["A.__call__ states no shape"]),
    ],
)
def test_the_check_sees_what_is_missing(text: str, told: list[str]) -> None:
    source = parse(f"{PACKAGE}/values/x.py", text)
    found = [place.partition(" ")[2] for place in unstated(source, aliases([source])[source.module])]
    assert found == told


def test_the_letters_are_those_of_the_contributors_page() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = page.partition("Shape letters: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"\*\*([A-Z])\*\*", told)) == set(LETTERS)


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.name)
def test_the_shape_that_is_stated_comes_back(seen: Seen) -> None:
    said = re.sub(r"\s+", " ", inspect.getdoc(seen.of) or "")
    assert seen.stated in said
    found = seen.call()
    assert seen.fits(found.shape), f"{seen.name} came back as {tuple(found.shape)}"


def test_a_shape_fits_itself_alone() -> None:
    one = Seen("f", "(B, ..., D)", lambda: torch.empty(0))
    assert one.fits(torch.Size([3, 9, 8])) and one.fits(torch.Size([3, 8])) and one.fits(torch.Size([3, 1, 1, 8]))
    assert not one.fits(torch.Size([3, 9])) and not one.fits(torch.Size([2, 9, 8])) and not one.fits(torch.Size([8]))
    assert Seen("f", "()", one.call).fits(torch.Size([])) and not Seen("f", "()", one.call).fits(torch.Size([1]))
