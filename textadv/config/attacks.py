"""The sections of a configuration that name the attacks of an evaluation: each with the keys that it reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import AttackConfig, measuring, with_defaults
from textadv.config.types import Count, Formerly, NotNegative, Positive, Section, Text, checked

TRAINABLE = ("pgd", "fgsm", "r_fgsm", "virtual_adversarial", "noise")
SPREAD = {"starts": "spread"}

SamplesCount = Annotated[
    int,
    Field(
        ge=1, description="Passes that each value and gradient is the mean of; above 1 for models with random output."
    ),
]


EarlyStop = Annotated[
    bool,
    Formerly(True),
    Field(
        description="Leave a row once it is broken inside the radius, which is cheaper and tells no sizes; false: look "
        "for its smallest size."
    ),
]


class ApgdCeConfig(Section):
    """APGD on the cross-entropy (arXiv:2003.01690)."""

    name: Literal["apgd_ce"] = Field("apgd_ce", description="The attack.")
    steps: Count = Field(100, description="Gradients per restart.")
    restarts: Count = Field(1, description="Searches per row, each from its own random start.")
    samples: SamplesCount = 1


class ApgdDlrConfig(Section):
    """APGD on the difference of logits ratio (arXiv:2003.01690); for 3 classes or more."""

    name: Literal["apgd_dlr"] = Field("apgd_dlr", description="The attack.")
    steps: Count = Field(100, description="Gradients per restart.")
    restarts: Count = Field(1, description="Searches per row, each from its own random start.")
    samples: SamplesCount = 1


class ApgdTargetedConfig(Section):
    """APGD towards each of the 9 strongest other classes (arXiv:2003.01690)."""

    name: Literal["apgd_targeted"] = Field("apgd_targeted", description="The attack.")
    steps: Count = Field(100, description="Gradients per target and restart.")
    restarts: Count = Field(1, description="Searches per row and target, each from its own random start.")
    samples: SamplesCount = 1


class FabConfig(Section):
    """FAB, towards the nearest of all other classes (arXiv:1907.02044); for a ball per example."""

    name: Literal["fab"] = Field("fab", description="The attack.")
    steps: Count = Field(100, description="Linearisations per search.")
    restarts: Count = Field(1, description="Searches per row, the first from the clean row.")
    early_stop: EarlyStop = False


class FabTargetedConfig(Section):
    """FAB towards each of the 9 strongest other classes (arXiv:2003.01690); for a ball per example."""

    name: Literal["fab_targeted"] = Field("fab_targeted", description="The attack.")
    steps: Count = Field(100, description="Linearisations per target and search.")
    restarts: Count = Field(1, description="Searches per row and target, the first from the clean row.")
    early_stop: EarlyStop = False


class SquareConfig(Section):
    """Square, random search by the scores alone (arXiv:1912.00049); for l2 and linf balls."""

    name: Literal["square"] = Field("square", description="The attack.")
    queries: Count = Field(5000, description="Points tried per row.")
    p_init: Annotated[float, Field(gt=0, le=1)] = Field(0.8, description="Share of the row that the first window has.")
    rescale: bool = Field(False, description="Shrink the windows in proportion to the queries; false: as AutoAttack.")
    samples: SamplesCount = 1


class DeepFoolConfig(Section):
    """DeepFool, straight to the nearest linearised boundary (arXiv:1511.04599)."""

    name: Literal["deepfool"] = Field("deepfool", description="The attack.")
    steps: Count = Field(50, description="Linearisations per row.")
    candidates: Annotated[int, Field(ge=2)] = Field(
        10, description="Classes with the largest clean logits that are looked at, the label among them."
    )
    overshoot: NotNegative = Field(0.02, description="Share by which the total is lengthened.")


class DdnConfig(Section):
    """DDN, the smallest l2 norm at a fixed price (arXiv:1811.09600); for an l2 ball per example."""

    name: Literal["ddn"] = Field("ddn", description="The attack.")
    steps: Count = Field(100, description="Gradients per row.")
    gamma: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Share by which the norm shrinks where the row is broken and grows where it is not."
    )
    initial_norm: Positive = Field(1.0, description="The first norm: in widths of the pixels' box, else in radii.")
    step_size: Positive = Field(1.0, description="The first step, in the same unit; the last is a hundredth of it.")


class PdgdConfig(Section):
    """PDGD, the smallest l2 norm with a multiplier that is learned (arXiv:2106.01538); for an l2 ball per example."""

    name: Literal["pdgd"] = Field("pdgd", description="The attack.")
    steps: Count = Field(500, description="Gradients per row.")
    learning_rate: Positive = Field(
        0.1,
        description="Adam's first; the last is a hundredth of it. In widths of the pixels' box; elsewhere 1 stands for "
        "forty distances to the linearised boundary.",
    )
    dual_rate: Positive = Field(0.1, description="The multiplier's first step; the last is a tenth of it.")
    initial_ratio: Positive = Field(0.01, description="Weight of the norm over that of the constraint at first.")


class CarliniWagnerConfig(Section):
    """Carlini-Wagner, the smallest change that Adam can find (arXiv:1608.04644); for a ball per example."""

    name: Literal["carlini_wagner"] = Field("carlini_wagner", description="The attack.")
    form: Literal["l2", "linf", "l0"] | None = Field(
        None, description="What is made small, l0 in a large l2 ball; null: the threat's norm."
    )
    confidence: NotNegative = Field(0.0, description="How far the other logit must lead.")
    search_steps: Count | None = Field(None, description="Constants tried, at most; null: the form's own.")
    steps: Count = Field(1000, description="Gradients for each constant.")
    learning_rate: Positive | None = Field(None, description="Adam's; null: the form's own.")
    initial_constant: Positive | None = Field(None, description="The first constant; null: the form's own.")
    abort_early: bool = Field(True, description="Leave a constant where nothing improves any more.")


class AutoAttackConfig(Section):
    """AutoAttack, whose worst case is one number (arXiv:2003.01690)."""

    name: Literal["autoattack"] = Field("autoattack", description="The attack.")
    version: Literal["standard", "rand", "fast"] = Field(
        "standard",
        description="standard: APGD-CE, APGD-T, FAB-T, Square; fast: the first two; rand: for models of random output.",
    )
    steps: Count = Field(100, description="Steps of every APGD and FAB search.")
    queries: Count = Field(5000, description="Points that Square tries per row; only with version standard.")
    samples: Count = Field(20, description="Passes that each gradient is the mean of; only with version rand.")

    @model_validator(mode="after")
    def _rules(self) -> AutoAttackConfig:
        lines = []
        for key, version in (("queries", "standard"), ("samples", "rand")):
            given, default = self.model_dump()[key], type(self).model_fields[key].default
            if self.version != version and given != default:
                lines.append(
                    f"attack.{key} does not apply to attack.version: {self.version}, got {given}. Remove it, or set "
                    f"attack.version: {version}."
                )
        return checked(self, lines)


def of_panel(data: object) -> object:
    """An attack of the panel: pgd where no name is given, and its kin get the defaults of attacks that measure.

    Its starts are spread: of uniform draws, which lie on the surface of a ball of many dimensions, none is near the
    clean row.
    """
    if not isinstance(data, dict):
        return data
    named: dict[Any, Any] = {"name": "pgd", **data}
    return with_defaults(measuring(named), SPREAD) if named["name"] in TRAINABLE else named


def crafting(data: object) -> object:
    """Like `of_panel`, but a row is searched on where it is broken: it is not the surrogate that must be."""
    if not isinstance(data, dict):
        return data
    named: dict[Any, Any] = {"name": "pgd", **data}
    return with_defaults(named, SPREAD | {"select": "most_damaging"}) if named["name"] in TRAINABLE else named


StrongAttackConfig = (
    ApgdCeConfig
    | ApgdDlrConfig
    | ApgdTargetedConfig
    | FabConfig
    | FabTargetedConfig
    | SquareConfig
    | DeepFoolConfig
    | DdnConfig
    | PdgdConfig
    | CarliniWagnerConfig
    | AutoAttackConfig
)


class TransferConfig(Section):
    """An attack on another model, whose perturbations are then put on this one's inputs (arXiv:1605.07277)."""

    name: Literal["transfer"] = Field("transfer", description="The attack.")
    model: Text = Field(
        description="The other model: Hub id, or folder of a model or adapter, trained for the same classes; with the "
        "same tokenizer, or for images of the same size."
    )
    attack: Annotated[
        Annotated[AttackConfig | StrongAttackConfig, Field(discriminator="name")], BeforeValidator(crafting)
    ] = Field(
        description="Any other attack of a panel; unset early_stop of pgd and its kin is false, and apgd does not stop "
        "early. The others (autoattack, fab, deepfool, ddn, pdgd, carlini_wagner, square) stop at the other model's "
        "boundary."
    )


PanelAttackConfig = AttackConfig | StrongAttackConfig | TransferConfig
NamedAttackConfig = Annotated[
    Annotated[PanelAttackConfig, Field(discriminator="name")],
    BeforeValidator(of_panel),
]


class MaskingConfig(Section):
    """The masking alarm: signs that the attacks failed for want of a gradient."""

    rows: Count = Field(256, description="Rows that each check looks at, at most: a seeded sample.")
    queries: Count = Field(1000, description="Queries of the Square probe beside an autoattack without Square.")


def bisected(data: object) -> object:
    """An attack of a bisection, with 20 steps where neither the file nor its name gives any."""
    found = of_panel(data)
    return with_defaults(found, {"steps": 20}) if isinstance(found, dict) and found["name"] in TRAINABLE else found


MinimalConfig = FabConfig | FabTargetedConfig | DeepFoolConfig | DdnConfig | PdgdConfig | CarliniWagnerConfig


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
        if isinstance(attack, AttackConfig) and attack.step_size is not None:
            lines.append(
                f"{key}.step_size would stay {attack.step_size:g} at every radius that is tried. Set "
                f"{key}.relative_step_size instead, or leave both out."
            )
        if isinstance(attack, ApgdCeConfig | ApgdDlrConfig | ApgdTargetedConfig | SquareConfig) and attack.samples > 1:
            lines.append(f"{key}.samples must be 1, got {attack.samples}: a bisection looks at single passes.")
        if isinstance(attack, AutoAttackConfig) and attack.version == "rand":
            lines.append(f"{key}.version: rand looks at means of passes, and a bisection at one. Set standard or fast.")
        if isinstance(attack, MinimalConfig):
            lines += _beside_minimal(self, attack)
        return checked(self, lines)


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
