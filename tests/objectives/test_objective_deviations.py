"""Every clause under "Deviations" of an objective or a loss has a test, and every formula is worked out by hand."""

from __future__ import annotations

from tests.deviations import exists, stated, table, unheld
from tests.support.public import public_objectives

# The class of an objective that follows a paper -> the test that works its formula out by hand.
CLASSIFIERS = "test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula"
CHATS = "test_published_chats.test_value_and_gradient_are_those_of_the_published_formula"
BY_HAND = {
    **dict.fromkeys(("Adversarial", "Clean", "Consistency", "Distributional", "Mart", "Regularised"), CLASSIFIERS),
    **dict.fromkeys(
        ("Away", "KlToBase", "OverTokens", "Preference", "PrefillRecovery", "Reroute", "Supervised", "Toward"), CHATS
    ),
    "Free": "test_published_classifiers.test_free_training_is_the_papers_replayed_step",
    "FreeLB": "test_published_classifiers.test_freelb_is_the_released_loop_with_its_step_and_its_tokens",
    "PredictorConsistency": "test_published_classifiers.test_the_predictor_is_simsiams_loss",
    "Spectrum": "test_spectrum.test_value_and_gradient_are_those_of_the_singular_values_of_the_whole_matrix",
    **dict.fromkeys(("Gather", "Stay"), CHATS),
    "Retain": "test_published_chats.test_retain_is_the_released_value_but_for_how_padding_counts",
    "WeightPerturbation": (
        "test_published_classifiers.test_awp_takes_the_gradient_at_weights_that_a_step_up_has_made_worse"
    ),
}
OWN = {"Together", "Tempted"}

TABLE = table(
    """
alignment.Away
  `cross_entropy` is continuous | test_stated_objectives.test_bounds_are_continuous_where_the_released_ones_jump
  it cuts each row's mean off | test_stated_objectives.test_bounds_are_those_of_each_rows_mean
  means are per row | test_stated_objectives.test_unlikelihood_is_a_mean_per_row_to_which_unlikely_tokens_add_nothing
  + test_alignment.test_away_is_minus_the_harmful_loss_up_to_its_cut_off
  Of `log_1_minus_p` only the last | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
alignment.Toward
  continuous at the floor | test_stated_objectives.test_bounds_are_continuous_where_the_released_ones_jump
  the floor is of each row's mean | test_stated_objectives.test_bounds_are_those_of_each_rows_mean
  means are per row | test_stated_objectives.test_a_row_of_two_tokens_counts_as_much_as_one_of_one
alignment.Preference
  without bounds by | test_stated_objectives.test_a_bound_would_change_the_advantage_by_a_whole_tokens_likelihood
  p0 is computed at each step | test_stated_objectives.test_the_reference_is_the_same_at_every_step
alignment.PrefillRecovery
  longest is 40 | test_stated_objectives.test_recovery_gives_every_row_a_beginning_of_up_to_40_tokens
  means are per row | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
alignment.Supervised
  means are per row | test_stated_objectives.test_a_row_of_two_tokens_counts_as_much_as_one_of_one
alignment.KlToBase
  LAT's code runs the other way | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
  + test_alignment.test_kl_is_that_of_the_base_to_the_model_over_the_answers_tokens
  This way the model is | test_stated_objectives.test_a_collapse_is_dear_in_one_direction_and_cheap_in_the_other
  all but dropping one | test_stated_objectives.test_a_collapse_is_dear_in_one_direction_and_cheap_in_the_other
  Means are per row | test_stated_objectives.test_kl_to_the_base_is_a_mean_per_row
alignment.Together
  none of its own | test_alignment.test_the_parts_terms_are_those_they_give_alone
  see the parts | elsewhere
alignment.Tempted
  none, there is no paper | test_alignment.test_a_tempted_row_is_attacked_toward_its_refusal_and_drawn_to_its_own_answer
distributional.Distributional
  lengths are counted in radii | test_distributional.test_loss_minus_penalty_times_the_squared_length
free.FreeLB
  the ball is per token | test_stated_objectives.test_freelbs_ball_is_per_token_by_default
  the initial noise | test_stated_objectives.test_freelbs_noise_fills_the_ball_where_a_cube_inside_it_would_not
  Special | test_published_classifiers.test_freelb_is_the_released_loop_with_its_step_and_its_tokens
  An Linf | test_published_classifiers.test_the_largest_entrys_step_is_shorter_uphill_than_the_signs
  Every dropout is held | test_free.test_a_held_dropout_mask_is_the_same_in_every_pass
free.Free
  the very first delta is uniform | test_free_replays.test_each_replay_takes_one_step_from_where_the_last_one_ended
  the rows that are not attacked | test_free_replays.test_a_batch_and_its_attacked_rows_stay_for_the_replays
  The delta that is carried on | test_published_classifiers.test_free_training_is_the_papers_replayed_step
  + test_free_replays.test_the_delta_is_carried_to_the_next_batch_row_by_row
margin_aware.Mart
  logarithms are taken of log-odds | test_stated_objectives.test_mart_adds_nothing_to_probabilities
  for chats each token | test_mart.test_each_token_of_an_answer_has_a_doubt_of_its_own
predictor.PredictorConsistency
  on logits | test_published_classifiers.test_the_predictor_is_simsiams_loss
  no batch normalisation | test_stated_objectives.test_the_predictor_treats_rows_one_by_one
  1 is added | test_published_classifiers.test_the_predictor_is_simsiams_loss
  batch norms of the model | test_stated_objectives.test_batch_norms_see_clean_and_perturbed_rows_as_one_batch
proximal.Proximal
  released | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
  The teacher predicts in evaluation | test_stated_objectives.test_the_teacher_predicts_without_dropout
  + test_proximal.test_the_term_is_the_symmetric_divergence_from_the_teacher
  it follows at steps | test_stated_objectives.test_the_teacher_follows_only_where_rows_are_attacked
  one optimizer step lies between | test_published_norms.test_twenty_steps_with_a_teacher_follow_the_papers_loop
regularised.Consistency
  those of `trades`, `alum`, `smart` and `r3f` | elsewhere
regularised.trades
  none with batch norms | test_published_norms.test_batch_norms_are_passed_as_the_released_code_passes_them
  the released | test_stated_objectives.test_trades_clean_loss_and_divergence_share_one_prediction_under_dropout
regularised.alum
  the perturbation | attacks/test_formulas.test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection
regularised.smart
  the perturbation | attacks/test_formulas.test_pgd_is_the_sign_or_the_unit_gradient_and_a_projection
  its attack raises | test_stated_objectives.test_recipes_raise_the_divergence_of_their_objective
  Without | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
regularised.r3f
  the noise is | test_stated_objectives.test_r3fs_noise_is_uniform_in_the_ball_on_editable_positions_alone
  it is on editable | test_stated_objectives.test_r3fs_noise_is_uniform_in_the_ball_on_editable_positions_alone
regularised.Regularised
  the paper's alpha J | test_stated_objectives.test_regularised_is_the_papers_mixture_up_to_its_factor
  in batch norms | test_stated_objectives.test_batch_norms_see_clean_and_perturbed_rows_as_one_batch
rerouting.Reroute
  the mean is per row | test_rerouting.test_rerouting_is_the_cosine_where_positive_averaged_over_the_rows_tokens
rerouting.Retain
  the mean is over each | test_published_chats.test_retain_is_the_released_value_but_for_how_padding_counts
seeded.Seeded
  prompts come from a pool | test_seeded.test_losses_in_the_pool_are_those_of_the_model_that_renewed_them
  they are drawn by recency | attacks/prompts/test_pool.test_a_row_draws_by_weight_and_by_its_own_step
spectrum.Spectrum
  by default the | test_spectrum.test_singular_values_1_2_and_3_have_variance_two_thirds_and_deviation_1
  an untrained embedding | test_spectrum.test_an_embedding_that_nothing_trains_is_refused_with_the_remedy
standard.Adversarial
  none in the | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
  attacks see the | test_stated_objectives.test_adversarial_training_attacks_the_model_in_evaluation_mode
terms.Clean
  none for | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
  for chats a mean per row | test_stated_objectives.test_a_row_of_two_tokens_counts_as_much_as_one_of_one
token_means.OverTokens
  released | test_stated_objectives.test_a_mean_over_tokens_is_that_of_all_micro_batches_and_a_cut_off_stays_each_rows
  the two agree | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
  A cut-off | test_stated_objectives.test_a_mean_over_tokens_is_that_of_all_micro_batches_and_a_cut_off_stays_each_rows
triplet.Gather
  the perturbation is searched | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
  the centre is that | test_triplet.test_the_centre_is_of_the_steps_plain_rows_and_has_no_gradient
  means are per row | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
triplet.Stay
  the centre is that | test_triplet.test_useful_rows_see_the_centre_of_the_step_before
  until there is one | test_triplet.test_useful_rows_see_the_centre_of_the_step_before
  means are per row | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
weights.WeightPerturbation
  w + v is left | test_weights.test_everything_is_bit_for_bit_what_it_was_when_a_term_is_handed_over
losses.cross_entropy
  none for | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
  for chats a mean per row | test_stated_objectives.test_a_row_of_two_tokens_counts_as_much_as_one_of_one
losses.sequence_nll
  none | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
losses.bounded_nll
  none | test_published_chats.test_value_and_gradient_are_those_of_the_published_formula
losses.log_1_minus_p
  a mean | test_stated_objectives.test_unlikelihood_is_a_mean_per_row_to_which_unlikely_tokens_add_nothing
losses.margin
  none (Carlini and Wagner's f6 | test_published_norms.test_margin_and_the_difference_of_logits_ratio
losses.wrong
  none | values/test_decisions.test_pgd_raises_the_loss_of_labels_and_counts_a_row_where_any_changed
losses.token_losses
  none | attacks/test_chat_goals.test_begin_is_minus_the_weighted_cross_entropy_of_the_first_tokens
losses.dlr
  none | test_published_norms.test_margin_and_the_difference_of_logits_ratio
  the 1e-12 is the released code's | why
losses.targeted_dlr
  none | test_published_norms.test_margin_and_the_difference_of_logits_ratio
  the 1e-12 is the released code's | why
losses.kl
  none | test_published_norms.test_batch_norms_are_passed_as_the_released_code_passes_them
  a value per row | test_published_norms.test_batch_norms_are_passed_as_the_released_code_passes_them
losses.kl_of_decisions
  those of `kl` | elsewhere
losses.symmetric_kl
  none from the | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
  SMART's and ALUM's released | test_published_classifiers.test_constant_targets_halve_the_gradient_at_nearby_logits
losses.detached_symmetric_kl
  none | test_published_classifiers.test_on_texts_value_and_gradient_are_those_of_the_published_formula
""",
    "objectives",
)


def test_each_that_follows_a_paper_has_a_test_of_its_formula() -> None:
    assert set(public_objectives().values()) == set(BY_HAND) | OWN and not OWN & set(BY_HAND)
    assert [place for place in BY_HAND.values() if not exists(f"objectives/{place}")] == []


def test_every_clause_has_its_test() -> None:
    assert not unheld(TABLE, stated("objectives", "values"))
