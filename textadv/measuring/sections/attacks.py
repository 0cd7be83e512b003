"""What each attack was allowed to do, how it searched, and what that took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from textadv.measuring.blocks import Block, Bullets, Grid, Text
from textadv.measuring.rates import MISSING
from textadv.values.flops import Flops, flops_text

FLOPS = ("searches: forward FLOPs", "searches: backward FLOPs", "answers: FLOPs")
COLUMNS = ("forwards", "backwards", *FLOPS, "seconds", "norm / radius")
FLOPS_TOLD = (
    "FLOPs: two for each token that went through the model and each parameter but those of its input embeddings, "
    "forward, and as many backward to what went through; cached tokens were not sent. Answers take prompt and written "
    "tokens. They are what the attack takes by itself, what another one was answered already included; passes count "
    "where they were made."
)


@dataclass(frozen=True)
class AttackRun:
    """One attack on one model, or what else took time; None where a figure is not known.

    threat, attack: the threat model and the attack as printed, "" of what is no attack. radius: absolute, in the unit
    of the threat model's norm; relative_radius: in units of the mean embedding norm. forwards, backwards: passes of one
    row through the model, and through the other one where the attack is transferred; seconds: wall clock.
    norm_ratio: mean norm / radius of the rows that it broke.
    search_flops, answer_flops: floating-point operations of its searches and of the answers to them; None: no such
    attack. uncounted: answers that nobody counted, which are in neither.
    """

    name: str
    threat: str = ""
    attack: str = ""
    radius: float | None = None
    relative_radius: float | None = None
    forwards: int | None = None
    backwards: int | None = None
    seconds: float | None = None
    norm_ratio: float | None = None
    search_flops: Flops | None = None
    answer_flops: Flops | None = None
    uncounted: int = 0

    @property
    def line(self) -> str:
        """The attack as a line of text."""
        return f"{self.name}: {self.threat}; attack: {self.attack}" if self.threat else f"{self.name}: {self.attack}"

    @property
    def cells(self) -> list[str]:
        """What it took, as text in the order of `COLUMNS`."""
        counts = [MISSING if count is None else f"{count:,}" for count in (self.forwards, self.backwards)]
        seconds = MISSING if self.seconds is None else f"{self.seconds:,.1f}"
        ratio = MISSING if self.norm_ratio is None else f"{self.norm_ratio:.2f}"
        return [*counts, *self._flops, seconds, ratio]

    @property
    def _flops(self) -> list[str]:
        if self.search_flops is None or self.answer_flops is None:
            return [MISSING] * len(FLOPS)
        search, answers = self.search_flops, self.answer_flops
        back = replace(search, forward=0).total
        more = f" ({self.uncounted:,} answers not measured)" if self.uncounted and answers.total is not None else ""
        return [flops_text(search.forward), flops_text(back), flops_text(answers.total) + more]


@dataclass(frozen=True)
class Attacks:
    """The panel. meaning: what its worst case stands for, or "". others: what else took passes or time."""

    title: ClassVar[str] = "Threat model and attacks"
    place: ClassVar[int] = 50
    attacks: tuple[AttackRun, ...]
    meaning: str = ""
    others: tuple[AttackRun, ...] = ()
    kind: Literal["attacks"] = "attacks"

    @staticmethod
    def blocks(models: Mapping[str, Attacks]) -> list[Block]:
        """The attacks once each, and what they spent on each model; columns that nobody fills are left out.

        The norm is that of the successful rows: well below the radius, the attack could have gone further.
        """
        panels = models.values()
        lines = [run.line for panel in panels for run in panel.attacks]
        lines += [f"Worst case over attacks: {panel.meaning}" for panel in panels if panel.meaning and panel.attacks]
        spent = [(name, run) for name, panel in models.items() for run in (*panel.attacks, *panel.others)]
        rows = [[name, run.name, *run.cells] for name, run in spent if set(run.cells) != {MISSING}]
        if not lines:
            return []
        kept = [n for n, _ in enumerate(COLUMNS, 2) if any(row[n] != MISSING for row in rows)]
        table = [[row[n] for n in (0, 1, *kept)] for row in (["model", "attack", *COLUMNS], *rows)]
        caption = "What each attack spent, in passes of one row"
        ratio = 2 + COLUMNS.index("norm / radius")
        caption += (
            ", and the mean norm of its successful perturbations" if ratio in kept else ", and what measuring took"
        )
        blocks: list[Block] = [Bullets(tuple(dict.fromkeys(lines)))]
        blocks += [Grid(table, caption)] if rows else []
        return [*blocks, *([Text(FLOPS_TOLD)] if any(run.answer_flops is not None for _, run in spent) else [])]
