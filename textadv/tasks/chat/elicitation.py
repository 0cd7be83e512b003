"""The schema of what a chat model is measured with: prefills, and searches for perturbations of the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import PGD_REACH, AttackConfig, with_defaults
from textadv.config.labels import radius_problems
from textadv.config.types import (
    ConfigError,
    Count,
    Distinct,
    Formerly,
    Length,
    Natural,
    NotNegative,
    Positive,
    Section,
    checked,
)

if TYPE_CHECKING:
    from textadv.attacks import GradientAttack, ThreatModel
    from textadv.measuring.safety.adversaries import EmbeddingAttack
    from textadv.measuring.safety.beginnings import Beginnings
    from textadv.measuring.safety.search_panel import Search

SearchGoal = Literal["both", "early", "early_margin", "away", "own", "elicit"]


def eliciting(data: object) -> object:
    """An attack that measures on chats: 20 steps, the worst point kept, no early stop; as far as it has these keys."""
    return with_defaults(data, {"steps": 20, "select": "most_damaging"})


def _named(data: object) -> object:
    """The name of a goal alone as a search for it."""
    return {"goal": data} if isinstance(data, str) else data


class SearchConfig(Section):
    """What a search aims at, and how it climbs."""

    goal: SearchGoal = Field(
        description="early, early_margin: the first six tokens of the target, weights falling by 0.8, cross-entropy or "
        "margin; both: those and the whole target, half the weight each; away: from the model's own refusal; own: to "
        "what the model itself likeliest begins with where it does not refuse; elicit: the whole target."
    )
    relative_step_size: Length | None = Field(
        None, description="Length of one step as a share of the radius; null: as evaluation.elicitation.attack has it."
    )
    momentum: NotNegative | None = Field(
        None, description="Decay of the gradients gathered so far; null: as evaluation.elicitation.attack has it."
    )
    goes_on: bool = Field(
        False, description="Start where the search before it ended, instead of at a start of its own."
    )

    def make(self, attack: AttackConfig, steps: int | None = None) -> Search:
        """The search of this attack; in so many steps, or as many as the attack has."""
        from textadv.measuring.safety.search_panel import GOALS, Search, climbing

        ascent = None
        if self.relative_step_size is not None or self.momentum is not None:
            ascent = climbing(self.relative_step_size or PGD_REACH / attack.steps, self.momentum)
        return Search(*GOALS[self.goal], ascent, steps, self.goes_on)


FORMER_SEARCH = [SearchConfig(goal="elicit")]
"""Every restart aimed evenly at the whole target before there was a choice."""


class ElicitationConfig(Section):
    """How attack success is measured on the held-out harmful prompts."""

    prefill: Distinct[Count] = Field([5, 10, 20, 40], description="Tokens of the target put into the answer.")
    radii: list[Length] | None = Field(
        None,
        description="Radii of embedding attacks, in the threat's unit, all of which count in the worst case; empty: "
        "the threat's own alone; null: that, and a curve over half, one, two and four times it, of which the larger "
        "radii count nowhere.",
    )
    curve_behaviours: Count | None = Field(
        40, description="Behaviours that the curve is measured on, the first of those that are attacked; null: all."
    )
    attack: Annotated[AttackConfig, BeforeValidator(eliciting)] = Field(
        AttackConfig(name="pgd", steps=20, select="most_damaging"), description="The embedding attack's search."
    )
    search: Annotated[
        Annotated[list[Annotated[SearchConfig, BeforeValidator(_named)]], Field(min_length=1)] | None,
        Formerly(FORMER_SEARCH),
    ] = Field(
        None,
        description="What the restarts aim at, in turn; a goal may stand for a search with the steps of the attack. "
        "null: a panel of goals and step sizes that goes one way in the passes of all restarts, one search from where "
        "the one before ended; [elicit]: the whole target in each.",
    )
    restarts: Count = Field(
        3,
        description="Searches per behaviour, each answered and judged for itself; the panel makes others of them, "
        "which take no more passes together.",
    )
    suffix_tokens: Natural = Field(0, description="Slots of an unconstrained embedding suffix; 0: not attacked with.")
    suffix_steps: Count = Field(100, description="Steps of the unconstrained attack on the suffix.")
    budget_flops: Positive | None = Field(
        None,
        description="Floating-point operations that each attack has for a behaviour: its searches get the steps that "
        "fit beside evaluation.samples answers to each prompt, at most those that they are set to, and every prompt is "
        "answered as long as one more answer surely fits (once where evaluation.temperature is 0); null: no limit, and "
        "evaluation.samples answers.",
    )

    @model_validator(mode="after")
    def _rules(self) -> ElicitationConfig:
        radii = radius_problems(self.radii or [])
        return checked(self, [*_search_problems(self), *_start_problems(self), *radii])

    def in_steps(self, steps: int) -> ElicitationConfig:
        """The same with so many steps of every search at most, or as many as it needs to find out what it aims at."""
        from textadv.measuring.safety.search_panel import FEWER, GOALS

        least = 1 + max((FEWER[GOALS[one.goal][1]] for one in self.search or []), default=0)
        attack = self.attack.model_copy(update={"steps": max(min(self.attack.steps, steps), least)})
        return self.model_copy(update={"attack": attack, "suffix_steps": min(self.suffix_steps, steps)})

    def searches(self) -> tuple[Search, ...]:
        """What the restarts aim at, in turn.

        Raises ConfigError where a named search has too few steps for what it has to find out first.
        """
        from textadv.measuring.safety.search_panel import by_goal, panel

        attack = self.attack
        if self.search is not None:
            return tuple(self._search_at(place, one) for place, one in enumerate(self.search))
        if attack.name == "pgd":
            return panel(attack.steps, self.restarts, attack.random_start, settles_steps(attack))
        return by_goal(self.restarts, attack.random_start)

    def _search_at(self, place: int, search: SearchConfig) -> Search:
        from textadv.measuring.safety.search_panel import FEWER, FEWEST_STEPS, GOALS

        fewer = FEWER[GOALS[search.goal][1]]
        steps = self.attack.steps - fewer
        if fewer and steps < 1:
            raise ConfigError(
                [
                    f"evaluation.elicitation.search[{place}]: {search.goal} takes the passes of {fewer} steps to "
                    "find out what the model says, and evaluation.elicitation.attack.steps is "
                    f"{self.attack.steps}. Set it to {fewer + FEWEST_STEPS} or more, or leave this search out."
                ]
            )
        return search.make(self.attack, steps if fewer else None)

    def embedding_attack(
        self, attack: GradientAttack, beginnings: Beginnings, size: int, most: int | None = None
    ) -> EmbeddingAttack:
        """The attack with the searches that are named or the panel has, `size` rows at a time.

        most: so many searches, the first of them. Raises ConfigError as `searches` does.
        """
        from textadv.measuring.safety.adversaries import EmbeddingAttack

        searches = self.searches()
        count = len(searches) if self.search is None else self.restarts
        count = min(count, most or count)
        return EmbeddingAttack(attack, count, batch_size=size, searches=searches[:count], beginnings=beginnings)

    def curve(self, attack: GradientAttack, beginnings: Beginnings, size: int) -> dict[str, EmbeddingAttack]:
        """The attack at each radius of the default curve, with the first searches alone, in ascending order, by name.

        attack: at the threat's own radius. Empty where radii are named, or none.
        """
        from textadv.measuring.safety.radius_curve import CURVE, CURVE_SEARCHES, at_radius

        if self.radii is not None:
            return {}
        attacks = {}
        for factor in CURVE:
            threat = at_radius(attack.threat, factor)
            own = threat.ball.relative_radius if threat.ball.relative_radius is not None else threat.ball.radius
            scaled = replace(attack, threat=threat)
            attacks[f"embedding at {own:g}"] = self.embedding_attack(scaled, beginnings, size, CURVE_SEARCHES)
        return attacks

    def suffix_attack(self, unit: float, seed: int) -> GradientAttack:
        """The unconstrained attack on suffix slots: Adam with steps of a twentieth of the mean embedding norm.

        unit: the mean norm of the embeddings. The ball has 100 times that radius: far beyond where any step sequence
        gets.
        """
        from textadv.attacks import L2, Adam, Elicit, GradientAttack, StepSize, ThreatModel
        from textadv.values.spaces import Embeddings

        return GradientAttack(
            ThreatModel(Embeddings(), L2(100 * unit, per="token")),
            Adam(StepSize(absolute=unit / 20)),
            self.suffix_steps,
            Elicit(),
            random_start=False,
            select="most_damaging",
            early_stop=True,
            seed=seed,
        )


def measuring_attack(
    attack: AttackConfig, key: str, threat: ThreatModel, seed: int, radius: float | None = None
) -> GradientAttack:
    """The attack of the section at `key`, at the threat's radius or another one in the same unit, eliciting the target.

    Raises ConfigError where it is no gradient attack, or has restarts or a goal of its own.
    """
    from textadv.attacks import Elicit, GradientAttack

    made = attack.make(threat, seed)
    if not isinstance(made, GradientAttack):
        raise ConfigError([f"{key}.name must be pgd, fgsm or r_fgsm, got {attack.name}."])
    if attack.restarts > 1 or attack.goal is not None:
        raise ConfigError([f"{key}: leave restarts and goal out: it elicits the target, and every search is answered."])
    if radius is not None:
        own = threat.ball.relative_radius if threat.ball.relative_radius is not None else threat.ball.radius
        assert isinstance(own, float | int)
        scaled = threat.scaled(radius / own)
        if threat.ball.relative_radius is not None:
            scaled = replace(scaled, ball=replace(scaled.ball, relative_radius=radius))
        made = replace(made, threat=scaled)
    return replace(made, goal=Elicit())


def settles_steps(attack: AttackConfig) -> bool:
    """Whether the attack itself says how it steps, so that no search may."""
    own: dict[str, Any] = attack.model_dump(include={"step_size", "relative_step_size", "ascent"})
    return attack.name != "pgd" or own != {"step_size": None, "relative_step_size": None, "ascent": "fixed"}


def _search_problems(wanted: ElicitationConfig) -> list[str]:
    searches, lines = wanted.search or [], []
    if len(searches) > wanted.restarts:
        lines.append(
            f"evaluation.elicitation.search names {len(searches)} searches, and evaluation.elicitation.restarts: "
            f"{wanted.restarts} runs the first {wanted.restarts} of them. Raise restarts, or name fewer."
        )
    if searches and searches[0].goes_on:
        lines.append(
            "evaluation.elicitation.search[0].goes_on is set, and there is no search before it. Leave it out there."
        )
    for place, search in enumerate(searches):
        own = [key for key, value in search.model_dump(exclude={"goal", "goes_on"}).items() if value is not None]
        if own and settles_steps(wanted.attack):
            lines.append(
                f"evaluation.elicitation.search[{place}].{own[0]} is set, and evaluation.elicitation.attack settles "
                "its steps itself (name, step_size, relative_step_size or ascent). Keep one of them."
            )
    return lines


def _start_problems(wanted: ElicitationConfig) -> list[str]:
    """Searches from one start that are one and the same."""
    attack = wanted.attack
    if attack.starts != "ball":
        return [
            f"evaluation.elicitation.attack: starts: {attack.starts} would start every search at the clean prompt, "
            "each being a run of its own. Leave it out."
        ]
    if attack.random_start or wanted.search is None or wanted.restarts <= len(wanted.search):
        return []
    return [
        f"evaluation.elicitation.restarts: {wanted.restarts} repeats searches: {len(wanted.search)} are named, and "
        "evaluation.elicitation.attack has no random start. Lower restarts, or name more."
    ]
