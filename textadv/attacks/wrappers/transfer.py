"""Attacks crafted on one model and judged on another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.probe import assess
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import half_to_single, mean_logits, one_pass
from textadv.models import delta_shape, dtype_of, evaluating, require_model
from textadv.values.batch import Batch


@dataclass(frozen=True)
class Transfer:
    """What `attack` finds on `surrogate`, carried over to the model that is attacked (arXiv:1605.07277).

    surrogate: a model over the same inputs and classes, on the same device. Only it is searched, in evaluation mode.
    attack: searches the surrogate, in the space of `threat`. One that stops where the surrogate is fooled, as attacks
        with early_stop, Square, AutoAttack and all that look for the shortest perturbation do, carries little over.
    threat: what the adversary may do to the attacked model. A perturbation that is longer, because the surrogate's
        embeddings are or because the attack looks for the shortest, is brought back into this ball.
    name: what the surrogate is called where the attack is printed.
    goal: what is measured on the attacked model.

    The outcome is that on the attacked model; nothing was searched there, so its climb is nan. Of the cost, `forwards`
    are all passes through the surrogate, with a gradient or without, `backwards` are the surrogate's too, and
    `queries` are passes through the attacked model: two where it is measured.

    Deviations: the paper trains its surrogates on the attacked model's answers, here they are given.

    Raises ValueError where the two models' deltas differ in shape or space, or they differ in the number of classes,
    which one row through each tells; these two passes are not counted.
    """

    surrogate: nn.Module = field(repr=False)
    attack: Attack
    threat: ThreatModel
    name: str
    goal: Goal = field(default_factory=Untargeted)

    def __post_init__(self) -> None:
        require_model(self.surrogate)
        require_attack("attack", self.attack)
        require_threat(self.threat)

    def __str__(self) -> str:
        return f"{self.attack}, transferred from {self.name}"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        rows = batch.clean()
        self._require_one_kind(model, rows)
        threat = self.threat.resolved(model, rows).scaled(radius_scale)
        with evaluating(self.surrogate):
            crafted = searched(self.attack, self.surrogate, batch, step=step, radius_scale=radius_scale, measure=False)
        found = crafted.of_same_tokens("Transfer").perturbation
        if str(found.space) != str(threat.space):
            raise ValueError(
                f"A transferred attack must move what the threat model names, {threat.space}, got {found.space}."
            )
        delta = found.delta.detach().to(half_to_single(dtype_of(model)))
        delta = threat.confine(rows, delta)
        spent = crafted.cost
        cost = spent._replace(forwards=spent.forwards + spent.queries, queries=torch.zeros_like(spent.queries))
        with evaluating(model):
            clean = mean_logits(model, rows) if measure else None
            return back(
                replace(assess(model, rows, threat, delta, None, self.goal, clean, cost), slopes=crafted.slopes)
            )

    def _require_one_kind(self, model: nn.Module, rows: Batch) -> None:
        theirs, ours = (delta_shape(each, rows, self.threat.space) for each in (self.surrogate, model))
        if theirs != ours:
            raise ValueError(
                f"An attack on the {self.threat.space} cannot be transferred from {self.name}: a row's delta has shape "
                f"{theirs[1:]} there and {ours[1:]} in the attacked model. Take a surrogate of the same width, or "
                "attack the pixels."
            )
        one = rows.rows(torch.arange(len(rows), device=rows.device) < 1)
        classes = []
        for each in (self.surrogate, model):
            with evaluating(each):
                classes.append(one_pass(each, one).shape[-1])
        if classes[0] != classes[1]:
            raise ValueError(
                f"An attack cannot be transferred from {self.name}, which tells {classes[0]} classes apart, to a model "
                f"of {classes[1]}: their labels do not mean the same. Take a surrogate over the same classes."
            )
