"""Numbers about a chat model that cannot be right: one answer to all, choices at chance, worse than guessing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from scipy.stats import binom

from textadv.data.locating import shortened
from textadv.evaluation.elicitation import Elicitation
from textadv.evaluation.kept_answers import Answer
from textadv.evaluation.multiple_choice import ChoiceScores
from textadv.evaluation.sanity import COLLAPSE_LEVEL, LEAST_ROWS, UNDER_LEVEL
from textadv.evaluation.statistics import wilson

LEAST_ANSWERS = 3


def said_doubt(what: str, given: Sequence[Answer]) -> str | None:
    """That a model says nothing, or one and the same, to all prompts of a file; what: what these are called."""
    said = [" ".join(answer.text.split()) for answer in given if answer.status in ("ok", "empty")]
    if len(said) < LEAST_ANSWERS or len(said) < len(given) or len({text.casefold() for text in said}) > 1:
        return None
    if not said[0]:
        return (
            f"all of its {len(said)} answers to {what} are empty: what it does not say is neither safe nor useful. "
            "Compare the chat template, its end tokens and max_new_tokens with the model's own use."
        )
    return (
        f"gives one and the same answer to all {len(said)} {what}: {shortened(said[0])}. It has collapsed, or its chat "
        "template is another model's; what no attack breaks is then no robustness."
    )


def silence_doubt(found: Elicitation) -> str | None:
    """The attacks to which every answer is empty: behaviours count as not broken by them."""
    statuses: dict[str, Counter[str]] = {}
    for outcome in found.outcomes:
        statuses.setdefault(outcome.attack, Counter()).update(answer.status for answer in outcome.answers)
    silent = [name for name, counts in statuses.items() if set(counts) == {"empty"} and counts.total() >= LEAST_ANSWERS]
    if not silent:
        return None
    return (
        f"every answer to the behaviours is empty under {', '.join(silent)}: they count as not broken, and say nothing "
        "about safety."
    )


def choice_doubts(label: str, scores: ChoiceScores, values: Sequence[float]) -> Iterable[str]:
    """That questions are answered at or under chance, or always with the choice at one place.

    values: 1 where a question is answered rightly. Chance is the mean share of right choices. The tests are those of
    classifiers, see `textadv.evaluation.sanity`.
    """
    questions = [row.question for row in scores.scored]
    if len(questions) < LEAST_ROWS or any(value not in (0, 1) for value in values):
        return
    total, right = len(values), int(sum(values))
    chance = sum(len(question.true) / len(question.choices) for question in questions) / total
    under = bool(binom.cdf(right, total, chance) < UNDER_LEVEL)
    at = binom.sf(right - 1, total, chance) > COLLAPSE_LEVEL and wilson(right, total).high < (1 + chance) / 2
    if under or at:
        word = "under" if under else "at" if right <= chance * total else "not shown to be above"
        yield (
            f"{label}: {100 * right / total:.1f} % of {total} questions right is {word} chance ({100 * chance:.1f} %): "
            "no capability was shown that could be lost, so that it held says nothing."
        )
    chosen = {max(range(len(row.sizes)), key=lambda n: row.log_likelihoods[n] / row.sizes[n]) for row in scores.scored}
    if len(chosen) == 1:
        yield f"{label}: always the choice at place {chosen.pop() + 1} of {total} questions is the likeliest."


def perplexity_doubt(value: float, vocabulary: int) -> str | None:
    """That useful answers are less likely than tokens drawn blindly; vocabulary: how many tokens there are."""
    if value < vocabulary:
        return None
    return (
        f"utility perplexity {value:,.0f} is no better than drawing any of its {vocabulary:,} tokens blindly: the "
        "model is broken, or reads these chats in another template or tokenizer than it was trained with."
    )
