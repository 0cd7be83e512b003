"""An attack on a chat model that works on two answers at once: toward the harmful one, and away from the safe one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from textadv.attacks.gradient import GradientAttack
from textadv.attacks.parts.attacked import Attacked, Cost, slope_met
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.probe import assess, differentiable
from textadv.attacks.parts.starts import uniform_start
from textadv.attacks.parts.threat import ThreatModel
from textadv.attacks.parts.unperturbed import half_to_single, one_pass
from textadv.models import PerturbationError, bare, delta_shape, dtype_of, editable_mask, evaluating, forward
from textadv.models.finite import overflow
from textadv.values.batch import Batch, concatenate, per_row
from textadv.values.host.printable import shortened
from textadv.values.kinds import require_kind
from textadv.values.losses import cross_entropy, log_1_minus_p


@dataclass(frozen=True)
class Contrast:
    """The adversary of targeted LAT with its away term (arXiv:2407.15549, section 3): one delta for two answers.

    Lowers the cross-entropy of the rows' own answer, the harmful target, plus `away` times -log(1 - p) of another
    answer, the safe one; where that costs 2 nats per token and the target 3, with away 0.5 it lowers
    3 + 0.5 x (-log(1 - exp(-2))) = 3.07.

    attack: its threat model, ascent, steps, random start and seed are used. It keeps its last point.
    away: weight of the second term, above 0. answer: the name of the answer that it drives away from.
    cutoff: nats of a token of that answer beyond which it counts nothing.

    Each step passes both answers forward and backward. What is measured is the target, as `Elicit` does.

    Deviations: means are per row, where the released code has one over the batch's tokens; the length of a step is the
    ascent's, where it is AdamW's.
    """

    attack: GradientAttack
    away: float
    answer: str = "safe"
    cutoff: float = 5.0

    def __post_init__(self) -> None:
        require_kind("attack", self.attack, GradientAttack, "a gradient attack", "Give pgd(threat, steps=16).")
        if not 0 < self.away < float("inf"):
            raise ValueError(f"objective.parts: lat.adversary_away must be above 0 and finite here, got {self.away}.")
        if self.attack.starts != "ball":
            raise ValueError(
                "An adversary with lat.adversary_away starts in the ball. Leave attack.starts at its default."
            )
        if self.attack.select != "last" or self.attack.early_stop or self.attack.restarts > 1:
            raise ValueError(
                "An adversary with objective.parts: lat.adversary_away runs once and keeps its last point. Leave "
                "attack.select, attack.early_stop and attack.restarts at their defaults."
            )

    def __str__(self) -> str:
        return f"{self.attack}, away from the {self.answer} answer by {self.away:g}"

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
        """The rows perturbed; see `Attack`.

        Raises PerturbationError where a gradient is not finite, or zero in every row, and ValueError where the rows
        are no chats with an answer of their own and another of that name.
        """
        model, batch, back = entered(self, model, batch, y, measure)
        self._require_two_answers(batch)
        attack, rows = self.attack, batch.clean()
        other = rows.answering(self.answer)
        threat = attack.threat.resolved(model, batch).scaled(radius_scale)
        dtype = half_to_single(dtype_of(model))
        first = torch.zeros(delta_shape(model, rows, threat.space), device=rows.device, dtype=dtype)
        if attack.random_start:
            first = uniform_start(model, rows, threat, dtype, attack.seed, step)
        with evaluating(model):
            delta, state = first, attack.ascent.init(first)
            # Asked for once, after the last step: a look at each would make the host wait for the device.
            met, finite = ~rows.editable.any(), torch.ones_like(rows.ids, dtype=torch.bool)
            for _ in range(attack.steps):
                grad = self._gradient(model, rows, other, threat, delta)
                met, finite = met | grad.any(), finite & torch.isfinite(grad).flatten(1).all(dim=1)
                with torch.no_grad():
                    delta, state = attack.ascent.update(delta, grad, threat.ball, state)
                    delta = threat.confine(rows, delta)
            if not bool(finite.all()):
                raise PerturbationError(
                    f"The gradient of the goal with respect to the {threat.space} is not finite at row ids "
                    f"{rows.ids[~finite].tolist()}. {overflow(model, rows)}"
                )
            slopes = slope_met(
                bool(met), f"The gradient of the goal is exactly zero for every row's delta in the {threat.space}."
            )
            clean = one_pass(model, rows) if measure else None
            passes = torch.full_like(rows.ids, 2 * attack.steps)
            cost = Cost(passes, passes.clone(), torch.zeros_like(passes))
            return back(replace(assess(model, rows, threat, delta, first, attack.goal, clean, cost), slopes=slopes))

    def _require_two_answers(self, batch: Batch) -> None:
        if batch.prompt_lengths is None or batch.targets is None:
            raise ValueError(
                "Contrast works on two answers of a chat model, got rows without a prompt and its answer. Use pgd, or "
                "give the rows an answer: batch.answering(name)."
            )
        if self.answer not in batch.answers:
            raise ValueError(
                f"Contrast drives away from the answer {shortened(self.answer)!r}, and the rows have "
                f"{shortened(', '.join(sorted(batch.answers)) or 'none')}. Set answer to one of theirs."
            )

    def _gradient(self, model: nn.Module, rows: Batch, other: Batch, threat: ThreatModel, delta: Tensor) -> Tensor:
        """That of what is raised, in direction per row: what flows back is scaled per row, as in `evaluate_at`."""
        with differentiable():
            leaf = delta.detach().requires_grad_()
            moved = rows.perturbed(threat.space, leaf)
            assert moved.perturbation is not None
            pair = concatenate([moved, other.carrying(moved.perturbation)])
            logits = forward(bare(model), pair)
            wide = logits.detach().to(half_to_single(logits.dtype)).requires_grad_()
            harmful = cross_entropy(wide, pair).chunk(2)[0]
            safe = log_1_minus_p(wide, pair, self.cutoff).chunk(2)[1]
            (upstream,) = torch.autograd.grad((-harmful - self.away * safe).sum(), [wide])
            largest = torch.maximum(*upstream.abs().flatten(1).amax(dim=1).chunk(2)).repeat(2)
            scale = per_row(largest, upstream)
            upstream = upstream / torch.where(scale > 0, scale, 1)
            (grad,) = torch.autograd.grad(logits, [leaf], upstream.to(logits.dtype), allow_unused=True)
        if grad is None:
            raise PerturbationError(f"The output does not depend on the perturbation of the {threat.space}.")
        return grad.masked_fill(~editable_mask(rows, tuple(delta.shape)), 0).to(delta.dtype)
