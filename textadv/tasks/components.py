"""From configuration to objects: the only place where a config becomes attacks, objectives and data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import nn

from textadv.attacks import (
    L1,
    L2,
    Adam,
    AdaptiveRadius,
    Ascent,
    Attack,
    Ball,
    Diverge,
    FixedStep,
    Goal,
    GradientAttack,
    Linf,
    Momentum,
    Noise,
    PenalisedAscent,
    Stages,
    StepSize,
    ThreatModel,
    Untargeted,
    VirtualAdversarial,
)
from textadv.config.chat import ChatMixingConfig
from textadv.config.objective import (
    AdversarialConfig,
    AlumConfig,
    DistributionalConfig,
    FreeConfig,
    FreelbConfig,
    MartConfig,
    PredictorConfig,
    R3fConfig,
    RegularisedConfig,
    SmartConfig,
    TradesConfig,
    weight_perturbation_of,
)
from textadv.config.text import (
    AttackConfig,
    DataConfig,
    LinearScheduleConfig,
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
    ScheduleConfig,
    ThreatConfig,
    TrainingConfig,
)
from textadv.data import Rows, Splits, load_splits
from textadv.models import LoadedModel, Lora, load_classifier
from textadv.objectives import (
    Adversarial,
    Distributional,
    Free,
    FreeLB,
    Mart,
    Objective,
    PredictorConsistency,
    Proximal,
    Regularised,
    WeightPerturbation,
    alum,
    r3f,
    smart,
    trades,
    with_predictor,
)
from textadv.training.averaging import Averaging
from textadv.training.mixing import Constant, Linear, Mixing, Schedule, Steps
from textadv.training.overfitting import Guard, Probing
from textadv.values.host.phases import stage
from textadv.values.losses import DIVERGENCES, LOSSES
from textadv.values.spaces import Embeddings, Hidden, Pixels, Space

BALLS = {"l2": L2, "linf": Linf, "l1": L1}
FGSM_STEP = 1.0
FREE_STEP = 1.0
R_FGSM_STEP = 1.25
PGD_REACH = 2.5


@stage("reading the data")
def splits(config: DataConfig, seed: int) -> Splits:
    """The data set, mapped, checked and split."""
    columns = {
        "train": config.columns,
        "validation": config.validation_columns or config.columns,
        "test": config.test_columns or config.columns,
    }
    named = {split: names for split, names in columns.items() if names is not None}
    plain = config.model_dump(exclude={"max_length", "columns", "validation_columns", "test_columns"})
    return load_splits(seed=seed, columns=named or None, **plain)


@stage("loading the model")
def model(config: ModelConfig, labels: tuple[str, ...], seed: int) -> LoadedModel:
    """The classifier with its tokenizer, and its adapters where the configuration asks for them."""
    lora = None if config.lora is None else Lora(**config.lora.model_dump())
    return load_classifier(labels=labels, seed=seed, lora=lora, **config.model_dump(exclude={"lora"}))


def threat(config: ThreatConfig) -> ThreatModel:
    """What the adversary may do; a relative radius is still to be resolved."""
    space: Space = Embeddings()
    if config.space == "hidden":
        assert config.layer is not None
        space = Hidden(config.layer)
    if config.space == "pixels":
        space = Pixels()
    ball: Ball = BALLS[config.norm](config.radius, relative_radius=config.relative_radius, per=config.per)
    return ThreatModel(space, ball)


def goal(name: str) -> Goal:
    """A loss of the label, or a divergence from the clean prediction, by name."""
    return Untargeted(LOSSES[name]) if name in LOSSES else Diverge(DIVERGENCES[name])


def attack(config: AttackConfig, threat: ThreatModel, seed: int, default_goal: str = "cross_entropy") -> Attack:
    """The attack that `config` names, inside `threat`."""
    if config.steps_schedule is not None:
        return staged(config, lambda one: attack(one, threat, seed, default_goal))
    aim = goal(config.goal or default_goal)
    if config.name == "noise":
        return Noise(threat, aim, seed)
    if config.name == "virtual_adversarial":
        return VirtualAdversarial(threat, config.steps, goal=aim, seed=seed)
    return GradientAttack(
        threat=threat,
        ascent=_ascent(config),
        steps=config.steps,
        goal=aim,
        random_start=config.random_start,
        restarts=config.restarts,
        early_stop=config.early_stop,
        select=config.select,
        seed=seed,
        starts=config.starts,
    )


def staged(config: AttackConfig, make: Callable[[AttackConfig], Attack]) -> Attack:
    """What `make` makes of the attack, for each number of steps that its schedule names."""
    if config.steps_schedule is None:
        return make(config)
    fixed = {
        first: config.model_copy(update={"steps": steps, "steps_schedule": None})
        for first, steps in config.steps_schedule.items()
    }
    return Stages({first: make(one) for first, one in fixed.items()})


def _ascent(config: AttackConfig) -> Ascent:
    relative = config.relative_step_size
    if config.step_size is None and relative is None:
        relative = {"fgsm": FGSM_STEP, "r_fgsm": R_FGSM_STEP, "pgd": PGD_REACH / config.steps}[config.name]
    size = StepSize(config.step_size, relative)
    if config.ascent == "momentum":
        return Momentum(size, config.momentum)
    return Adam(size) if config.ascent == "adam" else FixedStep(size)


def objective(
    config: ObjectiveConfig,
    attack_config: AttackConfig,
    threat: ThreatModel,
    seed: int,
    mixing_config: MixingConfig | None = None,
) -> Objective | None:
    """What training minimises on attacked rows; None for plain fine-tuning.

    mixing_config: says whether each row has a radius of its own.
    """
    found = adversary(config, attack_config, threat, seed)
    adaptive = None if mixing_config is None else mixing_config.adaptive_radius
    if adaptive is not None:
        found = AdaptiveRadius(found, threat, adaptive.lowest, adaptive.highest, adaptive.reference)
    if config.name == "clean":
        return None
    # Made once: AWP makes the objective anew for each group of rows, and these share one teacher.
    make, gamma = partial(_of_attack, config, _proximal(config)), weight_perturbation_of(config)
    return WeightPerturbation(found, make, gamma) if gamma > 0 else make(found)


def adversary(config: ObjectiveConfig, attack_config: AttackConfig, threat: ThreatModel, seed: int) -> Attack:
    """The attack of training, with the objective's own goal and step where the configuration names none."""
    default = {"trades": "kl", "alum": "symmetric_kl", "smart": "symmetric_kl"}.get(config.name, "cross_entropy")
    if attack_config.name == "virtual_adversarial":
        default = "kl"
    if isinstance(config, FreeConfig) and attack_config.step_size is None and attack_config.relative_step_size is None:
        attack_config = attack_config.model_copy(update={"relative_step_size": FREE_STEP})
    if not isinstance(config, DistributionalConfig):
        return attack(attack_config, threat, seed, default)
    penalty = config.penalty

    def priced(one: AttackConfig) -> Attack:
        share, aim = one.relative_step_size or 1.0, goal(one.goal or default)
        return PenalisedAscent(threat, penalty, one.steps, share, aim, one.random_start, seed)

    return staged(attack_config, priced)


def _proximal(config: ObjectiveConfig) -> Proximal | None:
    if not isinstance(config, SmartConfig) or config.bregman == 0:
        return None
    return Proximal(config.bregman, config.momentum, config.early_momentum)


def _of_attack(config: ObjectiveConfig, proximal: Proximal | None, adversary: Attack) -> Objective:
    """The objective that `config` names, with this attack."""
    if isinstance(config, AdversarialConfig):
        return Adversarial(adversary)
    if isinstance(config, TradesConfig):
        return trades(adversary, config.beta, config.batch_norm)
    if isinstance(config, MartConfig):
        return Mart(adversary, config.weight, batch_norm=config.batch_norm)
    if isinstance(config, AlumConfig):
        return alum(adversary, config.weight)
    if isinstance(config, SmartConfig):
        return smart(adversary, config.weight, config.constant_targets, proximal)
    if isinstance(config, R3fConfig):
        return r3f(adversary, config.weight, config.constant_input)
    if isinstance(config, RegularisedConfig):
        return Regularised(adversary, config.multiplier)
    if isinstance(config, DistributionalConfig):
        return Distributional(adversary, config.penalty)
    if isinstance(config, PredictorConfig):
        return PredictorConsistency(adversary, config.weight)
    assert isinstance(adversary, GradientAttack)
    if isinstance(config, FreeConfig):
        return Free(adversary, config.replays, config.carry)
    assert isinstance(config, FreelbConfig)
    return FreeLB(
        adversary,
        config.start,
        config.clean_term,
        config.hold_dropout,
        special_tokens=config.special_tokens,
        largest_entry=config.linf_step == "largest_entry",
    )


def trained_with(
    config: ObjectiveConfig | None, model: nn.Module, rows: Rows, seed: int
) -> AbstractContextManager[object]:
    """The block in which a model is trained with this objective: what it needs beside the model is there inside.

    rows: those that it is trained on. Raises ValueError where the objective does not fit the model.
    """
    if isinstance(config, PredictorConfig):
        return with_predictor(model, rows.batch([0]), config.hidden, seed)
    return nullcontext()


def _schedule(config: ScheduleConfig | None, otherwise: float) -> Schedule:
    if config is None:
        return Constant(otherwise)
    if isinstance(config, LinearScheduleConfig):
        return Linear(config.start, config.end, config.steps)
    return Steps(dict(config.values))


def mixing(config: MixingConfig | ChatMixingConfig, seed: int) -> Mixing:
    """Which rows are attacked, and how strongly."""
    return Mixing(
        _schedule(config.ratio_schedule, config.ratio),
        config.policy,
        config.warmup_steps,
        _schedule(config.radius_schedule, 1.0),
        seed,
    )


def steps_per_epoch(rows: int, config: TrainingConfig) -> int:
    """Optimizer steps in one pass over the training rows; the last, smaller batch is left out."""
    return max(rows // config.batch_size, 1)


def optimizer_steps(rows: int, config: TrainingConfig) -> int:
    """Optimizer steps of a run over so many training rows."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return max(round(config.epochs * steps_per_epoch(rows, config)), 1)


def averaging(config: TrainingConfig, steps: int) -> Averaging | None:
    """Which weights of a run of so many optimizer steps are averaged, if any."""
    wanted = config.averaging
    if wanted is None:
        return None
    start = wanted.start if wanted.start >= 1 else wanted.start * steps
    return Averaging(wanted.kind, wanted.decay, max(round(start), 1), wanted.every, wanted.refresh_batches)


def guard(config: TrainingConfig, probe: Probing) -> Guard | None:
    """The guard against catastrophic overfitting, if any; `probe` measures a model on held-out rows."""
    wanted = config.guard
    if wanted is None:
        return None
    return Guard(wanted.every, probe, wanted.drop, wanted.action, wanted.rollbacks)
