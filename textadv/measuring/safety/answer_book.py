"""What stands beside every kept answer: the row, its prompt and target, what each judge said, and what became of it.

Answers are kept as they are made; all that is known of them only later is written into their file when it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from textadv.measuring.judges.refusal import RefusalReport
from textadv.measuring.ledger import read, rewrite
from textadv.measuring.safety.elicitation import BehaviourOutcome, Elicitation
from textadv.measuring.safety.fluency import Messages
from textadv.measuring.safety.kept_answers import (
    Answer,
    Line,
    answer_of,
    as_told,
    files_of,
    line_of_answer,
)
from textadv.values.errors import WriteError
from textadv.values.processes import raise_everywhere

EARLIER = "earlier"
"""Stands in lines that the newest evaluation did not ask for: of other weights, searches or settings."""
SAID = (
    *("sample", "status", "text", "tokens", "thought", "search", "restart", "shared", "key"),
    *("reached", "search_flops", "sampling_flops"),
)
"""What an answer that was judged tells of itself."""


@dataclass(frozen=True)
class Row:
    """What was asked. id: the row's in its data. prompt: as judges see it. target: what the adversary wants said.

    chat: its turns, where these are more than the prompt as a user's first message.
    """

    id: int
    prompt: str
    target: str | None = None
    chat: Messages = ()


@dataclass
class Told:
    """One answer under one attack, or name of prompts. verdicts: by judge. outcome: what became of it, once known."""

    row: Row
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str | None = None


@dataclass
class AnswerBook:
    """What is known of the answers of one model; `path` is where the first process keeps them.

    model: what results call it. told: by key, attack and restart, what this evaluation was answered.
    """

    path: Path
    model: str
    told: dict[Line, Told] = field(default_factory=dict)

    def judged(self, found: Elicitation, rows: Mapping[int, Row]) -> None:
        """Takes note of answers to attacks and of a judge's verdicts on them. rows: by id."""
        for outcome in found.outcomes:
            for said in outcome.answers:
                verdict = {"status": said.verdict, "broken": said.broken, "score": said.score, "reason": said.reason}
                # A score that is no number could not be read back.
                known = self._of(Line(said.key, outcome.attack, said.restart), rows[outcome.id])
                known.verdicts[found.judge] = to_jsonable_python(verdict, inf_nan_mode="null")

    def outcomes(self, found: Elicitation, told: Iterable[Sequence[Sequence[str]]]) -> None:
        """Takes note of what became of answers that were judged. told: by attack and behaviour, of every answer."""
        left = [outcomes for behaviours in told for outcomes in behaviours]
        for outcome, became in zip(found.outcomes, left, strict=True):
            for answer, one in zip(outcome.answers, became, strict=True):
                self.told[Line(answer.key, outcome.attack, answer.restart)].outcome = one

    def carried(self, attack: str, outcome: BehaviourOutcome) -> list[Answer]:
        """The answers of a behaviour that broke under another attack, which counts under this one without being asked.

        They are to be kept: see `Store.share`.
        """
        found = []
        for answer in _answers(outcome):
            known = self.told[line_of_answer(answer)]
            carried = answer.under(attack, answer.restart or 0)
            self.told[line_of_answer(carried)] = known
            found.append(carried)
        return found

    def graded(self, report: RefusalReport, given: Iterable[Answer], rows: Sequence[int]) -> None:
        """Takes note of what became of benign prompts. given, rows: the answers and row ids, in the report's order."""
        for number, row, answer in zip(rows, report.rows, given, strict=True):
            told = {"status": row.status, "outcome": row.outcome, "reason": row.reason, "degenerate": row.flagged}
            known = self._of(line_of_answer(answer), Row(number, row.prompt))
            known.verdicts[report.grader], known.outcome = told, row.outcome

    def followed(
        self,
        prompts: Iterable[str],
        given: Iterable[Answer],
        strict: Iterable[Sequence[bool | None]],
        rows: Iterable[int],
    ) -> None:
        """Takes note of the instructions of each prompt that its answer follows; None: one that cannot be checked."""
        for number, prompt, answer, found in zip(rows, prompts, given, strict, strict=True):
            known = self._of(line_of_answer(answer), Row(number, prompt))
            whole = None if None in found else all(found)
            known.verdicts["instructions"] = {"followed": whole, "each": list(found)}
            known.outcome = None if whole is None else "followed" if whole else "not followed"

    def _of(self, line: Line, row: Row) -> Told:
        return self.told.setdefault(line, Told(row))

    def write(self, *, last: bool = False) -> None:
        """Writes what is known into the lines of this process' file; the first process' into files left by others.

        last: nothing more will be asked, so that lines of other answers say that they are of an earlier evaluation.
        A file is replaced whole, and only where something changes. Raises WriteError where the system refuses, on every
        process where it refused one of them.
        """
        refused: WriteError | None = None
        try:
            for file in files_of(self.path).mine():
                rewrite(file, [self._line(line, last) for line in read(file)[0]])
        except WriteError as error:
            refused = error
        raise_everywhere(refused, WriteError)

    def note(self) -> str | None:
        """A sentence about lines, made by another version or in a run that was interrupted, that say less."""
        lines = [line for file in files_of(self.path).there() for line in read(file)[0]]
        foreign = sum(answer_of(line) is None for line in lines)
        bare = sum("outcome" not in line for line in lines) - foreign
        told = [f"{bare} lines name no prompt, verdicts or outcome: they are read, and get theirs"] if bare else []
        told += [f"{foreign} lines are of another version: what they told is made again"] if foreign else []
        return f"{self.path.parent.name}/{self.path.name}: {'; '.join(told)}" if told else None

    def earlier(self) -> str | None:
        """A sentence about lines of answers that this evaluation, which is over, did not ask for."""
        lines = [line for file in files_of(self.path).there() for line in read(file)[0]]
        left = sum(line.get(EARLIER, False) for line in lines if line.get("model", self.model) == self.model)
        if not left:
            return None
        return (
            f"{self.path.parent.name}/{self.path.name}: {left} of {len(lines)} kept answers are of other weights, "
            f"prompts, searches or settings than these: they were not used, and stay there with {EARLIER}: true"
        )

    def _line(self, line: Mapping[str, Any], last: bool) -> dict[str, Any]:
        answer = answer_of(line)
        if answer is None or line.get("model", self.model) != self.model:
            return dict(line)
        place = self._place(answer)
        if place is None:
            return {**line, EARLIER: True} if last else dict(line)
        told = self.told[place]
        asked: dict[str, Any] = {"row": told.row.id, "prompt": told.row.prompt, "target": told.row.target}
        if told.row.chat:
            asked["chat"] = [dict(turn) for turn in told.row.chat]
        kept = as_told(replace(answer, restart=place.restart))
        outcome = line.get("outcome") if told.outcome is None else told.outcome
        rest = {"answer": kept, "verdicts": line.get("verdicts", {}) | told.verdicts, "outcome": outcome}
        return {"key": place.key, "model": self.model, **asked, **rest}

    def _place(self, answer: Answer) -> Line | None:
        """Under what the answer of a line was asked for, if it was; of one that tells no restart, by key and attack."""
        if answer.restart is None:
            return next((line for line in self.told if line[:2] == (answer.key, answer.attack)), None)
        return line if (line := line_of_answer(answer)) in self.told else None


def _answers(outcome: BehaviourOutcome) -> list[Answer]:
    """The answers that were judged, without what their searches took."""
    return [
        Answer(outcome.id, attack=outcome.attack, **{name: vars(said)[name] for name in SAID})
        for said in outcome.answers
    ]
