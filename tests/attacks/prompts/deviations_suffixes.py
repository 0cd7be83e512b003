"""What searches for suffixes with gradients state under "Deviations", clause by clause, beside the test of each."""

from __future__ import annotations

from tests.deviations import table

SUFFIXES = table(
    """
gcg.Gcg
  candidates are drawn without repeats | test_suffix_parts.test_candidates_differ_from_the_suffix_and_from_each_other
  a target ends before its end of turn | test_gcg.test_a_target_is_how_an_answer_begins_and_not_where_it_ends
  each row's slope has norm 1 | test_gcg.test_the_slope_of_a_row_counts_as_much_as_that_of_any_other
soft_suffix.SoftSuffix
  the released search evaluates tokens that | test_gcg.test_only_tokens_that_come_back_from_text_survive
suffix_losses.hinge
  a mean over tokens of Carlini and Wagner's f6 | test_suffix_parts.test_losses_by_hand
suffix_losses.mellowmax
  mellowmax (arXiv:1612.05628, equation 1 | test_suffix_parts.test_losses_by_hand
""",
    "attacks/prompts",
)
