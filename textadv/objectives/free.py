"""Objectives that keep the gradients of the ascent itself: FreeLB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textadv.attacks import GradientAttack, ThreatModel
from textadv.attacks.attacked import Attacked, Cost
from textadv.attacks.probe import assess, uniform_start
from textadv.batch import Batch
from textadv.losses import cross_entropy
from textadv.models import PerturbationError, bare, editable_mask, evaluating, forward
from textadv.objectives.terms import Moment, Term
from textadv.randomness import preserved_rng, rng_state, set_rng_state


@dataclass(frozen=True)
class FreeLB:
    """The mean loss over K perturbations of one ascent; each backward serves weights and delta (arXiv:1909.11764).

    Term k of K is the cross-entropy at the k-th delta with weight 1 / K: losses 0.4, 0.6 and 0.8 contribute 0.6.

    attack: its threat model, ascent, steps (K) and seed are used; the ascent runs here, in training mode.
    start: size of the initial uniform noise as a share of the radius.
    clean_term: also average in the loss of the unperturbed row, as term 0 with every weight 1 / (K + 1).
    hold_dropout: replay the first pass's random numbers in the others, so that all K share one dropout mask.

    Deviations from the paper: the ball is per token unless the threat says per example; the initial noise is uniform
    in the ball, where the released code draws a cube.
    """

    attack: GradientAttack
    start: float = 0.5
    clean_term: bool = False
    hold_dropout: bool = False
    keeps_clean: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ValueError(f"objective.start must lie in 0..1 (a share of the radius), got {self.start}.")

    @property
    def terms(self) -> int:
        """K, and one more with the clean term."""
        return self.attack.steps + self.clean_term

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The terms; what the trainer's backward leaves in the delta's gradient drives the next ascent step."""
        attack = self.attack
        threat = attack.threat.resolved(model, batch).scaled(moment.radius_scale)
        rows = batch.clean()
        dtype = next(model.parameters()).dtype
        delta = uniform_start(model, rows, threat, dtype, attack.seed, moment.step) * self.start
        first, state = delta, attack.ascent.init(delta)
        dropout = rng_state() if self.hold_dropout else None
        if self.clean_term:
            yield Term("clean", cross_entropy(forward(model, rows), rows), 1 / self.terms)
        for turn in range(attack.steps):
            delta = delta.detach().requires_grad_()
            last = turn == attack.steps - 1
            attacked = self._measured(model, rows, threat, delta, first) if last and moment.measure else None
            logits = self._forward(model, rows.perturbed(threat.space, delta), dropout, turn)
            yield Term("adversarial", cross_entropy(logits, rows), 1 / self.terms, adversarial=True, attacked=attacked)
            if not last:
                with torch.no_grad():
                    grad = self._gradient(delta, rows, threat)
                    delta, state = attack.ascent.update(delta.detach(), grad, threat.ball, state)
                    delta = threat.confine(rows, delta)

    def _forward(self, model: nn.Module, batch: Batch, dropout: dict[str, Tensor] | None, turn: int) -> Tensor:
        """Turn 0 draws dropout as ever; later turns replay its random numbers where the mask is held."""
        if dropout is None or (turn == 0 and not self.clean_term):
            return forward(model, batch)
        with preserved_rng():
            set_rng_state(dropout)
            return forward(model, batch)

    def _gradient(self, delta: Tensor, rows: Batch, threat: ThreatModel) -> Tensor:
        if delta.grad is None or not bool(delta.grad.any()):
            raise PerturbationError(
                f"The backward pass left {'no' if delta.grad is None else 'a zero'} gradient at the perturbation of "
                f"the {threat.space}: the output does not depend on it, or a term was not backpropagated before the "
                "next was asked for."
            )
        # A loss scaler's overflow leaves infinities here; the trainer then skips the optimizer step.
        return torch.nan_to_num(delta.grad).masked_fill(~editable_mask(rows, tuple(delta.shape)), 0)

    def _measured(self, model: nn.Module, rows: Batch, threat: ThreatModel, delta: Tensor, first: Tensor) -> Attacked:
        """The last delta in evaluation mode, against the clean rows and the initial noise."""
        with evaluating(model), torch.no_grad():
            clean = forward(bare(model), rows)
            return assess(model, rows, threat, delta.detach(), first, self.attack.goal, clean, Cost.none(rows))
