"""What attacks by edits state under "Deviations", clause by clause, beside the tests that each is held to."""

from __future__ import annotations

from tests.deviations import table

EDITS = table(
    """
augmenting.PlantedWords
  none | test_augmenting.test_words_are_planted_at_any_place_of_rows_of_these_classes
  it follows no paper | why
augmenting.StochasticTokens
  tokens of the usual reading are cut | test_augmenting.test_other_tokens_spell_the_same_text
augmenting.Typos
  none from a paper | test_augmenting.test_a_share_of_the_words_has_one_typo_each
  swaps, drops, additions and wrong keys | test_augmenting.test_kinds_and_words_that_stay
augmenting.typos
  none from a paper | test_augmenting.test_a_share_of_the_words_has_one_typo_each
  see `Typos` | elsewhere
batches.OneOf
  none | test_batches.test_one_of_several_edits_each_row_as_that_one_does
  it follows no paper | why
batches.TextEdits
  none | test_batches.test_the_edit_that_raises_the_loss_most_comes_back_in_tokens
  it follows no paper | why
goals.Misclassify
  harnesses climb | test_populations.test_the_goal_is_a_margin_of_logits_that_does_not_saturate
  the margin of logits has the same sign | test_populations.test_the_goal_is_a_margin_of_logits_that_does_not_saturate
greedy.Greedy
  where a budget of queries is too small | test_budgets.test_importance_takes_half_of_a_budget_at_most
  Importance takes at most half | test_budgets.test_importance_takes_half_of_a_budget_at_most
  Where a query for each word fits | test_budgets.test_a_budget_that_is_enough_for_every_word_changes_nothing
  Else neighbouring words are left out | test_budgets.test_blocks_then_the_words_of_the_block_that_counts_most_by_hand
  a word that was not asked for alone | test_budgets.test_blocks_then_the_words_of_the_block_that_counts_most_by_hand
  `weighted` may take half of that share | test_budgets.test_importance_takes_half_of_a_budget_at_most
  a word whose gain was not asked for | test_budgets.test_groups_find_more_than_no_order_at_the_same_budget
population.Genetic
  a mutation is a random edit | test_populations.test_a_child_costs_one_query
  of a word that may not be edited further | test_populations.test_a_mutation_replaces_or_moves_an_edit
  parents are drawn by the softmax of margins | test_populations.test_parents_are_drawn_by_their_margins
  no language model filters candidates | test_populations.test_a_child_costs_one_query
population.Swarm
  a mutation takes a random candidate | test_populations.test_a_particle_costs_one_query
  + test_populations.test_a_mutation_replaces_or_moves_an_edit
  velocities stay in -1..1 | test_populations.test_velocities_by_hand
presets.deepwordbug
  words are scored by what the unknown word | test_presets.test_deepwordbug_tries_one_of_each_edit
  each word tries all four edits | test_presets.test_deepwordbug_tries_one_of_each_edit
  stop words are left alone | test_presets.test_deepwordbug_tries_one_of_each_edit
presets.pruthi
  of an insertion one letter is drawn | test_presets.test_pruthi_changes_one_long_word_inside
  stop words are left alone | test_presets.test_pruthi_changes_one_long_word_inside
presets.textbugger
  words are scored by leaving them out | test_presets.test_textbugger_has_its_five_bugs_and_may_have_an_encoder
  near words come from the table | test_presets.test_textbugger_has_its_five_bugs_and_may_have_an_encoder
  the encoder is the given one | test_presets.test_textbugger_has_its_five_bugs_and_may_have_an_encoder
  stop words are left alone | test_presets.test_textbugger_has_its_five_bugs_and_may_have_an_encoder
presets.bad_characters
  the search is genetic | test_presets.test_bad_characters_changes_what_readers_do_not_see
  + test_populations.test_more_generations_find_more_where_one_word_may_be_changed
  the budget counts words | test_presets.test_bad_characters_changes_what_readers_do_not_see
  all four kinds are tried at once | test_presets.test_bad_characters_changes_what_readers_do_not_see
presets.textfooler
  synonyms come from the table | test_presets.test_textfooler_takes_fifty_synonyms_by_importance
  parts of speech are not compared | test_presets.test_textfooler_takes_fifty_synonyms_by_importance
  of all candidates that break | test_presets.test_textfooler_takes_fifty_synonyms_by_importance
  a text is compared with the original | test_presets.test_textfooler_compares_with_the_original_around_all_changes
  the encoder is the given one | test_presets.test_textfooler_takes_fifty_synonyms_by_importance
presets.pwws
  named entities are not exchanged | test_presets.test_pwws_orders_words_by_saliency_times_gain
  parts of speech are not compared | test_presets.test_pwws_orders_words_by_saliency_times_gain
  gains are of margins of logits | test_presets.test_pwws_orders_words_by_saliency_times_gain
  a word's substitute is chosen again | test_presets.test_pwws_chooses_on_the_text_as_it_stands_and_takes_what_gains
  it is put in only where | test_presets.test_pwws_chooses_on_the_text_as_it_stands_and_takes_what_gains
  stop words are left alone | test_presets.test_pwws_orders_words_by_saliency_times_gain
presets.bae
  parts of speech are not compared | test_presets.test_bae_takes_what_a_masked_model_finds_likely
  of all candidates that break | test_presets.test_bae_takes_what_a_masked_model_finds_likely
  the encoder is the given one | test_presets.test_bae_takes_what_a_masked_model_finds_likely
  stop words are left alone | test_presets.test_bae_takes_what_a_masked_model_finds_likely
  pieces of words are no candidates | test_presets.test_bae_takes_what_a_masked_model_finds_likely
presets.hotflip
  a flip need not be near | test_presets.test_hotflip_flips_to_the_token_with_the_steepest_gradient
  stop words are left alone | test_presets.test_hotflip_flips_to_the_token_with_the_steepest_gradient
  gradients are those of the margin | test_presets.test_hotflip_flips_to_the_token_with_the_steepest_gradient
presets.input_reduction
  which word goes is decided | test_presets.test_input_reduction_keeps_the_class_with_few_words
triggers.trigger_words
  none from a paper | test_triggers.test_triggers_turn_harmless_rows_and_leave_the_others
""",
    "attacks/edits",
)
