"""Every public attack says what it does otherwise than its paper, and has a test that works the paper's step out."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.attacks.edits.deviations import EDITS
from tests.attacks.prompts.deviations_drawn import DRAWN
from tests.attacks.prompts.deviations_suffixes import SUFFIXES
from tests.deviations import exists, stated, table, unheld
from tests.support.public import public_attacks
from textadv import attacks
from textadv.attacks.wrappers import ensemble

# The class of an attack that follows a paper -> the test that works its formula, or its algorithm, out by hand.
BY_HAND = {
    "AdaptiveRadius": "test_formulas.test_the_adaptive_radius_is_the_margin_over_what_the_ball_takes_from_it",
    "Apgd": "test_apgd.test_every_point_is_the_one_of_the_papers_algorithm",
    "AutoAttack": "test_autoattack.test_the_stages_and_budgets_are_those_of_the_paper",
    "CarliniWagner": "test_hinge.test_one_search_step_takes_the_steps_of_torchs_adam",
    "CarliniWagnerL0": "test_carlini_wagner_forms.test_l0_freezes_the_pixels_whose_share_of_the_margin_is_smallest",
    "CarliniWagnerLinf": "test_carlini_wagner_forms.test_the_linf_form_penalises_what_exceeds_a_shrinking_bound",
    "Contrast": "test_contrast.test_a_step_goes_up_the_gradient_of_both_terms",
    "Ddn": "test_formulas.test_ddn_scales_the_norm_by_whether_the_row_is_broken",
    "DeepFool": "test_deepfool.test_the_overshoot_is_not_compounded_over_several_steps",
    "Eot": "test_randomised.test_gradients_of_different_passes_are_weighed_by_their_length",
    "Fab": "test_fab.test_the_second_step_worked_by_hand",
    "GradientAttack": "test_formulas.test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection",
    "Held": "test_held.test_it_searches_at_multiples_and_hands_out_the_same_delta_in_between",
    "Pdgd": "test_formulas.test_pdgd_descends_by_adam_while_the_multiplier_ascends",
    "PenalisedAscent": "test_penalty.test_on_a_linear_goal_it_is_the_gradient_over_twice_the_penalty",
    "RefusalDirection": "test_direction.test_every_layer_has_its_own_direction_from_the_unpadded_prompts",
    "Square": "test_formulas.test_square_in_l2_starts_on_tiles_and_moves_the_mass_of_windows",
    "Transfer": "test_transfer.test_onto_the_same_model_it_is_the_attack_itself",
    "VirtualAdversarial": "test_formulas.test_the_virtual_adversarial_direction_is_a_power_iteration",
}
OWN = {"Foreign", "MinimumRadius", "Noise", "Stages", "WorstOf", "Then", "Repeat", "Within"}


TABLE = table(
    """
apgd.Apgd
  those of the rules `Halving` and `Sparse` | test_stated.test_apgd_steps_in_the_ball_of_every_token
  in L1 balls a stage that would get no step | test_stated.test_a_search_of_few_steps_in_an_l1_ball_has_no_wide_stages
apgd.apgd_ce
  those of `Apgd` | elsewhere
apgd.apgd_dlr
  those of `Apgd` | elsewhere
apgd.apgd_targeted
  those of `Apgd`, and that goal | test_stated.test_targeted_apgd_of_few_classes_raises_the_difference_of_logits
apgd_steps.Halving
  none from the authors' code in the steps | test_apgd.test_every_point_is_the_one_of_the_papers_algorithm
  + test_apgd.test_a_row_halves_its_step_and_returns_to_its_best_point_by_itself
  after a return the next step | test_apgd.test_a_row_halves_its_step_and_returns_to_its_best_point_by_itself
apgd_steps.Sparse
  a fresh start lies anywhere | test_apgd.test_the_start_is_drawn_on_the_boundary_of_the_ball
  + test_apgd.test_the_step_in_an_l1_ball_follows_how_sparse_the_best_point_is
  with a ball per token | test_stated.test_in_l1_balls_per_token_tokens_have_entries_of_their_own_and_a_row_one_sparsity
  In a search | test_stated.test_every_stage_in_an_l1_ball_looks_back_after_4_percent_of_all_steps
ascent.Momentum
  each gradient is divided by its largest | test_ascent.test_momentum_adds_up_normalised_gradients
ascent.Adam
  the rescaling makes step sizes mean | test_ascent.test_every_step_has_the_step_size_in_the_balls_own_norm
  + test_ascent.test_adam_follows_the_published_recurrence_up_to_the_step_length
  gradients are normalised per row | test_ascent.test_the_length_of_the_gradient_does_not_matter_nor_does_another_row
autoattack.AutoAttack
  targeted APGD of 2 and 3 classes | test_stated.test_targeted_apgd_of_few_classes_raises_the_difference_of_logits
  + test_autoattack.test_small_numbers_of_classes_have_fewer_targets
  FAB does not know balls per token | test_autoattack.test_what_the_threat_model_does_not_allow_is_left_out_and_said
  In L1 balls targeted APGD | test_autoattack.test_in_l1_balls_the_first_stage_has_five_restarts
  + test_stated.test_every_stage_in_an_l1_ball_looks_back_after_4_percent_of_all_steps
  The searches of rand do not stop | test_autoattack.test_no_search_of_rand_stops_at_a_lucky_mean
autoattack.autoattack
  those of `AutoAttack` | elsewhere
balls._l1_project
  magnitudes are taken below their largest | test_stated.test_a_small_radius_is_not_drowned_by_large_sums
bisection.MinimumRadius
  none | test_bisection.test_the_bracket_is_halved_and_the_cost_summed
  it follows no paper | why
  Of FAB before it, those of `Fab` | elsewhere
carlini_wagner.CarliniWagner
  untargeted only | test_stated.test_any_other_class_is_a_success_and_none_can_be_aimed_at
  rows that are wrong already | test_stated.test_rows_that_are_wrong_already_are_done_whatever_the_confidence
  spaces other than pixels | test_hinge.test_one_search_step_takes_the_steps_of_torchs_adam
  + test_carlini_wagner.test_l2_of_embeddings_and_the_radius_as_unit
  For a chat model the row is broken where | test_carlini_wagner.test_a_chat_model_is_moved_off_its_answer
  to make it say an answer | test_bisection.test_an_answer_elicited_from_a_chat_model
carlini_wagner.CarliniWagnerLinf
  those of `CarliniWagner` | elsewhere
  tau starts without a bound | test_carlini_wagner_forms.test_linf_begins_without_a_bound_and_shrinks_it_by_a_twentieth
  broken points outside tau | test_carlini_wagner_forms.test_broken_points_outside_the_bound_count_too
  Per token and per example | test_carlini_wagner.test_linf_of_pixels_and_of_embeddings_per_token_or_example
carlini_wagner.CarliniWagnerL0
  those of `CarliniWagner` | elsewhere
  a failure | test_carlini_wagner_forms.test_l0_halves_what_it_freezes_after_a_failure_and_ends_where_freezing_one_fails
  The gradient is | test_carlini_wagner_forms.test_l0_freezes_the_pixels_whose_share_of_the_margin_is_smallest
contrast.Contrast
  means are per row | test_contrast.test_a_row_does_not_depend_on_the_others_nor_on_padding
  + test_contrast.test_a_step_goes_up_the_gradient_of_both_terms
  the length of a step is the ascent's | test_contrast.test_a_step_has_the_length_of_the_ascent
curriculum.Stages
  none | test_curriculum.test_a_stage_takes_as_many_steps_as_it_says
  it follows no paper | why
curriculum.AdaptiveRadius
  the distance is the first | test_formulas.test_the_adaptive_radius_is_the_margin_over_what_the_ball_takes_from_it
  + test_curriculum.test_factors_are_bounded_and_wrong_rows_get_the_lowest
  it is computed anew at each step | test_stated.test_the_adaptive_radius_forgets_what_it_was
ddn.Ddn
  untargeted only | test_stated.test_any_other_class_is_a_success_and_none_can_be_aimed_at
  rows that are wrong already | test_stated.test_rows_that_are_wrong_already_are_done_whatever_the_confidence
  A row whose gradient is exactly zero | test_stated.test_ddn_keeps_its_direction_where_the_gradient_is_exactly_zero
  Nothing is rounded to 256 levels | test_formulas.test_ddn_scales_the_norm_by_whether_the_row_is_broken
deepfool.DeepFool
  the way starts at the label | test_stated.test_rows_that_are_wrong_already_are_done_whatever_the_confidence
  Pixels are confined | test_minimal.test_pixels_stay_in_the_box_and_frozen_pixels_and_positions_at_zero
  + test_deepfool.test_the_nearest_of_five_classes_and_pixels_at_the_edge_of_the_box
  the paper has no box | why
  The authors' 1e-4, added to every step | test_deepfool.test_the_overshoot_is_not_compounded
direction.RefusalDirection
  every layer has a direction | test_direction.test_every_layer_has_its_own_direction_from_the_unpadded_prompts
  A search has no | test_direction.test_ablation_takes_it_out_of_every_position_and_with_it_the_refusal
edited.OnEdited
  none | attacks/edits/test_batches.test_an_attack_after_edits_moves_all_the_edited_rows
  it follows no paper | why
ensemble.WorstOf
  none | test_ensemble.test_every_row_of_the_worst_of_is_one_of_its_parts_whole
  it follows no paper | why
ensemble.Then
  none | test_ensemble.test_then_starts_where_the_first_attack_ended
  it follows no paper | why
ensemble.Repeat
  none | test_ensemble.test_repeat_draws_anew_on_the_rows_that_are_left
  it follows no paper | why
ensemble.worst_of
  none | test_ensemble.test_every_row_of_the_worst_of_is_one_of_its_parts_whole
  it follows no paper | why
ensemble.then
  none | test_ensemble.test_then_starts_where_the_first_attack_ended
  it follows no paper | why
ensemble.repeat
  none | test_ensemble.test_repeat_draws_anew_on_the_rows_that_are_left
  it follows no paper | why
fab.Fab
  a point at which the gradient is taken | test_stated.test_fab_counts_the_point_at_which_it_takes_the_gradient
  The final search | test_fab.test_cost_counts_every_pass
  + test_fab.test_strength_more_steps_more_restarts_and_more_targets_find_shorter_ones
  it takes | test_stated.test_fab_ends_a_tenth_of_the_rest_behind_where_the_margin_says_the_boundary_is
  A plane that is nearer than one rounding | test_fab.test_a_tie_of_half_precision_logits_does_not_stall_it
  The searches towards several targets | test_stated.test_fabs_targets_share_a_rows_random_starts
fab.fab_targeted
  those of `Fab` | elsewhere
foreign.Foreign
  none | test_foreign.test_our_own_attack_called_by_its_images_is_the_same_attack
  it follows no paper | why
foreign.foreign
  none | test_foreign.test_our_own_attack_called_by_its_images_is_the_same_attack
  it follows no paper | why
gradient.GradientAttack
  the step itself is the paper's | test_formulas.test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection
  The row is attacked in evaluation mode | test_stated.test_a_row_is_attacked_in_evaluation_mode_also_in_training
  Gradients are scaled row by row | test_gradient.test_rows_saturated_at_a_margin_of_60_still_get_the_right_direction
  + test_formulas.test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection
  `most_damaging` takes the worst | test_attacks.test_strength_the_most_damaging_iterate_is_never_worse_than_the_last
pgd.pgd
  those of `GradientAttack` | elsewhere
  The default step is one | test_gradient.test_named_constructors_are_the_published_settings
pgd.fgsm
  the paper has Linf balls alone | test_formulas.test_fgsm_and_its_random_start_are_one_step
  pixels are clipped to their box | test_formulas.test_fgsm_and_its_random_start_are_one_step
pgd.r_fgsm
  the gradient is taken in evaluation mode | test_stated.test_a_row_is_attacked_in_evaluation_mode_also_in_training
held.Held
  none known | test_held.test_it_searches_at_multiples_and_hands_out_the_same_delta_in_between
hinge.Tanh
  a clean pixel starts at most 0.999 of the way | test_hinge.test_tanh_coordinates_stay_in_the_box_and_come_back
  the authors' code says 0.999999 | why
  The slope of tanh there is 2e-6 | why
  The price is 0.0005 of the box | test_hinge.test_tanh_coordinates_stay_in_the_box_and_come_back
hyperplane
  sums run over the sorted breakpoints | test_hyperplane.test_the_nearest_point_of_random_boxes
  same cost, same point | why
pdgd.Pdgd
  untargeted only | test_stated.test_any_other_class_is_a_success_and_none_can_be_aimed_at
  rows that are wrong already | test_stated.test_rows_that_are_wrong_already_are_done_whatever_the_confidence
  always from the clean row | test_formulas.test_pdgd_descends_by_adam_while_the_multiplier_ascends
  On pixels it finds the released code's sizes | why
  In other spaces Adam's second moment | test_pdgd.test_outside_pixels_each_row_has_units_of_its_own
  The paper's proximal forms | test_stated.test_pdgd_and_ddn_have_no_form_for_other_norms
penalty.PenalisedAscent
  steps are counted in units of | test_penalty.test_on_a_linear_goal_it_is_the_gradient_over_twice_the_penalty
  the cost of changing the label is infinite | test_stated.test_a_price_changes_no_label
randomised.Eot
  what the model draws itself | test_randomised.test_a_deterministic_model_gets_what_the_attack_alone_finds
square.Square
  everything is drawn per row | test_square.test_an_image_gets_the_same_alone_and_in_a_batch
  The last offset of a window can be drawn | test_stated.test_the_last_row_of_pixels_is_in_windows_in_linf_and_not_in_l2
  in L2 on pixels it is left out here too | test_stated.test_the_last_row_of_pixels_is_in_windows_in_linf_and_not_in_l2
  in Linf 11.9 break with it | test_stated.test_the_last_row_of_pixels_is_in_windows_in_linf_and_not_in_l2
  Frozen cells are left out | test_windows.test_only_lines_with_an_editable_cell_are_places
  + test_windows.test_windows_have_their_share_of_the_area_and_reach_the_last_offset_of_oblong_pictures
  A Linf window that would change nothing | test_square.test_a_proposal_always_changes_something
  A bump that cancels | test_stated.test_a_bump_that_cancels_what_was_there_stands_for_itself
  In L2 each channel keeps | test_formulas.test_square_in_l2_starts_on_tiles_and_moves_the_mass_of_windows
  `queries` counts the start | test_square.test_rows_that_are_broken_are_dropped_and_every_pass_is_counted_as_a_query
transfer.Transfer
  the paper trains its surrogates | test_transfer.test_leaves_both_models_as_they_were
virtual.VirtualAdversarial
  that share in the place of | test_formulas.test_the_virtual_adversarial_direction_is_a_power_iteration
  the start is uniform in the ball | test_formulas.test_the_virtual_adversarial_direction_is_a_power_iteration
  balls of any norm | test_virtual.test_on_a_linear_model_one_iteration_finds_the_only_direction_that_matters
virtual.Noise
  none | test_virtual.test_noise_searches_nothing
  it follows no paper | why
within.Within
  none | test_autoattack.test_a_minimal_attack_is_brought_back_into_the_ball
  it follows no paper | why
""",
    "attacks",
)


def documented() -> dict[str, str]:
    """Public name -> docstring, and those of the classes that only functions make."""
    found = {name: inspect.getdoc(getattr(attacks, name)) or "" for name in public_attacks()}
    return found | {one.__name__: one.__doc__ or "" for one in (ensemble.WorstOf, ensemble.Then, ensemble.Repeat)}


@pytest.mark.parametrize("name", sorted(documented()))
def test_it_says_what_it_does_otherwise(name: str) -> None:
    told = re.search(r"Deviations[^:]*: \S", documented()[name])
    assert told is not None, f"{name} has no line that begins with Deviations:"


def test_each_that_follows_a_paper_has_a_test_of_its_formula() -> None:
    classes = set(public_attacks().values())
    assert classes == set(BY_HAND) | OWN and not OWN & set(BY_HAND)
    assert [place for place in BY_HAND.values() if not exists(f"attacks/{place}")] == []
    texts = documented()
    assert all("follows no paper" in texts[name] for name in OWN)


def test_every_clause_has_its_test() -> None:
    assert not unheld({**TABLE, **EDITS, **DRAWN, **SUFFIXES}, stated("attacks"))
