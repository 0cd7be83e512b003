"""A look at a token classifier: the words of rows with their tags, without and under an attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from textadv.measuring.accuracy.inspection import lengths
from textadv.models import bare, device_of, evaluating, forward, tempered
from textadv.tasks.checks import reported_positions
from textadv.tasks.classifier import calibrating, shown_attack
from textadv.tasks.protocol import Look
from textadv.tasks.text.task import resolved_threat
from textadv.tasks.tokens.config import TokenRunConfig
from textadv.tasks.tokens.spans import OUTSIDE
from textadv.tasks.tokens.task import encoded, read_rows
from textadv.values.batch import IGNORED
from textadv.values.host.printable import printable


def look(config: TokenRunConfig, wanted: Look) -> Iterator[str]:
    """See `registry.look`."""
    config = config.of_model(wanted.model.path)
    splits = config.data.make(config.seed)
    loaded = config.model.make(splits.labels, config.seed)
    parts = encoded(splits, loaded, config)
    for warning in read_rows(config, loaded, parts):
        yield f"warning: {warning}"
    threat = resolved_threat(config, loaded, parts.train)
    attack = shown_attack(config, wanted.attack, threat, len(splits.labels), {})
    yield f"{wanted.model.line}\nthreat: {threat}\nattack: {attack}"
    yield "each word: its tag, -> that under attack, where it is another, (how far its first token moved, in radii)\n"
    temperature, doubts = calibrating(config, loaded.model, parts.validation, splits.labels)
    yield from doubts
    positions = reported_positions(config, len(parts.test))[: wanted.rows]
    batch = parts.test.batch(positions).to(device_of(loaded.model))
    with evaluating(loaded.model), tempered(loaded.model, temperature):
        attacked = attack(loaded.model, batch)
        with torch.no_grad():
            answers = [forward(bare(loaded.model), each).argmax(dim=-1) for each in (batch, attacked.batch)]
    moved = lengths(attacked, threat)  # (B, S)
    broken = right = 0
    for row, position in enumerate(positions):
        decided = batch.labels[row] != IGNORED
        truth, clean, adversarial = (each[row][decided].tolist() for each in (batch.labels, *answers))
        names = [[splits.labels[tag] for tag in tags] for tags in (truth, clean, adversarial)]
        words = [splits.test.words[position][number] for number in parts.test.words[position]]
        kept = [one == two for one, two in zip(truth, clean, strict=True)]
        lost = sum(held and one != two for held, one, two in zip(kept, truth, adversarial, strict=True))
        mark = f"BROKEN at {lost} of {sum(kept)} words" if lost else "held" if all(kept) else "wrong already"
        yield f"row {batch.ids[row]}  {mark}"
        yield f"  tags         {_told(words, names[0], names[0])}"
        yield f"  original     {_told(words, names[1], names[1])}"
        yield f"  adversarial  {_told(words, names[1], names[2], moved[row][decided].tolist())}\n"
        broken, right = broken + lost, right + sum(kept)
    yield f"{broken} of {right} words that were right are broken ({len(positions)} rows shown)"


def _told(words: Sequence[str], before: Sequence[str], after: Sequence[str], moved: Sequence[float] = ()) -> str:
    """The words in a line, those that are inside a span with the tag."""
    sizes = [f"({size:.2f})" if size > 0 else "" for size in moved] or [""] * len(words)
    return printable(" ".join(map(_word, words, before, after, sizes)))


def _word(word: str, before: str, after: str, size: str) -> str:
    """A word with its tag unless that is O, the tag that it has become, and how far it was moved."""
    if before != after:
        return f"{word}/{before}->{after}{size}"
    return f"{word}{size}" if after == OUTSIDE else f"{word}/{after}{size}"
