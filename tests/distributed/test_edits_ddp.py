"""Two processes edit the texts that one would, and make its gradient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import edited, tiny
from tests.distributed import edit_cases
from tests.distributed.edit_cases import CASES, OWN

at_two = edit_cases.at_two


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_gradient_of_one(name: str, left: Path) -> None:
    expected = edit_cases.gradient(edited.bert(OWN), CASES[name]())
    assert tiny.largest_difference(expected, load_file(left / f"{name}.safetensors")) < 1e-9


def test_a_row_is_edited_alike_whichever_process_has_it(left: Path) -> None:
    one, other = (json.loads((left / f"texts-{rank}.json").read_text()) for rank in (0, 1))
    assert one.keys() | other.keys() == edit_cases.trained_on().keys() and not one.keys() & other.keys()
    assert one | other == edit_cases.trained_on()
