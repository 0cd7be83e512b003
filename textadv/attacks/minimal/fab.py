"""FAB: the shortest perturbation that changes the decision, by steps along the decision boundary (arXiv:1907.02044)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import UNBOUNDED, Smallest, logits_at, slope, unbounded
from textadv.attacks.parts.attacked import Attacked
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import target_count
from textadv.attacks.parts.hyperplane import PROJECTIONS
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.models import bare, editable_mask, evaluating, forward
from textadv.values.batch import Batch, per_row
from textadv.values.decisions import require_one_each
from textadv.values.losses import margin
from textadv.values.plurals import some
from textadv.values.randomness import row_generators

DUAL_ORDERS = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}
FINAL_STEPS = 3
# How far behind the estimated boundary the final search aims, as a share of the rest of the way.
BEHIND = 0.1


@dataclass(frozen=True)
class _Search:
    """Rows on their way: their positions in the whole batch, where they are, where they head, and their bounds.

    delta, low, high: shaped as the delta. classes: (b, T), the classes whose boundaries are looked at.
    """

    index: Tensor
    rows: Batch
    delta: Tensor
    classes: Tensor
    low: Tensor
    high: Tensor

    def kept(self, keep: Tensor) -> _Search:
        """The rows where `keep` (b,) bool holds."""
        rest = (self.delta[keep], self.classes[keep], self.low[keep], self.high[keep])
        return _Search(self.index[keep], self.rows.rows(keep), *rest)


@dataclass(frozen=True)
class Fab:
    """Fast adaptive boundary attack (arXiv:1907.02044, algorithm 1), for classifiers and one ball per example.

    A minimal attack: see `textadv.attacks.minimal.contract` for what comes back.

    steps: linearisations per search. restarts: searches per target; the first starts at the clean row, later ones at a
        random point at half of the smaller of the radius and the shortest perturbation known.
    alpha_max: the largest weight of the projection of the clean row. eta: the overshoot of both projections.
    beta: how much of an adversarial delta is kept for the next step.
    seed: random starts are drawn from (seed, step, row id, restart).
    targets: None for the nearest of all other classes: one forward and C - 1 backward passes a step. Otherwise ranks (1
        is the class with the highest clean logit after the label's): a search towards each in turn, with one backward
        pass a step (FAB-T, arXiv:2003.01690, section 4.2). Any wrong class is a success either way.
    early_stop: a row is dropped once it is broken inside the radius, final search included. That is cheaper where only
        success counts, since its perturbation is then not the smallest.

    Deviations: a point at which the gradient is taken counts too, where it is adversarial. The final search on the
    segment to the clean row ends every search and not only the last, so that more searches are never worse; it takes
    the margin for the class difference, and aims a tenth of the rest of the way behind the estimated boundary: on a
    piecewise linear network the estimate lies on the boundary itself, where rounding would decide. A plane
    that is nearer than one rounding error of the largest logit is taken to be that far: a tie of half-precision logits
    would stall the search. The searches towards several targets share each row's random starts.

    Raises ValueError for a ball per token, for chats and for ranks that the model has no class for, and
    PerturbationError where the output does not depend on the delta, or its gradient is zero in every row or not finite.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    seed: int = 0
    targets: tuple[int, ...] | None = None
    early_stop: bool = False

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.threat.ball.per == "token":
            raise ValueError(
                "FAB measures the perturbation of a whole row, got threat.per: token. Set threat.per: example, or use "
                "APGD or DeepFool."
            )
        for name, count in (("steps", self.steps), ("restarts", self.restarts)):
            if count < 1:
                raise ValueError(f"attack.{name} must be at least 1, got {count}.")
        for name, share in (("alpha_max", self.alpha_max), ("beta", self.beta)):
            if not 0 <= share <= 1:
                raise ValueError(f"attack.{name} must lie between 0 and 1, got {share}.")
        if not 1 <= self.eta < float("inf"):
            raise ValueError(f"attack.eta must be at least 1 and finite, got {self.eta}.")
        if self.targets is not None and (not self.targets or min(self.targets) < 1):
            raise ValueError(f"attack.targets must name ranks from 1 on, got {self.targets}.")

    def __str__(self) -> str:
        aim = "nearest class" if self.targets is None else f"targets of rank {', '.join(map(str, self.targets))}"
        searches = some(self.restarts, "restart")
        return (
            f"FAB, {some(self.steps, 'step')}, {searches}, {aim}, "
            f"{'early stop' if self.early_stop else 'no early stop'}"
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
            "FAB",
            batch,
            "FAB measures the distance to other classes, and a chat model has none, got chats. Use Carlini-Wagner, "
            "or a minimum radius search over PGD.",
        )
        threat = self.threat.resolved(model, batch).scaled(radius_scale)
        with evaluating(model):
            found = Smallest.of_clean(model, batch, threat)
            index = found.open()
            ranked = _ranked(found.clean, found.rows.labels)
            if self.targets is not None and max(self.targets) > ranked.shape[1]:
                raise ValueError(
                    f"attack.targets must be at most {ranked.shape[1]} for a model of {ranked.shape[1] + 1} classes, "
                    f"got {max(self.targets)}."
                )
            if len(index):
                found.note_slope(model, index)
                self._run(model, found, index, ranked, step)
        return back(found.attacked(measure, smallest=not self.early_stop))

    def _run(self, model: nn.Module, found: Smallest, index: Tensor, ranked: Tensor, step: int) -> None:
        """Every restart towards every target, for the rows `index`; ranked: their other classes (B, C - 1)."""
        for restart, rank in product(range(self.restarts), self.targets or (None,)):
            index = self._wanted(found, index)
            if not len(index):
                return
            rows, wide = found.rows.rows(index), unbounded(found.threat)
            far = torch.full_like(found.delta[index], UNBOUNDED)
            low, high = wide.confine(rows, -far), wide.confine(rows, far)
            start = torch.zeros_like(far)
            if restart:
                start = _clipped(self._start(found, index, rows, step, restart), low, high)
            classes = ranked[index] if rank is None else ranked[index, rank - 1 : rank]
            own = _fresh(found)
            self._search(model, own, _Search(index, rows, start, classes, low, high))
            _final_search(model, own, self._wanted(own, index))
            shorter = index[own.size[index] < found.size[index]]
            found.take(shorter, *(part[shorter] for part in (own.delta, own.size, own.gain, own.climb, own.margin)))

    def _wanted(self, found: Smallest, index: Tensor) -> Tensor:
        """Those of the rows `index` that are to be searched further."""
        if not self.early_stop:
            return index
        return index[~found.attacked(measure=True).success[index]]

    def _start(self, found: Smallest, index: Tensor, rows: Batch, step: int, restart: int) -> Tensor:
        """A random direction, as long as half of the smaller of the radius and the shortest perturbation known."""
        threat = found.threat.rows(index)
        radius = threat.ball.bound(found.delta[index]).double().reshape(-1)
        ball = replace(threat.ball, radius=torch.minimum(found.size[index], radius) / 2, relative_radius=None)
        mask = editable_mask(rows, tuple(found.delta[index].shape))
        noise = ball.sample(mask, row_generators(self.seed, step, rows.ids, restart))
        return (ball.unit(noise) * ball.bound(noise)).to(found.delta.dtype)

    def _search(self, model: nn.Module, found: Smallest, at: _Search) -> None:
        """One search from `at.delta` towards the nearest of `at.classes`."""
        for _ in range(self.steps):
            weight, offset = _nearest_plane(model, found, at)
            moved = self._moved(found.threat, at, weight, offset)
            with torch.no_grad():
                logits = forward(bare(model), at.rows.perturbed(found.threat.space, moved))
            broken = found.goal.reached(logits, at.rows)
            found.see(at.index, at.rows, moved, logits, broken)
            found.spend(at.index, forwards=1, backwards=at.classes.shape[1], queries=1)
            back = per_row(broken, moved)
            at = replace(at, delta=torch.where(back, self.beta * moved, moved))
            if self.early_stop:
                still = torch.isin(at.index, self._wanted(found, at.index))
                at = at if bool(still.all()) else at.kept(still)
                if not len(at.index):
                    return

    def _moved(self, threat: ThreatModel, at: _Search, weight: Tensor, offset: Tensor) -> Tensor:
        """The biased step: the delta and 0, both projected on the plane and overshot, combined (equations 6 and 7)."""
        here = at.delta.double().flatten(1)
        points = torch.cat([here, torch.zeros_like(here)])
        low, high = (bound.double().flatten(1).repeat(2, 1) for bound in (at.low, at.high))
        geometry = threat.ball.geometry
        projected = PROJECTIONS[geometry.name](points, weight.repeat(2, 1), offset.repeat(2), low, high)
        step, direct = (projected - points).chunk(2)
        length, both = geometry.norm(step), geometry.norm(step) + geometry.norm(direct)
        share = (length / torch.where(both > 0, both, 1)).clamp_max(self.alpha_max)
        moved = (1 - share) * (here + self.eta * step) + share * self.eta * direct
        return _clipped(moved.reshape(at.delta.shape).to(at.delta.dtype), at.low, at.high)


def fab_targeted(
    threat: ThreatModel,
    classes: int,
    *,
    steps: int = 100,
    restarts: int = 1,
    seed: int = 0,
    early_stop: bool = True,
) -> Fab:
    """FAB-T (arXiv:2003.01690, section 4.2): towards the min(9, classes - 1) strongest other classes, one by one.

    Deviations: those of `Fab`.
    """
    ranks = tuple(range(1, target_count(classes) + 1))
    return Fab(threat, steps, restarts, seed=seed, targets=ranks, early_stop=early_stop)


def _fresh(found: Smallest) -> Smallest:
    """A record in which nothing is known yet, for one search; passes are counted for both."""
    unknown = torch.full_like(found.size, torch.inf)
    delta, reached = found.delta.clone(), found.reached.clone()
    gain, climb, lead = found.gain.clone(), found.climb.clone(), found.margin.clone()
    return replace(found, delta=delta, reached=reached, size=unknown, gain=gain, climb=climb, margin=lead)


def _clipped(delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(delta, low), high)


def _ranked(clean: Tensor, labels: Tensor) -> Tensor:
    """The classes other than the label by falling clean logit, (B, C - 1) int64."""
    others = clean.scatter(1, labels.unsqueeze(1), float("-inf"))
    return others.argsort(dim=1, descending=True, stable=True)[:, :-1]


def _nearest_plane(model: nn.Module, found: Smallest, at: _Search) -> tuple[Tensor, Tensor]:
    """The linearised boundary <weight, z> = offset nearest to the delta, weight (b, n) and offset (b,), float64.

    Nearest in the ball's norm, among the boundaries between the label and each of `at.classes`.
    """
    logits, leaf = logits_at(model, at.rows, found.threat, at.delta)
    found.see(at.index, at.rows, at.delta, logits, found.goal.reached(logits.detach(), at.rows))
    here = at.delta.double().flatten(1)
    weight, offset = torch.zeros_like(here), torch.zeros_like(here[:, 0])
    nearest = torch.full_like(offset, torch.inf)
    # A point on the label's side aims at least one rounding error of the largest logit far: at a tie it would stay.
    least = torch.finfo(logits.dtype).eps * logits.detach().double().abs().amax(dim=1)
    for column in range(at.classes.shape[1]):
        with torch.enable_grad():
            own = logits.gather(1, at.rows.labels.unsqueeze(1)).double()
            lead = (logits.gather(1, at.classes[:, column : column + 1]).double() - own).squeeze(1)
        last = column + 1 == at.classes.shape[1]
        steep = slope(model, lead, leaf, at.rows, found.threat, keep_graph=not last).double().flatten(1)
        dual = torch.linalg.vector_norm(steep, DUAL_ORDERS[found.threat.ball.geometry.name], dim=1)
        gap = lead.detach()
        gap = torch.where(gap <= 0, torch.minimum(gap, -least), gap)
        distance = torch.where(dual > 0, gap.abs() / torch.where(dual > 0, dual, 1), torch.inf)
        nearer = distance < nearest
        nearest = torch.where(nearer, distance, nearest)
        weight = torch.where(nearer.unsqueeze(1), steep, weight)
        offset = torch.where(nearer, (steep * here).sum(dim=1) - gap, offset)
    return weight, offset


def _final_search(model: nn.Module, found: Smallest, index: Tensor) -> None:
    """Three steps of false position on the segment from the clean row to the perturbation found (section 3).

    A share of the perturbation that is adversarial takes its place; another becomes the clean end of the segment.
    """
    index = index[found.size[index].isfinite()]
    if not len(index):
        return
    rows, whole = found.rows.rows(index), found.delta[index].double()
    below, above = margin(found.clean.double(), found.rows)[index], found.margin[index]
    near, far = torch.zeros_like(below), torch.ones_like(above)
    for _ in range(FINAL_STEPS):
        crossing = -below / torch.where(above > below, above - below, 1)
        share = near + (crossing + BEHIND * (1 - crossing)).clamp(0, 1) * (far - near)
        tried = (whole * per_row(share, whole)).to(found.delta.dtype)
        with torch.no_grad():
            logits = forward(bare(model), rows.perturbed(found.threat.space, tried))
        broken, lead = found.goal.reached(logits, rows), margin(logits.double(), rows)
        found.see(index, rows, tried, logits, broken)
        found.spend(index, queries=1)
        near, far = torch.where(broken, near, share), torch.where(broken, share, far)
        below, above = torch.where(broken, below, lead), torch.where(broken, lead, above)
