"""Goals on how a chat model begins its answer: values by hand, where gradients point, when they are reached."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.chats import chats
from textadv.attacks import Avoid, Begin, Elicit, Goal
from textadv.attacks.parts.chat_goals import early_weights
from textadv.values.batch import Batch, padded

# Two answers of three tokens and one of one: 4 6 5 and 7.
ANSWERS = padded([[4, 6, 5], [7]])
EVEN = math.log(8)


def batch(answers: Tensor = ANSWERS) -> Batch:
    """Two prompts of one length, so that place k holds the k-th token of each answer."""
    return chats(((4, 2), (4, 2))).answering(answers)


def logits(**raised: float) -> Tensor:
    """Even logits (B=2, K=3, V=8), with some raised: `r0k1t6=2.0` is 2 at row 0, place 1, token 6."""
    found = torch.zeros(2, 3, 8, dtype=torch.float64)
    for name, value in raised.items():
        row, place, token = (int(part) for part in name[1:].replace("k", " ").replace("t", " ").split())
        found[row, place, token] = value
    return found


def test_weights_fall_over_the_first_tokens_and_add_up_to_one() -> None:
    counted = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    expected = torch.tensor([[1 / 1.8, 0.8 / 1.8, 0], [0, 1 / 1.8, 0.8 / 1.8], [0, 0, 0]], dtype=torch.float64)
    assert torch.allclose(early_weights(counted, 6, 0.8), expected)
    assert torch.equal(early_weights(counted, 1, 0.8)[1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))


def test_begin_is_minus_the_weighted_cross_entropy_of_the_first_tokens() -> None:
    """Each token costs log 8, or log(7 + e^2) - 2 where its logit is raised to 2."""
    cheap = math.log(7 + math.exp(2)) - 2
    value = Begin().value(logits(r0k1t6=2.0), batch(), None)
    first = -(EVEN + 0.8 * cheap + 0.64 * EVEN) / 2.44
    assert value.tolist() == pytest.approx([first, -EVEN])
    assert Begin(tokens=1).value(logits(r0k1t6=2.0), batch(), None).tolist() == pytest.approx([-EVEN, -EVEN])


def test_begin_by_the_margin_is_minus_the_weighted_margin_of_the_first_tokens() -> None:
    """Margins of row 0: the largest other logit minus the token's own: 3, -2 and 0."""
    value = Begin("margin").value(logits(r0k0t1=3.0, r0k1t6=2.0), batch(), None)
    assert value.tolist() == pytest.approx([-(3 - 0.8 * 2 + 0) / 2.44, 0.0])


def test_begin_gives_a_share_of_its_weight_to_the_whole_answer() -> None:
    """Half of it 1, 0.8 and 0.64 over 2.44 for three tokens, half a third each; a token alone has all of it."""
    cheap = math.log(7 + math.exp(2)) - 2
    value = Begin(rest=0.5).value(logits(r0k1t6=2.0), batch(), None)
    assert value.tolist() == pytest.approx([-(EVEN + (0.4 / 2.44 + 1 / 6) * (cheap - EVEN)), -EVEN])
    whole = Begin(rest=1.0).value(logits(r0k1t6=2.0), batch(), None)
    assert torch.allclose(whole, Elicit().value(logits(r0k1t6=2.0), batch(), None))


def test_avoid_is_the_weighted_cross_entropy_of_the_first_tokens() -> None:
    found = logits(r0k1t6=2.0, r1k0t7=1.0)
    assert torch.allclose(Avoid().value(found, batch(), None), -Begin().value(found, batch(), None))


@pytest.mark.parametrize(("goal", "sign"), [(Begin(), 1), (Begin("margin"), 1), (Avoid(), -1)], ids=str)
def test_gradients_raise_or_lower_the_first_tokens_alone_and_the_earliest_most(goal: Goal, sign: int) -> None:
    """Of an answer of eight tokens the last two have none; nor have places where a row has no token."""
    answers = padded([[3, 4, 5, 6, 7, 1, 2, 3], [4]])
    leaf = torch.zeros(2, 8, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(goal.value(leaf, batch(answers), None).sum(), leaf)
    own = sign * grad[0].gather(1, answers[0].unsqueeze(1)).squeeze(1)
    assert (own[:6] > 0).all() and torch.allclose(own[1:6], 0.8 * own[:5])
    assert not grad[0, 6:].any() and not grad[1, 1:].any() and sign * grad[1, 0, 4] > 0


def test_begin_is_reached_where_greedy_decoding_says_the_first_tokens() -> None:
    said = logits(r0k0t4=1.0, r0k1t6=1.0, r0k2t2=1.0, r1k0t7=1.0)
    assert Begin(tokens=2).reached(said, batch()).tolist() == [True, True]
    assert Begin(tokens=3).reached(said, batch()).tolist() == [False, True]


def test_avoid_is_reached_where_greedy_decoding_leaves_the_first_tokens() -> None:
    said = logits(r0k0t4=1.0, r0k1t6=1.0, r0k2t2=1.0, r1k0t7=1.0)
    assert Avoid(tokens=3).reached(said, batch()).tolist() == [True, False]
    assert Avoid(tokens=2).reached(said, batch()).tolist() == [False, False]


def test_they_are_named_and_refuse_what_makes_no_sense() -> None:
    assert [str(Begin()), str(Begin("margin")), str(Avoid(3))] == [
        "first 6 tokens, cross-entropy",
        "first 6 tokens, margin",
        "away from the first 3 tokens",
    ]
    assert str(Begin(rest=0.5)) == "first 6 tokens and all by 0.5, cross-entropy"
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        Begin(rest=1.5)
    for make in (Begin, Avoid):
        for wrong in ({"tokens": 0}, {"decay": 0.0}, {"decay": 1.5}):
            with pytest.raises(ValueError, match="1 or more and their decay is above 0 and at most 1, got"):
                make(**wrong)
