"""The ways to ask a chat model for what it should not say: directly, with the answer begun, from perturbed prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from textadv.attacks import GradientAttack
from textadv.attacks.parts.attacked import Sent
from textadv.attacks.parts.goals import Elicit
from textadv.attacks.prompts.suffix_losses import said
from textadv.data import Rows
from textadv.measuring.safety.beginnings import MOST_BEGUN, Beginnings
from textadv.measuring.safety.generate import Prepare, Prompt
from textadv.measuring.safety.search_panel import Search, shared
from textadv.models import counted_parameters, delta_shape, device_of, editable_mask, evaluating, forward
from textadv.models.places import bare
from textadv.values.batch import IGNORED, Batch, Perturbation, padded
from textadv.values.flops import NOT_MEASURED, Flops
from textadv.values.plurals import some

TARGET = "harmful"
BALL_TOLERANCE = 1e-4
ROWS_AT_A_TIME = 64


class Behaviour(NamedTuple):
    """A forbidden request as tokens.

    id: the row's own. ids: its prompt. target: its harmful answer. said: what of it can be put into the model's mouth,
    which is the target up to the first token that ends an answer, without what the chat template writes before that.
    editable: the prompt's positions that an adversary may touch. opening: what the template writes between prompt and
    target.
    """

    id: int
    ids: tuple[int, ...]
    target: tuple[int, ...]
    said: tuple[int, ...]
    editable: tuple[int, ...]
    opening: tuple[int, ...] = ()


def behaviours_of(rows: Rows) -> list[Behaviour]:
    """Every row as tokens, in order; `said` is the whole target, since what ends it is the model's affair.

    Raises ValueError where the rows are no chats with a harmful target.
    """
    found: list[Behaviour] = []
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        batch = rows.batch(range(start, min(start + ROWS_AT_A_TIME, len(rows))))
        if batch.prompt_lengths is None or TARGET not in batch.answers:
            raise ValueError(f"Attack success needs chats with an answer {TARGET!r}: the adversarial stream.")
        targets, openings, ids = batch.answers[TARGET], batch.opening(TARGET), batch.inputs["input_ids"]
        for row, length in enumerate(batch.prompt_lengths.tolist()):
            target, opening = (tuple(said[row][said[row] != IGNORED].tolist()) for said in (targets, openings))
            editable = tuple(batch.editable[row, :length].nonzero().flatten().tolist())
            prompt = tuple(ids[row, :length].tolist())
            found.append(Behaviour(int(batch.ids[row]), prompt, target, target, editable, opening))
    return found


class Try(NamedTuple):
    """What one round of one behaviour takes at most.

    search: floating-point operations. given: tokens that the model reads before it answers.
    """

    search: int
    given: int


class Round(NamedTuple):
    """One prompt per behaviour, in their order, and how the prompts' perturbations are found, where they have any."""

    prompts: list[Prompt]
    prepare: Prepare | None = None


class Adversary(Protocol):
    """A way to ask; `str` of it is printed. Rounds are answered and judged one by one; any may break a behaviour."""

    @property
    def threat(self) -> str: ...

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterable[Round]: ...


@runtime_checkable
class Drawn(Protocol):
    """An adversary that may ask many prompts drawn alike, a round each: k answers are then k of these prompts."""

    @property
    def drawn(self) -> bool: ...


def drawn_alike(adversary: object) -> bool:
    """Whether its prompts are draws of one kind."""
    return isinstance(adversary, Drawn) and adversary.drawn


@dataclass(frozen=True)
class Direct:
    """The request as it stands."""

    threat: str = "none"

    def __str__(self) -> str:
        return "direct request"

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterable[Round]:
        """One round of plain prompts."""
        return [Round([Prompt(behaviour.id, behaviour.ids) for behaviour in behaviours])]

    def tries(self, model: nn.Module, behaviours: Sequence[Behaviour]) -> list[list[Try]]:
        """One round without a search; see `Bounded`."""
        return [[Try(0, len(row.ids)) for row in behaviours]]


@dataclass(frozen=True)
class Prefill:
    """The first `tokens` tokens of the harmful target stand in the answer already (arXiv:2404.02151, arXiv:2406.05946).

    A target with fewer tokens is given whole. What the chat template writes before answers stands before them.
    """

    tokens: int
    threat: str = "beginning of the answer"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(
                f"The tokens of a prefill must be at least 1, got {self.tokens}. Without any it is the direct request."
            )

    def __str__(self) -> str:
        return f"{some(self.tokens, 'prefilled token')}"

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterable[Round]:
        """One round of prompts with the beginning of the target."""
        begun = [Prompt(row.id, row.ids, row.said[: self.tokens], opening=row.opening) for row in behaviours]
        return [Round(begun)]

    def tries(self, model: nn.Module, behaviours: Sequence[Behaviour]) -> list[list[Try]]:
        """One round without a search; see `Bounded`."""
        return [[Try(0, len(row.ids) + len(row.opening) + len(row.said[: self.tokens])) for row in behaviours]]


@dataclass(frozen=True)
class EmbeddingAttack:
    """A perturbed prompt, from which the model then answers freely (arXiv:2402.09063).

    attack: searches a perturbation that makes the harmful target likely, on the goal Elicit, after what the chat
        template writes before answers; its `starts` are taken as `ball`.
    restarts: searches from independent starts, each answered and judged by itself: the most likely target need not be
        the most harmful answer.
    searches: what each restart aims at and how it climbs, in turn; by default each is the attack as it is.
    beginnings: how the model begins by itself, for searches that aim at that.
    rows: the same behaviours encoded otherwise, e.g. with suffix slots as their only editable positions; the
        evaluation's own rows by default.
    batch_size: rows searched at a time.

    A perturbation is measured again here: one that leaves its ball or moves a position that is not editable makes the
    row an error.
    """

    attack: GradientAttack
    restarts: int = 1
    rows: Rows | None = None
    batch_size: int = 16
    searches: tuple[Search, ...] = (Search(),)
    beginnings: Beginnings | None = None

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.batch_size < 1:
            raise ValueError(f"restarts and batch_size must be at least 1, got {self.restarts}, {self.batch_size}.")
        if not isinstance(self.attack.goal, Elicit):
            raise ValueError(f"An embedding attack on a chat model has the goal Elicit(), got {self.attack.goal}.")
        if self.attack.restarts > 1:
            raise ValueError(
                f"attack.restarts: {self.attack.restarts} would keep one of several searches. Set it to 1 and give "
                "restarts to the embedding attack, which answers and judges each."
            )
        if not self.searches:
            raise ValueError("An embedding attack needs one search or more, got none.")
        if self.searches[0].goes_on:
            raise ValueError("The first search of an embedding attack has none before it. Leave out goes_on there.")
        if self.restarts > len(self.searches) and not self.attack.random_start:
            raise ValueError(f"restarts: {self.restarts} would repeat one start. Set attack.random_start: true.")
        # Each search is a run of its own, of which `spread` would start every one at the clean prompt.
        object.__setattr__(self, "attack", replace(self.attack, starts="ball"))
        needing = [str(search) for search in self.searches if search.says != "target"]
        if needing and self.beginnings is None:
            raise ValueError(f"A search {needing[0]} needs to know how the model begins. Give beginnings.")

    def __str__(self) -> str:
        apart = "" if any(search.goes_on for search in self._shared) else "independent "
        told = f"{self.restarts} {apart}search{'es' if self.restarts > 1 else ''}"
        if self.searches == (Search(),):
            return f"embedding attack: {self.attack}; {told}"
        each = Counter(search.told(self.attack) for search in self._shared)
        goals = "; ".join(name if count == 1 else f"{count} x {name}" for name, count in each.items())
        steps = sorted({search.of(self.attack).steps for search in self._shared})
        effort = f"{steps[0]} steps" if len(steps) == 1 else f"{steps[0]} to {steps[-1]} steps"
        return f"embedding attack: {effort}, {self.attack.kept}; {told}: {goals}"

    @property
    def _shared(self) -> tuple[Search, ...]:
        return shared(self.searches, self.restarts)

    @property
    def threat(self) -> str:
        """The ball and space of the search."""
        return str(self.attack.threat)

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterator[Round]:
        """One round per restart; none aims at what ends a target after what is `said` of it.

        Raises ValueError where `self.rows` are not the same behaviours.
        """
        own = rows if self.rows is None else self.rows
        if list(own.ids) != list(rows.ids):
            raise ValueError("The rows of an embedding attack must be the evaluated behaviours, in the same order.")
        first = own.batch(range(min(ROWS_AT_A_TIME, len(own)))).prompts().to(device_of(model))
        attack = replace(self.attack, threat=self.attack.threat.resolved(model, first))
        place = {row: number for number, row in enumerate(own.ids)}
        searched = behaviours_of(own)
        aims = {row.id: row.said or row.target for row in behaviours}
        one, searches = None, self._shared
        for restart, search in enumerate(searches):
            before = one if search.goes_on else None
            goal = (search, search.of(attack), restart)
            led_on = restart + 1 < len(searches) and searches[restart + 1].goes_on
            one = _One(own, place, aims, *goal, self.batch_size, self.beginnings, before, led_on)
            yield Round([one.searchable(row) for row in searched], partial(one.searched, model))

    def tries(self, model: nn.Module, behaviours: Sequence[Behaviour]) -> list[list[Try]]:
        """A round for each search, whose passes all read the whole row; see `Bounded`."""
        own, parameters = behaviours if self.rows is None else behaviours_of(self.rows), counted_parameters(model)
        return [[Try(self._most(search, row, parameters), len(row.ids)) for row in own] for search in self._shared]

    def _most(self, search: Search, row: Behaviour, parameters: int) -> int:
        prompt, steps = len(row.ids) + len(row.opening), search.of(self.attack).steps
        whole = prompt + max(len(row.target), MOST_BEGUN)
        before = 0 if search.says == "target" or self.beginnings is None else self.beginnings.most_sent(prompt)
        before += prompt if search.says == "target" and row.opening else 0
        found = Flops.of(parameters, forward=before + (steps + 1) * whole, activation_backward=steps * whole).total
        assert found is not None
        return found


@dataclass(frozen=True)
class _One:
    """One search of all rows: `attack` is that of `search`, and `restart` sets its starts apart from other searches'.

    place, aims: where in `rows` a behaviour stands, and what of its target is sought, by its id.
    before: the search whose ends are the starts of this one. led_on: whether the next one starts where this ends.
    ended: where that is, on the host, by id, until it is taken up.
    """

    rows: Rows
    place: Mapping[int, int]
    aims: Mapping[int, tuple[int, ...]]
    search: Search
    attack: GradientAttack
    restart: int
    batch_size: int
    beginnings: Beginnings | None
    before: _One | None = None
    led_on: bool = False
    ended: dict[int, Tensor] = field(default_factory=dict)

    def searchable(self, row: Behaviour) -> Prompt:
        """The prompt before its perturbation is known, with all that the search follows from as its origin."""
        return Prompt(row.id, row.ids, origin=repr(self._origin(row)), search=self.search.told(self.attack))

    def _origin(self, row: Behaviour) -> tuple[object, ...]:
        attack = self.attack
        ball, space = attack.threat.ball, attack.threat.space
        limits = (ball.geometry.name, ball.radius, ball.per, space)
        origin = [
            str(attack),
            attack.ascent,
            attack.goal,
            attack.seed,
            limits,
            self.restart,
            self.aims[row.id],
            row.editable,
        ]
        origin += [row.opening] if row.opening else []
        origin += [self.search.says, self.beginnings] if self.search.says != "target" else []
        origin += ["from", self.before._origin(row)] if self.before is not None else []
        return tuple(origin)

    def searched(self, model: nn.Module, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts with the perturbations that the attack finds."""
        found = []
        for begin in range(0, len(prompts), self.batch_size):
            part = prompts[begin : begin + self.batch_size]
            rows = self.rows.batch([self.place[prompt.id] for prompt in part])
            sought = padded([self.aims[prompt.id] for prompt in part])
            rows = replace(rows, answers={**rows.answers, TARGET: sought}).to(device_of(model))
            batch, before, sent = self.search.aim(model, rows, TARGET, self.beginnings)
            batch = self._started(model, batch, part)
            attacked = self.attack(model, batch, step=self.restart, measure=False)
            space, delta = attacked.perturbation.space, attacked.perturbation.delta.detach()
            _require_inside(self.attack, batch, delta)
            # A search away from a refusal, or towards the model's own beginning, has no target to reach.
            reached = attacked.reached if self.search.says == "target" else None
            cost = attacked.cost
            if reached is not None:
                opened = _opening_said(model, attacked.perturbation, batch, rows.opening(TARGET))
                reached = reached.cpu() & opened.said
                before, sent = before + opened.forwards, sent + opened.sent
            flops = _flops(model, attacked.sent, sent)
            for row, prompt in enumerate(part):
                own = delta[row, ..., : len(prompt.ids), :]
                if self.led_on:
                    self.ended[prompt.id] = own.cpu()
                forwards = int(cost.forwards[row] + cost.queries[row] + before[row])
                backwards = int(cost.backwards[row])
                got = None if reached is None else bool(reached[row])
                prompt = replace(prompt, delta=own, space=space, forwards=forwards, backwards=backwards)
                found.append(replace(prompt, flops=flops[row], reached=got))
        return found

    def _started(self, model: nn.Module, batch: Batch, prompts: Sequence[Prompt]) -> Batch:
        """The rows with the starts of their searches; as they are where a search draws its own."""
        if self.before is None:
            return batch
        # Whose answers were read back have not been searched here.
        missing = [prompt for prompt in prompts if prompt.id not in self.before.ended]
        self.before.searched(model, missing)
        starts = [self.before.ended.pop(prompt.id) for prompt in prompts]
        space = self.attack.threat.space
        delta = torch.zeros(delta_shape(model, batch, space), device=batch.device, dtype=starts[0].dtype)
        for row, start in enumerate(starts):
            delta[row, ..., : start.shape[-2], :] = start
        return batch.perturbed(space, delta)


class _Opened(NamedTuple):
    """What became of openings, each (B,) on the CPU: whether greedy decoding says a row's, passes and tokens taken."""

    said: Tensor
    forwards: Tensor
    sent: Tensor


def _opening_said(model: nn.Module, found: Perturbation, batch: Batch, opening: Tensor) -> _Opened:
    """Whether the perturbed prompts (B rows) alone make the model say what the search took as said already.

    opening: (B, G), IGNORED after a row's end. Rows without one take no pass.
    """
    tokens = (opening != IGNORED).sum(dim=1)
    none = torch.zeros_like(tokens)
    if not bool(tokens.any()):
        return _Opened((tokens == 0).cpu(), none.cpu(), none.cpu())
    asked = batch.clean().answering(opening).carrying(found)
    with torch.no_grad(), evaluating(bare(model)):
        says = said(forward(bare(model), asked), asked).cpu()
    assert batch.prompt_lengths is not None
    sent = torch.where(tokens > 0, batch.prompt_lengths + tokens, none)
    return _Opened(says, (tokens > 0).long().cpu(), sent.cpu())


def _flops(model: nn.Module, sent: Sent | None, before: Tensor) -> list[Flops]:
    """What each row's search took. before: (B,) int64, tokens sent before it began."""
    if sent is None:
        return [NOT_MEASURED] * len(before)
    parameters = counted_parameters(model)
    tokens = zip((sent.forward.cpu() + before).tolist(), sent.backward.tolist(), strict=True)
    return [Flops.of(parameters, forward=forward, activation_backward=backward) for forward, backward in tokens]


def _require_inside(attack: GradientAttack, batch: Batch, delta: Tensor) -> None:
    """Raises RuntimeError where the perturbation lies outside its ball or moves what is not editable."""
    stray = bool(delta.masked_fill(editable_mask(batch, tuple(delta.shape)), 0).any())
    gauge = float(attack.threat.ball.gauge(delta).max())
    if stray or not gauge <= 1 + BALL_TOLERANCE:
        how = "moved a position that is not editable" if stray else f"left its ball: norm / radius {gauge:.6g}"
        raise RuntimeError(f"{attack} {how} ({attack.threat}). What it breaks says nothing about that threat model.")
