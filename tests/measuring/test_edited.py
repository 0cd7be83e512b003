"""Attacks by edits in an evaluation: numbers worked out by hand, resumed and shared rows, and texts of every kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

from tests.attacks.edits.toys import drawn
from tests.attacks.edits.toys import victim as toy
from tests.edited import die_after_writing
from tests.processes import worked, worked_in_two
from textadv.attacks.edits import (
    Beam,
    EditAttack,
    Edited,
    Exhaustive,
    Genetic,
    Greedy,
    NotTwice,
    Synonyms,
    Victim,
    WordTable,
    deepwordbug,
    input_reduction,
    padding,
    rot13,
)
from textadv.attacks.edits.attack import Search
from textadv.data import Examples
from textadv.measuring import Finished, Measured
from textadv.measuring.accuracy.edited import UNCONFIRMED, EditLedger, EditPanel, edit_rows
from textadv.measuring.accuracy.edited_record import with_edits
from textadv.measuring.blocks import Grid, Picture
from textadv.measuring.sections.edits import Edits
from textadv.models.victim import Asked
from textadv.values.processes import rank

WEIGHTS = {"good": 1.0, "bad": -1.0, "great": 5.0, "fine": 4.0, "film": 0.5, "dull": -2.0, "grey": -1.5}
TABLE = WordTable("toy", {"good": ("bad",), "great": ("fine",), "dull": ("grey",)})
SWAPS = EditAttack(Synonyms(TABLE), Greedy("delete"), (NotTwice(),), name="swaps")
# By hand: the first falls to "bad film" (-0.5), the second only to "fine film" (4.5), the third is wrong as it is, the
# fourth is right and has no synonym, the fifth only falls to -1.5.
TEXTS = ("good film", "great film", "bad", "film", "dull")
ROWS = Examples(TEXTS, None, (1, 1, 1, 1, 0), (10, 11, 12, 13, 14))


def mixed(count: int = 24) -> Examples:
    """Rows of both classes that toys have right, wrong and out of reach."""
    texts = tuple(f"{TEXTS[n % 5]} {'film ' * (n % 4)}w{chr(97 + n)}".strip() for n in range(count))
    return Examples(texts, None, tuple(int(n % 5 != 4) for n in range(count)), tuple(range(100, 100 + count)))


def record(name: str, own: Victim, attacks: dict[str, EditAttack], rows: Examples = ROWS) -> Measured:
    """What the edits add to an empty record."""
    panel = {key: (attack, rows) for key, attack in attacks.items()}
    return with_edits(Measured(name, ()), panel, EditPanel(panel).run(own))


def test_the_numbers_by_hand() -> None:
    own = toy(WEIGHTS)
    nothing = replace(SWAPS, transformation=Synonyms(WordTable("none", {"great": ("fine",)})), name="nothing")
    found = record("toy", own, {"swaps": SWAPS, "nothing": nothing})
    held = {measure.id: measure.rows for measure in found.measures if measure.rows}
    assert held["edits/clean"] == (1, 1, 0, 1, 1)
    assert held["edits/robust/swaps"] == held["edits/worst"] == (0, 1, 0, 1, 1)
    assert held["edits/robust/nothing"] == (1, 1, 0, 1, 1)
    assert (found["edits/success/swaps"].rate.count, found["edits/success/swaps"].total) == (1, 4)
    # The row itself, it without each of its words, and the synonym where there is one.
    assert found["edits/queries/swaps"].value == (4 + 4 + 2 + 3) / 4
    assert found["edits/words_changed/swaps"].value == (1 / 2 + 1 / 2 + 0 + 1) / 4
    told = Edited((), "x")
    assert "of words changed" in told.summary() and "words" not in told.summary(by_word=False)
    coded = record("toy", own, {"coded": rot13()})
    assert not any(measure.id.startswith("edits/words_changed") for measure in coded.measures)
    section = found.section(Edits)
    assert section is not None and [row.id for row in section.runs[0].rows] == [10, 11, 12, 13, 14]
    assert [row.status for row in section.runs[0].rows] == ["succeeded", "failed", "skipped", "failed", "failed"]
    assert not any(measure.id.startswith("accuracy/") for measure in found.measures)
    assert found.notes == (
        "nothing broke none of 4 rows, by the class that the model says; check that the attack works before reading "
        "this as robustness.",
    )
    both = record("toy", own, {"nothing": nothing, "less": replace(nothing, name="less"), "swaps": SWAPS})
    assert len(both.notes) == 1 and both.notes[0].startswith("nothing, less broke none of 4 rows each, by the class")


def test_rows_on_which_no_edit_was_tried_are_counted_and_told() -> None:
    """Of one query none is left for an edit, of two one is. "film" has none that could be tried."""
    one = record("toy", toy(WEIGHTS), {"swaps": replace(SWAPS, queries=1)})
    assert one.notes[0] == (
        "swaps tried no edit on 3 of 4 rows: their queries were spent before the first edit. They count as they are, "
        "which says nothing of robustness; raise its queries."
    )
    section = one.section(Edits)
    assert section is not None
    ended = next(block for block in Edits.blocks({"toy": section}) if isinstance(block, Grid))
    assert ended.rows[1][2:5] == ["0", "1", "0"] and "; 3 no edit was tried: 1 query" in f"; {ended.rows[1][5]}"
    assert one["edits/success/swaps"].total == 1, "what was not tried is no failure of the attack"
    two = record("toy", toy(WEIGHTS), {"swaps": replace(SWAPS, queries=2)})
    assert not any("tried no edit" in note for note in two.notes)


def test_an_attack_on_more_rows_says_what_is_right_of_them_without_it() -> None:
    few = EditPanel({"some": (SWAPS, ROWS.select([2, 3])), "all": (SWAPS, ROWS)})
    found = with_edits(Measured("toy", ()), few.attacks, few.run(toy(WEIGHTS)))
    assert found["edits/clean"].note == "over the 2 rows that every attack by edits was run on"
    assert found["edits/robust/all"].note == (
        "over the 5 rows of that attack, of which 80.0 % are right without an edit"
    )
    assert found["edits/robust/some"].note == ""
    # 3 of 5 hold, which is more than the 1 of 2 that are right of the rows that both have.
    assert found["edits/robust/all"].value > found["edits/clean"].value


def test_rows_of_other_classes_count_as_they_are() -> None:
    found = record("toy", toy(WEIGHTS), {"swaps": replace(SWAPS, labels=(0,))})
    assert found["edits/robust/swaps"].rows == (1, 1, 0, 1, 1)
    assert found["edits/success/swaps"].total == 1


def test_what_breaks_no_row_is_in_no_worst_case() -> None:
    found = record("toy", toy(WEIGHTS), {"less": input_reduction()})
    assert found.measure("edits/robust/less") is None and found.measure("edits/worst") is None
    assert found["edits/success/less"].rate.count == 2, "good film and great film are left with a word"


def test_models_are_compared_on_the_rows_that_all_get_right() -> None:
    first, second = (record(name, toy(weights), {"swaps": SWAPS}) for name, weights in models())
    sections = {found.name: section for found in (first, second) if (section := found.section(Edits))}
    shared = next(
        block for block in Edits.blocks(sections) if isinstance(block, Grid) and "all get right" in block.caption
    )
    # The second model has "film" wrong and holds "good film"; both are right about good film, great film and dull.
    assert shared.rows[1][:2] == ["swaps", "3"]
    assert [cell.split()[0] for cell in shared.rows[1][2:]] == ["66.7", "100.0"]


def models() -> list[tuple[str, dict[str, float]]]:
    return [("first", WEIGHTS), ("second", WEIGHTS | {"bad": 3.0, "film": -0.5})]


def test_accuracy_by_queries_goes_from_clean_to_the_end() -> None:
    found = record("toy", toy(WEIGHTS), {"swaps": SWAPS})
    section = found.section(Edits)
    assert section is not None
    (run,) = section.runs
    broken = next(row for row in run.rows if row.status == "succeeded")
    counts = {budget: run.within(budget).count for budget in (1, broken.found_at - 1, broken.found_at, 99)}
    assert counts == {1: 4, broken.found_at - 1: 4, broken.found_at: 3, 99: 3}
    assert any(isinstance(block, Picture) for block in Edits.blocks({"toy": section}))


@pytest.mark.parametrize(
    ("search", "least"),
    [(Greedy("gradient"), 1), (Greedy("unk"), 7), (Beam(2, 2), 1), (Exhaustive(1), 1), (Genetic(6, 2), 1)],
    ids=repr,
)
def test_accuracy_by_queries_is_that_of_searches_that_may_take_so_many(search: Search, least: int) -> None:
    """Texts go out together, and a row falls with the first of them that breaks it, not with the last.

    least: below that a search of three words that ranks them has too few queries for each, and ranks them in groups.
    """
    toy_words = drawn(3, words=6, synonyms=3)
    names = list(toy_words.table)
    texts = tuple(" ".join(names[place] for place in (n % 6, (n + 1 + n // 6) % 6, (3 * n) % 6)) for n in range(9))
    own = toy(toy_words.weights)
    labels = tuple(own.logits([Asked(text) for text in texts]).argmax(dim=1).tolist())
    rows = Examples(texts, None, labels, tuple(range(9)))
    whole = EditAttack(Synonyms(WordTable("toy", toy_words.table)), search, (NotTwice(),))
    section = record("toy", own, {"whole": whole}, rows).section(Edits)
    assert section is not None
    (run,) = section.runs
    budgets = range(1, 1 + max(row.queries for row in run.rows))
    counts = [run.within(budget).count for budget in budgets]
    searched = [sum(replace(whole, queries=budget)(own, rows).robust) for budget in budgets]
    assert counts[least - 1 :] == searched[least - 1 :]
    assert all(own <= curve for own, curve in zip(searched, counts, strict=True)), "groups get there no later"
    assert len(set(counts)) > 3


class Sleeper(Victim):
    """Says something else of a text each time it is asked: no prediction of its stays."""

    def logits(self, asked):  # type: ignore[no-untyped-def]  # as `Victim.logits`
        found = super().logits(asked)
        again = [one.text in SEEN for one in asked]
        SEEN.update(one.text for one in asked)
        return found * (1 - 2 * found.new_tensor(again).unsqueeze(1))


SEEN: set[str] = set()


def test_what_the_attack_says_is_asked_anew() -> None:
    SEEN.clear()
    own = toy(WEIGHTS)
    edited = edit_rows(Sleeper(own.model, own.tokenizer), ROWS.select([0]), SWAPS)
    assert (edited.rows[0].status.value, edited.rows[0].reason) == ("failed", UNCONFIRMED)


def test_the_text_that_is_returned_gives_the_prediction_that_is_claimed() -> None:
    own = toy(WEIGHTS, letters=True)
    for row in edit_rows(own, mixed(), deepwordbug(queries=60)).rows:
        assert row.prediction == int(own.logits([Asked(row.edited)]).argmax())


# ---- resumed, and shared


def kept(folder: Path, attack: EditAttack = SWAPS) -> tuple[Edited, int]:
    """The rows of an evaluation that keeps them there, and how many were attacked in it."""
    begun: list[int] = []
    own, finished = toy(WEIGHTS), Finished(folder, ("weights",))
    ledger = EditLedger.of(finished, attack, own)
    edited = edit_rows(own, mixed(), attack, ledger)
    begun += [row.id for n, row in enumerate(edited.rows) if ledger.look_up(mixed(), n) is None]
    return edited, len(begun)


def die_after(folder: str, rows: str) -> None:
    """Ends the process without any clean-up once so many rows are written."""
    die_after_writing(int(rows))
    kept(Path(folder), replace(SWAPS, together=4))


@pytest.mark.parametrize("rows", [1, 13])
def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path: Path, rows: int) -> None:
    assert worked(die_after, tmp_path, rows).returncode == 9
    plain, _ = kept(tmp_path / "plain")
    again, attacked = kept(tmp_path)
    assert again == plain and attacked == 24 - rows
    assert kept(tmp_path) == (plain, 0)


def test_another_attack_model_or_length_reads_nothing_of_it(tmp_path: Path) -> None:
    kept(tmp_path)
    own, finished = toy(WEIGHTS), Finished(tmp_path, ("weights",))
    others = [
        (finished, replace(SWAPS, seed=1), own),
        (finished, replace(SWAPS, queries=9), own),
        (finished, SWAPS, replace(own, max_length=9)),
        (finished, SWAPS, toy(WEIGHTS | {"more": 0.0})),
        (Finished(tmp_path, ("other weights",)), SWAPS, own),
        (finished.under(1.5), SWAPS, own),
    ]
    assert not any(EditLedger.of(*other).known for other in others)
    assert len(EditLedger.of(finished, replace(SWAPS, together=3), own).known) == 24


def test_a_damaged_line_is_made_again(tmp_path: Path) -> None:
    plain, _ = kept(tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([lines[0].replace("film", "firm"), *lines[1:]]), encoding="utf-8")
    (told,) = Finished(tmp_path, ()).repaired()
    assert "1 of 24 stored lines" in told
    assert kept(tmp_path) == (plain, 1)


def in_two(folder: str) -> None:
    """One of two processes: attacks its share, and the first tells what all of it is."""
    Accelerator(cpu=True)
    own, rows = toy(WEIGHTS), mixed()
    panel = EditPanel({"swaps": (SWAPS, rows), "letters": (deepwordbug(queries=30), rows)})
    found = panel.run(own, Finished(Path(folder, "rows"), ("weights",)), Path(folder, f"told{rank()}"))
    Path(folder, f"seen{rank()}").write_text(repr(found), encoding="utf-8")


def test_two_processes_share_the_rows_and_both_know_all(tmp_path: Path) -> None:
    worked_in_two(in_two, tmp_path)
    rows = mixed()
    alone = EditPanel({"swaps": (SWAPS, rows), "letters": (deepwordbug(queries=30), rows)})
    found = alone.run(toy(WEIGHTS), None, tmp_path / "alone")
    assert (tmp_path / "seen0").read_text() == (tmp_path / "seen1").read_text() == repr(found)
    assert not (tmp_path / "told1").exists(), "one process writes"
    for name in found:
        told = (tmp_path / "told0" / f"{name}.jsonl").read_text(encoding="utf-8")
        assert told == (tmp_path / "alone" / f"{name}.jsonl").read_text(encoding="utf-8")
    each = [len(file.read_text(encoding="utf-8").splitlines()) for file in (tmp_path / "rows").glob("*.jsonl")]
    assert each == [12, 12, 12, 12], "no row twice, none left out"
    again, attacked = kept(tmp_path / "rows")
    assert again == found["swaps"] and attacked == 0, "one process reads what two wrote"


# ---- texts of every kind

ODD = {
    "empty": "",
    "blank": " \n\t",
    "one letter": "a",
    "right to left": "\u05e1\u05e8\u05d8 \u05d8\u05d5\u05d1",
    "Chinese": "\u9019\u90e8\u96fb\u5f71\u5f88\u597d",
    "emoji": "\U0001f44d\U0001f3fd \U0001f600\u200d\U0001f525",
    "stop words": "the and of it",
    "half a character": "good \ud83d film",
    "long": "good film " * 5000,
    "control": "good\x00film \x1b[31m",
}


@pytest.mark.parametrize(
    "attack", [deepwordbug(queries=20), SWAPS, padding(), input_reduction(queries=20)], ids=lambda attack: attack.name
)
def test_every_text_has_a_status(tmp_path: Path, attack: EditAttack) -> None:
    own = toy(WEIGHTS | {"": 0.2}, letters=True, max_length=16)
    rows = Examples(tuple(ODD.values()), None, (0, 0, 0, 0, 0, 0, 0, 1, 1, 0), tuple(range(len(ODD))))
    panel = EditPanel({"odd": (attack, rows)})
    found = panel.run(own, Finished(tmp_path / "rows", ()), tmp_path)["odd"]
    ended = dict(zip(ODD, found.rows, strict=True))
    assert ended["empty"].reason == ended["blank"].reason == "the text is empty"
    assert ended["half a character"].reason.startswith("it has half of a character")
    assert all(row.reason for row in found.rows if row.status.value == "skipped")
    lines = [json.loads(line) for line in (tmp_path / "odd.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == list(ODD.values())
    assert [line["status"] for line in lines] == [row.status.value for row in found.rows]
    again = panel.run(own, Finished(tmp_path / "rows", ()), tmp_path)["odd"]
    assert again == found
