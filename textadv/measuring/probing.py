"""What the guard against catastrophic overfitting looks at: one set of rows under two attacks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from textadv.attacks import Attack, Stages, ThreatModel
from textadv.data import Rows
from textadv.measuring.accuracy.attacking import attack_rows, clean_logits, guessed, partly_right
from textadv.training.overfitting import Probe
from textadv.values.decisions import in_line, right_in_all


def probed(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    training: Attack,
    strong: Attack,
    batch_size: int = 64,
    *,
    threat: ThreatModel | None = None,
    step: int = 0,
    radius_scale: float = 1.0,
) -> Probe:
    """Accuracy on the rows at `positions`: without an attack, under that of training, and under a strong one.

    Rows of several labels count by label. What is wrong without an attack counts as wrong under both. Random starts are
    the same at every call, and the numbers the same on every process. threat: what the perturbations are measured
    against, see `attack_rows`.

    step: the optimizer step whose stage of training's attack is taken. radius_scale: the factor on the radius of that
    attack; the strong one has the whole radius, so that its numbers compare over a run.
    """
    guesses = guessed(rows, positions, clean_logits(model, rows, positions, batch_size))
    total = len(in_line(rows.labels[position] for position in positions))
    clean = sum(right_in_all(rows.labels[position], guess) for position, guess in guesses.items())

    def kept(attack: Attack, scale: float) -> float:
        if scale == 0:
            return clean / total
        left = partly_right(rows, guesses)
        hits = attack_rows(model, rows, left, attack, batch_size, scale, threat=threat, name="guard")
        held = (right_in_all(rows.labels[hit.position], guesses[hit.position], hit.prediction) for hit in hits)
        return sum(held) / total

    training = training.at(step) if isinstance(training, Stages) else training
    return Probe(clean / total, kept(training, radius_scale), kept(strong, 1.0), radius_scale)
