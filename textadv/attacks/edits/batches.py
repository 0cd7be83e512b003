"""Edits of texts as an attack like any other: a function of model and batch, whose rows come back in other tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.attacks.edits.attack import EditAttack
from textadv.attacks.edits.augmenting import Drawn, StochasticTokens
from textadv.attacks.parts.attacked import Attacked, Cost, Outcome
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.unperturbed import mean_logits
from textadv.data import EncodedRows, Examples, encode
from textadv.data.encoding import require_tokenizer
from textadv.models import bare, evaluating
from textadv.models.pieces import Pieces
from textadv.models.victim import Asked, Victim
from textadv.values.batch import Batch
from textadv.values.descriptions import SETTINGS
from textadv.values.digests import digest
from textadv.values.errors import ModelError
from textadv.values.host.phases import telling, untold
from textadv.values.kinds import require_kind
from textadv.values.losses import margin
from textadv.values.randomness import derived_seed
from textadv.values.texts import Written

SHARE_DRAW, EDITOR_DRAW = 31, 32


@dataclass(frozen=True)
class OneOf:
    """For each row one of several editors, drawn from (seed, step, row id) among those that edit rows of its class.

    Deviations: none; it follows no paper.
    """

    editors: tuple[Drawn | EditAttack, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.editors:
            raise ValueError("one_of needs at least one editor. Example: OneOf((Typos(), deepwordbug(queries=50))).")
        for editor in self.editors:
            remedy = "Give Typos() or an EditAttack such as deepwordbug(queries=100)."
            require_kind("editors", editor, (*get_args(Drawn), EditAttack), "what edits texts", remedy)

    def drawn(self, step: int, row: int, label: int) -> int | None:
        """The place of the editor of a row; None where none edits rows of its class."""
        able = [n for n, one in enumerate(self.editors) if one.attacks(label)]
        return Random(derived_seed(self.seed, step, row, EDITOR_DRAW)).choice(able) if able else None


Editor = Drawn | StochasticTokens | EditAttack | OneOf


class _Texts(NamedTuple):
    """Rows tokenised anew, and what that took of the model: (B,) int64 each."""

    rows: EncodedRows
    queries: list[int]
    slopes: list[int]


def measured(model: nn.Module, clean: Batch, found: Batch, goal: Goal, climb: Tensor | None = None) -> Outcome:
    """What edits, and what came after them, did to each row: two passes, in evaluation mode.

    climb: (B,) what a search added; nan by default.
    """
    with evaluating(model):
        before, after = mean_logits(model, clean), mean_logits(model, found)
    gain = goal.value(after.double(), found, before.double()) - goal.value(before.double(), clean, before.double())
    nothing = torch.full_like(gain, float("nan"))
    return Outcome(goal.reached(after, found), gain, nothing if climb is None else climb, margin(after, found).double())


@dataclass(frozen=True)
class TextEdits:
    """Edits of a batch's first texts, as an attack: `TextEdits(Typos(), tokenizer, max_length)(model, batch)`.

    `Attacked.batch` holds the rows in their new tokens, cut to `max_length` as the data are and padded to their own
    width, with the labels, ids and roles that they had; `Attacked.origin` the rows as they were. There is no
    perturbation. What is drawn follows from (seed, step, row id), so that a row is edited alike in every batch, and
    anew at every step. `radius_scale` does nothing: an edit has no radius.

    editor: draws edits without a model (`Typos`, `PlantedWords`, `StochasticTokens`), or searches for those that break
        this model (an `EditAttack`, whose queries and gradients are counted), or `OneOf` several for each row.
    tokenizer, max_length: those that the data were encoded with; a tokenizer of transformers.
    share: of the rows that are edited, drawn row by row. seed: of that draw.
    goal: what is measured.

    Deviations: none; it follows no paper.
    """

    editor: Editor
    tokenizer: Any = field(repr=False)
    max_length: int
    share: float = 1.0
    seed: int = 0
    goal: Goal = field(default_factory=Untargeted)

    def __post_init__(self) -> None:
        remedy = "Give Typos(), StochasticTokens() or an EditAttack such as deepwordbug(queries=100)."
        require_kind("editor", self.editor, get_args(Editor), "what edits texts", remedy)
        require_tokenizer(self.tokenizer)
        led = next((search for search in self.searches if search.follows_gradients), None)
        if led is not None and not self.tokenizer.is_fast:
            raise ModelError(
                f"attack.edits: {led.name or 'a search by gradient'} asks which characters a token stands for, "
                f"and {type(self.tokenizer).__name__} does not tell. Use a model with a tokenizer.json, or "
                "attack.edits.name: deepwordbug."
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"mixing.discrete must be above 0 and at most 1, got {self.share}.")

    @property
    def searches(self) -> tuple[EditAttack, ...]:
        """The editors that ask the model."""
        several = self.editor.editors if isinstance(self.editor, OneOf) else (self.editor,)
        return tuple(one for one in several if isinstance(one, EditAttack))

    def searching(self, queries: int) -> TextEdits:
        """The same where no search asks the model more often for a row."""

        def less(editor: Any) -> Any:
            if not isinstance(editor, EditAttack):
                return editor
            return replace(editor, queries=min(queries, editor.queries or queries))

        if isinstance(self.editor, OneOf):
            return replace(self, editor=replace(self.editor, editors=tuple(map(less, self.editor.editors))))
        return replace(self, editor=less(self.editor))

    def __str__(self) -> str:
        several = self.editor.editors if isinstance(self.editor, OneOf) else (self.editor,)
        name = ", ".join(one.name or "edits" if isinstance(one, EditAttack) else repr(one) for one in several)
        return f"{name} on {100 * self.share:g} % of the rows"

    @property
    def hashes(self) -> dict[str, str]:
        """Of a search SHA-256 of all that it follows from, words and models included; what is drawn has no files."""
        found = [search.identity for search in self.searches]
        told = {"attack.edits": found[0] if len(found) == 1 else digest(map(str.encode, found))} if found else {}
        read = [search.reading for search in self.searches]
        return told | ({f"{SETTINGS}attack.edits": digest(map(str.encode, read))} if any(read) else {})

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` edited; see `Attack` for the arguments.

        Raises ValueError where there are no texts, a row has several labels, or the rows are perturbed already.
        """
        model, batch, back = entered(self, model, batch, y, measure)
        written = _written(batch)
        if self.searches and isinstance(bare(model), FSDPModule):
            raise ValueError(
                f"attack.edits: {self.searches[0].name or 'a search'} makes processes run different numbers of passes, "
                "which FSDP cannot do. Use DDP, or attack.edits.name: typos."
            )
        with telling(untold):
            found = self._texts(model, batch, written, step)
        edited = found.rows.batch(range(len(batch))).to(batch.device)
        edited = replace(edited, labels=batch.labels, ids=batch.ids, role=batch.role)
        queries, slopes = (torch.tensor(count, device=batch.device) for count in (found.queries, found.slopes))
        cost, outcome = Cost(slopes, slopes.clone(), queries), None
        if measure:
            outcome = measured(model, batch, edited, self.goal)
            cost = cost._replace(queries=cost.queries + 2)
        gauge = torch.tensor(self._changes(found.rows, batch, step), device=batch.device, dtype=torch.float64)
        return back(Attacked(edited, gauge, cost, outcome, origin=batch))

    def edits(self, step: int, row: int) -> bool:
        """Whether the row of this id is edited at this step."""
        return self.share == 1 or Random(derived_seed(self.seed, step, row, SHARE_DRAW)).random() < self.share

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self.tokenizer)

    def _texts(self, model: nn.Module, batch: Batch, written: Written, step: int) -> _Texts:
        texts, pairs = written.rows()
        rows = Examples(texts, pairs, tuple(batch.labels.tolist()), tuple(batch.ids.tolist()))
        chosen = [n for n, row in enumerate(rows.ids) if self.edits(step, row)]
        queries, slopes = [0] * len(rows), [0] * len(rows)
        fresh: dict[int, str] = {}
        for editor, places in self._by_editor(rows, chosen, step):
            part = rows.select(places)
            if isinstance(editor, Drawn):
                fresh |= zip(
                    places, self._drawn(editor, model, batch.rows(torch.tensor(places)), part, step), strict=True
                )
            elif isinstance(editor, EditAttack):
                for place, row in zip(places, editor(self._victim(model, batch), part, step=step).rows, strict=True):
                    fresh[place], queries[place], slopes[place] = row.edited, row.queries, row.slopes
        rows = replace(rows, texts=tuple(fresh.get(n, text) for n, text in enumerate(texts)))
        encoded = encode(rows, self.tokenizer, self.max_length, windows=batch.windows)
        if isinstance(self.editor, StochasticTokens):
            cut = self.editor(encoded, self._pieces, self.max_length, step=step)
            taken = set(chosen)
            each = [(cut if n in taken else encoded, n) for n in range(len(rows))]
            encoded = replace(
                encoded,
                features=tuple(own.features[n] for own, n in each),
                editable=tuple(own.editable[n] for own, n in each),
            )
        return _Texts(encoded, queries, slopes)

    def _drawn(self, editor: Drawn, model: nn.Module, batch: Batch, rows: Examples, step: int) -> list[str]:
        """The rows' texts with what is drawn for them, in what the model reads of each."""
        filled = (batch.inputs["attention_mask"].sum(dim=1) >= self.max_length).tolist()
        victim, parts = self._victim(model, batch), []
        for text, pair, full in zip(rows.texts, rows.pairs or [None] * len(rows), filled, strict=True):
            start, stop = victim.read(Asked(text, pair)) if full and batch.windows is None else (0, len(text))
            if stop < len(text) and not text[stop].isspace():
                stop = max(start, text.rfind(" ", start, stop)) or stop
            parts.append((text[:start], text[start:stop], text[stop:]))
        inner = replace(rows, texts=tuple(part for _, part, _ in parts))
        made = editor(inner, step=step).texts
        return [f"{before}{own}{after}" for (before, _, after), own in zip(parts, made, strict=True)]

    def _by_editor(self, rows: Examples, chosen: Sequence[int], step: int) -> list[tuple[object, list[int]]]:
        """Each editor with the places of its rows, of those that are chosen."""
        if not isinstance(self.editor, OneOf):
            return [(self.editor, list(chosen))] if chosen else []
        places: dict[int, list[int]] = {}
        for place in chosen:
            editor = self.editor.drawn(step, rows.ids[place], rows.labels[place])
            if editor is not None:
                places.setdefault(editor, []).append(place)
        return [(self.editor.editors[n], own) for n, own in sorted(places.items())]

    def _victim(self, model: nn.Module, batch: Batch) -> Victim:
        return Victim(bare(model), self.tokenizer, self.max_length, windows=batch.windows)

    def _changes(self, rows: EncodedRows, batch: Batch, step: int) -> list[float]:
        """Of each row 1 where its tokens are others than those of the batch, else 0; nan where nothing edits it: it was
        not drawn, or is of a class that is left alone."""
        kept = batch.inputs["attention_mask"].bool().cpu()
        before = batch.inputs["input_ids"].cpu()
        after = [
            [token for token, there in zip(row["input_ids"], row["attention_mask"], strict=True) if there]
            for row in rows.features
        ]
        changed = [own != before[n][kept[n]].tolist() for n, own in enumerate(after)]
        asked = zip(changed, rows.ids, batch.labels.tolist(), strict=True)
        return [float(one) if self.edits(step, row) and self._reaches(label) else math.nan for one, row, label in asked]

    def _reaches(self, label: int) -> bool:
        """Whether an editor edits rows of this class."""
        several = self.editor.editors if isinstance(self.editor, OneOf) else (self.editor,)
        return any(isinstance(one, StochasticTokens) or one.attacks(label) for one in several)


def _written(batch: Batch) -> Written:
    """The texts of the batch. Raises ValueError where it has none, or edits of them would not do."""
    if not batch.one_each:
        what = "a chat is no row of one class" if batch.is_chat else "its labels belong to words, which edits move"
        raise ValueError(f"attack.edits edits texts of one class each, and {what}. Remove attack.edits.")
    if batch.written is None:
        raise ValueError(
            "attack.edits needs the texts of the rows, and this batch has none. Take it from encode(examples, "
            "tokenizer, max_length).batch(positions)."
        )
    if batch.perturbation is not None:
        raise ValueError("Edits come before a perturbation, whose tokens they change: then(edits, attack).")
    return batch.written
