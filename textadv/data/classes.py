"""The classes of a data set: their names, and which of them a name or a number says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from textadv.data.spellings import BOOLEANS, Spelled, folded, name_of, spelled
from textadv.values.errors import DataError

JOINTS = "|;,/+& "
FEW_CLASSES = 50


@dataclass(frozen=True)
class Classes:
    """The class names with what leads to them.

    offset: the number of the first class. exact: name -> id. similar: folded name -> id, where only one has it.
    numbers: id of the class that a number is the name of. by_name: numbers are names, and do not count.
    """

    names: tuple[str, ...]
    offset: int
    exact: Mapping[str, int]
    similar: Mapping[str, int]
    numbers: Mapping[int | float, int]
    by_name: bool

    def of(self, value: Spelled) -> int | None:
        """The class that a name or a number says, or None."""
        if isinstance(value, str):
            found = self.exact.get(value, self.similar.get(folded(value)))
            return self._true(BOOLEANS[folded(value)]) if found is None and folded(value) in BOOLEANS else found
        if not isinstance(value, (int, float)):
            return None
        return self.numbers.get(value) if self.by_name or isinstance(value, float) else self._counted(value)

    def _counted(self, number: int) -> int | None:
        place = number - self.offset
        return place if 0 <= place < len(self.names) else None

    def _true(self, truth: int) -> int | None:
        """The class of False (0) or True (1), where no class has that name."""
        return self.numbers.get(truth, truth if len(self.names) == 2 else None)

    def reading(self, numbers: Set[int]) -> Classes:
        """The classes as these numbers, all that there are, name or count them.

        Where every number is the name of a class they are names, even if they could count as well.
        Raises DataError where `offset` was set and gives them other classes than their names.
        """
        named = {number: self.numbers.get(number) for number in numbers}
        counted = {number: self._counted(number) for number in numbers}
        by_name = None not in named.values() if numbers else False
        if by_name and self.offset and None not in counted.values() and named != counted:
            raise DataError(
                f"data.labels ({shortened(self.names)}) and data.label_offset: {self.offset} say other classes for the "
                f"labels {shortened(sorted(numbers))}. Leave data.label_offset out where labels are names."
            )
        return replace(self, by_name=by_name or (bool(self.numbers) and None in counted.values()))


def named_classes(names: Sequence[str], offset: int) -> Classes:
    """The classes of these names, in this order; DataError where they are fewer than two or one stands twice."""
    exact = {name_of(name): place for place, name in enumerate(names)}
    if len(exact) < 2 or len(exact) < len(names):
        raise DataError(f"data.labels must name at least two classes, each once, got {list(names)}.")
    keys = Counter(map(folded, exact))
    similar = {folded(name): place for name, place in exact.items() if keys[folded(name)] == 1}
    said = {spelled(name): place for name, place in exact.items()}
    numbers = {value: place for value, place in said.items() if isinstance(value, (int, float))}
    return Classes(tuple(names), offset, exact, similar, numbers, by_name=False)


def found_classes(values: Sequence[Spelled], place: str, offset: int, complete: bool) -> Classes:
    """The classes that the labels of a train split say.

    Numbers must count the classes from `offset`, and stand in numeric order. Names stand in the order of their
    characters' code points ("class 10" before "class 2"), as scikit-learn, torchvision and datasets order them.
    values: one per row, None where a row is not labelled. complete: no number of classes is too large.

    Raises DataError where numbers do not count, where there are names and numbers, names that may be one class in two
    spellings or several classes in one, or nearly as many labels as rows.
    """
    names = Counter(value for value in values if isinstance(value, str))
    numbers = Counter(value for value in values if isinstance(value, int))
    rows = names.total() + numbers.total()
    if len(names) + len(numbers) > max(FEW_CLASSES, rows // 2) and not complete:
        raise DataError(
            f"data.label: {len(names) + len(numbers)} different labels in {rows} rows of {place}: "
            f"{shortened([*names, *numbers])}. That looks like a column of ids or of texts. Name the column of "
            "classes in data.label, or name every class in data.labels."
        )
    if names and set(numbers) <= {0, 1} and all(folded(name) in BOOLEANS for name in names):
        return named_classes(("0", "1") if numbers else ("False", "True"), offset)
    if names and numbers:
        rare, common = (int, "names") if names.total() > numbers.total() else (str, "numbers")
        row = next(row for row, value in enumerate(values) if isinstance(value, rare))
        raise DataError(
            f"data.label: row {row} (counted from 0) of {place} has the label {values[row]!r} among labels that are "
            f"{common}. Correct the row, or name every class in data.labels."
        )
    if numbers:
        return named_classes(_counted(set(numbers), place, offset), offset)
    _require_apart(names, place)
    return named_classes(sorted(names), offset)


def _counted(numbers: set[int], place: str, offset: int) -> list[str]:
    """The numbers as names; DataError where they do not count the classes."""
    first, known = min(numbers), [str(number) for number in sorted(numbers)]
    if numbers == set(range(offset, offset + len(numbers))):
        return known
    remedy = f"Name every class in data.labels: {shortened(map(repr, known))}."
    if len(numbers) > FEW_CLASSES:
        remedy = "So many look like ids or scores: name the column of classes in data.label."
    if first > 0 and numbers == set(range(first, first + len(numbers))):
        remedy = f"Set data.label_offset: {first}."
    raise DataError(
        f"data.label: the labels of {place} are {shortened(sorted(number - offset for number in numbers))} after "
        f"subtracting data.label_offset: {offset}, but classes are counted from 0 without gaps. {remedy}"
    )


def _require_apart(names: Mapping[str, int], place: str) -> None:
    """DataError where two names differ in nothing but their spelling, or one is made of others."""
    first: dict[str, str] = {}
    for name in sorted(names):
        other = first.setdefault(folded(name), name)
        if other != name:
            raise DataError(
                f"data.label: the labels {other!r} ({names[other]} rows) and {name!r} ({names[name]} rows) of {place} "
                "differ only in case or in how their characters are encoded. Write them alike, or name both in "
                "data.labels where they are two classes."
            )
    for name in names:
        for joint in JOINTS:
            parts = {part.strip() for part in name.split(joint)}
            if len(parts) > 1 and parts <= names.keys():
                raise DataError(
                    f"data.label: {place} has rows with several labels per row, such as {name!r} beside "
                    f"{' and '.join(map(repr, sorted(parts)))}; a classifier here gives each row one class. Choose one "
                    "label for each row, or name every class in data.labels where it is one class of its own."
                )


def shortened(names: Iterable[Any]) -> str:
    """The names in one line, the first ten of many, long ones cut."""
    listed = [text if len(text) <= 40 else f"{text[:40]}..." for text in map(str, names)]
    return ", ".join(listed if len(listed) <= 12 else [*listed[:10], f"... ({len(listed)} in all)"])
