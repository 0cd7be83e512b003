"""What the restarts of an embedding attack aim at: each goal where it alone leads on, all shared, what it costs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.measuring.steered import OWN, REFUSALS, ROWS, SHEETS, TARGET, Begins, Sheet, rows, steered
from tests.measuring.talking import END, FORBIDDEN_CHATS, NO, SORRY, Chats, Watching, Words, trained
from tests.measuring.talking import searching as searching_there
from textadv.attacks import L2, Elicit, FixedStep, GradientAttack, Momentum, StepSize, ThreatModel
from textadv.config.adversary import AttackConfig
from textadv.measuring.judges.verdicts import Judge
from textadv.measuring.safety.adversaries import EmbeddingAttack, behaviours_of
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.elicitation import Elicitation, elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.search_panel import FEWER, GOALS, Search
from textadv.tasks.chat.elicitation import ElicitationConfig, SearchConfig
from textadv.values.spaces import Embeddings, Hidden, Several, Space

STEPS = 12
# The sum over two positions reaches 1 along one channel.
RADIUS = 0.5**0.5
BEGINNINGS = Beginnings(Words(), REFUSALS, ((SORRY, NO),))
SEARCHES = {name: Search(goal, says) for name, (goal, says) in GOALS.items() if name != "both"}


def searching(*names: str, restarts: int = 1, steps: int = STEPS, batch_size: int = 16) -> EmbeddingAttack:
    attack = GradientAttack(
        ThreatModel(Embeddings(), L2(RADIUS, per="example")),
        FixedStep(StepSize(relative=0.25)),
        steps,
        Elicit(),
        random_start=restarts > len(names),
        select="most_damaging",
    )
    searches = tuple(SEARCHES[name] for name in names)
    return EmbeddingAttack(attack, restarts, batch_size=batch_size, searches=searches, beginnings=BEGINNINGS)


def measured(sheet: Sheet, attacks: dict[str, EmbeddingAttack], judge: Judge, **options: object) -> Elicitation:
    said = rows(sheet)
    model = options.pop("model", None) or steered(sheet)
    asked = ["request"] * len(said)
    return elicit(model, Words(), said, asked, attacks, judge, Decoding(8), **options)  # type: ignore[arg-type]


def judge_of(name: str) -> Judge:
    """The target's beginning where the search aims at it, else the refusal list."""
    return Begins(" ".join(f"w{token}" for token in TARGET)) if name.startswith("early") else REFUSALS


def broken(found: Elicitation) -> dict[str, int]:
    return {attack.name: attack.low.count for attack in found.attacks}


@pytest.mark.parametrize("name", SHEETS)
def test_there_is_a_model_that_this_goal_alone_breaks_and_the_panel_breaks_it_too(name: str) -> None:
    attacks = {goal: searching(goal) for goal in SEARCHES}
    panel = {"panel": searching(*SEARCHES, restarts=len(SEARCHES))}
    found = broken(measured(SHEETS[name], attacks | panel, judge_of(name)))
    assert found == dict.fromkeys(("direct", *SEARCHES), 0) | {name: 3, "panel": 3}


@pytest.mark.parametrize("name", ["elicit", "early", "early_margin", "both"])
@pytest.mark.parametrize("tokens", [3, 6])
def test_a_target_that_the_model_says_and_goes_on_from_is_reached(name: str, tokens: int) -> None:
    """By itself it says twelve tokens, so that the end of a shorter target's turn is never said."""
    says = Sheet(first={TARGET[0]: 3.0}, steers={0: {TARGET[0]: 1.0}}, target=(*TARGET, *OWN, END))
    wanted = rows(replace(says, target=(*TARGET[:tokens], END)))
    attack = replace(searching("elicit", steps=2), searches=(Search(*GOALS[name]),))
    for said, reached in ((wanted, True), (rows(replace(says, target=(*TARGET[:2], OWN[0], END))), False)):
        asked = ["request"] * len(said)
        found = elicit(steered(says), Words(), said, asked, {"search": attack}, REFUSALS, Decoding(8))  # type: ignore[arg-type]
        told = {answer.reached for one in found.outcomes if one.attack == "search" for answer in one.answers}
        assert told == {reached}


@pytest.mark.parametrize("name", ["elicit", "early", "early_margin", "both", "own"])
@pytest.mark.parametrize("stop", [False, True])
def test_no_search_aims_at_the_end_of_the_turn_after_a_target(name: str, stop: bool) -> None:
    """With it in the data and without: the same perturbations, after as many passes, reached in the same rows."""
    says = Sheet(first={TARGET[0]: 3.0}, steers={0: {TARGET[0]: 1.0}}, target=(*TARGET, *OWN, END))
    attack = searching("elicit", steps=4)
    attack = replace(attack, attack=replace(attack.attack, early_stop=stop), searches=(Search(*GOALS[name]),))
    ended, open_end = (
        [row for one in attack.rounds(steered(says), said, asked) for row in one.prepare(one.prompts)]  # type: ignore[misc]
        for said in (rows(replace(says, target=(*TARGET[:3], *end))) for end in ((END,), ()))
        for asked in [[row._replace(said=tuple(TARGET[:3])) for row in behaviours_of(said)]]
    )
    for one, other in zip(ended, open_end, strict=True):
        assert one.delta is not None and other.delta is not None and torch.equal(one.delta, other.delta)
        assert (one.forwards, one.backwards, one.flops, one.reached) == (
            other.forwards,
            other.backwards,
            other.flops,
            other.reached,
        )


# ---- what it costs and says


def passes_of(found: Elicitation, name: str) -> int:
    attack = next(each for each in found.attacks if each.name == name)
    return attack.forwards + attack.backwards


@pytest.mark.parametrize(("restarts", "steps"), [(3, 20), (3, 30), (1, 20), (2, 3), (9, 16)])
def test_the_panel_takes_no_more_passes_than_searches_for_the_target_did(restarts: int, steps: int) -> None:
    """Every search looks once at where it ended: a restart of 20 steps takes 21 forwards and 20 backwards of a row."""
    config = ElicitationConfig(restarts=restarts, attack=AttackConfig(steps=steps, select="most_damaging"))
    elicits = searching("elicit", restarts=restarts, steps=steps)
    elicits = replace(elicits, attack=replace(elicits.attack, random_start=True))
    panel = config.embedding_attack(elicits.attack, BEGINNINGS, 16)
    found = measured(SHEETS["own"], {"panel": panel, "elicit": elicits}, REFUSALS)
    assert passes_of(found, "elicit") == ROWS * restarts * (2 * steps + 1)
    saved = passes_of(found, "elicit") - passes_of(found, "panel")
    # What does not divide, or was kept back for finding out what the model says and not needed, is left over.
    assert 0 <= saved <= ROWS * (2 * panel.restarts + 2 * 4)


def test_a_search_that_goes_on_starts_where_the_one_before_ended() -> None:
    """Two searches of 6 steps, the second from the end of the first, take the way of one of 12 steps."""
    whole = searching("early", steps=12)
    half = replace(whole.searches[0], steps=6)
    halves = replace(whole, restarts=2, searches=(half, replace(half, goes_on=True)))
    apart = replace(whole, restarts=2, searches=(half, half), attack=replace(whole.attack, random_start=True))
    deltas = {name: ends(attack) for name, attack in {"whole": whole, "halves": halves, "apart": apart}.items()}
    assert torch.equal(deltas["halves"], deltas["whole"]) and not torch.equal(deltas["apart"], deltas["whole"])


def test_a_search_goes_on_from_one_whose_answers_were_read_back() -> None:
    attack = searching("early", steps=6)
    attack = replace(attack, restarts=2, searches=(attack.searches[0], replace(attack.searches[0], goes_on=True)))
    assert torch.equal(ends(attack, rounds=(1,)), ends(attack, rounds=(0, 1)))


def ends(attack: EmbeddingAttack, rounds: tuple[int, ...] | None = None) -> Tensor:
    """Where the last search of an attack ended; of the others only those of `rounds` are run, all by default."""
    model, said = steered(SHEETS["early"]), rows(SHEETS["early"])
    found: list[Tensor] = []
    for number, each in enumerate(attack.rounds(model, said, behaviours_of(said))):
        if rounds is None or number in rounds:
            assert each.prepare is not None
            found = [prompt.delta for prompt in each.prepare(each.prompts) if prompt.delta is not None]
    return torch.stack(found)


def test_what_finding_out_takes_at_most_is_what_its_search_is_shorter_by() -> None:
    assert {says: 2 * fewer for says, fewer in FEWER.items()} == {"target": 0, "refusal": 8, "own": 10}
    named = ElicitationConfig(search=[SearchConfig(goal=goal) for goal in ("early", "away", "own")]).searches()
    assert [search.of(replace(searching("elicit").attack, steps=20)).steps for search in named] == [20, 16, 15]


def test_every_restart_says_what_it_aimed_at(tmp_path: Path) -> None:
    attack = searching("early", "away", restarts=3)
    store = tmp_path / "answers.jsonl"
    found = measured(SHEETS["away"], {"two": attack}, REFUSALS, store=store)
    goals = ["first 6 tokens, cross-entropy, of the target", "away from the first 6 tokens, of the model's refusal"]
    named = [f"{goal}: 12 steps of 0.25 x radius (FixedStep)" for goal in goals]
    for outcome in found.outcomes[3:]:
        assert [(answer.restart, answer.search) for answer in outcome.answers] == list(enumerate([*named, named[0]]))
    assert all(answer.search == "" for outcome in found.outcomes[:3] for answer in outcome.answers)
    kept = Counter(json.loads(line)["answer"]["search"] for line in store.read_text().splitlines())
    assert kept == {"": 3, named[0]: 6, named[1]: 3}
    told = next(each.description for each in found.attacks if each.name == "two")
    assert told == (
        "embedding attack: 12 steps, random start, no early stop, most damaging; 3 independent searches: "
        f"2 x {named[0]}; {named[1]}"
    )
    climbing = Search(*GOALS["own"], Momentum(StepSize(relative=0.1)), 3)
    assert climbing.told(attack.attack) == (
        "first 6 tokens, cross-entropy, of the model's own beginning: 3 steps of 0.1 x radius (Momentum)"
    )


# ---- the same whatever the batch, the process and the run


ALL = ("early", "early_margin", "away", "own", "elicit")


@pytest.fixture(scope="module")
def shallow() -> nn.Module:
    return trained().shallow


def shallow_panel(space: Space | None = None, batch_size: int = 16) -> EmbeddingAttack:
    """One search of each kind on the chats of `talking`."""
    attack = searching_there(0.4, steps=4, early_stop=False)
    attack = replace(attack, threat=ThreatModel(space or Embeddings(), attack.threat.ball))
    named = (*(SEARCHES[name] for name in ALL), Search(steps=2, goes_on=True))
    return EmbeddingAttack(attack, len(named), batch_size=batch_size, searches=named, beginnings=BEGINNINGS)


def of_shallow(model: nn.Module, attack: EmbeddingAttack, size: int = 7, **options: object) -> Elicitation:
    chats = Chats(FORBIDDEN_CHATS.pairs[:5])
    asked = Decoding(8, batch_size=size)
    return elicit(model, Words(), chats, chats.requests, {"panel": attack}, Watching(), asked, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", [Embeddings(), Hidden(0), Several((Embeddings(), Hidden(0)))], ids=str)
def test_results_do_not_depend_on_batch_sizes(shallow: nn.Module, space: Space) -> None:
    found = of_shallow(shallow, shallow_panel(space))
    again = of_shallow(shallow, shallow_panel(space, batch_size=1), size=2)
    assert again.outcomes == found.outcomes
    assert passes_of(again, "panel") == passes_of(found, "panel")
    assert len({answer.text for outcome in found.outcomes[5:] for answer in outcome.answers}) > 3, "something moved"


def test_an_interrupted_run_goes_on_where_it_stopped(shallow: nn.Module, tmp_path: Path) -> None:
    whole = of_shallow(shallow, shallow_panel(), store=tmp_path / "whole.jsonl", key="k")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(lines[: len(lines) // 2]))
    again = of_shallow(shallow, shallow_panel(batch_size=3), store=tmp_path / "part.jsonl", key="k")
    assert again.outcomes == whole.outcomes and passes_of(again, "panel") == passes_of(whole, "panel")
    assert sorted((tmp_path / "part.jsonl").read_text().splitlines()) == sorted(map(str.rstrip, lines))


def test_another_goal_or_another_refusal_list_is_another_search(shallow: nn.Module, tmp_path: Path) -> None:
    known = {"store": tmp_path / "answers.jsonl", "key": "k"}
    panel = shallow_panel()
    of_shallow(shallow, panel, **known)
    kept = len((tmp_path / "answers.jsonl").read_text().splitlines())
    other = replace(panel, beginnings=replace(BEGINNINGS, refusals=replace(REFUSALS, phrases=("sorry", "w3"))))
    of_shallow(shallow, other, **known)
    # Of six searches those two are made again that follow from what counts as a refusal.
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == kept + 2 * 5


# ---- what is refused


def test_settings_that_would_mislead_are_refused() -> None:
    attack = searching("early").attack
    with pytest.raises(ValueError, match="needs one search or more"):
        EmbeddingAttack(attack, searches=())
    with pytest.raises(ValueError, match="restarts: 3 would repeat one start"):
        EmbeddingAttack(attack, 3, searches=(SEARCHES["early"], SEARCHES["elicit"]))
    with pytest.raises(ValueError, match="away from the first 6 tokens, of the model's refusal needs to know how"):
        EmbeddingAttack(attack, searches=(SEARCHES["away"],))
    with pytest.raises(ValueError, match="first search of an embedding attack has none before it"):
        EmbeddingAttack(attack, searches=(replace(SEARCHES["early"], goes_on=True),))
    with pytest.raises(ValueError, match="usual refusals must be one or more"):
        Beginnings(Words(), REFUSALS, ((),))
