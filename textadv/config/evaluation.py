"""The sections that say what is measured on a classifier's test rows, each makes what measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import SOME_CLASSES, Against, AttackConfig, with_defaults
from textadv.config.attacks import (
    TRAINABLE,
    ApgdCeConfig,
    FabConfig,
    FabTargetedConfig,
    MinimalConfig,
    NamedAttackConfig,
    StrongAttackConfig,
    of_panel,
)
from textadv.config.detection import DetectionConfig
from textadv.config.labels import attack_problems
from textadv.config.types import (
    AttackKey,
    ConfigError,
    Count,
    Formerly,
    Length,
    Positive,
    Section,
    checked,
)

if TYPE_CHECKING:
    from torch import nn

    from textadv.attacks import Attack, ThreatModel
    from textadv.measuring import Alarm, RadiusSearch

Loaded = TypeVar("Loaded")


class MaskingConfig(Section):
    """The masking alarm: signs that the attacks failed for want of a gradient."""

    rows: Count = Field(256, description="Rows that each check looks at, at most: a seeded sample.")
    queries: Count = Field(1000, description="Queries of the Square probe beside an autoattack without Square.")

    def make(self, seed: int) -> Alarm:
        """How much is looked at for masked gradients."""
        from textadv.measuring import Alarm

        return Alarm(self.rows, self.queries, seed)


def bisected(data: object) -> object:
    """An attack of a bisection, with 20 steps where neither the file nor its name gives any."""
    found = of_panel(data)
    return with_defaults(found, {"steps": 20}) if isinstance(found, dict) and found["name"] in TRAINABLE else found


class MinimumRadiusConfig(Section):
    """The smallest radius at which an attack breaks each row, by bisection, or by one run of a minimal attack."""

    attack: Annotated[
        Annotated[AttackConfig | StrongAttackConfig, Field(discriminator="name")], BeforeValidator(bisected)
    ] = Field(
        AttackConfig(name="pgd", steps=20, select="most_damaging", early_stop=True, starts="spread"),
        description="Any attack of a panel but transfer; unset keys of pgd and its kin default to steps 20, select "
        "most_damaging, early_stop true and starts spread. fab, fab_targeted, deepfool, ddn, pdgd and "
        "carlini_wagner run once, to the end.",
    )
    with_fab: Annotated[bool | None, Formerly(False)] = Field(
        None, description="Begin a bisection with FAB and take the smaller; null: for l2 and l1 balls per example."
    )
    upper: Positive = Field(4.0, description="Largest radius that is tried, in radii of the threat.")
    tolerance: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02, description="A row is done where its radius is known up to this share of it."
    )
    steps: Count = Field(20, description="Bisections per row, at most.")
    rows: Count = Field(128, description="Rows that are searched, at most: a seeded sample of those that are attacked.")

    @model_validator(mode="after")
    def _rules(self) -> MinimumRadiusConfig:
        attack, key, lines = self.attack, "evaluation.minimum_radius.attack", []
        lines += attack.bisection_problems(key)
        if isinstance(attack, MinimalConfig):
            lines += _beside_minimal(self, attack)
        return checked(self, lines)

    def make(self, threat: ThreatModel, seed: int, classes: int | None = None) -> RadiusSearch:
        """How the smallest radius of each row is looked for. classes: as in `EvaluationConfig.panel`.

        Raises ConfigError where the attack cannot work in this threat model, or for these classes.
        """
        from textadv.measuring import RadiusSearch

        unit = replace(threat, ball=replace(threat.ball, radius=1.0, relative_radius=None))
        if isinstance(self.attack, MinimalConfig):
            unit = threat
        elif self.with_fab and threat.ball.per == "token":
            raise ConfigError(
                ["evaluation.minimum_radius.with_fab: FAB measures whole rows, got threat.per: token. Leave it out."]
            )
        try:
            attack = self.attack.make(unit, seed, Against(SOME_CLASSES if classes is None else classes))
        except ValueError as error:
            raise ConfigError([f"evaluation.minimum_radius.attack: {error}"]) from error
        return RadiusSearch(attack, self.upper, self.tolerance, self.steps, self.rows, seed, self.with_fab)


def _beside_minimal(wanted: MinimumRadiusConfig, attack: MinimalConfig) -> list[str]:
    """Of keys that only a bisection reads, or that would end a search for the smallest size before its end."""
    section, lines = "evaluation.minimum_radius", []
    if isinstance(attack, FabConfig | FabTargetedConfig) and attack.early_stop:
        lines.append(
            f"{section}.attack.early_stop: true would leave a row at the first perturbation inside the radius, and the "
            "smallest is looked for. Remove it."
        )
    for name, given in (("with_fab", wanted.with_fab), ("tolerance", wanted.tolerance), ("steps", wanted.steps)):
        if given and given != type(wanted).model_fields[name].default:
            shown = "true" if given is True else f"{given:g}"
            lines.append(
                f"{section}.{name}: {shown} is of a bisection, and {section}.attack.name: {attack.name} runs once, to "
                "the end. Remove it, or name a bounded attack such as pgd."
            )
    return lines


class EvaluationConfig(Section):
    """What is measured on test rows, before and after training."""

    rows: Count | None = Field(256, description="Test rows that are attacked, of each test file; null: all.")
    batch_size: Count = Field(64, description="Rows per forward.")
    attacks: Annotated[dict[AttackKey, NamedAttackConfig], Field(min_length=1)] = Field(
        {
            "pgd20": AttackConfig(
                name="pgd", steps=20, restarts=3, select="most_damaging", early_stop=True, starts="spread"
            ),
            "apgd": ApgdCeConfig(steps=50),
        },
        description="Attacks by names of your choice; unset keys of pgd and its kin default to select most_damaging, "
        "early_stop true, starts spread.",
    )
    radii: list[Length] = Field(
        [], description="Radii of the robustness curve, ascending, in the unit of the threat's radius; empty: no curve."
    )
    curve_attack: str | None = Field(None, description="Key of the attack that draws the curve; null: the first.")
    calibrate: bool = Field(True, description="Fit a temperature on validation rows before attacking.")
    masking: MaskingConfig | None = Field(
        MaskingConfig(), description="Checks whether the attacks met masked gradients; null: none."
    )
    keep_adversarial: bool = Field(
        False,
        description="Keep the rows as every attack left them, in adversarial/ of the output folder.",
    )
    detection: DetectionConfig | None = Field(
        None, description="Recall at fixed false positives, of each test file; null: not measured."
    )
    minimum_radius: MinimumRadiusConfig | None = Field(
        None, description="Looks for the smallest radius that breaks each row; {} with every default, null: not at all."
    )

    @model_validator(mode="after")
    def _rules(self) -> EvaluationConfig:
        lines = []
        if any(low >= high for low, high in zip(self.radii, self.radii[1:], strict=False)):
            lines.append(f"evaluation.radii must be in ascending order without repeats, got {self.radii}.")
        if self.curve_attack is not None and self.curve_attack not in self.attacks:
            lines.append(
                f"evaluation.curve_attack must be a key of evaluation.attacks ({', '.join(self.attacks)}), got "
                f"{self.curve_attack}."
            )
        return checked(self, [*lines, *attack_problems("evaluation.attacks", self.attacks)])

    def only(self, name: str) -> EvaluationConfig:
        """The same with this attack alone."""
        return self.model_copy(update={"attacks": {name: self.attacks[name]}})

    def against(self, classes: int | None, surrogates: Mapping[str, nn.Module] | None) -> Against:
        """What the attacks of the panel are made for; arguments as in `panel`."""
        return Against(SOME_CLASSES if classes is None else classes, surrogates=surrogates or {})

    def panel(
        self,
        threat: ThreatModel,
        seed: int,
        classes: int | None = None,
        surrogates: Mapping[str, nn.Module] | None = None,
    ) -> dict[str, Attack]:
        """The attacks, by their keys.

        classes: of the model; None where they are not known yet, to see what can be seen before.
        surrogates: as in `Against`.

        Raises ConfigError that names every attack which cannot work in this threat model, or for these classes.
        """
        against = self.against(classes, surrogates)
        made, lines = {}, []
        for key, attack in self.attacks.items():
            try:
                made[key] = attack.make(threat, seed, against)
            except ValueError as error:
                lines.append(f"evaluation.attacks.{key}: {error}")
        if lines:
            raise ConfigError(lines)
        return made

    def surrogates(self, load: Callable[[str], Loaded]) -> dict[str, Loaded]:
        """What `load` makes of every model that is transferred from, once; its complaints as one ConfigError."""
        loaded: dict[str, Loaded] = {}
        lines = []
        for key, attack in self.attacks.items():
            model = attack.surrogate
            if model is None or model in loaded:
                continue
            try:
                loaded[model] = load(model)
            except ValueError as error:
                where, told = f"evaluation.attacks.{key}.model", str(error)
                named = "model.name" in told
                lines.append(told.replace("model.name", where) if named else f"{where} {model!r}: {told}")
        if lines:
            raise ConfigError(lines)
        return loaded
