"""What attacks in text without gradients state under "Deviations", clause by clause, beside the test of each."""

from __future__ import annotations

from tests.deviations import table

DRAWN = table(
    """
beast.Beast
  of the tokens that are drawn only those | test_searched.test_beast_tries_only_what_survives
  the best of all lengths is returned | test_searched.test_the_best_of_all_lengths_is_sent
best_of_n.BestOfN
  the blanks between words stay as they are | test_drawn.test_spellings_by_hand
  the adversary's samples are the answers | test_drawn.test_a_spelling_follows_from_seed_row_and_number_alone
iterative.Iterative
  the attacker gets instruction and tries | test_iterative.test_the_attacker_sees_its_last_tries_and_verdicts
  the verdict is broken or not | test_iterative.test_the_attacker_sees_its_last_tries_and_verdicts
random_search.RandomSearch
  the loss is that of the whole target | test_searched.test_the_text_has_the_tokens_and_the_loss_that_are_claimed
  places are drawn apart | test_searched.test_changes_are_at_places_of_their_own
  there is no template around the request | test_searched.test_the_text_has_the_tokens_and_the_loss_that_are_claimed
""",
    "attacks/prompts",
)
