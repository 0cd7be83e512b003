"""Words that make a detector alarm: found in training rows and in its gradient, put into harmless texts alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from tests.attacks.edits.toys import Sums, rows, tokenizer, victim
from textadv.attacks.edits import Status, Victim
from textadv.attacks.edits.triggers import (
    InsertGradientWords,
    holding,
    paddings,
    predictive_words,
    telling_words,
    trigger_words,
)
from textadv.config.edit_sources import EditSources
from textadv.config.edits import TriggerWordsConfig
from textadv.data import Examples
from textadv.models import ModelError

WEIGHTS = {"mail": -1.0, "the": -0.5, "plan": -0.3, "ignore": 0.9, "reveal": 0.7, "override": 1.2, "tea": 0.0}


def labelled(*texts: tuple[str, int]) -> Examples:
    words, classes = tuple(text for text, _ in texts), tuple(label for _, label in texts)
    return Examples(words, None, classes, tuple(range(len(texts))))


TRAIN = labelled(
    ("Ignore the plan", 1),
    ("ignore this, reveal all", 1),
    ("now ignore them", 1),
    ("reveal it", 1),
    ("mail the plan", 0),
    ("a mail about tea", 0),
    ("ignore the tea", 0),
    ("tea", 0),
)


def test_words_by_log_odds_over_their_error() -> None:
    found = predictive_words(TRAIN, 1, least=1, keep_out=None)
    # 2 and 0 of 4: log(2.5 / 2.5) - log(0.5 / 4.5) over its error, 3 and 1 of 4: see the docstring.
    reveal = math.log(9) / math.sqrt(1 / 2.5 + 1 / 2.5 + 1 / 0.5 + 1 / 4.5)
    ignore = 2 * math.log(3.5 / 1.5) / math.sqrt(2 / 3.5 + 2 / 1.5)
    assert reveal > ignore and found[:2] == ("reveal", "ignore")
    assert "mail" not in found and "tea" not in found and "the" not in found
    assert predictive_words(TRAIN, 1, least=3, keep_out=None) == ("ignore",)
    assert predictive_words(TRAIN, 1, 1, least=1) == ("reveal",)
    assert "all" not in predictive_words(TRAIN, 1, least=1)
    assert predictive_words(TRAIN, 0, least=2)[0] == "tea"


def test_words_by_their_log_odds_alone() -> None:
    found = telling_words(TRAIN, 1, least=1, keep_out=None)
    # Of 4 texts of either class: reveal in 2 and 0, ignore in 3 and 1, this in 1 and 0.
    odds = {"reveal": math.log(9), "ignore": 2 * math.log(3.5 / 1.5), "this": math.log(1.5 / 3.5) + math.log(9)}
    assert {word: found[word] for word in odds} == pytest.approx(odds)
    assert [*found][:2] == ["reveal", "ignore"] and "the" not in found
    assert [*telling_words(TRAIN, 1, 1, least=1)] == ["reveal"]
    assert [*telling_words(TRAIN, 1, least=3)] == ["ignore"]


def test_texts_that_hold_a_word_the_strongest_first() -> None:
    words = {"reveal": 2.0, "ignore": 1.0}
    texts = ("tea", "Ignore, the mail", "revealing", "REVEAL it; ignore", "ignore", "reveal")
    assert holding(texts, words) == [3, 5, 1, 4]
    assert holding((), words) == [] == holding(texts, {})


@pytest.mark.parametrize("words", [predictive_words, telling_words])
def test_words_need_rows_of_both_sides(words: Callable[[Examples, int], object]) -> None:
    with pytest.raises(ValueError, match="Words that speak for class 2 need rows of it .* got 0 and 8"):
        words(TRAIN, 2)


def test_triggers_turn_harmless_rows_and_leave_the_others() -> None:
    model = victim(WEIGHTS)
    attack = trigger_words(("ignore", "reveal"), inserts=2, gradient=1)
    (found,) = attack(model, rows("mail tea", label=0)).rows
    # override, by the gradient, and ignore, or override twice: -1 + 2.1 and -1 + 2.4.
    assert found.status is Status.SUCCEEDED and found.edited != found.text
    assert found.edited.split()[0] == "mail" and set(found.edited.split()) <= {"mail", "tea", "ignore", "override"}
    (other,) = attack(model, rows("ignore ignore", label=1)).rows
    assert other.status is Status.SKIPPED and other.reason == "rows of class 1 are not attacked"


def test_of_three_classes_the_rows_go_to_the_one_that_is_named() -> None:
    own = tokenizer(["mail", "order", "reveal"])
    table = torch.zeros(len(own), 3, dtype=torch.float64)
    for word, weights in {"mail": (1.0, 0.0, 0.0), "order": (0.0, 0.0, 3.0), "reveal": (0.0, 2.0, 0.0)}.items():
        table[own.convert_tokens_to_ids(word)] = torch.tensor(weights, dtype=torch.float64)
    model = Victim(Sums(table), own)
    text = rows("mail", label=0)
    for toward, word, predicted in ((1, "reveal", 1), (2, "order", 2), (None, "order", 2)):
        attack = trigger_words(("order", "reveal"), toward=toward, gradient=0, inserts=1)
        (found,) = attack(model, text).rows
        assert found.status is Status.SUCCEEDED and found.prediction == predicted and word in found.edited
    (found,) = trigger_words(("order",), toward=1, gradient=0, inserts=1)(model, text).rows
    assert found.status is Status.FAILED and found.prediction == 0


def test_rows_of_the_class_that_the_words_speak_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels: rows of class 1 are those of toward.*got \(0, 1\)"):
        trigger_words(("ignore",), toward=1, labels=(0, 1))


def test_no_more_words_than_may_be_inserted() -> None:
    attack = trigger_words(("ignore",), inserts=1, gradient=1)
    (found,) = attack(victim(WEIGHTS), rows("mail mail the the plan", label=0)).rows
    assert found.status is Status.FAILED and found.changed == 1
    assert len(found.edited.split()) == 6


def test_a_tokenizer_without_whole_words_needs_no_words_of_the_gradient() -> None:
    # Of its tokens none is a word of letters alone, so that a gradient names none.
    model = victim({"m1": -1.0, "t2": -0.5, "i3": 2.0})
    with pytest.raises(ModelError, match="or trigger_words with gradient: 0"):
        trigger_words(("i3",), gradient=1)(model, rows("m1 t2", label=0))
    (found,) = trigger_words(("i3",), gradient=0)(model, rows("m1 t2", label=0)).rows
    assert found.status is Status.SUCCEEDED and sorted(found.edited.split()) == ["i3", "m1", "t2"]
    section = TriggerWordsConfig(toward="b", gradient=0)
    assert "InsertGradientWords" not in str(section.make(0, EditSources(TRAIN.select([*range(8)] * 5), ("a", "b"))))


def test_gradient_words_stand_behind_the_word() -> None:
    with pytest.raises(ValueError, match="transformation.count must be at least 1, got 0"):
        InsertGradientWords(0)


def test_paddings_are_whole_harmless_rows() -> None:
    found = paddings(TRAIN, 0, 3, words=10, seed=1)
    harmless = {text for text, label in zip(TRAIN.texts, TRAIN.labels, strict=True) if label == 0}
    assert len(set(found)) == 3 and all(set(one.split("\n")) <= harmless for one in found)
    assert all(10 <= len(one.split()) < 14 for one in found)
    assert found == paddings(TRAIN, 0, 3, words=10, seed=1) != paddings(TRAIN, 0, 3, words=10, seed=2)
    with pytest.raises(ValueError, match="Padding of class 5 needs a row of it that holds a word, got none"):
        paddings(TRAIN, 5)


def test_words_with_marks_are_words() -> None:
    plain, marked = "re\u0301ve\u0300le \u0926\u093f\u0916\u093e\u0913", "tea now"
    found = telling_words(labelled((plain, 1), (plain, 1), (marked, 0), (marked, 0)), 1, least=2, keep_out=None)
    assert set(found) == set(plain.split())
