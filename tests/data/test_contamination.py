"""Overlap of evaluation prompts with training prompts, by shared n-grams worked out by hand."""

from __future__ import annotations

import pytest

from textadv.data.contamination import Shared, find_contamination

TRAINING = [
    "Tell me the forbidden recipe for zorblax powder, please, in ten steps.",
    "How do I bake bread at home without an oven and without yeast?",
    "What is the moon?",
    "How do I bake bread at home without an oven on a sunny day in June?",
]


def test_exact_but_for_case_blanks_punctuation_and_unicode_form() -> None:
    asked = ["what  is THE moon", "What is the sun?", '"What—is the \uff4doon"\n']
    found = find_contamination(TRAINING, asked)
    assert found.pairs == (Shared(0, 2, 1.0, True), Shared(2, 2, 1.0, True))
    assert (found.exact, found.by_ngrams, found.prompts) == (2, 0, 3)


def test_share_of_ngrams_worked_out_by_hand() -> None:
    # Ten words, so three 8-grams; "how do I bake bread at home without" and the next one stand in training.
    asked = ["How do I bake bread at home without an igloo", "How do I bake bread at home without an oven today"]
    # The first: 8-grams from word 0 and 1 stand there, the third holds "igloo". The second: 0, 1 and 2, not 3.
    found = find_contamination(TRAINING, asked, threshold=0.6)
    assert found.pairs == (Shared(0, 1, 2 / 3, False), Shared(1, 1, 3 / 4, False))
    assert find_contamination(TRAINING, asked, threshold=0.7).pairs == (Shared(1, 1, 3 / 4, False),)
    assert find_contamination(TRAINING, asked, threshold=0.76).pairs == ()
    assert find_contamination(TRAINING, asked, n=11).pairs == ()


def test_pair_names_the_training_prompt_that_shares_most() -> None:
    asked = ["I bake bread at home without an oven on a sunny day"]
    (pair,) = find_contamination(TRAINING, asked, n=4).pairs
    assert (pair.training, pair.share) == (3, 1.0)


def test_ngrams_may_come_from_several_training_prompts() -> None:
    (pair,) = find_contamination(["a b c d", "e f g h"], ["a b c e f g"], n=3).pairs
    assert pair == Shared(0, 0, 0.5, False)


def test_short_prompt_is_looked_up_as_a_whole() -> None:
    asked = ["Zorblax powder!", "powder zorblax", "the moon", "bread at the moon"]
    assert find_contamination(TRAINING, asked).pairs == (Shared(0, 0, 1.0, False), Shared(2, 2, 1.0, False))


def test_words_are_whole_words() -> None:
    assert find_contamination(["the moonlight"], ["the moon"]).pairs == ()


def test_prompts_without_a_word_match_only_themselves() -> None:
    assert find_contamination(["???", "a"], ["!", "? ??"]).pairs == (Shared(1, 0, 1.0, True),)


def test_each_evaluation_prompt_counts_once() -> None:
    found = find_contamination(["a b", "a b", "a b c"], ["a b", "a b"])
    assert found.pairs == (Shared(0, 0, 1.0, True), Shared(1, 0, 1.0, True))


def test_line() -> None:
    evaluation = ["what is the moon", "WHAT IS THE MOON", "zorblax powder", *["unrelated words here"] * 117]
    assert str(find_contamination(TRAINING, evaluation)) == (
        "contamination: 3 of 120 evaluation prompts stand in training (2 exact, 1 by 8-grams)"
    )
    clean = find_contamination(TRAINING, [], n=5)
    assert str(clean) == "contamination: 0 of 0 evaluation prompts stand in training (0 exact, 0 by 5-grams)"


@pytest.mark.parametrize(("n", "threshold"), [(0, 0.5), (8, 0.0), (8, 1.1)])
def test_options_outside_their_range_are_refused(n: int, threshold: float) -> None:
    with pytest.raises(ValueError, match="n must be at least 1 and threshold above 0 and up to 1"):
        find_contamination([], [], n=n, threshold=threshold)
