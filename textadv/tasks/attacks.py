"""From the attacks of an evaluation, as configured, to attacks; those of training are in `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import nn

from textadv.attacks import (
    Attack,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    Ddn,
    DeepFool,
    Eot,
    Fab,
    Pdgd,
    Square,
    ThreatModel,
    Transfer,
    Within,
    apgd_ce,
    apgd_dlr,
    apgd_targeted,
    autoattack,
    fab_targeted,
)
from textadv.config.attacks import (
    ApgdCeConfig,
    ApgdDlrConfig,
    ApgdTargetedConfig,
    AutoAttackConfig,
    CarliniWagnerConfig,
    DdnConfig,
    DeepFoolConfig,
    FabConfig,
    FabTargetedConfig,
    MaskingConfig,
    MinimumRadiusConfig,
    PanelAttackConfig,
    PdgdConfig,
    SquareConfig,
    StrongAttackConfig,
    TransferConfig,
)
from textadv.config.text import AttackConfig, ConfigError
from textadv.measuring import Alarm, RadiusSearch
from textadv.tasks import components as build

# What they build is one run of a search for the smallest perturbation.
MINIMAL = (FabConfig, FabTargetedConfig, DeepFoolConfig, DdnConfig, PdgdConfig, CarliniWagnerConfig)
# Stands for the number of classes where the data has not been read yet.
SOME_CLASSES = 10
# Stands for a surrogate that has not been loaded yet, and runs on nothing.
NOT_LOADED = nn.Identity()
BY_KEYS: dict[str, Callable[..., Attack]] = {"ddn": Ddn, "pdgd": Pdgd}
CARLINI_WAGNER = {"l2": CarliniWagner, "linf": CarliniWagnerLinf, "l0": CarliniWagnerL0}


def panel(
    configs: Mapping[str, PanelAttackConfig],
    threat: ThreatModel,
    seed: int,
    classes: int | None = None,
    surrogates: Mapping[str, nn.Module] = MappingProxyType({}),
) -> dict[str, Attack]:
    """The attacks of an evaluation, by their keys.

    classes: of the model; None where they are not known yet, to see what can be seen before.
    surrogates: the models that attacks are transferred from, by the names that they are configured by and on the device
        of the attacked model; without them what is built can be looked at and not run.

    Raises ConfigError that names every attack which cannot work in this threat model, or for these classes.
    """
    made, lines = {}, []
    for key, config in configs.items():
        try:
            made[key] = _made(config, threat, seed, SOME_CLASSES if classes is None else classes, surrogates)
        except ValueError as error:
            lines.append(f"evaluation.attacks.{key}: {error}")
    if lines:
        raise ConfigError(lines)
    return made


def _made(
    config: PanelAttackConfig, threat: ThreatModel, seed: int, classes: int, surrogates: Mapping[str, nn.Module]
) -> Attack:
    if isinstance(config, TransferConfig):
        attack = measuring(config.attack, threat, seed, classes, early_stop=False)
        return Transfer(surrogates.get(config.model, NOT_LOADED), attack, threat, config.model)
    return measuring(config, threat, seed, classes)


def measuring(
    config: AttackConfig | StrongAttackConfig, threat: ThreatModel, seed: int, classes: int, early_stop: bool = True
) -> Attack:
    """The attack that `config` names, inside `threat`, for a model of so many classes; it never leaves the ball.

    early_stop: whether an APGD search leaves a row where it is broken. What is carried over to another model is
    searched to the end, and so is a mean of noisy passes, which one lucky point does not break.

    Raises ValueError where it does not know such balls, or needs more classes.
    """
    if isinstance(config, AttackConfig):
        return build.attack(config, threat, seed)
    if isinstance(config, AutoAttackConfig):
        return autoattack(threat, classes, seed=seed, **config.model_dump(exclude={"name"}))
    if isinstance(config, FabConfig):
        return Within(Fab(threat, config.steps, config.restarts, seed=seed, early_stop=config.early_stop), threat)
    if isinstance(config, FabTargetedConfig):
        return Within(fab_targeted(threat, classes, seed=seed, **config.model_dump(exclude={"name"})), threat)
    if isinstance(config, DeepFoolConfig):
        return Within(DeepFool(threat, config.steps, config.candidates, config.overshoot), threat)
    if isinstance(config, DdnConfig | PdgdConfig):
        return Within(BY_KEYS[config.name](threat, **config.model_dump(exclude={"name"})), threat)
    if isinstance(config, CarliniWagnerConfig):
        return Within(_carlini_wagner(config, threat), threat)
    found = _averaged(config, threat, seed, classes, early_stop and config.samples == 1)
    return found if config.samples == 1 else Eot(found, config.samples, seed=seed)


def _averaged(
    config: ApgdCeConfig | ApgdDlrConfig | ApgdTargetedConfig | SquareConfig,
    threat: ThreatModel,
    seed: int,
    classes: int,
    early_stop: bool,
) -> Attack:
    """An attack that knows the model by `probe.evaluate_at` alone, so that `Eot` can average what it sees."""
    if isinstance(config, SquareConfig):
        return Square(threat, config.queries, config.p_init, config.rescale, seed=seed)
    steps, restarts = config.steps, config.restarts
    if isinstance(config, ApgdTargetedConfig):
        return apgd_targeted(threat, classes, steps=steps, restarts=restarts, early_stop=early_stop, seed=seed)
    if isinstance(config, ApgdDlrConfig):
        if classes < 3:
            raise ValueError(
                f"apgd_dlr needs at least 3 classes, got {classes}. Set name: apgd_ce, or apgd_targeted, which raises "
                "the margin there."
            )
        return apgd_dlr(threat, steps=steps, restarts=restarts, early_stop=early_stop, seed=seed)
    return apgd_ce(threat, steps=steps, restarts=restarts, early_stop=early_stop, seed=seed)


def _carlini_wagner(config: CarliniWagnerConfig, threat: ThreatModel) -> Attack:
    """The form that is asked for, or else that of the threat's norm, with its own defaults for keys that are null."""
    form = config.form or threat.ball.geometry.name.lower()
    if form not in CARLINI_WAGNER:
        raise ValueError(
            f"carlini_wagner has the forms {', '.join(CARLINI_WAGNER)}, got threat.norm: {form}. Set name: fab or "
            "deepfool, which know l1."
        )
    return CARLINI_WAGNER[form](threat, **config.model_dump(exclude={"name", "form"}, exclude_none=True))


def alarm(config: MaskingConfig | None, seed: int) -> Alarm | None:
    """How much is looked at for masked gradients, if anything."""
    return None if config is None else Alarm(config.rows, config.queries, seed)


def radius_search(
    config: MinimumRadiusConfig | None, threat: ThreatModel, seed: int, classes: int | None = None
) -> RadiusSearch | None:
    """How the smallest radius of each row is looked for, if it is; see `panel` for the arguments.

    Raises ConfigError where the attack cannot work in this threat model, or for these classes.
    """
    if config is None:
        return None
    unit = replace(threat, ball=replace(threat.ball, radius=1.0, relative_radius=None))
    if isinstance(config.attack, MINIMAL):
        unit = threat
    elif config.with_fab and threat.ball.per == "token":
        raise ConfigError(
            ["evaluation.minimum_radius.with_fab: FAB measures whole rows, got threat.per: token. Leave it out."]
        )
    try:
        attack = measuring(config.attack, unit, seed, SOME_CLASSES if classes is None else classes)
    except ValueError as error:
        raise ConfigError([f"evaluation.minimum_radius.attack: {error}"]) from error
    steps, rows = config.steps, config.rows
    return RadiusSearch(attack, config.upper, config.tolerance, steps, rows, seed, config.with_fab)
