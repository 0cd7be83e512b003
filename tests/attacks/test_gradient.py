"""GradientAttack: an attack that could not work says so, and its options do what they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import BagOfEmbeddings, CurvedBag, rightly_labelled, tiny_models, token_rows
from textadv.attacks import (
    L2,
    Attack,
    FixedStep,
    GradientAttack,
    Noise,
    StepSize,
    ThreatModel,
    Untargeted,
    VirtualAdversarial,
    fgsm,
    pgd,
    r_fgsm,
)
from textadv.attacks.parts.record import Select
from textadv.models import PerturbationError, running
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Hidden

THREAT = ThreatModel(Embeddings(), L2(0.2))


def rows() -> Batch:
    return rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 6] * 4, classes=3))


# ---- an attack without a gradient


class Detached(CurvedBag):
    """Cuts the graph between the embeddings and the logits, as a model under no_grad would."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        with torch.no_grad():
            logits = super().forward(input_ids, attention_mask)
        return logits


class DetachedEmbeddings(CurvedBag):
    """The head still has a gradient; the embeddings do not."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        pooled = self.embeddings(input_ids).detach().mean(dim=1)
        return pooled @ self.head.T


class Constant(CurvedBag):
    """Answers the same whatever the input, but with a graph that leads to it."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return 0 * super().forward(input_ids, attention_mask)


@pytest.mark.parametrize("model", [Detached, DetachedEmbeddings])
@pytest.mark.parametrize("measure", [True, False])
@pytest.mark.parametrize("attack", [fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)], ids=["fgsm", "pgd", "vat"])
def test_a_missing_gradient_raises_and_names_the_space(
    model: Callable[[], nn.Module], measure: bool, attack: Attack
) -> None:
    with pytest.raises(PerturbationError, match="does not depend on the perturbation of the word embeddings"):
        attack(model(), rows(), measure=measure)


@pytest.mark.parametrize("attack", [fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)], ids=["fgsm", "pgd", "vat"])
def test_a_zero_gradient_raises_and_names_the_space(attack: Attack) -> None:
    with pytest.raises(PerturbationError, match="zero.* perturbation of the word embeddings"):
        attack(Constant(), rows())


@pytest.mark.parametrize("attack", [fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)], ids=["fgsm", "pgd", "vat"])
def test_rows_without_any_editable_position_stay_as_they_are(attack: Attack) -> None:
    """A micro-batch of empty texts must not stop a run; a run of nothing else is the liveness gate's affair."""
    batch = rows()
    frozen = replace(batch, editable=torch.zeros_like(batch.editable))
    attacked = attack(CurvedBag(), frozen)
    assert not attacked.perturbation.delta.any()
    assert attacked.gauge.tolist() == [0.0] * len(batch)
    assert attacked.outcome.loss_gain.tolist() == [0.0] * len(batch)


def test_one_row_without_an_editable_position_stays_as_it_is() -> None:
    batch = rows()
    batch.editable[2] = False
    attacked = pgd(THREAT)(CurvedBag(), batch)
    assert attacked.gauge[2] == 0
    assert attacked.outcome.loss_gain[2] == 0
    assert bool((attacked.outcome.loss_gain[:2] > 0).all())


def test_a_hook_on_a_module_that_the_output_ignores_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CurvedBag()
    model.ignored = nn.Embedding(64, 8, dtype=torch.float64)
    monkeypatch.setattr(running, "space_module", lambda model, space: model.ignored)
    with pytest.raises(PerturbationError, match="word embeddings ran 0 times in one forward pass"):
        pgd(THREAT)(model, rows())


def test_a_hook_on_a_module_of_another_shape_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "space_module", lambda model, space: model.dropout)
    batch = rows()
    wide = Batch(batch.inputs, batch.labels, batch.editable, batch.ids, batch.role)
    wide = wide.perturbed(Embeddings(), torch.zeros(16, 9, 3, dtype=torch.float64))
    with pytest.raises(PerturbationError, match=r"shape \(16, 9, 8\) and the delta \(16, 9, 3\)"):
        running.forward(CurvedBag().eval(), wide)


def test_the_last_block_of_a_model_that_reads_one_special_token_raises() -> None:
    model = tiny_models()["bert"]()
    batch = token_rows([5, 7], classes=3)
    with pytest.raises(PerturbationError, match="hidden states after layer 1.*reads one special token only"):
        pgd(ThreatModel(Hidden(1), L2(1.0)))(model, batch)
    assert bool((pgd(ThreatModel(Hidden(0), L2(1.0)))(model, batch).gauge > 0.9).all())


def test_a_gradient_that_overflows_raises_and_names_the_rows() -> None:
    model, batch = CurvedBag(), rows()
    model.embeddings.weight.data[batch.inputs["input_ids"][3, 1]] = float("inf")
    affected = (batch.inputs["input_ids"] == batch.inputs["input_ids"][3, 1]).any(dim=1)
    with pytest.raises(
        PerturbationError, match=f"not finite at row ids {batch.ids[affected].tolist()}".replace("[", r"\[")
    ):
        pgd(THREAT, random_start=False)(model, batch)


def test_a_radius_of_zero_is_no_wiring_fault_and_moves_nothing() -> None:
    model, batch = CurvedBag(), rows()
    for attack in (fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)):
        attacked = attack(model, batch, radius_scale=0.0)
        assert not attacked.perturbation.delta.any()
        assert not attacked.gauge.any()
        assert not attacked.outcome.loss_gain.any()


# ---- precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_saturated_at_a_margin_of_60_still_get_the_right_direction(dtype: torch.dtype) -> None:
    """In float32 softmax - 1 is exactly 0 here, in float16 so is exp(-60); the float64 model says what is right."""
    exact, batch = BagOfEmbeddings(), token_rows([5, 9, 7, 6])
    logits = exact(**batch.inputs).detach()
    exact.bias.data += torch.tensor([100.0, 0.0])
    batch = replace(batch, labels=torch.zeros(4, dtype=torch.int64))
    margins = logits[:, 0] - logits[:, 1] + 100
    exact.bias.data[0] -= margins.min() - 60
    model = BagOfEmbeddings(dtype=dtype)
    model.bias.data.copy_(exact.bias.data)
    attack = fgsm(ThreatModel(Embeddings(), L2(0.2)))
    margins = exact(**batch.inputs).detach() @ torch.tensor([1.0, -1.0]).double()
    assert float(margins.min()) == pytest.approx(60)
    right = attack(exact, batch).perturbation.delta
    found = attack(model, batch).perturbation.delta
    cosine = nn.functional.cosine_similarity(found.double(), right, dim=-1)[batch.editable]
    assert float(cosine.min()) > 0.999
    assert torch.allclose(right[batch.editable].norm(dim=-1), torch.tensor(0.2).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("measure", [True, False])
def test_half_precision_models_keep_a_float32_delta(dtype: torch.dtype, measure: bool) -> None:
    model, batch = CurvedBag(dtype=dtype), rows()
    for attack in (pgd(THREAT, steps=3), VirtualAdversarial(THREAT), Noise(THREAT)):
        attacked = attack(model, batch, measure=measure)
        assert attacked.perturbation.delta.dtype == torch.float32
        assert torch.isfinite(attacked.perturbation.delta).all()
        assert float(attacked.gauge.max()) <= 1
        assert float(attacked.gauge.min()) > 0
    assert bool((pgd(THREAT)(model, batch).outcome.loss_gain > 0).all())


# ---- options


def test_early_stop_drops_a_row_once_it_is_broken_and_leaves_the_others_alone() -> None:
    model, batch = CurvedBag(), rows()
    options = {"steps": 8, "relative_step_size": 0.1, "random_start": False}
    plain = pgd(THREAT, **options)(model, batch)
    early = pgd(THREAT, **options, early_stop=True)(model, batch)
    stopped = early.cost.backwards < 8
    assert 0 < int(stopped.sum()) < len(batch)
    assert bool(early.success[stopped].all())
    assert len(set(early.cost.backwards.tolist())) > 2
    assert torch.equal(early.perturbation.delta[~stopped], plain.perturbation.delta[~stopped])
    assert bool((early.gauge[stopped] < 0.8).all())
    assert torch.equal(early.cost.forwards, early.cost.backwards)
    assert torch.equal(early.cost.queries, torch.where(stopped, 1, 2))
    assert plain.cost.backwards.tolist() == [8] * len(batch)


def test_a_row_that_is_wrong_already_costs_one_step() -> None:
    model, batch = CurvedBag(), rows()
    batch = replace(batch, labels=(batch.labels + 1) % 3)
    attacked = pgd(THREAT, early_stop=True, random_start=False)(model, batch)
    assert attacked.cost.backwards.tolist() == [1] * len(batch)
    assert bool(attacked.success.all())
    assert not attacked.perturbation.delta.any()


def test_restarts_multiply_the_cost_except_for_rows_that_early_stop_dropped() -> None:
    model, batch = CurvedBag(), rows()
    options = {"steps": 4, "restarts": 3, "select": "most_damaging"}
    plain = pgd(THREAT, **options)(model, batch)
    early = pgd(THREAT, **options, early_stop=True)(model, batch)
    assert plain.cost.backwards.tolist() == [12] * len(batch)
    assert plain.cost.queries.tolist() == [4] * len(batch)
    assert torch.equal(early.success, plain.success)
    once = pgd(THREAT, steps=4, early_stop=True)(model, batch)
    assert 0 < int(once.success.sum()) < len(batch)
    assert torch.equal(early.cost.backwards[once.success], once.cost.backwards[once.success])
    assert torch.equal(early.cost.queries[once.success], once.cost.queries[once.success])
    assert early.cost.backwards[~early.success].tolist() == [12] * int((~early.success).sum())
    assert bool((early.cost.backwards[early.success] < 12).all())


def test_measure_false_gives_the_same_perturbation_without_the_passes_that_only_measure() -> None:
    model, batch = CurvedBag(), rows()
    measured, silent = (pgd(THREAT, steps=3)(model, batch, measure=flag) for flag in (True, False))
    assert torch.equal(measured.perturbation.delta, silent.perturbation.delta)
    assert torch.equal(measured.gauge, silent.gauge)
    assert measured.cost.queries.tolist() == [2] * len(batch)
    assert silent.cost.queries.tolist() == [0] * len(batch)
    assert silent.cost.backwards.tolist() == [3] * len(batch)
    for read in (lambda: silent.outcome, lambda: silent.success):
        with pytest.raises(ValueError, match="measure=False: call it with measure=True"):
            read()


@pytest.mark.parametrize("select", ["last", "most_damaging"])
def test_the_outcome_is_what_a_forward_pass_at_the_delta_shows(select: Select) -> None:
    model, batch = CurvedBag(), rows()
    attacked = pgd(THREAT, steps=3, select=select)(model, batch)
    model.eval()
    logits = running.forward(model, attacked.batch).detach()
    cross_entropy = nn.functional.cross_entropy
    before = cross_entropy(model(**batch.inputs), batch.labels, reduction="none").detach()
    after = cross_entropy(logits, batch.labels, reduction="none")
    assert torch.equal(attacked.success, logits.argmax(dim=1) != batch.labels)
    assert torch.allclose(attacked.outcome.loss_gain, after - before)
    own = logits.gather(1, batch.labels[:, None]).squeeze(1)
    other = logits.scatter(1, batch.labels[:, None], -torch.inf).amax(dim=1)
    assert torch.allclose(attacked.outcome.margin, other - own)
    start = Noise(THREAT)(model, batch)
    assert torch.allclose(attacked.outcome.climb, attacked.outcome.loss_gain - start.outcome.loss_gain)


def test_radius_scale_is_a_factor_on_the_radius_for_all_rows_or_for_each() -> None:
    model, batch = CurvedBag(), rows()
    scale = torch.linspace(0.5, 2.0, len(batch), dtype=torch.float64)
    attack = pgd(THREAT, steps=3)
    attacked = attack(model, batch, radius_scale=scale)
    size = attacked.perturbation.delta.norm(dim=-1).amax(dim=1)
    assert torch.allclose(size, 0.2 * scale)
    twice = attack(model, batch, radius_scale=2.0)
    direct = pgd(ThreatModel(Embeddings(), L2(0.4)), steps=3)(model, batch)
    assert torch.allclose(twice.perturbation.delta, direct.perturbation.delta)


def test_named_constructors_are_the_published_settings() -> None:
    assert fgsm(THREAT).steps == 1
    assert not fgsm(THREAT).random_start
    assert fgsm(THREAT).ascent == FixedStep(StepSize(relative=1.0))
    assert r_fgsm(THREAT).random_start
    assert r_fgsm(THREAT).ascent == FixedStep(StepSize(relative=1.25))
    assert pgd(THREAT, steps=5).ascent == FixedStep(StepSize(relative=0.5))
    assert (
        str(pgd(THREAT, steps=5)) == "5 steps of 0.5 x radius (FixedStep), 1 restart, random start, no early stop, last"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "attack.steps must be at least 1, got 0. To train without an attack set mixing.ratio: 0."),
        ({"restarts": 0}, "attack.restarts must be at least 1, got 0"),
        ({"restarts": 2, "random_start": False}, "attack.restarts: 2 would repeat one start. Set attack.random_start"),
        ({"restarts": 2}, "set attack.select: most_damaging"),
    ],
)
def test_bad_arguments_say_which_key_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pgd(THREAT, **arguments)


def test_a_goal_of_ones_own_needs_only_the_protocol() -> None:
    class Confuse:
        needs_clean = False
        flat_at_clean = False

        def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
            return -logits.log_softmax(dim=1).amax(dim=1)

        def reached(self, logits: Tensor, batch: Batch) -> Tensor:
            return logits.softmax(dim=1).amax(dim=1) < 0.5

    attacked = GradientAttack(THREAT, FixedStep(StepSize(relative=0.3)), 6, Confuse())(CurvedBag(), rows())
    assert float(attacked.outcome.loss_gain.mean()) > 0
    assert isinstance(pgd(THREAT).goal, Untargeted)
