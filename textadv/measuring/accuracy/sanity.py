"""Numbers about a classifier that cannot be right, told beside them: at chance, one answer for all, a wild temperature.

Sentences are about what was measured on certain rows; whoever shows them says of which model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from textadv.measuring.accuracy.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from textadv.measuring.accuracy.renumbering import LISTED, Renumbering, quoted, renumbering, told
from textadv.measuring.statistics import against_chance, no_better_than

LEAST_ROWS = 8
LEAST_ROWS_OF_A_CLASS = 5
LEAST_OF_OTHERS = 3
LEAST_AGREEMENT = 0.2
# In standard deviations: 0.1 %, one-sided.
CERTAIN = 3.09
AT_BOUND = 1e-3


def no_better_than_constant(predictions: Sequence[int], labels: Sequence[int]) -> bool:
    """Whether the predictions are as good as answering the most common class always.

    One-sided exact binomial test at 5 %: a model that has collapsed to one class is caught, also where a few rows
    still differ, and its "robust accuracy", the share of that class, is not mistaken for robustness.
    """
    right = sum(guess == label for guess, label in zip(predictions, labels, strict=True))
    majority = max(labels.count(label) for label in set(labels)) / len(labels)
    return no_better_than(right, len(labels), majority)


@dataclass(frozen=True)
class Answered:
    """What a classifier answered to labelled rows.

    guesses, labels: class ids, one per row. classes: how many the model tells apart. split: what the rows are called.
    names: of the classes, in the order of their ids; numbers stand for those that are missing. several: whether rows
    have several labels each, which then stand in line.
    """

    guesses: Sequence[int]
    labels: Sequence[int]
    classes: int
    split: str
    names: Sequence[str] = ()
    several: bool = False

    @property
    def one(self) -> str:
        """What is counted."""
        return "label" if self.several else "row"

    @property
    def what(self) -> str:
        """All that is counted."""
        return f"{self.split} {self.one}s"

    def name(self, number: int) -> str:
        """What a class is called."""
        return self.names[number] if number < len(self.names) else str(number)

    @cached_property
    def order(self) -> Renumbering | None:
        """Another order of the classes that fits clearly better, see `renumbering`."""
        if not self.labels:
            return None
        return renumbering(self.guesses, self.labels, max(self.classes, max(self.labels) + 1))

    def order_doubt(self) -> str | None:
        """The renumbering that would fit, in a sentence."""
        found = self.order
        if found is None:
            return None
        return told(found, [self.name(n) for n in range(len(found.classes))], self.what)


def answer_doubts(answered: Answered) -> tuple[str, ...]:
    """What the answers give away: another order of the classes, one class for all, chance, classes never answered."""
    if not answered.labels:
        return ()
    order, counts = answered.order_doubt(), Counter(answered.labels)
    if len(counts) == 1:
        only = quoted(answered.name(answered.labels[0]))
        doubt = (
            f"all {len(answered.labels)} {answered.what} are of class {only}: the one answer {only} would be "
            "right on all of them, so accuracy does not say whether classes are told apart. Evaluate all classes."
        )
        return (doubt,) if len(answered.labels) > 1 else ()
    if len(set(answered.guesses)) == 1:
        others = sum(label != answered.guesses[0] for label in answered.labels)
        verdict = (
            "it has collapsed, its robustness is void."
            if others >= LEAST_OF_OTHERS
            else f"{others} of another class are too few to say whether it has collapsed."
        )
        return (
            f"gives every one of {len(answered.labels)} {answered.what} class "
            f"{quoted(answered.name(answered.guesses[0]))}: {verdict}",
        )
    found = [order, _chance(answered, counts, order is not None), _never(answered, counts)]
    return tuple(doubt for doubt in found if doubt is not None)


def _chance(answered: Answered, counts: Counter[int], explained: bool) -> str | None:
    """That accuracy lies at or under chance; with too few rows to say so, None.

    Chance is the best constant answer, which is right on 1 / classes of the rows or more; the tests are those of
    `against_chance`. Answers that follow the classes of unbalanced rows, see `_agreement`, are no chance.
    """
    total = len(answered.labels)
    common, constant = counts.most_common(1)[0]
    right = sum(guess == label for guess, label in zip(answered.guesses, answered.labels, strict=True))
    chance = constant / total
    word = against_chance(right, total, chance, constant)
    if total < LEAST_ROWS or word is None:
        return None
    agreement = _agreement(answered)
    if agreement is not None and right > constant:
        return None
    if agreement is not None:
        return (
            f"clean accuracy, {100 * right / total:.1f} % of {total} {answered.what}, is not above that of the "
            f"answer {quoted(answered.name(common))} to every {answered.one}, {100 * chance:.1f} %, though answers do "
            f"follow the classes (kappa {agreement:.2f}): of {answered.one}s so unbalanced, accuracies clean and "
            "robust say little."
        )
    remedy = (
        " Where the model was trained for these classes it reads other inputs, labels or columns than it was trained "
        "on: compare rows, label names and preprocessing with its model card."
    )
    return (
        f"clean accuracy, {100 * right / total:.1f} % of {total} {answered.what}, is {word} chance: the answer "
        f"{quoted(answered.name(common))} to every {answered.one} would be right on {100 * chance:.1f} %. Numbers "
        f"about the robustness of such a model mean nothing.{'' if explained else remedy}"
    )


def _agreement(answered: Answered) -> float | None:
    """Cohen's kappa of answers and labels, where it is at least 0.2 and no accident; else None.

    An accident: what 1 in 1,000 random orders of these answers would reach, by a normal approximation with the exact
    mean and variance over all orders (Hoeffding, 1951).
    """
    total = len(answered.labels)
    classes = sorted({*answered.labels, *answered.guesses})
    given, true = Counter(answered.guesses), Counter(answered.labels)
    guesses = np.array([given[number] for number in classes]) / total
    labels = np.array([true[number] for number in classes]) / total
    right = sum(guess == label for guess, label in zip(answered.guesses, answered.labels, strict=True)) / total
    expected = float(guesses @ labels)
    centred = np.eye(len(classes)) - labels[:, None] - guesses[None, :] + expected
    deviation = math.sqrt(float(guesses @ centred**2 @ labels) / max(total - 1, 1))
    if expected == 1 or right - expected <= CERTAIN * deviation:
        return None
    kappa = (right - expected) / (1 - expected)
    return kappa if kappa >= LEAST_AGREEMENT else None


def _never(answered: Answered, counts: Counter[int]) -> str | None:
    """The classes that have rows enough and are never answered."""
    given = set(answered.guesses)
    absent = sorted(label for label, rows in counts.items() if rows >= LEAST_ROWS_OF_A_CLASS and label not in given)
    if not absent:
        return None
    listed = [f"{quoted(answered.name(label))} ({counts[label]} {answered.what})" for label in absent[:LISTED]]
    more = f" and {len(absent) - LISTED} more" if len(absent) > LISTED else ""
    return f"never answers {', '.join(listed)}{more}: all these {answered.one}s are wrong without an attack."


def temperature_doubt(temperature: float, answered: Answered) -> str | None:
    """That the temperature fitted on these rows ran to a bound, or could not be fitted."""
    rows = f"{len(answered.labels)} {answered.what}"
    if len(set(answered.labels)) == 1:
        return f"the temperature was fitted on {rows} of one class, {quoted(answered.name(answered.labels[0]))}, alone."
    if temperature >= HIGHEST_TEMPERATURE * (1 - AT_BOUND):
        right = sum(guess == label for guess, label in zip(answered.guesses, answered.labels, strict=True))
        why = (
            "its logits lie very far apart, as those of a model whose output is scaled up"
            if 2 * right > len(answered.labels)
            else "the surer the model is, the more often it is wrong there, as with swapped labels or one constant "
            "answer"
        )
    elif temperature <= LOWEST_TEMPERATURE * (1 + AT_BOUND):
        why = "its logits hardly differ, as those of a model whose output is scaled down or already normalised"
    else:
        return None
    return (
        f"the temperature fitted on {rows} ran to its bound {temperature:g}: {why}. Confidences, the calibration error "
        "and what attacks find on such logits are not to be believed; see evaluation.calibrate."
    )
