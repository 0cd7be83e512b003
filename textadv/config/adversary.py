"""The sections of a configuration that describe the adversary and how many rows it is let loose on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from textadv.config.types import (
    ConfigError,
    Count,
    Formerly,
    Length,
    Natural,
    NotNegative,
    Positive,
    Section,
    Share,
    StepKey,
    Whole,
    checked,
)


class ThreatConfig(Section):
    """What the adversary may do; the same in training and in every evaluation, except for the curve's radii."""

    space: Literal["embeddings", "hidden", "pixels"] = Field(
        "embeddings", description="What is perturbed: word embeddings, the output of a block, or the image."
    )
    layer: Natural | None = Field(
        None, description="Block whose output is perturbed, 0 is the first; only with hidden."
    )
    norm: Literal["l2", "linf", "l1"] = Field("l2", description="Norm that bounds the perturbation.")
    per: Literal["token", "example"] = Field("token", description="Whether each token or the whole row has the radius.")
    radius: Length | None = Field(None, description='Largest norm, absolute; "8/255" is allowed.')
    relative_radius: Length | None = Field(
        None,
        description="Largest norm, in units of the mean norm of the vectors it is added to, as the model sees them.",
    )

    @model_validator(mode="after")
    def _rules(self) -> ThreatConfig:
        lines = []
        if self.radius is None and self.relative_radius is None:
            lines.append(
                "threat needs exactly one of threat.radius (absolute) and threat.relative_radius (in mean norms "
                "of the vectors it is added to), got neither. Set for example threat.relative_radius: 0.05."
            )
        if self.radius is not None and self.relative_radius is not None:
            lines.append(
                f"threat needs exactly one of threat.radius and threat.relative_radius, got {self.radius} and "
                f"{self.relative_radius}. Set the one that you do not mean to null."
            )
        if self.space == "pixels" and self.relative_radius is not None:
            lines.append(
                f"threat.relative_radius counts in norms of vectors, which threat.space: pixels does not have, got "
                f"{self.relative_radius}. Set threat.radius, for example 8/255."
            )
        if self.space == "pixels" and self.per == "token":
            lines.append("threat.per: token has no meaning for threat.space: pixels. Set threat.per: example.")
        if self.space == "hidden" and self.layer is None:
            lines.append("threat.layer is missing: threat.space: hidden needs the block to perturb, 0 is the first.")
        if self.space != "hidden" and self.layer is not None:
            lines.append(
                f"threat.layer does not apply to threat.space: {self.space}, got {self.layer}. "
                f"Remove it, or set threat.space: hidden."
            )
        return checked(self, lines)


# What a named attack settles by itself; setting such a key to anything else is an error.
_NO_SIZE: dict[str, Any] = {"step_size": None, "ascent": "fixed"}
_STARTS: dict[str, Any] = {"starts": "ball"}
_ONE_STEP: dict[str, Any] = {"steps": 1, "steps_schedule": None}
_ONE_RUN: dict[str, Any] = {"restarts": 1, "early_stop": False, "select": "last"}
_SETTLED: dict[str, dict[str, Any]] = {
    "pgd": {},
    "fgsm": {"relative_step_size": None, "random_start": False, **_STARTS, **_ONE_STEP, **_NO_SIZE, **_ONE_RUN},
    "r_fgsm": {"random_start": True, **_STARTS, **_ONE_STEP, **_NO_SIZE, **_ONE_RUN},
    "virtual_adversarial": {
        "relative_step_size": None,
        "random_start": True,
        "goal": "kl",
        **_STARTS,
        **_NO_SIZE,
        **_ONE_RUN,
    },
    "noise": {
        "steps": 0,
        "steps_schedule": None,
        "relative_step_size": None,
        "random_start": True,
        **_STARTS,
        **_NO_SIZE,
        **_ONE_RUN,
    },
}


class AttackConfig(Section):
    """How hard the adversary tries within the threat model."""

    name: Literal["pgd", "fgsm", "r_fgsm", "virtual_adversarial", "noise"] = Field("pgd", description="The attack.")
    steps: Whole = Field(
        3,
        description="Ascent steps, 1 or more; fgsm and r_fgsm always take 1, noise takes 0.",
        json_schema_extra={"minimum": 0},
    )
    steps_schedule: Annotated[dict[StepKey, Count], Field(min_length=1)] | None = Field(
        None, description="Ascent steps from each of these optimizer steps on, in place of steps; in training only."
    )
    step_size: Length | None = Field(None, description="Length of one step, absolute, as threat.radius is.")
    relative_step_size: Length | None = Field(
        None, description="Length of one step as a share of the radius; null, and no step_size: 2.5 / steps."
    )
    ascent: Literal["fixed", "momentum", "adam"] = Field("fixed", description="How a gradient becomes a step.")
    momentum: NotNegative = Field(1.0, description="Decay of the gradients gathered so far; only with momentum ascent.")
    random_start: bool = Field(True, description="Start at a random point of the ball instead of at the clean input.")
    starts: Annotated[Literal["ball", "spread"], Formerly("ball")] = Field(
        "ball",
        description="ball: random starts are uniform in the ball. spread: the first run starts at the clean input, the "
        "others at random points at radii uniform in 0..1 of the ball's.",
    )
    restarts: Count = Field(1, description="Independent runs per row, each from its own start.")
    early_stop: bool = Field(False, description="Stop working on a row once it is misclassified.")
    select: Literal["last", "most_damaging"] = Field(
        "last", description="Which point is kept: the last one (training), or the worst one seen (measuring)."
    )
    goal: Literal["cross_entropy", "margin", "kl", "symmetric_kl"] | None = Field(
        None, description="Loss that the adversary raises; null: the objective's own, or cross_entropy when measuring."
    )

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, data: Any) -> Any:
        name = data.get("name", "pgd") if isinstance(data, dict) else None
        return {**_SETTLED[name], **data} if isinstance(name, str) and name in _SETTLED else data

    @model_validator(mode="after")
    def _rules(self) -> AttackConfig:
        lines = []
        given = self.model_dump()
        settled = _SETTLED[self.name]
        for key, value in settled.items():
            if given[key] != value:
                lines.append(
                    f"attack.{key} does not apply to attack.name: {self.name}, got {given[key]}. "
                    f"Remove it, or set attack.name: pgd."
                )
        if "steps" not in settled and self.steps < 1:
            lines.append(f"attack.steps must be at least 1, got {self.steps}.")
        if self.steps_schedule is not None and 0 not in self.steps_schedule:
            lines.append(
                f"attack.steps_schedule must say what holds from step 0, got {self.steps_schedule}. Add 0: ..."
            )
        if self.step_size is not None and self.relative_step_size is not None:
            lines.append(
                f"attack.step_size and attack.relative_step_size are both set ({self.step_size} and "
                f"{self.relative_step_size}). Keep one; without either, a step is 2.5 / attack.steps of the radius."
            )
        if self.ascent != "momentum" and self.momentum != 1.0:
            lines.append(
                f"attack.momentum does not apply to attack.ascent: {self.ascent}, got {self.momentum}. "
                f"Remove it, or set attack.ascent: momentum."
            )
        if self.name == "pgd" and not self.random_start and self.restarts > 1:
            lines.append(
                f"attack.restarts: {self.restarts} repeats one and the same attack without a random start. "
                f"Set attack.random_start: true, or attack.restarts: 1."
            )
        if self.goal in ("kl", "symmetric_kl") and not self.random_start:
            lines.append(
                f"attack.goal: {self.goal} has a zero gradient at the clean input, where this attack starts. "
                f"Set attack.name: pgd with attack.random_start: true, or attack.goal: cross_entropy."
            )
        return checked(self, lines)


def with_defaults(data: object, defaults: dict[str, Any]) -> object:
    """The keys of an attack that measures, with `defaults` for those neither given nor settled by its name."""
    if isinstance(data, dict) and data.get("steps_schedule") is not None:
        raise ConfigError(
            [
                f"attack.steps_schedule is for the attack of training, and this one measures, got "
                f"{data['steps_schedule']}. Remove it."
            ]
        )
    name = data.get("name", "pgd") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(name, str):
        return data
    return {**{key: value for key, value in defaults.items() if key not in _SETTLED.get(name, {})}, **data}


def measuring(data: object) -> object:
    """An attack that measures keeps the worst point and drops broken rows, unless the file says otherwise."""
    return with_defaults(data, {"select": "most_damaging", "early_stop": True})


def selecting(data: object) -> object:
    """Like `measuring`, with 10 steps where the file gives none."""
    return with_defaults(measuring(data), {"steps": 10})


class LinearScheduleConfig(Section):
    """From `start` to `end` in equal increments, then `end`."""

    kind: Literal["linear"] = Field("linear", description="A straight line.")
    start: NotNegative = Field(description="Value at optimizer step 0.")
    end: NotNegative = Field(description="Value once the steps are done.")
    steps: Count = Field(description="Optimizer steps from start to end.")


class StepScheduleConfig(Section):
    """Constant between the given steps."""

    kind: Literal["step"] = Field("step", description="A staircase.")
    values: Annotated[dict[StepKey, NotNegative], Field(min_length=1)] = Field(
        description="Value from each of these optimizer steps on; the first step is 0."
    )


ScheduleConfig = Annotated[LinearScheduleConfig | StepScheduleConfig, Field(discriminator="kind")]


def _levels(schedule: LinearScheduleConfig | StepScheduleConfig) -> dict[str, float]:
    """The values that a schedule takes, by their key below the schedule."""
    if isinstance(schedule, LinearScheduleConfig):
        return {"start": schedule.start, "end": schedule.end}
    return {f"values.{step}": value for step, value in schedule.values.items()}


def schedule_problems(ratio: ScheduleConfig | None, radius: ScheduleConfig | None) -> list[str]:
    """What is wrong with mixing.ratio_schedule and mixing.radius_schedule, one line each."""
    lines = []
    for name, schedule in (("ratio_schedule", ratio), ("radius_schedule", radius)):
        if schedule is None:
            continue
        if isinstance(schedule, StepScheduleConfig) and 0 not in schedule.values:
            lines.append(f"mixing.{name}.values must say what holds from step 0, got {schedule.values}. Add 0: ...")
        for key, level in _levels(schedule).items():
            if level > 1:
                lines.append(f"mixing.{name}.{key} must be at most 1, got {level}.")
            if level == 0 and name == "radius_schedule":
                lines.append(
                    f"mixing.{name}.{key} must be greater than 0, got {level}. A radius of 0 is no attack: "
                    f"use mixing.warmup_steps for steps without one."
                )
    return lines


def lowest_level(schedule: ScheduleConfig | None, otherwise: float) -> float:
    """The smallest value of a schedule; `otherwise` where there is none."""
    return otherwise if schedule is None else min(_levels(schedule).values())


class AdaptiveRadiusConfig(Section):
    """A factor on the radius of each attacked row: how many radii it seems to be away from being misclassified."""

    lowest: Positive = Field(0.5, description="Smallest factor; that of rows which are misclassified already.")
    highest: Positive = Field(1.5, description="Largest factor; above 1 training goes beyond threat.radius.")
    reference: Positive = Field(1.0, description="Distance to misclassification, in radii, that gives a factor of 1.")

    @model_validator(mode="after")
    def _rules(self) -> AdaptiveRadiusConfig:
        lines = []
        if self.lowest > self.highest:
            lines.append(
                f"mixing.adaptive_radius.lowest must be at most mixing.adaptive_radius.highest ({self.highest}), got "
                f"{self.lowest}."
            )
        return checked(self, lines)


class MixingConfig(Section):
    """How many rows are attacked, which, and how far."""

    ratio: Share = Field(
        0.25, description="Share of the rows of an optimizer step, over all processes, that is attacked, 0 to 1."
    )
    policy: Literal["replace", "pair"] = Field(
        "replace", description="Attacked rows replace their clean selves, or come beside them (pair)."
    )
    warmup_steps: Natural = Field(0, description="Optimizer steps without attack at the beginning.")
    ratio_schedule: ScheduleConfig | None = Field(None, description="The ratio over time, in place of mixing.ratio.")
    radius_schedule: ScheduleConfig | None = Field(
        None, description="A factor on the threat's radius over time, above 0 and at most 1."
    )
    adaptive_radius: AdaptiveRadiusConfig | None = Field(
        None, description="A factor on each attacked row's radius, from its clean margin and gradient; null: none."
    )

    @model_validator(mode="after")
    def _rules(self) -> MixingConfig:
        return checked(self, schedule_problems(self.ratio_schedule, self.radius_schedule))
