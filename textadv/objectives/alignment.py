"""What hardens a chat model: terms on rows of a prompt, a harmful target and a safe answer, and on useful chats.

Each class is an objective by itself; `Together` runs several on one delta. A loss is the mean over the row's own
answer, in nats per token, so that a weight means the same for long and short answers and for any micro-batch; released
code takes one mean over all tokens of a batch, as `textadv.objectives.token_means` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, Attacked
from textadv.models import as_reference, bare, evaluating, forward
from textadv.objectives.terms import Moment, Objective, Term
from textadv.values.batch import IGNORED, Batch, concatenate, following, padded
from textadv.values.losses import bounded_nll, cross_entropy, kl, log_1_minus_p
from textadv.values.randomness import row_generators

HARMFUL, SAFE, RESPONSE, REFUSAL = "harmful", "safe", "response", "refusal"
RECOVERY_DRAW = 23


def beyond(value: Tensor, edge: float, slope: float, *, above: bool) -> Tensor:
    """`value` up to `edge`, and from there on `slope` times as steep: continuous, bounded but never without gradient.

    value, and the result: of any shape. above: whether the gentle side lies above the edge; with edge 5 and slope 0.001
    a value of 7 becomes 5.002.
    """
    gentle = edge + slope * (value - edge)
    return torch.where(value > edge if above else value < edge, gentle, value)


@dataclass(frozen=True)
class Away:
    """Away from the harmful target at the perturbed prompt, up to a cut-off.

    `cross_entropy` (CAT, arXiv:2405.15589): minus the target's loss. With cutoff 5 and slope 0.001, a target at 3 nats
    per token contributes -3 and one at 7 contributes -5.002.

    `log_1_minus_p` (targeted LAT, arXiv:2407.15549, section 3): -log(1 - p), mean over the target's tokens; those that
    cost more than the cut-off add nothing, and slope is not used. Tokens of p = 0.5 and 0.001 contribute 0.693 / 2.

    answer: the name of the answer that is driven away.

    Deviations: `cross_entropy` is continuous at the cut-off, where the released code jumps from -x to
    -cutoff - slope x, by 0.005 at 5; it cuts each row's mean off, where the released code does so with the batch's;
    means are per row (`token_means`). Of `log_1_minus_p` only the last.
    """

    weight: float = 0.5
    cutoff: float = 5.0
    slope: float = 1e-3
    answer: str = HARMFUL
    form: Literal["cross_entropy", "log_1_minus_p"] = "cross_entropy"
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        rows = batch.answering(self.answer)
        logits = forward(model, rows)
        if self.form == "log_1_minus_p":
            losses = log_1_minus_p(logits, rows, self.cutoff)
        else:
            losses = -beyond(cross_entropy(logits, rows), self.cutoff, self.slope, above=True)
        yield Term("away", losses, self.weight, adversarial=batch.perturbation is not None)


@dataclass(frozen=True)
class Toward:
    """The loss of the safe answer at the perturbed prompt, down to a floor (CAT, arXiv:2405.15589).

    With floor 0.5 and slope 0.001, an answer at 2 nats per token contributes 2 and one at 0.1 contributes 0.4996.
    A floor of 0 is adversarial supervised fine-tuning. answer: the name of the answer that is drawn near.

    Deviations: continuous at the floor, where the released code jumps from x to floor + slope x, by 0.0005 at 0.5; the
    floor is of each row's mean, where the released code has one of the batch's; means are per row (`token_means`).
    """

    weight: float = 0.5
    floor: float = 0.5
    slope: float = 1e-3
    answer: str = SAFE
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        rows = batch.answering(self.answer)
        losses = beyond(cross_entropy(forward(model, rows), rows), self.floor, self.slope, above=False)
        yield Term("toward", losses, self.weight, adversarial=batch.perturbation is not None)


@dataclass(frozen=True)
class Preference:
    """The safe answer preferred to the harmful one at the perturbed prompt (CAPO, arXiv:2405.15589, section 3).

    The advantage a = (log p(safe) - log p0(safe)) - (log p(harmful) - log p0(harmful)), p0 being the model without its
    adapter at the unperturbed prompt. `ipo` (arXiv:2310.12036): (a - 1 / (2 beta))^2, log-likelihoods per token;
    `dpo` (arXiv:2305.18290): -log sigmoid(beta a), log-likelihoods of whole answers. With beta 0.25 and a = 1, ipo
    gives (1 - 2)^2 = 1 and dpo gives log(1 + exp(-0.25)) = 0.576.

    cutoff, floor: the released code's bounds. A harmful token that costs more nats than the cut-off, or a safe one that
    costs less than the floor, counts as 0 in log p, not in log p0, and has no gradient. By default there are none.

    Deviations: without bounds by default: a token that passes one changes the advantage by its whole log-likelihood,
    5 nats at a cut-off of 5, against an aim of 1 / (2 beta) = 2. p0 is computed at each step, where the released code
    keeps what it computed before training: the same number.
    """

    form: Literal["ipo", "dpo"] = "ipo"
    beta: float = 0.25
    weight: float = 1.0
    cutoff: float = math.inf
    floor: float = 0.0
    terms: int = 1
    keeps_clean: bool = False

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"objective.parts: capo.beta must be above 0, got {self.beta}.")
        if not (self.cutoff > 0 and self.floor >= 0):
            raise ValueError(
                f"objective.parts: capo.cutoff must be above 0 and capo.floor not negative, got {self.cutoff} and "
                f"{self.floor}."
            )

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term; both answers go through the model in one forward pass."""
        both = concatenate([batch.answering(SAFE), batch.answering(HARMFUL)])
        with torch.no_grad(), as_reference(model), evaluating(model):
            reference = self._log_likelihood(forward(bare(model), both.clean()), both, 0.0, math.inf)
        found = self._log_likelihood(forward(model, both), both, self.floor, self.cutoff)
        safe, harmful = (found - reference).chunk(2)
        advantage = safe - harmful
        if self.form == "ipo":
            losses = (advantage - 1 / (2 * self.beta)).square()
        else:
            losses = -torch.nn.functional.logsigmoid(self.beta * advantage)
        yield Term("preference", losses, self.weight, adversarial=batch.perturbation is not None, passes=2)

    def _log_likelihood(self, logits: Tensor, both: Batch, floor: float, cutoff: float) -> Tensor:
        """Of the safe answers, whose tokens have a floor, and of the harmful ones, whose tokens have a cut-off."""
        none = torch.zeros(len(both) // 2, device=logits.device)
        least, most = torch.cat([none + floor, none]), torch.cat([none + math.inf, none + cutoff])
        return -bounded_nll(logits, both, least, most, mean=self.form == "ipo")


@dataclass(frozen=True)
class PrefillRecovery:
    """The safe answer after the first k tokens of the harmful one, which are read and not trained (arXiv:2406.05946).

    k is drawn uniformly from shortest to longest, and at most all but one of the target's tokens, per row and step.

    Deviations: longest is 40 and every row is given a beginning, where the released code draws up to 100 tokens and
    does so for half of the rows; means are per row.
    """

    weight: float = 1.0
    shortest: int = 1
    longest: int = 40
    seed: int = 0
    terms: int = 1
    keeps_clean: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shortest <= self.longest:
            raise ValueError(
                f"objective.parts: prefill_recovery needs 0 <= shortest <= longest, got {self.shortest} and "
                f"{self.longest}."
            )

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        begun = following(batch.opening(HARMFUL), self._given(batch, moment.step))
        rows = batch.answering(SAFE, given=begun)
        losses = cross_entropy(forward(model, rows), rows)
        yield Term("prefill_recovery", losses, self.weight, adversarial=batch.perturbation is not None)

    def _given(self, batch: Batch, step: int) -> Tensor:
        """The first k tokens of each row's harmful target, (B, T), IGNORED after them."""
        harmful = batch.answers[HARMFUL]
        said = (harmful != IGNORED).sum(dim=1) - 1
        generators = row_generators(self.seed, step, batch.ids, RECOVERY_DRAW)
        drawn = [
            int(torch.randint(self.shortest, self.longest + 1, (), generator=generator, device=generator.device))
            for generator in generators
        ]
        kept = torch.minimum(torch.tensor(drawn, device=said.device), said.clamp_min(0))
        place = torch.arange(harmful.shape[1], device=harmful.device)
        return harmful.masked_fill(place >= kept.unsqueeze(1), IGNORED)


@dataclass(frozen=True)
class Supervised:
    """The loss of the row's own answer: plain supervised fine-tuning, on useful chats as on any.

    Deviations: means are per row, where released trainers take one over the batch's tokens.
    """

    weight: float = 1.0
    name: str = "utility"
    terms: int = 1
    keeps_clean: bool = True

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term."""
        yield Term(self.name, cross_entropy(forward(model, batch.clean()), batch), self.weight)


@dataclass(frozen=True)
class KlToBase:
    """KL(base || model) over the tokens of the row's own answer, base being the model without its adapter.

    scale_free: each row's divergence divided by its own value, so that its gradient is that of the logarithm: as
        targeted LAT's (arXiv:2407.15549), which does it for the mean of the batch.
    reverse: KL(model || base), the direction of LAT's released code.

    Deviations: LAT's code runs the other way (`reverse`). This way the model is charged for each answer of the base
    that it gives up: going from (1/2, 1/2) to (3/4, 1/4) costs 0.144 nats, and 0.131 in reverse; all but dropping one,
    to (0.999, 0.001), costs 2.76 nats, and 0.69 in reverse, where a collapse, which hardening risks, is cheap. Means
    are per row.
    """

    weight: float = 0.1
    scale_free: bool = False
    reverse: bool = False
    terms: int = 1
    keeps_clean: bool = False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term, on the rows as they are without a perturbation."""
        rows = batch.clean()
        with torch.no_grad(), as_reference(model), evaluating(model):
            base = forward(bare(model), rows)
        logits = forward(model, rows)
        losses = kl(logits, base, rows) if self.reverse else kl(base, logits, rows)
        if self.scale_free:
            losses = losses / losses.detach().clamp_min(1e-6)
        yield Term("kl", losses, self.weight)


class Part(NamedTuple):
    """One of several objectives; perturbed: whether it sees the delta that they share."""

    objective: Objective
    perturbed: bool = False


@dataclass(frozen=True)
class Together:
    """Several objectives on the same rows; those that want one get the same delta, searched once.

    attack: searches on the prompt followed by `answer`; None where no part is perturbed.

    Deviations: none of its own; see the parts.
    """

    parts: tuple[Part, ...]
    attack: Attack | None = None
    answer: str = HARMFUL

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("objective.parts is empty: nothing would be trained on these rows.")
        if self.attack is None and any(part.perturbed for part in self.parts):
            raise ValueError("objective.parts holds a part that is to see a perturbation, and there is no attack.")

    @property
    def terms(self) -> int:
        """Those of all parts."""
        return sum(part.objective.terms for part in self.parts)

    @property
    def keeps_clean(self) -> bool:
        """Whether any part holds the loss of the unperturbed row's own answer."""
        return any(part.objective.keeps_clean for part in self.parts)

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The terms of the parts, in order; the attack's cost and outcome stand with the first without its own."""
        plain, attacked = batch.clean(), self._attacked(model, batch, moment)
        moved = plain if attacked is None else plain.carrying(attacked.perturbation)
        for part in self.parts:
            for term in part.objective(model, moved if part.perturbed else plain, moment):
                if attacked is not None and term.attacked is None:
                    term, attacked = term._replace(attacked=attacked), None
                yield term

    def _attacked(self, model: nn.Module, batch: Batch, moment: Moment) -> Attacked | None:
        if self.attack is None:
            return None
        rows = batch.clean().answering(self.answer)
        return self.attack(model, rows, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)


@dataclass(frozen=True)
class Tempted:
    """An objective on rows that are also offered a refusal, as the answer of that name.

    refusals: token ids, end of turn included; each row is offered one of them, by its id.
    openings: what the chat template writes before each refusal; by default nothing.

    Deviations: none, there is no paper.
    """

    objective: Objective
    refusals: tuple[tuple[int, ...], ...]
    openings: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.refusals:
            raise ValueError("objective.parts: over_refusal needs the safe answers of data.adversarial, got none.")
        if self.openings and len(self.openings) != len(self.refusals):
            raise ValueError(f"Every refusal needs its opening, got {len(self.refusals)} and {len(self.openings)}.")

    @property
    def terms(self) -> int:
        """Those of the objective."""
        return self.objective.terms

    @property
    def keeps_clean(self) -> bool:
        """Whether the objective holds the loss of the unperturbed row's own answer."""
        return self.objective.keeps_clean

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """The objective's terms."""
        openings = self.openings or ((),) * len(self.refusals)
        chosen = [row % len(self.refusals) for row in batch.ids.tolist()]
        offered, before = (padded([ids[n] for n in chosen]).to(batch.device) for ids in (self.refusals, openings))
        answers = {**batch.answers, REFUSAL: offered}
        rows = replace(batch, answers=answers, openings={**batch.openings, REFUSAL: before})
        yield from self.objective(model, rows, moment)
