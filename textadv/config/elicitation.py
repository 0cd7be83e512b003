"""The schema of what a chat model is measured with: prefills, and searches for perturbations of the prompt."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import AttackConfig, with_defaults
from textadv.config.labels import radius_problems
from textadv.config.types import Count, Distinct, Formerly, Length, Natural, NotNegative, Section, checked

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

    @model_validator(mode="after")
    def _rules(self) -> ElicitationConfig:
        radii = radius_problems(self.radii or [])
        return checked(self, [*_search_problems(self), *_start_problems(self), *radii])


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
