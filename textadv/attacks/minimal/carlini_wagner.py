"""The Carlini-Wagner attacks: the smallest change that the model's own gradient can find, in L2, Linf and L0.

Minimal attacks: see `textadv.attacks.minimal.contract` for what comes back, and
`textadv.attacks.parts.hinge` for the objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from textadv.attacks.minimal.contract import Smallest, logits_at, require_ball, search_open, slope
from textadv.attacks.parts.attacked import Attacked
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.hinge import Problem, Schedule, coordinates_of, minimise
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.models import editable_mask
from textadv.values.batch import Batch, per_row
from textadv.values.losses import margin
from textadv.values.plurals import some
from textadv.values.spaces import Space

# Shares of the box or the radius: the Linf attack stops below, as the authors' code does on images of 8 bits.
FINEST = 1 / 256


def _require(confidence: float, search_steps: int, steps: int, learning_rate: float, constant: float) -> None:
    for name, count in (("search_steps", search_steps), ("steps", steps)):
        if count < 1:
            raise ValueError(f"attack.{name} must be at least 1, got {count}.")
    for name, value in (("learning_rate", learning_rate), ("initial_constant", constant)):
        if not 0 < value < float("inf"):
            raise ValueError(f"attack.{name} must be finite and above 0, got {value}.")
    if not 0 <= confidence < float("inf"):
        raise ValueError(f"attack.confidence must be finite and not negative, got {confidence}.")


def _require_growth(factor: float) -> None:
    if not 1 < factor < float("inf"):
        raise ValueError(f"attack.constant_factor must be finite and above 1, got {factor}.")


def _square(delta: Tensor, index: Tensor) -> Tensor:
    return delta.square().flatten(1).sum(dim=1)


@dataclass(frozen=True)
class CarliniWagner:
    """The smallest L2 norm (arXiv:1608.04644, section V), with a search for the constant of every row.

    confidence: how far the other logit must lead. search_steps: optimisations, each from the clean row with a fresh
    Adam: the constant grows tenfold until one breaks the row and is bisected then. steps: gradients in each.
    learning_rate: Adam's, in the coordinates of `coordinates_of`. abort_early: a row stops where nothing improves.
    As in the authors' code the last of 10 or more search steps tries the smallest constant that broke the row again.

    Deviations: untargeted only; rows that are wrong already are done, whatever the confidence; spaces other than
    pixels have no box, so the delta itself is the variable, in units of the radius. For a chat model the row is broken
    where greedy decoding leaves its answer; to make it say an answer, search the minimum radius of PGD with `Elicit`.
    """

    threat: ThreatModel
    confidence: float = 0.0
    search_steps: int = 9
    steps: int = 1000
    learning_rate: float = 1e-2
    initial_constant: float = 1e-3
    abort_early: bool = True

    def __post_init__(self) -> None:
        require_threat(self.threat)
        _require(self.confidence, self.search_steps, self.steps, self.learning_rate, self.initial_constant)
        require_ball(self.threat, "L2", "Carlini-Wagner L2")

    def __str__(self) -> str:
        return (
            f"Carlini-Wagner L2, {some(self.search_steps, 'constant')} of {some(self.steps, 'step')}, confidence "
            f"{self.confidence:g}"
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
        found = _found_by(self._search, self.threat, self.confidence, model, batch, radius_scale, shared=True)
        return back(found.attacked(measure))

    def _search(self, problem: Problem, index: Tensor) -> None:
        lower = torch.zeros(len(index), device=index.device, dtype=torch.float64)
        upper, constant = torch.full_like(lower, float("inf")), torch.full_like(lower, self.initial_constant)
        schedule = Schedule(self.steps, self.learning_rate, self.abort_early)
        clean = torch.zeros_like(problem.found.delta[index])
        for turn in range(self.search_steps):
            if turn == self.search_steps - 1 and turn >= 9:
                constant = torch.where(upper.isfinite(), upper, constant)
            hit = minimise(problem, index, clean, constant, schedule)
            upper = torch.where(hit, torch.minimum(upper, constant), upper)
            lower = torch.where(hit, lower, torch.maximum(lower, constant))
            constant = torch.where(upper.isfinite(), (lower + upper) / 2, constant * 10)


@dataclass(frozen=True)
class CarliniWagnerLinf:
    """The smallest Linf norm: the sum of what exceeds a bound tau is penalised, and tau shrinks (section VI.C).

    Each optimisation starts at the smallest perturbation known, with a fresh Adam. One that breaks the row within tau
    sets tau to `shrink` times the norm found; one that does not multiplies the constant by `constant_factor`, and the
    row ends where that exceeds `largest_constant` (arXiv:1608.04644). search_steps: optimisations at most. The other
    arguments are those of `CarliniWagner`, their defaults those of the authors' code.

    Deviations: those of `CarliniWagner`; tau starts without a bound, for pixels the same as the authors' 1, and shrinks
    by 0.95, since their 0.9 ends up to 11 % above the optimum; broken points outside tau count too where they are
    smaller than what was known. Per token and per example are the same.
    """

    threat: ThreatModel
    confidence: float = 0.0
    search_steps: int = 100
    steps: int = 1000
    learning_rate: float = 5e-3
    initial_constant: float = 1e-5
    largest_constant: float = 20.0
    constant_factor: float = 2.0
    shrink: float = 0.95
    abort_early: bool = True

    def __post_init__(self) -> None:
        require_threat(self.threat)
        _require(self.confidence, self.search_steps, self.steps, self.learning_rate, self.initial_constant)
        _require_growth(self.constant_factor)
        if not 0 < self.shrink < 1:
            raise ValueError(f"attack.shrink must lie between 0 and 1, got {self.shrink}.")
        require_ball(self.threat, "Linf", "Carlini-Wagner Linf")

    def __str__(self) -> str:
        return (
            f"Carlini-Wagner Linf, at most {self.search_steps} x {some(self.steps, 'step')}, confidence "
            f"{self.confidence:g}"
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
        return back(_found_by(self._search, self.threat, self.confidence, model, batch, radius_scale).attacked(measure))

    def _search(self, problem: Problem, index: Tensor) -> None:
        found = problem.found
        length = problem.length.flatten().double()
        tau = torch.full_like(found.size, float("inf"))  # (B,)
        constant = torch.full_like(found.size, self.initial_constant)

        def excess(delta: Tensor, rows: Tensor) -> Tensor:
            bound = per_row(tau[rows], delta)
            return (delta.abs() - bound).clamp_min(0).flatten(1).sum(dim=1)

        problem = replace(problem, penalty=excess, solved_below=1e-4)
        schedule = Schedule(self.steps, self.learning_rate, self.abort_early)
        for _ in range(self.search_steps):
            solved = minimise(problem, index, found.delta[index], constant[index], schedule)
            won, lost = index[solved], index[~solved]
            tau[won] = self.shrink * torch.minimum(tau[won], found.size[won] / length[won])
            constant[lost] *= self.constant_factor
            index = index[(constant[index] <= self.largest_constant) & (tau[index] > FINEST)]
            if not len(index):
                return


@dataclass(frozen=True)
class CarliniWagnerL0:
    """The fewest changed units: those that matter least are frozen until no solution is left (section VI.B).

    A unit is a pixel with all its channels, or in other spaces one dimension of one position. After each solution the
    units it left alone are frozen, and of the others those with the smallest |gradient x delta| (arXiv:1608.04644).
    What is smallest is the number of changed units; gauge and success are still those of `threat.ball`, an L2 ball per
    example, which should be large. freeze: the share of the changed units that is frozen next. The other arguments are
    those of `CarliniWagnerLinf`.

    Deviations: those of `CarliniWagner`; a failure halves the number that was frozen, and the search ends where
    freezing one fails (the paper freezes one unit at a time and stops at the first failure). The gradient is that of
    the margin, since that of the hinge is zero at a solution.
    """

    threat: ThreatModel
    confidence: float = 0.0
    search_steps: int = 200
    steps: int = 1000
    learning_rate: float = 1e-2
    initial_constant: float = 1e-3
    largest_constant: float = 2e6
    constant_factor: float = 2.0
    freeze: float = 0.3
    abort_early: bool = True

    def __post_init__(self) -> None:
        require_threat(self.threat)
        _require(self.confidence, self.search_steps, self.steps, self.learning_rate, self.initial_constant)
        _require_growth(self.constant_factor)
        if not 0 < self.freeze < 1:
            raise ValueError(f"attack.freeze is a share of the changed units between 0 and 1, got {self.freeze}.")
        require_ball(self.threat, "L2", "Carlini-Wagner L0")

    def __str__(self) -> str:
        return (
            f"Carlini-Wagner L0, at most {self.search_steps} x {some(self.steps, 'step')}, confidence "
            f"{self.confidence:g}"
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
        """The rows of `batch` with the fewest changed units found; see `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        return back(_found_by(self._search, self.threat, self.confidence, model, batch, radius_scale).attacked(measure))

    def _search(self, problem: Problem, index: Tensor) -> None:
        found, space = problem.found, self.threat.space
        problem = replace(problem, solved_below=float("inf"))
        found.measure = lambda delta: changed_units(delta, space).double()
        schedule = Schedule(self.steps, self.learning_rate, self.abort_early)
        allowed = editable_mask(found.rows, tuple(found.delta.shape)).clone()
        constant = torch.full_like(found.size, self.initial_constant)
        solved_at = constant.clone()
        frozen = torch.zeros_like(found.rows.ids)  # (B,), by how many units the trial is smaller than what is known
        for _ in range(self.search_steps):
            start = found.delta[index].masked_fill(~allowed[index], 0)
            solved = minimise(problem, index, start, constant[index], schedule, allowed[index])
            won, lost = index[solved], index[~solved]
            constant[lost] *= self.constant_factor
            given_up = lost[constant[lost] > self.largest_constant]
            ended = torch.cat([won[found.size[won] <= 1], given_up[frozen[given_up] <= 1]])
            solved_at[won], constant[given_up] = constant[won], solved_at[given_up]
            frozen[won] = (self.freeze * found.size[won]).ceil().long()
            frozen[given_up] = frozen[given_up] // 2
            index = index[~torch.isin(index, ended)]
            anew = index[torch.isin(index, torch.cat([won, given_up]))]
            if len(anew):
                allowed[anew] = self._trial(problem, anew, frozen[anew])
            if not len(index):
                return

    def _trial(self, problem: Problem, index: Tensor, frozen: Tensor) -> Tensor:
        """The entries, shaped as the delta, of the changed units but for the `frozen` (n,) least important."""
        found, space = problem.found, self.threat.space
        rows, delta = found.rows.rows(index), found.delta[index]
        logits, leaf = logits_at(problem.model, rows, found.threat, delta)
        with torch.enable_grad():
            lead = margin(logits.double(), rows)
        found.spend(index, forwards=1, backwards=1)
        share = _per_unit((slope(problem.model, lead, leaf, rows, found.threat) * delta).abs(), space)
        changed = _per_unit(delta.abs(), space) > 0
        importance = share.masked_fill(~changed, float("inf")).flatten(1)
        rank = importance.argsort(dim=1, stable=True).argsort(dim=1)
        least = (rank < frozen.unsqueeze(1)).reshape(changed.shape)
        return (changed & ~least).expand(delta.shape)


def _per_unit(size: Tensor, space: Space) -> Tensor:
    """Sizes of entries, not negative, added up over what counts as one unit: the channels of a pixel."""
    return size.sum(dim=1, keepdim=True) if space.is_picture else size


def changed_units(delta: Tensor, space: Space) -> Tensor:
    """How many units `delta` (B, ...) changes in every row, (B,) int64: pixels, or dimensions of positions; its L0."""
    return (_per_unit(delta.abs(), space) > 0).flatten(1).sum(dim=1)


def _found_by(
    search: Callable[[Problem, Tensor], None],
    threat: ThreatModel,
    confidence: float,
    model: nn.Module,
    batch: Batch,
    radius_scale: float | Tensor,
    shared: bool = False,
) -> Smallest:
    """What `search` finds for the rows that are not wrong already; `shared` as in `coordinates_of`."""

    def begun(found: Smallest, index: Tensor, base: ThreatModel) -> None:
        found.note_slope(model, index)
        coordinates, length = coordinates_of(found, base, shared=shared)
        search(Problem(model, found, coordinates, length, confidence, _square), index)

    return search_open(begun, threat, model, batch, radius_scale)
