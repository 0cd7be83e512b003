"""A classifier as a detector: its rows scored, clean and under an attack, at thresholds chosen on benign rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from textadv.attacks import Attack, ThreatModel
from textadv.data import Rows
from textadv.measuring.accuracy.attacked_rows import Finished
from textadv.measuring.accuracy.attacking import attack_rows, clean_logits
from textadv.measuring.accuracy.detection import Scored, Threshold, by_file, threshold, threshold_doubts
from textadv.measuring.measured import Measured
from textadv.measuring.sections.detection import ChosenThreshold, Detection
from textadv.measuring.statistics import no_better_than
from textadv.training.progress import Scores
from textadv.values.windows import margins

ATTACKED = "attack"


@dataclass(frozen=True)
class Detector:
    """What is looked for, and how it is measured.

    positive: the class id. shares: of benign rows that may be flagged, one for each threshold. benign: the benign rows
    that thresholds are chosen on, with their positions. chosen_on: what these are, in words. attack: under which rows
    are scored again, to its end, since a row that is answered wrongly may still be above a threshold; None: none.
    """

    positive: int
    shares: tuple[float, ...]
    benign: tuple[tuple[Rows, tuple[int, ...]], ...]
    chosen_on: str
    attack: Attack | None = None

    def benign_scores(self, model: nn.Module, batch_size: int) -> list[float]:
        """The scores of the benign rows."""
        return [
            score
            for rows, positions in self.benign
            if positions
            for score in margins(clean_logits(model, rows, positions, batch_size), self.positive).tolist()
        ]

    def thresholds(self, model: nn.Module, batch_size: int = 64) -> tuple[list[Threshold], list[float]]:
        """The threshold for each share, and the scores that they were chosen on."""
        scores = self.benign_scores(model, batch_size)
        return [threshold(scores, share) for share in self.shares], scores

    def attacked(
        self,
        model: nn.Module,
        rows: Rows,
        positions: Sequence[int],
        threat: ThreatModel,
        batch_size: int = 64,
        finished: Finished | None = None,
    ) -> dict[int, float]:
        """The score of each row under the attack, by position."""
        assert self.attack is not None
        threat = threat.resolved(model)
        ledger = None if finished is None else finished.ledger(self.attack, threat, "score", self.positive)
        hits = attack_rows(
            model,
            rows,
            positions,
            self.attack,
            batch_size,
            threat=threat,
            ledger=ledger,
            scored=self.positive,
            name="detection",
        )
        return {hit.position: hit.score for hit in hits if hit.score is not None}


def with_detection(
    measured: Measured,
    detector: Detector,
    model: nn.Module,
    rows: Rows,
    files: Mapping[str, Sequence[int]],
    tested: Sequence[int],
    threat: ThreatModel,
    *,
    positive: str,
    batch_size: int = 64,
    finished: Finished | None = None,
) -> Measured:
    """The record with recall and false positives of each file at each threshold: of all its rows without an attack,
    and of those at `tested` under the detector's. positive: the name of the class."""
    limits, benign = detector.thresholds(model, batch_size)
    positions = [position for own in files.values() for position in own]
    clean = margins(clean_logits(model, rows, positions, batch_size), detector.positive).tolist()
    scores = dict(zip(positions, clean, strict=True))

    def scored(found: Mapping[int, float]) -> dict[str, list[Scored]]:
        return {
            file: [Scored(rows.ids[p], rows.labels[p] == detector.positive, found[p]) for p in own if p in found]
            for file, own in files.items()
        }

    measures = by_file(scored(scores), limits)
    if detector.attack is not None:
        under = detector.attacked(model, rows, tested, threat, batch_size, finished)
        measures += by_file(scored(under), limits, ATTACKED)
    section = Detection(
        positive,
        detector.chosen_on,
        tuple(ChosenThreshold(one.share, one.value, one.flagged, one.rows) for one in limits),
        "" if detector.attack is None else str(detector.attack),
    )
    return replace(
        measured,
        measures=(*measured.measures, *measures),
        sections=(*measured.sections, section),
        notes=(*measured.notes, *threshold_doubts(limits, benign)),
    )


def detection_scores(
    detector: Detector,
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    threat: ThreatModel,
    batch_size: int = 64,
) -> Scores:
    """Recall of the positive rows at `positions` at the first threshold, clean and under the detector's attack.

    A model that flags as many benign rows as positive ones, all or none of them, counts as collapsed.
    """
    limits, _ = detector.thresholds(model, batch_size)
    limit = limits[0]
    wanted = [position for position in positions if rows.labels[position] == detector.positive]
    clean = margins(clean_logits(model, rows, wanted, batch_size), detector.positive).tolist()
    found = sum(score > limit.value for score in clean)
    robust = None
    if detector.attack is not None:
        under = detector.attacked(model, rows, wanted, threat, batch_size)
        robust = sum(score > limit.value for score in under.values()) / len(wanted)
    meaning = f"recall at {100 * limit.share:g} % false positives"
    return Scores(found / len(wanted), robust, no_better_than(found, len(wanted), limit.share), None, meaning)
