"""Discrete seeds under a continuous delta: the step is that of rows that ask so in the data, however they are cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from pytest import approx
from torch import Tensor, nn

from tests import seeded, tiny
from tests.measuring.test_ends_of_turn import template
from tests.seeded import LENGTH, ROWS, STEP
from textadv.attacks.prompts.pool import Drawing, Seed
from textadv.attacks.prompts.rewritten import Passes
from textadv.attacks.prompts.seeding import Listed, Seeding
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data import encode_chats
from textadv.data.paraphrases import rephrased
from textadv.models import evaluating, forward
from textadv.objectives import Moment, Objective, memory_of
from textadv.objectives import seeded as module
from textadv.objectives.alignment import PrefillRecovery, Supervised
from textadv.objectives.rerouting import Reroute
from textadv.objectives.seeded import Seeded
from textadv.objectives.token_means import OverTokens
from textadv.values.batch import IGNORED
from textadv.values.losses import cross_entropy

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "cat": seeded.cat,
    "recovery": PrefillRecovery,
    "rerouting over tokens": lambda: OverTokens(Reroute((0,)), "harmful", whole=True),
    "supervised": Supervised,
}


def filled(seeding: Seeding, model: nn.Module, step: int = STEP) -> Seeding:
    """The seeding with a pool that was filled at a step."""
    found = seeding.renewed(ChatVictim(model, seeding.template, LENGTH), sorted(seeding.chats), step, Passes())
    seeding.pool.take(found, step)
    return seeding


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_is_that_of_rows_that_have_these_prompts_in_the_data(name: str) -> None:
    """The rows that are drawn, re-encoded with the drawn text, answers and ids as they were."""
    seeding = filled(seeded.seeding(share=0.7), seeded.model())
    own = [seeding.drawing.drawn(seeding.pool.seeds.get(chat.id, ()), STEP, chat.id) for chat in seeded.chats()]
    asked = [
        chat if seed is None or not seeding.chosen(STEP, chat.id) else rephrased(chat, seed.text, chat.id)
        for chat, seed in zip(seeded.chats(), own, strict=True)
    ]
    other = sum(one is not chat for one, chat in zip(asked, seeded.chats(), strict=True))
    assert 0 < other < ROWS - 1, "some rows are drawn, and not all"
    expected = seeded.gradient(OBJECTIVES[name](), rows=seeded.encoded(asked))
    found = seeded.gradient(Seeded(OBJECTIVES[name](), seeding))
    assert tiny.largest_difference(expected, found) < 1e-9
    assert tiny.largest_difference(seeded.gradient(OBJECTIVES[name]()), found) > 1e-3


@cache
def whole(source: str) -> dict[str, Tensor]:
    return seeded.steps(seeded.model(), source, ROWS)


@pytest.mark.parametrize(("source", "size"), [("file", 3), ("gcg", 1)])
def test_micro_batches_change_neither_the_gradient_nor_the_pool(source: str, size: int) -> None:
    """Over three steps, in the last of which the pool is renewed on the weights that the first two left."""
    found = seeded.steps(seeded.model(), source, size)
    assert found.keys() == whole(source).keys() and torch.equal(found["pool"], whole(source)["pool"])
    for name, value in whole(source).items():
        assert torch.allclose(value.double(), found[name].double(), atol=1e-9), name


def test_what_should_change_the_gradient_does() -> None:
    """The comparisons above could hold for seeds that are never taken."""
    subject = seeded.model()
    seeded.backpropagated(subject, seeded.cat(), step=0)
    plain = {f"0 {name}": value for name, value in seeded.streams.descended(subject).items()}
    first = {source: {name: whole(source)[name] for name in plain} for source in seeded.SOURCES}
    assert tiny.largest_difference(plain, first["file"]) > 1e-3
    assert tiny.largest_difference(plain, first["gcg"]) > 1e-3
    assert tiny.largest_difference(first["file"], first["gcg"]) > 1e-3


def test_losses_in_the_pool_are_those_of_the_model_that_renewed_them() -> None:
    """Of the target without its end of turn, since it is how an answer begins."""
    model = seeded.model()
    seeding = filled(seeded.seeding(every=4), model)
    chat = seeded.chats()[0]

    def losses() -> list[float]:
        batch = seeded.encoded([rephrased(chat, seed.text, chat.id) for seed in seeding.pool.seeds[chat.id]])
        rows = batch.batch(range(len(batch)))
        said = rows.answers["harmful"]
        ends = (said != IGNORED).sum(dim=1, keepdim=True) - 1
        rows = rows.answering(said.scatter(1, ends, IGNORED))
        with torch.no_grad(), evaluating(model):
            return cross_entropy(forward(model, rows), rows).tolist()

    before = losses()
    assert [seed.loss for seed in seeding.pool.seeds[chat.id]] == approx(before, abs=1e-5)
    seeded.moved(model)
    victim = ChatVictim(model, seeding.template, LENGTH)
    assert seeding.renewed(victim, [chat.id], STEP + 3, Passes()) == [], "not due yet"
    (found,) = seeding.renewed(victim, [chat.id], STEP + 4, Passes())
    assert [seed.loss for seed in found.seeds] == approx(losses(), abs=1e-5) != before
    assert [seed.step for seed in found.seeds] == [STEP] * len(found.seeds) and found.seeds, (
        "known prompts keep their age"
    )


def test_of_a_file_with_more_prompts_than_the_pool_holds_the_best_stay() -> None:
    """They are no younger for having been left out; another pool that takes up the first one's bytes does the same."""
    model, chat = seeded.model(), seeded.chats()[0]
    ways = ("Now", "Please", "One", "Two", "Well", "So", "And", "But")
    asked = Listed({chat.id: tuple(f"{word} {chat.prompt}" for word in ways)})

    def seeding() -> Seeding:
        return seeded.seeding(asked, every=4, most=3, drawing=Drawing(1.0, 4, seed=3))

    def renewals(begun: Seeding, steps: Sequence[int]) -> list[tuple[Seed, ...]]:
        return [filled(replace(begun, chats={chat.id: chat}), model, step).pool.seeds[chat.id] for step in steps]

    begun, again = seeding(), seeding()
    everything = filled(replace(seeding(), most=len(ways), chats={chat.id: chat}), model, 0).pool.seeds[chat.id]
    best = sorted(everything, key=lambda seed: seed.loss)[:3]
    first = renewals(begun, (0, 4))
    again.pool.load(begun.pool.state())
    last = renewals(begun, (8, 12))
    assert last == renewals(again, (8, 12)) and again.pool.state()["pool"].equal(begun.pool.state()["pool"])
    for seeds in (*first, *last):
        assert {seed.text for seed in seeds} == {seed.text for seed in best}
        assert {seed.step for seed in seeds} == {0}, "and no one of them is drawn less often for its age"


def test_a_search_goes_on_from_the_best_suffix_and_lowers_the_loss() -> None:
    """Each renewal adds a suffix; the pool keeps the best, whose loss never rises on a model that stays."""
    model, chat = seeded.model(), seeded.chats()[0]
    seeding = seeded.seeding(seeded.searched(), every=1, most=2)
    best = list[float]()
    for step in range(4):
        victim = ChatVictim(model, seeding.template, LENGTH)
        seeding.pool.take(seeding.renewed(victim, [chat.id], step, Passes()), step)
        seeds = seeding.pool.seeds[chat.id]
        best.append(min(seed.loss for seed in seeds))
        assert 1 <= len(seeds) <= 2 and all(seed.text.startswith(chat.prompt) for seed in seeds)
    assert best == sorted(best, reverse=True) and best[-1] < best[0]


def test_the_search_is_counted_once_whatever_the_cut() -> None:
    """Beside the passes of the objective: each prompt of the pool measured, and one slope for each suffix."""
    plain = seeded.backpropagated(seeded.model(), Supervised())
    for size in (1, ROWS):
        goal = Seeded(Supervised(), seeded.seeding())
        report = seeded.backpropagated(seeded.model(), goal, size)
        kept = sum(map(len, goal.pool.seeds.values()))
        assert int(report.forwards - plain.forwards) == kept > ROWS
        assert int(report.backwards) == int(plain.backwards)
    searching = seeded.backpropagated(seeded.model(), Seeded(Supervised(), seeded.seeding(seeded.searched())), 1)
    assert int(searching.backwards - plain.backwards) == ROWS


def test_prompts_that_do_not_fit_are_left_out_and_rows_without_stay_as_they_are() -> None:
    chat = seeded.chats()[0]
    long, short = chat.prompt + " Really?" * 60, f"Oh. {chat.prompt}"
    seeding = filled(seeded.seeding(Listed({chat.id: (long, short)})), seeded.model())
    assert [seed.text for seed in seeding.pool.seeds[chat.id]] == [short]
    assert seeding.pool.seeds[seeded.chats()[1].id] == () and seeding.prompt(seeded.chats()[1].id, STEP) is None
    goal, rows = Seeded(Supervised(), seeding), seeded.encoded().batch([1, 2])
    assert goal._seeded(rows, STEP) is rows
    seen = goal._seeded(seeded.encoded().batch([1, 0]), STEP)
    wanted = seeded.encoded([seeded.chats()[1], rephrased(chat, short, chat.id)]).batch([0, 1])
    for name, value in wanted.inputs.items():
        assert torch.equal(seen.inputs[name], value), name
    assert torch.equal(seen.editable, wanted.editable) and torch.equal(seen.prompt_lengths, wanted.prompt_lengths)
    assert torch.equal(seen.targets, wanted.targets) and torch.equal(seen.ids, wanted.ids)


def test_a_row_whose_target_is_cut_asks_what_it_asked() -> None:
    """No loss of its target can be told, and training goes on."""
    chat = seeded.chats()[0]
    others = [f"{chat.prompt[:-1]}{end}" for end in "!?;:,xyz"]
    prompts = [encode_chats([rephrased(chat, text, 0)], seeded.template(), LENGTH).prompts[0] for text in others]
    length = len(seeded.encoded([chat]).prompts[0])
    text = next(text for text, ids in zip(others, prompts, strict=True) if len(ids) == length and text != chat.prompt)
    short = length + len(seeded.encoded([chat]).answers["harmful"][0]) - 2
    rows = encode_chats([chat], seeded.template(), short)
    assert (rows.cut_prompts, rows.cut_answers) == (0, 1)
    own = replace(seeded.seeding(Listed({chat.id: (text,)})), chats={chat.id: chat}, max_length=short)
    found = own.renewed(ChatVictim(seeded.model(), own.template, short), [chat.id], STEP, Passes())
    assert [one.seeds for one in found] == [()] and own.encoded(chat, text) is None


@pytest.mark.parametrize("special", [True, False])
def test_a_row_of_which_the_safe_answer_alone_is_cut_asks_with_what_was_found(special: bool) -> None:
    """Also where the token that ends turns was added as a word like others."""
    chat = replace(seeded.chats()[0], answers={"harmful": "Here it is", "safe": "No, " * 60})
    found, short = f"{chat.prompt[:-1]}!", 160
    rows = encode_chats([chat, rephrased(chat, found, 1)], template(special=special), short)
    assert (rows.cut_prompts, rows.cut_answers) == (0, 2) and len({*rows.answers["harmful"]}) == 1
    own = replace(
        seeded.seeding(Listed({})), chats={chat.id: chat}, template=template(special=special), max_length=short
    )
    asked = own.encoded(chat, found)
    assert asked is not None and asked.ids == rows.prompts[1]


def test_steps_that_hold_a_perturbation_hold_the_prompt() -> None:
    seeding = filled(seeded.seeding(share=0.5, hold=2), seeded.model(), 0)
    ids = [chat.id for chat in seeded.chats()]
    drawn = [[seeding.prompt(row, step) for row in ids] for step in range(8)]
    assert drawn[::2] == drawn[1::2] and len({str(one) for one in drawn}) > 2
    shares = [seeding.chosen(step, row) for step in range(0, 400, 2) for row in ids]
    assert sum(shares) / len(shares) == approx(0.5, abs=0.05)


def test_what_is_carried_is_the_pool_alone() -> None:
    """A run goes on from the pool's bytes as if it had never stopped."""
    goal, again = (Seeded(seeded.cat(), seeded.seeding(seeded.searched(), every=2)) for _ in range(2))
    subject, memory = seeded.model(), memory_of(goal)
    assert memory is goal.pool
    for step in range(2):
        seeded.backpropagated(subject, goal, step=step)
    state = {name: value.clone() for name, value in goal.pool.state().items()}
    again.pool.load(state)
    left = []
    for one in (goal, again):
        subject.zero_grad()
        seeded.backpropagated(subject, one, step=2)
        left.append((seeded.streams.gradients(subject), one.pool.state()["pool"]))
    assert all(torch.equal(left[0][0][name], value) for name, value in left[1][0].items())
    assert torch.equal(left[0][1], left[1][1]) and not torch.equal(left[0][1], state["pool"])


def test_sharded_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FSDPModule", nn.Module)
    with pytest.raises(ValueError, match="attack.seeds makes processes run different numbers of passes"):
        next(iter(Seeded(Supervised(), seeded.seeding())(seeded.model(), seeded.encoded().batch([0]), Moment(0))))


def test_shares_and_sizes_out_of_range() -> None:
    for options, told in (
        ({"share": 0.0}, r"mixing\.discrete must be above 0 and at most 1, got 0\.0"),
        ({"every": 0}, r"attack\.seeds\.every must be at least 1, got 0"),
        ({"most": 0}, r"attack\.seeds\.most must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=told):
            seeded.seeding(**options)
