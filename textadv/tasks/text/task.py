"""Runs on text classifiers, ready to go: data read, tokenised and tried on the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from textadv.attacks import ThreatModel
from textadv.attacks.edits import TextEdits
from textadv.config.classifier import ClassifierRunSection
from textadv.config.edit_sources import EditSources
from textadv.config.types import ConfigError
from textadv.data import (
    EncodedRows,
    Examples,
    Rows,
    Splits,
    encode,
    length_warning,
    overlap,
    spelled_warning,
    unknown_warning,
)
from textadv.models import (
    LoadedModel,
    device_of,
    logits_warning,
    require_movable,
    require_readable,
    space_module,
)
from textadv.models.strangers import Texts
from textadv.tasks.checks import (
    check_adversary,
    check_measuring,
    check_selection,
    check_training,
    reach_warnings,
    rehearse_classifier,
    reported_positions,
    selecting_positions,
)
from textadv.tasks.classifier import THREAT_ROWS, Classifier
from textadv.tasks.detecting import check_names, check_recall, detector_of
from textadv.tasks.protocol import Run
from textadv.tasks.text.config import RunConfig
from textadv.tasks.text.editing import Editing
from textadv.tasks.text.mining import Mining
from textadv.tasks.text.surrogates import text_surrogates
from textadv.values.descriptions import INITIAL, model_hashes, surrogate_hashes
from textadv.values.digests import digest
from textadv.values.host.phases import stage
from textadv.values.plurals import some

LOOKED_AT = 32
SPLITS = ("train", "validation", "test")


def ready(config: RunConfig, run: Run) -> Classifier:
    """See `registry.ready`. Rows of every kind go through the model, a forward of at most nine rows of each split; with
    `run.training` less than two micro-batches through loss and backward."""
    if config.threat.space == "pixels":
        raise ConfigError(
            ["threat.space: pixels needs images and data holds texts. Set threat.space: embeddings, or task: images."]
        )
    check_adversary(config)
    splits = config.data.make(config.seed)
    check_measuring(config, len(splits.labels))
    sources = EditSources(splits.train, splits.labels)
    attacks = config.evaluation.edit_attacks(config.seed, sources)
    mining = Mining.of(config, splits, sources, run)
    check_names(config, splits.labels)
    config.data.reading(splits.labels)
    loaded = config.model.make(splits.labels, config.seed)
    run.require_room(loaded.model)
    train, validation, test = encoded(splits, loaded, config)
    benign = _benign(splits, loaded, config)
    check_training(config, len(train), run.accelerator.num_processes)
    doubts = read_texts(config, loaded, (train, validation, test), config.data.max_length)
    surrogates = text_surrogates(config, loaded, splits, test)
    threat = resolved_threat(config, loaded, train)
    edits = editing(config, loaded, sources, run) if run.training else None
    tried = Editing(attacks, sources, splits.test, splits.labels)
    tried.rehearse(config, loaded)
    mining.rehearse(loaded, run, len(train))
    detector = detector_of(config, splits.labels, validation, benign, threat)
    selection = selecting_positions(config, len(validation))
    if detector is not None:
        check_recall(config, validation.labels, selection, detector.positive)
    task = Classifier(
        config=config,
        run=run,
        splits=splits,
        train=train,
        validation=validation,
        test=test,
        selection=selection,
        tested=reported_positions(config, len(test), splits.tests),
        threat=threat,
        hashes=_hashes(splits, loaded)
        | surrogate_hashes({name: found.model for name, found in surrogates.items()})
        | ({} if edits is None else edits.hashes)
        | mining.hashes,
        new_weights=loaded.initialised,
        warnings=(*run.notes, *_warnings(config, splits, threat, train, loaded), *doubts, *sources.notes),
        load=partial(config.model.make, splits.labels, config.seed),
        opened=partial(_opened, config, splits),
        beside=partial(_beside, config, splits, tried),
        surrogates=surrogates,
        edits=edits,
        beyond=tried.measured,
        tests=splits.tests,
        benign=benign,
        mining=partial(mining.planned, loaded.tokenizer, detector),
    )
    if run.training:
        check_selection(validation.labels, task.selection, splits.labels)
        rehearse_classifier(config, run.accelerator, loaded.model, train, threat, edits)
    return task


def _opened(config: RunConfig, splits: Splits, loaded: LoadedModel, positions: Sequence[int]) -> Texts:
    """These validation rows, as others give them to a model."""
    size, trusted = config.training.micro_batch_size, config.model.trust_remote_code
    windows = config.data.reading(splits.labels)
    rows = splits.validation.select(positions)
    return Texts(loaded, rows, config.data.max_length, size, trusted, windows=windows)


@stage("making ready")
def _beside(config: RunConfig, splits: Splits, editing: Editing, task: Classifier, name: str) -> Classifier:
    """The task for another model: its own tokens and hashes, the same rows and the same radius.

    Raises ConfigError, DataError or ModelError as `ready` does.
    """
    config = config.of_model(name)
    loaded = config.model.make(splits.labels, config.seed)
    train, validation, test = encoded(splits, loaded, config)
    doubts = read_texts(config, loaded, (train, validation, test), config.data.max_length)
    surrogates = text_surrogates(config, loaded, splits, test, task.surrogates)
    doubts = tuple(line for line in (logits_doubt(loaded, train), *doubts) if line is not None)
    space_module(loaded.model, task.threat.space)
    editing.rehearse(config, loaded)
    return replace(
        task,
        config=config,
        train=train,
        validation=validation,
        test=test,
        hashes=_hashes(splits, loaded) | surrogate_hashes({name: found.model for name, found in surrogates.items()}),
        new_weights=loaded.initialised,
        load=partial(config.model.make, splits.labels, config.seed),
        opened=partial(_opened, config, splits),
        surrogates=surrogates,
        benign=_benign(splits, loaded, config),
        warnings=(*task.warnings, *loaded.notes, *(f"{name}: {doubt}" for doubt in doubts)),
    )


def read_texts(
    config: ClassifierRunSection, loaded: LoadedModel, parts: Sequence[EncodedRows], max_length: int
) -> tuple[str, ...]:
    """Sends texts of every kind through the model; sentences about what a reader must know of them.

    parts: train, validation and test rows. max_length: data.max_length. Raises ModelError where the model cannot read
    one, or cannot be attacked.
    """
    named = dict(zip(SPLITS, parts, strict=True))
    doubts = (
        require_readable(config.model.name, loaded, named, max_length),
        spelled_warning(named, loaded.tokenizer),
        unknown_warning(named, loaded.tokenizer),
        length_warning(max_length, named, loaded.tokenizer),
    )
    require_movable(config.model.name, loaded.model, named, config.threat.make().space)
    return tuple(doubt for doubt in doubts if doubt is not None)


def encoded(splits: Splits, loaded: LoadedModel, config: RunConfig) -> tuple[EncodedRows, EncodedRows, EncodedRows]:
    """The train, validation and test rows in the tokens of `loaded`."""
    windows = config.data.reading(splits.labels)
    found = [encode(part, loaded.tokenizer, config.data.max_length, windows=windows) for _, part in _named(splits)[:3]]
    return found[0], found[1], found[2]


def _benign(splits: Splits, loaded: LoadedModel, config: RunConfig) -> EncodedRows | None:
    """The rows of data.benign in the tokens of `loaded`."""
    if splits.benign is None:
        return None
    windows = config.data.reading(splits.labels)
    return encode(splits.benign, loaded.tokenizer, config.data.max_length, windows=windows)


def resolved_threat(config: ClassifierRunSection, loaded: LoadedModel, train: Rows) -> ThreatModel:
    """The threat with an absolute radius; one relative to hidden states is measured on the first training rows.

    Raises ModelError where the model has no such layer.
    """
    threat = config.threat.make()
    space_module(loaded.model, threat.space)
    sample = train.batch(range(min(len(train), THREAT_ROWS))).to(device_of(loaded.model))
    return threat.resolved(loaded.model, sample)


def editing(config: RunConfig, loaded: LoadedModel, sources: EditSources, run: Run) -> TextEdits | None:
    """What edits the texts of attacked rows; None where nothing does. Raises ConfigError or ModelError."""
    share, length = config.mixing.discrete, config.data.max_length
    edits = config.attack.editing(loaded.tokenizer, length, share, config.seed, sources)
    for model in sources.models:
        model.to(run.accelerator.device)
    return edits


def logits_doubt(loaded: LoadedModel, rows: Rows) -> str | None:
    """See `logits_warning`; on the first rows."""
    sample = rows.batch(range(min(len(rows), LOOKED_AT))).to(device_of(loaded.model))
    return logits_warning(loaded.model, sample)


def hashes_of(parts: Mapping[str, object], loaded: LoadedModel) -> dict[str, str]:
    """SHA-256 of each split's rows, of the tokenizer and of the weights and settings that the run starts from.

    parts: by the split's name what its rows are, as JSON can hold it.
    """
    found = {f"data.{name}": digest([json.dumps(part).encode()]) for name, part in parts.items()}
    found["tokenizer"] = digest([json.dumps(sorted(loaded.tokenizer.get_vocab().items())).encode()])
    return found | model_hashes(INITIAL, loaded.model)


def _named(splits: Splits) -> list[tuple[str, Examples]]:
    parts = [("train", splits.train), ("validation", splits.validation), ("test", splits.test)]
    return parts if splits.benign is None else [*parts, ("benign", splits.benign)]


def _hashes(splits: Splits, loaded: LoadedModel) -> dict[str, str]:
    parts = {name: [part.texts, part.pairs, part.labels, part.ids] for name, part in _named(splits)}
    return hashes_of(parts, loaded)


def _warnings(
    config: RunConfig, splits: Splits, threat: ThreatModel, train: EncodedRows, loaded: LoadedModel
) -> Iterable[str]:
    """What a reader must know before trusting a number. Raises ModelError where the model returns probabilities."""
    yield from splits.notes
    yield from reach_warnings(config, threat)
    yield from loaded.notes
    doubt = logits_doubt(loaded, train)
    if doubt is not None:
        yield doubt
    for name, part in _named(splits)[1:]:
        shared = overlap(splits.train, part)
        if shared:
            yield f"data: {shared} of {len(part)} {name} rows have a text that also stands in train."
    if train.uneditable:
        yield (
            f"data: {some(train.uneditable, 'training row has', 'training rows have')} no token that an attack may "
            "touch."
        )
