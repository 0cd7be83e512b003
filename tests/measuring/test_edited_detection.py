"""A detector under edits: brute force at each threshold, numbers by hand, resumed rows, two processes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tests.attacks.edits.toys import Toy, drawn
from tests.attacks.edits.toys import victim as toy
from tests.edited import die_after_writing
from tests.processes import worked, worked_in_two
from textadv.attacks.edits import (
    EditAttack,
    Exhaustive,
    Greedy,
    NotTwice,
    PastThreshold,
    Synonyms,
    Victim,
    WordTable,
    input_reduction,
)
from textadv.data import Examples
from textadv.measuring import Finished, Measured
from textadv.measuring.accuracy.detection import Threshold
from textadv.measuring.accuracy.edited import UNCONFIRMED, EditPanel
from textadv.measuring.accuracy.edited_detection import DetectorEdits, FoundScores, with_detected_edits
from textadv.measuring.blocks import Grid
from textadv.measuring.sections.edited_detection import EditedDetection
from textadv.models import tempered
from textadv.models.victim import Asked
from textadv.values.processes import rank
from textadv.values.windows import margins

POSITIVE = 1
WEIGHTS = {"send": 3.0, "post": 1.0, "keys": 3.0, "locks": 1.0, "now": -1.5, "mail": -2.0, "note": 1.0, "hello": -6.0}
SYNONYMS = {"send": ("post",), "keys": ("locks",), "mail": ("note",), "hello": ("note",)}
SWAPS = EditAttack(Synonyms(WordTable("toy", SYNONYMS)), Greedy("delete"), (NotTwice(),), name="swaps")
# By hand, the score as it is -> the lowest or, of class 0, the highest by swaps: 6 -> 2, 3 -> 1, 1.5 -> -0.5,
# -1.5 -> -1.5; of class 0 -2 -> 1, -3.5 -> -0.5, -4 -> 2 (by two swaps), -7.5 -> -0.5.
TEXTS = ("send keys", "send", "keys now", "now", "mail", "mail now", "mail mail", "hello now")
ROWS = Examples(TEXTS, None, (1, 1, 1, 1, 0, 0, 0, 0), (10, 11, 12, 13, 14, 15, 16, 17))


def at(*values: float) -> list[Threshold]:
    """Thresholds of these values, for 1 %, 2 % and so on."""
    return [Threshold(n / 100, value, 100, n, n) for n, value in enumerate(values, start=1)]


def clean_scores(own: Victim, *rows: Examples) -> dict[int, float]:
    """The score of every row as it is."""
    return {
        row: float(margins(own.logits([Asked(text)]), POSITIVE))
        for part in rows
        for row, text in zip(part.ids, part.texts, strict=True)
    }


def reached(
    own: Victim,
    panel: dict[str, tuple[EditAttack, Examples]],
    limits: list[Threshold],
    temperature: float = 1.0,
    finished: Finished | None = None,
    folder: Path | None = None,
) -> FoundScores:
    """What the attacks do to scores, as an evaluation has it found."""
    clean = clean_scores(own, *(rows for _, rows in panel.values()))
    with tempered(own.model, temperature):
        found = EditPanel(panel).run(own)
    detector = DetectorEdits(POSITIVE, limits, temperature)
    return detector.run(own, panel, found, clean, finished, folder)


def record(
    limits: list[Threshold], panel: dict[str, tuple[EditAttack, Examples]], files: dict[str, list[int]] | None = None
) -> Measured:
    """What a detector under edits adds to an empty record."""
    found = reached(toy(WEIGHTS), panel, limits)
    files = files or {"all": list(ROWS.ids)}
    return with_detected_edits(Measured("toy", ()), DetectorEdits(POSITIVE, limits), panel, found, files, "injection")


def test_the_goal_is_the_other_side_of_the_threshold() -> None:
    goal, logits = PastThreshold(1, 0.5), torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.25, -1.0], [0.0, 0.5, -1.0]])
    assert goal.values(logits, 1, ()).tolist() == [-0.5, 0.25, 0.0]
    assert goal.values(logits, 2, ()).tolist() == [0.5, -0.25, 0.0]
    assert goal.reached(logits, 1, ()).tolist() == [False, True, True]
    # Of three classes another benign one is not what is wanted.
    assert goal.reached(logits, 2, ()).tolist() == [True, False, False]
    assert goal.refusal(logits[0], 1) is None and goal.refusal(logits[1], 1) == "the detector misses it already"
    assert goal.refusal(logits[1], 0) is None and goal.refusal(logits[0], 0) == "the detector flags it already"


@pytest.mark.parametrize("seed", range(5))
def test_recall_and_false_positives_are_those_of_brute_force(seed: int) -> None:
    """Four rows of each class in words of a toy vocabulary, at thresholds below, at and above zero."""
    words = drawn(seed, words=3, synonyms=2)
    own, names = toy(words.weights), list(words.table)
    texts = tuple(" ".join(names[: n % 3 + 1] + names[:1] * (n // 3)) for n in range(8))
    rows = Examples(texts, None, (1, 1, 1, 1, 0, 0, 0, 0), tuple(range(8)))
    attack = EditAttack(Synonyms(WordTable("toy", words.table)), Exhaustive(4), (NotTwice(),), name="every")
    limits = at(-1.2, 0.0, 0.9)
    panel = {"every": (attack, rows)}
    found = reached(own, panel, limits)
    measured = with_detected_edits(
        Measured("m", ()), DetectorEdits(POSITIVE, limits), panel, found, {"f": list(rows.ids)}, "injection"
    )
    worst = [extreme(words, text, lowest=label == POSITIVE) for text, label in zip(texts, rows.labels, strict=True)]
    for limit in limits:
        for kind, part in (("recall", worst[:4]), ("false_positives", worst[4:])):
            measure = measured[f"detection/f/{kind}@{limit.share:g}/edit/every"]
            assert measure.rows == tuple(float(score > limit.value) for score in part), (kind, limit)


def extreme(words: Toy, text: str, *, lowest: bool) -> float:
    """The lowest or highest score of all texts that synonyms make of this one, by sums alone."""
    choices = product(*((word, *words.table[word]) for word in text.split()))
    sums = [sum(words.weights[word] for word in choice) for choice in choices]
    return min(sums) if lowest else max(sums)


def test_a_threshold_changes_who_counts_as_missed() -> None:
    """By hand: at 1.2 all but the first are missed, at -1 none but the one that is missed as it is."""
    measured = record(at(1.2, -1.0), {"swaps": (SWAPS, ROWS)})
    held = {measure.id.removeprefix("detection/all/"): measure.rows for measure in measured.measures}
    assert held["recall@0.01/unedited"] == (1, 1, 1, 0) and held["recall@0.01/edit/swaps"] == (1, 0, 0, 0)
    assert held["recall@0.02/unedited"] == (1, 1, 1, 0) and held["recall@0.02/edit/swaps"] == (1, 1, 1, 0)
    assert held["false_positives@0.01/unedited"] == (0, 0, 0, 0)
    assert held["false_positives@0.01/edit/swaps"] == (0, 0, 1, 0)
    assert held["false_positives@0.02/edit/swaps"] == (1, 1, 1, 1)
    assert held["recall@0.01/worst_edit"] == held["recall@0.01/edit/swaps"]
    rate = measured["detection/all/recall@0.01/worst_edit"].rate
    assert (rate.count, rate.total) == (1, 4) and 0 < rate.low < 0.25 < rate.high < 1
    assert measured["detection/all/false_positives@0.01/worst_edit"].lower_is_better


def test_a_search_that_ends_where_the_classes_are_even_is_not_the_last_word() -> None:
    """By hand: 1.5 -> -0.5 by one swap, which ends the search for another class, and -> -2.5 by two."""
    panel = {"swaps": (SWAPS, Examples(("send send now now now",), None, (1,), (1,)))}
    own = toy(WEIGHTS)
    assert EditPanel(panel).run(own)["swaps"].rows[0].after == (0.0, -0.5)
    assert reached(own, panel, at(-0.5)).under["swaps"][1] == -0.5
    assert reached(own, panel, at(-1.0)).under["swaps"][1] == -2.5


def test_rows_that_are_over_the_threshold_already_are_not_searched_again() -> None:
    found = reached(toy(WEIGHTS), {"swaps": (SWAPS, ROWS)}, at(1.2, -1.0))
    searched = {search.share: (search.rows, search.succeeded) for search in found.searches}
    # At 1.2: of class 1 the first alone is above it still; of class 0 `mail mail` is at 2 only by two swaps.
    assert searched[0.01][0] == 4 and searched[0.02][1] == 0
    assert found.clean == {10: 6, 11: 3, 12: 1.5, 13: -1.5, 14: -2, 15: -3.5, 16: -4, 17: -7.5}
    assert found.under["swaps"] == {10: 2, 11: 1, 12: -0.5, 13: -1.5, 14: 1, 15: -0.5, 16: 2, 17: -0.5}


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_a_temperature_changes_no_score_and_no_threshold(temperature: float) -> None:
    plain = reached(toy(WEIGHTS), {"swaps": (SWAPS, ROWS)}, at(1.2, -1.0))
    divided = reached(toy(WEIGHTS), {"swaps": (SWAPS, ROWS)}, at(1.2, -1.0), temperature)
    assert divided == plain


def test_of_rows_at_the_threshold_itself_none_is_flagged() -> None:
    """`send keys` can be brought to 2, and `mail mail` too."""
    measured = record(at(2.0), {"swaps": (SWAPS, ROWS)})
    assert measured["detection/all/recall@0.01/edit/swaps"].rows == (0, 0, 0, 0)
    assert measured["detection/all/false_positives@0.01/edit/swaps"].rows == (0, 0, 0, 0)


def test_an_attack_has_nothing_to_say_of_classes_that_it_leaves_alone() -> None:
    panel = {"ones": (replace(SWAPS, labels=(1,)), ROWS), "zeros": (replace(SWAPS, labels=(0,)), ROWS.select([0, 4]))}
    measured = record(at(1.2), panel | {"less": (input_reduction(), ROWS)}, {"one": [10, 11], "zero": [14], "none": []})
    ids = {measure.id.removeprefix("detection/"): measure.total for measure in measured.measures}
    assert ids == {
        "one/recall@0.01/edit/ones": 2,
        "one/recall@0.01/unedited": 1,
        "one/recall@0.01/worst_edit": 1,
        "zero/false_positives@0.01/edit/zeros": 1,
        "zero/false_positives@0.01/unedited": 1,
        "zero/false_positives@0.01/worst_edit": 1,
    }


def test_rows_that_every_attack_leaves_alone_have_no_worst_edit() -> None:
    measured = record(at(1.2), {"zeros": (replace(SWAPS, labels=(0,)), ROWS)})
    assert not any("recall" in measure.id for measure in measured.measures)
    section = measured.section(EditedDetection)
    assert section is not None and {one.what for one in section.shares} == {"false_positives"}


def test_the_worst_edit_is_that_of_each_row() -> None:
    def only(word: str) -> EditAttack:
        return replace(SWAPS, transformation=Synonyms(WordTable(word, {word: SYNONYMS[word]})), name=word)

    measured = record(at(1.2), {word: (only(word), ROWS) for word in ("send", "keys", "mail")})
    held = {measure.id.removeprefix("detection/all/"): measure.rows for measure in measured.measures}
    # Of `send keys` each word alone leaves 4.
    assert held["recall@0.01/edit/send"] == (1, 0, 1, 0) and held["recall@0.01/edit/keys"] == (1, 1, 0, 0)
    assert held["recall@0.01/worst_edit"] == (1, 0, 0, 0)


def test_the_report_has_a_table_for_each_threshold() -> None:
    section = record(at(1.2, -1.0), {"swaps": (SWAPS, ROWS)}).section(EditedDetection)
    assert section is not None
    first, second, searches = [block for block in EditedDetection.blocks({"m": section}) if isinstance(block, Grid)]
    assert first.rows[0] == ["rows of", "flagged", "model", "as they are", "swaps", "worst edit"]
    assert [row[:3] for row in first.rows[1:]] == [["all", "recall", "m"], ["all", "false positives", "m"]]
    assert [cell.split()[0] for cell in first.rows[1][3:]] == ["75.0", "25.0", "25.0"]
    assert [cell.split()[0] for cell in second.rows[2][3:]] == ["0.0", "100.0", "100.0"]
    assert [row[:3] for row in searches.rows[1:]] == [["swaps", "1 %", "m"], ["swaps", "2 %", "m"]]


def test_rows_on_which_no_edit_was_tried_at_a_threshold_are_counted_and_told() -> None:
    limits = at(1.2, -1.0)
    told = record(limits, {"swaps": (replace(SWAPS, queries=1), ROWS)})
    section = told.section(EditedDetection)
    assert section is not None and [(one.rows, one.untried) for one in section.searches] == [(7, 7), (7, 7)]
    searches = [block for block in EditedDetection.blocks({"m": section}) if isinstance(block, Grid)][-1]
    assert searches.rows[0][3:6] == ["searched", "succeeded", "no edit tried"]
    assert [row[3:6] for row in searches.rows[1:]] == [["7", "0", "7"]] * 2
    assert told.notes[0].startswith("swaps, at the threshold for 1 %, tried no edit on 7 of 7 rows: their queries were")
    assert not record(limits, {"swaps": (replace(SWAPS, queries=2), ROWS)}).notes


class Lying(PastThreshold):
    """Says of every text that it is there."""

    def reached(self, logits: torch.Tensor, label: int, passages: object) -> torch.Tensor:
        return torch.ones(len(logits), dtype=torch.bool)

    def refusal(self, logits: torch.Tensor, label: int) -> None:
        return None


def test_what_a_search_says_of_its_success_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textadv.measuring.accuracy.edited_detection.PastThreshold", Lying)
    found = reached(toy(WEIGHTS), {"swaps": (SWAPS, ROWS.select([0]))}, at(1.2), folder=tmp_path)
    assert [search.succeeded for search in found.searches] == [0]
    assert UNCONFIRMED in (tmp_path / "swaps@0.01.jsonl").read_text(encoding="utf-8")


ODD = (
    "",
    " \n\t",
    "a",
    "\u05e1\u05e8\u05d8",
    "\u9019\u90e8",
    "\U0001f44d\U0001f3fd",
    "the of",
    "send \ud83d",
    "mail " * 5000,
)


@pytest.mark.parametrize("label", [0, 1])
def test_every_text_has_a_score(tmp_path: Path, label: int) -> None:
    rows = Examples(ODD, None, (label,) * len(ODD), tuple(range(len(ODD))))
    own, panel = toy(WEIGHTS, max_length=16), {"swaps": (SWAPS, rows)}
    clean = {n: 0.0 if "\ud83d" in text else clean_scores(own, rows.select([n]))[n] for n, text in enumerate(ODD)}
    detector = DetectorEdits(POSITIVE, at(-0.5))
    found = detector.run(own, panel, EditPanel(panel).run(own), clean, Finished(tmp_path, ()), tmp_path / "told")
    assert found.under["swaps"].keys() == clean.keys()
    assert all(score == clean[row] for row, score in found.under["swaps"].items() if row != 8)
    assert detector.run(own, panel, EditPanel(panel).run(own), clean, Finished(tmp_path, ())) == found


# ---- resumed, and shared

LIMITS = at(1.2, -1.0)


def kept(folder: Path, limits: list[Threshold] = LIMITS) -> FoundScores:
    """The scores of an evaluation that keeps its rows there."""
    return reached(toy(WEIGHTS), {"swaps": (SWAPS, ROWS)}, limits, 1.5, Finished(folder, ("weights",)))


def lines(folder: Path) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in folder.glob("*.jsonl"))


def die_after(folder: str, rows: str) -> None:
    """Ends the process without any clean-up once so many rows are written."""
    die_after_writing(int(rows))
    kept(Path(folder))


@pytest.mark.parametrize("rows", [1, 5])
def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path: Path, rows: int) -> None:
    plain = kept(tmp_path / "plain")
    assert worked(die_after, tmp_path, rows).returncode == 9
    assert lines(tmp_path) == rows
    assert kept(tmp_path) == plain
    whole = lines(tmp_path / "plain")
    assert lines(tmp_path) == whole and whole > 5
    assert kept(tmp_path) == plain and lines(tmp_path) == whole


def test_another_threshold_is_searched_anew(tmp_path: Path) -> None:
    kept(tmp_path)
    before = lines(tmp_path)
    kept(tmp_path, at(1.25))
    assert lines(tmp_path) > before


def in_two(folder: str) -> None:
    """One of two processes."""
    Accelerator(cpu=True)
    own = toy(WEIGHTS)
    finished = Finished(Path(folder, "rows"), ("weights",))
    found = reached(own, {"swaps": (SWAPS, ROWS)}, LIMITS, 1.5, finished, Path(folder, f"told{rank()}"))
    Path(folder, f"seen{rank()}").write_text(repr(found), encoding="utf-8")


def test_two_processes_share_the_rows_and_both_know_all(tmp_path: Path) -> None:
    worked_in_two(in_two, tmp_path)
    alone = reached(toy(WEIGHTS), {"swaps": (SWAPS, ROWS)}, LIMITS, 1.5, None, tmp_path / "alone")
    assert (tmp_path / "seen0").read_text() == (tmp_path / "seen1").read_text() == repr(alone)
    assert not (tmp_path / "told1").exists(), "one process writes"
    names = ["swaps@0.01.jsonl", "swaps@0.02.jsonl"]
    assert sorted(file.name for file in (tmp_path / "told0").iterdir()) == names
    for name in names:
        assert (tmp_path / "told0" / name).read_text() == (tmp_path / "alone" / name).read_text()
    whole = lines(tmp_path / "rows")
    assert kept(tmp_path / "rows") == alone and lines(tmp_path / "rows") == whole, "one process reads what two wrote"
