"""Rows of a classifier under attacks that edit their texts: shared out, written down as they end, asked anew, told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from textadv.attacks.edits import EditAttack, Edited, EditedRow, Status, Victim
from textadv.data import Examples
from textadv.measuring.accuracy.attacked_rows import Finished, of_its_ledger
from textadv.measuring.identity import key_of
from textadv.measuring.ledger import keep
from textadv.models.victim import Asked
from textadv.values.digests import digest
from textadv.values.host.writing import write_text
from textadv.values.processes import from_shares, own_share, rank

UNCONFIRMED = "asked again, the model gives another class"


@dataclass
class EditLedger:
    """The ended rows of one attack by edits: known ones by their content, and the file that new ones go to."""

    path: Path
    key: str
    attack: str
    known: dict[str, dict[str, Any]] = field(repr=False)

    @classmethod
    def of(cls, finished: Finished, attack: EditAttack, victim: Victim) -> EditLedger:
        """That of this attack on this model. In a distributed run every process must call it."""
        key = key_of(finished.origin, "edits", attack.identity, attack.reading, victim.reading)
        files = finished.files(key)
        told = files.read_back(of_its_ledger)
        known = {row: found for lines in told for line in lines for row, found in line["edited"].items()}
        return cls(files.own, key, attack.name, known)

    def look_up(self, rows: Examples, place: int) -> EditedRow | None:
        """The row as it ended; None where it is not known."""
        found = self.known.get(_row_digest(rows, place))
        if found is None:
            return None
        more = {"status": Status(found["status"]), "before": tuple(found["before"]), "after": tuple(found["after"])}
        return EditedRow(**(found | more))

    def write(self, rows: Examples, place: int, row: EditedRow) -> None:
        """Appends a row that has ended. Raises WriteError where the system refuses.

        What JSON cannot hold is not written: a logit that is no number. That row is attacked again.
        """
        if all(map(math.isfinite, (*row.before, *row.after))):
            told = vars(row) | {"status": row.status.value}
            line = {"ledger": self.key, "attack": self.attack, "edited": {_row_digest(rows, place): told}}
            keep(self.path, [line])


def _row_digest(rows: Examples, place: int) -> str:
    pair = None if rows.pairs is None else rows.pairs[place]
    return digest([json.dumps([rows.ids[place], rows.labels[place], rows.texts[place], pair]).encode()])[:32]


def edit_rows(victim: Victim, rows: Examples, attack: EditAttack, ledger: EditLedger | None = None) -> Edited:
    """What the attack does to the rows, in their order.

    What the attack says about its success is not believed: the edited texts are tokenised and asked for anew, and the
    classes that come of it are those of the result. ledger: rows that it knows are not attacked again, and each row is
    written to it as it ends. In a distributed run every process must call it: each takes a share, all get the whole.
    """
    known = {} if ledger is None else {n: row for n in range(len(rows)) if (row := ledger.look_up(rows, n)) is not None}
    places = own_share([n for n in range(len(rows)) if n not in known], victim.model)
    by_id = {rows.ids[place]: place for place in places}

    def ended(row: EditedRow) -> None:
        if ledger is not None:
            ledger.write(rows, by_id[row.id], row)

    fresh = attack(victim, rows.select(places), found=ended).rows if places else ()
    known |= dict(from_shares(list(zip(places, fresh, strict=True)), victim.model))
    share = own_share(list(range(len(rows))), victim.model)
    asked = _asked_anew(victim, [known[n] for n in share])
    found = dict(from_shares(list(zip(share, asked, strict=True)), victim.model))
    return Edited(tuple(found[n] for n in range(len(rows))), attack.identity)


def _asked_anew(victim: Victim, rows: list[EditedRow]) -> list[EditedRow]:
    """The rows with the logits of their edited texts as the model gives them now."""
    places = [n for n, row in enumerate(rows) if row.after]
    if not places:
        return rows
    logits = victim.logits([Asked(rows[n].edited, rows[n].pair) for n in places]).tolist()
    found = list(rows)
    for place, own in zip(places, logits, strict=True):
        row, again = rows[place], replace(rows[place], after=tuple(own))
        if again.prediction != row.prediction and row.status is Status.SUCCEEDED:
            again = replace(again, status=Status.FAILED, reason=UNCONFIRMED)
        found[place] = again
    return found


def write_edits(path: Path, edited: Edited) -> None:
    """Writes a line of JSON for each row: text and edited text, status and reason, classes, logits, queries, words.

    Raises WriteError where the system refuses.
    """
    write_text(path, "".join(f"{json.dumps(_line(row), ensure_ascii=True)}\n" for row in edited.rows))


def _line(row: EditedRow) -> dict[str, Any]:
    finite = {
        name: [number if math.isfinite(number) else None for number in numbers]
        for name, numbers in (("before", row.before), ("after", row.after))
    }
    classes = {"predicted_before": row.predicted_before, "prediction": row.prediction}
    return vars(row) | finite | {"status": row.status.value} | classes


@dataclass(frozen=True)
class EditPanel:
    """Attacks by edits with the rows of each, by name."""

    attacks: Mapping[str, tuple[EditAttack, Examples]]

    def run(
        self,
        victim: Victim,
        finished: Finished | None = None,
        folder: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[str, Edited]:
        """What each did, by name.

        finished: where rows that have ended are kept and read back. folder: gets a file NAME.jsonl for each attack.
        In a distributed run every process must call it.
        """
        found = {}
        for name, (attack, rows) in self.attacks.items():
            ledger = None if finished is None else EditLedger.of(finished, attack, victim)
            found[name] = edit_rows(victim, rows, attack, ledger)
            if folder is not None and rank() == 0:
                write_edits(folder / f"{name}.jsonl", found[name])
            say(f"{name}: {found[name].summary(attack.transformation.by_word)}")
        return found
