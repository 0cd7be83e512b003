"""What the restarts of an embedding attack aim at: each goal where it alone leads on, all shared, what it costs."""

from __future__ import annotations

import pytest

from tests.evaluation.steered import REFUSALS, SHEETS, TARGET, Begins, Sheet, rows, steered
from tests.evaluation.talking import NO, SORRY, Words
from textadv.attacks import L2, Elicit, FixedStep, GradientAttack, StepSize, ThreatModel
from textadv.build_searches import GOALS
from textadv.evaluation.adversaries import EmbeddingAttack
from textadv.evaluation.beginnings import Beginnings
from textadv.evaluation.elicitation import Elicitation, elicit
from textadv.evaluation.generate import Decoding
from textadv.evaluation.judges import Judge
from textadv.evaluation.search_panel import Search
from textadv.spaces import Embeddings

STEPS = 12
# The sum over two positions reaches 1 along one channel.
RADIUS = 0.5**0.5
BEGINNINGS = Beginnings(Words(), REFUSALS, ((SORRY, NO),))
SEARCHES = {name: Search(goal, says) for name, (goal, says) in GOALS.items()}


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
