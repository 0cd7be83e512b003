"""Finished rows of an evaluation, written down as they are made, so that an interrupted one goes on from there.

Every evaluation keeps its rows here: what an attack did to one, what a model answered. A ledger is files side by side,
one for each process: lines of JSON that grow, each with a digest by which damage is seen, and where rows have tensors,
safetensors files beside them. What is not as it was written counts for nothing: it is made again. What a line says is
the affair of who keeps it, and so is the key that a row is known by: the hash of all that it follows from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from textadv.values.digests import digest, tensor_bytes
from textadv.values.host.reading import json_of
from textadv.values.host.writing import append_line, discard, write_bytes, write_tensors
from textadv.values.processes import everywhere, processes, rank

DIGEST = "digest"
Fits = Callable[[Path, Mapping[str, Any]], bool]
"""Whether a line that is whole can have been written into that file: it may have been put there from another one."""


def anywhere(file: Path, told: Mapping[str, Any]) -> bool:
    """Any line fits."""
    return True


class Files(NamedTuple):
    """The files of one ledger. first: the first process'. other: the name of process n's, with {} for n."""

    first: Path
    other: str

    @property
    def own(self) -> Path:
        """The one that this process appends to."""
        return self.first if rank() == 0 else self.first.with_name(self.other.format(rank()))

    def there(self) -> list[Path]:
        """Those that are there, whichever run wrote them; raises OSError as `listed`."""
        return [path for path in listed(self.first.parent) if self._process(path) is not None]

    def mine(self) -> list[Path]:
        """Those that this process rewrites: its own, and the first one those of processes that are no more."""
        numbers = {path: self._process(path) for path in self.there()}
        return [p for p, n in numbers.items() if n == rank() or (rank() == 0 and n is not None and n >= processes())]

    def _process(self, path: Path) -> int | None:
        if path == self.first:
            return 0
        before, _, after = self.other.partition("{}")
        found = re.fullmatch(rf"{re.escape(before)}(\d+){re.escape(after)}", path.name)
        return None if found is None else int(found[1])

    def read_back(self, fits: Fits = anywhere) -> list[list[dict[str, Any]]]:
        """What the lines of each file tell, on every process, whichever of them can see the files.

        Every process must call it.
        """
        return everywhere([read(path, fits)[0] for path in self.there()])


def listed(folder: Path, ending: str = "") -> list[Path]:
    """The files of a folder whose names end like this, in order; none where it is not there.

    Raises OSError where it cannot be read: what is there would be made again without a word.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    except (FileNotFoundError, NotADirectoryError):
        return []


# ---- lines


def line_of(told: Mapping[str, Any]) -> str:
    """One line of JSON, with a digest of what it says."""
    return json.dumps({**told, DIGEST: _digest(told)}, ensure_ascii=True)


def _digest(told: Mapping[str, Any]) -> str:
    return digest([json.dumps(told, sort_keys=True).encode()])[:16]


def keep(file: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends a line for each record; all are then on the disk. Raises WriteError where the system refuses."""
    lines = list(map(line_of, records))
    if lines:
        append_line(file, "\n".join(lines))


def read(file: Path, fits: Fits = anywhere) -> tuple[list[dict[str, Any]], list[int]]:
    """What the file's lines tell, and the numbers of those that are not as they were written there.

    A last line without its end was cut off by an interruption and is no damage.
    """
    found, damaged = [], []
    seen: set[bytes] = set()
    # Reading a pipe waits for ever.
    content = b"" if file.is_fifo() else file.read_bytes()
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        told = None if line in seen else _told(line)
        seen.add(line)
        if told is None or not fits(file, told):
            damaged.append(number)
        else:
            found.append(told)
    return found, damaged


def _told(line: bytes) -> dict[str, Any] | None:
    try:
        told = json_of(line)
        return told if isinstance(told, dict) and told.pop(DIGEST, None) == _digest(told) else None
    except ValueError:
        return None


def rewrite(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the file whole, where it says something else. Raises WriteError where the system refuses."""
    written = "".join(f"{line_of(told)}\n" for told in lines).encode()
    if file.is_fifo() or written != file.read_bytes():
        write_bytes(file, written)


def repaired(files: Iterable[Path], what: str, fits: Fits = anywhere) -> list[str]:
    """Takes out of the files what is not as it was written; a sentence for each that held any, on every process.

    Every process must call it, before any of them reads; the first one works. what: the lines tell of, in the plural.

    Raises WriteError where the system refuses.
    """
    own = files if rank() == 0 else ()
    return everywhere([line for file in own if (line := _repair(file, what, fits)) is not None])


def _repair(file: Path, what: str, fits: Fits) -> str | None:
    found, damaged = read(file, fits)
    if damaged or file.is_fifo() or not file.read_bytes().endswith(b"\n"):
        rewrite(file, found)
    if not damaged:
        return None
    which = ", ".join(map(str, damaged[:5])) + ", ..." * (len(damaged) > 5)
    return (
        f"{file.parent.name}/{file.name}: {len(damaged)} of {len(found) + len(damaged)} stored lines of {what} are not "
        f"as this version writes them (line {which}); what they told is made again"
    )


# ---- tensors

Row = dict[str, Tensor]
"""What is kept of one row, by name, on the CPU: each tensor of any shape, without the dimension of rows."""


@dataclass
class Shelf:
    """The tensors of rows by the hash of the row's content: known ones, and where new ones go.

    stem: what its files' names begin with; every process writes files of its own. known: which file holds a row.
    """

    folder: Path
    stem: str
    known: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def found(cls, folder: Path, stem: str) -> Shelf:
        """What an earlier evaluation left there."""
        known: dict[str, Path] = {}
        for path in listed(folder, ".safetensors"):
            if path.name.startswith(f"{stem}.") and intact(path):
                with safe_open(path, "pt") as file:
                    known |= {name.partition("/")[0]: path for name in file.keys()}  # noqa: SIM118 not a mapping
        return cls(folder, stem, known)

    def take(self, key: str) -> Row | None:
        """The row of this content, tensors of any shape by name, or None where it is not there."""
        path = self.known.get(key)
        if path is None or not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{key}/")]  # noqa: SIM118
            return {name.partition("/")[2]: file.get_tensor(name) for name in names}

    def put(self, rows: Mapping[str, Row]) -> None:
        """Keeps these rows, tensors of any shape by name, in one file."""
        number = 0
        while (path := self.folder / f"{self.stem}.{rank()}.{number}.safetensors").exists():
            number += 1
        tensors = {f"{key}/{name}": value for key, row in rows.items() for name, value in row.items()}
        write_tensors(path, tensors, {DIGEST: _digest_of_tensors(tensors)})


def _digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes, types and numbers."""
    named = sorted(tensors.items())
    return digest(
        part
        for name, value in named
        for part in (f"{name} {tuple(value.shape)} {value.dtype}".encode(), tensor_bytes(value))
    )


def intact(path: Path) -> bool:
    """Whether a shelf's file is as it was written."""
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(DIGEST)
            return bool(told == _digest_of_tensors({name: file.get_tensor(name) for name in file.keys()}))  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        return False


def cleared(files: Iterable[Path]) -> list[str]:
    """Removes the files that are not as they were written; a sentence for each. For one process."""
    told = []
    for path in files:
        if not intact(path):
            discard(path)
            told.append(f"{path.parent.name}/{path.name} was not as it was written; its rows are attacked again")
    return told
