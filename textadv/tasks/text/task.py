"""One run, ready to go: everything that can be wrong with its input is found here, before anything expensive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator

from textadv.attacks import GradientAttack, ThreatModel, reach_warning
from textadv.config.tasks import ClassifierRunConfig
from textadv.config.text import ConfigError, RunConfig
from textadv.config.training import length_problems
from textadv.data import DataError, EncodedRows, Examples, ImageSplits, Rows, Splits, encode, overlap
from textadv.models import LoadedModel, LoadedVision, device_of, logits_warning, space_module
from textadv.models.split_norm import Which
from textadv.tasks import attacks as build_attacks
from textadv.tasks import components as build
from textadv.tasks import surrogates as build_surrogates
from textadv.tasks.launch import launch_warnings, launched, say
from textadv.tasks.output import claim, claiming, free_output, require_room
from textadv.tasks.trial import read_texts, rehearse_classifier
from textadv.values.digests import digest, surrogate_hashes, weights_hash
from textadv.values.host.phases import stage
from textadv.values.randomness import permutation

SELECTION_DRAW, TEST_DRAW, THREAT_ROWS, LOOKED_AT = 11, 12, 256, 32


@dataclass(frozen=True)
class Task:
    """What every stage of a run shares.

    train, validation, test: tokenised texts, or images of the model's size. selection: positions in `validation` that
    choose the checkpoint. tested: positions in `test` that are reported. threat: with an absolute radius. load_model:
    gives the untrained model, the same weights each time. warnings: sentences for the report. split_norm: which of two
    batch norms is measured and kept where attacked rows train their own; None: there is one. surrogates: the models
    that attacks of the evaluation are transferred from, by name.
    """

    config: ClassifierRunConfig
    accelerator: Accelerator
    output: Path
    splits: Splits | ImageSplits
    train: Rows
    validation: Rows
    test: Rows
    selection: tuple[int, ...]
    tested: tuple[int, ...]
    threat: ThreatModel
    hashes: dict[str, str]
    new_weights: tuple[str, ...]
    load_model: Callable[[], LoadedModel | LoadedVision]
    warnings: tuple[str, ...]
    split_norm: Which | None = None
    surrogates: Mapping[str, LoadedModel | LoadedVision] = field(default_factory=dict)

    def rows_text(self) -> str:
        """How many rows do what, for the screen."""
        selecting = f"{len(self.selection)} of {len(self.validation)} validation rows to choose the checkpoint"
        return f"{len(self.train)} to train on, {selecting}, {len(self.tested)} of {len(self.test)} test rows to report"

    def say(self, line: str) -> None:
        """Prints a line on the main process."""
        say(self.accelerator, line)


@stage("making ready")
def prepare(config: RunConfig, *, training: bool = True) -> Task:
    """Reads, checks and tokenises the data, loads the model once, resolves the radius, and claims the output folder.

    Rows of every kind go through the model, and with `training` the smallest batches of training through loss and
    backward: a forward of at most nine rows of each split, and less than two micro-batches.

    training: whether the model will be trained. Raises ConfigError, DataError or ModelError, each saying what to
    change; nothing but empty folders is then left behind.
    """
    if config.threat.space == "pixels":
        raise ConfigError(
            ["threat.space: pixels needs images and data holds texts. Set threat.space: embeddings, or task: images."]
        )
    config, accelerator = launched(config)
    with claiming(accelerator, config, training=training) as config:
        task = _prepared(config, accelerator, training)
    claim(config, accelerator, task.output, task.hashes)
    return task


def _prepared(config: RunConfig, accelerator: Accelerator, training: bool) -> Task:
    """See `prepare`; what one process does by itself."""
    output = free_output(config, training=training)
    check_adversary(config)
    splits = build.splits(config.data, config.seed)
    check_measuring(config, len(splits.labels))
    loaded = build.model(config.model, splits.labels, config.seed)
    require_room(config, output, loaded.model, training=training)
    train, validation, test = encoded(splits, loaded, config)
    check_training(config, len(train), accelerator.num_processes)
    doubts = read_texts(config, loaded, (train, validation, test))
    surrogates = build_surrogates.text_surrogates(config, loaded, splits, test)
    threat = resolved_threat(config, loaded, train)
    task = Task(
        config=config,
        accelerator=accelerator,
        output=output,
        splits=splits,
        train=train,
        validation=validation,
        test=test,
        selection=selecting_positions(config, len(validation)),
        tested=reported_positions(config, len(test)),
        threat=threat,
        hashes=_hashes(splits, loaded) | surrogate_hashes({name: found.model for name, found in surrogates.items()}),
        new_weights=loaded.initialised,
        load_model=lambda: build.model(config.model, splits.labels, config.seed),
        surrogates=surrogates,
        warnings=(
            *launch_warnings(config, accelerator, training),
            *_warnings(config, splits, threat, train, loaded),
            *doubts,
        ),
    )
    if training:
        check_selection(validation.labels, task.selection, splits.labels)
        rehearse_classifier(config, accelerator, loaded.model, train, threat)
    return task


@stage("making ready")
def with_model(task: Task, name: str) -> Task:
    """The task for another model: its own tokens and hashes, the same rows and the same radius.

    Raises ConfigError, DataError or ModelError as `prepare` does.
    """
    config = task.config.model_copy(update={"model": task.config.model.model_copy(update={"name": name})})
    splits = task.splits
    assert isinstance(config, RunConfig) and isinstance(splits, Splits)
    loaded = build.model(config.model, splits.labels, config.seed)
    train, validation, test = encoded(splits, loaded, config)
    doubts = read_texts(config, loaded, (train, validation, test))
    surrogates = build_surrogates.text_surrogates(config, loaded, splits, test, task.surrogates)
    doubts = tuple(line for line in (_logits_doubt(loaded, train), *doubts) if line is not None)
    space_module(loaded.model, task.threat.space)
    return replace(
        task,
        config=config,
        train=train,
        validation=validation,
        test=test,
        hashes=_hashes(splits, loaded) | surrogate_hashes({name: found.model for name, found in surrogates.items()}),
        new_weights=loaded.initialised,
        load_model=lambda: build.model(config.model, splits.labels, config.seed),
        surrogates=surrogates,
        warnings=(*task.warnings, *loaded.notes, *(f"{name}: {doubt}" for doubt in doubts)),
    )


def encoded(splits: Splits, loaded: LoadedModel, config: RunConfig) -> tuple[EncodedRows, EncodedRows, EncodedRows]:
    """The train, validation and test rows in the tokens of `loaded`."""
    parts = [encode(part, loaded.tokenizer, config.data.max_length) for _, part in _named(splits)]
    return parts[0], parts[1], parts[2]


def resolved_threat(config: RunConfig, loaded: LoadedModel, train: EncodedRows) -> ThreatModel:
    """The threat with an absolute radius; one relative to hidden states is measured on the first training rows.

    Raises ModelError where the model has no such layer.
    """
    threat = build.threat(config.threat)
    space_module(loaded.model, threat.space)
    sample = train.batch(range(min(len(train), THREAT_ROWS))).to(device_of(loaded.model))
    return threat.resolved(loaded.model, sample)


def selecting_positions(config: ClassifierRunConfig, size: int) -> tuple[int, ...]:
    """Which of `size` validation rows choose the checkpoint: a seeded subset, in order."""
    return _drawn(config, SELECTION_DRAW, size, config.selection.rows)


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


def reported_positions(config: ClassifierRunConfig, size: int) -> tuple[int, ...]:
    """Which of `size` test rows are attacked: a seeded subset, in order."""
    return _drawn(config, TEST_DRAW, size, config.evaluation.rows)


def check_adversary(config: ClassifierRunConfig) -> None:
    """Builds every attack and the objective once: what they refuse is the configuration's fault, a ConfigError."""
    threat = build.threat(config.threat)
    lines = []
    named = {"attack": config.attack, "selection.attack": config.selection.attack}
    if config.training.guard is not None:
        named["training.guard.attack"] = config.training.guard.attack
    for key, attack in named.items():
        try:
            build.attack(attack, threat, config.seed)
        except ValueError as error:
            lines.append(f"{key}: {error}")
    try:
        check_measuring(config)
    except ConfigError as error:
        lines += error.lines
    if lines:
        raise ConfigError(lines)
    try:
        build.objective(config.objective, config.attack, threat, config.seed, config.mixing)
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def check_measuring(config: ClassifierRunConfig, classes: int | None = None) -> None:
    """Builds every attack of the evaluation, for so many classes where these are known; raises ConfigError."""
    threat, wanted = build.threat(config.threat), config.evaluation
    build_attacks.panel(wanted.attacks, threat, config.seed, classes)
    build_attacks.radius_search(wanted.minimum_radius, threat, config.seed, classes)


def check_training(config: ClassifierRunConfig, rows: int, processes: int) -> None:
    """ConfigError unless there are rows for a batch, the run is as long as `training` supposes, and each optimizer step
    can be shared out as `mixing` asks and at least one of them attacks a row."""
    size = config.training.batch_size
    if rows < size:
        raise ConfigError([f"training.batch_size must be at most the {rows} training rows, got {size}."])
    steps = build.optimizer_steps(rows, config.training)
    lines = length_problems(config.training, steps)
    if lines:
        raise ConfigError(lines)
    if config.objective.name == "clean":
        return
    mixing = build.mixing(config.mixing, config.seed)
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


def _logits_doubt(loaded: LoadedModel, rows: EncodedRows) -> str | None:
    """See `logits_warning`; on the first rows."""
    sample = rows.batch(range(min(len(rows), LOOKED_AT))).to(device_of(loaded.model))
    return logits_warning(loaded.model, sample)


def _drawn(config: ClassifierRunConfig, draw: int, size: int, wanted: int | None) -> tuple[int, ...]:
    """Positions of a seeded subset, in order."""
    return tuple(sorted(permutation(config.seed, draw, size=size)[:wanted]))


def _hashes(splits: Splits, loaded: LoadedModel) -> dict[str, str]:
    """SHA-256 of each split's rows, of the tokenizer and of the weights that the run starts from."""
    found = {f"data.{name}": digest([_rows_text(part)]) for name, part in _named(splits)}
    found["tokenizer"] = digest([json.dumps(sorted(loaded.tokenizer.get_vocab().items())).encode()])
    found["weights.initial"] = weights_hash(loaded.model)
    return found


def _named(splits: Splits) -> list[tuple[str, Examples]]:
    return [("train", splits.train), ("validation", splits.validation), ("test", splits.test)]


def _rows_text(part: Examples) -> bytes:
    return json.dumps([part.texts, part.pairs, part.labels, part.ids]).encode()


def reach_warnings(config: ClassifierRunConfig, threat: ThreatModel) -> Iterable[str]:
    """A sentence where the adversary of training, with the fewest steps of its schedule, cannot walk the radius."""
    attack, schedule = config.attack, config.attack.steps_schedule
    if schedule is not None:
        attack = attack.model_copy(update={"steps": min(schedule.values()), "steps_schedule": None})
    if config.objective.name != "clean":
        adversary = build.attack(attack, threat, config.seed)
        short = reach_warning(adversary) if isinstance(adversary, GradientAttack) else None
        if short is not None:
            yield short if schedule is None else f"{short} These are the fewest steps of attack.steps_schedule."


def _warnings(
    config: RunConfig, splits: Splits, threat: ThreatModel, train: EncodedRows, loaded: LoadedModel
) -> Iterable[str]:
    """What a reader must know before trusting a number. Raises ModelError where the model returns probabilities."""
    yield from splits.notes
    yield from reach_warnings(config, threat)
    yield from loaded.notes
    doubt = _logits_doubt(loaded, train)
    if doubt is not None:
        yield doubt
    for name, part in _named(splits)[1:]:
        shared = overlap(splits.train, part)
        if shared:
            yield f"data: {shared} of {len(part)} {name} rows have a text that also stands in train."
    if train.uneditable:
        yield f"data: {train.uneditable} training rows have no token that an attack may touch."
