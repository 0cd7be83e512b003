"""The sections of a configuration that say how many rows are attacked, which ones and how far, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.types import Count, Natural, NotNegative, Positive, Section, Share, StepKey, checked

if TYPE_CHECKING:
    from textadv.attacks import Attack, ThreatModel
    from textadv.training.mixing import Linear, Mixing, Steps


class LinearScheduleConfig(Section):
    """From `start` to `end` in equal increments, then `end`."""

    kind: Literal["linear"] = Field("linear", description="A straight line.")
    start: NotNegative = Field(description="Value at optimizer step 0.")
    end: NotNegative = Field(description="Value once the steps are done.")
    steps: Count = Field(description="Optimizer steps from start to end.")

    @property
    def levels(self) -> dict[str, float]:
        """The values that it takes, by their key below the schedule."""
        return {"start": self.start, "end": self.end}

    def make(self) -> Linear:
        """The straight line."""
        from textadv.training.mixing import Linear

        return Linear(self.start, self.end, self.steps)


class StepScheduleConfig(Section):
    """Constant between the given steps."""

    kind: Literal["step"] = Field("step", description="A staircase.")
    values: Annotated[dict[StepKey, NotNegative], Field(min_length=1)] = Field(
        description="Value from each of these optimizer steps on; the first step is 0."
    )

    @property
    def levels(self) -> dict[str, float]:
        """The values that it takes, by their key below the schedule."""
        return {f"values.{step}": value for step, value in self.values.items()}

    def make(self) -> Steps:
        """The staircase."""
        from textadv.training.mixing import Steps

        return Steps(dict(self.values))


ScheduleConfig = Annotated[LinearScheduleConfig | StepScheduleConfig, Field(discriminator="kind")]


def schedule_problems(ratio: ScheduleConfig | None, radius: ScheduleConfig | None) -> list[str]:
    """What is wrong with mixing.ratio_schedule and mixing.radius_schedule, one line each."""
    lines = []
    for name, schedule in (("ratio_schedule", ratio), ("radius_schedule", radius)):
        if schedule is None:
            continue
        if isinstance(schedule, StepScheduleConfig) and 0 not in schedule.values:
            lines.append(f"mixing.{name}.values must say what holds from step 0, got {schedule.values}. Add 0: ...")
        for key, level in schedule.levels.items():
            if level > 1:
                lines.append(f"mixing.{name}.{key} must be at most 1, got {level}.")
            if level == 0 and name == "radius_schedule":
                lines.append(
                    f"mixing.{name}.{key} must be greater than 0, got {level}. A radius of 0 is no attack: "
                    f"use mixing.warmup_steps for steps without one."
                )
    return lines


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

    def make(self, attack: Attack, threat: ThreatModel) -> Attack:
        """The attack of training, at a radius of its own for each row."""
        from textadv.attacks import AdaptiveRadius

        return AdaptiveRadius(attack, threat, self.lowest, self.highest, self.reference)


class RatioConfig(Section):
    """How many rows of an optimizer step are attacked over time, and how far."""

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

    @model_validator(mode="after")
    def _rules(self) -> RatioConfig:
        return checked(self, schedule_problems(self.ratio_schedule, self.radius_schedule))

    @property
    def lowest_ratio(self) -> float:
        """The smallest share of a step that is attacked, after the warm-up."""
        return self.ratio if self.ratio_schedule is None else min(self.ratio_schedule.levels.values())

    def make(self, seed: int) -> Mixing:
        """Which rows are attacked, and how strongly."""
        from textadv.training.mixing import Constant, Mixing

        ratio, radius = self.ratio_schedule, self.radius_schedule
        return Mixing(
            Constant(self.ratio) if ratio is None else ratio.make(),
            self.policy,
            self.warmup_steps,
            Constant(1.0) if radius is None else radius.make(),
            seed,
        )


class MixingConfig(RatioConfig):
    """How many rows are attacked, which, and how far."""

    adaptive_radius: AdaptiveRadiusConfig | None = Field(
        None, description="A factor on each attacked row's radius, from its clean margin and gradient; null: none."
    )
