"""What can be wrong with a run on a classifier beside its model and rows, found before anything expensive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from accelerate import Accelerator
from torch import nn

from textadv.attacks import GradientAttack, ThreatModel, reach_warning
from textadv.attacks.edits import TextEdits
from textadv.config.adversary import AttackConfig
from textadv.config.classifier import ClassifierRunSection
from textadv.config.training import length_problems
from textadv.config.types import ConfigError
from textadv.data import DataError, Rows
from textadv.objectives import hardening
from textadv.training.mixing import NO_ATTACK
from textadv.training.rehearsal import Rehearsal, rehearse
from textadv.training.sampling import OneStream, Sampler
from textadv.values.randomness import seeded_sample

SELECTION_DRAW, TEST_DRAW = 11, 12
FEW_QUERIES = 8


def selecting_positions(config: ClassifierRunSection, size: int) -> tuple[int, ...]:
    """Which of `size` validation rows choose the checkpoint: a seeded subset, in order."""
    return tuple(seeded_sample(range(size), config.selection.rows, config.seed, SELECTION_DRAW))


def reported_positions(
    config: ClassifierRunSection, size: int, tests: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> tuple[int, ...]:
    """Which of `size` test rows are attacked: a seeded subset, in order; of several files, `tests`, one of each."""
    wanted, seed = config.evaluation.rows, config.seed
    files = tests.values() if tests else (range(size),)
    return tuple(sorted(place for own in files for place in seeded_sample(own, wanted, seed, TEST_DRAW)))


def check_selection(labels: Sequence[int], positions: Sequence[int], names: Sequence[str]) -> None:
    """Raises DataError where the rows that choose the checkpoint are of one class: none would be better than constant.

    labels: of all validation rows, as class ids. positions: those that choose. names: of the classes.
    """
    if len({labels[position] for position in positions}) != 1:
        return
    remedy = "Raise selection.rows." if len(set(labels)) > 1 else "Name a split with every class in data.validation."
    raise DataError(
        f"data.validation: all {len(positions)} rows that choose the checkpoint are of one class, "
        f"{names[labels[positions[0]]]!r}, so that no model could be told from that one answer. {remedy}"
    )


def check_adversary(config: ClassifierRunSection) -> None:
    """Builds every attack and the objective once: what they refuse is the configuration's fault, a ConfigError."""
    threat = config.threat.make()
    lines = []
    named = {"attack": config.attack, "selection.attack": config.selection.attack}
    if config.training.guard is not None:
        named["training.guard.attack"] = config.training.guard.attack
    for key, attack in named.items():
        if not attack.perturbs:
            continue
        try:
            attack.make(threat, config.seed)
        except ValueError as error:
            lines.append(f"{key}: {error}")
    try:
        check_measuring(config)
    except ConfigError as error:
        lines += error.lines
    if lines:
        raise ConfigError(lines)
    if not config.attack.perturbs:
        return
    try:
        config.objective.make(config.attack, threat, config.seed, config.mixing)
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def check_measuring(config: ClassifierRunSection, classes: int | None = None) -> None:
    """Builds every attack of the evaluation, for so many classes where these are known; raises ConfigError."""
    threat, wanted = config.threat.make(), config.evaluation
    wanted.panel(threat, config.seed, classes)
    if wanted.detection is not None:
        wanted.detection.attacked(threat, config.seed)
    if wanted.minimum_radius is not None:
        wanted.minimum_radius.make(threat, config.seed, classes)


def check_training(config: ClassifierRunSection, rows: int, processes: int) -> None:
    """ConfigError unless there are rows for a batch, the run is as long as `training` supposes, and each optimizer step
    can be shared out as `mixing` asks and at least one of them attacks a row."""
    size = config.training.batch_size
    if rows < size:
        raise ConfigError([f"training.batch_size must be at most the {rows} training rows, got {size}."])
    steps = config.training.optimizer_steps(rows)
    lines = length_problems(config.training, steps)
    if lines:
        raise ConfigError(lines)
    if config.objective.name == "clean":
        return
    mixing = config.mixing.make(config.seed)
    try:
        attacked = [mixing.count(step, size, processes) for step in range(steps)]
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    if not any(attacked):
        raise ConfigError(
            [
                f"mixing attacks none of the rows of these {steps} optimizer steps (mixing.ratio, its schedule and "
                f"mixing.warmup_steps: {config.mixing.warmup_steps}), so objective.name: {config.objective.name} would "
                "train a plain model under its name. Lower mixing.warmup_steps, raise the ratio or the number of "
                "steps, or set objective.name: clean."
            ]
        )


def reach_warnings(config: ClassifierRunSection, threat: ThreatModel) -> Iterable[str]:
    """A sentence where the adversary of training, with the fewest steps of its schedule, cannot walk the radius."""
    attack, schedule = config.attack, config.attack.steps_schedule
    if schedule is not None:
        attack = attack.model_copy(update={"steps": min(schedule.values()), "steps_schedule": None})
    if config.objective.name != "clean" and attack.perturbs:
        adversary = attack.make(threat, config.seed)
        short = reach_warning(adversary) if isinstance(adversary, GradientAttack) else None
        if short is not None:
            yield short if schedule is None else f"{short} These are the fewest steps of attack.steps_schedule."


def lighter(attack: AttackConfig) -> AttackConfig:
    """The attack with one step."""
    return attack.model_copy(update={"steps": 1, "restarts": 1, "steps_schedule": None})


def rehearse_classifier(
    config: ClassifierRunSection,
    accelerator: Accelerator,
    model: nn.Module,
    train: Rows,
    threat: ThreatModel,
    edits: TextEdits | None = None,
) -> None:
    """Tries the smallest forwards and backwards that the trainings of this run make, see `rehearse`.

    edits: of the texts of attacked rows.
    """
    size, seed, training = config.training.batch_size, config.seed, config.training
    briefer = None if edits is None else edits.searching(FEW_QUERIES)
    objective = config.objective.make(lighter(config.attack), threat, seed, config.mixing, briefer)
    mixing = NO_ATTACK if objective is None else config.mixing.make(seed)
    samplers: list[Sampler] = [OneStream(train, mixing, size, seed, config.objective.batch_stays)]
    samplers += [OneStream(train, NO_ATTACK, size, seed)] if config.baselines else []
    run = Rehearsal(
        accelerator,
        config.model.name,
        hardening(objective),
        samplers,
        training.optimizer_steps(len(train)),
        training.micro_batch_size,
        seed,
    )
    with config.objective.trained_with(model, train, seed):
        rehearse(model, run)
