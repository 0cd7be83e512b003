"""The Square attack: random search over windows of the delta, by the model's scores alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.attacks.parts.attacked import Attacked, Cost, Outcome
from textadv.attacks.parts.balls import INSIDE
from textadv.attacks.parts.calling import on_arrays
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.probe import Point, evaluate_at
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import half_to_single, mean_logits, value_at_clean
from textadv.attacks.parts.windows import (
    PLACES_OF_A_QUERY,
    TILES,
    Canvas,
    Draws,
    bump,
    canvas_of,
    drawn_window,
    placed,
    signs_of,
    tiles,
    window_sides,
)
from textadv.models import bare, delta_shape, dtype_of, editable_mask, evaluating, with_prefix
from textadv.values.batch import Batch, Perturbation
from textadv.values.losses import margin
from textadv.values.randomness import row_generators

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
TABLE_QUERIES = 10_000
# A better score must be better by more than what rounding changes from one batch to another, relative to the score.
ROUNDINGS = 16
CANCELLED = 1e-12


def window_share(p_init: float, done: int, queries: int, *, rescale: bool = False) -> float:
    """The share of the picture that a window covers after `done` queries.

    It is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10000 queries (arXiv:1912.00049).

    rescale: stretch that table to the budget. AutoAttack (arXiv:2003.01690) does not, so that its 5000 queries end at
        1/128 of `p_init`.
    """
    at = done * TABLE_QUERIES // queries if rescale else done
    return p_init / 2 ** sum(at > bound for bound in HALVINGS)


@dataclass
class _Found:
    """The best point of every row so far and what finding it took, (B, ...) each."""

    delta: Tensor
    value: Tensor
    start: Tensor
    reached: Tensor
    margin: Tensor
    queries: Tensor


@dataclass
class _Search:
    """The rows that are still searched, their best deltas, (B, channels, height, width), and where these rows stand.

    shape: that of one row's delta in its space, which may have no channels.
    """

    index: Tensor
    rows: Batch
    threat: ThreatModel
    clean: Tensor | None
    canvas: Canvas
    draws: Draws
    delta: Tensor
    value: Tensor
    margin: Tensor
    shape: tuple[int, ...]

    def keep(self, kept: Tensor) -> None:
        """Drops the rows that `kept`, (B,) bool, leaves out."""
        self.index, self.rows, self.threat = self.index[kept], self.rows.rows(kept), self.threat.rows(kept)
        self.clean = None if self.clean is None else self.clean[kept]
        self.canvas, self.draws = self.canvas.rows(kept), self.draws.rows(kept)
        self.delta, self.value, self.margin = self.delta[kept], self.value[kept], self.margin[kept]


@dataclass(frozen=True)
class Square:
    """Random search that proposes one window per query and keeps it where the score improves (arXiv:1912.00049).

    queries: points evaluated per row, the start included. p_init, rescale: the windows' sizes, see `window_share`.
    goal: what is scored, by default the margin. seed: everything random is drawn from (seed, step, row id).

    Linf (algorithm 2): the window takes plus or minus the radius against the clean row, one sign per channel. L2
    (algorithm 3): what the delta has in one window, and what is left of the radius, goes to another window, in which a
    bump is added. A row that reached the goal is dropped: inside `Eot` at its
    first lucky mean, there being no other way to stop. In a batch that carries a perturbation in the same space the
    search starts there, otherwise at vertical stripes (Linf) or a grid of bumps (L2).

    Texts: a delta (S, D) is a picture of the editable positions, in order, times the dimensions; several places are
    its channels. Neighbouring dimensions have nothing in common, so that in a window each dimension has a sign of its
    own, shared by the positions, and in L2 a bump is flat. A ball per token is kept token by token: the two windows of
    L2 are then at the same positions.

    Deviations from AutoAttack's code: everything is drawn per row, where it draws for the batch. The last offset of a
    window can be drawn, which there and in the paper's own code it cannot in either norm, their bound being exclusive;
    in L2 on pixels it is left out here too: with it 28.6 of 100 rows break (FGSM-RS network, schedule rescaled, 13
    seeds), without it 30.8, and by AutoAttack 31.3 (standard error 1.3); in Linf 11.9 break with it and 12.3 without
    (0.3), and it stays, since pixels at two edges would be searched by the start alone. Frozen cells are left out of
    the picture, whose windows are rectangles where a square of their area does not fit. A Linf window that would change
    nothing has its signs turned, where the paper draws until something changes. A bump that cancels what was there
    stands for itself. In L2 each channel keeps the mass of its own windows, as in the paper's code, where AutoAttack's
    gives each that of all and scales the whole. `queries` counts the start, which there is one more.

    Raises ValueError at L1 balls.
    """

    threat: ThreatModel
    queries: int = 5000
    p_init: float = 0.8
    rescale: bool = False
    goal: Goal = field(default_factory=lambda: Untargeted(margin))
    seed: int = 0

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.queries < 1:
            raise ValueError(f"attack.queries must be at least 1, got {self.queries}.")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"attack.p_init is a share of the picture, above 0 and at most 1, got {self.p_init}.")
        if self.threat.ball.geometry.name not in ("Linf", "L2"):
            raise ValueError(
                f"The Square attack works in Linf and L2 balls, got {self.threat.ball.geometry.name}. Set threat.norm "
                "to one of them or take another attack."
            )

    def __str__(self) -> str:
        schedule = ", schedule rescaled" if self.rescale else ""
        return f"Square attack, {self.queries} queries, first windows {self.p_init:g} of the area{schedule}"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; see `Attack` for the arguments. No gradient is taken."""
        if isinstance(bare(model), FSDPModule) and model.training:
            raise ValueError(
                "The Square attack drops rows, so that processes run different numbers of passes: not for "
                "training under FSDP."
            )
        threat = self.threat.resolved(model, batch).scaled(radius_scale)
        rows = batch.clean()
        with evaluating(model), torch.no_grad():
            clean = mean_logits(model, rows) if self.goal.needs_clean or measure else None
            found = self._found(model, batch, threat, clean, step)
        zero = torch.zeros_like(found.queries)
        cost, outcome = Cost(zero, zero.clone(), found.queries + (clean is not None)), None
        if clean is not None and measure:
            before = value_at_clean(self.goal, rows, clean)
            outcome = Outcome(found.reached, found.value - before, found.value - found.start, found.margin)
        return Attacked(rows.perturbed(threat.space, found.delta), threat.ball.gauge(found.delta), cost, outcome)

    def _found(self, model: nn.Module, batch: Batch, threat: ThreatModel, clean: Tensor | None, step: int) -> _Found:
        search = self._started(model, batch, threat, clean, step)
        delta = _shaped(search, search.delta)
        search.rows = with_prefix(model, search.rows, Perturbation(threat.space, delta))
        point = self._score(model, search, search.delta)
        search.value, search.margin = point.value, point.margin.double()
        queries = torch.ones_like(batch.ids)
        found = _Found(delta, point.value.clone(), point.value, point.reached.clone(), search.margin.clone(), queries)
        search.keep(~point.reached & search.canvas.editable.flatten(1).any(dim=1))
        for done in range(self.queries - 1):
            if not len(search.index):
                break
            self._query(model, search, found, done)
        _note(search, found, torch.ones_like(search.index, dtype=torch.bool))
        return found

    def _started(self, model: nn.Module, batch: Batch, threat: ThreatModel, clean: Tensor | None, step: int) -> _Search:
        dtype = half_to_single(clean.dtype if clean is not None else dtype_of(model))
        shape = delta_shape(model, batch, threat.space)
        canvas = canvas_of(editable_mask(batch, shape))
        (height, width), channels = shape[-2:], prod(shape[1:-2])
        signs = channels if threat.space.is_picture else channels * width
        draws = Draws.of(row_generators(self.seed, step, batch.ids, draw=0), PLACES_OF_A_QUERY + signs)
        nothing = torch.zeros(len(batch), device=batch.device, dtype=torch.float64)
        index = torch.arange(len(batch), device=batch.device)
        delta = torch.zeros((len(batch), channels, height, width), device=batch.device, dtype=dtype)
        search = _Search(index, batch.clean(), threat, clean, canvas, draws, delta, nothing, nothing, shape[1:])
        given = batch.perturbation
        if given is not None and given.space == threat.space:
            search.delta = _confined(search, given.delta.to(dtype).reshape(delta.shape))
        else:
            search.delta = _start(search)
        return search

    def _score(self, model: nn.Module, search: _Search, delta: Tensor) -> Point:
        shaped = _shaped(search, delta)
        return evaluate_at(model, search.rows, search.threat, shaped, self.goal, search.clean, ascend=False)

    def _query(self, model: nn.Module, search: _Search, found: _Found, done: int) -> None:
        """One proposal for every row that is still searched; `done` proposals were made before."""
        share = window_share(self.p_init, done, self.queries, rescale=self.rescale)
        propose = _linf_proposal if search.threat.ball.geometry.name == "Linf" else _l2_proposal
        proposal = propose(search, share)
        point = self._score(model, search, proposal)
        least = search.value.abs() * (torch.finfo(proposal.dtype).eps * ROUNDINGS)
        better = point.reached | (point.value > search.value + least)
        search.delta = torch.where(_over(better), proposal, search.delta)
        search.value = torch.where(better, point.value, search.value)
        search.margin = torch.where(better, point.margin.double(), search.margin)
        found.queries[search.index] += 1
        if bool(point.reached.any()):
            found.reached[search.index[point.reached]] = True
            _note(search, found, point.reached)
            search.keep(~point.reached)


def _over(row: Tensor) -> Tensor:
    """Values per row, (B,), broadcastable over pictures (B, channels, height, width)."""
    return row.reshape(-1, 1, 1, 1)


def _shaped(search: _Search, delta: Tensor) -> Tensor:
    """The picture as its space has it: without channels where the space has none."""
    return delta.reshape(len(delta), *search.shape)


def _confined(search: _Search, delta: Tensor) -> Tensor:
    return search.threat.confine(search.rows, _shaped(search, delta)).reshape(delta.shape)


def _note(search: _Search, found: _Found, which: Tensor) -> None:
    """Writes down the best points of the rows that `which`, (B,) bool, names."""
    index = search.index[which]
    found.delta[index] = _shaped(search, search.delta[which])
    found.value[index], found.margin[index] = search.value[which], search.margin[which]


def _budget(search: _Search) -> Tensor:
    """The radius of the L2 ball, (B, 1, 1, 1) or a single one, float64, less what float32 rounding could add."""
    return search.threat.ball.bound(search.delta.double()) * INSIDE[search.delta.dtype]


def _start(search: _Search) -> Tensor:
    """Vertical stripes at the radius, and for pixels in an L2 ball a grid of bumps (B, channels, height, width)."""
    ball, (rows, channels, _, width) = search.threat.ball, search.delta.shape
    if ball.geometry.name == "L2" and search.threat.space.is_picture:
        drawn = search.draws.numbers((channels + 1) * TILES**2).reshape(rows, channels + 1, -1)
        pattern = tiles(search.canvas, signs_of(drawn[:, 1:]), drawn[:, 0] < 0.5)
    else:
        signs = signs_of(search.draws.numbers(channels * width)).reshape(rows, channels, 1, width)
        pattern = signs.double().expand(search.delta.shape)
    pattern = pattern * search.canvas.editable
    radius = ball.bound(search.delta.double()) if ball.geometry.name == "Linf" else _budget(search)
    return _confined(search, (ball.unit(pattern) * radius).to(search.delta.dtype))


def _signs(search: _Search, numbers: Tensor) -> Tensor:
    """One sign per channel (B, C, 1, 1), and for texts per dimension too (B, C, 1, W)."""
    return signs_of(numbers).reshape(len(search.delta), search.delta.shape[1], 1, -1)


def _linf_proposal(search: _Search, share: float) -> Tensor:
    """The best deltas with one window set to plus or minus the radius (arXiv:1912.00049, algorithm 2)."""
    draw, delta = search.draws.query(), search.delta
    window = drawn_window(search.canvas, window_sides(search.canvas, share), draw[:, 0], draw[:, 1])
    mask = window.mask(search.canvas)
    values = _signs(search, draw[:, PLACES_OF_A_QUERY:]) * search.threat.ball.bound(delta)
    proposal = _confined(search, torch.where(mask, values.to(delta.dtype), delta))
    same = (proposal == delta).flatten(1).all(dim=1)
    if bool(same.any()):
        values = torch.where(_over(same), -values, values)
        proposal = _confined(search, torch.where(mask, values.to(delta.dtype), delta))
    return proposal


def _unit(vector: Tensor, dims: tuple[int, ...]) -> Tensor:
    length = vector.square().sum(dim=dims, keepdim=True).sqrt()
    return vector / torch.where(length > 0, length, 1)


def _l2_proposal(search: _Search, share: float) -> Tensor:
    """The best deltas with the mass of one window, and what is left, in another (arXiv:1912.00049, algorithm 3).

    In float64, so that what is rounded to the deltas' dtype does not depend on the batch.
    """
    draw, delta, canvas = search.draws.query(), search.delta.double(), search.canvas
    pixels, token = search.threat.space.is_picture, search.threat.ball.per == "token"
    sides = window_sides(canvas, share, odd=True)
    into = drawn_window(canvas, sides, draw[:, 0], draw[:, 1], last=not pixels)
    out_of = drawn_window(canvas, sides, draw[:, 0 if token else 2], draw[:, 3], last=not pixels)
    to, away = into.mask(canvas), out_of.mask(canvas)
    pattern = (to * _signs(search, draw[:, PLACES_OF_A_QUERY:])).double()
    if pixels:
        down, right = canvas.y - into.top[:, None], canvas.x - into.left[:, None]
        shape = (down.shape[1], right.shape[1])
        pattern = pattern * placed(bump(sides, draw[:, 4] < 0.5, shape), down, right)[:, None]
    dims = (-1,) if token else (-2, -1)
    square = delta.square()
    used = square.sum(dim=-1, keepdim=True) if token else square.sum(dim=(-3, -2, -1), keepdim=True)
    left = (_budget(search).square() - used).clamp_min(0) / (1 if token else delta.shape[1])
    reach = ((square * (to | away)).sum(dim=dims, keepdim=True) + left).sqrt()
    fresh = _unit(pattern, dims)
    summed = fresh + _unit(delta * to, dims)
    # A bump that cancels what was there stands for itself: in a window of one cell it turns the sign.
    cancelled = summed.square().sum(dim=dims, keepdim=True) < CANCELLED
    moved = _unit(torch.where(cancelled, fresh, summed), dims) * reach
    return _confined(search, torch.where(to, moved, delta.masked_fill(away, 0)).to(search.delta.dtype))
