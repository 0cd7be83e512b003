"""How far a judge can be believed: measured against people's labels, and kept here for the refusal lists.

The measured counts belong to one version of a judge. Change a list and its numbers here no longer hold: the line beside
a result then says "not measured", and a test asks for new ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from textadv.data import DataError
from textadv.data.characters import Surrogates, unbroken
from textadv.data.tables import read_files
from textadv.measuring.judges.verdicts import Judge, Verdict
from textadv.measuring.rates import rate_text
from textadv.measuring.statistics import Rate, wilson
from textadv.values.host.printable import printable, shortened

XSTEST_SOURCE = "XSTest, 5 chat models on the 250 safe prompts, labels of two annotators (arXiv:2308.01263)"
LABELS = ("1_full_compliance", "2_full_refusal", "3_partial_refusal")


@dataclass(frozen=True)
class Agreement:
    """One version of a judge against people, counted in rows. A partial refusal is a refusal.

    refused_both, complied_both: judge and people agree. false_refusals: only the judge says refused. missed_refusals:
    only people do. undecided: no verdict, which is right in no rate.
    """

    judge: str
    version: str
    source: str
    refused_both: int
    complied_both: int
    false_refusals: int
    missed_refusals: int
    undecided_refused: int = 0
    undecided_complied: int = 0

    @property
    def n(self) -> int:
        """All rows."""
        return self._refused + self._complied

    @property
    def accuracy(self) -> Rate:
        """Rows on which judge and people agree, over all."""
        return wilson(self.refused_both + self.complied_both, self.n)

    @property
    def false_refusal_rate(self) -> Rate:
        """Rows that the judge calls refused, over those that people say complied."""
        return wilson(self.false_refusals, self._complied)

    @property
    def missed_refusal_rate(self) -> Rate:
        """Rows that the judge says complied, over those that people call refused."""
        return wilson(self.missed_refusals, self._refused)

    @property
    def kappa(self) -> float:
        """Cohen's kappa over the decided rows: agreement beyond what the two margins give by chance; nan without."""
        yes, no, only_judge, only_people = (
            self.refused_both,
            self.complied_both,
            self.false_refusals,
            self.missed_refusals,
        )
        total = yes + no + only_judge + only_people
        if total == 0:
            return math.nan
        chance = ((yes + only_judge) * (yes + only_people) + (no + only_people) * (no + only_judge)) / total**2
        return math.nan if chance == 1 else ((yes + no) / total - chance) / (1 - chance)

    @property
    def _refused(self) -> int:
        return self.refused_both + self.missed_refusals + self.undecided_refused

    @property
    def _complied(self) -> int:
        return self.complied_both + self.false_refusals + self.undecided_complied

    def __str__(self) -> str:
        undecided = self.undecided_refused + self.undecided_complied
        return (
            f"{self.judge} ({self.version}): accuracy {rate_text(self.accuracy)}, kappa {self.kappa:.2f}, "
            f"false refusals {rate_text(self.false_refusal_rate)} of {self._complied}, "
            f"missed refusals {rate_text(self.missed_refusal_rate)} of {self._refused}"
            + (f", {undecided} undecided" if undecided else "")
            + f"; {self.source}"
        )


# From `measure` on data/judge_validation/xstest_safe_completions.csv; a test counts them again where the file is.
MEASURED = (
    Agreement("advbench", "98bd239fc422", XSTEST_SOURCE, 212, 862, 93, 83),
    Agreement("xstest", "9883426db639", XSTEST_SOURCE, 219, 911, 44, 76),
    Agreement("harmbench", "68061102d53e", XSTEST_SOURCE, 233, 833, 122, 62),
    Agreement("declines", "8d28ffa853eb", XSTEST_SOURCE, 190, 928, 27, 105),
)

# People's label -> outcome of `refusal.string_outcome` (none, full, partial) with the list `xstest`, same rows.
OUTCOME_COUNTS: dict[str, tuple[int, int, int]] = {
    "1_full_compliance": (911, 38, 6),
    "2_full_refusal": (32, 130, 10),
    "3_partial_refusal": (42, 61, 20),
}


class Labelled(NamedTuple):
    """Responses with what people say of them: one of LABELS each."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def refused(self) -> list[bool]:
        """Refused, in full or in part."""
        return [label != LABELS[0] for label in self.labels]


def load_labelled(path: str | Path, surrogates: Surrogates = "error") -> Labelled:
    """Rows of a file with the columns prompt, completion and final_label.

    surrogates: half characters are an error, or U+FFFD is put in their place. Raises DataError where a column is
    missing, a prompt or completion is no text, or a label is none of LABELS.
    """
    key = "evaluation.judge_validation"
    table = read_files([path], None, key)
    prompts, responses, labels = (table.column(name, key) for name in ("prompt", "completion", "final_label"))
    for row, label in enumerate(labels):
        if label not in LABELS:
            raise DataError(
                f"{key}: row {row} (counted from 0) of {table.place} has label {shortened(repr(label))}; labels are "
                f"{', '.join(LABELS)}. Correct or remove the row."
            )
    texts = {"prompt": prompts, "completion": responses}
    read = {name: _texts(values, f"{key}.{name}", table.place, surrogates) for name, values in texts.items()}
    return Labelled(read["prompt"], read["completion"], tuple(labels))


def _texts(values: Sequence[object], key: str, place: str, surrogates: Surrogates) -> tuple[str, ...]:
    found = []
    for row, value in enumerate(values):
        where = f"{key}: row {row} (counted from 0) of {place}"
        if not isinstance(value, str):
            raise DataError(f"{where} has {printable(repr(value))[:80]}, which is not text. Correct or remove the row.")
        found.append(unbroken(value, where, surrogates))
    return tuple(found)


def measure(judge: Judge, labelled: Labelled, source: str) -> Agreement:
    """The judge against people's labels. source: where the labels come from, in words."""
    verdicts = judge.judge(labelled.prompts, labelled.responses)
    return counted(judge.name, judge.version, source, verdicts, labelled.refused)


def counted(judge: str, version: str, source: str, verdicts: Sequence[Verdict], refused: Sequence[bool]) -> Agreement:
    """Verdicts against people's labels, true where people say that the response refuses."""
    pairs = [(verdict.broken, human) for verdict, human in zip(verdicts, refused, strict=True)]
    return Agreement(
        judge,
        version,
        source,
        refused_both=pairs.count((False, True)),
        complied_both=pairs.count((True, False)),
        false_refusals=pairs.count((False, False)),
        missed_refusals=pairs.count((True, True)),
        undecided_refused=pairs.count((None, True)),
        undecided_complied=pairs.count((None, False)),
    )


def reliability(judge: Judge) -> str:
    """One line to stand beside a result of this judge: how often it agrees with people, where that was measured."""
    known = next((row for row in MEASURED if (row.judge, row.version) == (judge.name, judge.version)), None)
    return f"{judge.name} ({judge.version}): not measured against people" if known is None else str(known)
