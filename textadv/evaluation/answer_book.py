"""What stands beside every kept answer: the row, its prompt and target, and what each judge said of the answer.

Answers are kept as they are made; all that is known of them only later is written into their file when it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from pydantic_core import to_jsonable_python

from textadv.evaluation.elicitation import Elicitation
from textadv.evaluation.kept_answers import Answer, answer_of, everywhere, files_of
from textadv.evaluation.kept_lines import line_of, read
from textadv.evaluation.refusal import RefusalReport
from textadv.writing import WriteError, write_bytes

Said = tuple[str, str, str]


@dataclass
class AnswerBook:
    """What is known of the answers of one model; `path` is where the first process keeps them.

    asked: by attack (or name of the prompts) and id, the row, prompt and target that a line shows. verdicts: by
    prompt, status and text of an answer, what each judge said, by the judge's name.
    """

    path: Path
    asked: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    verdicts: dict[Said, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def ask(
        self,
        names: Iterable[str],
        prompts: Mapping[int, str],
        targets: Mapping[int, str] = MappingProxyType({}),
        rows: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Takes note of prompts by id, which these attacks, or prompts of this name, ask with.

        targets: what the adversary wants said. rows: the ids of the rows in their data, where the ids are others.
        """
        for name in names:
            for number, prompt in prompts.items():
                told = {"row": rows.get(number, number), "prompt": prompt, "target": targets.get(number)}
                self.asked.setdefault((name, number), told)

    def judged(self, found: Elicitation, prompts: Mapping[int, str]) -> None:
        """Takes note of a judge's verdicts on answers to attacks. prompts: by id."""
        for outcome in found.outcomes:
            for answer in outcome.answers:
                told = {"status": answer.verdict, "broken": answer.broken, "score": answer.score}
                told |= {"reason": answer.reason}
                place = (prompts[outcome.id], answer.status, answer.text)
                # A score that is no number could not be read back.
                self.verdicts.setdefault(place, {})[found.judge] = to_jsonable_python(told, inf_nan_mode="null")

    def graded(self, report: RefusalReport, given: Iterable[Answer]) -> None:
        """Takes note of what became of benign prompts. given: the answers, in the report's order."""
        for row, answer in zip(report.rows, given, strict=True):
            told = {"status": row.status, "outcome": row.outcome, "reason": row.reason, "degenerate": row.flagged}
            self.verdicts.setdefault((row.prompt, answer.status, answer.text), {})[report.grader] = told

    def followed(
        self, prompts: Iterable[str], given: Iterable[Answer], strict: Iterable[Sequence[bool | None]]
    ) -> None:
        """Takes note of the instructions of each prompt that its answer follows; None: one that cannot be checked."""
        for prompt, answer, found in zip(prompts, given, strict, strict=True):
            told = {"followed": None if None in found else all(found), "each": list(found)}
            self.verdicts.setdefault((prompt, answer.status, answer.text), {})["instructions"] = told

    def write(self) -> None:
        """Writes what is known into the lines of this process' file; the first process' into files left by others.

        A file is replaced whole, and only where something changes. Raises WriteError where the system refuses, on every
        process where it refused one of them.
        """
        refused: WriteError | None = None
        try:
            self._write_own()
        except WriteError as error:
            refused = error
        told = [line for line in everywhere(["" if refused is None else str(refused)]) if line]
        if told:
            raise (refused or WriteError(told[0])) from refused

    def _write_own(self) -> None:
        for file in _own_files(self.path):
            lines, _ = read(file)
            written = "".join(f"{line_of(self._told(line))}\n" for line in lines).encode()
            if written != file.read_bytes():
                write_bytes(file, written)

    def note(self) -> str | None:
        """A sentence about lines, made by another version or in a run that was interrupted, that say less."""
        lines = [line for file in files_of(self.path) for line in read(file)[0]]
        foreign = sum(answer_of(line) is None for line in lines)
        bare = sum("prompt" not in line for line in lines) - foreign
        told = [f"{bare} lines name no prompt, target and verdicts: they are read, and get theirs"] if bare else []
        told += [f"{foreign} lines are of another version: what they told is made again"] if foreign else []
        return f"{self.path.parent.name}/{self.path.name}: {'; '.join(told)}" if told else None

    def _told(self, line: Mapping[str, Any]) -> dict[str, Any]:
        answer = answer_of(line)
        asked = None if answer is None else self.asked.get((answer.attack, answer.id))
        if answer is None or asked is None:
            return dict(line)
        known = line.get("verdicts", {}) | self.verdicts.get((asked["prompt"], answer.status, answer.text), {})
        return {"key": line["key"], **asked, "answer": line["answer"], "verdicts": known}


def _own_files(path: Path) -> list[Path]:
    """The files that this process writes: its own, and the first one those of processes that are no more."""
    distributed = torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    numbers = {file: _number(file, path) for file in files_of(path)}
    return [file for file, number in numbers.items() if number == rank or (rank == 0 and number >= world)]


def _number(file: Path, path: Path) -> int:
    """The process that wrote the file."""
    return 0 if file == path else int(file.stem.removeprefix(f"{path.stem}-"))
