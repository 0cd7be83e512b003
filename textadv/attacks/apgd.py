"""APGD: gradient ascent that chooses its own step sizes, and the named forms that AutoAttack is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.attacks.parts.apgd_steps import Halving, Rule, Sparse, confined
from textadv.attacks.parts.attacked import Attacked, Outcome
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Goal, TargetedDlr, TargetedMargin, Untargeted, require_slope, target_count
from textadv.attacks.parts.probe import Point, evaluate_at
from textadv.attacks.parts.record import Record
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import clean_is_known, clean_logits, half_to_single
from textadv.attacks.wrappers.ensemble import WorstOf
from textadv.models import bare, delta_shape, editable_mask, evaluating, with_prefix
from textadv.values.batch import Batch, Perturbation
from textadv.values.losses import cross_entropy, dlr
from textadv.values.plurals import some
from textadv.values.randomness import derived_seed, row_generators

# The stages of a search in an L1 ball: (factor on the radius, share of the steps), arXiv:2103.01208 section 4.
L1_STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
# Steps between the checkpoints of a search in an L1 ball, as a share of all steps (same paper).
L1_CHECKS = 0.04


@dataclass(frozen=True)
class _Searched:
    """The rows that are still searched: their positions in the whole batch, and what a pass over them takes."""

    index: Tensor
    batch: Batch
    threat: ThreatModel
    clean: Tensor

    def rows(self, kept: Tensor) -> _Searched:
        """The rows that a (B,) bool mask names."""
        return _Searched(self.index[kept], self.batch.rows(kept), self.threat.rows(kept), self.clean[kept])


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD (arXiv:2003.01690, algorithm 1), in L1 balls its sparse form (arXiv:2103.01208).

    The only free choice is `steps`, the gradients per restart: the step size starts at twice the radius and is halved,
    row by row, where it makes no progress; a row then goes on from its best point. Each row keeps the most damaging
    point of all restarts: one that reaches the goal first, then the goal's value.

    random_start: start at a random point of the ball's boundary, otherwise at zero. A batch that carries a perturbation
        in the same space overrides both for the first restart: it starts there.
    early_stop: rows that reached the goal are dropped from the computation; those that reach it without any attack are
        not attacked at all and keep a delta of zero.
    momentum, rho: the paper's alpha and rho; not used in L1 balls.
    seed: random starts are drawn from (seed, step, row id, restart).
    cache_prefix: see `GradientAttack`.

    Deviations: those of the rules `Halving` and `Sparse`, among them balls per token, which the papers do not have; in
    L1 balls a stage that would get no step is left out.
    """

    threat: ThreatModel
    steps: int = 100
    goal: Goal = field(default_factory=Untargeted)
    random_start: bool = True
    restarts: int = 1
    early_stop: bool = True
    momentum: float = 0.75
    rho: float = 0.75
    seed: int = 0
    cache_prefix: bool = True

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.steps < 1:
            raise ValueError(f"attack.steps must be at least 1, got {self.steps}.")
        if self.restarts < 1:
            raise ValueError(f"attack.restarts must be at least 1, got {self.restarts}.")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"attack.restarts: {self.restarts} would repeat one start. Set attack.random_start: true.")
        for name, value in (("momentum", self.momentum), ("rho", self.rho)):
            if not 0 < value <= 1:
                raise ValueError(f"attack.{name} must be above 0 and at most 1, got {value}.")

    def __str__(self) -> str:
        parts = [
            f"APGD ({self.goal}), {some(self.steps, 'step')}",
            some(self.restarts, "restart"),
        ]
        parts += ["random start"] if self.random_start else []
        return ", ".join([*parts, "early stop" if self.early_stop else "no early stop", "most damaging"])

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
        """The rows of `batch` perturbed; see `Attack` for the arguments.

        Raises PerturbationError where the output does not depend on the delta, its gradient is zero in every row that
        was searched, or not finite in any.
        """
        model, batch, back = entered(self, model, batch, y, measure)
        if self.early_stop and isinstance(bare(model), FSDPModule) and model.training:
            raise ValueError("attack.early_stop makes processes run different numbers of passes, which FSDP cannot do.")
        threat = self.threat.resolved(model, batch).scaled(radius_scale)
        rows = batch.clean()
        with evaluating(model):
            looks = 1 if clean_is_known(model, rows) else 2
            clean = clean_logits(model, rows)
            dtype = half_to_single(next((weight.dtype for weight in model.parameters()), clean.dtype))
            nowhere = torch.zeros(delta_shape(model, batch, threat.space), device=batch.device, dtype=dtype)
            # Asked for anew, and not read off `clean`: of a randomised model this point is the mean of many passes.
            origin = evaluate_at(model, rows, threat, nowhere, self.goal, clean, ascend=False)
            record = self._search(model, batch, threat, clean, origin, nowhere, step)
        slopes = record.slopes(model, rows, threat)
        outcome = None
        if measure:
            gain, climb = record.value - origin.value, record.value - record.start
            outcome = Outcome(record.reached, gain, climb, record.margin)
        cost = record.cost._replace(queries=record.queries + looks)
        moved, gauge = rows.perturbed(threat.space, record.delta), threat.ball.gauge(record.delta)
        return back(Attacked(moved, gauge, cost, outcome, slopes=slopes))

    def _search(
        self,
        model: nn.Module,
        batch: Batch,
        threat: ThreatModel,
        clean: Tensor,
        origin: Point,
        nowhere: Tensor,
        step: int,
    ) -> Record:
        record = Record.empty(nowhere)
        wrong = origin.reached.nonzero().squeeze(1)
        reached = Point(origin.value[wrong], origin.reached[wrong], origin.margin[wrong], None)
        record.note(wrong, nowhere[wrong], reached, "most_damaging")
        index = torch.arange(len(batch), device=batch.device)
        for restart in range(self.restarts):
            if self.early_stop:
                index = (~record.reached).nonzero().squeeze(1)
            if not len(index):
                break
            rows, local = batch.rows(index), threat.rows(index)
            delta, fresh = self._start(model, rows, local, nowhere[index], step, restart)
            rows = rows.clean()
            if self.cache_prefix:
                rows = with_prefix(model, rows, Perturbation(threat.space, delta))
            self._restart(model, _Searched(index, rows, local, clean[index]), delta, fresh, record)
        return record

    def _start(
        self, model: nn.Module, rows: Batch, threat: ThreatModel, zero: Tensor, step: int, restart: int
    ) -> tuple[Tensor, bool]:
        """The first delta, and whether it is fresh: not found by another search."""
        given = rows.perturbation
        if given is not None and given.space == threat.space and restart == 0:
            return threat.confine(rows, given.delta.to(zero.dtype)), False
        if not self.random_start:
            require_slope(self.goal)
            return zero, True
        mask = editable_mask(rows, delta_shape(model, rows, threat.space))
        inside = threat.ball.sample(mask, row_generators(self.seed, step, rows.ids, restart))
        edge = threat.ball.unit(inside) * threat.ball.bound(inside)
        return confined(rows, threat, edge.to(zero.dtype)), True

    def _restart(self, model: nn.Module, searched: _Searched, delta: Tensor, fresh: bool, record: Record) -> None:
        """One search of the rows; leaves what it found in `record`."""
        if searched.threat.ball.geometry.name != "L1":
            self._climb(model, searched, Halving(self.momentum, self.rho), delta, self.steps, fresh, record)
            return
        left, rule = self.steps, Sparse(max(int(L1_CHECKS * self.steps), 1))
        for factor, share in L1_STAGES[:-1]:
            steps = int(share * self.steps)
            if not steps:
                continue
            wide = searched.threat.scaled(factor)
            stage = _Searched(searched.index, searched.batch, wide, searched.clean)
            start = confined(stage.batch, wide, delta * factor if fresh else delta)
            delta = self._climb(model, stage, rule, start, steps, fresh, record, allowed=False)
            fresh, left = False, left - steps
        delta = confined(searched.batch, searched.threat, delta)
        self._climb(model, searched, rule, delta, left, fresh, record)

    def _climb(
        self,
        model: nn.Module,
        searched: _Searched,
        rule: Rule,
        delta: Tensor,
        steps: int,
        fresh: bool,
        record: Record,
        allowed: bool = True,
    ) -> Tensor:
        """The best delta of a search that no row left.

        allowed: whether the points lie in the threat model: others are counted only, and no row is dropped for them.
        """
        windows = rule.windows(steps)
        climb = None
        for turn in range(steps + 1):
            last = turn == steps
            rows, threat = searched.batch, searched.threat
            point = evaluate_at(model, rows, threat, delta, self.goal, searched.clean, ascend=not last)
            record.count(searched.index, point)
            if allowed:
                record.note(searched.index, delta, point, "most_damaging")
            climb = rule.begin(rows, threat, delta, point, fresh) if climb is None else climb.seen(delta, point)
            if last:
                break
            if turn in windows:
                climb = rule.adapted(climb, threat, windows[turn])
            if allowed and self.early_stop and bool(point.reached.any()):
                searched, climb = searched.rows(~point.reached), climb.rows(~point.reached)
                if not len(searched.index):
                    break
            with torch.no_grad():
                delta = rule.moved(searched.batch, searched.threat, climb, first=turn == 0)
        assert climb is not None
        return climb.best


def apgd_ce(
    threat: ThreatModel, *, steps: int = 100, restarts: int = 1, early_stop: bool = True, seed: int = 0
) -> Apgd:
    """APGD on the cross-entropy: the first part of AutoAttack (arXiv:2003.01690); for 2 classes or more, and chats.

    Deviations: those of `Apgd`.
    """
    return Apgd(threat, steps, Untargeted(cross_entropy), restarts=restarts, early_stop=early_stop, seed=seed)


def apgd_dlr(
    threat: ThreatModel, *, steps: int = 100, restarts: int = 1, early_stop: bool = True, seed: int = 0
) -> Apgd:
    """APGD on the difference of logits ratio (arXiv:2003.01690, equation 6); for 3 classes or more.

    Deviations: those of `Apgd`.
    """
    return Apgd(threat, steps, Untargeted(dlr), restarts=restarts, early_stop=early_stop, seed=seed)


def apgd_targeted(
    threat: ThreatModel, classes: int, *, steps: int = 100, restarts: int = 1, early_stop: bool = True, seed: int = 0
) -> WorstOf:
    """APGD towards one wrong class after the other, strongest on the clean row first: AutoAttack's APGD-T.

    Each of the min(9, classes - 1) searches begins at the clean image, with a random start of its own, on the rows that
    none has broken. The goal is the targeted difference of logits ratio (arXiv:2003.01690, equation 7), or, for 2 and 3
    classes, where that does not exist, the target's logit minus the label's.

    Deviations: those of `Apgd`, and that goal of 2 and 3 classes.
    """
    ranks = range(1, target_count(classes) + 1)
    goals: list[Goal] = [TargetedDlr(rank) if classes >= 4 else TargetedMargin(rank) for rank in ranks]
    return WorstOf(
        tuple(
            Apgd(threat, steps, goal, restarts=restarts, early_stop=early_stop, seed=derived_seed(seed, rank))
            for rank, goal in zip(ranks, goals, strict=True)
        )
    )
