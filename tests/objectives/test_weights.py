"""AWP: the worked example, the same by hand on a copy of the model, weights that come back, and the cut of the rows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from tests import streams, tiny
from tests.objectives.dial import push, rows
from textadv.attacks import Attack, Attacked, pgd
from textadv.models import forward
from textadv.models.loading import checkpoint_gradients
from textadv.models.sources import quiet
from textadv.objectives import Adversarial, Moment, Objective, Term, WeightPerturbation, trades
from textadv.objectives.alignment import Away, Part, Together, Toward
from textadv.objectives.weights import relative_shift, shifted
from textadv.values.batch import Batch, Role
from textadv.values.losses import cross_entropy

ATTACK = pgd(tiny.threat(), steps=2)
GAMMA = 0.05


class Number(nn.Module):
    """A weight, a bias, and a running mean of the weights that a forward pass saw."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1), weight, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self) -> Tensor:
        if self.training:
            self.seen.copy_(self.weight.detach().squeeze() + self.seen)
        return self.weight.squeeze() + self.bias.squeeze()


@dataclass(frozen=True)
class Square:
    """(w + b - 2)^2 in every row; fails at its call number `failing`."""

    attack: Attack
    failing: int = 0
    calls: list[float] = field(default_factory=list)
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: Any, batch: Batch, moment: Moment) -> Iterator[Term]:
        attacked = self.attack(model, batch)
        self.calls.append(float(model.weight.detach()))
        value = model()
        if len(self.calls) == self.failing:
            raise RuntimeError("in the middle of a pass")
        yield Term("square", (value - 2).square().expand(len(batch)), adversarial=True, attacked=attacked)


def test_the_gradient_is_that_of_the_moved_weight() -> None:
    """Weight 3, gradient 2, gamma 0.1: the weight is moved by 0.3, and (w - 2)^2 has the gradient 2.6 there."""
    model, calls = Number(3.0), []
    (term,) = WeightPerturbation(push(0.0), lambda a: Square(a, calls=calls), 0.1)(model, rows(), Moment(0))
    assert calls == approx([3.0, 3.3]) and float(model.weight.detach()) == 3.0
    assert term.losses.tolist() == approx([1.3**2]) and term.passes == 2
    assert model.weight.grad is None
    term.losses.sum().backward()
    assert (float(model.weight.grad), float(model.bias.grad)) == approx((2.6, 2.6))


def test_the_gradient_counts_as_often_as_there_are_rows() -> None:
    model = Number(3.0)
    (term,) = WeightPerturbation(push(0.0, 0.0, 0.0), Square, 0.1)(model, rows(3), Moment(0))
    (term.losses.sum() * 2.0 / 3).backward()
    assert float(model.weight.grad) == approx(2 * 2.6, rel=1e-12)


def test_each_tensor_is_moved_by_gamma_of_its_own_norm() -> None:
    assert relative_shift(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), 0.1).tolist() == approx([0.0, 0.5])
    assert relative_shift(torch.tensor([3.0]), torch.tensor([0.0]), 0.1).tolist() == [0.0]
    assert relative_shift(torch.zeros(2), torch.ones(2), 0.1).tolist() == [0.0, 0.0]


# ---- the same by hand


def adversarial_rows(count: int = 8) -> Batch:
    return tiny.rows().batch(range(count)).with_role(Role.ADVERSARIAL)


MAKERS = {"adversarial": Adversarial, "trades": lambda attack: trades(attack, 3.0)}


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_the_gradient_of_a_copy_that_was_moved_by_hand(name: str) -> None:
    make, batch = MAKERS[name], adversarial_rows()
    model = tiny.bert(dtype=torch.float64)
    found = [term.losses.sum().backward() for term in WeightPerturbation(ATTACK, make, GAMMA)(model, batch, Moment(3))]
    assert len(found) == 1

    plain = tiny.bert(dtype=torch.float64)
    attacked = ATTACK(plain, batch, step=3, measure=False)

    def loss(at: nn.Module) -> Tensor:
        (term,) = make(lambda *arguments, **options: attacked)(at, batch, Moment(3))
        return term.losses.sum()

    loss(plain).backward()
    moved, lengths = copy.deepcopy(plain), {}
    with torch.no_grad():
        for (key, value), there in zip(plain.named_parameters(), moved.parameters(), strict=True):
            if value.requires_grad and value.dim() > 1:
                there += GAMMA * value.norm() / value.grad.norm() * value.grad
                lengths[key] = float((there - value).norm() / value.norm())
    assert lengths and list(lengths.values()) == approx([GAMMA] * len(lengths))
    assert float(loss(moved).detach()) > float(loss(plain).detach()) + 0.01, "the step climbs"
    moved.zero_grad()
    loss(moved).backward()
    mine = tiny.gradients(model)
    assert tiny.largest_difference(mine, tiny.gradients(moved)) < 1e-9
    assert tiny.largest_difference(mine, tiny.gradients(plain)) > 1e-2


def test_a_small_gamma_is_the_plain_objective() -> None:
    model, plain = tiny.bert(dtype=torch.float64), tiny.bert(dtype=torch.float64)
    one = tiny.one_step(model, tiny.rows(), WeightPerturbation(ATTACK, Adversarial, 1e-9), 8)
    other = tiny.one_step(plain, tiny.rows(), Adversarial(ATTACK), 8)
    assert tiny.largest_difference(tiny.gradients(model), tiny.gradients(plain)) < 1e-6
    assert int(one.forwards) == int(other.forwards) + 4 and int(one.backwards) == int(other.backwards) + 4
    assert len(one.measured) == 1 and one.adversarial_rows == 4


def test_adapters_that_are_zero_stay_where_they_are() -> None:
    """lora_B is zero at first, so that lora_A has no gradient: nothing moves, and training goes on."""
    model, seen = tiny.bert(live_adapters=False), []

    @dataclass(frozen=True)
    class Watched:
        attack: Attack
        terms: int = 1
        keeps_clean: bool = False

        def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
            seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
            yield from Adversarial(self.attack)(model, batch, moment)

    for term in WeightPerturbation(ATTACK, Watched, GAMMA)(model, adversarial_rows(), Moment(0)):
        term.losses.sum().backward()
    before, moved = seen
    changed = [name for name in before if not torch.equal(before[name], moved[name])]
    assert changed and all("classifier" in name for name in changed)
    assert all(bool(torch.isfinite(value).all()) for value in tiny.gradients(model).values())


# ---- what comes back


def state(model: nn.Module) -> list[Tensor]:
    values = [value.detach() for value in (*model.parameters(), *model.buffers())]
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    return [value.clone() for value in (*values, *gradients)]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_everything_is_bit_for_bit_what_it_was_when_a_term_is_handed_over(dtype: torch.dtype) -> None:
    model = tiny.bert(dropout=0.1, dtype=dtype)
    for value in model.parameters():
        value.grad = torch.full_like(value, 0.125) if value.requires_grad else None
    before, modes = state(model), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    list(Adversarial(ATTACK)(model, adversarial_rows(), Moment(0)))
    drawn = torch.get_rng_state()
    torch.set_rng_state(random)
    (term,) = WeightPerturbation(ATTACK, Adversarial, GAMMA)(model, adversarial_rows(), Moment(0))
    assert same(before, state(model)) and modes == [module.training for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), drawn), "as much is drawn as without AWP"
    term.losses.sum().backward()
    assert not same(before, state(model))


@pytest.mark.parametrize("failing", [1, 2])
def test_weights_come_back_where_a_pass_fails(failing: int) -> None:
    """Also while the exception, and with it the generator, is still alive."""
    model, calls = Number(0.1), []
    before = state(model)
    terms = WeightPerturbation(push(0.0), lambda a: Square(a, failing, calls), 0.3)(model, rows(), Moment(0))
    with pytest.raises(RuntimeError, match="in the middle") as caught:
        next(terms)
    assert caught.tb is not None and len(calls) == failing
    assert same([before[0], before[1]], state(model)[:2])


def test_shifted_puts_back_values_that_rounding_would_not() -> None:
    model = nn.Linear(3, 3)
    before = state(model)
    with shifted(model, {"weight": torch.full((3, 3), 1e8)}):
        assert float(model.weight.detach().min()) > 1e7
    assert same(before, state(model))


def test_running_statistics_are_updated_by_one_pass_only() -> None:
    model = Number(3.0)
    list(WeightPerturbation(push(0.0), Square, 0.1)(model, rows(), Moment(0)))
    assert float(model.seen) == approx(3.3)


# ---- attacks and cuts


@dataclass
class Counted:
    """An attack that notes the rows of each search, and the weights that it saw."""

    attack: Attack
    searches: list[list[int]] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        self.searches.append(batch.ids.tolist())
        self.seen.append(sum(float(value.detach().double().sum()) for value in model.parameters()))
        return self.attack(model, batch, step=step, radius_scale=radius_scale, measure=measure)


def walked(objective: Objective, model: nn.Module, groups: Sequence[Batch], step: int = 3) -> list[Term]:
    """The step over these groups, as the trainer takes it: each term backpropagated as it comes, divided by 8."""
    found = []
    for group in groups:
        for term in objective(model, group, Moment(step, measure=True, companions=lambda: groups)):
            (term.losses.sum() * term.weight / 8).backward()
            found.append(term)
    return found


def cut(size: int) -> list[Batch]:
    return [adversarial_rows().rows(part) for part in torch.arange(8).split(size)]


@pytest.mark.parametrize("name", MAKERS)
def test_micro_batches_make_the_same_gradient(name: str) -> None:
    found = {}
    for size in (8, 3, 1):
        model = tiny.bert(dtype=torch.float64)
        walked(WeightPerturbation(ATTACK, MAKERS[name], GAMMA), model, cut(size))
        found[size] = tiny.gradients(model)
    assert tiny.largest_difference(found[8], found[3]) < 1e-10
    assert tiny.largest_difference(found[8], found[1]) < 1e-10
    model = tiny.bert(dtype=torch.float64)
    for group in cut(1):
        for term in WeightPerturbation(ATTACK, MAKERS[name], GAMMA)(model, group, Moment(3)):
            (term.losses.sum() / 8).backward()
    assert tiny.largest_difference(found[8], tiny.gradients(model)) > 1e-3, "each row alone moves the weights its way"


def test_every_row_is_attacked_once_and_at_the_weights_themselves() -> None:
    model, counted = tiny.bert(), Counted(ATTACK)
    objective = WeightPerturbation(counted, Adversarial, GAMMA)
    terms = walked(objective, model, cut(3))
    assert [len(ids) for ids in counted.searches] == [3, 3, 2] and len(set(counted.seen)) == 1
    assert [term.attacked is not None for term in terms] == [True] * 3
    walked(objective, model, cut(3), step=4)
    assert len(counted.searches) == 6, "the next step searches anew"
    next(iter(objective(model, cut(3)[0], Moment(5, companions=lambda: cut(3)))))
    walked(objective, model, cut(3), step=5)
    assert len(counted.searches) == 12, "a step that was given up leaves nothing behind"


def test_a_group_must_be_one_of_its_companions() -> None:
    objective = WeightPerturbation(ATTACK, Adversarial, GAMMA)
    with pytest.raises(ValueError, match="must hold the group itself"):
        next(iter(objective(tiny.bert(), cut(4)[0], Moment(0, companions=lambda: cut(4)[1:]))))


def test_parts_on_chats_share_one_delta_and_one_shift() -> None:
    def make(attack: Attack) -> Together:
        return Together((Part(Away(), True), Part(Toward(), True)), attack)

    counted, model = Counted(streams.attack()), streams.model()
    objective = WeightPerturbation(counted, make, GAMMA)
    before = state(model)
    batch = streams.rows().batch(range(4)).with_role(Role.ADVERSARIAL)
    terms = []
    for term in objective(model, batch, Moment(0)):
        assert same(before[: len(terms) or None], state(model)[: len(terms) or None])
        (term.losses.sum() * term.weight).backward()
        terms.append(term.name)
    assert terms == ["away", "toward"] and objective.terms == 2 and not objective.keeps_clean
    assert len(counted.searches) == 1
    plain = streams.model()
    for term in make(streams.attack())(plain, batch, Moment(0)):
        (term.losses.sum() * term.weight).backward()
    assert tiny.largest_difference(streams.gradients(model), streams.gradients(plain)) > 1e-3


def test_gradient_checkpointing_recomputes_at_the_moved_weights() -> None:
    found = []
    for checkpointed in (False, True):
        model = tiny.bert(dtype=torch.float64)
        if checkpointed:
            with quiet():
                checkpoint_gradients("tiny", model)
        walked(WeightPerturbation(ATTACK, Adversarial, GAMMA), model, cut(8))
        found.append(tiny.gradients(model))
    assert tiny.largest_difference(found[0], found[1]) < 1e-12


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="objective.weight_perturbation must be above 0 and finite, got 0"):
        WeightPerturbation(ATTACK, Adversarial, 0.0)
    model = tiny.bert()
    for value in model.parameters():
        value.requires_grad_(value.requires_grad and value.dim() == 1)
    with pytest.raises(ValueError, match="moves matrices, and the model trains none"):
        next(iter(WeightPerturbation(ATTACK, Adversarial, GAMMA)(model, adversarial_rows(), Moment(0))))


def test_it_holds_the_clean_loss_where_the_objective_does() -> None:
    assert WeightPerturbation(ATTACK, trades).keeps_clean and not WeightPerturbation(ATTACK, Adversarial).keeps_clean


def test_the_losses_are_those_at_the_moved_weights() -> None:
    (term,) = WeightPerturbation(ATTACK, Adversarial, GAMMA)(tiny.bert(), adversarial_rows(), Moment(0))
    at_w = cross_entropy(forward(tiny.bert(), ATTACK(tiny.bert(), adversarial_rows()).batch), adversarial_rows())
    assert float(term.losses.detach().sum()) > float(at_w.detach().sum()) + 0.01
