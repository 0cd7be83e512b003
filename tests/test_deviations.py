"""Every clause under "Deviations" outside attacks and objectives has a test; and so is a clause without one found."""

from __future__ import annotations

from tests.deviations import ELSEWHERE, PACKAGE, WHY, clauses, stated, table, unheld

TABLE = table(
    """
overfitting.Guard
  it probes with PGD-5 on the epoch's first | training/test_overfitting.test_the_probe_is_told_how_training_attacks
  here held-out rows decide, every few steps | training/test_overfitting.test_the_verdict
averaging.Averaging
  the paper's SWA takes in the weights | training/test_averaging.test_start_and_every_say_which_weights_are_taken_in
  here the schedule is the run's own | training/test_averaging.test_start_and_every_say_which_weights_are_taken_in
calibration.fit_temperature
  the labels are smoothed | measuring/test_calibration.test_temperature_is_the_optimum_of_a_worked_case
  Where every row is right | measuring/test_calibration.test_rows_all_right_are_not_sharpened_until_gradients_vanish
  with a few hundred rows | measuring/test_calibration.test_temperature_undoes_a_known_scaling
instructions
  - language:response_language | measuring/test_instructions.test_every_instruction_has_a_case
  english_capital and english_lowercase | measuring/test_instructions.test_what_follows_and_what_does_not
  - sentences and capital words | measuring/test_instructions.test_sentences
  + measuring/test_instructions.test_capital_words
  Keywords are taken letter for letter | measuring/test_instructions.test_what_follows_and_what_does_not
verdicts.RefusalList
  a typographic apostrophe counts | measuring/test_judges.test_lists_match_as_published
  an empty response is not broken | measuring/test_judges.test_an_empty_response_breaks_nothing_and_refuses_nothing
ablated.RefusalAblation
  as `RefusalDirection` | elsewhere
  what enters the first block stays | measuring/test_ablated.test_what_enters_the_first_block_stays
refusal.over_refusal
  an empty response is degenerate | measuring/test_refusal.test_each_row_has_one_outcome_over_all_rows
"""
)


def test_every_clause_has_its_test() -> None:
    elsewhere = ("attacks", "objectives", "values")
    places = [place.name for place in PACKAGE.iterdir() if place.name not in elsewhere and place.name[0] != "_"]
    assert not unheld(TABLE, stated(*sorted(places)))


def test_clauses_end_at_full_stops_and_semicolons_outside_brackets() -> None:
    doc = "One.\n\n    Deviations: at 1.5 it stops (as there; here\n    not). None is; nothing is.\n\n    Raises."
    assert clauses(doc) == ["at 1.5 it stops (as there; here not)", "None is", "nothing is"]
    assert clauses("Mean and deviation.") == []


def test_a_table_is_read_line_by_line() -> None:
    read = table("a.A\n  one | test_x.test_y\n  + other/test_z.test_w\n  two | why\nb\n  none | elsewhere\n", "here")
    assert read == {
        "a.A": [("one", "here/test_x.test_y", "other/test_z.test_w"), ("two", WHY)],
        "b": [("none", ELSEWHERE)],
    }


def test_what_has_no_test_is_found() -> None:
    here = "test_deviations.test_what_has_no_test_is_found"
    found = {"a.A": ["one is", "two"]}
    assert not unheld({"a.A": (("one", here), ("two", WHY))}, found)
    assert unheld({"a.A": (("one", here),)}, found), "a new clause"
    assert unheld({}, found) and unheld({"a.A": (("one", here), ("two", WHY)), "b.B": ()}, found)
    assert unheld({"a.A": (("one", here), ("other", ELSEWHERE))}, found), "another clause"
    assert unheld({"a.A": (("one", here), ("two", "test_deviations.test_nowhere"))}, found)
    assert unheld({"a.A": (("one", WHY), ("two", here))}, found)
