"""Transfer: crafted on one model, judged on another, and both left as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import BagOfEmbeddings, CurvedBag, image_rows, rightly_labelled, tiny_models, tiny_rows, token_rows
from textadv.attacks import L2, Attack, Linf, Noise, Square, ThreatModel, Transfer, Untargeted, pgd, worst_of
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings, Hidden, Pixels

THREAT = ThreatModel(Embeddings(), L2(0.5))

ATTACKS: dict[str, Callable[[ThreatModel], Attack]] = {
    "pgd": lambda threat: pgd(threat, steps=5, select="most_damaging"),
    "pgd last": lambda threat: pgd(threat, steps=5, early_stop=True),
    "worst_of": lambda threat: worst_of(pgd(threat, steps=2), pgd(threat, steps=3, seed=1)),
    "square": lambda threat: Square(threat, 20),
    "noise": lambda threat: Noise(threat),
}
attacks = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def rows() -> Batch:
    return rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 6] * 4, classes=3))


@attacks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_onto_the_same_model_it_is_the_attack_itself(attack: Attack, dtype: torch.dtype) -> None:
    model = CurvedBag(dtype=dtype)
    scale = torch.rand(16, generator=torch.Generator().manual_seed(0)) + 0.5
    itself = attack(THREAT)(model, rows(), step=3, radius_scale=scale)
    carried = Transfer(model, attack(THREAT), THREAT, "itself")(model, rows(), step=3, radius_scale=scale)
    assert torch.equal(carried.perturbation.delta, itself.perturbation.delta)
    assert torch.equal(carried.gauge, itself.gauge)
    assert torch.equal(carried.success, itself.success)
    assert torch.allclose(carried.outcome.margin, itself.outcome.margin, atol=1e-5)
    assert bool(carried.outcome.climb.isnan().all())


def test_the_outcome_is_that_of_the_attacked_model() -> None:
    model, surrogate = CurvedBag(), CurvedBag(seed=7)
    attacked = Transfer(surrogate, pgd(THREAT, steps=10), THREAT, "bag 7")(model, rows())
    model.eval()
    with torch.no_grad():
        noised = model.embeddings(rows().inputs["input_ids"]) + attacked.perturbation.delta
        bent = torch.sin(noised @ model.inner.T)
        weight = model.importance[rows().inputs["input_ids"]] * rows().inputs["attention_mask"]
        logits = (bent * weight.unsqueeze(-1)).sum(dim=1) @ model.head.T + model.bias
        clean = model(**rows().inputs)
    assert torch.equal(attacked.success, logits.argmax(dim=1) != rows().labels)
    assert torch.allclose(attacked.outcome.margin, margin(logits, rows()))
    loss = nn.functional.cross_entropy
    gain = loss(logits, rows().labels, reduction="none") - loss(clean, rows().labels, reduction="none")
    assert torch.allclose(attacked.outcome.loss_gain, gain)


def test_strength_a_likeness_carries_over_better_than_a_stranger_and_worse_than_the_model_itself() -> None:
    model, batch = BagOfEmbeddings(seed=3), token_rows([5, 9, 7, 6] * 8, seed=3)
    alike = BagOfEmbeddings(seed=3)
    noise = torch.randn(alike.head.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alike.head.data += 0.5 * noise
    mirrored = BagOfEmbeddings(seed=3)
    mirrored.head.data = -mirrored.head.data
    goal = Untargeted(margin)
    attack = pgd(THREAT, steps=10, goal=goal)
    itself, near, against = (
        float(Transfer(each, attack, THREAT, "x", goal)(model, batch).outcome.loss_gain.mean())
        for each in (model, alike, mirrored)
    )
    assert 0 < near < itself
    assert near > 0.5 * itself
    assert against == pytest.approx(-itself, rel=1e-2)


@attacks
def test_passes_through_the_surrogate_and_through_the_attacked_model_are_counted_apart(attack: Attack) -> None:
    model, surrogate = CurvedBag(), CurvedBag(seed=7)
    alone = attack(THREAT)(surrogate, rows(), measure=False).cost
    cost = Transfer(surrogate, attack(THREAT), THREAT, "bag 7")(model, rows()).cost
    assert torch.equal(cost.forwards, alone.forwards + alone.queries)
    assert torch.equal(cost.backwards, alone.backwards)
    assert cost.queries.tolist() == [2] * 16
    unmeasured = Transfer(surrogate, attack(THREAT), THREAT, "bag 7")(model, rows(), measure=False)
    assert unmeasured.measured is None
    assert not unmeasured.cost.queries.any()


def test_leaves_both_models_as_they_were() -> None:
    model, surrogate = CurvedBag(), CurvedBag(seed=7)
    surrogate.train()
    model.train()
    model.embeddings.eval()
    surrogate.head.grad = torch.full_like(surrogate.head, 0.125)
    weights = [each.clone() for each in [*model.parameters(), *surrogate.parameters()]]
    before, batch = torch.get_rng_state(), rows()
    attacked = Transfer(surrogate, pgd(THREAT, steps=3), THREAT, "bag 7")(model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert surrogate.training
    assert surrogate.dropout.training
    assert model.training
    assert not model.embeddings.training
    assert torch.equal(surrogate.head.grad, torch.full_like(surrogate.head, 0.125))
    assert all(weight.grad is None for weight in model.parameters())
    now = [*model.parameters(), *surrogate.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(now, weights, strict=True))
    assert batch.perturbation is None
    again = Transfer(surrogate.eval(), pgd(THREAT, steps=3), THREAT, "bag 7")(model, batch)
    assert torch.equal(attacked.perturbation.delta, again.perturbation.delta)


class Wide(CurvedBag):
    """A bag whose embeddings are ten times as long, so that a relative radius is too."""

    def __init__(self) -> None:
        super().__init__(dtype=torch.float32)
        self.embeddings.weight.data *= 10


def test_never_leaves_the_ball_of_the_attacked_model() -> None:
    relative = ThreatModel(Embeddings(), L2(relative_radius=0.1))
    attacked = Transfer(Wide(), pgd(relative, steps=5), relative, "a wide bag")(CurvedBag(dtype=torch.float32), rows())
    radius = relative.resolved(CurvedBag()).ball.radius
    size = attacked.perturbation.delta.norm(dim=-1).amax(dim=1)
    assert bool((attacked.gauge <= 1).all())
    assert torch.allclose(size, torch.full_like(size, radius), rtol=1e-4)
    assert not attacked.perturbation.delta[~rows().editable].any()


def test_images_carry_over_between_architectures() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3 * 16 * 16, 3)

        def forward(self, pixel_values: Tensor) -> Tensor:
            return self.head(pixel_values.flatten(1))

    threat = ThreatModel(Pixels(), Linf(0.1, per="example"))
    attacked = Transfer(Flat(), pgd(threat, steps=3), threat, "a linear model")(tiny_models()["vit"](), image_rows(3))
    assert torch.allclose(attacked.gauge, torch.ones(3), atol=1e-4)
    assert torch.isfinite(attacked.outcome.loss_gain).all()


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match=r"shape \(9, 16\) there and \(9, 8\) in the attacked model"):
        Transfer(CurvedBag(width=16), pgd(THREAT), THREAT, "a wide bag")(CurvedBag(), rows())
    model = tiny_models()["bert"]()
    hidden = ThreatModel(Hidden(0), L2(0.5))
    with pytest.raises(
        ValueError, match="must move what the threat model names, hidden states after layer 0, got word"
    ):
        Transfer(model, pgd(ThreatModel(Embeddings(), L2(0.5))), hidden, "x")(model, tiny_rows("bert"))


@pytest.mark.parametrize("measure", [True, False])
def test_models_over_different_classes_are_refused(measure: bool) -> None:
    for classes in (2, 4):
        attack = Transfer(CurvedBag(classes=classes), pgd(THREAT), THREAT, "a stranger")
        told = (
            f"from a stranger, which tells {classes} classes apart, to a model of 3: .* Take a surrogate over the same"
        )
        with pytest.raises(ValueError, match=told):
            attack(CurvedBag(), rows(), measure=measure)


def test_is_labelled_as_a_transfer() -> None:
    attack = pgd(THREAT, steps=10)
    printed = str(Transfer(CurvedBag(), attack, THREAT, "bag 7"))
    assert printed == f"{attack}, transferred from bag 7"
    assert "CurvedBag" not in repr(Transfer(CurvedBag(), attack, THREAT, "bag 7"))


def test_a_row_does_not_depend_on_its_batch() -> None:
    model, surrogate, batch = CurvedBag(), CurvedBag(seed=7), rows()
    attack = Transfer(surrogate, pgd(THREAT, steps=3), THREAT, "bag 7")
    together = attack(model, batch)
    for row in range(4):
        alone = attack(model, batch.rows(torch.tensor([row])))
        assert torch.allclose(alone.perturbation.delta[0], together.perturbation.delta[row], rtol=0, atol=1e-9)
    swapped = attack(model, replace(batch, ids=batch.ids.flip(0)))
    assert not torch.allclose(swapped.perturbation.delta, together.perturbation.delta)
