"""FreeLB, TRADES and adversarial training of chats: the same numbers as for classes, averaged over answer tokens."""

from __future__ import annotations

import math

import pytest
import torch
from pytest import MonkeyPatch, approx
from torch import Tensor, nn

from tests import streams, tiny
from tests.objectives.dictated import Odds, Replace, chats, plain, table
from textadv.attacks import Untargeted
from textadv.models import forward
from textadv.objectives import Adversarial, FreeLB, Moment, Objective, Term, free, trades
from textadv.values.batch import IGNORED, Batch, Role
from textadv.values.spaces import Hidden

ODDS: Odds = {2: {4: 0.5, 3: 2.0}, 4: {5: 1.0, 3: 1.2}, 6: {4: 1.7, 3: 1.0}}
CHATS = chats([[3]] * 2, [[4], [4, 5]])


def only(objective: Objective) -> Term:
    """The one term on a row answered with 4, and on one answered with 4 5, token 2 being turned into 6."""
    (term,) = objective(plain(table(ODDS)), CHATS, Moment(4, 0.5, True))
    return term


def test_adversarial_training_is_the_answers_loss_at_the_perturbed_prompt() -> None:
    """4 costs 1.7 after token 6; 5 costs 1 after 4 as ever."""
    term = only(Adversarial(Replace(6)))
    assert term.losses.tolist() == approx([1.7, (1.7 + 1.0) / 2], abs=1e-9)
    assert term.adversarial and term.attacked is not None


def test_trades_is_the_clean_loss_and_beta_times_the_divergence_from_the_clean_prediction() -> None:
    """At the first token KL(after 2 || after 6); at the second nothing differs, so that its mean is half of that."""
    p, q = (torch.softmax(table(ODDS)[token], dim=0) for token in (2, 6))
    divergence = float((p * (p / q).log()).sum())
    assert divergence > 0.3 and divergence != approx(float((q * (q / p).log()).sum()), abs=1e-2)
    term = only(trades(Replace(6), beta=3.0))
    assert term.losses.tolist() == approx([0.5 + 3 * divergence, (0.5 + 1.0) / 2 + 3 * divergence / 2], abs=1e-9)
    assert (term.passes, term.adversarial) == (2, True)


def loss_by_hand(model: nn.Module, batch: Batch, module: nn.Module, delta: Tensor) -> Tensor:
    """The mean over rows of the mean over answer tokens, from the full logits, the delta added by a hook of its own."""
    assert batch.targets is not None

    def add(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> object:
        return (output[0] + delta, *output[1:]) if isinstance(output, tuple) else output + delta

    handle = module.register_forward_hook(add)
    try:
        logits = model(**batch.inputs).logits[:, :-1]
    finally:
        handle.remove()
    targets = batch.targets[:, 1:]
    each = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return (each.sum(dim=1) / (targets != IGNORED).sum(dim=1)).mean()


@pytest.mark.parametrize("clean_term", [False, True])
@pytest.mark.parametrize("space", [None, Hidden(0)], ids=str)
def test_freelbs_gradient_is_the_mean_over_its_perturbations(
    space: Hidden | None, clean_term: bool, monkeypatch: MonkeyPatch
) -> None:
    model, batch, deltas = streams.model(), streams.rows().batch(range(4)), []

    def recording(model: nn.Module, batch: Batch) -> Tensor:
        if model.training:
            found = batch.perturbation
            deltas.append(torch.zeros(()) if found is None else found.delta.detach().clone())
        return forward(model, batch)

    monkeypatch.setattr(free, "forward", recording)
    objective = FreeLB(streams.attack(space, Untargeted()), clean_term=clean_term)
    losses = []
    for term in objective(model, batch.with_role(Role.ADVERSARIAL), Moment(0, measure=True)):
        (term.losses.sum() * term.weight / len(batch)).backward()
        losses.append(float(term.losses.detach().mean()))
    found = streams.gradients(model)
    assert len(deltas) == len(losses) == objective.terms == 3 + clean_term
    base = model.get_base_model()
    module = base.get_input_embeddings() if space is None else base.model.layers[0]
    mean = {name: torch.zeros_like(value) for name, value in found.items()}
    for delta, loss in zip(deltas, losses, strict=True):
        model.zero_grad()
        by_hand = loss_by_hand(model, batch, module, delta)
        assert loss == approx(float(by_hand.detach()), abs=1e-10)
        by_hand.backward()
        for name, value in streams.gradients(model).items():
            mean[name] += value / len(deltas)
    assert tiny.largest_difference(mean, found) < 1e-6, "Llama takes its norms in float32"
    assert losses[-1] > losses[clean_term] > 0, "the ascent climbs"
    assert math.isfinite(sum(losses))


def test_the_delta_moves_editable_tokens_of_the_prompt_only() -> None:
    """And the last term measures what the whole ascent did."""
    model, batch = streams.model(), streams.rows().batch(range(4))
    *_, last = _walked(FreeLB(streams.attack(goal=Untargeted())), model, batch)
    assert last.attacked is not None
    delta = last.attacked.perturbation.delta
    assert torch.equal(delta.abs().sum(dim=-1) > 0, batch.editable)
    assert float(last.attacked.outcome.loss_gain.mean()) > 0.01


def _walked(objective: FreeLB, model: nn.Module, batch: Batch) -> list[Term]:
    terms = []
    for term in objective(model, batch, Moment(0, measure=True)):
        term.losses.sum().backward()
        terms.append(term)
    return terms


@pytest.mark.parametrize("wide", [False, True])
def test_freelb_moves_the_prompts_special_tokens_where_asked_for_and_never_the_answer(wide: bool) -> None:
    model, batch = streams.model(), streams.rows().batch(range(4))
    objective = FreeLB(streams.attack(goal=Untargeted()), special_tokens=wide)
    for term in objective(model, batch, Moment(0, measure=True)):
        term.losses.sum().backward()
    assert term.attacked is not None
    moved = term.attacked.perturbation.delta.abs().amax(dim=-1) > 0
    place = torch.arange(moved.shape[1])
    prompt = place < batch.prompt_lengths.unsqueeze(1)
    assert torch.equal(moved, prompt if wide else batch.editable)
    assert bool((prompt & ~batch.editable).any())
