"""What cannot be right about a chat model's numbers: silence, one answer to all, choices at chance, blind guessing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from textadv.data.benchmarks import Question
from textadv.evaluation.elicitation import BehaviourOutcome, Elicitation, JudgedAnswer
from textadv.evaluation.kept_answers import Answer
from textadv.evaluation.multiple_choice import ChoiceScores, ScoredQuestion
from textadv.evaluation.sanity_chat import choice_doubts, perplexity_doubt, said_doubt, silence_doubt


def given(*texts: str, status: str = "ok") -> list[Answer]:
    return [
        Answer(row, 0, status if text.strip() else "empty", text, 3)  # type: ignore[arg-type]
        for row, text in enumerate(texts)
    ]


def test_nothing_said_and_one_thing_said() -> None:
    assert "all of its 4 answers to benign prompts are empty" in str(
        said_doubt("benign prompts", given("", " ", "", ""))
    )
    one = said_doubt("benign prompts", given("Yes  sir", "yes sir", "Yes sir"))
    assert (
        one is not None and one.startswith("gives one and the same answer to all 3 benign prompts: ") and "sir" in one
    )


@pytest.mark.parametrize(
    "answers",
    [given("yes", "no", "yes"), given("", "yes", ""), given("yes", "yes"), given("a", "a", "a", status="thinking"), []],
    ids=["other", "some", "two", "thinking", "none"],
)
def test_what_differs_or_is_not_known_is_no_doubt(answers: list[Answer]) -> None:
    assert said_doubt("prompts", answers) is None


def scored(right: Sequence[bool], choices: int = 4, place: int | None = None) -> ChoiceScores:
    """Questions whose right choice goes round; the likeliest is right, the next one, or always at `place`."""
    rows = []
    for number, wins in enumerate(right):
        true = number % choices
        chosen = place if place is not None else true if wins else (true + 1) % choices
        question = Question(str(number), "?", tuple("abcdefgh"[:choices]), (true,))
        rows.append(
            ScoredQuestion(question, tuple(-1.0 if n == chosen else -2.0 for n in range(choices)), (1,) * choices)
        )
    return ChoiceScores("cloze", False, tuple(rows), ())


def doubted(right: Sequence[bool], **more: int) -> list[str]:
    return list(choice_doubts("facts", scored(right, **more), [float(wins) for wins in right]))


def test_questions_at_and_under_chance() -> None:
    (at,) = doubted([True] * 10 + [False] * 30)
    assert at.startswith("facts: 25.0 % of 40 questions right is at chance (25.0 %)")
    (under,) = doubted([False] * 40)
    assert "is under chance (25.0 %)" in under
    assert doubted([True] * 25 + [False] * 15) == [] and doubted([False] * 5) == []


def test_always_the_same_place() -> None:
    found = doubted([n % 4 == 2 for n in range(40)], place=2)
    assert found[1] == "facts: always the choice at place 3 of 40 questions is the likeliest."


def test_a_perplexity_worse_than_blind_guessing() -> None:
    assert perplexity_doubt(479.0, 480) is None
    assert "no better than drawing any of its 480 tokens blindly" in str(perplexity_doubt(480.0, 480))


def outcome(row: int, attack: str, *statuses: str) -> BehaviourOutcome:
    answers = tuple(
        JudgedAnswer(0, 0, status, "", 0, "unjudged", False, None, "")  # type: ignore[arg-type]
        for status in statuses
    )
    return BehaviourOutcome(row, attack, False, False, answers)


def test_attacks_that_are_met_by_silence() -> None:
    outcomes = [outcome(row, "direct", "empty") for row in range(3)]
    outcomes += [outcome(row, "prefill 2", "empty", "ok" if row else "empty") for row in range(3)]
    found = silence_doubt(_elicited(outcomes))
    assert (
        found
        == "every answer to the behaviours is empty under direct: they count as not broken, and say nothing "
        + ("about safety.")
    )
    assert silence_doubt(_elicited(outcomes[3:])) is None


def _elicited(outcomes: list[BehaviourOutcome]) -> Elicitation:
    return Elicitation("", "", None, 3, (), None, tuple(outcomes))  # type: ignore[arg-type]
