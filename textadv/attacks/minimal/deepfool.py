"""DeepFool: straight to the nearest decision boundary of the model, linearised again after every step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import Smallest, logits_at, search_open, slope
from textadv.attacks.parts.attacked import Attacked
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.models import bare, forward
from textadv.values.batch import Batch
from textadv.values.decisions import require_one_each
from textadv.values.plurals import some


@dataclass(frozen=True)
class DeepFool:
    """The nearest class boundary of the linearised model, step by step (arXiv:1511.04599, algorithm 2, section 3.3).

    A minimal attack: see `textadv.attacks.minimal.contract` for what comes back. With f the logits, y the label and w_k
    the gradient of f_k - f_y at the current point, a step goes along the steepest direction of the ball to the boundary
    of the class with the smallest |f_k - f_y| / |w_k|, in the dual norm. Every ball works: L2 and Linf as in the
    paper, L1 as its L1 form; per token the norm is that of the longest token and its dual the sum over the tokens.

    steps: linearisations. candidates: classes looked at, the label among them: those with the largest clean logits.
    overshoot: the total is lengthened once by this share, wherever the model is evaluated.

    Deviations: the way starts at the label, so that rows that are wrong already are done. Pixels are confined to the
    box, and entries that the box holds are left out of the linearisation; the paper has no box. The authors' 1e-4,
    added to every step, is not.

    Raises ValueError for chats, and PerturbationError where the output does not depend on the delta.
    """

    threat: ThreatModel
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")
        if self.candidates < 2:
            raise ValueError(f"attack.candidates counts the label too and must be at least 2, got {self.candidates}.")
        if not 0 <= self.overshoot < float("inf"):
            raise ValueError(f"attack.overshoot must be finite and not negative, got {self.overshoot}.")

    def __str__(self) -> str:
        return (
            f"DeepFool, {some(self.steps, 'step')}, {some(self.candidates, 'candidate')}, overshoot {self.overshoot:g}"
        )

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
        """The rows of `batch` with the smallest perturbation found; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        require_one_each(
            "DeepFool",
            batch,
            "DeepFool measures the distance to other classes, and a chat model has none, got rows with targets. "
            "Use Carlini-Wagner, or a minimum radius search over PGD.",
        )
        return back(
            search_open(partial(self._search, model), self.threat, model, batch, radius_scale).attacked(measure)
        )

    def _search(self, model: nn.Module, found: Smallest, index: Tensor, _base: ThreatModel) -> None:
        found.note_slope(model, index)
        others = found.clean.scatter(1, found.rows.labels.unsqueeze(1), float("-inf"))
        ranked = others.topk(min(self.candidates, others.shape[1]) - 1, dim=1).indices  # (B, K)
        rows, total = found.rows.rows(index), torch.zeros_like(found.delta[index], dtype=torch.float64)
        for _ in range(self.steps):
            delta = found.confine(index, ((1 + self.overshoot) * total).to(found.delta.dtype))
            logits, leaf = logits_at(model, rows, found.threat, delta)
            found.spend(index, forwards=1)
            broken = found.goal.reached(logits.detach(), rows)
            found.see(index, rows, delta, logits, broken)
            move, moves = _to_nearest(model, found, index, rows, logits, leaf, ranked[index])
            found.spend(index, backwards=ranked.shape[1])
            kept = ~broken & moves
            index, rows, total = index[kept], rows.rows(kept), (total + move)[kept]
            if not len(index):
                return
        delta = found.confine(index, ((1 + self.overshoot) * total).to(found.delta.dtype))
        with torch.no_grad():
            logits = forward(bare(model), rows.perturbed(found.threat.space, delta))
        found.spend(index, queries=1)
        found.see(index, rows, delta, logits, found.goal.reached(logits, rows))


def _to_nearest(
    model: nn.Module, found: Smallest, index: Tensor, rows: Batch, logits: Tensor, leaf: Tensor, ranked: Tensor
) -> tuple[Tensor, Tensor]:
    """The step to the nearest linearised boundary of the classes `ranked` (n, K), float64, and where there is one."""
    # A step aims at least one rounding error of the largest logit far, so that a tie does not stall it.
    least = torch.finfo(logits.dtype).eps * logits.detach().double().abs().amax(dim=1)
    distance = torch.full_like(least, float("inf"))
    step = torch.zeros_like(leaf, dtype=torch.float64)
    for place in range(ranked.shape[1]):
        with torch.enable_grad():
            of_class = logits.double().gather(1, ranked[:, place : place + 1])
            lead = (of_class - logits.double().gather(1, rows.labels.unsqueeze(1))).squeeze(1)
        grad = slope(model, lead, leaf, rows, found.threat, keep_graph=True).double()
        held = ((grad > 0) & (leaf >= found.high[index])) | ((grad < 0) & (leaf <= found.low[index]))
        direction = found.threat.ball.steepest(grad.masked_fill(held, 0))
        dual = (direction * grad).flatten(1).sum(dim=1)
        gap = torch.maximum(-lead.detach(), least)
        far = torch.where(dual > 0, gap / torch.where(dual > 0, dual, 1), float("inf"))
        nearer = far < distance
        shape = [-1, *[1] * (leaf.dim() - 1)]
        step = torch.where(nearer.reshape(shape), far.reshape(shape) * direction, step)
        distance = torch.where(nearer, far, distance)
    return step, distance.isfinite()
