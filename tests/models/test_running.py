"""Running a model with a perturbation: the hook does exactly what a manual edit does, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NoReturn

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn

from tests.oracles import TEXT_CONFIGS, CurvedBag, image_rows, tiny_models, token_rows
from textadv.attacks import L2, ThreatModel, pgd
from textadv.models import (
    ModelError,
    PerturbationError,
    bare,
    delta_shape,
    editable_mask,
    evaluating,
    forward,
    load_trainable_state,
    space_module,
    tempered,
    trainable_state,
    unsynced,
    vectors,
)
from textadv.values.batch import Batch
from textadv.values.losses import cross_entropy
from textadv.values.spaces import Embeddings, Hidden, Pixels, Space

BLOCKS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "electra": "electra.encoder.layer",
    "deberta-v2": "deberta.encoder.layer",
    "modernbert": "model.layers",
    "gpt2": "transformer.h",
    "llama": "model.layers",
    "bart": "model.encoder.layers",
    "t5": "transformer.encoder.block",
}
texts = pytest.mark.parametrize("name", TEXT_CONFIGS)
# Its new name is not in the whole range of transformers that is supported.
checkpointing = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")


def text_model(name: str = "bert", lora: bool = False) -> nn.Module:
    model = tiny_models()[name]()
    if lora:
        settings = LoraConfig(
            r=2,
            target_modules="all-linear",
            task_type=TaskType.SEQ_CLS,
            exclude_modules=".*classifier|.*classification_head.*",
        )
        settings.fan_in_fan_out = name == "gpt2"
        model = get_peft_model(model, settings)
    return model


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def of_words(model: nn.Module, batch: Batch, words: Tensor) -> Tensor:
    """The logits of these word embeddings; of an encoder-decoder, whose decoder still reads the batch's own tokens."""
    mask = batch.inputs["attention_mask"]
    if not model.config.is_encoder_decoder:
        return model(inputs_embeds=words, attention_mask=mask).logits
    states = model.get_encoder()(inputs_embeds=words, attention_mask=mask)
    return model(**batch.inputs, encoder_outputs=states).logits


def perturbed(model: nn.Module, batch: Batch, space: Space, seed: int = 0) -> Batch:
    return batch.perturbed(space, drawn(delta_shape(model, batch, space), seed))


# ---- what the perturbation does


@texts
@pytest.mark.parametrize("layer", [0, 1])
def test_hidden_is_a_manual_edit_of_that_blocks_output(name: str, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = text_model(name).eval(), token_rows([5, 9, 7], classes=3)
    assert name in BLOCKS
    rows = perturbed(model, batch, Hidden(layer))
    with torch.no_grad():
        clean, hooked = forward(model, batch), forward(model, rows)
    block = model.get_submodule(BLOCKS[name])[layer]
    original = block.forward

    def edited(*args: object, **options: object) -> Tensor | tuple[Tensor, ...]:
        output = original(*args, **options)
        if isinstance(output, tuple):
            return (output[0] + rows.perturbation.delta, *output[1:])
        return output + rows.perturbation.delta

    monkeypatch.setattr(block, "forward", edited)
    with torch.no_grad():
        by_hand = forward(model, batch)
    assert torch.equal(hooked, by_hand)
    assert bool(((hooked - clean).abs().amax(dim=1) > 1e-3).all())
    assert space_module(model, Hidden(layer)) is block


@texts
def test_embeddings_is_a_sum_before_positions_and_types(name: str) -> None:
    model, batch = text_model(name).eval(), token_rows([7, 7], classes=3)
    rows = perturbed(model, batch, Embeddings())
    with torch.no_grad():
        hooked = forward(model, rows)
        words = space_module(model, Embeddings())(batch.inputs["input_ids"]) + rows.perturbation.delta
        direct = of_words(model, batch, words)
        clean = forward(model, batch)
    assert torch.allclose(hooked, direct, atol=1e-6)
    assert float((hooked - clean).abs().min()) > 1e-5


def test_pixels_is_a_sum_before_the_model() -> None:
    model, batch = tiny_models()["vit"]().eval(), image_rows(2)
    rows = perturbed(model, batch, Pixels())
    with torch.no_grad():
        direct = model(pixel_values=batch.inputs["pixel_values"] + rows.perturbation.delta).logits
        assert torch.equal(forward(model, rows), direct)
        assert not torch.allclose(forward(model, batch), direct)


@texts
def test_a_delta_of_zero_changes_nothing_and_has_a_gradient(name: str) -> None:
    model, batch = text_model(name).eval(), token_rows([5, 9, 7], classes=3)
    for space in (Embeddings(), Hidden(0)):
        delta = torch.zeros(delta_shape(model, batch, space), requires_grad=True)
        logits = forward(model, batch.perturbed(space, delta))
        assert torch.equal(logits.detach(), forward(model, batch).detach())
        (grad,) = torch.autograd.grad(cross_entropy(logits, batch).sum(), delta)
        moved = grad.norm(dim=-1) > 0
        assert bool((moved & batch.editable).any(dim=1).all())
        # ModernBERT's second block has a window; the embeddings reach every position through its first.
        assert bool(moved[batch.editable].all()) or (name, space) == ("modernbert", Hidden(0))
        assert float(grad[~batch.inputs["attention_mask"].bool()].abs().sum()) == 0


def test_a_half_precision_model_takes_a_single_precision_delta() -> None:
    model, batch = text_model().to(torch.bfloat16).eval(), token_rows([5, 9], classes=3)
    rows = perturbed(model, batch, Embeddings())
    assert rows.perturbation.delta.dtype == torch.float32
    assert forward(model, rows).dtype == torch.bfloat16


def test_the_delta_has_the_shape_of_its_space() -> None:
    batch = token_rows([5, 9], classes=3)
    electra = text_model("electra")
    assert delta_shape(electra, batch, Embeddings()) == (2, 9, 16)
    assert delta_shape(electra, batch, Hidden(0)) == (2, 9, 32)
    assert delta_shape(text_model(lora=True), batch, Embeddings()) == (2, 9, 32)
    assert delta_shape(tiny_models()["vit"](), image_rows(2), Pixels()) == (2, 3, 16, 16)
    assert torch.equal(editable_mask(batch, (2, 9, 4))[..., 3], batch.editable)
    assert editable_mask(image_rows(2), (2, 3, 16, 16)).sum() == 2 * 3 * 14 * 14


# ---- what it refuses


def test_a_model_without_the_place_that_was_asked_for_is_refused() -> None:
    batch, vit = token_rows([5], classes=3), tiny_models()["vit"]()
    model = text_model()
    with pytest.raises(ModelError, match="threat.layer must be at most 1 for this model of 2 blocks, got 2"):
        space_module(model, Hidden(2))
    model.config.num_hidden_layers = 7
    with pytest.raises(
        ModelError, match="No list of 7 transformer blocks .* BertForSequenceClassification.*embeddings"
    ):
        space_module(model, Hidden(0))
    with pytest.raises(ModelError, match="needs a word embedding, and ViTForImageClassification has a .* pixels"):
        delta_shape(vit, batch, Embeddings())
    with pytest.raises(ModelError, match="pixels needs image rows"):
        delta_shape(vit, batch, Pixels())
    with pytest.raises(ModelError, match="relative_radius has no meaning for pixels"):
        next(vectors(vit, Pixels()))


def test_a_block_that_runs_more_than_once_is_refused() -> None:
    model, batch = CurvedBag().eval(), token_rows([5, 9], classes=3)

    class Twice(nn.Module):
        def forward(self, **inputs: Tensor) -> Tensor:
            return model(**inputs) + model(**inputs)

        def get_input_embeddings(self) -> nn.Module:
            return model.embeddings

    with pytest.raises(PerturbationError, match="ran 2 times in one forward pass, expected 1"):
        forward(Twice(), perturbed(model, batch, Embeddings()))
    assert hooks(model) == 0


@pytest.mark.parametrize("space", [Embeddings(), Hidden(0)], ids=str)
def test_hooks_are_removed_whatever_happens(space: Space) -> None:
    model, batch = text_model(), token_rows([5, 9], classes=3)
    before = hooks(model)
    rows = perturbed(model, batch, space)
    forward(model, rows)
    assert hooks(model) == before
    with pytest.raises(PerturbationError, match="the hook is not on the module that produces this space"):
        forward(model, batch.perturbed(space, torch.zeros(2, 9, 5)))
    assert hooks(model) == before

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory, on purpose")

    handle = model.classifier.register_forward_pre_hook(fail)
    for call in (lambda: forward(model, rows), lambda: list(vectors(model, Hidden(0), batch))):
        with pytest.raises(RuntimeError, match="on purpose"):
            call()
        assert hooks(model) == before + 1
    handle.remove()
    assert all(module.training for module in model.modules())


# ---- modes and synchronisation


def test_evaluating_gives_every_module_back_the_mode_it_had() -> NoReturn:
    model = text_model().train()
    model.bert.encoder.eval()
    modes = [module.training for module in model.modules()]
    assert 0 < sum(modes) < len(modes)
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(RuntimeError, match="on purpose"), evaluating(model):
        raise RuntimeError("on purpose")
    assert [module.training for module in model.modules()] == modes


def test_a_plain_model_has_nothing_to_unwrap_or_to_hold_back() -> None:
    model = text_model()
    assert bare(model) is model
    assert isinstance(unsynced(model), nullcontext)


def test_tempered_divides_the_logits_inside_the_block_alone() -> NoReturn:
    for model in (text_model().eval(), CurvedBag().eval()):
        batch = token_rows([5, 9], classes=3)
        plain = forward(model, batch).detach()
        with pytest.raises(RuntimeError, match="on purpose"), tempered(model, 4.0):
            assert torch.allclose(forward(model, batch).detach(), plain / 4)
            raise RuntimeError("on purpose")
        assert torch.equal(forward(model, batch).detach(), plain)


# ---- gradient checkpointing


@checkpointing
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "modernbert"])
def test_gradient_checkpointing_recomputes_with_the_same_embeddings(name: str) -> None:
    batch = token_rows([5, 9, 7], classes=3)

    def gradients(recompute: bool) -> dict[str, Tensor]:
        model = text_model(name)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        rows = perturbed(model, batch, Embeddings())
        runs: list[int] = []
        block = model.get_submodule(BLOCKS[name])[0]
        inner = next(module for module in block.modules() if not list(module.children()))
        inner.register_forward_pre_hook(lambda *_: runs.append(1))
        cross_entropy(forward(model, rows), rows).sum().backward()
        assert len(runs) == 1 + recompute
        return {key: value.grad for key, value in model.named_parameters() if value.grad is not None}

    plain, recomputed = gradients(False), gradients(True)
    assert len(plain) > 10
    assert plain.keys() == recomputed.keys()
    assert all(torch.allclose(plain[key], recomputed[key], atol=1e-6) for key in plain)


@checkpointing
def test_gradient_checkpointing_with_hidden_states_is_refused_in_training() -> None:
    model, batch = text_model(), token_rows([5, 9], classes=3)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    rows = perturbed(model, batch, Hidden(0))
    with pytest.raises(ModelError, match="Set model.gradient_checkpointing: false"):
        forward(model, rows)
    forward(model.eval(), rows)


# ---- trainable state


def test_trainable_state_under_lora_is_the_adapter_and_the_head_and_comes_back() -> None:
    model = text_model(lora=True)
    state = trainable_state(model)
    wanted = {name for name, value in model.named_parameters() if value.requires_grad}
    assert wanted <= set(state)
    assert all("lora_" in name or "classifier" in name for name in wanted)
    assert not any("word_embeddings" in name for name in state)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value += 1.0
    assert all(torch.equal(state[name], before[name]) for name in state)
    kept = {name: id(value) for name, value in model.named_parameters()}
    load_trainable_state(model, state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: id(value) for name, value in model.named_parameters()} == kept


def test_trainable_state_keeps_buffers_that_change() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = trainable_state(model)
    assert {"0.weight", "1.weight", "1.running_mean", "1.num_batches_tracked"} <= set(state)
    model(torch.ones(4, 2) * 3)
    assert not torch.equal(model[1].running_mean, state["1.running_mean"])
    load_trainable_state(model, state)
    assert torch.equal(model[1].running_mean, state["1.running_mean"])


def test_a_state_of_another_model_is_refused_before_anything_changes() -> None:
    model = text_model(lora=True)
    state = trainable_state(model)
    name = list(state)[-1]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong: list[Callable[[], dict[str, Tensor]]] = [
        lambda: {key: value for key, value in state.items() if key != name},
        lambda: state | {"other.weight": torch.zeros(1)},
        lambda: state | {name: state[name][:1]},
    ]
    for make in wrong:
        with pytest.raises(ModelError, match="saved weights do not fit this model"):
            load_trainable_state(model, make())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_embeddings_frozen_by_lora_can_still_be_attacked() -> None:
    model, batch = text_model(lora=True), token_rows([5, 9], classes=3)
    table = model.get_input_embeddings().weight
    assert not table.requires_grad
    before = table.clone()
    attacked = pgd(ThreatModel(Embeddings(), L2(relative_radius=0.5)), steps=3)(model, batch)
    assert bool((attacked.outcome.loss_gain > 0).all())
    assert torch.equal(table, before)
    assert table.grad is None
