"""What a model said to each prompt, and the file that keeps every finished answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from textadv.evaluation.kept_lines import keep, read
from textadv.writing import made

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
    search: what the search for the prompt's perturbation aimed at, in words; "" without one.
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
    search: str = ""


_FIELDS = {field.name for field in fields(Answer)}


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
        """Keeps these answers, on the disk. One that failed is kept until the end of the run, not in the file.

        Raises WriteError where the system refuses.
        """
        self.known |= found
        kept = [{"key": key, "answer": asdict(answer)} for key, answer in found.items() if answer.status != "error"]
        if self.path is not None:
            keep(self.path, kept)


def opened(path: Path | None, model: nn.Module) -> Store:
    """What is in the file and those beside it, on every process, whichever of them can see the files.

    Lines that are not as they were written, or of another version, count for nothing: their answers are made again.
    """
    if path is None:
        return Store(None)
    made(path.parent)
    lines = (told for file in files_of(path) for told in read(file, fits)[0])
    mine = [(told["key"], answer) for told in lines if (answer := answer_of(told)) is not None]
    known = dict(everywhere(mine))
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    own = path if rank == 0 else path.with_name(f"{path.stem}-{rank}{path.suffix}")
    # Under FSDP all processes make the same answers, so one of them writes.
    return Store(None if rank and isinstance(model, FSDPModule) else own, known)


def fits(path: Path, told: Mapping[str, Any]) -> bool:
    """Whether a line tells of an answer as this version keeps them."""
    answer = told.get("answer")
    return isinstance(told.get("key"), str) and isinstance(answer, dict) and set(answer) == _FIELDS


def answer_of(told: Mapping[str, Any]) -> Answer | None:
    """The answer that a line holds; None where another version wrote it, which knew another kind of answer."""
    answer = told.get("answer")
    try:
        return Answer(**answer) if isinstance(told.get("key"), str) and isinstance(answer, dict) else None
    except TypeError:
        return None


def files_of(path: Path) -> list[Path]:
    """A store's file and those that other processes wrote beside it."""
    if not path.parent.is_dir():
        return []
    beside = re.compile(re.escape(path.stem) + r"-\d+" + re.escape(path.suffix))
    return sorted(file for file in path.parent.iterdir() if file == path or beside.fullmatch(file.name))
