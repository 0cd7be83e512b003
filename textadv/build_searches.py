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
from textadv.evaluation.search_panel import Says, Search

GOALS: dict[SearchGoal, tuple[Goal, Says]] = {
    "early": (Begin(), "target"),
    "early_margin": (Begin("margin"), "target"),
    "away": (Avoid(), "refusal"),
    "own": (Begin(), "own"),
    "elicit": (Elicit(), "target"),
}
# Goal, step as a share of the radius, and momentum of the restarts; see "The search, goal by goal" in docs/results.md.
PANEL: tuple[tuple[SearchGoal, float, float], ...] = (
    ("early", 0.25, 1.0),
    ("early_margin", 0.1, 1.0),
    ("own", 0.25, 1.0),
    ("early", 0.5, 1.0),
    ("away", 0.25, 1.0),
)
# A step is two passes, so that finding out what the model says costs nothing beyond a search for the target.
FEWER: dict[Says, int] = {"target": 0, "refusal": -(-REFUSAL_PASSES // 2), "own": -(-OWN_PASSES // 2)}
# Of the threat's own radius, where the configuration names no radii.
CURVE = (0.5, 1.0, 2.0, 4.0)
CURVE_RESTARTS = 2


def searches(wanted: ElicitationConfig) -> tuple[Search, ...]:
    """What the restarts aim at, in turn: at most one for each restart."""
    named = wanted.search
    if named is None:
        named = [SearchConfig(goal=goal, relative_step_size=size, momentum=decay) for goal, size, decay in PANEL]
        if settles_steps(wanted.attack):
            named = [SearchConfig(goal=goal) for goal in dict.fromkeys(search.goal for search in named)]
        named = [search for search in named if FEWER[GOALS[search.goal][1]] < wanted.attack.steps][: wanted.restarts]
    return tuple(_search(one, wanted) for one in named)


def _search(one: SearchConfig, wanted: ElicitationConfig) -> Search:
    goal, says = GOALS[one.goal]
    return Search(goal, says, _ascent(one, wanted), FEWER[says])


def _ascent(one: SearchConfig, wanted: ElicitationConfig) -> Ascent | None:
    """How the search climbs where it says so itself."""
    if one.relative_step_size is None and one.momentum is None:
        return None
    size = StepSize(relative=one.relative_step_size or PGD_REACH / wanted.attack.steps)
    return FixedStep(size) if not one.momentum else Momentum(size, one.momentum)


def embedding_attack(
    wanted: ElicitationConfig, attack: GradientAttack, beginnings: Beginnings, size: int, most: int | None = None
) -> EmbeddingAttack:
    """The attack with the searches that the configuration names, `size` rows at a time.

    most: so many searches, the first of them. Where all start at the clean prompt none is repeated.
    """
    named = searches(wanted)
    count = min(wanted.restarts, most or wanted.restarts)
    if not attack.random_start:
        count = min(count, len(named))
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
