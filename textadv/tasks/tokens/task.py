"""Runs on token classifiers, ready to go: data read, tokenised, aligned with words and tried on the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from textadv.attacks import ThreatModel
from textadv.models import LoadedModel, space_module
from textadv.models.heads import OF_TOKENS
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
from textadv.tasks.classifier import Classifier
from textadv.tasks.protocol import Run
from textadv.tasks.text.task import hashes_of, logits_doubt, read_texts, resolved_threat
from textadv.tasks.tokens.config import TokenRunConfig
from textadv.tasks.tokens.data import shared_rows
from textadv.tasks.tokens.measuring import of_words
from textadv.tasks.tokens.rows import TaggedRows, alignment_notes, encode_tagged
from textadv.tasks.tokens.tagged import TaggedSplits
from textadv.values.decisions import in_line
from textadv.values.host.phases import stage
from textadv.values.plurals import some


class Parts(NamedTuple):
    """The splits in a model's tokens."""

    train: TaggedRows
    validation: TaggedRows
    test: TaggedRows


def ready(config: TokenRunConfig, run: Run) -> Classifier:
    """See `registry.ready`. Rows of every kind go through the model, as those of a text classifier do."""
    check_adversary(config)
    splits = config.data.make(config.seed)
    check_measuring(config, len(splits.labels))
    loaded = config.model.make(splits.labels, config.seed)
    run.require_room(loaded.model)
    parts = encoded(splits, loaded, config)
    check_training(config, len(parts.train), run.accelerator.num_processes)
    doubts = read_rows(config, loaded, parts)
    threat = resolved_threat(config, loaded, parts.train)
    task = Classifier(
        config=config,
        run=run,
        splits=splits,
        **parts._asdict(),
        selection=selecting_positions(config, len(parts.validation)),
        tested=reported_positions(config, len(parts.test)),
        threat=threat,
        hashes=_hashes(splits, loaded),
        new_weights=loaded.initialised,
        warnings=(*run.notes, *_warnings(config, splits, threat, parts, loaded), *doubts),
        load=partial(config.model.make, splits.labels, config.seed),
        opened=partial(_opened, config, splits),
        beside=_beside,
        told=partial(of_words, splits.labels, splits.scheme),
    )
    if run.training:
        chosen = [parts.validation.labels[position] for position in task.selection]
        classes = in_line(chosen)
        check_selection(classes, range(len(classes)), splits.labels)
        rehearse_classifier(config, run.accelerator, loaded.model, parts.train, threat)
    return task


def encoded(splits: TaggedSplits, loaded: LoadedModel, config: TokenRunConfig) -> Parts:
    """The splits in the tokens of `loaded`."""
    longest = config.data.max_length
    return Parts(*(encode_tagged(part, loaded.tokenizer, longest) for part in splits.named.values()))


def read_rows(config: TokenRunConfig, loaded: LoadedModel, parts: Parts) -> tuple[str, ...]:
    """See `read_texts`."""
    return read_texts(config, loaded, [part.texts for part in parts], config.data.max_length)


def _opened(config: TokenRunConfig, splits: TaggedSplits, loaded: LoadedModel, positions: Sequence[int]) -> Texts:
    """These validation rows, as others give them to a model."""
    size, trusted = config.training.micro_batch_size, config.model.trust_remote_code
    texts = splits.validation.texts.select(positions)
    return Texts(loaded, texts, config.data.max_length, size, trusted, OF_TOKENS)


@stage("making ready")
def _beside(task: Classifier, name: str) -> Classifier:
    """The task for another model: its own tokens and hashes, the same rows and the same radius.

    Raises ConfigError, DataError or ModelError as `ready` does.
    """
    config, splits = task.config.of_model(name), task.splits
    assert isinstance(config, TokenRunConfig) and isinstance(splits, TaggedSplits)
    loaded = config.model.make(splits.labels, config.seed)
    parts = encoded(splits, loaded, config)
    doubts = [*read_rows(config, loaded, parts), *alignment_notes(parts._asdict(), config.data.max_length)]
    doubt = logits_doubt(loaded, parts.train)
    doubts += [] if doubt is None else [doubt]
    space_module(loaded.model, task.threat.space)
    return replace(
        task,
        config=config,
        **parts._asdict(),
        hashes=_hashes(splits, loaded),
        new_weights=loaded.initialised,
        load=partial(config.model.make, splits.labels, config.seed),
        opened=partial(_opened, config, splits),
        warnings=(*task.warnings, *loaded.notes, *(f"{name}: {doubt}" for doubt in doubts)),
    )


def _hashes(splits: TaggedSplits, loaded: LoadedModel) -> Mapping[str, str]:
    parts = {name: [part.words, part.tags, part.ids] for name, part in splits.named.items()}
    return hashes_of(parts, loaded)


def _warnings(
    config: TokenRunConfig, splits: TaggedSplits, threat: ThreatModel, parts: Parts, loaded: LoadedModel
) -> Iterator[str]:
    """What a reader must know before trusting a number. Raises ModelError where the model returns probabilities."""
    yield from splits.notes
    yield from reach_warnings(config, threat)
    yield from loaded.notes
    doubt = logits_doubt(loaded, parts.train)
    if doubt is not None:
        yield doubt
    for name in ("validation", "test"):
        part = splits.named[name]
        shared = shared_rows(splits.train, part)
        if shared:
            yield f"data: {shared} of {len(part)} {name} rows have the words of a train row."
    yield from alignment_notes(parts._asdict(), config.data.max_length)
    if parts.train.texts.uneditable:
        yield (
            f"data: {some(parts.train.texts.uneditable, 'training row has', 'training rows have')} no token that an "
            "attack may touch."
        )
