"""Objectives that keep the gradients of the ascent itself: FreeLB, and adversarial training for free.

The third of the cheap ones, FGSM from a random start (arXiv:2001.03994), needs no objective of its own: it is
`Adversarial(r_fgsm(threat))`. It departs from the paper in that the attack sees the model in evaluation mode, where the
authors keep training mode throughout: a row's perturbation then depends on no other row and on no dropout mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from textadv.attacks import Ascent, Attack, Ball, FixedStep, GradientAttack, StepSize, ThreatModel, require_attack
from textadv.attacks.edits.batches import measured
from textadv.attacks.parts.ascent import State
from textadv.attacks.parts.attacked import Attacked, Cost
from textadv.attacks.parts.probe import assess, evaluate_at
from textadv.attacks.parts.starts import uniform_start
from textadv.attacks.parts.unperturbed import half_to_single
from textadv.models import PerturbationError, bare, dtype_of, editable_mask, evaluating, forward
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import Batch, per_row
from textadv.values.kinds import require_kind
from textadv.values.losses import cross_entropy
from textadv.values.randomness import preserved_rng, rng_state, set_rng_state


def left_gradient(delta: Tensor, rows: Batch, threat: ThreatModel) -> Tensor:
    """The gradient, (B, ...), that the trainer's backward pass left at the delta (B, ...), zero where it may not move.

    Raises PerturbationError where there is none.
    """
    if delta.grad is None or not bool(delta.grad.any()):
        raise PerturbationError(
            f"The backward pass left {'no' if delta.grad is None else 'a zero'} gradient at the perturbation of "
            f"the {threat.space}. Either the output does not depend on it, or a term was not backpropagated before the "
            "next was asked for."
        )
    # A loss scaler's overflow leaves infinities here; the trainer then skips the optimizer step.
    return torch.nan_to_num(delta.grad).masked_fill(~editable_mask(rows, tuple(delta.shape)), 0)


@dataclass(frozen=True)
class LargestEntryStep:
    """Ascent along the gradient over its largest entry, per row: the released FreeLB's step in an Linf ball.

    A gradient (2, -1) and a step of 0.1 move (0.1, -0.05), where the steepest ascent moves (0.1, -0.1).
    """

    step_size: StepSize

    def init(self, delta: Tensor) -> State:
        """No tensors for a delta of any shape."""
        return ()

    def update(self, delta: Tensor, grad: Tensor, ball: Ball, state: State) -> tuple[Tensor, State]:
        """From delta and grad, (B, ...), to the next delta (B, ...), before it is confined."""
        largest = per_row(grad.abs().flatten(1).amax(dim=1), grad)
        unit = grad / torch.where(largest > 0, largest, 1)
        return delta + self.step_size.length(ball, delta) * unit, state


@dataclass(frozen=True)
class FreeLB:
    """The mean loss over K perturbations of one ascent; each backward serves weights and delta (arXiv:1909.11764).

    Term k of K is the cross-entropy at the k-th delta with weight 1 / K: losses 0.4, 0.6 and 0.8 contribute 0.6.

    attack: its threat model, ascent, steps (K) and seed are used; the ascent runs here, in training mode.
    start: size of the initial uniform noise as a share of the radius.
    clean_term: also average in the loss of the unperturbed row, as term 0 with every weight 1 / (K + 1).
    hold_dropout: replay the first pass's random numbers in the others, so that all K share their dropout masks.
    special_tokens: move every token of the row, or of a chat's prompt, not only those that an adversary may act on.
    largest_entry: take the released code's step in an Linf ball, `LargestEntryStep`.
    edits: edits the texts first, and the ascent is that of the edited rows; the clean term is that of the rows before.

    Deviations: the ball is per token unless the threat says per example; the initial noise is uniform in the ball,
    where the released code draws a cube. Special tokens stay (`special_tokens`), where the released code moves them, as
    no attack that measures may: of a BERT row of 20 tokens two, one of which the head reads. An Linf step is the sign,
    the steepest ascent (`largest_entry`): on a gradient of 7,680 normal entries it raises the loss 3.2 times as much,
    to first order, as the released step of equal length. Every dropout is held, where the released code holds those of
    attention and classifier.
    """

    attack: GradientAttack
    start: float = 0.5
    clean_term: bool = False
    hold_dropout: bool = True
    keeps_clean: bool = False
    special_tokens: bool = False
    largest_entry: bool = False
    edits: Attack | None = None

    def __post_init__(self) -> None:
        require_kind(
            "attack", self.attack, GradientAttack, "a gradient attack", "Give pgd(threat, steps=3) or the like."
        )
        if not 0 <= self.start <= 1:
            raise ValueError(f"objective.start must lie in 0..1 (a share of the radius), got {self.start}.")
        if self.edits is not None:
            require_attack("edits", self.edits)
        ball = self.attack.threat.ball
        if self.largest_entry and not (ball.geometry.name == "Linf" and isinstance(self.attack.ascent, FixedStep)):
            raise ValueError(
                "objective.linf_step: largest_entry needs threat.norm: linf and attack.ascent: fixed, got "
                f"{ball.geometry.name} and {type(self.attack.ascent).__name__}."
            )
        if self.special_tokens and not self.attack.threat.space.per_position:
            raise ValueError(f"objective.special_tokens: {self.attack.threat.space} have no tokens. Set it to false.")

    @property
    def terms(self) -> int:
        """K, and one more with the clean term."""
        return self.attack.steps + self.clean_term

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The terms; what the trainer's backward leaves in the delta's gradient drives the next ascent step."""
        attack, ascent = self.attack, self._ascent
        threat = attack.threat.resolved(model, batch).scaled(moment.radius_scale)
        edited = self._edited(model, batch, moment)
        rows = self._movable(batch.clean() if edited is None else edited.batch)
        dtype = dtype_of(model)
        delta = uniform_start(model, rows, threat, dtype, attack.seed, moment.step) * self.start
        first, state = delta, ascent.init(delta)
        dropout = rng_state() if self.hold_dropout else None
        if self.clean_term:
            yield Term("clean", cross_entropy(forward(model, batch.clean()), batch), 1 / self.terms)
        for turn in range(attack.steps):
            delta = delta.detach().requires_grad_()
            last, attacked = turn == attack.steps - 1, edited if turn == 0 else None
            if last and moment.measure:
                attacked = self._measured(model, rows, threat, delta, first, edited, attacked)
            logits = self._forward(model, rows.perturbed(threat.space, delta), dropout, turn)
            yield Term("adversarial", cross_entropy(logits, rows), 1 / self.terms, adversarial=True, attacked=attacked)
            if not last:
                with torch.no_grad():
                    grad = left_gradient(delta, rows, threat)
                    delta, state = ascent.update(delta.detach(), grad, threat.ball, state)
                    delta = threat.confine(rows, delta)

    def _edited(self, model: nn.Module, batch: Batch, moment: Moment) -> Attacked | None:
        """The rows with their texts edited, where they are."""
        if self.edits is None:
            return None
        return self.edits(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=False)

    @property
    def _ascent(self) -> Ascent:
        ascent = self.attack.ascent
        return LargestEntryStep(ascent.step_size) if self.largest_entry else ascent

    def _movable(self, rows: Batch) -> Batch:
        """The rows, editable where the ascent moves them."""
        if not self.special_tokens:
            return rows
        own = rows.inputs["attention_mask"].bool()
        if rows.prompt_lengths is not None:
            own = own & (torch.arange(own.shape[1], device=own.device) < rows.prompt_lengths.unsqueeze(1))
        return replace(rows, editable=own)

    def _forward(self, model: nn.Module, batch: Batch, dropout: dict[str, Tensor] | None, turn: int) -> Tensor:
        """Turn 0 draws dropout as ever; later turns replay its random numbers where the mask is held."""
        if dropout is None or (turn == 0 and not self.clean_term):
            return forward(model, batch)
        with preserved_rng():
            set_rng_state(dropout)
            return forward(model, batch)

    def _measured(
        self,
        model: nn.Module,
        rows: Batch,
        threat: ThreatModel,
        delta: Tensor,
        first: Tensor,
        edited: Attacked | None,
        untold: Attacked | None,
    ) -> Attacked:
        """The last delta in evaluation mode, against the clean rows and the initial noise.

        edited: the rows before they were perturbed, if their texts were edited. untold: the same, if no term has told
        yet what that cost.
        """
        cost = Cost.none(rows) if untold is None else untold.cost
        with evaluating(model), torch.no_grad():
            clean = forward(bare(model), rows)
            found = assess(model, rows, threat, delta.detach(), first, self.attack.goal, clean, cost)
        if edited is None:
            return found
        outcome = measured(model, edited.clean, found.batch, self.attack.goal, found.outcome.climb)
        cost = found.cost._replace(queries=found.cost.queries + 2)
        return replace(found, cost=cost, measured=outcome, origin=edited.clean)


@dataclass(frozen=True)
class _Replayed:
    """A group's perturbation between two replays: where it is, where its batch began, and the ascent's state."""

    delta: Tensor
    first: Tensor
    state: State


@dataclass
class Carried:
    """The perturbations of the batch that is replayed, by the ids of the rows that stand in a group.

    started: the optimizer step at which the batch was new. before: (N, ...), the deltas of
    the batch before, in the order of its groups.
    """

    started: int = -1
    found: dict[tuple[int, ...], _Replayed] = field(default_factory=dict)
    before: Tensor | None = None
    taken: int = 0

    def begin(self, step: int) -> None:
        """A new batch, of which nothing is known yet."""
        self.before, self.started, self.taken = self._together(), step, 0
        self.found.clear()

    def next(self, like: Tensor) -> Tensor:
        """`like` (B, ...), with the rows that the batch before has for the next B places: (B, ...)."""
        place, self.taken = self.taken, self.taken + len(like)
        if self.before is None or self.before.shape[1:] != like.shape[1:]:
            return like
        known = self.before[place : self.taken].to(like.device, like.dtype)
        return torch.cat([known, like[len(known) :]])

    def _together(self) -> Tensor | None:
        """All perturbations, in the order of the groups; None where there are none, or of several shapes."""
        deltas = [replayed.delta for replayed in self.found.values()]
        if len({delta.shape[1:] for delta in deltas}) != 1:
            return None
        return torch.cat(deltas)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, at the end of a batch: deltas (N, ...)."""
        deltas = self._together()
        return {} if deltas is None else {"delta": deltas.cpu().clone().contiguous()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` returned, deltas (N, ...), with a new batch."""
        self.started, self.found = -1, {}
        if state:
            self.found[()] = _Replayed(state["delta"], state["delta"], ())


@dataclass(frozen=True)
class Free:
    """Adversarial training for free (arXiv:1904.12843, algorithm 1): a batch stands for `replays` optimizer steps.

    At each of them one backward pass gives the gradients of the weights and of the delta, which takes one step of the
    ascent: from 0.5 with a gradient of -0.1 and a step of 0.2 it goes to 0.3, where the next replay is taken. So an
    optimizer step costs one forward and one backward, and `training.steps`, which counts optimizer steps, sees 1 /
    replays as many different batches: an epoch's worth of optimizer steps passes over 1 / replays of the rows.

    attack: its threat model, ascent (the paper steps by the radius), seed and goal are used; the goal only to measure.
    replays: to be used with a sampler that repeats the rows for as long: `OneStream(repeat=replays)`.
    carry: a batch begins with the delta that the batch before ended with, row by row in the order of the rows that are
        attacked, as in the paper. That order does not depend on micro-batches and processes where all rows are of one
        length. Only for spaces without token positions; there, and where the batch before had fewer rows, a row begins
        uniform in the ball, as arXiv:2001.03994 advises.
    memory: what is carried; a checkpoint must save it, and a run be resumed at a multiple of `replays` only.

    Deviations: the very first delta is uniform, not zero; the rows that are not attacked stay clean. The
    delta that is carried on, not only the image, is kept in the image's box: the released code clamps the image for the
    pass alone, so that its delta can wait outside and comes back a step later.
    """

    attack: GradientAttack
    replays: int = 4
    carry: bool = True
    memory: Carried = field(default_factory=Carried, repr=False, compare=False)
    terms: int = 1
    keeps_clean: bool = False

    def __post_init__(self) -> None:
        require_kind(
            "attack", self.attack, GradientAttack, "a gradient attack", "Give pgd(threat, steps=3) or the like."
        )
        if self.replays < 1:
            raise ValueError(f"objective.replays must be at least 1, got {self.replays}.")

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term, the loss at the delta as it is; the trainer's backward on it moves the delta.

        Raises ValueError at rows that the batch did not begin with.
        """
        threat = self.attack.threat.resolved(model, batch).scaled(moment.radius_scale)
        rows, ids = batch.clean(), tuple(batch.ids.tolist())
        now = self._begun(model, rows, threat, moment.step, ids)
        delta = threat.confine(rows, now.delta).requires_grad_()
        attacked = self._measured(model, rows, threat, delta, now) if moment.measure else None
        losses = cross_entropy(forward(model, rows.perturbed(threat.space, delta)), rows)
        yield Term("adversarial", losses, adversarial=True, attacked=attacked)
        moved, state = self._moved(rows, threat, delta, left_gradient(delta, rows, threat), now.state)
        self.memory.found[ids] = _Replayed(moved, now.first, state)

    def _begun(self, model: nn.Module, rows: Batch, threat: ThreatModel, step: int, ids: tuple[int, ...]) -> _Replayed:
        """Where the delta of these rows is; at the first replay, where it begins."""
        memory, started = self.memory, step - step % self.replays
        if step == started:
            if memory.started != started:
                memory.begin(started)
            dtype = half_to_single(dtype_of(model))
            first = uniform_start(model, rows, threat, dtype, self.attack.seed, started)
            if self.carry and not threat.space.per_position:
                first = threat.confine(rows, memory.next(first))
            memory.found[ids] = _Replayed(first, first, self.attack.ascent.init(first))
        if memory.started != started or ids not in memory.found:
            raise ValueError(
                f"Rows {list(ids)} were not attacked at optimizer step {started}, so there is nothing to replay at "
                f"step {step}. Set checkpoint.every and training.guard.every to multiples of objective.replays "
                f"({self.replays})."
            )
        return memory.found[ids]

    def _moved(
        self, rows: Batch, threat: ThreatModel, delta: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, State]:
        with torch.no_grad():
            moved, state = self.attack.ascent.update(delta.detach(), grad, threat.ball, state)
            return threat.confine(rows, moved), state

    def _measured(self, model: nn.Module, rows: Batch, threat: ThreatModel, delta: Tensor, now: _Replayed) -> Attacked:
        """The delta after the step that is about to be made, as far as evaluation mode foresees it."""
        goal, spent = self.attack.goal, torch.ones_like(rows.ids)
        with evaluating(model):
            with torch.no_grad():
                clean = forward(bare(model), rows)
            point = evaluate_at(model, rows, threat, delta, goal, clean, ascend=True)
            assert point.grad is not None
            moved, _ = self._moved(rows, threat, delta, point.grad.to(delta.dtype), now.state)
            cost = Cost(spent, spent.clone(), torch.zeros_like(spent))
            return assess(model, rows, threat, moved, now.first, goal, clean, cost)
