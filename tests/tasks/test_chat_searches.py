"""From a configuration to the searches of its restarts and the radii of its curve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.config_sample import chat_problems as problems
from tests.config_sample import small_chat as small
from tests.measuring.steered import REFUSALS
from tests.measuring.talking import NO, SORRY, Words
from textadv.attacks import L2, Avoid, Begin, Elicit, FixedStep, GradientAttack, Momentum, StepSize, ThreatModel
from textadv.config.types import ConfigError
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.radius_curve import CURVE_SEARCHES, at_radius
from textadv.measuring.safety.search_panel import FEWER, GOALS, PANEL, Search
from textadv.tasks.chat.elicitation import ElicitationConfig, SearchConfig, measuring_attack
from textadv.values.spaces import Embeddings

THREAT = ThreatModel(Embeddings(), L2(6.0, relative_radius=0.2))
BEGINNINGS = Beginnings(Words(), REFUSALS, ((SORRY, NO),))
KEY = "evaluation.elicitation"
WAY = [("both", 24), ("both", 29), ("both", 13), ("early_margin", 7), ("away", 3), ("own", 3)]


def wanted(*overrides: str) -> ElicitationConfig:
    return small(*(f"{KEY}.{override}" for override in overrides)).evaluation.elicitation


def attack(config: ElicitationConfig) -> GradientAttack:
    return measuring_attack(config.attack, f"{KEY}.attack", THREAT, 0)


@pytest.mark.parametrize(
    ("restarts", "steps", "random", "each"),
    [
        (3, 20, True, [("both", 28), ("both", 19), ("both", 8), ("early_margin", 4)]),
        (3, 30, True, WAY),
        (1, 20, True, [("both", 14), ("both", 5)]),
        (1, 3, True, [("both", 3)]),
        (6, 30, True, 2 * WAY),
        (6, 14, False, [("both", 31), ("both", 27), ("both", 13), ("early_margin", 6), ("away", 3)]),
    ],
)
def test_by_default_the_passes_of_the_restarts_are_one_way_of_several_legs(
    restarts: int, steps: int, random: bool, each: list[tuple[str, int]]
) -> None:
    config = wanted(f"restarts={restarts}", f"attack.steps={steps}", f"attack.random_start={random}")
    found = config.embedding_attack(attack(config), BEGINNINGS, 8)
    assert config.search is None and found.restarts == len(found.searches)
    assert [(named(search), search.steps) for search in found.searches] == each


def named(search: Search) -> str:
    """The goal's name in a configuration."""
    return next(name for name, made in GOALS.items() if made == (search.goal, search.says))


def test_each_leg_climbs_as_the_panel_says_from_where_the_one_before_ended() -> None:
    found = wanted("restarts=3", "attack.steps=30").searches()
    assert [named(search) for search in found] == [leg.goal for leg in PANEL]
    assert [search.goes_on for search in found] == [False, *(len(PANEL) - 1) * [True]]
    for leg, search in zip(PANEL, found, strict=True):
        size = StepSize(relative=leg.relative_step_size)
        assert search.ascent == (Momentum(size, leg.momentum) if leg.momentum else FixedStep(size))
    assert {leg.goal for leg in PANEL} == {"both", "early_margin", "away", "own"}
    assert sum(leg.share for leg in PANEL) == pytest.approx(1) and GOALS["both"][0] == Begin(rest=0.5)


def test_goals_are_named_with_their_steps_or_alone() -> None:
    found = wanted(
        "restarts=4", "search=[elicit, {goal: early, relative_step_size: 0.5}, {goal: away, momentum: 0.9}]"
    ).searches()
    assert found == (
        Search(Elicit()),
        Search(Begin(), "target", FixedStep(StepSize(relative=0.5))),
        Search(Avoid(), "refusal", Momentum(StepSize(relative=2.5 / 20), 0.9), 20 - FEWER["refusal"]),
    )
    assert wanted("search=[own]").search == [SearchConfig(goal="own")]
    led_on = wanted("restarts=2", "search=[early, {goal: both, goes_on: true}]").searches()
    assert [search.goes_on for search in led_on] == [False, True]


def test_the_whole_target_alone_is_the_search_that_it_was() -> None:
    config = wanted("search=[elicit]")
    found = config.embedding_attack(attack(config), BEGINNINGS, 8)
    assert found.searches == (Search(),) and found.restarts == 3
    assert str(found) == f"embedding attack: {attack(config)}; 3 independent searches"


def test_an_attack_that_settles_its_steps_gives_them_to_every_search() -> None:
    for settled in ("relative_step_size: 0.3", "step_size: 0.1", "ascent: adam"):
        found = wanted("restarts=5", f"attack={{steps: 30, {settled}}}").searches()
        assert all(search.ascent is None for search in found)
        assert [search.says for search in found] == [*4 * ["target"], "refusal", "own"]
    once = wanted("restarts=9", "attack={name: fgsm}")
    single = once.embedding_attack(attack(once), BEGINNINGS, 8)
    # One step from the clean prompt: the goals for which there is a step left, none of them twice.
    assert (single.restarts, [search.says for search in single.searches]) == (2, ["target"] * 2)


def test_searches_that_cannot_pay_for_what_they_find_out_are_no_part_of_the_panel() -> None:
    few = wanted("restarts=9", "attack.steps=3").searches()
    assert {search.says for search in few} == {"target"}
    message = (
        r"search\[1\]: own takes the passes of 5 steps to find out what the model says, and "
        r"evaluation.elicitation.attack.steps is 5. Set it to 8 or more, or leave this search out"
    )
    with pytest.raises(ConfigError, match=message):
        wanted("attack.steps=5", "search=[early, own]").searches()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["search=[elicit, early, away, own]"],
            "names 4 searches, and evaluation.elicitation.restarts: 3 runs the first 3",
        ),
        (
            ["search=[{goal: early, momentum: 1}]", "attack.step_size=1"],
            f"{KEY}.search[0].momentum is set, and",
        ),
        (
            ["search=[{goal: own, relative_step_size: 1}]", "attack={name: fgsm}", "restarts=1"],
            "settles its steps itself",
        ),
        (["search=[elicit]", "attack.random_start=false"], f"{KEY}.restarts: 3 repeats searches: 1 are named"),
        (["attack.starts=spread"], "attack: starts: spread would start every search at the clean prompt"),
        (["search=[late]"], "search[0] must be 'both', 'early', 'early_margin', 'away', 'own' or 'elicit', got 'late'"),
        (["search=[{goal: own, relative_step_size: 0}]"], f"{KEY}.search[0].relative_step_size must be greater than 0"),
        (["search=[{goal: own, momentum: -1}]"], f"{KEY}.search[0].momentum must be at least 0"),
        (["search=[{gaol: own}]"], f"{KEY}.search[0].goal is missing"),
        (["search=[{goal: own, goes_on: true}]"], f"{KEY}.search[0].goes_on is set, and there is no search before it"),
        (["search=[]"], f"{KEY}.search must not be empty"),
        (["curve_behaviours=0"], f"{KEY}.curve_behaviours must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_said_in_one_sentence(overrides: list[str], line: str) -> None:
    found = problems(*(f"{KEY}.{override}" for override in overrides))
    assert any(line in said for said in found), found


def test_without_radii_there_is_a_curve_at_half_to_four_times_the_threat() -> None:
    config = wanted()
    found = config.curve(attack(config), BEGINNINGS, 8)
    assert list(found) == ["embedding at 0.1", "embedding at 0.2", "embedding at 0.4", "embedding at 0.8"]
    balls = [one.attack.threat.ball for one in found.values()]
    assert [ball.radius for ball in balls] == [3.0, 6.0, 12.0, 24.0]
    assert [ball.relative_radius for ball in balls] == [0.1, 0.2, 0.4, 0.8]
    headline = config.embedding_attack(attack(config), BEGINNINGS, 8)
    # So that what the headline found is not searched for again.
    assert found["embedding at 0.2"] == replace(
        headline, restarts=CURVE_SEARCHES, searches=headline.searches[:CURVE_SEARCHES]
    )
    assert config.curve_behaviours == 40


def test_radii_that_are_named_or_none_make_no_curve() -> None:
    for radii in ("radii=[]", "radii=[0.2, 0.4]"):
        config = wanted(radii)
        assert config.curve(attack(config), BEGINNINGS, 8) == {}


def test_an_absolute_radius_is_scaled_as_well() -> None:
    absolute = ThreatModel(Embeddings(), L2(0.5))
    assert at_radius(absolute, 4).ball == L2(2.0)
    assert at_radius(THREAT, 1) == THREAT
