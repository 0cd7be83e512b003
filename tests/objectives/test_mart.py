"""MART on numbers worked out by hand: two classes, three classes, chats, and rows of which the model is certain."""

from __future__ import annotations

import math

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from tests.objectives.dial import Dial, push, rows
from tests.objectives.dictated import Odds, Replace, chats, plain, table
from textadv.objectives import Mart, Moment, Term
from textadv.objectives.margin_aware import boosted_cross_entropy
from textadv.values.batch import Batch

THREE = Batch(
    {"input_ids": torch.ones((1, 1), dtype=torch.int64)},
    torch.tensor([0]),
    torch.ones((1, 1), dtype=torch.bool),
    torch.tensor([7]),
    torch.tensor([1]),
)


def only(objective: Mart, model: nn.Module, batch: Batch) -> Term:
    (term,) = objective(model, batch, Moment(4, 0.5, True))
    return term


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_the_boosted_loss_also_charges_for_the_largest_wrong_class() -> None:
    """-log 0.5 - log 0.7; the class of 0.2 counts in neither."""
    assert boosted_cross_entropy(log(0.5, 0.3, 0.2), THREE).item() == approx(-math.log(0.5) - math.log(0.7), abs=1e-12)
    assert -math.log(0.5) - math.log(0.7) == approx(1.05, abs=2e-3)
    assert boosted_cross_entropy(log(0.1, 0.3, 0.6), THREE).item() == approx(-math.log(0.1) - math.log(0.4), abs=1e-12)


def test_for_two_classes_it_is_twice_the_cross_entropy() -> None:
    assert boosted_cross_entropy(log(0.7, 0.3), THREE).item() == approx(-2 * math.log(0.7), abs=1e-12)


class Scripted(nn.Module):
    """Three classes: probabilities (0.8, 0.1, 0.1) as long as nothing is added, (0.5, 0.3, 0.2) where 1 is."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(2, 1, _weight=torch.zeros(2, 1, dtype=torch.float64))
        self.embeddings.requires_grad_(False)
        self.clean = nn.Parameter(log(0.8, 0.1, 0.1)[0])
        self.moved = nn.Parameter(log(0.5, 0.3, 0.2)[0])

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor) -> Tensor:
        share = self.embeddings(input_ids).sum(dim=(1, 2)).unsqueeze(1)
        return (1 - share) * self.clean + share * self.moved


CLEAN, MOVED = (0.8, 0.1, 0.1), (0.5, 0.3, 0.2)
KL = sum(p * math.log(p / q) for p, q in zip(CLEAN, MOVED, strict=True))


def test_a_row_pays_for_the_divergence_as_much_as_the_clean_prediction_doubts_it() -> None:
    term = only(Mart(push(1.0), 5.0), Scripted(), THREE)
    assert term.losses.tolist() == approx([-math.log(0.5) - math.log(0.7) + 5 * KL * (1 - 0.8)], abs=1e-12)
    assert (term.name, term.passes, term.adversarial, term.weight) == ("mart", 2, True, 1.0)


def test_the_gradient_is_that_of_the_formula_written_out() -> None:
    """Through the boosted loss, the divergence and the doubt; softmax, logarithms and a product, nothing stopped."""
    model = Scripted()
    only(Mart(push(1.0), 5.0), model, THREE).losses.sum().backward()
    clean, moved = (value.detach().clone().requires_grad_() for value in (model.clean, model.moved))
    p, q = clean.softmax(0), moved.softmax(0)
    (-q[0].log() - (1 - q[1]).log() + 5 * (p * (p / q).log()).sum() * (1 - p[0])).backward()
    assert torch.allclose(model.clean.grad, clean.grad, atol=1e-12) and clean.grad.abs().max() > 0.05
    assert torch.allclose(model.moved.grad, moved.grad, atol=1e-12) and moved.grad.abs().max() > 0.1


def test_two_classes_by_the_dial() -> None:
    """Losses 0.8 clean and 1.5 moved: 2 x 1.5 + weight x KL x (1 - exp(-0.8))."""
    p, q = math.exp(-0.8), math.exp(-1.5)
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    for weight in (0.0, 5.0):
        term = only(Mart(push(0.7), weight), Dial(0.8), rows())
        assert term.losses.tolist() == approx([3.0 + weight * divergence * (1 - p)], abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("margin", [30.0, -30.0, 60.0])
def test_it_stays_finite_and_keeps_its_slope_on_certain_rows(margin: float, dtype: torch.dtype) -> None:
    """1 - p is exactly 0 in float32 there, and its logarithm is not needed."""
    logits = torch.tensor([[margin, 0.0, -1.0]], dtype=dtype, requires_grad=True)
    losses = boosted_cross_entropy(logits, THREE)
    losses.sum().backward()
    assert losses.dtype == torch.float32 and bool(torch.isfinite(losses).all())
    # A wrong row pays 30 nats and log(1 + e) - 1 for its label, and log(1 + e) for the largest other class.
    wrong = 30 + 2 * math.log(1 + math.e) - 1
    assert losses.item() == approx(wrong if margin < 0 else 0, rel=2e-2, abs=1e-8)
    exact = 2 * math.exp(-margin) + math.exp(-margin - 1) if margin > 0 else 1.0
    assert -float(logits.grad[0, 0]) == approx(exact, rel=0.02)


ODDS: Odds = {2: {4: 0.5, 3: 2.0}, 4: {5: 1.0, 3: 1.2}, 6: {4: 1.7, 3: 1.0}}


def test_each_token_of_an_answer_has_a_doubt_of_its_own() -> None:
    """Token 2 is turned into 6: the first token of the answer differs, the second, after 4, does not."""
    term = only(Mart(Replace(6), 2.0), plain(table(ODDS)), chats([[3]] * 2, [[4], [4, 5]]))
    p, q, r = (torch.softmax(table(ODDS)[token], dim=0) for token in (2, 6, 4))
    first = 1.7 - math.log(1 - math.exp(-1.0)) + 2 * float((p * (p / q).log()).sum()) * (1 - math.exp(-0.5))
    second = 1.0 - math.log(1 - math.exp(-1.2))
    assert float(r.max()) == approx(math.exp(-1.0), abs=1e-9)
    assert term.losses.tolist() == approx([first, (first + second) / 2], abs=1e-9)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="objective.weight must not be negative, got -1"):
        Mart(push(0.0), -1.0)
