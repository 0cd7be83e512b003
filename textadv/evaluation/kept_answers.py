"""What a model said to each prompt, and the file that keeps every finished answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from textadv.data import DataError

T = TypeVar("T")
Status = Literal["ok", "truncated", "thinking", "empty", "error"]


@dataclass(frozen=True)
class Answer:
    """What the model said to one prompt.

    status: `ok` where it ended by itself, `truncated` where it did not, `thinking` where it was cut off before an
        answer followed its thought, `empty` where it added nothing but white space or ended with its thought, `error`
        where it could not be made; `reason` then says why.
    text: the prefill and what the model added, without special tokens and thoughts. tokens: how many it added, the
        ending one and those of thoughts included. attack: the name of what was done to the prompt.
    forwards, backwards: passes that finding the perturbation took, counted with the first sample.
    thought: what the model thought, without the marks; see `thoughts.Speech`.
    """

    id: int
    sample: int
    status: Status
    text: str
    tokens: int
    attack: str = ""
    forwards: int = 0
    backwards: int = 0
    reason: str = ""
    thought: str = ""


def everywhere(mine: list[T]) -> list[T]:
    """The items of all processes, those of the first process first."""
    if not torch.distributed.is_initialized():
        return mine
    gathered: list[T] = gather_object(mine)
    return gathered


@dataclass
class Store:
    """Finished answers by content key; `path` is where this process appends, None for nowhere."""

    path: Path | None
    known: dict[str, Answer] = field(default_factory=dict)

    def add(self, found: Mapping[str, Answer]) -> None:
        """Keeps these answers. One that failed is kept until the end of the run, not in the file."""
        self.known |= found
        lines = [
            json.dumps({"key": key, "answer": asdict(answer)}, ensure_ascii=True) + "\n"
            for key, answer in found.items()
            if answer.status != "error"
        ]
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.write("".join(lines))


def opened(path: Path | None, model: nn.Module) -> Store:
    """What is in the file and those beside it, on every process, whichever of them can see the files.

    Raises DataError where the file is damaged.
    """
    if path is None:
        return Store(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = re.compile(re.escape(path.stem) + r"-\d+" + re.escape(path.suffix))
    files = [path] if path.exists() else []
    files += sorted(file for file in path.parent.iterdir() if beside.fullmatch(file.name))
    known = dict(everywhere([item for file in files for item in _read(file)]))
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    own = path if rank == 0 else path.with_name(f"{path.stem}-{rank}{path.suffix}")
    if own.exists():
        _drop_half_line(own)
    # Under FSDP all processes make the same answers, so one of them writes.
    return Store(None if rank and isinstance(model, FSDPModule) else own, known)


def _read(file: Path) -> list[tuple[str, Answer]]:
    """The file's answers by key. A last line without its end was cut off by an interruption and does not count."""
    *lines, _ = file.read_text(encoding="utf-8").split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found.append((str(record["key"]), Answer(**record["answer"])))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{file}, line {number} is not a stored answer ({error}). Delete that line: its answer is made again."
            ) from error
    return found


def _drop_half_line(file: Path) -> None:
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(file, "r+b") as open_file:
            open_file.truncate(whole)
