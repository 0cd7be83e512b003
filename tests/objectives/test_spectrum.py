"""A flat spectrum of the embeddings: torch's own singular values and gradients, cut as one will, refused where idle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pytest import approx
from torch import Tensor, nn

from tests import streams, tiny
from tests.chats import causal
from tests.streams import EMBEDDED, Cut
from textadv.models.embedding_matrix import embedding_matrix, embedding_name
from textadv.objectives import Moment, Term
from textadv.objectives.alignment import Part, Supervised, Together
from textadv.objectives.spectrum import Measure, Spectrum, fingerprint, spread
from textadv.training.mixing import NO_ATTACK
from textadv.values.batch import Role
from textadv.values.errors import ModelError
from textadv.values.randomness import seeded_scope


def of_embeddings(**more: object) -> nn.Module:
    """A Llama whose embedding alone is adapted, in another way than plain LoRA on its layers."""
    settings = LoraConfig(r=2, target_modules=["q_proj"], **more)  # type: ignore[arg-type]
    return get_peft_model(causal(), settings).double()  # type: ignore[arg-type]


SUBJECTS: dict[str, Callable[[], nn.Module]] = {
    "LoRA": lambda: streams.model(targets=EMBEDDED),
    "GPT-2 with LoRA": lambda: streams.model("gpt2", targets=["wte", "c_attn"]),
    "all weights": lambda: causal("gemma"),
    "fewer words than entries": lambda: fewer(causal()),
    "the embedding whole": lambda: of_embeddings(modules_to_save=["embed_tokens"]),
    "merged, then LoRA again": lambda: again(streams.model(targets=EMBEDDED)),
}


def fewer(model: nn.Module) -> nn.Module:
    model.set_input_embeddings(nn.Embedding(9, 32, dtype=torch.float64))  # type: ignore[operator]
    return model


def again(model: nn.Module) -> nn.Module:
    """The model with its adapter merged, and a new one on it."""
    merged = model.merge_and_unload()  # type: ignore[operator]
    settings = LoraConfig(r=3, lora_alpha=12, target_modules=list(EMBEDDED), init_lora_weights=False)
    return get_peft_model(merged, settings).double()


def only(model: nn.Module, measure: Measure = "variance", rows: int = 3) -> Term:
    (term,) = Spectrum(0.2, measure)(model, streams.rows().batch(range(rows)), Moment(0))
    return term


def by_svd(model: nn.Module, measure: Measure) -> Tensor:
    matrix = embedding_matrix(model)
    whole = matrix.base
    for one in matrix.factors:
        whole = whole + one.scale * (one.b @ one.a).T
    values = torch.linalg.svdvals(whole)
    return values.var(correction=0) if measure == "variance" else values.std()


@pytest.mark.parametrize("measure", ["variance", "deviation"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_value_and_gradient_are_those_of_the_singular_values_of_the_whole_matrix(
    subject: str, measure: Measure
) -> None:
    model = SUBJECTS[subject]()
    parts = embedding_matrix(model).trained
    assert len(parts) == (2 if "LoRA" in subject else 1)
    expected, term = by_svd(model, measure), only(model, measure)
    assert term.losses.tolist() == approx([expected.item()] * 3, rel=1e-10)
    wanted = torch.autograd.grad(expected, parts)
    for one, other in zip(wanted, torch.autograd.grad(term.losses.mean(), parts), strict=True):
        assert one.abs().max() > 1e-6 and torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_singular_values_1_2_and_3_have_variance_two_thirds_and_deviation_1() -> None:
    gram = torch.diag(torch.tensor([9.0, 0.0, 1.0, 4.0], dtype=torch.float64))
    assert [float(spread(gram, 3, measure)) for measure in ("variance", "deviation")] == approx([2 / 3, 1])
    (term,) = Spectrum()(causal(), streams.rows().batch([0]), Moment(0))
    assert (term.name, term.weight, term.adversarial, term.passes) == ("spectrum", 0.2, False, 0)


@pytest.mark.parametrize("measure", ["variance", "deviation"])
def test_values_that_are_alike_or_zero_have_a_finite_gradient(measure: Measure) -> None:
    for values in ([1.0, 1.0, 1.0], [0.0, 1.0, 2.0]):
        gram = torch.diag(torch.tensor(values, dtype=torch.float64)).requires_grad_()
        (slope,) = torch.autograd.grad(spread(gram, 3, measure), gram)
        assert bool(torch.isfinite(slope).all())


def test_it_is_found_anew_when_weights_have_moved_and_the_frozen_base_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective, sizes = streams.model(targets=EMBEDDED), Spectrum(), list[int]()
    eigenvalues = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda gram: sizes.append(len(gram)) or eigenvalues(gram))
    batch = streams.rows().batch([0])
    first = [next(objective(model, batch, Moment(step))).losses for step in (0, 0)]
    assert sizes == [32] and torch.equal(first[0], first[1])
    with torch.no_grad():
        embedding_matrix(model).factors[0].b.mul_(0.5)
    (second,) = objective(model, batch, Moment(0))
    assert second.losses.item() == approx(by_svd(model, "variance").item(), rel=1e-10) and len(sizes) == 2


@pytest.mark.parametrize("fused", [False, True])
def test_it_is_of_the_weights_as_they_are_whoever_writes_them(fused: bool) -> None:
    """A fused optimizer, and what is written to `.data`, leave the number of the tensor's version as it was."""
    model, objective, batch = causal(), Spectrum(1.0), streams.rows().batch([0])
    (weight,) = embedding_matrix(model).trained
    optimizer, told = torch.optim.AdamW([weight], lr=3e-2, weight_decay=0.0, fused=fused), set()
    for _ in range(3):
        (term,) = objective(model, batch, Moment(0))
        expected = by_svd(model, "variance")
        assert term.losses.item() == approx(expected.item(), rel=1e-10)
        (wanted,) = torch.autograd.grad(expected, [weight])
        optimizer.zero_grad()
        term.losses.mean().backward()
        assert weight.grad is not None and torch.allclose(weight.grad, wanted, rtol=1e-9, atol=1e-12)
        optimizer.step()
        told.add(term.losses.item())
    assert len(told) == 3
    weight.data.mul_(0.5)
    assert next(objective(model, batch, Moment(0))).losses.item() == approx(by_svd(model, "variance").item(), rel=1e-10)


def test_a_frozen_base_that_is_written_to_is_found_anew() -> None:
    model, objective, batch = streams.model(targets=EMBEDDED), Spectrum(), streams.rows().batch([0])
    for _ in range(2):
        (term,) = objective(model, batch, Moment(0))
        assert term.losses.item() == approx(by_svd(model, "variance").item(), rel=1e-10)
        embedding_matrix(model).base.data.mul_(0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_fingerprint_changes_with_any_entry_and_with_their_order(dtype: torch.dtype) -> None:
    with seeded_scope(0):
        weight = torch.randn(4, 3).to(dtype)
    found = {fingerprint(weight), fingerprint(weight.flip(0)), fingerprint(-weight), fingerprint(weight.clone())}
    assert len(found) == 3 and fingerprint(weight) == fingerprint(weight.T.contiguous().T)
    for row in range(4):
        for column in range(3):
            other = weight.clone()
            other[row, column] = torch.nextafter(other[row, column], torch.tensor(9.0, dtype=dtype))
            found.add(fingerprint(other))
    assert len(found) == 15


CUTS = {"1": (1, 1), "3": (3, 1), "two processes, one row": (1, 2)}


def gradient(size: int, processes: int, weight: float = 3.0) -> dict[str, Tensor]:
    model, parts = streams.model(targets=EMBEDDED), []
    for rank in range(processes):
        model.zero_grad()
        streams.backpropagated(model, streams.flattened(weight), Cut(size, processes, rank))
        parts.append(streams.gradients(model))
    return {name: torch.stack([part[name] for part in parts]).mean(dim=0) for name in parts[0]}


@pytest.mark.parametrize("cut", CUTS)
def test_it_is_added_once_per_step_however_rows_are_cut(cut: str) -> None:
    """What weight 3 adds to weight 0 is three times the gradient of the value, at each cut."""
    with_it, without = gradient(*CUTS[cut]), gradient(*CUTS[cut], weight=0.0)
    assert tiny.largest_difference(gradient(8, 1), with_it) < 1e-6
    model = streams.model(targets=EMBEDDED)
    by_svd(model, "variance").backward()
    assert len(streams.gradients(model)) == 2
    for name, slope in streams.gradients(model).items():
        assert torch.allclose(with_it[name] - without[name], 3 * slope, rtol=1e-6, atol=1e-8)


def test_useful_rows_alone_count_it_whole() -> None:
    """A step without adversarial rows, as in a warm-up, flattens as much as any."""
    goal = Together((Part(Spectrum(1.0)), Part(Supervised(0.0))))
    model = streams.model(targets=EMBEDDED)
    goals = dict.fromkeys((Role.ADVERSARIAL, Role.UTILITY, Role.BORDERLINE), goal)
    report = streams.backpropagated(model, goals, Cut(3), mixing=NO_ATTACK)
    assert float(report.losses["spectrum"]) == approx(streams.BATCH * by_svd(model, "variance").item())
    assert report.adversarial_rows == 0


def test_half_precision_gets_a_gradient_in_its_own_format() -> None:
    model = causal(dtype=torch.bfloat16)
    term, parts = only(model), embedding_matrix(model).trained
    assert term.losses.dtype == torch.float32
    (slope,) = torch.autograd.grad(term.losses.mean(), parts)
    assert slope.dtype == torch.bfloat16
    exact = causal(dtype=torch.bfloat16).double()
    (wanted,) = torch.autograd.grad(by_svd(exact, "variance"), embedding_matrix(exact).trained)
    assert torch.allclose(slope.double(), wanted, rtol=2e-2, atol=1e-3 * float(wanted.abs().max()))


def test_an_embedding_that_nothing_trains_is_refused_with_the_remedy() -> None:
    """Where the released code does nothing, in silence."""
    model = streams.model()
    with pytest.raises(ValueError, match=r"none of its weights is trained\. Name it in model\.lora\.targets"):
        only(model)
    assert embedding_name(model) == "embed_tokens" and embedding_name(streams.model("gpt2")) == "wte"


def test_what_an_adapter_does_in_another_way_is_refused() -> None:
    settings = LoraConfig(r=2, target_modules=["embed_tokens"], use_dora=True)
    model = get_peft_model(causal(), settings)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="of LoRA without variants"):
        embedding_matrix(model)
