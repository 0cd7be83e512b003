"""What an attack did to single rows, written down as it happens, so that an interrupted evaluation goes on from there.

One file per attack, model, threat model and process, one line per batch. A row is known again by its content, so that
neither its position nor the other rows matter; a model by its weights and settings, an attack by its description. The
code of this package and the version of torch count as well: other code may find something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor

from textadv.data import Rows
from textadv.measuring.accuracy.kept_rows import Row, Shelf, cleared
from textadv.measuring.kept_lines import keep, read, repaired, stored
from textadv.values.digests import digest, tensor_bytes

NONE_FOUND = -1.0


class Hit(NamedTuple):
    """One attacked row: its position, the prediction under attack, norm / radius, and the passes it took.

    forwards: all forward passes; queries: those of them that no gradient was taken of. size: the norm of the smallest
    perturbation that a minimal attack says it found, NONE_FOUND where it found none; None for other attacks.
    """

    position: int
    prediction: int
    gauge: float
    forwards: int
    backwards: int
    queries: int = 0
    size: float | None = None


class UndescribedError(Exception):
    """An attack that holds something of which no description can be made that tells it from another."""


def described(value: object) -> str:
    """A text that two values share where they are the same: of attacks, threat models and what they are made of.

    Fields of metadata {"described": False} are left out: a foreign attack is known by the name it was given.

    Raises UndescribedError for functions made inside others, whose code a name does not tell, and for unknown objects.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous()
        return f"tensor{tuple(content.shape)}{content.dtype}{digest([tensor_bytes(content)])}"
    if isinstance(value, torch.nn.Module):
        return f"module{digest(_module_parts(value))}"
    if isinstance(value, tuple | list):
        return f"({', '.join(described(part) for part in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{described(key)}: {described(part)}' for key, part in value.items())}}}"
    kind = type(value)
    module = kind.__module__
    if is_dataclass(value) and not isinstance(value, type):
        parts = ((part.name, vars(value)[part.name]) for part in fields(value) if part.metadata.get("described", True))
        return f"{module}.{kind.__qualname__}({', '.join(f'{name}={described(p)}' for name, p in parts)})"
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, BuiltinFunctionType):
        name = value.__name__
        if vars(torch).get(name) is value:
            return f"torch.{name}"
    raise UndescribedError(f"{module}.{kind.__qualname__}")


def _module_parts(module: torch.nn.Module) -> Iterable[bytes]:
    """What it is made of, with the settings of each part, its weights and all its buffers, also those not saved."""
    for name, part in module.named_modules():
        yield f"{name} {type(part).__qualname__} {_settings(part)}".encode()
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        yield name.encode()
        yield tensor_bytes(value)


def _settings(part: torch.nn.Module) -> list[tuple[str, str]]:
    """The plain values that a module holds, such as strides or LoRA's scalings, and its configuration's text."""
    found = []
    for name, value in sorted(vars(part).items()):
        if name.startswith("_") or name == "training":
            continue
        if name == "config" and " at 0x" not in repr(value):
            found.append((name, repr(value)))
            continue
        try:
            found.append((name, described(value)))
        except UndescribedError:
            continue
    return found


@cache
def _code() -> str:
    """A hash of the package's source files."""
    package = Path(__file__).parents[1]
    paths = sorted(package.rglob("*.py"))
    return digest(part for path in paths for part in (str(path.relative_to(package)).encode(), path.read_bytes()))


def row_digest(rows: Rows, position: int) -> str:
    """A hash of all that an attack sees of one row: inputs, label, editable positions and id."""
    batch = rows.batch([position])
    seen = {**batch.inputs, "labels": batch.labels, "editable": batch.editable, "ids": batch.ids}
    parts = (part for name, value in sorted(seen.items()) for part in (name.encode(), tensor_bytes(value)))
    return digest(parts)[:32]


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
        first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        gone = cleared(stored(self.folder, "*.safetensors")) if first else []
        return [*gone, *repaired(stored(self.folder, "*.jsonl"), "attacked rows", _fits)]

    def ledger(self, attack: object, *parts: object, keeping: bool = False) -> Ledger | None:
        """The ledger of one attack, `parts` being what else it depends on; None where nothing can describe it.

        keeping: adversarial rows are kept as well, and rows without theirs do not count as finished.

        In a distributed run every process must call it: all get what the first one reads.
        """
        try:
            told = [version("textadv"), torch.__version__, _code(), *self.origin]
            told += [described(attack), *map(described, parts)]
        except UndescribedError:
            return None
        # Settings may differ on which no row depends: saving a model, as the first process does, leaves words there.
        key = _of_the_first(digest([json.dumps(told).encode()])[:32])
        known, seconds = _read(stored(self.folder, f"{key}.*.jsonl"))
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        shelf = Shelf.found(self.folder, key, rank) if keeping else None
        if torch.distributed.is_initialized():
            known, seconds, there = gather_object([(known, seconds, None if shelf is None else shelf.known)])[0]
            shelf = None if shelf is None else replace(shelf, known=there)
        return Ledger(self.folder / f"{key}.{rank}.jsonl", str(attack), known, seconds, shelf)


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

        kept: gets the adversarial rows by position; without theirs, rows are not known.
        """
        found = []
        for position in positions:
            self._digests[position] = row_digest(rows, position)
            line = self.known.get(self._digests[position])
            row = None if kept is None or self.shelf is None else self.shelf.take(self._digests[position])
            if line is not None and (kept is None or row is not None):
                if kept is not None and row is not None:
                    kept[position] = row
                prediction, gauge, forwards, backwards, queries, size = line
                passes = (int(forwards), int(backwards), int(queries))
                found.append(Hit(position, int(prediction), gauge, *passes, size))
        self.read += len(found)
        return found

    def write(self, hits: Sequence[Hit], seconds: float, kept: Mapping[int, Row] | None = None) -> None:
        """Appends rows that `look_up` did not know, and what they took together, as one line that reaches the disk.

        kept: the adversarial rows by position, written first where there is a shelf. Raises WriteError where the
        system refuses.
        """
        if self.shelf is not None and kept is not None:
            self.shelf.put({self._digests[hit.position]: kept[hit.position] for hit in hits})
        rows = {self._digests[hit.position]: list(hit[1:]) for hit in hits}
        keep(self.path, [{"ledger": _key_of(self.path), "attack": self.attack, "seconds": seconds, "rows": rows}])


def _key_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _fits(path: Path, told: Mapping[str, Any]) -> bool:
    """Whether a line is of this ledger: rows under another attack, or of another model, look the same."""
    return told.get("ledger") == _key_of(path)


def _of_the_first(key: str) -> str:
    """The first process' key, on every process: all have to look for rows, and keep them, under one."""
    return str(gather_object([key])[0]) if torch.distributed.is_initialized() else key


def _read(paths: Sequence[Path]) -> tuple[dict[str, list[Any]], float]:
    """The rows of all lines that are as they were written, and the most seconds that any one file tells of."""
    known: dict[str, list[Any]] = {}
    longest = 0.0
    for path in paths:
        told, _ = read(path, _fits)
        for line in told:
            known |= line["rows"]
        longest = max(longest, sum(line["seconds"] for line in told))
    return known, longest
