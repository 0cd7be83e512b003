"""How a chat model begins by itself: its own refusal, a usual one where it has none, and what it says instead."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.measuring.steered import CROWD, OWN, REFUSALS, SHEETS, TARGET, Sheet, rows, steered
from tests.measuring.talking import END, NO, SORRY, Words
from textadv.measuring.safety.beginnings import Beginnings
from textadv.values.batch import Batch

USUAL = ((NO, SORRY), (SORRY, NO))
BEGINNINGS = Beginnings(Words(), REFUSALS, USUAL)
# Refuses, may begin with a word of the crowd, which leads back to a refusal, and else says something of its own.
REFUSING = SHEETS["own"]


def asked(sheet: Sheet) -> Batch:
    return rows(sheet).batch([0, 2])


def found(sheet: Sheet, what: str) -> tuple[list[list[int]], list[int]]:
    batch = asked(sheet)
    opening, harmful = batch.opening("harmful"), batch.answers["harmful"]
    own = BEGINNINGS.refusal if what == "refusal" else lambda m, b, o: BEGINNINGS.own(m, b, o, harmful)
    tokens, forwards, _ = own(steered(sheet), batch, opening)
    return tokens.tolist(), forwards.tolist()


def test_the_refusal_of_a_model_that_refuses_is_its_own() -> None:
    tokens, forwards = found(REFUSING, "refusal")
    assert tokens == [[SORRY, NO, END]] * 2 and forwards == [3, 3], "a pass for each token"


def test_a_model_that_does_not_refuse_gets_the_likeliest_of_the_usual_ones() -> None:
    """After "sorry" it would surely say "no", after "no" that it is over."""
    answering = replace(REFUSING, first=dict(REFUSING.first) | {OWN[0]: 9.0})
    tokens, forwards = found(answering, "refusal")
    assert tokens == [[SORRY, NO]] * 2 and forwards == [5 + 2] * 2, "five tokens looked at, two refusals compared"


def test_its_own_beginning_is_the_likeliest_that_refuses_nowhere() -> None:
    tokens, forwards = found(REFUSING, "own")
    assert tokens == [list(OWN[:5])] * 2
    # The first tokens' likelihoods, two tokens of the refusal that is tried first, and four after the own one's first.
    assert forwards == [1 + 2 + 4] * 2


def test_a_model_that_every_beginning_leads_to_a_refusal_keeps_the_target() -> None:
    first = {token: value for token, value in REFUSING.first.items() if token != OWN[0]}
    tokens, forwards = found(replace(REFUSING, first=first), "own")
    assert tokens == [[*TARGET, END]] * 2
    assert forwards == [1 + 2 + 3] * 2, "the refusal, and one of the crowd with what it leads to"


def test_a_refusal_without_its_i_is_one() -> None:
    """A model that is led around "I" goes on with "can't": no beginning that answers."""
    decline = Beginnings(Words(), replace(REFUSALS, phrases=(f"I w{OWN[1]}", f"as w{OWN[3]}")), USUAL)
    assert decline._refuses([OWN[1], OWN[2]])
    assert not decline._refuses([OWN[2], OWN[1]]) and not decline._refuses([OWN[3]])


def test_what_names_them_says_all_that_they_follow_from() -> None:
    other = replace(BEGINNINGS, refusals=replace(REFUSALS, phrases=("no",)))
    assert len({repr(BEGINNINGS), repr(other), repr(replace(BEGINNINGS, usual=USUAL[:1]))}) == 3
    assert "0x" not in repr(BEGINNINGS), "no address of an object: it is the same in every process"


def test_an_opening_of_the_template_stands_before_what_is_found() -> None:
    """After the opening, a word of the crowd here, the model says nothing but its refusal's first word."""
    batch = replace(asked(REFUSING), openings={"harmful": torch.tensor([[CROWD[3]], [CROWD[3]]])})
    tokens, _, _ = BEGINNINGS.refusal(steered(REFUSING), batch, batch.opening("harmful"))
    assert tokens.tolist() == [[SORRY, NO, END]] * 2


def test_no_usual_refusal_is_refused() -> None:
    with pytest.raises(ValueError, match="one or more, each of one token or more"):
        Beginnings(Words(), REFUSALS, ())
