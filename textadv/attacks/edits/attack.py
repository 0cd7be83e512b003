"""Attacks by edits of the text itself: a goal, a transformation, constraints and a search, put together.

    attack = deepwordbug(queries=500)
    found = attack(Victim(model, tokenizer, max_length=128), rows)
    print(found.summary())

The four are plain frozen values, so that an attack prints itself and is known by a hash of all of it
(the split: arXiv:2005.05909).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from random import Random
from typing import Protocol, runtime_checkable

from textadv.attacks.edits.constraints import Similarity
from textadv.attacks.edits.driver import Task, run
from textadv.attacks.edits.goals import Misclassify
from textadv.attacks.edits.greedy import Greedy
from textadv.attacks.edits.parts import Constraint, Goal, PlaceConstraint, TextConstraint, Transformation
from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.replacing import AnyOf, GradientWords, MaskedWords, parts_of
from textadv.attacks.edits.results import NO_EDIT, Edited, EditedRow, Status
from textadv.attacks.edits.row import Oracles, OutOfQueriesError, Questions, Row, SearchEndedError, Turns
from textadv.data import Examples
from textadv.data.characters import unbroken
from textadv.models.victim import Asked, Victim
from textadv.values.digests import digest
from textadv.values.errors import DataError
from textadv.values.host.phases import phase
from textadv.values.kinds import require_kind
from textadv.values.randomness import derived_seed

OUT_OF_QUERIES = "out of queries"


@runtime_checkable
class Search(Protocol):
    """How edits are looked for: a generator over one row.

    by_word: whether it goes from word to word, and so needs a transformation that edits words.
    """

    @property
    def by_word(self) -> bool: ...

    def __call__(self, row: Row) -> Turns[None]: ...


@dataclass(frozen=True)
class EditAttack:
    """Edits of the text, up to a goal.

    queries: the most texts that may go through the model for one row, its own among them; None: no limit.
    labels: the classes whose rows are attacked; None: all.
    seed: what is drawn for a row is drawn from (seed, step, row id).
    together: rows that are searched side by side, whose questions share batches; fewer where their texts are very long.
        No result depends on it.
    """

    transformation: Transformation | AnyOf
    search: Search
    constraints: tuple[Constraint, ...] = ()
    goal: Goal = field(default_factory=Misclassify)
    queries: int | None = None
    labels: tuple[int, ...] | None = None
    seed: int = 0
    name: str = ""
    together: int = field(default=64, repr=False)

    def __post_init__(self) -> None:
        for part in parts_of(self.transformation):
            remedy = "Example: Letter('swap'). Several of them: AnyOf((Letter('swap'), Letter('delete')))."
            require_kind("transformation", part, Transformation, "a transformation", remedy)
        require_kind("search", self.search, Search, "a search", "Example: Greedy('delete').")
        if not isinstance(self.constraints, tuple):
            raise TypeError("constraints must be a tuple of constraints. Example: (NotTwice(), EditDistance(30)).")
        for constraint in self.constraints:
            remedy = "Example: NotTwice(), EditDistance(30)."
            require_kind("constraints", constraint, (PlaceConstraint, TextConstraint), "constraints", remedy)
        if self.search.by_word and not self.transformation.by_word:
            raise ValueError(
                f"search: {type(self.search).__name__} goes from word to word, and "
                f"{type(self.transformation).__name__} edits the text as a whole. Take Exhaustive, Beam or RandomEdits."
            )
        if self.queries is not None and self.queries < 1:
            raise ValueError(f"queries must be at least 1, got {self.queries}.")
        if self.together < 1:
            raise ValueError(f"together must be at least 1, got {self.together}.")

    @property
    def identity(self) -> str:
        """SHA-256 of all that its results follow from: every part with its settings, word lists and models by hash."""
        return digest([repr(self).encode()])

    @property
    def reading(self) -> str:
        """SHA-256 of the settings of the models that it reads texts with, which `identity` knows by weights alone.

        "" where there are none.
        """
        models = [part.model.settings for part in parts_of(self.transformation) if isinstance(part, MaskedWords)]
        encoders = [one.encoder.settings for one in self.constraints if isinstance(one, Similarity)]
        found = [*models, *encoders]
        return digest(map(str.encode, found)) if any(found) else ""

    @property
    def follows_gradients(self) -> bool:
        """Whether it asks for gradients of the attacked model, and not only for its logits."""
        by_gradient = isinstance(self.search, Greedy) and self.search.importance == "gradient"
        return by_gradient or any(isinstance(part, GradientWords) for part in parts_of(self.transformation))

    def attacks(self, label: int) -> bool:
        """Whether it attacks rows of this class."""
        return self.labels is None or label in self.labels

    def __str__(self) -> str:
        lines = [
            f"{self.name or 'edits'} ({self.identity[:12]})",
            f"  goal            {brief(self.goal)}",
            *_listed("transformation", [brief(part) for part in parts_of(self.transformation)]),
            *_listed("constraint", [brief(one) for one in self.constraints] or ["none"]),
            f"  search          {brief(self.search)}",
            f"  queries         {'no limit' if self.queries is None else f'at most {self.queries} a row'}",
            f"  seed            {self.seed}",
        ]
        if self.labels is not None:
            lines.append(f"  rows            of class {', '.join(map(str, self.labels))}")
        return "\n".join(lines)

    def __call__(
        self, victim: Victim, rows: Examples, *, step: int = 0, found: Callable[[EditedRow], None] | None = None
    ) -> Edited:
        """One result for each row, in their order. A text that cannot be attacked is skipped with the reason.

        found: told of each result as soon as it is there. Only the first text of a pair is edited.

        Raises TypeError where these are no victim and no examples, ValueError where a row's label is no class of the
        model.
        """
        remedy = "Make one: Victim(model, tokenizer, max_length=128)."
        require_kind("victim", victim, Victim, "a victim: model, tokenizer and length", remedy)
        remedy = "Take a split, load_splits(...).train, or make them: Examples(texts, None, labels, ids)."
        require_kind("rows", rows, Examples, "Examples", remedy)
        _require_classes(rows, victim)
        results: dict[int, EditedRow] = {}
        oracles = Oracles(victim, self.goal)

        def one(n: int) -> Turns[None]:
            results[n] = yield from self._one(oracles, rows, n, step)
            if found is not None:
                found(results[n])

        with phase(self.name or "edits", len(rows)) as advance:
            tasks = (Task(one(n), len(text)) for n, text in enumerate(rows.texts))
            run(tasks, self.together, advance)
        return Edited(tuple(results[n] for n in range(len(rows))), self.identity)

    def _one(self, oracles: Oracles, rows: Examples, n: int, step: int) -> Turns[EditedRow]:
        """The search of one row."""
        text, label, number = rows.texts[n], rows.labels[n], rows.ids[n]
        pair = None if rows.pairs is None else rows.pairs[n]
        bare = EditedRow(number, label, text, pair, Status.SKIPPED, "", text, (), (), 0, 0, 0, 0, 0, 0)
        try:
            unbroken((text, pair or ""), f"the text of row {number}")
        except DataError:
            return _skipped(bare, "it has half of a character, and no tokenizer takes it")
        victim, passage = oracles.victim, Passage.of(text)
        row = Row(
            Questions(oracles, pair, label),
            parts_of(self.transformation),
            self.constraints,
            self.goal,
            passage,
            Random(derived_seed(self.seed, step, number)),
            self.queries,
            victim.blank(),
        )
        yield from row.open()
        row.places = self._places(row, victim.read(Asked(text, pair)))
        reason = self._refusal(row, text)
        if reason is not None:
            return _told(bare, row, Status.SKIPPED, reason)
        reason = ""
        try:
            yield from self.search(row)
        except OutOfQueriesError:
            if not row.tried:
                return _told(bare, row, Status.SKIPPED, _untried(row.queries))
            reason = "" if row.done else OUT_OF_QUERIES
        except SearchEndedError as error:
            reason = str(error)
        return _told(bare, row, Status.SUCCEEDED if row.reached else Status.FAILED, reason)

    def _places(self, row: Row, read: tuple[int, int]) -> tuple[int, ...]:
        """The words that may be edited: of those that the model reads."""
        first, end = read
        words = enumerate(row.original.spans)
        return tuple(
            n for n, (start, stop) in words if start < end and stop > first and row.may_change(row.original, n)
        )

    def _refusal(self, row: Row, text: str) -> str | None:
        """Why the row is not searched; None where it is."""
        label = row.questions.label
        if not bool(row.first_logits.isfinite().all()):
            return "the model's logits are not finite"
        if not self.attacks(label):
            return f"rows of class {label} are not attacked"
        reason = self.goal.refusal(row.first_logits, label)
        if reason is not None:
            return reason
        if not text.strip():
            return "the text is empty"
        if self.transformation.by_word and not len(row.original):
            return "the text has no word"
        if self.transformation.by_word and not row.places:
            return "the constraints leave no word to edit"
        return None


def _require_classes(rows: Examples, victim: Victim) -> None:
    """Raises ValueError where a row's label is no class of the model: before any search."""
    classes = victim.logits([Asked("a")]).shape[1] if len(rows) else 0
    for row, label in zip(rows.ids, rows.labels, strict=True):
        if not 0 <= label < classes:
            raise ValueError(
                f"row {row} has the label {label}, and the model has {classes} classes, from 0 on. Number them as "
                "the model's logits are, or load the model with the classes of the data."
            )


def _untried(queries: int) -> str:
    """Why a row counts as it is of which a search saw no edit."""
    told = "1 query is" if queries == 1 else f"{queries} queries are"
    return f"{NO_EDIT}: {told} fewer than the search takes before its first"


def _skipped(bare: EditedRow, reason: str) -> EditedRow:
    return EditedRow(**(vars(bare) | {"reason": reason}))


def _told(bare: EditedRow, row: Row, status: Status, reason: str) -> EditedRow:
    """What became of a row that the model was asked about."""
    best = row.best.passage
    return EditedRow(
        bare.id,
        bare.label,
        bare.text,
        bare.pair,
        status,
        reason,
        str(best),
        tuple(row.first_logits.tolist()),
        tuple(row.best_logits.tolist()),
        len(row.original),
        len(best.changed),
        row.queries,
        row.cached,
        row.slopes_taken,
        row.found_at,
    )


def _listed(name: str, parts: list[str]) -> Iterator[str]:
    """The first part behind the name, the others below it."""
    for n, part in enumerate(parts):
        yield f"  {name if n == 0 else '':<14}  {part}"


def brief(value: object) -> str:
    """A value as it is written: its class with the settings that are not the defaults."""
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    told = []
    for one in fields(value):
        own = getattr(value, one.name)
        if one.repr and one.init and own != one.default:
            told.append(f"{one.name}={own.name!r}" if _is_named(own) else f"{one.name}={own!r}")
    return f"{type(value).__name__}({', '.join(told)})"


def _is_named(value: object) -> bool:
    return is_dataclass(value) and any(one.name == "name" for one in fields(value))
