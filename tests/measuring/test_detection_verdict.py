"""What a verdict says of a detector: changes counted by hand, none of a model without thresholds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.made_up import evaluated
from textadv.measuring import Measured
from textadv.measuring.accuracy.detection import Scored, Threshold, by_file, flagged_measures
from textadv.measuring.accuracy.detection_verdict import detected
from textadv.measuring.accuracy.edited_detection import UNEDITED, WORST_EDIT
from textadv.measuring.sections.detection import ChosenThreshold, Detection
from textadv.measuring.verdict import classifier_verdict

LIMITS = (Threshold(0.05, 0.0, 100, 5, 5), Threshold(0.01, 1.0, 100, 1, 1))
SECTION = Detection("injection", "validation", tuple(ChosenThreshold(one.share, one.value, 5, 100) for one in LIMITS))


def flagging(name: str, flagged: dict[str, int], rows: int = 40, **files: bool) -> Measured:
    """A detector that flags the first so many of the rows of each file. files: whether they are positive."""
    scored = {
        file: [Scored(n, positive, 0.5 if n < flagged[file] else -0.5) for n in range(rows)]
        for file, positive in files.items()
    }
    return Measured(name, tuple(by_file(scored, LIMITS)), (SECTION,))


FILES = {"known": True, "far": True, "harmless": False, "letters": False}
PLAIN = flagging("plain", {"known": 36, "far": 20, "harmless": 30, "letters": 2}, **FILES)
HARDENED = flagging("hardened", {"known": 37, "far": 5, "harmless": 8, "letters": 2}, **FILES)


def test_changes_that_are_shown_are_told_file_by_file_and_the_others_counted() -> None:
    (told,) = detected(PLAIN, HARDENED).sentences
    assert told.startswith(
        "hardened as a detector, at the threshold for 5 % false positives: recall falls (far -37.5 ["
    )
    assert "; false positives fall (harmless -55.0 [" in told and "known" not in told and "letters" not in told
    assert told.endswith("; 2 of 4 rates cannot be told from those of plain.")


def test_what_gets_worse_is_told_and_makes_it_a_trade() -> None:
    found = detected(HARDENED, replace(PLAIN, name="later"))
    (told,) = found.sentences
    assert "recall rises (far +37.5 [" in told and "false positives rise (harmless +55.0 [" in told and found.worse
    assert detected(PLAIN, HARDENED).worse
    less = flagging("hardened", {"known": 37, "far": 20, "harmless": 8, "letters": 2}, **FILES)
    assert not detected(PLAIN, less).worse and detected(HARDENED, less).worse is False


def test_many_files_of_which_one_moves_by_chance_show_no_change() -> None:
    names = {f"file{n}": True for n in range(20)}
    before = flagging("plain", dict.fromkeys(names, 20), **names)
    after = flagging("hardened", {**dict.fromkeys(names, 20), "file3": 13}, **names)
    found = detected(before, after)
    assert found.sentences[0].endswith("false positives: 20 of 20 rates cannot be told from those of plain.")
    assert not found.worse
    one = {"file3": True}
    alone = detected(flagging("plain", {"file3": 20}, **one), flagging("hardened", {"file3": 13}, **one))
    assert "recall falls (file3 -17.5 [" in alone.sentences[0] and alone.worse


def test_figures_are_of_the_worst_file_each_way_with_the_baseline_on_the_same_rows() -> None:
    recall, flagged = detected(PLAIN, HARDENED).figures
    assert (recall.title, recall.value) == ("Lowest recall at 5 % false positives", "12.5 %")
    assert recall.detail == "[5.5, 26.1], 40 rows of far, of 2 files; plain 50.0 %"
    assert (flagged.title, flagged.value) == ("Most false positives at the threshold for 5 %", "20.0 %")
    assert flagged.detail == "[10.5, 34.8], 40 rows of harmless, of 2 files; plain 75.0 %"
    assert detected(None, HARDENED).figures[0].detail == "[5.5, 26.1], 40 rows of far, of 2 files"
    fewer = flagging("plain", {"far": 20}, 30, far=True)
    assert detected(fewer, HARDENED).figures[0].detail == "[5.5, 26.1], 40 rows of far, of 2 files"


def test_of_one_model_alone_the_rates_of_each_file_are_told() -> None:
    (told,) = detected(None, HARDENED).sentences
    assert told == (
        "hardened as a detector, at the threshold for 5 % false positives: recall: known 92.5 % of 40 rows, far 12.5 % "
        "of 40 rows; false positives: harmless 20.0 % of 40 rows, letters 5.0 % of 40 rows."
    )
    assert detected(flagging("m", {"known": 3}, known=True), HARDENED).sentences != (told,)


def test_rates_under_the_worst_edit_stand_beside_those_of_the_same_rows_as_they_are() -> None:
    measures = list(HARDENED.measures)
    for file, positive, as_it_is, worst in (("known", True, 6, 3), ("harmless", False, 1, 5)):
        for key, flagged in ((UNEDITED, as_it_is), (WORST_EDIT, worst)):
            rows = [Scored(n, positive, 0.5 if n < flagged else -0.5) for n in range(8)]
            measures += flagged_measures(file, rows, LIMITS, key, key)
    model = replace(HARDENED, measures=tuple(measures))
    _, recall, flagged = detected(PLAIN, model).sentences
    assert recall.endswith("recall under the worst edit of each text: known 37.5 % of 8 rows, 75.0 % as they are.")
    assert flagged.endswith("each text: harmless 62.5 % of 8 rows, 12.5 % as they are.")
    assert detected(PLAIN, model).figures == detected(PLAIN, HARDENED).figures
    alone = detected(None, model).sentences
    assert alone[0].startswith("hardened as a detector") and alone[2] == flagged
    assert recall.startswith("At that threshold: recall") and alone[1] == recall


def test_other_thresholds_are_not_compared_and_models_without_any_say_nothing() -> None:
    other = replace(SECTION, thresholds=SECTION.thresholds[1:])
    found = detected(replace(PLAIN, sections=(other,)), HARDENED)
    (told,) = found.sentences
    assert "plain" not in told and not found.worse and "plain" not in found.figures[0].detail
    assert detected(PLAIN, replace(HARDENED, sections=())) == ((), (), False)


@pytest.mark.parametrize(
    "hardened", [HARDENED, flagging("hardened", {"known": 40, "harmless": 8}, known=True, harmless=False)]
)
def test_the_verdict_of_classifiers_has_both(hardened: Measured) -> None:
    models = []
    for found, robust in ((PLAIN, 4), (hardened, 17)):
        own = evaluated(found.name, 18, robust).record
        own = replace(own, measures=(*own.measures, *found.measures), sections=(*own.sections, *found.sections))
        models.append(own)
    verdict = classifier_verdict(models, ())
    assert verdict.figures[0].title == "Lowest recall at 5 % false positives"
    assert sum("as a detector" in one for one in verdict.sentences) == 1
    assert verdict.sentences[-1].startswith("That is a trade" if hardened is HARDENED else "That is a good trade")
    alone = classifier_verdict(models[1:], ())
    assert alone.figures[0].title == "Lowest recall at 5 % false positives"
    three = classifier_verdict([replace(models[0], name="first"), replace(models[0], name="second"), models[1]], ())
    assert three.word == "uncompared" and any(one.startswith("hardened as a detector") for one in three.sentences)
