"""Files of JSON lines that grow while an evaluation runs; each line carries a digest, by which damage is seen.

A line that is not as it was written counts for nothing: what it told is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from textadv.values.digests import digest
from textadv.values.host.reading import json_of
from textadv.values.host.writing import append_line, write_bytes

DIGEST = "digest"


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


def stored(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose names match, in order; none where it is not there.

    Raises OSError where it cannot be read: what is there would be made again without a word.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    except FileNotFoundError:
        return []


Fits = Callable[[Path, Mapping[str, Any]], bool]
"""Whether a line that is whole can have been written into that file: it may have been put there from another one."""


def anywhere(file: Path, told: Mapping[str, Any]) -> bool:
    """Any line fits."""
    return True


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


def repaired(files: Iterable[Path], what: str, fits: Fits = anywhere) -> list[str]:
    """Takes out of the files what is not as it was written; a sentence for each that held any, on every process.

    Every process must call it, before any of them reads; the first one works. what: the lines tell of, in the plural.

    Raises WriteError where the system refuses.
    """
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    told = [line for file in files if (line := _repair(file, what, fits)) is not None] if first else []
    return told if not torch.distributed.is_initialized() else list(gather_object(told))


def _repair(file: Path, what: str, fits: Fits) -> str | None:
    found, damaged = read(file, fits)
    if damaged or file.is_fifo() or not file.read_bytes().endswith(b"\n"):
        write_bytes(file, "".join(f"{line_of(told)}\n" for told in found).encode())
    if not damaged:
        return None
    which = ", ".join(map(str, damaged[:5])) + ", ..." * (len(damaged) > 5)
    return (
        f"{file.parent.name}/{file.name}: {len(damaged)} of {len(found) + len(damaged)} stored lines of {what} are not "
        f"as this version writes them (line {which}); what they told is made again"
    )
