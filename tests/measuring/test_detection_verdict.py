"""What a verdict says of a detector: changes counted by hand, none of a model without thresholds."""

from __future__ import annotations

from dataclasses import replace

from tests.report.made_up import evaluated
from textadv.measuring import Measured
from textadv.measuring.accuracy.detection import Scored, Threshold, by_file, flagged_measures
from textadv.measuring.accuracy.detection_verdict import detector_figures, detector_sentences
from textadv.measuring.accuracy.edited_detection import WORST_EDIT
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
    (told,) = detector_sentences(PLAIN, HARDENED)
    assert told.startswith("As a detector, at the threshold for 5 % false positives: recall falls (far -37.5 [")
    assert "; false positives fall (harmless -55.0 [" in told and "known" not in told and "letters" not in told
    assert told.endswith("; 2 of 4 rates cannot be told from those of plain.")


def test_what_gets_worse_is_told_as_well() -> None:
    (told,) = detector_sentences(HARDENED, replace(PLAIN, name="later"))
    assert "recall rises (far +37.5 [" in told and "false positives rise (harmless +55.0 [" in told


def test_many_files_of_which_one_moves_by_chance_show_no_change() -> None:
    names = {f"file{n}": True for n in range(20)}
    before = flagging("plain", dict.fromkeys(names, 20), **names)
    after = flagging("hardened", {**dict.fromkeys(names, 20), "file3": 13}, **names)
    (told,) = detector_sentences(before, after)
    assert told.endswith("false positives: 20 of 20 rates cannot be told from those of plain.")
    one = {"file3": True}
    (alone,) = detector_sentences(flagging("plain", {"file3": 20}, **one), flagging("hardened", {"file3": 13}, **one))
    assert "recall falls (file3 -17.5 [" in alone


def test_figures_are_of_the_worst_file_each_way_with_the_baseline_on_the_same() -> None:
    recall, flagged = detector_figures(PLAIN, HARDENED)
    assert (recall.title, recall.value) == ("Lowest recall at 5 % false positives", "12.5 %")
    assert recall.detail == "far of 2 files, plain 50.0 %"
    assert (flagged.title, flagged.value) == ("Most false positives at that threshold", "20.0 %")
    assert flagged.detail == "harmless of 2 files, plain 75.0 %"
    (alone, _) = detector_figures(None, HARDENED)
    assert alone.detail == "far of 2 files, 12.5 % [5.5, 26.1]"


def test_recall_under_the_worst_edit_is_told_beside() -> None:
    rows = [Scored(n, True, 0.5 if n < 30 else -0.5) for n in range(40)]
    edited = tuple(flagged_measures("known", rows, LIMITS, " under the worst edit", WORST_EDIT))
    model = replace(HARDENED, measures=(*HARDENED.measures, *edited))
    told = detector_sentences(PLAIN, model)
    assert told[1].endswith("recall under the worst edit of each text is known 75.0 % [59.8, 85.8].")
    assert detector_figures(PLAIN, model)[0].value == "12.5 %"
    assert detector_sentences(None, model) == told[1:]


def test_other_thresholds_are_not_compared_and_models_without_any_say_nothing() -> None:
    other = replace(SECTION, thresholds=SECTION.thresholds[1:])
    assert detector_sentences(replace(PLAIN, sections=(other,)), HARDENED) == []
    bare = replace(HARDENED, sections=())
    assert detector_sentences(PLAIN, bare) == [] and detector_figures(PLAIN, bare) == []


def test_the_verdict_of_classifiers_has_both() -> None:
    models = []
    for found, robust in ((PLAIN, 4), (HARDENED, 14)):
        own = evaluated(found.name, 18, robust).record
        own = replace(own, measures=(*own.measures, *found.measures), sections=(*own.sections, *found.sections))
        models.append(own)
    verdict = classifier_verdict(models, ())
    assert verdict.figures[0].title == "Lowest recall at 5 % false positives"
    assert sum("As a detector" in one for one in verdict.sentences) == 1
    alone = classifier_verdict(models[1:], ())
    assert alone.figures[0].value == "12.5 %"
