"""From a chat configuration to the searches of its embedding attacks, and to the radii of its curve."""

from __future__ import annotations

from dataclasses import replace

from textadv.attacks import (
    Ascent,
    Avoid,
    Begin,
    Elicit,
    FixedStep,
    Goal,
    GradientAttack,
    Momentum,
    StepSize,
    ThreatModel,
)
from textadv.build import PGD_REACH
from textadv.config_elicitation import ElicitationConfig, SearchConfig, SearchGoal, settles_steps
from textadv.evaluation.adversaries import EmbeddingAttack
from textadv.evaluation.beginnings import OWN_PASSES, REFUSAL_PASSES, Beginnings
from textadv.evaluation.search_panel import Says, Search, shared

GOALS: dict[SearchGoal, tuple[Goal, Says]] = {
    "both": (Begin(rest=0.5), "target"),
    "early": (Begin(), "target"),
    "early_margin": (Begin("margin"), "target"),
    "away": (Avoid(), "refusal"),
    "own": (Begin(), "own"),
    "elicit": (Elicit(), "target"),
}
# Goal, step as a share of the radius, and momentum of each search, the most useful first; see "The search, goal by
# goal" in docs/results.md.
PANEL: tuple[tuple[SearchGoal, float, float], ...] = (
    ("both", 0.5, 1.0),
    ("both", 0.25, 0.0),
    ("both", 0.5, 1.0),
    ("early_margin", 0.1, 1.0),
    ("away", 0.5, 1.0),
    ("own", 0.5, 1.0),
)
# A step is two passes, so that finding out what the model says costs nothing beyond a search for the target.
FEWER: dict[Says, int] = {"target": 0, "refusal": -(-REFUSAL_PASSES // 2), "own": -(-OWN_PASSES // 2)}
# Below this a search does not get anywhere, and the restarts are not cut in two.
FEWEST_STEPS = 4
HALVED_FROM = 16
# Of the threat's own radius, where the configuration names no radii.
CURVE = (0.5, 1.0, 2.0, 4.0)
CURVE_RESTARTS = 2


def searches(wanted: ElicitationConfig) -> tuple[Search, ...]:
    """What the restarts aim at, in turn."""
    if wanted.search is None:
        return _panel(wanted)
    found = []
    for one in wanted.search:
        goal, says = GOALS[one.goal]
        steps = max(wanted.attack.steps - FEWER[says], 1) if FEWER[says] else None
        found.append(Search(goal, says, _ascent(one, wanted), steps))
    return tuple(found)


def _panel(wanted: ElicitationConfig) -> tuple[Search, ...]:
    """The panel's first searches, which take together no more passes than the restarts would with all their steps.

    Where a restart has enough steps to be cut in two, there are twice as many searches as restarts, else as many; no
    more than the panel holds where it is as many restarts at least.
    """
    settled, steps, count = settles_steps(wanted.attack), wanted.attack.steps, wanted.restarts
    if steps >= HALVED_FROM:
        passes = count * (2 * steps + 1)
        count = max(min(2 * count, len(PANEL)), count)
        steps = (passes // count - 1) // 2
    named = [SearchConfig(goal=goal, relative_step_size=size, momentum=decay) for goal, size, decay in PANEL]
    if settled:
        named = [SearchConfig(goal=goal) for goal in dict.fromkeys(search.goal for search in named)]
    found = []
    for one in named:
        goal, says = GOALS[one.goal]
        own = steps - FEWER[says]
        if says == "target" or own >= FEWEST_STEPS:
            found.append(Search(goal, says, _ascent(one, wanted), own if wanted.attack.name == "pgd" else None))
    return shared(found, count if wanted.attack.random_start else min(count, len(found)))


def _ascent(one: SearchConfig, wanted: ElicitationConfig) -> Ascent | None:
    """How the search climbs where it says so itself."""
    if one.relative_step_size is None and one.momentum is None:
        return None
    size = StepSize(relative=one.relative_step_size or PGD_REACH / wanted.attack.steps)
    return FixedStep(size) if not one.momentum else Momentum(size, one.momentum)


def embedding_attack(
    wanted: ElicitationConfig, attack: GradientAttack, beginnings: Beginnings, size: int, most: int | None = None
) -> EmbeddingAttack:
    """The attack with the searches that the configuration names or the panel has, `size` rows at a time.

    most: so many searches, the first of them.
    """
    named = searches(wanted)
    count = len(named) if wanted.search is None else wanted.restarts
    count = min(count, most or count)
    return EmbeddingAttack(attack, count, batch_size=size, searches=named[:count], beginnings=beginnings)


def curve(
    wanted: ElicitationConfig, attack: GradientAttack, beginnings: Beginnings, size: int
) -> dict[str, EmbeddingAttack]:
    """The attack at each radius of the default curve, with the first searches alone, in ascending order, by name.

    attack: at the threat's own radius. Empty where the configuration names radii, or none.
    """
    if wanted.radii is not None:
        return {}
    found = {}
    for factor in CURVE:
        threat = at_radius(attack.threat, factor)
        own = threat.ball.relative_radius if threat.ball.relative_radius is not None else threat.ball.radius
        scaled = replace(attack, threat=threat)
        found[f"embedding at {own:g}"] = embedding_attack(wanted, scaled, beginnings, size, CURVE_RESTARTS)
    return found


def at_radius(threat: ThreatModel, factor: float) -> ThreatModel:
    """The threat with `factor` times its radius, a relative one alike."""
    scaled = threat.scaled(factor)
    relative = threat.ball.relative_radius
    if relative is None:
        return scaled
    return replace(scaled, ball=replace(scaled.ball, relative_radius=factor * relative))
