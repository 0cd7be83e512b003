"""The losses of classifiers beside their published formulas, written out with torch alone on small tensors in float64.

What is compared is the value, the gradient of every weight and, where there are batch norms, the running statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, nll_loss, softmax

from tests import normed
from tests.oracles import CurvedBag, token_rows
from textadv.attacks import L2, Attacked, Cost, FixedStep, GradientAttack, Linf, StepSize, ThreatModel, pgd
from textadv.objectives import (
    Adversarial,
    Clean,
    Distributional,
    Free,
    FreeLB,
    Mart,
    Moment,
    Objective,
    PredictorConsistency,
    Regularised,
    WeightPerturbation,
    alum,
    r3f,
    smart,
    trades,
    with_predictor,
)
from textadv.objectives.free import LargestEntryStep
from textadv.values.batch import Batch
from textadv.values.losses import detached_symmetric_kl, symmetric_kl
from textadv.values.spaces import Embeddings, Pixels, Space

CLASSES = 3


@dataclass(frozen=True)
class Given:
    """An attack that finds what it is given."""

    space: Space
    delta: Tensor

    def __call__(
        self, model: nn.Module, batch: Batch, *, step: int = 0, radius_scale: float | Tensor = 1.0, measure: bool = True
    ) -> Attacked:
        gauge = self.delta.flatten(1).norm(dim=1)
        return Attacked(batch.perturbed(self.space, self.delta), gauge, Cost.none(batch), None)


# ---- texts


def text_rows() -> Batch:
    return token_rows([5, 7, 6, 4], classes=CLASSES)


def text_delta(batch: Batch) -> Tensor:
    draw = torch.randn(*batch.editable.shape, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return 0.3 * draw * batch.editable.unsqueeze(-1)


def bag() -> CurvedBag:
    """Without dropout, its embeddings trained."""
    return CurvedBag(classes=CLASSES).eval().requires_grad_()


def bag_logits(model: CurvedBag, batch: Batch, delta: Tensor | float = 0.0, *, detached: bool = False) -> Tensor:
    """The same network on embeddings, written out."""
    embedded = model.embeddings(batch.inputs["input_ids"])
    embedded = (embedded.detach() if detached else embedded) + delta
    bent = torch.sin(embedded @ model.inner.T)
    weight = model.importance[batch.inputs["input_ids"]] * batch.inputs["attention_mask"]
    return (bent * weight.unsqueeze(-1)).sum(dim=1) @ model.head.T + model.bias


def apart(target: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), the sum over rows over their number."""
    return kl_div(log_softmax(logits, dim=1), softmax(target, dim=1), reduction="batchmean")


def released_symmetric(one: Tensor, other: Tensor) -> Tensor:
    return apart(one.detach(), other) + apart(other.detach(), one)


def boosted(logits: Tensor, labels: Tensor) -> Tensor:
    probabilities = softmax(logits, dim=1)
    two = probabilities.argsort(dim=1)[:, -2:]
    wrong = torch.where(two[:, -1] == labels, two[:, -2], two[:, -1])
    return cross_entropy(logits, labels) + nll_loss(torch.log(1 - probabilities), wrong)


def mart_loss(clean: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    p, q = softmax(clean, dim=1), softmax(moved, dim=1)
    doubt = 1 - p.gather(1, labels.unsqueeze(1)).squeeze(1)
    return boosted(moved, labels) + 5.0 * ((p * (p / q).log()).sum(dim=1) * doubt).mean()


Written = Callable[[CurvedBag, Batch, Tensor], Tensor]
TEXTS: dict[str, tuple[Callable[[Given], Objective], Written]] = {
    "clean": (lambda attack: Clean(), lambda m, b, d: cross_entropy(bag_logits(m, b), b.labels)),
    "adversarial": (Adversarial, lambda m, b, d: cross_entropy(bag_logits(m, b, d), b.labels)),
    "regularised": (
        lambda attack: Regularised(attack, 0.2),
        lambda m, b, d: cross_entropy(bag_logits(m, b), b.labels) + 0.2 * cross_entropy(bag_logits(m, b, d), b.labels),
    ),
    "trades": (
        lambda attack: trades(attack, 6.0),
        lambda m, b, d: cross_entropy(bag_logits(m, b), b.labels) + 6.0 * apart(bag_logits(m, b), bag_logits(m, b, d)),
    ),
    "alum": (
        lambda attack: alum(attack, 2.0),
        lambda m, b, d: (
            cross_entropy(bag_logits(m, b), b.labels) + 2.0 * released_symmetric(bag_logits(m, b), bag_logits(m, b, d))
        ),
    ),
    "smart": (
        lambda attack: smart(attack, 2.0),
        lambda m, b, d: (
            cross_entropy(bag_logits(m, b), b.labels) + 2.0 * released_symmetric(bag_logits(m, b), bag_logits(m, b, d))
        ),
    ),
    "smart, the paper's formula": (
        lambda attack: smart(attack, 2.0, constant_targets=False),
        lambda m, b, d: (
            cross_entropy(bag_logits(m, b), b.labels)
            + 2.0 * apart(bag_logits(m, b), bag_logits(m, b, d))
            + 2.0 * apart(bag_logits(m, b, d), bag_logits(m, b))
        ),
    ),
    "r3f": (
        lambda attack: r3f(attack, 2.0),
        lambda m, b, d: (
            cross_entropy(bag_logits(m, b), b.labels)
            + 2.0 * apart(bag_logits(m, b), bag_logits(m, b, d, detached=True))
            + 2.0 * apart(bag_logits(m, b, d, detached=True), bag_logits(m, b))
        ),
    ),
    "mart": (Mart, lambda m, b, d: mart_loss(bag_logits(m, b), bag_logits(m, b, d), b.labels)),
    "distributional": (
        lambda attack: Distributional(attack, 2.0),
        lambda m, b, d: (
            cross_entropy(bag_logits(m, b, d), b.labels) - 2.0 * d.flatten(1).square().sum(dim=1).mean().detach()
        ),
    ),
}


def grads_of(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    named = zip(dict(model.named_parameters()), found, model.parameters(), strict=True)
    return {name: torch.zeros_like(value) if grad is None else grad for name, grad, value in named}


def agree(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert max(float(value.abs().max()) for value in theirs.values()) > 1e-3
    for name, value in theirs.items():
        assert torch.allclose(mine[name], value, atol=1e-10, rtol=1e-9), name


@pytest.mark.parametrize("name", TEXTS)
def test_on_texts_value_and_gradient_are_those_of_the_published_formula(name: str) -> None:
    make, written_out = TEXTS[name]
    model, batch = bag(), text_rows()
    delta = text_delta(batch)
    (term,) = make(Given(Embeddings(), delta))(model, batch, Moment(0))
    expected = written_out(model, batch, delta)
    assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
    agree(grads_of(model, term.losses.mean()), grads_of(model, expected))


def test_constant_targets_halve_the_gradient_at_nearby_logits() -> None:
    draw = torch.Generator().manual_seed(1)
    clean = torch.randn(4, CLASSES, dtype=torch.float64, generator=draw)
    moved = (clean + 1e-4 * torch.randn(4, CLASSES, dtype=torch.float64, generator=draw)).requires_grad_()
    half, whole = (
        torch.autograd.grad(one(clean, moved, text_rows()).sum(), [moved])[0]
        for one in (detached_symmetric_kl, symmetric_kl)
    )
    assert torch.allclose(2 * half, whole, rtol=1e-2, atol=1e-3 * float(whole.abs().max()))


def test_the_noised_branch_of_r3f_does_not_train_the_embeddings() -> None:
    model, batch = bag(), text_rows()
    attack = Given(Embeddings(), text_delta(batch))
    both = [r3f(attack, 1.0, constant_input=flag) for flag in (True, False)]
    ours, papers = (grads_of(model, next(one(model, batch, Moment(0))).losses.mean()) for one in both)
    assert not torch.allclose(ours["embeddings.weight"], papers["embeddings.weight"], atol=1e-3)
    assert torch.allclose(ours["head"], papers["head"], atol=1e-10)


def test_the_predictor_is_simsiams_loss() -> None:
    batch = text_rows()
    model, attack = bag(), Given(Embeddings(), text_delta(text_rows()))
    with with_predictor(model, batch, 4) as head:
        (term,) = PredictorConsistency(attack, 2.0)(model, batch, Moment(0))
        clean, moved = bag_logits(model, batch), bag_logits(model, batch, attack.delta)
        p = [head(logits) for logits in (clean, moved)]
        z = [clean.detach(), moved.detach()]
        similar = [
            (a / a.norm(dim=1, keepdim=True) * b / b.norm(dim=1, keepdim=True)).sum(1)
            for a, b in zip(p, reversed(z), strict=True)
        ]
        plain = (cross_entropy(clean, batch.labels) + cross_entropy(moved, batch.labels)) / 2
        expected = plain + 2.0 * (1 - (similar[0] + similar[1]) / 2).mean()
        assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
        agree(grads_of(model, term.losses.mean()), grads_of(model, expected))


def test_awp_takes_the_gradient_at_weights_that_a_step_up_has_made_worse() -> None:
    model, batch = bag(), text_rows()
    attack = Given(Embeddings(), text_delta(batch))
    (term,) = WeightPerturbation(attack, Adversarial, 0.05)(model, batch, Moment(0))
    mine = grads_of(model, term.losses.mean())
    uphill = grads_of(model, cross_entropy(bag_logits(model, batch, attack.delta), batch.labels))
    worse = deepcopy(model)
    with torch.no_grad():
        for name, value in worse.named_parameters():
            if value.dim() > 1:
                value += 0.05 * value.norm() * uphill[name] / uphill[name].norm()
    expected = cross_entropy(bag_logits(worse, batch, attack.delta), batch.labels)
    assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-10)
    agree(mine, grads_of(worse, expected))


# ---- FreeLB and free training: loops


def released_freelb(model: CurvedBag, batch: Batch, first: Tensor, step: float, norm: str) -> Tensor:
    """The mean loss over three points of an ascent, the gradients of the weights and of the delta from each pass."""
    delta, total = first, torch.zeros((), dtype=torch.float64)
    for turn in range(3):
        delta = delta.detach().requires_grad_()
        loss = cross_entropy(bag_logits(model, batch, delta), batch.labels) / 3
        total = total + loss
        if turn < 2:
            (grad,) = torch.autograd.grad(loss, [delta], retain_graph=True)
            size = grad.flatten(1).norm(dim=1, p=2 if norm == "l2" else float("inf")).reshape(-1, 1, 1)
            delta = delta + step * grad / size
            if norm == "linf":
                delta = delta.clamp(-0.25, 0.25)
    return total


def stepped(objective: Objective, model: nn.Module, batch: Batch, moment: Moment) -> tuple[float, dict[str, Tensor]]:
    """Each term backpropagated before the next, as the trainer does; means over rows."""
    model.zero_grad()
    total = 0.0
    for term in objective(model, batch, moment):
        (term.losses.mean() * term.weight).backward()
        total += term.losses.mean().item() * term.weight
    return total, {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_freelb_is_the_released_loop_with_its_step_and_its_tokens(norm: str) -> None:
    """From zero, every token of the row moved, padding not."""
    model, batch = bag(), text_rows()
    radius = 50.0 if norm == "l2" else 0.25
    threat = ThreatModel(Embeddings(), {"l2": L2, "linf": Linf}[norm](radius, per="example"))
    attack = GradientAttack(threat, FixedStep(StepSize(absolute=0.2)), 3)
    objective = FreeLB(attack, 0.0, special_tokens=True, largest_entry=norm == "linf")
    found, grads = stepped(objective, model, batch, Moment(0))
    expected = released_freelb(model, batch, torch.zeros(*batch.editable.shape, 8, dtype=torch.float64), 0.2, norm)
    assert found == pytest.approx(expected.item(), abs=1e-10)
    agree(grads, grads_of(model, expected))
    usual, _ = stepped(replace(objective, special_tokens=False), model, batch, Moment(0))
    assert abs(usual - found) > 1e-3, "special tokens stay by default"


def test_the_largest_entrys_step_is_shorter_uphill_than_the_signs() -> None:
    grad = torch.tensor([[[2.0, -1.0]], [[0.0, 0.0]]])
    moved, _ = LargestEntryStep(StepSize(absolute=0.1)).update(torch.zeros(2, 1, 2), grad, Linf(1.0), ())
    assert moved.tolist() == [[[pytest.approx(0.1), pytest.approx(-0.05)]], [[0.0, 0.0]]]
    normal = torch.randn(200, 1, 7680, generator=torch.Generator().manual_seed(0))
    step, _ = LargestEntryStep(StepSize(absolute=1.0)).update(torch.zeros_like(normal), normal, Linf(9.0), ())
    gains = [(one * normal).sum(dim=(1, 2)).mean() for one in (normal.sign(), step)]
    assert float(gains[0] / gains[1]) == pytest.approx(3.2, abs=0.1), "as the docstring says"


def test_freelb_keeps_its_dropout_masks_by_default() -> None:
    """At delta 0 and a step of 0 all passes are the same where the mask is."""
    model, batch = CurvedBag(classes=CLASSES).train(), text_rows()
    attack = GradientAttack(ThreatModel(Embeddings(), L2(0.5)), FixedStep(StepSize(absolute=0.0)), 3)

    def losses(objective: FreeLB) -> list[float]:
        found = []
        for term in objective(model, batch, Moment(0)):
            term.losses.sum().backward()
            found.append(term.losses.sum().item())
        return found

    assert len(set(losses(FreeLB(attack, 0.0)))) == 1 and FreeLB(attack).hold_dropout
    assert len(set(losses(FreeLB(attack, 0.0, hold_dropout=False)))) == 3


def test_what_freelb_cannot_do_is_refused() -> None:
    texts, images = ThreatModel(Embeddings(), L2(0.5)), ThreatModel(Pixels(), Linf(0.1, per="example"))
    with pytest.raises(ValueError, match="linf_step: largest_entry needs threat.norm: linf"):
        FreeLB(pgd(texts, steps=2), largest_entry=True)
    with pytest.raises(ValueError, match="objective.special_tokens"):
        FreeLB(pgd(images, steps=2), special_tokens=True)


def image_rows() -> Batch:
    batch = normed.rows(8).batch(range(8))
    return replace(batch, inputs={"pixel_values": batch.inputs["pixel_values"].double()})


def test_free_training_is_the_papers_replayed_step() -> None:
    """Algorithm 1: the delta of one replay moves by the sign of the gradient that trains the weights."""
    model, batch = normed.network(dropout=0.0).double(), image_rows()
    step = GradientAttack(normed.threat(), FixedStep(StepSize(relative=1.0)), 1)
    objective = Free(step, replays=2)
    stepped(objective, model, batch, Moment(0))
    (first,) = (kept.first for kept in objective.memory.found.values())
    (after,) = (kept.delta for kept in objective.memory.found.values())
    delta = first.clone().requires_grad_()
    pixels = batch.inputs["pixel_values"]
    (grad,) = torch.autograd.grad(cross_entropy(model(pixels + delta), batch.labels), [delta])
    wanted = (first + 0.1 * grad.sign()).clamp(-0.1, 0.1)
    wanted = (pixels + wanted).clamp(0, 1) - pixels
    assert torch.allclose(after, wanted, atol=1e-9) and float((after - first).abs().max()) > 0.05
