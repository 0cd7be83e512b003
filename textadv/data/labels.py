"""The one reader of labels: label columns of every format -> class names and class ids.

`textadv.data.spellings` says what a single value means, `textadv.data.classes` which class that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from operator import is_not
from typing import Any, Literal, NamedTuple, NoReturn

from textadv.data.characters import Surrogates, unbroken
from textadv.data.classes import Classes, found_classes, named_classes, shortened
from textadv.data.spellings import BOOLEANS, Spelled, Unfit, folded, name_of, spelled
from textadv.values.errors import DataError
from textadv.values.host.printable import clipped, printable

MARKS, SIGNS = (-1, -100), ("-", "?")
MANY_CLASSES, FEW_ROWS = 100, 10


class LabelColumn(NamedTuple):
    """The labels of one split, as they were read.

    values: one per row. place: what the source is called in errors. declared: the class names of whole numbers, where
    the source says them (Hub data sets and their parquet files do). complete: every row is of a class, whatever it is
    called (folders of classes are).
    """

    values: Sequence[Any]
    place: str
    declared: tuple[str, ...] = ()
    complete: bool = False


class Labels(NamedTuple):
    """names: of the classes, in the order of their ids. ids: per split, the class of each row; None: not labelled."""

    names: tuple[str, ...]
    ids: dict[str, tuple[int | None, ...]]
    notes: tuple[str, ...]


class _Split(NamedTuple):
    """A column with what its values say; None: no label."""

    role: str
    column: LabelColumn
    says: tuple[Spelled, ...]

    def without(self, marks: Sequence[int | str]) -> _Split:
        """The column with these as no label."""
        return self._replace(says=tuple(None if said in marks else said for said in self.says))

    def refuse(self, row: int, what: str) -> NoReturn:
        """Raises DataError that names the row and its label."""
        shown = clipped(self.column.values[row], 60)
        raise DataError(f"data.label: row {row} (counted from 0) of {self.column.place} has the label {shown}, {what}")


def read_labels(
    columns: Mapping[str, LabelColumn],
    labels: Sequence[str] | None = None,
    label_offset: int = 0,
    unlabelled: Literal["error", "drop"] = "error",
    surrogates: Surrogates = "error",
) -> Labels:
    """The classes of all splits; `columns` has one for "train" at least.

    A whole number is the same class in every spelling and type. Where every one is the name of a class in `labels`
    they are those classes, otherwise they count the classes from `label_offset`. True and False are 1 and 0 where no
    class is called so. A name that differs from a class's in case alone is that class, with a note.
    labels: class names in the order of the class ids; without it they are what the source declares, or train's.
    unlabelled: rows that have no label are an error, or get the id None and a note. They hold null, not-a-number, an
        empty text, what pandas writes for one (`spellings.MISSING`), -1 or -100 among labels that are not negative, or
        a lone - or ?, unless that is the name of a class in `labels`.
    surrogates: half characters in names are an error, or U+FFFD is put in their place.

    Raises DataError for labels that are no classes (scores, several to a row, dates), for rows without a label, for
    labels of no class, and for names that may be one class in two spellings; each names row, place and remedy.
    """
    labels = None if labels is None else tuple(map(str, labels))
    names = {name_of(name) for name in labels or ()}
    columns = {role: _whole(column, surrogates) for role, column in columns.items()}
    read = {role: _split(role, column, names) for role, column in columns.items()}
    for split in read.values():
        _require_classes(split, labels)
    marks = _marks(read["train"], labels, label_offset)
    read = {role: split.without(marks) for role, split in read.items()}
    counting = [said for split in read.values() if not split.column.declared for said in split.says]
    numbers = {said for said in counting if isinstance(said, int)}
    classes = _classes(read["train"], labels, label_offset).reading(numbers)
    ids = {role: _ids(split, classes) for role, split in read.items()}
    named = labels is not None or bool(read["train"].column.declared)
    for role, split in read.items():
        _require_known(split, ids[role], classes, named)
    notes = _unlabelled(list(read.values()), classes, named, unlabelled)
    notes += [note for role, split in read.items() for note in _respelled(split, ids[role], classes)]
    if not columns["train"].complete:
        notes += _doubts(ids["train"], classes)
    return Labels(classes.names, ids, tuple(notes))


def _whole(column: LabelColumn, surrogates: Surrogates) -> LabelColumn:
    """The column without half characters; DataError where two names would become one by it."""
    known: dict[str, str] = {}
    places = [f"data.label: row {row} (counted from 0) of {column.place}" for row in range(len(column.values))]
    values = [unbroken(value, where, surrogates) for value, where in zip(column.values, places, strict=True)]
    changed = any(map(is_not, values, column.values))
    for value, read, where in zip(column.values, values, places, strict=True) if changed else ():
        if known.setdefault(str(read), str(value)) != str(value):
            raise DataError(
                f"{where} has the label {printable(str(value))}, and another is {printable(known[str(read)])}: with "
                "U+FFFD in the place of half characters (data.surrogates: replace) they are one. Rename them."
            )
    declared = unbroken(column.declared, f"data.label: the class names of {column.place}", surrogates)
    return column._replace(values=values, declared=declared)


def _split(role: str, column: LabelColumn, names: Set[str]) -> _Split:
    """What the values say; a text that says none is a name where it is one of `names` or every row is of a class."""
    says = []
    for value in column.values:
        said = spelled(value)
        named = said is None and isinstance(value, str) and (column.complete or name_of(value) in names)
        says.append(name_of(value) if named else said)
    vectors = _one_hot(says)
    if vectors is None:
        return _Split(role, column, tuple(says))
    width, places = vectors
    return _Split(role, column._replace(declared=tuple(map(str, range(width)))), places)


def _one_hot(says: Sequence[Spelled]) -> tuple[int, tuple[int | None, ...]] | None:
    """The width of vectors such as [0, 1, 0] and the place of each one's 1; None where they are none, or no one-hot."""
    flags = {"False": 0, "True": 1}
    vectors = [
        said if said is None else [flags.get(part, part) for part in said]
        for said in says
        if said is None or isinstance(said, tuple)
    ]
    widths = {len(vector) for vector in vectors if vector is not None}
    if len(vectors) < len(says) or len(widths) != 1:
        return None
    if not all(vector is None or (set(vector) <= {0, 1} and vector.count(1) <= 1) for vector in vectors):
        return None
    return widths.pop(), tuple(vector.index(1) if vector and 1 in vector else None for vector in vectors)


# ---- what is no class


def _require_classes(split: _Split, labels: Sequence[str] | None) -> None:
    """DataError for lists, dates and the like, and for numbers that are not whole and not among `labels`."""
    named = {spelled(label) for label in labels or ()}
    for row, said in enumerate(split.says):
        if isinstance(said, (tuple, Unfit)):
            split.refuse(row, _no_class(said, repr(split.column.values[row])))
        if isinstance(said, float) and said not in named:
            count = sum(isinstance(other, float) for other in split.says)
            what = "" if labels is None else f"which is none of the classes {shortened(labels)}: "
            split.refuse(
                row,
                f"{what}a score, not a class, as a number that is not whole is; {count} of {len(split.says)} "
                f"{split.role} rows have one. Scores ask for regression, and this trains classifiers. Sort them into "
                "classes in a column of its own, and name that column in data.label.",
            )


def _no_class(said: tuple[Any, ...] | Unfit, shown: str) -> str:
    if isinstance(said, Unfit) and said.kind != "several":
        kind = "a date" if said.kind == "date" else f"of the type {said.type}"
        return f"which is {kind} and names no class. Name the column of classes in data.label."
    if isinstance(said, tuple) and any(isinstance(part, float) for part in said):
        return (
            "a list of scores, such as the probability of each class. Write the class that is right into a column of "
            "its own, and name that column in data.label."
        )
    comma = ", or scores with a decimal comma" if isinstance(said, Unfit) and shown.count(",") == 1 else ""
    return (
        f"which are several labels per row{comma}; a classifier here gives each row one class. Choose one label for "
        "each row; or train on one label at a time: write a column that says of each row whether it has that label, "
        "and name it in data.label."
    )


def _marks(train: _Split, labels: Sequence[str] | None, offset: int) -> tuple[int | str, ...]:
    """The labels that stand for none: -1 and -100, - and ?, unless they are, or may be, classes."""
    if train.column.complete:
        return ()
    if train.column.declared:
        return MARKS
    named = {spelled(label) for label in labels or ()}
    others = {said for said in train.says if isinstance(said, (int, str))} - {*MARKS, *SIGNS}
    negative = offset < 0 or any(isinstance(said, int) and said < 0 for said in others)
    several = not others or len(others) > 1
    marks = (*(MARKS if several and not negative else ()), *(SIGNS if several else ()))
    return tuple(mark for mark in marks if mark not in named)


def _classes(train: _Split, labels: Sequence[str] | None, offset: int) -> Classes:
    """The classes: as configured, as the source declares them, or as found in train."""
    place, declared = train.column.place, train.column.declared
    labelled = [said for said in train.says if said is not None]
    if not labelled:
        raise DataError(
            f"data.label: none of the {len(train.says)} rows of {place} is labelled. Name another column in "
            "data.label, or a split that is labelled in data.train."
        )
    if len(set(labelled)) == 1:
        raise DataError(_one_class(train, str(labelled[0])))
    if declared and offset:
        raise DataError(
            f"data.label_offset: {offset} counts labels, and {place} declares what they are called: "
            f"{shortened(declared)}. Leave it out."
        )
    if labels is not None or declared:
        return named_classes(declared if labels is None else labels, offset)
    return found_classes(train.says, place, offset, train.column.complete)


def _one_class(train: _Split, name: str) -> str:
    """What to say where every label is the same; a text such as None may be the other class."""
    bare = [value for value, said in zip(train.column.values, train.says, strict=True) if said is None]
    texts = sorted({name_of(value) for value in bare if isinstance(value, str)} - {""})
    of_one = f"data.train: all {len(train.says) - len(bare)}"
    needed = f"train rows are of one class, {name!r}; a classifier needs at least two."
    if not bare:
        return f"{of_one} {needed} Check data.label."
    told = f"{of_one} labelled {needed} The other {len(bare)} have no label"
    if not texts:
        return f"{told}. Label them, or check data.label."
    named = ", ".join(repr(text) for text in sorted({name, *texts}))
    return f"{told}: {shortened(map(repr, texts))}. Where that is a class, name every class in data.labels: {named}."


# ---- the class of each row


def _ids(split: _Split, classes: Classes) -> tuple[int | None, ...]:
    """The class of each row; None where a row has no label, or one of no class.

    A declared number is the class of its name, or of its place where the classes have other names.
    """
    own = [classes.exact.get(name_of(name)) for name in split.column.declared]
    if not own:
        return tuple(classes.of(said) for said in split.says)
    places = range(len(classes.names)) if None in own else own

    def found(said: Spelled) -> int | None:
        if isinstance(said, int):
            return places[said] if 0 <= said < len(places) else None
        return classes.of(said)

    return tuple(found(said) for said in split.says)


def _require_known(split: _Split, ids: Sequence[int | None], classes: Classes, named: bool) -> None:
    """DataError for the first label that is of no class; named: the classes are not those found in train."""
    unknown = [row for row, said in enumerate(split.says) if said is not None and ids[row] is None]
    if not unknown:
        return
    said, role = split.says[unknown[0]], split.role
    what = _none_of(classes, said)
    if role == "train" or named:
        offset = f" (or data.label_offset: {classes.offset})" if isinstance(said, int) else ""
        split.refuse(
            unknown[0],
            f"{what}, as {len(unknown)} of {len(ids)} {role} rows have. Correct data.labels{offset}, or name another "
            "column in data.label.",
        )
    others = sorted({str(split.says[row]) for row in unknown})
    numbers = {said for said in split.says if isinstance(said, int)}
    first, last = classes.offset, classes.offset + len(classes.names) - 1
    counted = "" if numbers != set(range(first + 1, last + 2)) else f" Or count them from {first}, as in train."
    if classes.numbers and not numbers and len(others) <= len(classes.names):
        counted = (
            " Where they are what train's numbers stand for, name them in data.labels, in the order of the numbers."
        )
    split.refuse(
        unknown[0],
        f"{what}: train has no such class, and {len(unknown)} of {len(ids)} {role} rows are of one "
        f"({shortened(others)}). Train on a split that has every class, or leave these rows out.{counted}",
    )


def _none_of(classes: Classes, said: Spelled) -> str:
    """That a label is of no class, and which classes there are."""
    if isinstance(said, int) and all(number - classes.offset == place for number, place in classes.numbers.items()):
        last = classes.offset + len(classes.names) - 1
        return f"but the {len(classes.names)} classes are {classes.offset} to {last}"
    return f"which is none of the classes {shortened(classes.names)}"


# ---- rows without a label, and what else is told


def _unlabelled(
    splits: Sequence[_Split], classes: Classes, named: bool, unlabelled: Literal["error", "drop"]
) -> list[str]:
    """A note on the rows without a label that are left out; DataError where they are not, or where no row is left."""
    bare = {split.role: [row for row, said in enumerate(split.says) if said is None] for split in splits}
    some = [split for split in splits if bare[split.role]]
    whole = [split for split in some if len(bare[split.role]) == len(split.says)]
    counts = ", ".join(f"{len(bare[split.role])} of {len(split.says)} {split.role} rows" for split in some)
    if not some or (unlabelled == "drop" and not whole):
        return [f"data.label: {counts} have no label and are left out (data.unlabelled: drop)."] if some else []
    split = (whole or some)[0] if unlabelled == "drop" else some[0]
    row = bare[split.role][0]
    remedy = "Set data.unlabelled: drop to leave such rows out, or label them."
    if whole:
        roles = " and ".join(f"data.{split.role}" for split in whole)
        remedy = f"Name a split that is labelled in {roles}: no row of it has a label."
    split.refuse(
        row,
        f"{_none_of(classes, spelled(split.column.values[row]))}: it marks a row that is not labelled, as are "
        f"{counts}. {remedy}{'' if named else _maybe_classes(splits, bare)}",
    )


def _maybe_classes(splits: Sequence[_Split], bare: Mapping[str, Sequence[int]]) -> str:
    """What to do where a text such as NA is a class after all, or -1, which may be one where it is as frequent."""
    for split in splits:
        marks = [split.column.values[row] for row in bare[split.role]]
        texts = sorted({name_of(mark) for mark in marks if isinstance(mark, str) and spelled(mark) not in MARKS} - {""})
        if texts:
            return f" Where {texts[0]!r} is a class, name every class in data.labels."
        counts = Counter(said for said in split.says if isinstance(said, int))
        negative = sum(spelled(mark) == -1 for mark in marks)
        if split.role == "train" and counts and negative and 2 * negative >= min(counts.values()):
            known = ", ".join(repr(str(number)) for number in sorted({-1, *counts}))
            return f" Where -1 is a class, name every class in data.labels: {known}."
    return ""


def _respelled(split: _Split, ids: Sequence[int | None], classes: Classes) -> list[str]:
    """A note on each name that was taken for another spelling of a class's."""
    names = Counter(
        (said, found)
        for said, found in zip(split.says, ids, strict=True)
        if isinstance(said, str) and said not in classes.exact and folded(said) not in BOOLEANS
    )
    return [
        f"data.label: {count} of {len(ids)} {split.role} rows have the label {said!r}, taken for "
        f"{classes.names[found]!r}."
        for (said, found), count in names.items()
        if found is not None
    ]


def _doubts(train: Sequence[int | None], classes: Classes) -> list[str]:
    """A note where there are so many classes of so few rows that the labels may be another column."""
    rows, count = sum(found is not None for found in train), len(classes.names)
    if count <= MANY_CLASSES or rows >= FEW_ROWS * count:
        return []
    return [
        f"data.label: {count} classes in {rows} train rows, {rows / count:.2g} rows each: is it the column of classes?"
    ]
