"""What an attack did to single rows, in a ledger: one for each attack, model and threat model, a line per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from textadv.data import Rows
from textadv.measuring.identity import UndescribedError, described, key_of, row_digest
from textadv.measuring.ledger import Files, Row, Shelf, cleared, keep, listed, repaired
from textadv.values.decisions import Label
from textadv.values.processes import of_the_first, rank

NONE_FOUND = -1.0


class Hit(NamedTuple):
    """One attacked row: its position, the prediction under attack (one for each label where it has several), norm /
    radius, and the passes it took.

    forwards: all forward passes; queries: those of them that no gradient was taken of. size: the norm of the smallest
    perturbation that a minimal attack says it found, NONE_FOUND where it found none; None for other attacks. score: by
    how much the class that a detector looks for leads the others then, None where nobody asked.
    """

    position: int
    prediction: Label
    gauge: float
    forwards: int
    backwards: int
    queries: int = 0
    size: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Finished:
    """Where finished rows are kept.

    folder: made when the first line is written. origin: what the results follow from beside rows and attack: see `of`.
    """

    folder: Path
    origin: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, model: torch.nn.Module) -> Finished:
        """What is kept there for this model, known by its structure, settings, weights and all buffers."""
        return cls(folder, (described(model),))

    def under(self, *more: object) -> Finished:
        """The same for results that follow from more."""
        return replace(self, origin=(*self.origin, *map(repr, more)))

    def repaired(self) -> list[str]:
        """Takes out of all ledgers what is not as it was written; a sentence for each that held any.

        In a distributed run every process must call it.
        """
        gone = cleared(listed(self.folder, ".safetensors")) if rank() == 0 else []
        return [*gone, *repaired(listed(self.folder, ".jsonl"), "attacked rows", of_its_ledger)]

    def files(self, key: str) -> Files:
        """The files of the ledger of this key."""
        return Files(self.folder / f"{key}.0.jsonl", f"{key}.{{}}.jsonl")

    def ledger(self, attack: object, *parts: object, keeping: bool = False) -> Ledger | None:
        """The ledger of one attack, `parts` being what else it depends on; None where nothing can describe it.

        keeping: adversarial rows are kept as well, and rows without theirs do not count as finished.

        In a distributed run every process must call it.
        """
        try:
            key = key_of(self.origin, attack, *parts)
        except UndescribedError:
            return None
        files = self.files(key)
        told = files.read_back(of_its_ledger)
        known = {row: found for lines in told for line in lines for row, found in line["rows"].items()}
        # Processes work at the same time, so the slowest one's seconds are those of all.
        seconds = max((sum(line["seconds"] for line in lines) for lines in told), default=0.0)
        shelf = of_the_first(Shelf.found(self.folder, key)) if keeping else None
        return Ledger(files.own, str(attack), known, seconds, shelf)


@dataclass
class Ledger:
    """The finished rows of one attack: known ones by their content, and the file that new ones go to.

    seconds: what the known ones took. shelf: where adversarial rows are kept, None where they are not. read: how many
    rows were taken from it.
    """

    path: Path
    attack: str
    known: dict[str, list[Any]]
    seconds: float
    shelf: Shelf | None = None
    read: int = 0
    _digests: dict[int, str] = field(default_factory=dict, repr=False)

    def look_up(self, rows: Rows, positions: Sequence[int], kept: dict[int, Row] | None = None) -> list[Hit]:
        """What is known of the rows at `positions`, in their order; rows that are not known are left out.

        kept: gets the adversarial rows, tensors of any shape, by position; without theirs, rows are not known.
        """
        found = []
        for position in positions:
            self._digests[position] = row_digest(rows, position)
            line = self.known.get(self._digests[position])
            row = None if kept is None or self.shelf is None else self.shelf.take(self._digests[position])
            if line is not None and (kept is None or row is not None):
                if kept is not None and row is not None:
                    kept[position] = row
                prediction, gauge, forwards, backwards, queries, size, *score = line
                passes = (int(forwards), int(backwards), int(queries))
                found.append(
                    Hit(
                        position,
                        tuple(prediction) if isinstance(prediction, list) else prediction,
                        gauge,
                        *passes,
                        size,
                        *score,
                    )
                )
        self.read += len(found)
        return found

    def write(self, hits: Sequence[Hit], seconds: float, kept: Mapping[int, Row] | None = None) -> None:
        """Appends rows that `look_up` did not know, and what they took together, as one line that reaches the disk.

        kept: the adversarial rows, tensors of any shape, by position, written first where there is a shelf. Raises
        WriteError where the system refuses.
        """
        if self.shelf is not None and kept is not None:
            self.shelf.put({self._digests[hit.position]: kept[hit.position] for hit in hits})
        # A score stands there where one was asked for.
        rows = {self._digests[hit.position]: list(hit[1:-1] if hit.score is None else hit[1:]) for hit in hits}
        keep(self.path, [{"ledger": key_in(self.path), "attack": self.attack, "seconds": seconds, "rows": rows}])


def key_in(path: Path) -> str:
    """The key of the ledger that this file is of."""
    return path.name.partition(".")[0]


def of_its_ledger(path: Path, told: Mapping[str, Any]) -> bool:
    """Whether a line is of this ledger: rows under another attack, or of another model, look the same."""
    return told.get("ledger") == key_in(path)
