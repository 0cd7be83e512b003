"""White-box attacks that climb a gradient: FGSM, PGD and what lies between, in any space.

An attack never calls `.backward()`, never changes `requires_grad`, seeds nothing and puts the model's mode back, so
every parameter's `.grad` is bit-identical before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.attacks.parts.ascent import Ascent
from textadv.attacks.parts.attacked import Attacked, Outcome
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Goal, Untargeted, require_slope
from textadv.attacks.parts.probe import evaluate_at
from textadv.attacks.parts.record import Record, Select
from textadv.attacks.parts.starts import spread_start, uniform_start
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import half_to_single, mean_logits, value_at_clean
from textadv.models import bare, delta_shape, dtype_of, evaluating, with_prefix
from textadv.values.batch import Batch, Perturbation
from textadv.values.plurals import some

Starts = Literal["ball", "spread"]


@dataclass(frozen=True)
class GradientAttack:
    """Gradient ascent on a goal inside a ball (PGD: arXiv:1706.06083).

    steps: gradients per restart. restarts: searches from independent random starts.
    random_start: start at random, otherwise at zero. A batch that carries a perturbation in the same space overrides
        both for the first search: it starts there (that is how `then` continues an attack).
    starts: `ball` draws every random start uniform in the ball, as published. In many dimensions such a point lies on
        the ball's surface. `spread` starts the first search at the clean row (where the goal has a slope there), and
        the others at such a draw times a factor that is uniform in 0..1, one for each row.
    early_stop: a row that reached the goal is dropped from the computation, later restarts included.
    select: `last` keeps the last iterate (training), `most_damaging` the worst iterate of all restarts (measuring).
    seed: random starts are drawn from (seed, step, row id, restart).
    cache_prefix: for chats, compute the keys and values before the first editable position once per search, where the
        model's cache reproduces its plain forward pass.

    Deviations: the step itself is the paper's. The row is attacked in evaluation mode, also in training. Gradients are
    scaled row by row, which changes no step and keeps the direction of rows whose loss has all but vanished.
    `most_damaging` takes the worst of all points and restarts, where the paper's code takes the last point.
    """

    threat: ThreatModel
    ascent: Ascent
    steps: int
    goal: Goal = field(default_factory=Untargeted)
    random_start: bool = True
    restarts: int = 1
    early_stop: bool = False
    select: Select = "last"
    seed: int = 0
    cache_prefix: bool = True
    starts: Starts = "ball"

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.steps < 1:
            raise ValueError(
                f"attack.steps must be at least 1, got {self.steps}. To train without an attack set mixing.ratio: 0."
            )
        if self.restarts < 1:
            raise ValueError(f"attack.restarts must be at least 1, got {self.restarts}.")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"attack.restarts: {self.restarts} would repeat one start. Set attack.random_start: true.")
        if self.starts not in ("ball", "spread"):
            raise ValueError(f"attack.starts must be ball or spread, got {self.starts!r}.")
        if self.restarts > 1 and self.select == "last":
            raise ValueError("attack.restarts above 1 must choose between them: set attack.select: most_damaging.")

    def __str__(self) -> str:
        step = self.ascent.step_size
        size = f"{step.relative:g} x radius" if step.relative is not None else f"{step.absolute:g}"
        kind = type(self.ascent).__name__
        restarts = some(self.restarts, "restart")
        return f"{some(self.steps, 'step')} of {size} ({kind}), {restarts}, {self.kept}"

    @property
    def kept(self) -> str:
        """Where a search starts and which point of it is kept, in words."""
        parts = [self._starting()] if self.random_start else []
        return ", ".join([*parts, "early stop" if self.early_stop else "no early stop", self.select.replace("_", " ")])

    def _starting(self) -> str:
        if self.starts == "ball":
            return "random start"
        if self.goal.flat_at_clean:
            return "random start at a random radius"
        return "clean start" + (", then random radii" if self.restarts > 1 else "")

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

        Raises PerturbationError where the output does not depend on the delta, its gradient is zero in every row, or
        not finite in any.
        """
        model, batch, back = entered(self, model, batch, y, measure)
        if self.early_stop and isinstance(bare(model), FSDPModule) and model.training:
            raise ValueError("attack.early_stop makes processes run different numbers of passes, which FSDP cannot do.")
        threat = self.threat.resolved(model, batch).scaled(radius_scale)
        rows = batch.clean()
        with evaluating(model):
            clean = None
            if self.goal.needs_clean or measure:
                clean = mean_logits(model, rows)
            looked = measure or self.select == "most_damaging"
            record = self._search(model, batch, threat, clean, step, looked)
        slopes = record.slopes(model, rows, threat)
        cost = record.cost
        outcome = None
        if clean is not None:
            cost = cost._replace(queries=cost.queries + 1)
            if measure:
                before = value_at_clean(self.goal, rows, clean)
                outcome = Outcome(record.reached, record.value - before, record.value - record.start, record.margin)
        moved, gauge = rows.perturbed(threat.space, record.delta), threat.ball.gauge(record.delta)
        # The pass over clean rows is in no search's count of tokens.
        sent = record.sent if clean is None else None
        reached = record.reached if looked else None
        return back(Attacked(moved, gauge, cost, outcome, slopes=slopes, sent=sent, reached=reached))

    def _search(
        self, model: nn.Module, batch: Batch, threat: ThreatModel, clean: Tensor | None, step: int, finish: bool
    ) -> Record:
        dtype = half_to_single(dtype_of(model))
        delta = torch.zeros(delta_shape(model, batch, threat.space), device=batch.device, dtype=dtype)
        record = Record.empty(delta)
        index = torch.arange(len(batch), device=batch.device)
        for restart in range(self.restarts):
            if restart and self.early_stop:
                index = (~record.reached).nonzero().squeeze(1)
                if not len(index):
                    break
            rows = batch.rows(index)
            start = self._start(model, rows, threat.rows(index), delta[index], step, restart)
            self._ascend(model, rows.clean(), threat, clean, start, index, record, finish)
        return record

    def _start(
        self, model: nn.Module, rows: Batch, threat: ThreatModel, zero: Tensor, step: int, restart: int
    ) -> Tensor:
        given = rows.perturbation
        if given is not None and given.space == threat.space and restart == 0:
            return threat.confine(rows, given.delta.to(zero.dtype))
        if not self.random_start:
            require_slope(self.goal)
            return zero
        if self.starts == "spread":
            if restart == 0 and not self.goal.flat_at_clean:
                return zero
            return spread_start(model, rows, threat, zero.dtype, self.seed, step, restart)
        return uniform_start(model, rows, threat, zero.dtype, self.seed, step, restart)

    def _ascend(
        self,
        model: nn.Module,
        rows: Batch,
        threat: ThreatModel,
        clean: Tensor | None,
        delta: Tensor,
        index: Tensor,
        record: Record,
        finish: bool,
    ) -> None:
        """One restart for the rows `index` of the whole batch; leaves what it found in `record`."""
        reference = None if clean is None else clean[index]
        local = threat.rows(index)
        state = self.ascent.init(delta)
        if self.cache_prefix:
            rows = with_prefix(model, rows, Perturbation(threat.space, delta))
        record.send(index, rows)
        for _ in range(self.steps):
            point = evaluate_at(model, rows, local, delta, self.goal, reference, ascend=True)
            record.see(index, delta, point, self.select)
            grad = point.grad
            assert grad is not None
            if self.early_stop and bool(point.reached.any()):
                kept = ~point.reached
                index, rows, delta, grad = index[kept], rows.rows(kept), delta[kept], grad[kept]
                state = tuple(part[kept] for part in state)
                reference = None if reference is None else reference[kept]
                local = local.rows(kept)
                if not len(index):
                    return
            with torch.no_grad():
                delta, state = self.ascent.update(delta, grad.to(delta.dtype), local.ball, state)
                delta = local.confine(rows, delta)
        if finish:
            record.see(
                index,
                delta,
                evaluate_at(model, rows, local, delta, self.goal, reference, ascend=False),
                self.select,
            )
        else:
            record.delta[index] = delta
