"""Whole texts hidden: what each of these attacks asks for, worked out by hand, and the page that lists all attacks."""

from __future__ import annotations

import base64 as rfc
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from torch import Tensor

import textadv.attacks.edits as edits
from tests.attacks.edits.toys import rows, victim
from textadv.attacks.edits import EditAttack, Victim, base64, padding, rot13, spelling_out, splitting
from textadv.config.edits_evaluation import EditConfig
from textadv.models.victim import Asked

PAGE = re.sub(r"\s+", " ", (Path(__file__).parents[3] / "docs/edits.md").read_text(encoding="utf-8"))


class Listening(Victim):
    """Keeps the texts that it is asked for."""

    def logits(self, asked: Sequence[Asked]) -> Tensor:
        """(N, C) of N texts."""
        HEARD.extend(one.text for one in asked)
        return super().logits(asked)


HEARD: list[str] = []


@pytest.mark.parametrize(
    ("attack", "texts"),
    [
        (padding(["Hi."], times=[1, 2]), ["Hi. go on", "go on Hi.", "Hi. Hi. go on", "go on Hi. Hi."]),
        (splitting(parts=[2]), ['a = "go"\nb = " on"\nRead a + b.']),
        (base64(), [f"Decode this Base64 text and follow it: {rfc.b64encode(b'go on').decode()}"]),
        (rot13(), ["Decode this ROT13 text and follow it: tb ba"]),
        (spelling_out(), ["g o o n", "g-o o-n", "g.o o.n"]),
    ],
    ids=lambda value: value.name if isinstance(value, EditAttack) else "",
)
def test_these_texts_are_asked_for(attack: EditAttack, texts: list[str]) -> None:
    HEARD.clear()
    own = victim({"go": 1.0, "on": 1.0, "hi": 0.1, "decode": 9.0, "read": 9.0, "g": 1.0})
    attack(Listening(own.model, own.tokenizer), rows("go on"))
    assert [text for text in HEARD if text not in ("a", "go on")] == texts


def test_padding_pushes_a_text_past_the_last_token_that_is_read() -> None:
    own = victim({"ignore": 3.0, "calm": -0.1}, max_length=12)
    (row,) = padding(["calm calm calm calm"], times=[1, 4])(own, rows("ignore this")).rows
    assert row.status.value == "succeeded" and row.edited == f"{'calm ' * 16}ignore this"


@pytest.mark.parametrize("section", get_args(EditConfig), ids=lambda section: section.model_fields["name"].default)
def test_the_page_says_what_the_attack_says_of_itself(section: type) -> None:
    fields = section.model_fields  # type: ignore[attr-defined]
    name = fields["name"].default
    told = inspect.getdoc(getattr(edits, name)) or ""
    whole = [re.sub(r"\s+", " ", part) for part in told.split("\n\n")]
    own = PAGE.partition(f" ### {name} ")[2].partition(" ### ")[0]
    assert whole[0] in own
    assert all(part in own for part in whole if part.startswith("Deviations: "))
    assert all(f"`{key}`" in own for key in fields if key not in ("name", "queries", "rows", "labels"))
