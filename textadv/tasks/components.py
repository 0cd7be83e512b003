"""From configuration to objects: the only place where a config becomes attacks, objectives and data."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import nn

from textadv.attacks import Attack, GradientAttack, PenalisedAscent, ThreatModel
from textadv.config.adversary import goal_of
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
    MixingConfig,
    ModelConfig,
    ObjectiveConfig,
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
from textadv.training.overfitting import Guard, Probing
from textadv.values.host.phases import stage

FREE_STEP = 1.0


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
        found = adaptive.make(found, threat)
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
        return attack_config.make(threat, seed, default_goal=default)
    penalty = config.penalty

    def priced(one: AttackConfig) -> Attack:
        share, aim = one.relative_step_size or 1.0, goal_of(one.goal or default)
        return PenalisedAscent(threat, penalty, one.steps, share, aim, one.random_start, seed)

    return attack_config.staged(priced)


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
