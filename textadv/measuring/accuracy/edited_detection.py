"""A detector under attacks by edits: each threshold searched at itself, and what is flagged of the texts found so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from textadv.attacks.edits import EditAttack, Edited, EditedRow, PastThreshold, Status, Victim
from textadv.data import Examples
from textadv.measuring.accuracy.attacked_rows import Finished
from textadv.measuring.accuracy.detection import Limit, Scored, flagged_measures
from textadv.measuring.accuracy.edited import UNCONFIRMED, EditLedger, edit_rows, write_edits
from textadv.measuring.accuracy.edited_record import untried_note
from textadv.measuring.measured import Measure, Measured
from textadv.measuring.sections.edited_detection import EditedDetection, FlaggedShare, Kind, ThresholdSearch
from textadv.models import tempered
from textadv.models.victim import Asked
from textadv.values.digests import digest
from textadv.values.processes import from_shares, own_share, rank
from textadv.values.windows import margins

KINDS: tuple[Kind, ...] = ("recall", "false_positives")
Panel = Mapping[str, tuple[EditAttack, Examples]]
WORST_EDIT, UNEDITED, UNDER_EDIT = "/worst_edit", "/unedited", "/edit/"


@dataclass(frozen=True)
class FoundScores:
    """What edits did to scores, which are in logits that no temperature divides.

    clean: the score of each row as it is, by its id. under: by the attack's name those of its rows, each the lowest (of
    the positive class) or the highest (of others) of all texts that a search of the attack ended with, the row as it is
    among them. searches: at which threshold how many rows were searched.
    """

    clean: Mapping[int, float]
    under: Mapping[str, Mapping[int, float]]
    searches: tuple[ThresholdSearch, ...]


@dataclass(frozen=True)
class DetectorEdits:
    """Attacks by edits on a detector of the class `positive`, at its thresholds.

    limits: the thresholds, in logits that no temperature divides. temperature: by which logits are divided for the
    searches, as for those to another class.
    """

    positive: int
    limits: Sequence[Limit]
    temperature: float = 1.0

    def run(
        self,
        victim: Victim,
        panel: Panel,
        found: Mapping[str, Edited],
        clean: Mapping[int, float],
        finished: Finished | None = None,
        folder: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> FoundScores:
        """The scores that the attacks reach.

        A search for another class ends where the classes are even, which says nothing of a threshold. So each attack
        looks at each threshold for a text on its other side, from the rows on that no text known by then takes there.
        Which side a text is on is asked anew, without temperature.

        found: what the attacks did when they looked for another class. clean: the score of each row as it is, by its
        id. finished: where rows that have ended are kept and read back. folder: gets NAME@SHARE.jsonl for each search.
        In a distributed run every process must call it.
        """
        under: dict[str, dict[int, float]] = {}
        searches = []
        for name, (attack, rows) in panel.items():
            if not attack.goal.stops:
                continue
            own = {row: clean[row] for row in rows.ids}
            self._moved(victim, found[name].rows, own)
            for limit in self.limits:
                edited = self._searched(victim, attack, rows, own, limit, finished)
                reached = self._moved(victim, edited.rows, own)
                edited = replace(edited, rows=tuple(self._confirmed(row, limit, reached) for row in edited.rows))
                if folder is not None and rank() == 0:
                    write_edits(folder / f"{name}@{limit.share:g}.jsonl", edited)
                ended = (len(edited), edited.count(Status.SUCCEEDED), edited.mean_queries, edited.untried)
                searches.append(ThresholdSearch(name, limit.share, *ended))
                told = edited.summary(attack.transformation.by_word) if len(edited) else "no row is left on its side"
                say(f"{name} at the threshold for {100 * limit.share:g} %: {told}")
            under[name] = own
        return FoundScores(clean, under, tuple(searches))

    def _searched(
        self,
        victim: Victim,
        attack: EditAttack,
        rows: Examples,
        scores: Mapping[int, float],
        limit: Limit,
        finished: Finished | None,
    ) -> Edited:
        """The search at one threshold, of the attacked rows that are not on its other side yet."""
        left = [
            n
            for n, (row, label) in enumerate(zip(rows.ids, rows.labels, strict=True))
            if attack.attacks(label) and (scores[row] > limit.value) == (label == self.positive)
        ]
        aimed = replace(attack, goal=PastThreshold(self.positive, limit.value / self.temperature))
        with tempered(victim.model, self.temperature):
            ledger = None if finished is None else EditLedger.of(finished.under(self.temperature), aimed, victim)
            return edit_rows(victim, rows.select(left), aimed, ledger)

    def _moved(self, victim: Victim, rows: Sequence[EditedRow], scores: dict[int, float]) -> dict[int, float]:
        """The scores of edited texts, by the row's id; those further on the way to the other side are taken over."""
        told = [row for row in rows if row.after and row.edited != row.text]
        share = own_share(told, victim.model)
        mine: list[tuple[int, float]] = []
        if share:
            logits = victim.logits([Asked(row.edited, row.pair) for row in share])
            mine = list(zip([row.id for row in share], margins(logits, self.positive).tolist(), strict=True))
        reached = dict(from_shares(mine, victim.model))
        for row in told:
            further = min if row.label == self.positive else max
            scores[row.id] = further(scores[row.id], reached[row.id])
        return reached

    def _confirmed(self, row: EditedRow, limit: Limit, reached: Mapping[int, float]) -> EditedRow:
        """The row, failed where the search says that it succeeded and the score that was asked anew does not."""
        if row.status is not Status.SUCCEEDED or (reached[row.id] > limit.value) != (row.label == self.positive):
            return row
        return replace(row, status=Status.FAILED, reason=UNCONFIRMED)


def with_detected_edits(
    measured: Measured,
    detector: DetectorEdits,
    panel: Panel,
    found: FoundScores,
    files: Mapping[str, Sequence[int]],
    positive: str,
) -> Measured:
    """The record with recall and false positives of each file under each attack by edits and under the worst of them.

    files: the row ids of each, by name. positive: what the class is called.

    The worst edit is over the rows that every attack was run on, and so are the rates of the rows as they are.
    """
    if not found.under:
        return measured
    measures = tuple(_measures(detector, panel, found, files))
    by_id = {measure.id: measure for measure in measures}
    shares = tuple(_shares(detector, found, files, by_id))
    section = EditedDetection(positive, tuple(found.under), shares, found.searches)
    return replace(
        measured,
        measures=(*measured.measures, *measures),
        sections=(*measured.sections, section),
        notes=(*measured.notes, *_untried(found.searches)),
    )


def _untried(searches: Sequence[ThresholdSearch]) -> Iterator[str]:
    """What is to be said of searches that spent their queries before the first edit."""
    for one in searches:
        at = f"{one.name}, at the threshold for {100 * one.share:g} %,"
        yield from untried_note(at, one.untried, one.rows)


def _measures(
    detector: DetectorEdits, panel: Panel, found: FoundScores, files: Mapping[str, Sequence[int]]
) -> Iterator[Measure]:
    labels = {row: label for _, rows in panel.values() for row, label in zip(rows.ids, rows.labels, strict=True)}
    shared = set.intersection(*(set(own) for own in found.under.values()))
    identities = {name: panel[name][0].identity for name in found.under}
    every = digest([str(sorted(identities.items())).encode()])
    # Of rows of a kind that an attack leaves alone it has nothing to say; nor has the worst of what all leave alone.
    sides = {
        name: {label == detector.positive for label in labels.values() if panel[name][0].attacks(label)}
        for name in found.under
    }
    edited = set[bool]().union(*sides.values())
    for file, ids in files.items():
        for name, scores in found.under.items():
            rows = [Scored(row, labels[row] == detector.positive, scores[row]) for row in ids if row in scores]
            rows = [row for row in rows if row.positive in sides[name]]
            told = f" under {name}"
            yield from flagged_measures(file, rows, detector.limits, told, UNDER_EDIT + name, identities[name])
        as_it_is = [Scored(row, labels[row] == detector.positive, found.clean[row]) for row in ids if row in shared]
        as_it_is = [row for row in as_it_is if row.positive in edited]
        told = ", edited rows as they are"
        yield from flagged_measures(file, as_it_is, detector.limits, told, UNEDITED)
        worst = [one._replace(score=_worst(one, found.under)) for one in as_it_is]
        yield from flagged_measures(file, worst, detector.limits, " under the worst edit", WORST_EDIT, every)


def _worst(row: Scored, under: Mapping[str, Mapping[int, float]]) -> float:
    further = min if row.positive else max
    return further(scores[row.id] for scores in under.values())


def _shares(
    detector: DetectorEdits, found: FoundScores, files: Mapping[str, Sequence[int]], by_id: Mapping[str, Measure]
) -> Iterator[FlaggedShare]:
    """The rows of the section's table, from the measures."""
    for limit in detector.limits:
        for file in files:
            for what in KINDS:
                id = f"detection/{file}/{what}@{limit.share:g}"
                if id + UNEDITED not in by_id:
                    continue
                under = {name: by_id[own].rate for name in found.under if (own := f"{id}{UNDER_EDIT}{name}") in by_id}
                rates = (by_id[id + UNEDITED].rate, by_id[id + WORST_EDIT].rate)
                yield FlaggedShare(file, what, limit.share, *rates, under)
