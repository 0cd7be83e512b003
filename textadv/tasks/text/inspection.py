"""A look at a text classifier: the tokens of rows without and under an attack, or texts before and after edits."""

from __future__ import annotations

from collections.abc import Iterator

from textadv.measuring import inspect_rows
from textadv.tasks.checks import reported_positions
from textadv.tasks.classifier import calibrating, shown_attack
from textadv.tasks.protocol import Look
from textadv.tasks.text.config import RunConfig
from textadv.tasks.text.editing import edited
from textadv.tasks.text.surrogates import text_surrogates
from textadv.tasks.text.task import encoded, read_texts, resolved_threat


def look(config: RunConfig, wanted: Look) -> Iterator[str]:
    """See `registry.look`."""
    config = config.of_model(wanted.model.path)
    if wanted.attack is not None and wanted.attack not in config.evaluation.attacks:
        yield from edited(config, wanted)
        return
    splits = config.data.make(config.seed)
    loaded = config.model.make(splits.labels, config.seed)
    train, validation, test = encoded(splits, loaded, config)
    for warning in read_texts(config, loaded, (train, validation, test), config.data.max_length):
        yield f"warning: {warning}"
    threat = resolved_threat(config, loaded, train)
    surrogates = text_surrogates(config, loaded, splits, test)
    modules = {key: found.model for key, found in surrogates.items()}
    attack = shown_attack(config, wanted.attack, threat, len(splits.labels), modules)
    yield f"{wanted.model.line}\nthreat: {threat}\nattack: {attack}"
    yield "each token: (how far it moved, in radii), -> the token it is now nearest to, where that is another\n"

    def words(ids: list[int]) -> list[str]:
        return [str(loaded.tokenizer.decode([token])).strip() or "_" for token in ids]

    temperature, doubts = calibrating(config, loaded.model, validation, splits.labels)
    yield from doubts
    found = inspect_rows(
        loaded.model,
        test,
        reported_positions(config, len(test), splits.tests)[: wanted.rows],
        attack,
        threat,
        words,
        splits.labels,
        temperature=temperature,
    )
    for row in found:
        yield f"{row}\n"
    right = sum(row.clean[0] == row.label for row in found)
    yield f"{sum(row.broken for row in found)} of {right} rows that were right are broken ({len(found)} rows shown)"
