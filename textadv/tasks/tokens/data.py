"""Tagged sentences: loading, tags to classes, splits, checks. Everything wrong is said before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from textadv.data.characters import Surrogates, replaced_note, unbroken
from textadv.data.classes import shortened
from textadv.data.classification import FILES, check_numbers, check_unused, held_out_rows, read_tables
from textadv.data.examples import sampled
from textadv.data.hub import unread
from textadv.data.tables import JSON_LINES, Table, read_files
from textadv.data.text_files import suffix_of
from textadv.tasks.tokens.conll import read_conll
from textadv.tasks.tokens.places import places
from textadv.tasks.tokens.spans import Scheme, odd_beginnings, scheme_of
from textadv.tasks.tokens.tagged import Tagged, TaggedSplits
from textadv.values.batch import IGNORED
from textadv.values.errors import DataError
from textadv.values.plurals import some

BUILT_IN = "builtin:places"
SOURCES = str | Path | Sequence[str | Path] | None


def load_tagged(
    name: str,
    *,
    config: str | None = None,
    train: SOURCES = None,
    validation: SOURCES = None,
    test: SOURCES = None,
    validation_fraction: float = 0.1,
    tokens: str = "tokens",
    tags: str = "tags",
    labels: Sequence[str] | None = None,
    scheme: Scheme | None = None,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    surrogates: Surrogates = "error",
    seed: int = 0,
) -> TaggedSplits:
    """Train, validation and test rows of one data set, checked.

    name: "builtin:places"; "files" (then train, validation and test are paths, one or several each: json, jsonl or
        parquet files of rows, any other a CoNLL file); or a Hub data set or the folder of one.
    tokens, tags: the columns with each row's words, and with the tag of each, a name or a number. -100: a word without.
    labels: the tags in the order of class ids; without it those that the source declares, or those of train.
    scheme: how tags spell spans; None: as `scheme_of` finds it in train.

    The other arguments are those of `load_splits`. Raises DataError, naming the key to change.
    """
    sizes = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    sources: dict[str, SOURCES] = {"train": train, "validation": validation, "test": test}
    check_numbers(sizes, validation_fraction)
    if name == BUILT_IN:
        check_unused(name, sources)
        splits = places()
    else:

        def read(paths: Sequence[str | Path], role: str) -> Table:
            suffixes = {suffix_of(Path(path)) for path in paths}
            if suffixes <= {*JSON_LINES, ".parquet"}:
                return read_files(paths, None, f"data.{role}")
            return read_conll(paths, tokens, tags, f"data.{role}")

        tables = read_tables(name, config, sources, read)
        columns = {role: _read(table, role, tokens, tags, surrogates) for role, table in tables.items()}
        splits = _splits(columns, labels, validation_fraction, seed)
        splits = replace(splits, notes=(*(() if name == FILES else unread(name, config)), *splits.notes))
    parts = {role: sampled(part, sizes[role], seed) for role, part in splits.named.items()}
    splits = replace(splits, train=parts["train"], validation=parts["validation"], test=parts["test"])
    _check_classes(splits, train_rows)
    splits = replace(splits, scheme=_scheme(splits, scheme))
    return replace(splits, notes=(*splits.notes, *_lacking(splits), *_spelling(splits)))


class _Column(NamedTuple):
    """The rows of a split that have a word. place: what errors call the source. declared: the names of numbers."""

    role: str
    place: str
    words: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[Any, ...], ...]
    ids: tuple[int, ...]
    declared: tuple[str, ...]
    notes: tuple[str, ...]

    def refuse(self, row: int, what: str) -> NoReturn:
        """Raises DataError that names the row by its place in the source."""
        raise DataError(f"data.tags: row {row} (counted from 0) of {self.place} {what}")


def _read(table: Table, role: str, tokens: str, tags: str, surrogates: Surrogates) -> _Column:
    """The words and tags of a split, blanks around a tag left out as in CoNLL files.

    Raises DataError where a row does not have one tag for each word.
    """
    given, told = table.column(tokens, "data.tokens"), table.column(tags, "data.tags")
    words, own, ids, changed = [], [], [], 0
    for row, (texts, marks) in enumerate(zip(given, told, strict=True)):
        where = f"row {row} (counted from 0) of {table.place}"
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"data.tokens: {where} has {printed(texts)} in column {tokens!r}, which is no list of words. Name the "
                "column of lists of words."
            )
        if not isinstance(marks, (list, tuple)):
            raise DataError(
                f"data.tags: {where} has {printed(marks)} in column {tags!r}, which is no list of tags. Name the "
                "column of lists of tags."
            )
        if len(texts) != len(marks):
            raise DataError(
                f"data.tags: {where} has {len(texts)} words and {len(marks)} tags. Give each word one tag, or remove "
                "the row."
            )
        if texts:
            kept = tuple(unbroken(text, f"data.tokens: {where}", surrogates) for text in texts)
            changed += kept != tuple(texts)
            words.append(kept)
            own.append(tuple(mark.strip() if isinstance(mark, str) else mark for mark in marks))
            ids.append(row)
    empty = len(given) - len(ids)
    if not ids:
        raise DataError(f"data.tokens: no row of {table.place} has a word. Name another column or split.")
    notes = [f"data.{role}: {empty} of {len(given)} rows have no word and are left out."] if empty else []
    notes += replaced_note("data.tokens", {role: changed})
    declared = table.class_names.get(tags, ())
    return _Column(role, table.place, tuple(words), tuple(own), tuple(ids), declared, tuple(notes))


def printed(value: object) -> str:
    """The value in a few characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- tags as classes


def _splits(columns: Mapping[str, _Column], labels: Sequence[str] | None, fraction: float, seed: int) -> TaggedSplits:
    names = _names(columns["train"], labels)
    notes = [note for column in columns.values() for note in column.notes]
    parts = {}
    for role, column in columns.items():
        parts[role] = Tagged(column.words, _classes(column, names, labels is not None), column.ids)
        bare = sum(tag == IGNORED for row in parts[role].tags for tag in row)
        if bare:
            notes.append(
                f"data.tags: {some(bare, 'word')} of {role} rows {'is' if bare == 1 else 'are'} marked {IGNORED} and "
                "without a label."
            )
        unlabelled = [row for row, tags in zip(column.ids, parts[role].tags, strict=True) if set(tags) == {IGNORED}]
        if unlabelled:
            column.refuse(unlabelled[0], f"has no word with a label, as {some(len(unlabelled), 'row')}. Remove them.")
    if "validation" not in parts:
        whole = parts["train"]
        kept, held = held_out_rows([0] * len(whole), fraction, seed)
        parts["train"], parts["validation"] = whole.select(kept), whole.select(held)
    return TaggedSplits(**parts, labels=names, scheme=None, notes=tuple(notes))


def _names(train: _Column, labels: Sequence[str] | None) -> tuple[str, ...]:
    """The tags in the order of class ids: configured, declared, or found in train: names by code point, or numbers."""
    if labels is not None or train.declared:
        return tuple(train.declared if labels is None else labels)
    found = {tag for row in train.tags for tag in row} if all(map(_hashable, train.tags)) else set()
    kinds = {type(tag) for tag in found if tag != IGNORED}
    if found == {IGNORED}:
        train.refuse(train.ids[0], f"has no word with a label, as all rows: each is marked {IGNORED}. Set data.tags.")
    below = sorted(tag for tag in found - {IGNORED} if isinstance(tag, int) and tag < 0)
    if below:
        row = next(row for row, tags in zip(train.ids, train.tags, strict=True) if below[0] in tags)
        train.refuse(
            row,
            f"has the tag {printed(below[0])}: classes are counted from 0, and a word without a label is marked "
            f"{IGNORED}. Correct the tags.",
        )
    if kinds == {str}:
        return tuple(sorted(found - {IGNORED}))
    if kinds == {int}:
        return tuple(map(str, sorted(found - {IGNORED})))
    row, tag = next(
        (
            (row, tag)
            for row, tags in zip(train.ids, train.tags, strict=True)
            for tag in tags
            if type(tag) not in (str, int)
        ),
        (train.ids[0], train.tags[0][0]),
    )
    if len(kinds) > 1 and type(tag) in (str, int):
        raise DataError(
            f"data.tags: the tags of {train.place} are names in some places and numbers in others. Write names."
        )
    train.refuse(row, f"has the tag {printed(tag)}, which is no name and no whole number. Correct the row.")


def _hashable(tags: Sequence[Any]) -> bool:
    return all(isinstance(tag, (str, int)) and not isinstance(tag, bool) for tag in tags)


def _classes(column: _Column, names: tuple[str, ...], named: bool) -> tuple[tuple[int, ...], ...]:
    """The class of each word; a number is the tag of that name where there is one, or else of that place."""
    ids: dict[str | int, int] = {name: place for place, name in enumerate(names)}
    whole = all(name.isascii() and name.isdigit() for name in names)
    for number, name in enumerate(names):
        ids[int(name) if whole else number] = number
    ids[IGNORED] = IGNORED
    found, unknown = [], Counter[str]()
    first: tuple[int, Any] | None = None
    for row, tags in zip(column.ids, column.tags, strict=True):
        known = [ids.get(tag) if _hashable([tag]) else None for tag in tags]
        for tag, place in zip(tags, known, strict=True):
            if place is None:
                unknown[str(tag)] += 1
                first = first or (row, tag)
        found.append(tuple(IGNORED if place is None else place for place in known))
    if first is not None:
        whose = f"none of {shortened(names)}"
        others = f"{some(unknown.total(), 'word')} of {column.role} rows ({shortened(unknown)})"
        remedy = (
            "Correct data.labels."
            if named or column.declared
            else ("Train on a split that has every tag, name all in data.labels, or leave these rows out.")
        )
        column.refuse(first[0], f"has the tag {printed(first[1])}, {whose}, as {others} have. {remedy}")
    return tuple(found)


# ---- checks and notes


def _present(part: Tagged) -> set[int]:
    return {tag for row in part.tags for tag in row} - {IGNORED}


def _check_classes(splits: TaggedSplits, train_rows: int | None) -> None:
    present = _present(splits.train)
    if len(present) > 1:
        return
    remedy = "Check data.tags" if train_rows is None else f"Raise data.train_rows ({train_rows}) or check data.tags"
    only = splits.labels[next(iter(present))]
    raise DataError(
        f"data.train: every word of {len(splits.train)} train rows has the tag {printed(only)}; a classifier needs at "
        f"least two. {remedy}."
    )


def _scheme(splits: TaggedSplits, wanted: Scheme | None) -> Scheme | None:
    """The scheme of the tags. Raises DataError where they are of none, or cannot be of the one that is wanted."""
    if splits.scheme is not None:
        return splits.scheme
    rows = ([splits.labels[tag] for tag in row if tag != IGNORED] for row in splits.train.tags)
    try:
        found = scheme_of(splits.labels, rows)
    except ValueError as error:
        raise DataError(f"data.tags: {error} Rename them, or name the scheme's tags in data.labels.") from error
    if wanted is None:
        return found
    kinds = {"bio": {"bio", "iob1"}, "iob1": {"bio", "iob1"}}.get(wanted, {wanted, "bio"})
    if found not in kinds:
        raise DataError(
            f"data.scheme: {wanted} is not how the tags {shortened(splits.labels)} are written. Leave it out, and the "
            "scheme is found."
        )
    return wanted


def _lacking(splits: TaggedSplits) -> Iterator[str]:
    """A note on the tags that train lacks: nobody can learn them."""
    lacking = sorted(set(range(len(splits.labels))) - _present(splits.train))
    if lacking:
        names = shortened(splits.labels[tag] for tag in lacking)
        words = {role: sum(tag in lacking for row in part.tags for tag in row) for role, part in splits.named.items()}
        yield (
            f"data.train: no word has {len(lacking)} of the {len(splits.labels)} tags ({names}), and "
            f"{words['validation']} words of validation and {words['test']} of test rows have one. Train on a split, "
            "or on more rows, that has every tag."
        )


def _spelling(splits: TaggedSplits) -> Iterator[str]:
    """What a reader must know of how tags spell spans."""
    if splits.scheme is None:
        yield "data.tags: the tags spell no spans (as B-PER, I-PER and O do), so that span F1 is not measured."
        return
    if splits.scheme != "bio":
        yield f"data.tags: the tags are read as {splits.scheme.upper()}, and spans of words by its rules."
        return
    odd = {
        role: sum(odd_beginnings([splits.labels[tag] for tag in row if tag != IGNORED]) for row in part.tags)
        for role, part in splits.named.items()
    }
    if any(odd.values()):
        counts = ", ".join(f"{count} in {role} rows" for role, count in odd.items() if count)
        yield f"data.tags: spans that begin with I- are none in BIO, as which the tags are read: {counts}."


def shared_rows(a: Tagged, b: Tagged) -> int:
    """How many rows of `b` have the words of a row of `a`."""
    seen = set(a.words)
    return sum(words in seen for words in b.words)
