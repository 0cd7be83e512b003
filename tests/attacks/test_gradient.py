"""GradientAttack: an attack that could not work says so, and its options do what they are called."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import BagOfEmbeddings, CurvedBag, image_rows, rightly_labelled, tiny_models, token_rows
from textadv.attacks import (
    L1,
    L2,
    FixedStep,
    GradientAttack,
    Linf,
    Noise,
    StepSize,
    ThreatModel,
    Untargeted,
    VirtualAdversarial,
    fgsm,
    pgd,
    r_fgsm,
    radius_unit,
)
from textadv.batch import Batch
from textadv.models import PerturbationError, running
from textadv.spaces import Embeddings, Hidden, Pixels

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
def test_a_missing_gradient_raises_and_names_the_space(model, measure, attack):
    with pytest.raises(PerturbationError, match="does not depend on the perturbation of the word embeddings"):
        attack(model(), rows(), measure=measure)


@pytest.mark.parametrize("attack", [fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)], ids=["fgsm", "pgd", "vat"])
def test_a_zero_gradient_raises_and_names_the_space(attack):
    with pytest.raises(PerturbationError, match="zero.* perturbation of the word embeddings"):
        attack(Constant(), rows())


@pytest.mark.parametrize("attack", [fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)], ids=["fgsm", "pgd", "vat"])
def test_rows_without_any_editable_position_raise(attack):
    batch = rows()
    frozen = replace(batch, editable=torch.zeros_like(batch.editable))
    with pytest.raises(PerturbationError, match="no position is editable"):
        attack(CurvedBag(), frozen)


def test_one_row_without_an_editable_position_stays_as_it_is():
    batch = rows()
    batch.editable[2] = False
    attacked = pgd(THREAT)(CurvedBag(), batch)
    assert attacked.gauge[2] == 0
    assert attacked.outcome.loss_gain[2] == 0
    assert bool((attacked.outcome.loss_gain[:2] > 0).all())


def test_a_hook_on_a_module_that_the_output_ignores_raises(monkeypatch):
    model = CurvedBag()
    model.ignored = nn.Embedding(64, 8, dtype=torch.float64)
    monkeypatch.setattr(running, "space_module", lambda model, space: model.ignored)
    with pytest.raises(PerturbationError, match="word embeddings ran 0 times in one forward pass"):
        pgd(THREAT)(model, rows())


def test_a_hook_on_a_module_of_another_shape_raises(monkeypatch):
    monkeypatch.setattr(running, "space_module", lambda model, space: model.dropout)
    batch = rows()
    wide = Batch(batch.inputs, batch.labels, batch.editable, batch.ids, batch.role)
    wide = wide.perturbed(Embeddings(), torch.zeros(16, 9, 3, dtype=torch.float64))
    with pytest.raises(PerturbationError, match=r"shape \(16, 9, 8\) and the delta \(16, 9, 3\)"):
        running.forward(CurvedBag().eval(), wide)


def test_the_last_block_of_a_model_that_reads_one_special_token_raises():
    model = tiny_models()["bert"]()
    batch = token_rows([5, 7], classes=3)
    with pytest.raises(PerturbationError, match="hidden states after layer 1.*reads one special token only"):
        pgd(ThreatModel(Hidden(1), L2(1.0)))(model, batch)
    assert bool((pgd(ThreatModel(Hidden(0), L2(1.0)))(model, batch).gauge > 0.9).all())


def test_a_gradient_that_overflows_raises_and_names_the_rows():
    model, batch = CurvedBag(), rows()
    model.embeddings.weight.data[batch.inputs["input_ids"][3, 1]] = float("inf")
    affected = (batch.inputs["input_ids"] == batch.inputs["input_ids"][3, 1]).any(dim=1)
    with pytest.raises(
        PerturbationError, match=f"not finite at row ids {batch.ids[affected].tolist()}".replace("[", r"\[")
    ):
        pgd(THREAT, random_start=False)(model, batch)


def test_a_radius_of_zero_is_no_wiring_fault_and_moves_nothing():
    model, batch = CurvedBag(), rows()
    for attack in (fgsm(THREAT), pgd(THREAT), VirtualAdversarial(THREAT)):
        attacked = attack(model, batch, radius_scale=0.0)
        assert not attacked.perturbation.delta.any()
        assert not attacked.gauge.any()
        assert not attacked.outcome.loss_gain.any()


# ---- precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_saturated_at_a_margin_of_60_still_get_the_right_direction(dtype):
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
def test_half_precision_models_keep_a_float32_delta(dtype, measure):
    model, batch = CurvedBag(dtype=dtype), rows()
    for attack in (pgd(THREAT, steps=3), VirtualAdversarial(THREAT), Noise(THREAT)):
        attacked = attack(model, batch, measure=measure)
        assert attacked.perturbation.delta.dtype == torch.float32
        assert torch.isfinite(attacked.perturbation.delta).all()
        assert float(attacked.gauge.max()) <= 1
        assert float(attacked.gauge.min()) > 0
    assert bool((pgd(THREAT)(model, batch).outcome.loss_gain > 0).all())


# ---- options


def test_early_stop_drops_a_row_once_it_is_broken_and_leaves_the_others_alone():
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


def test_a_row_that_is_wrong_already_costs_one_step():
    model, batch = CurvedBag(), rows()
    batch = replace(batch, labels=(batch.labels + 1) % 3)
    attacked = pgd(THREAT, early_stop=True, random_start=False)(model, batch)
    assert attacked.cost.backwards.tolist() == [1] * len(batch)
    assert bool(attacked.success.all())
    assert not attacked.perturbation.delta.any()


def test_restarts_multiply_the_cost_except_for_rows_that_early_stop_dropped():
    model, batch = CurvedBag(), rows()
    options = {"steps": 4, "restarts": 3, "select": "most_damaging"}
    plain = pgd(THREAT, **options)(model, batch)
    early = pgd(THREAT, **options, early_stop=True)(model, batch)
    assert plain.cost.backwards.tolist() == [12] * len(batch)
    assert plain.cost.queries.tolist() == [4] * len(batch)
    assert torch.equal(early.success, plain.success)
    assert early.cost.backwards[~early.success].tolist() == [12] * int((~early.success).sum())
    assert bool((early.cost.backwards[early.success] < 12).all())


def test_measure_false_gives_the_same_perturbation_without_the_passes_that_only_measure():
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
def test_the_outcome_is_what_a_forward_pass_at_the_delta_shows(select):
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


def test_radius_scale_is_a_factor_on_the_radius_for_all_rows_or_for_each():
    model, batch = CurvedBag(), rows()
    scale = torch.linspace(0.5, 2.0, len(batch), dtype=torch.float64)
    attack = pgd(THREAT, steps=3)
    attacked = attack(model, batch, radius_scale=scale)
    size = attacked.perturbation.delta.norm(dim=-1).amax(dim=1)
    assert torch.allclose(size, 0.2 * scale)
    twice = attack(model, batch, radius_scale=2.0)
    direct = pgd(ThreatModel(Embeddings(), L2(0.4)), steps=3)(model, batch)
    assert torch.allclose(twice.perturbation.delta, direct.perturbation.delta)


def test_named_constructors_are_the_published_settings():
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
        ({"steps": 0}, "attack.steps must be at least 1, got 0. To train without an attack set objective.name: clean."),
        ({"restarts": 0}, "attack.restarts must be at least 1, got 0"),
        ({"restarts": 2, "random_start": False}, "attack.restarts: 2 would repeat one start. Set attack.random_start"),
        ({"restarts": 2}, "set attack.select: most_damaging"),
    ],
)
def test_bad_arguments_say_which_key_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        pgd(THREAT, **arguments)


# ---- threat models


class Scaled(nn.Embedding):
    """Gemma's: the vectors that the model sees are sqrt(width) times the table."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.embedding_dim**0.5


@pytest.mark.parametrize(("ball", "order"), [(L2, 2.0), (Linf, float("inf")), (L1, 1.0)], ids=["l2", "linf", "l1"])
def test_a_relative_radius_is_in_units_of_the_mean_norm_as_the_model_sees_it(ball, order):
    model = CurvedBag()
    unit = float(torch.linalg.vector_norm(model.embeddings.weight.detach(), order, dim=1).mean())
    threat = ThreatModel(Embeddings(), ball(relative_radius=0.1))
    assert threat.resolved(model).ball.radius == pytest.approx(0.1 * unit, rel=1e-6)
    table = model.embeddings.weight.data
    model.embeddings = Scaled(64, 8, dtype=torch.float64)
    model.embeddings.weight.data.copy_(table)
    assert threat.resolved(model).ball.radius == pytest.approx(0.1 * unit * 8**0.5, rel=1e-6)
    attacked = pgd(threat, steps=2)(model, rows())
    size = torch.linalg.vector_norm(attacked.perturbation.delta, order, dim=-1).amax(dim=1)
    assert torch.allclose(size, torch.tensor(0.1 * unit * 8**0.5).double(), rtol=1e-5)


def test_a_relative_radius_in_hidden_states_is_measured_on_the_editable_positions():
    model = tiny_models()["bert"]()
    batch = token_rows([5, 9], classes=3)
    threat = ThreatModel(Hidden(0), L2(relative_radius=0.5))
    seen = model.eval()(**batch.inputs, output_hidden_states=True).hidden_states[1]
    unit = float(seen[batch.editable].norm(dim=-1).mean())
    model.train()
    assert threat.resolved(model, batch).ball.radius == pytest.approx(0.5 * unit, rel=1e-5)
    assert model.training
    assert radius_unit(model, Hidden(0), threat.ball, batch) == pytest.approx(unit, rel=1e-5)
    with pytest.raises(ValueError, match=r"measured on rows: call resolved\(model, batch\)"):
        threat.resolved(model)


def test_the_vocabulary_is_measured_in_chunks_whose_size_does_not_matter(monkeypatch):
    model, ball = CurvedBag(), L2(relative_radius=1.0)
    whole = radius_unit(model, Embeddings(), ball)
    monkeypatch.setattr(running, "VOCABULARY_CHUNK", 7)
    assert radius_unit(model, Embeddings(), ball) == pytest.approx(whole)


def test_a_threat_prints_what_it_is():
    assert str(ThreatModel(Embeddings(), L2(relative_radius=0.1))) == (
        "L2 ball per token, relative radius 0.1, in word embeddings"
    )
    resolved = ThreatModel(Hidden(2), Linf(0.25, per="example"))
    assert str(resolved) == "Linf ball per example, radius 0.25, in hidden states after layer 2"
    by_unit = ThreatModel(Embeddings(), L2(relative_radius=0.1)).resolved(CurvedBag())
    assert str(by_unit).endswith("(0.1 x the mean norm), in word embeddings")
    assert "radius per row" in str(ThreatModel(Embeddings(), L1(torch.ones(3))))


def test_pixels_take_no_radius_per_token_nor_a_relative_one():
    with pytest.raises(ValueError, match="threat.per: token has no meaning for pixels"):
        ThreatModel(Pixels(), Linf(0.1))
    with pytest.raises(ValueError, match="threat.relative_radius has no meaning for pixels"):
        ThreatModel(Pixels(), Linf(relative_radius=0.1, per="example"))
    with pytest.raises(ValueError, match=r"low < high, got low=1.0, high=0.0"):
        Pixels(1.0, 0.0)
    with pytest.raises(ValueError, match="threat.layer must be 0 or more, got -1"):
        Hidden(-1)


@pytest.mark.parametrize(
    "ball", [Linf(8 / 255, per="example"), L2(2.0, per="example"), L1(10.0, per="example")], ids=str
)
def test_pixels_stay_in_the_image_box_in_the_ball_and_in_the_mask(ball):
    model, batch = tiny_models()["vit"](), image_rows(3)
    batch.inputs["pixel_values"][0] = 0.0
    batch.inputs["pixel_values"][1] = 1.0
    # A pixel outside the box, as a normalised image has, must not move by itself.
    batch.inputs["pixel_values"][2, :, 0, 0] = -0.5
    attacked = pgd(ThreatModel(Pixels(), ball), steps=4)(model, batch)
    delta = attacked.perturbation.delta
    moved = batch.inputs["pixel_values"] + delta
    inside = moved[batch.editable.expand_as(moved)]
    assert float(inside.min()) >= 0
    assert float(inside.max()) <= 1
    assert float(attacked.gauge.max()) <= 1
    assert float(attacked.gauge.min()) > 0.1
    frozen = ~batch.editable.expand_as(delta)
    assert not delta[frozen].any()
    # The one pixel that an L1 step moves may be at the edge of the box in an all-white image.
    climbing = attacked.outcome.loss_gain[[0, 2]] if ball.geometry.name == "L1" else attacked.outcome.loss_gain
    assert bool((climbing > 0).all())


def test_a_goal_of_ones_own_needs_only_the_protocol():
    class Confuse:
        needs_clean = False

        def value(self, logits: Tensor, batch: Batch, clean: Tensor | None) -> Tensor:
            return -logits.log_softmax(dim=1).amax(dim=1)

        def reached(self, logits: Tensor, batch: Batch) -> Tensor:
            return logits.softmax(dim=1).amax(dim=1) < 0.5

    attacked = GradientAttack(THREAT, FixedStep(StepSize(relative=0.3)), 6, Confuse())(CurvedBag(), rows())
    assert float(attacked.outcome.loss_gain.mean()) > 0
    assert isinstance(pgd(THREAT).goal, Untargeted)
