"""What docstrings of objectives and losses state under Deviations and no other test shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest import approx
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, nll_loss, softmax

from tests import normed
from tests.config_sample import small
from tests.objectives import dial
from tests.objectives.dictated import adapted, chats, plain, table
from tests.objectives.test_published_classifiers import (
    CLASSES,
    Given,
    bag,
    bag_logits,
    image_rows,
    text_delta,
    text_rows,
)
from tests.oracles import CurvedBag, token_rows
from textadv.attacks import L2, Diverge, FixedStep, GradientAttack, Linf, Noise, StepSize, ThreatModel, pgd
from textadv.models import as_reference, evaluating, forward
from textadv.objectives import (
    Adversarial,
    Clean,
    FreeLB,
    Moment,
    Objective,
    PredictorConsistency,
    Proximal,
    Regularised,
    Term,
    r3f,
    trades,
    with_predictor,
)
from textadv.objectives.alignment import Away, KlToBase, Preference, PrefillRecovery, Supervised, Toward
from textadv.objectives.margin_aware import boosted_cross_entropy
from textadv.objectives.token_means import OverTokens
from textadv.values.batch import IGNORED, Batch
from textadv.values.losses import Divergence, kl, symmetric_kl
from textadv.values.spaces import Embeddings, Pixels

WORDS = ThreatModel(Embeddings(), L2(0.3))


def only(objective: Objective, model: nn.Module, batch: Batch, moment: Moment = Moment(0)) -> Term:  # noqa: B008
    (term,) = objective(model, batch, moment)
    return term


def walked(objective: Objective, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
    """The terms, each backpropagated as the trainer would."""
    for term in objective(model, batch, moment):
        (term.losses.sum() * term.weight).backward()
        yield term


# ---- classifiers


def test_adversarial_training_attacks_the_model_in_evaluation_mode() -> None:
    attack, batch = pgd(WORDS, steps=3), text_rows()
    found = only(Adversarial(attack), CurvedBag(classes=CLASSES).train(), batch).attacked
    alone = attack(CurvedBag(classes=CLASSES).eval(), batch)
    assert found is not None and torch.equal(found.perturbation.delta, alone.perturbation.delta)


def test_trades_clean_loss_and_divergence_share_one_prediction_under_dropout() -> None:
    model, batch, seen = CurvedBag(classes=CLASSES).train(), text_rows(), []
    model.register_forward_hook(lambda _m, _a, output: seen.append(output.detach()))
    term = only(trades(Given(Embeddings(), text_delta(batch)), 6.0), model, batch)
    (both,) = seen
    clean, moved = both.chunk(2)
    apart = kl_div(log_softmax(moved, dim=1), softmax(clean, dim=1), reduction="none").sum(dim=1)
    assert torch.allclose(term.losses, cross_entropy(clean, batch.labels, reduction="none") + 6.0 * apart)


@pytest.mark.parametrize(("name", "goal"), [("smart", "symmetric"), ("alum", "symmetric"), ("trades", "kl")])
def test_recipes_raise_the_divergence_of_their_objective(name: str, goal: str) -> None:
    """And KL(clean || perturbed), as SMART's released code does, where the configuration says so."""
    wanted: dict[str, Divergence] = {"symmetric": symmetric_kl, "kl": kl}
    for told, divergence in (([], wanted[goal]), (["attack.goal=kl"], kl)):
        config = small(f"objective.name={name}", *told)
        found = config.objective.adversary(config.attack, config.threat.make(), 0)
        assert isinstance(found, GradientAttack) and found.goal == Diverge(divergence)


def test_r3fs_noise_is_uniform_in_the_ball_on_editable_positions_alone() -> None:
    batch = token_rows([9] * 20, classes=CLASSES)
    noise = Noise(ThreatModel(Embeddings(), Linf(1e-5)))
    found = only(r3f(noise), bag(), batch).attacked
    assert found is not None
    delta = found.perturbation.delta
    drawn = delta[batch.editable].flatten() / 1e-5
    assert not delta[~batch.editable].any() and float(drawn.abs().max()) <= 1
    assert float(drawn.mean()) == approx(0, abs=0.06) and float(drawn.square().mean()) == approx(1 / 3, abs=0.04)


def test_regularised_is_the_papers_mixture_up_to_its_factor() -> None:
    """alpha J + (1 - alpha) J' with alpha = 1 / 1.2, times 1.2."""
    model, batch = bag(), text_rows()
    delta, alpha = text_delta(batch), 1 / 1.2
    clean, moved = (cross_entropy(bag_logits(model, batch, by), batch.labels) for by in (0.0, delta))
    term = only(Regularised(Given(Embeddings(), delta), 0.2), model, batch)
    assert term.losses.mean().item() == approx(1.2 * (alpha * clean + (1 - alpha) * moved).item(), abs=1e-10)


@pytest.mark.parametrize("make", [Regularised, PredictorConsistency])
def test_batch_norms_see_clean_and_perturbed_rows_as_one_batch(make: Callable[[Given], Objective]) -> None:
    mine, fresh, batch = normed.network(dropout=0.0).double(), normed.network(dropout=0.0).double(), image_rows()
    pixels = batch.inputs["pixel_values"]
    delta = 0.1 * torch.rand(pixels.shape, generator=torch.Generator().manual_seed(5)).double()
    with with_predictor(mine, batch, 4):
        only(make(Given(Pixels(), delta)), mine, batch)
    fresh(torch.cat([pixels, pixels + delta]))
    assert int(mine.norm1.num_batches_tracked) == 1
    assert torch.allclose(mine.norm2.running_var, fresh.norm2.running_var, atol=1e-12)


def test_the_predictor_treats_rows_one_by_one() -> None:
    model, logits = bag().train(), torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(0)).double()
    with with_predictor(model, text_rows(), 4) as head:
        assert torch.allclose(head(logits)[:1], head(logits[:1]), atol=1e-12)
        assert not any("Norm" in type(module).__name__ for module in head.modules())


def test_mart_adds_nothing_to_probabilities() -> None:
    """A wrong class of probability 0 costs nothing, where -log(1.0001 - 0) is -1e-4."""
    logits, labels = torch.tensor([[800.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    batch = dial.rows()
    batch.labels[0] = 0
    assert float(boosted_cross_entropy(logits, batch)) == approx(0, abs=1e-12)
    released = nll_loss(torch.log(1.0001 - softmax(logits, dim=1) + 1e-12), 1 - labels)
    assert float(released) == approx(-1e-4, rel=1e-3)


# ---- FreeLB and the proximal term


def freelb(radius: float, start: float, *, steps: int = 3) -> FreeLB:
    threat = ThreatModel(Embeddings(), L2(radius))
    return FreeLB(GradientAttack(threat, FixedStep(StepSize(absolute=5.0)), steps), start)


def test_freelbs_ball_is_per_token_by_default() -> None:
    model, batch = bag(), text_rows()
    *_, last = walked(freelb(0.3, 0.0), model, batch, Moment(0, measure=True))
    assert last.attacked is not None
    size = last.attacked.perturbation.delta.norm(dim=-1)
    assert torch.allclose(size[batch.editable], torch.tensor(0.3).double())


def test_freelbs_noise_fills_the_ball_where_a_cube_inside_it_would_not() -> None:
    """Of 8 dimensions: uniform in the ball half of all points lie beyond 0.92 radii, of the cube hardly any."""
    batch = token_rows([9] * 20, classes=CLASSES)
    (term,) = walked(freelb(0.3, 1.0, steps=1), bag(), batch, Moment(0, measure=True))
    assert term.attacked is not None
    size = term.attacked.perturbation.delta.norm(dim=-1)[batch.editable] / 0.3
    assert float((size > 0.9).double().mean()) > 0.4 and float(size.max()) <= 1
    cube = (2 * torch.rand(1000, 8, generator=torch.Generator().manual_seed(0)) - 1).norm(dim=1) / math.sqrt(8)
    assert float((cube > 0.9).double().mean()) < 0.02


def test_the_teacher_predicts_without_dropout() -> None:
    model, batch = CurvedBag(classes=CLASSES).train(), text_rows()
    taught = Proximal().prediction(model, batch, Moment(0))
    with torch.no_grad():
        assert torch.allclose(taught, CurvedBag(classes=CLASSES).eval()(**batch.inputs), atol=1e-12)
    assert model.training


def test_the_teacher_follows_only_where_rows_are_attacked() -> None:
    """At step 1 nothing is attacked: its weight 5 is never taken in."""
    proximal, model = Proximal(1.0, momentum=0.5, early=0.5), dial.Dial(0.8)
    for step, weight in ((0, 0.8), (1, 5.0), (2, 1.6)):
        model.base.data.fill_(weight)
        if step != 1:
            proximal.prediction(model, dial.rows(), Moment(step))
    assert proximal.memory.means["base"].item() == approx(1.2)


# ---- chats


COSTS = {2: {3: 0.7, 4: 1.5}, 4: {5: 0.5}}


@pytest.mark.parametrize("objective", [Clean(), Supervised(), Toward(floor=0.0)], ids=lambda one: type(one).__name__)
def test_a_row_of_two_tokens_counts_as_much_as_one_of_one(objective: Objective) -> None:
    """0.7 at one token, 1.5 and 0.5 at two: 0.7 and 1; over tokens it would be 0.9 for all."""
    losses = only(objective, plain(table(COSTS)), chats([[7]] * 2, [[3], [4, 5]])).losses
    assert losses.tolist() == approx([0.7, 1.0], abs=1e-9)
    over = only(OverTokens(objective), plain(table(COSTS)), chats([[7]] * 2, [[3], [4, 5]])).losses
    assert over.mean().item() == approx(0.9, abs=1e-9)


def test_unlikelihood_is_a_mean_per_row_to_which_unlikely_tokens_add_nothing() -> None:
    """p = 0.4 alone; p = 0.4 and 0.001, of which the second costs 6.9 nats: -log 0.6, and half of it."""
    likely, rare = -math.log(0.4), -math.log(0.001)
    model = plain(table({2: {3: likely, 4: likely}, 4: {5: rare}}))
    found = only(Away(form="log_1_minus_p"), model, chats([[3], [4, 5]], [[7]] * 2)).losses
    assert found.tolist() == approx([-math.log(0.6), -math.log(0.6) / 2], abs=1e-9)


def test_bounds_are_those_of_each_rows_mean() -> None:
    """Rows at 3 and 7 nats around 5, and at 2 and 0.1 around 0.5: of the batch's means no row would pass them."""
    model = plain(table({2: {3: 3.0, 4: 7.0, 5: 2.0, 6: 0.3}}))
    away = only(Away(), model, chats([[3], [4]], [[7]] * 2)).losses
    assert away.tolist() == approx([-3, -5.002], abs=1e-9) and away.mean().item() != approx(-5, abs=1e-3)
    toward = only(Toward(), model, chats([[7]] * 2, [[5], [6]])).losses
    assert toward.tolist() == approx([2, 0.5 - 0.001 * 0.2], abs=1e-9)


@pytest.mark.parametrize(("objective", "edge"), [(Away(), 5.0), (Toward(), 0.5)], ids=["away", "toward"])
def test_bounds_are_continuous_where_the_released_ones_jump(objective: Objective, edge: float) -> None:
    """The released -cutoff - slope x and floor + slope x lie 0.005 and 0.0005 from x there."""
    found = []
    for cost in (edge - 1e-7, edge + 1e-7):
        model = plain(table({2: {3: cost}}))
        found.append(only(objective, model, chats([[3]], [[3]])).losses.item())
    assert found[0] == approx(found[1], abs=1e-6) and abs(1e-3 * edge) > 4e-4


def test_a_bound_would_change_the_advantage_by_a_whole_tokens_likelihood() -> None:
    """Safe 2 -> 1.6 and harmful 1.5 -> 5.1 nats: an advantage of 4, and with a cut-off of 5 one of 4 - 5.1."""
    model = adapted(table({2: {4: 2.0, 3: 1.5}}), table({2: {4: 1.6, 3: 5.1}}))
    batch = chats([[3]], [[4]])
    free, bounded = (only(Preference(**bounds), model, batch).losses.item() for bounds in ({}, {"cutoff": 5.0}))
    assert free == approx((4 - 2) ** 2, abs=1e-9) and bounded == approx((4 - 5.1 - 2) ** 2, abs=1e-9)


def test_the_reference_is_the_same_at_every_step() -> None:
    model, batch = adapted(table(COSTS), table({2: {3: 1.7}})), chats([[3]], [[4]])
    found = []
    for _ in range(2):
        with torch.no_grad(), as_reference(model), evaluating(model):
            found.append(forward(model, batch))
        with torch.no_grad():
            for value in model.parameters():
                value.add_(0.5 if value.requires_grad else 0.0)
    assert torch.equal(*found)


def test_recovery_gives_every_row_a_beginning_of_up_to_40_tokens() -> None:
    batch = chats([[3, 5, 6, 7] * 12] * 8, [[4]] * 8)
    kept = [(PrefillRecovery()._given(batch, step) != IGNORED).sum(dim=1) for step in range(40)]
    counts = torch.cat(kept)
    assert int(counts.min()) == 1 and int(counts.max()) == 40


@pytest.mark.parametrize(
    ("model", "forward_kl", "reverse_kl"),
    [((0.75, 0.25), 0.144, 0.131), ((0.999, 0.001), 2.76, 0.69)],
    ids=["a little", "all but dropping one"],
)
def test_a_collapse_is_dear_in_one_direction_and_cheap_in_the_other(
    model: tuple[float, float], forward_kl: float, reverse_kl: float
) -> None:
    base, after = torch.tensor([[0.5, 0.5]]).double().log(), torch.tensor([model]).double().log()
    batch = dial.rows()
    assert float(kl(base, after, batch)) == approx(forward_kl, abs=6e-3)
    assert float(kl(after, base, batch)) == approx(reverse_kl, abs=6e-3)


def test_kl_to_the_base_is_a_mean_per_row() -> None:
    """Of two tokens of which one is unchanged the row has half of the other's divergence."""
    model = adapted(table({2: {4: 0.5}, 4: {5: 1.0}}), table({2: {4: 1.5}, 4: {5: 1.0}}))
    one, two = only(KlToBase(), model, chats([[7]] * 2, [[4], [4, 5]])).losses.tolist()
    assert two == approx(one / 2, abs=1e-9) and one > 0.1


def halves(batch: Batch) -> tuple[Batch, Batch]:
    return batch.rows(torch.tensor([0])), batch.rows(torch.tensor([1]))


def test_a_mean_over_tokens_is_that_of_all_micro_batches_and_a_cut_off_stays_each_rows() -> None:
    """Rows of one token at 3 nats and of three at 7 in mean: -3 x 1 x 2 / 4 and -5.002 x 3 x 2 / 4, cut or whole."""
    model = plain(table({2: {3: 3.0, 4: 6.0}, 4: {5: 7.0}, 5: {6: 8.0}}))
    batch = chats([[3], [4, 5, 6]], [[7]] * 2)
    objective = OverTokens(Away(), "harmful")
    whole = only(objective, model, batch).losses.tolist()
    assert whole == approx([-3 / 2, -5.002 * 3 / 2], abs=1e-9)
    groups = halves(batch)
    cut = [only(objective, model, one, Moment(1, companions=lambda: groups)).losses.item() for one in groups]
    assert cut == approx(whole, abs=1e-9)
