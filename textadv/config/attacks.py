"""The sections that name the attacks of an evaluation: each with the keys that it reads, each makes its attack."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import Against, AttackConfig, PanelSection, measuring, with_defaults
from textadv.config.types import Count, Formerly, NotNegative, Positive, Text, checked

if TYPE_CHECKING:
    from textadv.attacks import Attack, ThreatModel

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


def averaged(search: Attack, samples: int, seed: int) -> Attack:
    """The search with each value and gradient a mean of so many passes, where that is more than one."""
    from textadv.attacks import Eot

    return search if samples == 1 else Eot(search, samples, seed=seed)


def several_samples(key: str, samples: int) -> list[str]:
    """What a bisection over radii does not allow in the samples of the attack at `key`."""
    return [f"{key}.samples must be 1, got {samples}: a bisection looks at single passes."] if samples > 1 else []


class ApgdConfig(PanelSection):
    """The keys of every APGD (arXiv:2003.01690)."""

    name: str
    steps: Count = Field(100, description="Gradients per restart.")
    restarts: Count = Field(1, description="Searches per row, each from its own random start.")
    samples: SamplesCount = 1

    def make(self, threat: ThreatModel, seed: int, against: Against | None = None) -> Attack:
        """The attack inside `threat`.

        A mean of noisy passes is searched to the end, as one lucky point does not break it.

        Raises ValueError where it does not know such balls, or needs more classes.
        """
        against = against or Against()
        search = self._search(threat, seed, against.classes, against.early_stop and self.samples == 1)
        return averaged(search, self.samples, seed)

    def bisection_problems(self, key: str) -> list[str]:
        return several_samples(key, self.samples)

    def _search(self, threat: ThreatModel, seed: int, classes: int, early_stop: bool) -> Attack:
        raise NotImplementedError


class ApgdCeConfig(ApgdConfig):
    """APGD on the cross-entropy (arXiv:2003.01690)."""

    name: Literal["apgd_ce"] = Field("apgd_ce", description="The attack.")

    def _search(self, threat: ThreatModel, seed: int, classes: int, early_stop: bool) -> Attack:
        from textadv.attacks import apgd_ce

        return apgd_ce(threat, steps=self.steps, restarts=self.restarts, early_stop=early_stop, seed=seed)


class ApgdDlrConfig(ApgdConfig):
    """APGD on the difference of logits ratio (arXiv:2003.01690); for 3 classes or more."""

    name: Literal["apgd_dlr"] = Field("apgd_dlr", description="The attack.")

    def _search(self, threat: ThreatModel, seed: int, classes: int, early_stop: bool) -> Attack:
        from textadv.attacks import apgd_dlr

        if classes < 3:
            raise ValueError(
                f"apgd_dlr needs at least 3 classes, got {classes}. Set name: apgd_ce, or apgd_targeted, which raises "
                "the margin there."
            )
        return apgd_dlr(threat, steps=self.steps, restarts=self.restarts, early_stop=early_stop, seed=seed)


class ApgdTargetedConfig(ApgdConfig):
    """APGD towards each of the 9 strongest other classes (arXiv:2003.01690)."""

    name: Literal["apgd_targeted"] = Field("apgd_targeted", description="The attack.")
    steps: Count = Field(100, description="Gradients per target and restart.")
    restarts: Count = Field(1, description="Searches per row and target, each from its own random start.")

    def _search(self, threat: ThreatModel, seed: int, classes: int, early_stop: bool) -> Attack:
        from textadv.attacks import apgd_targeted

        steps, restarts = self.steps, self.restarts
        return apgd_targeted(threat, classes, steps=steps, restarts=restarts, early_stop=early_stop, seed=seed)


class MinimalConfig(PanelSection):
    """An attack whose one run finds the smallest perturbation that breaks a row."""

    name: str

    def make(self, threat: ThreatModel, seed: int, against: Against | None = None) -> Attack:
        """The attack inside `threat`, which never leaves the ball. Raises ValueError where it knows no such balls."""
        from textadv.attacks import Within

        return Within(self._search(threat, seed, (against or Against()).classes), threat)

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        raise NotImplementedError


class FabConfig(MinimalConfig):
    """FAB, towards the nearest of all other classes (arXiv:1907.02044); for a ball per example."""

    name: Literal["fab"] = Field("fab", description="The attack.")
    steps: Count = Field(100, description="Linearisations per search.")
    restarts: Count = Field(1, description="Searches per row, the first from the clean row.")
    early_stop: EarlyStop = False

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        from textadv.attacks import Fab

        return Fab(threat, self.steps, self.restarts, seed=seed, early_stop=self.early_stop)


class FabTargetedConfig(MinimalConfig):
    """FAB towards each of the 9 strongest other classes (arXiv:2003.01690); for a ball per example."""

    name: Literal["fab_targeted"] = Field("fab_targeted", description="The attack.")
    steps: Count = Field(100, description="Linearisations per target and search.")
    restarts: Count = Field(1, description="Searches per row and target, the first from the clean row.")
    early_stop: EarlyStop = False

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        from textadv.attacks import fab_targeted

        return fab_targeted(threat, classes, seed=seed, **self.model_dump(exclude={"name"}))


class SquareConfig(PanelSection):
    """Square, random search by the scores alone (arXiv:1912.00049); for l2 and linf balls."""

    name: Literal["square"] = Field("square", description="The attack.")
    queries: Count = Field(5000, description="Points tried per row.")
    p_init: Annotated[float, Field(gt=0, le=1)] = Field(0.8, description="Share of the row that the first window has.")
    rescale: bool = Field(False, description="Shrink the windows in proportion to the queries; false: as AutoAttack.")
    samples: SamplesCount = 1

    def make(self, threat: ThreatModel, seed: int, against: Against | None = None) -> Attack:
        """The attack inside `threat`. Raises ValueError where it does not know such balls."""
        from textadv.attacks import Square

        return averaged(Square(threat, self.queries, self.p_init, self.rescale, seed=seed), self.samples, seed)

    def bisection_problems(self, key: str) -> list[str]:
        return several_samples(key, self.samples)


class DeepFoolConfig(MinimalConfig):
    """DeepFool, straight to the nearest linearised boundary (arXiv:1511.04599)."""

    name: Literal["deepfool"] = Field("deepfool", description="The attack.")
    steps: Count = Field(50, description="Linearisations per row.")
    candidates: Annotated[int, Field(ge=2)] = Field(
        10, description="Classes with the largest clean logits that are looked at, the label among them."
    )
    overshoot: NotNegative = Field(0.02, description="Share by which the total is lengthened.")

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        from textadv.attacks import DeepFool

        return DeepFool(threat, self.steps, self.candidates, self.overshoot)


class DdnConfig(MinimalConfig):
    """DDN, the smallest l2 norm at a fixed price (arXiv:1811.09600); for an l2 ball per example."""

    name: Literal["ddn"] = Field("ddn", description="The attack.")
    steps: Count = Field(100, description="Gradients per row.")
    gamma: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="Share by which the norm shrinks where the row is broken and grows where it is not."
    )
    initial_norm: Positive = Field(1.0, description="The first norm: in widths of the pixels' box, else in radii.")
    step_size: Positive = Field(1.0, description="The first step, in the same unit; the last is a hundredth of it.")

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        from textadv.attacks import Ddn

        return Ddn(threat, **self.model_dump(exclude={"name"}))


class PdgdConfig(MinimalConfig):
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

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        from textadv.attacks import Pdgd

        return Pdgd(threat, **self.model_dump(exclude={"name"}))


class CarliniWagnerConfig(MinimalConfig):
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

    def _search(self, threat: ThreatModel, seed: int, classes: int) -> Attack:
        from textadv.attacks import CarliniWagner, CarliniWagnerL0, CarliniWagnerLinf

        forms = {"l2": CarliniWagner, "linf": CarliniWagnerLinf, "l0": CarliniWagnerL0}
        form = self.form or threat.ball.geometry.name.lower()
        if form not in forms:
            raise ValueError(
                f"carlini_wagner has the forms {', '.join(forms)}, got threat.norm: {form}. Set name: fab or deepfool, "
                "which know l1."
            )
        return forms[form](threat, **self.model_dump(exclude={"name", "form"}, exclude_none=True))


class AutoAttackConfig(PanelSection):
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

    def make(self, threat: ThreatModel, seed: int, against: Against | None = None) -> Attack:
        """The attack inside `threat`. Raises ValueError where it does not know such balls, or needs more classes."""
        from textadv.attacks import autoattack

        return autoattack(threat, (against or Against()).classes, seed=seed, **self.model_dump(exclude={"name"}))

    def bisection_problems(self, key: str) -> list[str]:
        if self.version != "rand":
            return []
        return [f"{key}.version: rand looks at means of passes, and a bisection at one. Set standard or fast."]


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


class TransferConfig(PanelSection):
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

    def make(self, threat: ThreatModel, seed: int, against: Against | None = None) -> Attack:
        """The attack inside `threat`, from the model that `against` has by this name. Raises as the attack's own."""
        from torch import nn

        from textadv.attacks import Transfer

        against = against or Against()
        attack = self.attack.make(threat, seed, replace(against, early_stop=False))
        return Transfer(against.surrogates.get(self.model, nn.Identity()), attack, threat, self.model)

    @property
    def surrogate(self) -> str | None:
        return self.model


PanelAttackConfig = AttackConfig | StrongAttackConfig | TransferConfig
NamedAttackConfig = Annotated[
    Annotated[PanelAttackConfig, Field(discriminator="name")],
    BeforeValidator(of_panel),
]
