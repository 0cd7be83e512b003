"""The terms that harden a chat model, on numbers worked out by hand; several of them on one delta."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from tests.objectives.dictated import TOKENS, Odds, Replace, adapted, chats, plain, table
from textadv.attacks import Attacked
from textadv.models import forward
from textadv.objectives import Clean, Moment, Objective, Term, alignment
from textadv.objectives.alignment import (
    Away,
    KlToBase,
    Part,
    Preference,
    PrefillRecovery,
    Supervised,
    Tempted,
    Together,
    Toward,
    beyond,
)
from textadv.values.batch import Batch, Perturbation
from textadv.values.spaces import Embeddings

NOW = Moment(4, 0.5, True)
ROW = chats([[3]], [[4]])


def only(objective: Objective, model: nn.Module, batch: Batch, moment: Moment = NOW) -> Term:
    assert objective.terms == 1
    (term,) = objective(model, batch, moment)
    return term


def become(batch: Batch, token: int) -> Batch:
    """The rows with the prompt's last token perturbed into another one."""
    return Replace(token)(nn.Identity(), batch).batch


# ---- bounded losses


def test_beyond_is_gentle_on_one_side_only() -> None:
    values = torch.tensor([3.0, 5.0, 7.0], dtype=torch.float64)
    assert beyond(values, 5.0, 1e-3, above=True).tolist() == approx([3, 5, 5.002], abs=1e-12)
    assert beyond(values, 5.0, 1e-3, above=False).tolist() == approx([4.998, 5, 7], abs=1e-12)


def test_away_is_minus_the_harmful_loss_up_to_its_cut_off() -> None:
    """Targets at 3 and 7 nats per token contribute -3 and -5.002; the third is 2 and 4 nats at its two tokens."""
    model = plain(table({2: {3: 3.0, 4: 7.0, 5: 2.0}, 5: {6: 4.0}}))
    term = only(Away(), model, chats([[3], [4], [5, 6]], [[7]] * 3))
    assert term.losses.tolist() == approx([-3, -5.002, -3], abs=1e-9)
    assert (term.name, term.weight, term.adversarial, term.passes) == ("away", 0.5, False, 1)


def test_toward_is_the_safe_loss_down_to_its_floor() -> None:
    """Answers at 2 and 0.1 nats per token contribute 2 and 0.4996."""
    model = plain(table({2: {3: 2.0, 4: 0.15}, 4: {5: 0.05}}))
    term = only(Toward(weight=0.25), model, chats([[7]] * 2, [[3], [4, 5]]))
    assert term.losses.tolist() == approx([2, 0.4996], abs=1e-9)
    assert (term.name, term.weight, term.adversarial) == ("toward", 0.25, False)
    supervised = only(Toward(floor=0.0), model, chats([[7]] * 2, [[3], [4, 5]]))
    assert supervised.losses.tolist() == approx([2, 0.1], abs=1e-9)


@pytest.mark.parametrize(("objective", "inside", "outside"), [(Away(), 3.0, 7.0), (Toward(), 2.0, 0.1)])
def test_beyond_the_bound_a_gradient_is_left(objective: Objective, inside: float, outside: float) -> None:
    """A thousandth of what it is inside, where d loss / d logit of the token is p - 1."""
    found = []
    for cost in (inside, outside):
        model = plain(table({2: {3: cost}}))
        only(objective, model, chats([[3]], [[3]])).losses.sum().backward()
        found.append(float(model.blocks[0].weight.grad[3, 2]) / (math.exp(-cost) - 1))
    sign = -1 if isinstance(objective, Away) else 1
    assert found == approx([sign, sign * 1e-3], rel=1e-9)


@pytest.mark.parametrize(("objective", "expected"), [(Away(), -1.5), (Toward(), 2.5)])
def test_both_are_taken_at_the_perturbed_prompt(objective: Objective, expected: float) -> None:
    model = plain(table({2: {3: 0.7, 4: 0.7}, 6: {3: 1.5, 4: 2.5}}))
    term = only(objective, model, become(ROW, 6))
    assert term.losses.tolist() == approx([expected], abs=1e-9)
    assert term.adversarial


def test_a_tempted_row_is_attacked_toward_its_refusal_and_drawn_to_its_own_answer() -> None:
    """At the prompt's end 6 the refusals 5 and 3 cost 1.5 and 7 nats, the answer 4 costs 2.5."""
    model = plain(table({2: {3: 0.7, 4: 0.9}, 6: {5: 1.5, 3: 7.0, 4: 2.5}}))
    rows = replace(chats([[7]] * 2, [[4]] * 2), answers={"response": chats([[7]] * 2, [[4]] * 2).answers["safe"]})
    attack = Replace(6)
    parts = (Part(Away(answer="refusal"), True), Part(Toward(answer="response"), True), Part(Supervised()))
    goal = Tempted(Together(parts, attack, "refusal"), ((5,), (3,)))
    assert rows.ids.tolist() == [40, 41] and goal.terms == 3 and goal.keeps_clean
    away, toward, plainly = goal(model, rows, NOW)
    assert attack.calls[0][0] == [[1, 2, 5], [1, 2, 3]]
    assert away.losses.tolist() == approx([-1.5, -5.002], abs=1e-9)
    assert toward.losses.tolist() == approx([2.5, 2.5], abs=1e-9)
    assert plainly.losses.tolist() == approx([0.9, 0.9], abs=1e-9)
    assert (away.adversarial, toward.adversarial, plainly.adversarial) == (True, True, False)
    assert away.attacked is not None and toward.attacked is None
    with pytest.raises(ValueError, match="over_refusal needs the safe answers"):
        Tempted(goal.objective, ())
    with pytest.raises(ValueError, match="Every refusal needs its opening, got 2 and 1"):
        Tempted(goal.objective, ((5,), (3,)), ((6,),))


def test_a_refusal_stands_after_what_the_template_writes_before_it() -> None:
    model = plain(table({2: {3: 0.7, 5: 0.9}, 6: {5: 1.5}, 7: {3: 2.0}}))
    rows = replace(chats([[7]] * 2, [[4]] * 2), openings={"response": torch.tensor([[9], [9]])})
    goal = Tempted(Away(answer="refusal", cutoff=9), ((5,), (3,)), ((6,), (7,)))
    assert only(goal, model, rows).losses.tolist() == approx([-1.5, -2.0], abs=1e-9)


# ---- preference


def preferring(safe: tuple[float, float], harmful: tuple[float, float]) -> nn.Module:
    """A model that says 4 and 3 after the prompt at these costs, each without and with its adapter."""
    return adapted(table({2: {4: safe[0], 3: harmful[0]}}), table({2: {4: safe[1], 3: harmful[1]}}))


@pytest.mark.parametrize(("form", "expected"), [("ipo", 1.0), ("dpo", math.log(1 + math.exp(-0.25)))])
def test_preference_at_an_advantage_of_one(form: str, expected: float) -> None:
    """The safe answer becomes 0.4 nats cheaper and the harmful one 0.6 nats dearer: (1 - 2)^2 = 1, or 0.576."""
    model = preferring((2.0, 1.6), (1.5, 2.1))
    term = only(Preference(form), model, ROW)  # type: ignore[arg-type]
    assert term.losses.tolist() == approx([expected], abs=1e-9)
    assert (term.name, term.weight, term.adversarial, term.passes) == ("preference", 1.0, False, 2)


@pytest.mark.parametrize(("form", "advantage"), [("ipo", 0.4 + 1.0), ("dpo", 0.4 + 2.0)])
def test_ipo_counts_per_token_and_dpo_whole_answers(form: str, advantage: float) -> None:
    """The harmful answer's two tokens become 0.5 and 1.5 nats dearer."""
    before, after = {2: {4: 2.0, 3: 1.5}, 3: {5: 1.0}}, {2: {4: 1.6, 3: 2.0}, 3: {5: 2.5}}
    objective = Preference(form, beta=0.5)  # type: ignore[arg-type]
    term = only(objective, adapted(table(before), table(after)), chats([[3, 5]], [[4]]))
    expected = {"ipo": (advantage - 1) ** 2, "dpo": math.log(1 + math.exp(-0.5 * advantage))}
    assert term.losses.tolist() == approx([expected[form]], abs=1e-9)


def test_the_reference_sees_the_prompt_as_it_is() -> None:
    """Without the adapter the costs are those after token 2, with it those after token 6."""
    before = table({2: {4: 2.0, 3: 1.5}, 6: {4: 0.7, 3: 5.0}})
    after = table({2: {4: 3.0, 3: 0.9}, 6: {4: 1.6, 3: 2.1}})
    term = only(Preference(), adapted(before, after), become(ROW, 6))
    assert term.losses.tolist() == approx([1.0], abs=1e-9)
    assert term.adversarial


def test_the_adapter_and_the_modes_are_as_before_a_reference() -> None:
    model = preferring((2.0, 1.6), (1.5, 2.1))
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    only(Preference(), model, ROW).losses.sum().backward()
    assert [module.training for module in model.modules()] == modes
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {name for name, value in model.named_parameters() if value.grad is not None}
    assert all("lora" in name for name in trained) and len(trained) == 2


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_a_beta_that_is_not_positive_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="capo.beta must be above 0"):
        Preference(beta=beta)


# ---- recovery from a prefill


def given(objective: PrefillRecovery, batch: Batch, step: int) -> list[int]:
    """How many tokens of its target each row was given: the answer 4 costs (k + 1) / 2 after k of them."""
    after: Odds = {2: {4: 0.5}, 3: {4: 1.0}, 5: {4: 1.5}, 6: {4: 2.0}, 7: {4: 2.5}}
    losses = only(objective, plain(table(after)), batch, Moment(step)).losses
    counts = [2 * loss - 1 for loss in losses.tolist()]
    assert counts == approx([round(count) for count in counts], abs=1e-9)
    return [round(count) for count in counts]


def test_recovery_follows_the_targets_first_tokens_and_trains_the_answer_only() -> None:
    """Between `shortest` and `longest` of them, but never the whole target of four tokens, nor any of one token."""
    batch = chats([[3, 5, 6, 7], [3]], [[4], [4]])
    seen = {step: given(PrefillRecovery(longest=5), batch, step) for step in range(30)}
    assert {counts[0] for counts in seen.values()} == {1, 2, 3}
    assert {counts[1] for counts in seen.values()} == {0}
    assert {given(PrefillRecovery(), batch, step)[0] for step in range(5)} <= {1, 2, 3}
    assert {given(PrefillRecovery(longest=1), batch, step)[0] for step in range(10)} == {1}
    assert {given(PrefillRecovery(shortest=0, longest=2), batch, step)[0] for step in range(30)} == {0, 1, 2}


def test_recovery_begins_with_what_the_template_writes_before_the_target() -> None:
    """The target's opening 6 stands first; the answer's own 7 would stand where no target was begun."""
    rows = chats([[3, 5]] * 2, [[4]] * 2)
    opened = replace(rows, openings={"harmful": torch.tensor([[6], [6]]), "safe": torch.tensor([[7], [7]])})
    model = plain(table({2: {4: 0.5}, 3: {4: 1.0}, 6: {4: 2.0}, 7: {4: 2.5}}))
    assert only(PrefillRecovery(longest=1), model, opened).losses.tolist() == approx([1.0] * 2, abs=1e-9)
    assert only(PrefillRecovery(shortest=0, longest=0), model, opened).losses.tolist() == approx([2.0] * 2, abs=1e-9)
    assert only(Toward(floor=0.0), model, opened).losses.tolist() == approx([2.5] * 2, abs=1e-9)


def test_tokens_given_are_drawn_by_seed_step_and_row_alone() -> None:
    batch = chats([[3, 5, 6, 7]] * 6, [[4]] * 6)
    drawn = [given(PrefillRecovery(longest=3), batch, step) for step in range(6)]
    assert len({tuple(counts) for counts in drawn}) > 3 and any(len(set(counts)) > 1 for counts in drawn)
    rows = [batch.rows(torch.tensor([n])).answering("safe") for n in range(6)]
    assert [given(PrefillRecovery(longest=3), row, 2)[0] for row in rows] == drawn[2]
    assert [given(PrefillRecovery(longest=3, seed=1), batch, step) for step in range(6)] != drawn


@pytest.mark.parametrize(("shortest", "longest"), [(-1, 3), (4, 3)])
def test_a_range_of_tokens_that_is_none_is_refused(shortest: int, longest: int) -> None:
    with pytest.raises(ValueError, match=f"0 <= shortest <= longest, got {shortest} and {longest}"):
        PrefillRecovery(shortest=shortest, longest=longest)


# ---- useful chats


def test_supervised_is_the_loss_of_the_rows_own_answer_without_a_perturbation() -> None:
    model = plain(table({2: {4: 0.7, 3: 1.5}, 6: {4: 2.5}}))
    term = only(Supervised(weight=2.0, name="facts"), model, become(ROW, 6))
    assert term.losses.tolist() == approx([0.7], abs=1e-9)
    assert (term.name, term.weight, term.adversarial) == ("facts", 2.0, False)


def divergence(before: dict[int, float], after: dict[int, float]) -> float:
    """KL(before || after) of two rows of `table`."""
    p, q = (torch.softmax(table({0: costs})[0], dim=0) for costs in (before, after))
    return float((p * (p / q).log()).sum())


BEFORE, AFTER = {2: {4: 0.5, 3: 2.0}, 4: {5: 1.0}}, {2: {4: 1.5, 3: 1.0}, 4: {5: 0.4}}


def test_kl_is_that_of_the_base_to_the_model_over_the_answers_tokens() -> None:
    """The second row's answer has two tokens, and counts as their mean; a perturbation is left out."""
    model = adapted(table(BEFORE), table(AFTER))
    term = only(KlToBase(weight=0.3), model, become(chats([[3]] * 2, [[4], [4, 5]]), 6))
    first, second = divergence(BEFORE[2], AFTER[2]), divergence(BEFORE[4], AFTER[4])
    assert first != approx(divergence(AFTER[2], BEFORE[2]), abs=1e-3)
    assert term.losses.tolist() == approx([first, (first + second) / 2], abs=1e-9)
    assert (term.name, term.weight, term.adversarial) == ("kl", 0.3, False)


def gradients(objective: Objective, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    only(objective, model, batch).losses.sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_the_scale_free_gradient_is_that_of_the_logarithm() -> None:
    model = adapted(table(BEFORE), table(AFTER))
    size = divergence(BEFORE[2], AFTER[2])
    base, free = (gradients(KlToBase(scale_free=flag), model, ROW) for flag in (False, True))
    assert max(float(value.abs().max()) for value in base.values()) > 0.1 and size != approx(1, abs=0.1)
    assert all(torch.allclose(free[name], value / size, atol=1e-12) for name, value in base.items())
    assert only(KlToBase(scale_free=True), model, ROW).losses.tolist() == approx([1.0], abs=1e-12)


def test_an_adapter_that_does_nothing_has_no_divergence_and_no_gradient() -> None:
    model = adapted(table(BEFORE), table(BEFORE))
    for scale_free in (False, True):
        found = gradients(KlToBase(scale_free=scale_free), model, ROW)
        assert len(found) == 2 and max(float(value.abs().max()) for value in found.values()) < 1e-8


# ---- several on one delta


@dataclass(frozen=True)
class Watching:
    """`count` terms of the loss of the rows as they come, each noting what they carried."""

    terms: int = 1
    keeps_clean: bool = False
    own: Attacked | None = None
    seen: list[Batch] = field(default_factory=list, compare=False)

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        for _ in range(self.terms):
            self.seen.append(batch)
            yield Term("watched", forward(model, batch).sum(dim=(1, 2)), attacked=self.own)


def test_one_delta_is_searched_and_shared_by_the_parts_that_want_it() -> None:
    attack, parts = Replace(6), [Watching(), Watching(2), Watching()]
    together = Together((Part(parts[0], True), Part(parts[1]), Part(parts[2], True)), attack)
    batch = chats([[3, 5]] * 2, [[4], [4, 5]])
    assert together.terms == 4 == len(list(together(plain(table({})), batch, NOW)))
    assert attack.calls == [([[1, 2, 3, 5]] * 2, 4, 0.5, True)], "searched once, on the harmful answer"
    first, *none, last = [batch.perturbation for part in parts for batch in part.seen]
    assert none == [None, None]
    assert isinstance(first, Perturbation) and isinstance(last, Perturbation)
    assert torch.equal(first.delta, last.delta) and first.space == Embeddings()
    assert float(first.delta[0, 1, 6]) == 1.0 and not first.delta[:, 2:].any()


def test_a_part_sees_the_rows_own_answer_whatever_the_attack_aimed_at() -> None:
    """Otherwise `Supervised` would teach the harmful target."""
    seen = Watching()
    harmful = [[3, 5, 6]] * 2
    for aimed, safe in ((harmful, [[4], [4, 5]]), ([[3]] * 2, [[4], [4, 5]])):
        batch = chats(aimed, safe)
        model = plain(table({2: {4: 0.7}, 4: {5: 1.3}, 6: {4: 2.5}}))
        together = Together((Part(Supervised(), True), Part(seen, True)), Replace(6))
        own, _ = together(model, batch, NOW)
        assert own.losses.tolist() == approx([0.7, 1.0], abs=1e-9)
        assert torch.equal(seen.seen[-1].inputs["input_ids"], batch.inputs["input_ids"])
        assert torch.equal(seen.seen[-1].targets, batch.targets)  # type: ignore[arg-type]
        assert seen.seen[-1].perturbation.delta.shape == (2, 4, TOKENS)  # type: ignore[union-attr]


def test_a_perturbation_the_rows_came_with_is_forgotten() -> None:
    seen = Watching()
    list(Together((Part(seen),))(plain(table({})), become(ROW, 6), NOW))
    attack = Replace(5)
    list(Together((Part(seen, True),), attack)(plain(table({})), become(ROW, 6), NOW))
    assert seen.seen[0].perturbation is None
    assert float(seen.seen[1].perturbation.delta[0, 1, 6]) == 0.0  # type: ignore[union-attr]


def test_cost_and_outcome_are_counted_once() -> None:
    """They stand with the first term that brings none of its own."""
    model, attack = plain(table({})), Replace(6)
    together = Together((Part(Away(), True), Part(Toward(), True), Part(Supervised())), attack)
    found = [term.attacked for term in together(model, ROW, NOW)]
    assert [attacked is None for attacked in found] == [False, True, True]
    assert found[0].cost.forwards.tolist() == [5] and found[0].measured is not None  # type: ignore[union-attr]
    own = Replace(5)(model, ROW)
    mixed = Together((Part(Watching(own=own)), Part(Away(), True), Part(Toward(), True)), attack)
    found = [term.attacked for term in mixed(model, ROW, NOW)]
    assert found[0] is own and found[1] is not None and found[1] is not own and found[2] is None


def test_the_parts_terms_are_those_they_give_alone() -> None:
    """cat: away and toward on the same delta, weighted as they say, and the clean loss of the safe answer."""
    model = plain(table({2: {3: 1.0, 4: 1.2}, 6: {3: 3.0, 4: 2.0}}))
    cat = Together((Part(Away(0.5), True), Part(Toward(0.25), True), Part(Supervised(2.0))), Replace(6))
    terms = list(cat(model, ROW, NOW))
    assert [(term.name, term.weight, term.adversarial) for term in terms] == [
        ("away", 0.5, True),
        ("toward", 0.25, True),
        ("utility", 2.0, False),
    ]
    assert [term.losses.item() for term in terms] == approx([-3.0, 2.0, 1.2], abs=1e-9)
    assert cat.keeps_clean and not replace(cat, parts=cat.parts[:2]).keeps_clean


def test_without_perturbed_parts_there_is_no_search() -> None:
    together = Together((Part(PrefillRecovery()), Part(Clean())))
    assert [term.attacked for term in together(plain(table({})), ROW, NOW)] == [None, None]
    assert (together.terms, together.keeps_clean) == (2, True)


def test_the_answer_that_is_attacked_can_be_chosen() -> None:
    attack = Replace(6)
    list(Together((Part(Toward(), True),), attack, answer="safe")(plain(table({})), ROW, NOW))
    assert attack.calls[0][0] == [[1, 2, 4]]
    assert Together((Part(Toward()),)).answer == alignment.HARMFUL


def test_a_perturbed_part_without_an_attack_is_refused() -> None:
    with pytest.raises(ValueError, match="is to see a perturbation, and there is no attack"):
        Together((Part(Toward()), Part(Away(), True)))
    with pytest.raises(ValueError, match="objective.parts is empty"):
        Together((), Replace(6))
