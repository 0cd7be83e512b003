"""Losses: numbers worked out by hand, torch's own functions in float64, and gradients that survive confidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.oracles import labelled
from textadv.values import losses
from textadv.values.losses import DIVERGENCES, LOSSES, cross_entropy, dlr, margin, targeted_dlr


def kl(clean: Tensor, perturbed: Tensor) -> Tensor:
    return losses.kl(clean, perturbed, labelled([0] * len(clean)))


def symmetric_kl(clean: Tensor, perturbed: Tensor) -> Tensor:
    return losses.symmetric_kl(clean, perturbed, labelled([0] * len(clean)))


def drawn(rows: int, classes: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


def test_cross_entropy_of_worked_rows() -> None:
    """Probabilities 1/2 and 1/4 of the label cost log 2 and log 4."""
    logits = torch.tensor([[math.log(2), math.log(1), math.log(1)], [math.log(1), math.log(2), math.log(1)]])
    assert cross_entropy(logits.double(), labelled([0, 2])).tolist() == pytest.approx([math.log(2), math.log(4)])


def test_margin_of_worked_rows() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, 1.0, 4.0]])
    assert margin(logits, labelled([0, 1])).tolist() == [-0.5, 3.0]


def test_dlr_of_worked_rows() -> None:
    """-(4 - 2) / (4 - 0) and, of a misclassified row, -(1 - 4) / (4 - 0)."""
    logits = torch.tensor([[4.0, 2.0, 0.0], [4.0, 1.0, 0.0]]).double()
    assert dlr(logits, labelled([0, 1])).tolist() == pytest.approx([-0.5, 0.75])


def test_targeted_dlr_of_worked_rows_ranks_the_label_too() -> None:
    """-(4 - 2) / (4 - (1 + 0) / 2), and with the label third: -(1 - 0) / (4 - (1 + 0) / 2)."""
    logits = torch.tensor([[4.0, 2.0, 1.0, 0.0], [4.0, 2.0, 1.0, 0.0]]).double()
    found = targeted_dlr(logits, labelled([0, 2]), torch.tensor([1, 3]))
    assert found.tolist() == pytest.approx([-2 / 3.5, -1 / 3.5])


@pytest.mark.parametrize("targets", [None, [4, 3, 2, 1, 0]], ids=["dlr", "targeted"])
def test_dlr_does_not_change_with_shift_and_scale_and_its_denominator_carries_a_gradient(
    targets: list[int] | None,
) -> None:
    logits, batch = drawn(5, 5), labelled([0, 1, 4, 3, 2])

    def value(logits: Tensor) -> Tensor:
        return dlr(logits, batch) if targets is None else targeted_dlr(logits, batch, torch.tensor(targets))

    assert torch.allclose(value(logits), value(7 * logits + 3))
    assert torch.allclose(value(logits.float()).double(), value(logits), atol=1e-5)
    assert torch.autograd.gradcheck(lambda leaf: value(leaf), logits.requires_grad_())
    (grad,) = torch.autograd.grad(value(logits).sum(), logits)
    # Of degree 0 in the logits: the gradient is orthogonal to them, which a constant denominator would break.
    assert float((grad * logits.detach()).sum(dim=1).abs().max()) < 1e-9
    assert float(grad.abs().amax(dim=1).min()) > 0


def test_dlr_says_where_it_does_not_exist() -> None:
    batch, targets = labelled([0, 1]), torch.tensor([1, 0])
    with pytest.raises(ValueError, match="dlr needs at least 3 classes, got 2. Use margin"):
        dlr(torch.zeros(2, 2), batch)
    with pytest.raises(ValueError, match="targeted dlr needs at least 4 classes, got 3"):
        targeted_dlr(torch.zeros(2, 3), batch, targets)
    for chats in (lambda logits: dlr(logits, batch), lambda logits: targeted_dlr(logits, batch, targets)):
        with pytest.raises(ValueError, match="chats have none. Use margin or cross_entropy"):
            chats(torch.zeros(2, 4, 9))


def test_kl_of_worked_rows() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = log(2) / 2 + log(2/3) / 2 = 0.1438."""
    half, quarter = torch.tensor([[0.5, 0.5]]).double().log(), torch.tensor([[0.25, 0.75]]).double().log()
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl(half, quarter).item() == pytest.approx(expected)
    back = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert symmetric_kl(half, quarter).item() == pytest.approx(expected + back)
    assert kl(half, half).item() == 0


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_values_and_gradients_agree_with_torch(classes: int) -> None:
    labels = [row % classes for row in range(20)]
    ours, theirs = (drawn(20, classes).requires_grad_() for _ in range(2))
    clean, clean_too = (drawn(20, classes, seed=1).requires_grad_() for _ in range(2))
    pairs = [
        (cross_entropy(ours, labelled(labels)), F.cross_entropy(theirs, torch.tensor(labels), reduction="none")),
        (kl(clean, ours), F.kl_div(theirs.log_softmax(1), clean_too.softmax(1), reduction="none").sum(1)),
        (kl(ours, clean), F.kl_div(clean_too.log_softmax(1), theirs.softmax(1), reduction="none").sum(1)),
    ]
    for mine, reference in pairs:
        assert mine.shape == (20,)
        assert torch.allclose(mine, reference, atol=1e-12)
        weights = torch.arange(1.0, 21.0).double()
        for own, other in ((ours, theirs), (clean, clean_too)):
            (found,) = torch.autograd.grad((mine * weights).sum(), own, allow_unused=True, retain_graph=True)
            (right,) = torch.autograd.grad((reference * weights).sum(), other, allow_unused=True, retain_graph=True)
            assert (found is None) == (right is None)
            assert found is None or torch.allclose(found, right, atol=1e-10)


def test_the_margin_gradient_is_minus_one_at_the_label_and_one_at_the_runner_up() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, 1.0, 4.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(margin(logits, labelled([0, 1])).sum(), logits)
    assert grad.tolist() == [[-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]]


@pytest.mark.parametrize("gap", [20.0, 40.0, 60.0])
def test_cross_entropy_keeps_its_gradient_where_softmax_minus_one_rounds_to_zero(gap: float) -> None:
    logits = torch.tensor([[gap, 0.0, -1.0]], requires_grad=True)
    loss = cross_entropy(logits, labelled([0]))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    others = torch.tensor([-gap, -gap - 1], dtype=torch.float64).exp()
    expected = torch.tensor([-float(others.sum()), *others.tolist()], dtype=torch.float64)
    assert torch.allclose(grad.double() / expected, torch.ones(1, 3).double(), rtol=1e-4)
    assert float(loss.detach()) == pytest.approx(float(others.sum()), rel=1e-4)


@pytest.mark.parametrize("gap, dtype", [(20.0, torch.float32), (60.0, torch.float32), (60.0, torch.float64)])
def test_kl_keeps_its_gradient_where_both_predictions_round_to_one(gap: float, dtype: torch.dtype) -> None:
    """Two confident predictions: the gradient is q - p, whose label entry is minus the sum of the others."""
    clean = torch.tensor([[gap, 0.0, -1.0]], dtype=dtype)
    moved = torch.tensor([[gap, 0.5, -1.25]], dtype=dtype, requires_grad=True)
    value = kl(clean, moved)
    (grad,) = torch.autograd.grad(value.sum(), moved)
    p = torch.tensor([-gap, -gap - 1], dtype=torch.float64).exp()
    q = torch.tensor([-gap + 0.5, -gap - 1.25], dtype=torch.float64).exp()
    expected = torch.tensor([-float((q - p).sum()), *(q - p).tolist()], dtype=torch.float64)
    assert torch.allclose(grad.double() / expected, torch.ones(1, 3).double(), rtol=1e-4)
    # p1 log(p1/q1) summed exactly: the label's term is log((1 + sum q) / (1 + sum p)), to first order the difference.
    exact = float(q.sum() - p.sum()) + float((p * torch.tensor([-0.5, 0.25])).sum())
    assert float(value.detach()) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_single(dtype: torch.dtype) -> None:
    logits, clean = drawn(8, 3).to(dtype), drawn(8, 3, seed=1).to(dtype)
    batch = labelled([row % 3 for row in range(8)])
    for loss in LOSSES.values():
        assert loss(logits, batch).dtype == torch.float32
        assert torch.allclose(loss(logits, batch), loss(logits.float(), batch))
    for divergence in DIVERGENCES.values():
        rows = labelled([0] * len(logits))
        assert divergence(clean, logits, rows).dtype == torch.float32
        assert torch.allclose(divergence(clean, logits, rows), divergence(clean.float(), logits.float(), rows))
    assert cross_entropy(logits.double(), batch).dtype == torch.float64


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits, clean = drawn(8, 3), drawn(8, 3, seed=1)
    labels = [row % 3 for row in range(8)]
    for row in range(8):
        alone = labelled(labels[row : row + 1])
        for loss in LOSSES.values():
            assert torch.equal(loss(logits, labelled(labels))[row], loss(logits[row : row + 1], alone)[0])
        for divergence in DIVERGENCES.values():
            whole = divergence(clean, logits, labelled(labels))[row]
            part = divergence(clean[row : row + 1], logits[row : row + 1], alone)[0]
            assert torch.allclose(whole, part, rtol=1e-14)


def test_divergences_are_positive_apart_and_symmetric_where_they_say_so() -> None:
    p, q = drawn(50, 4), drawn(50, 4, seed=1)
    assert bool((kl(p, q) > 0).all())
    assert torch.allclose(symmetric_kl(p, q), symmetric_kl(q, p))
    assert not torch.allclose(kl(p, q), kl(q, p))
    assert torch.allclose(kl(p, p + 5.0), torch.zeros(50).double(), atol=1e-12)
