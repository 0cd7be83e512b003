"""The losses that harden chat models beside their published formulas, written out on a small model in float64.

What is compared is the value and the gradient of every adapter weight. A mean over tokens is taken where released code
takes one, by `OverTokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, logsigmoid, softmax

from tests import streams
from tests.chats import MODELS
from textadv.attacks import Elicit
from textadv.models import as_reference, evaluating
from textadv.objectives import Moment, Objective
from textadv.objectives.alignment import Away, KlToBase, Preference, PrefillRecovery, Supervised, Toward
from textadv.objectives.rerouting import Reroute, Retain
from textadv.objectives.token_means import OverTokens
from textadv.objectives.triplet import Centre, Gather, Stay
from textadv.values.batch import IGNORED, Batch
from textadv.values.spaces import Embeddings

FORMULAS: dict[str, tuple[Callable[[], Objective], Callable[[nn.Module, Batch], Tensor]]] = {}
ROWS, CUTOFF, FLOOR = 4, 3.7, 4.0


def formula(name: str, make: Callable[[], Objective]) -> Callable[[Callable], Callable]:
    def note(written_out: Callable[[nn.Module, Batch], Tensor]) -> Callable[[nn.Module, Batch], Tensor]:
        FORMULAS[name] = (make, written_out)
        return written_out

    return note


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Four adversarial rows of different lengths, perturbed at the user's tokens."""
    rows = streams.rows().batch(range(ROWS))
    attacked = streams.attack(goal=Elicit())(streams.model(), rows.answering("harmful"))
    return rows.carrying(attacked.perturbation)


def token_logits(model: nn.Module, rows: Batch, *, perturbed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The logits (N, V) before each token of the answers, these tokens (N,), and the row of each, by embeddings."""
    embedded = model.get_input_embeddings()(rows.inputs["input_ids"])
    if perturbed and rows.perturbation is not None:
        embedded = embedded + rows.perturbation.delta
    logits = model(inputs_embeds=embedded, attention_mask=rows.inputs["attention_mask"]).logits
    row, column = (rows.targets != IGNORED).nonzero(as_tuple=True)
    return logits[row, column - 1], rows.targets[row, column], row


def log_p(model: nn.Module, batch: Batch, answer: str, *, perturbed: bool = True) -> tuple[Tensor, Tensor]:
    """The log-probability of every token of an answer, and its row."""
    logits, tokens, row = token_logits(model, batch.answering(answer), perturbed=perturbed)
    return log_softmax(logits, dim=-1)[torch.arange(len(tokens)), tokens], row


@contextmanager
def base(model: nn.Module) -> Iterator[None]:
    with torch.no_grad(), as_reference(model), evaluating(model):
        yield


def per_row(values: Tensor, row: Tensor) -> Tensor:
    return torch.stack([values[row == n].mean() for n in range(ROWS)])


@formula("CAT, away", lambda: OverTokens(Away(cutoff=50.0), "harmful"))
def _(model: nn.Module, batch: Batch) -> Tensor:
    """Minus the cross-entropy of all tokens of the batch."""
    return log_p(model, batch, "harmful")[0].mean()


@formula("CAT, toward", lambda: OverTokens(Toward(floor=0.0), "safe"))
def _(model: nn.Module, batch: Batch) -> Tensor:
    return -log_p(model, batch, "safe")[0].mean()


@formula("LAT, away", lambda: OverTokens(Away(cutoff=CUTOFF, form="log_1_minus_p"), "harmful"))
def _(model: nn.Module, batch: Batch) -> Tensor:
    """-log(1 - p), 0 where log p is below minus the cut-off, over all tokens."""
    logs, _ = log_p(model, batch, "harmful")
    each = -torch.log1p(-logs.exp())
    return each.masked_fill(logs < -CUTOFF, 0).mean()


@formula("adversarial supervised training, a mean per row", lambda: Toward(floor=0.0))
def _(model: nn.Module, batch: Batch) -> Tensor:
    return per_row(-log_p(model, batch, "safe")[0], log_p(model, batch, "safe")[1]).mean()


def capo(model: nn.Module, batch: Batch, *, bounded: bool, ipo: bool) -> Tensor:
    """Bounds zero a policy's token, not the reference's; ipo takes means over tokens, dpo sums."""
    advantage = torch.zeros(ROWS, dtype=torch.float64)
    for answer, sign in (("safe", 1), ("harmful", -1)):
        policy, row = log_p(model, batch, answer)
        with base(model):
            reference, _ = log_p(model, batch, answer, perturbed=False)
        if bounded:
            policy = policy.masked_fill(policy > -FLOOR if answer == "safe" else policy < -CUTOFF, 0)
        for n in range(ROWS):
            own = policy[row == n], reference[row == n]
            advantage[n] = advantage[n] + sign * (own[0].mean() - own[1].mean() if ipo else own[0].sum() - own[1].sum())
    return ((advantage - 2.0) ** 2 if ipo else -logsigmoid(0.25 * advantage)).mean()


for _ipo in (True, False):
    for _bounded in (True, False):
        _form = "ipo" if _ipo else "dpo"
        _bounds = {"cutoff": CUTOFF, "floor": FLOOR} if _bounded else {}
        formula(f"CAPO, {_form}{', bounds' * _bounded}", lambda form=_form, bounds=_bounds: Preference(form, **bounds))(
            lambda model, batch, bounded=_bounded, ipo=_ipo: capo(model, batch, bounded=bounded, ipo=ipo)
        )


@formula("supervised", lambda: Supervised())
def _(model: nn.Module, batch: Batch) -> Tensor:
    logs, row = log_p(model, batch, "safe", perturbed=False)
    return per_row(-logs, row).mean()


@formula("recovery from one token of the target", lambda: PrefillRecovery(shortest=1, longest=1))
def _(model: nn.Module, batch: Batch) -> Tensor:
    losses = []
    for n in range(ROWS):
        one = batch.rows(torch.tensor([n]))
        prompt = one.inputs["input_ids"][:, : int(one.prompt_lengths)]
        target, safe = (one.answers[name][one.answers[name] != IGNORED] for name in ("harmful", "safe"))
        whole = torch.cat([prompt[0], target[:1] if len(target) > 1 else target[:0], safe]).unsqueeze(0)
        moved = model.get_input_embeddings()(whole)
        size = prompt.shape[1]
        moved = torch.cat([moved[:, :size] + one.perturbation.delta[:, :size], moved[:, size:]], dim=1)
        logits = model(inputs_embeds=moved).logits[0, -len(safe) - 1 : -1]
        losses.append(-log_softmax(logits, dim=-1)[torch.arange(len(safe)), safe].mean())
    return torch.stack(losses).mean()


def divergence(model: nn.Module, batch: Batch, *, reverse: bool) -> Tensor:
    """torch's kl_div(log q, p) is KL(p || q)."""
    rows = batch.answering("safe")
    with base(model):
        before, _, row = token_logits(model, rows, perturbed=False)
    after, _, _ = token_logits(model, rows, perturbed=False)
    p, q = (after, before) if reverse else (before, after)
    each = kl_div(log_softmax(q, dim=-1), softmax(p, dim=-1), reduction="none").sum(dim=-1)
    return per_row(each, row).mean()


formula("KL(base || model)", KlToBase)(lambda model, batch: divergence(model, batch, reverse=False))
formula("KL(model || base), LAT's", lambda: KlToBase(reverse=True))(
    lambda model, batch: divergence(model, batch, reverse=True)
)


def hidden(model: nn.Module, rows: Batch, *, perturbed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """All states (L + 1, B, S, D) as transformers hands them out, those without the adapter, and each row's tokens."""
    embedded = model.get_input_embeddings()(rows.inputs["input_ids"])
    if perturbed:
        embedded = embedded + rows.perturbation.delta
    asked = {"inputs_embeds": embedded, "attention_mask": rows.inputs["attention_mask"], "output_hidden_states": True}
    with base(model):
        before = torch.stack(model(**asked).hidden_states)
    return torch.stack(model(**asked).hidden_states), before, rows.inputs["attention_mask"].double()


@formula("circuit breakers, reroute", lambda: OverTokens(Reroute((0, 1)), "harmful", whole=True))
def _(model: nn.Module, batch: Batch) -> Tensor:
    """relu of the cosine, summed over layers and tokens, over their number."""
    after, before, own = hidden(model, batch.answering("harmful"), perturbed=True)
    cosine = torch.cosine_similarity(after[1:3], before[1:3], dim=-1)
    return (cosine.relu() * own).sum() / (2 * own.sum())


@formula("circuit breakers, retain", lambda: OverTokens(Retain(), whole=True))
def _(model: nn.Module, batch: Batch) -> Tensor:
    """The norm, over all states: embeddings and final norm among them."""
    after, before, own = hidden(model, batch.answering("safe"), perturbed=False)
    return ((after - before).norm(dim=-1) * own).sum() / (len(after) * own.sum())


def answered(rows: Batch) -> Tensor:
    return (rows.targets != IGNORED).double()


def by_row(values: Tensor, own: Tensor) -> Tensor:
    """The mean over each row's own tokens (B, S), then over rows."""
    return ((values * own).sum(dim=1) / own.sum(dim=1)).mean()


def apart(one: Tensor, other: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(one, other, dim=-1)


@formula("triplet, harmful rows", lambda: Gather((0, 1), margin=0.05))
def _(model: nn.Module, batch: Batch) -> Tensor:
    """relu(d(h, centre) - d(h, h0) + margin); the centre is of the plain rows and constant."""
    rows = batch.answering("harmful")
    after, _, _ = hidden(model, rows, perturbed=True)
    with torch.no_grad(), evaluating(model):
        plain, before, _ = hidden(model, rows, perturbed=False)
    own = answered(rows)
    centre = (plain * own.unsqueeze(-1)).sum(dim=(1, 2), keepdim=True) / own.sum()
    each = (apart(after, centre) - apart(after, before) + 0.05).relu()[1:3].mean(dim=0)
    assert bool((each[own.bool()] > 0).any())
    return by_row(each, own)


MIDDLE = torch.randn(4, 32, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


@formula("triplet, useful rows", lambda: Stay(margin=-0.4, centre=Centre(MIDDLE, 0)))
def _(model: nn.Module, batch: Batch) -> Tensor:
    """relu(|h - h0| - d(h, centre) + margin), over all states."""
    rows = batch.answering("safe")
    after, before, _ = hidden(model, rows, perturbed=False)
    each = (after - before).norm(dim=-1) - apart(after, MIDDLE[:, None, None]) - 0.4
    return by_row(each.relu().mean(dim=0), answered(rows))


def found(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    adapters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    grads = torch.autograd.grad(loss, list(adapters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(adapters.items(), grads, strict=True)
    }


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient_are_those_of_the_published_formula(name: str, batch: Batch) -> None:
    make, written_out = FORMULAS[name]
    model = streams.model()
    assert isinstance(batch.perturbation.space, Embeddings) and float(batch.perturbation.delta.abs().max()) > 0.01
    (term,) = make()(model, batch.answering("safe"), Moment(0))
    expected = written_out(model, batch)
    assert term.losses.mean().item() == pytest.approx(expected.item(), abs=1e-9) and abs(expected.item()) > 1e-3
    mine, theirs = found(model, term.losses.mean()), found(model, expected)
    assert max(float(value.abs().max()) for value in theirs.values()) > 1e-4
    for key, value in theirs.items():
        assert torch.allclose(mine[key], value, atol=1e-9), key


def test_the_rows_have_tokens_on_both_sides_of_the_bounds(batch: Batch) -> None:
    model = streams.model()
    for answer, edge in (("harmful", CUTOFF), ("safe", FLOOR)):
        costs = -log_p(model, batch, answer)[0]
        assert bool((costs > edge).any()) and bool((costs < edge).any())


def released_retain(model: nn.Module, batch: Batch) -> Tensor:
    """The norm of masked states, over all states, rows and positions: padding is one of them, and counts 0."""
    after, before, own = hidden(model, batch.answering("safe"), perturbed=False)
    mask = own.unsqueeze(-1)
    return (after * mask - before * mask).norm(dim=-1).nanmean()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_retain_is_the_released_value_but_for_how_padding_counts(name: str, batch: Batch) -> None:
    """Embeddings and final norm among the states, value and gradient; blocks alone are some way off."""
    model, rows = streams.model(name).eval(), batch.clean().answering("safe")
    own = rows.inputs["attention_mask"].double().mean()
    assert 0.5 < float(own) < 0.95, "some of the positions are padding"
    (term,) = OverTokens(Retain(), whole=True)(model, rows, Moment(0))
    mine, expected = own * term.losses.mean(), released_retain(model, rows)
    assert mine.item() == pytest.approx(expected.item(), rel=1e-9)
    theirs = found(model, expected)
    for key, value in found(model, mine).items():
        assert torch.allclose(value, theirs[key], atol=1e-9), key
    for n in range(ROWS):
        one = batch.rows(torch.tensor([n])).clean().answering("safe")
        (alone,), (blocks,) = (objective(model, one, Moment(0)) for objective in (Retain(), Retain((0, 1, 2))))
        wanted = released_retain(model, one).item()
        assert alone.losses.item() == pytest.approx(wanted, rel=1e-9), "a row without padding"
        assert abs(blocks.losses.item() / wanted - 1) > 0.05, "what the value was before"
