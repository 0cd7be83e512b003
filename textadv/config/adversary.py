"""The sections of a configuration that describe the adversary: what it may do, and how hard it tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from textadv.config.types import (
    ConfigError,
    Count,
    Formerly,
    Length,
    Natural,
    NotNegative,
    Section,
    StepKey,
    Whole,
    checked,
)

if TYPE_CHECKING:
    from torch import nn

    from textadv.attacks import Ascent, Attack, Goal, ThreatModel
    from textadv.values.spaces import Space

FGSM_STEP = 1.0
R_FGSM_STEP = 1.25
PGD_REACH = 2.5
# Stands for the number of classes where the data has not been read yet.
SOME_CLASSES = 10


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

    def make(self) -> ThreatModel:
        """What the adversary may do; a relative radius is still to be resolved."""
        from textadv.attacks import L1, L2, Linf, ThreatModel

        ball = {"l2": L2, "linf": Linf, "l1": L1}[self.norm]
        return ThreatModel(self._place(), ball(self.radius, relative_radius=self.relative_radius, per=self.per))

    def _place(self) -> Space:
        from textadv.values.spaces import Embeddings, Hidden, Pixels

        if self.layer is not None:
            return Hidden(self.layer)
        return Pixels() if self.space == "pixels" else Embeddings()


@dataclass(frozen=True)
class Against:
    """What an attack that measures is made for.

    classes: of the model. early_stop: whether an APGD search leaves a row where it is broken: what is carried over to
    another model is searched to the end. surrogates: the models that attacks are transferred from, by the names that
    they are configured by and on the device of the attacked model; without them what is made can be looked at, not run.
    """

    classes: int = SOME_CLASSES
    early_stop: bool = True
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)


class PanelSection(Section):
    """What every attack of an evaluation has beside its keys."""

    name: str

    @property
    def surrogate(self) -> str | None:
        """The model that it is transferred from, if it is."""
        return None

    def bisection_problems(self, key: str) -> list[str]:
        """What a bisection over radii, whose attack stands at `key`, does not allow in it, one line each."""
        return []


def goal_of(name: str) -> Goal:
    """A loss of the label, or a divergence from the clean prediction, by name."""
    from textadv.attacks import Diverge, Untargeted
    from textadv.values.losses import DIVERGENCES, LOSSES

    return Untargeted(LOSSES[name]) if name in LOSSES else Diverge(DIVERGENCES[name])


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
    # Of the tasks that have texts to edit.
    "edits": {
        "steps": 0,
        "steps_schedule": None,
        "relative_step_size": None,
        "random_start": True,
        "goal": None,
        **_STARTS,
        **_NO_SIZE,
        **_ONE_RUN,
    },
}


class AttackConfig(PanelSection):
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

    @property
    def perturbs(self) -> bool:
        """Whether it moves what threat.space names."""
        return True

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

    def make(
        self, threat: ThreatModel, seed: int, against: Against | None = None, *, default_goal: str = "cross_entropy"
    ) -> Attack:
        """The attack inside `threat`. default_goal: what it raises where the section names no goal."""
        from textadv.attacks import GradientAttack, Noise, VirtualAdversarial

        if self.steps_schedule is not None:
            return self.staged(lambda one: one.make(threat, seed, against, default_goal=default_goal))
        aim = goal_of(self.goal or default_goal)
        if self.name == "noise":
            return Noise(threat, aim, seed)
        if self.name == "virtual_adversarial":
            return VirtualAdversarial(threat, self.steps, goal=aim, seed=seed)
        return GradientAttack(
            threat=threat,
            ascent=self._ascent(),
            steps=self.steps,
            goal=aim,
            random_start=self.random_start,
            restarts=self.restarts,
            early_stop=self.early_stop,
            select=self.select,
            seed=seed,
            starts=self.starts,
        )

    def bisection_problems(self, key: str) -> list[str]:
        if self.step_size is None:
            return []
        return [
            f"{key}.step_size would stay {self.step_size:g} at every radius that is tried. Set "
            f"{key}.relative_step_size instead, or leave both out."
        ]

    def staged(self, make: Callable[[AttackConfig], Attack]) -> Attack:
        """What `make` makes of the attack, for each number of steps that its schedule names."""
        from textadv.attacks import Stages

        if self.steps_schedule is None:
            return make(self)
        fixed = {
            first: self.model_copy(update={"steps": steps, "steps_schedule": None})
            for first, steps in self.steps_schedule.items()
        }
        return Stages({first: make(one) for first, one in fixed.items()})

    def _ascent(self) -> Ascent:
        from textadv.attacks import Adam, FixedStep, Momentum, StepSize

        relative = self.relative_step_size
        if self.step_size is None and relative is None:
            relative = {"fgsm": FGSM_STEP, "r_fgsm": R_FGSM_STEP, "pgd": PGD_REACH / self.steps}[self.name]
        size = StepSize(self.step_size, relative)
        if self.ascent == "momentum":
            return Momentum(size, self.momentum)
        return Adam(size) if self.ascent == "adam" else FixedStep(size)


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
