"""Whether an answer depends on the rows beside it: some prompts answered again, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from textadv.data import Rows
from textadv.measuring.safety.adversaries import Adversary, Direct, Prefill
from textadv.measuring.safety.elicitation import Elicitation, JudgedAnswer
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import Some
from textadv.measuring.sections.batch_invariance import BatchInvariance
from textadv.measuring.sections.outcomes import AttackOutcomes
from textadv.measuring.statistics import wilson
from textadv.values.flops import summed
from textadv.values.randomness import seeded_sample

Told = tuple[Elicitation, Sequence[AttackOutcomes]]
"""Answers, and what became of them, attack by attack."""
Alone = Callable[[Rows, Sequence[str], Mapping[str, Adversary], Decoding], Told]
"""(behaviours, what judges see of them, attacks, decoding) -> what they are answered, kept nowhere."""

DRAW = 35


def batch_invariance(
    ask: Alone,
    rows: Rows,
    requests: Sequence[str],
    attacks: Mapping[str, Adversary],
    decoding: Decoding,
    found: Told,
    most: int | None,
) -> BatchInvariance | None:
    """How many of at most so many prompts are answered otherwise alone; None where there is nothing to compare.

    found: what the run was answered, by `decoding`. The prompts are those of the attacks that ask without a search, on
    behaviours that are drawn from the run's seed, at least one; of several samples the first. A prompt that can be
    answered neither way is left out.
    """
    plain = {name: attack for name, attack in attacks.items() if isinstance(attack, Direct | Prefill)}
    if most is None or decoding.batch_size == 1 or not plain or not len(rows):
        return None
    drawn = tuple(seeded_sample(range(len(rows)), max(most // len(plain), 1), decoding.seed, DRAW))
    began = time.perf_counter()
    one = replace(decoding, batch_size=1, samples=1)
    alone, became = ask(Some(rows, drawn), [requests[place] for place in drawn], plain, one)
    before, after = _first(found), _first((alone, became))
    pairs = [(before[place], after[place]) for place in after if place[0] in plain]
    pairs = [pair for pair in pairs if any(answer.status != "error" for answer, _ in pair)]
    if not pairs:
        return None
    outcomes = sum(own[1] != other[1] for own, other in pairs)
    texts = sum((own[0].text, own[0].thought) != (other[0].text, other[0].thought) for own, other in pairs)
    return BatchInvariance(
        wilson(outcomes, len(pairs)),
        wilson(texts, len(pairs)),
        decoding.batch_size,
        summed(other[0].sampling_flops for _, other in pairs),
        time.perf_counter() - began,
    )


def _first(told: Told) -> dict[tuple[str, int], tuple[JudgedAnswer, str]]:
    """By attack and behaviour the first answer and its outcome."""
    found, outcomes = told
    became = {one.attack: iter(one.answers) for one in outcomes if one.answers}
    first = {}
    for outcome in found.outcomes:
        own = next(became[outcome.attack])
        if outcome.answers:
            first[outcome.attack, outcome.id] = outcome.answers[0], own[0].partition(":")[0]
    return first
