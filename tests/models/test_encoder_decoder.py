"""Encoder-decoders as classifiers: what the encoder reads is perturbed and no more; trained, saved and loaded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BigBirdPegasusConfig,
    MarianConfig,
    MBartConfig,
    MT5Config,
    MvpConfig,
    PLBartConfig,
    PretrainedConfig,
    PreTrainedModel,
    T5Gemma2Config,
    T5GemmaConfig,
    UMT5Config,
)

from tests import folders
from tests.oracles import FIRST, LAST, PAD, TEXT_CONFIGS, VOCABULARY, token_rows
from textadv.attacks import L2, ThreatModel, pgd
from textadv.data import Examples, encode
from textadv.models import (
    LoadedModel,
    Lora,
    ModelError,
    blocks,
    delta_shape,
    forward,
    load_causal,
    load_classifier,
    save_adapter,
    save_merged,
    space_module,
)
from textadv.values.batch import Batch
from textadv.values.losses import cross_entropy
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Hidden, Space

ENDS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": FIRST, "eos_token_id": LAST, "num_labels": 3}
BART = {
    **ENDS,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
    "init_std": 0.2,
    "decoder_start_token_id": LAST,
    "forced_eos_token_id": LAST,
}
T5 = {**ENDS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": PAD}
GEMMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": PAD,
    "bos_token_id": FIRST,
    "eos_token_id": LAST,
}
PAIR = {"encoder": GEMMA, "decoder": GEMMA, "vocab_size": VOCABULARY}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}
IMAGES = {"image_token_index": VOCABULARY - 1}
FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "bart": TEXT_CONFIGS["bart"],
    "mbart": lambda: MBartConfig(**BART),
    "plbart": lambda: PLBartConfig(**BART),
    "mvp": lambda: MvpConfig(**BART),
    "bigbird-pegasus": lambda: BigBirdPegasusConfig(**BART, attention_type="original_full"),
    "t5": TEXT_CONFIGS["t5"],
    "mt5": lambda: MT5Config(**T5),
    "umt5": lambda: UMT5Config(**T5),
    "t5gemma": lambda: T5GemmaConfig(**PAIR, num_labels=3),
    "t5gemma-2": lambda: T5Gemma2Config(
        encoder={"text_config": GEMMA, "vision_config": VISION, **IMAGES}, decoder=GEMMA, num_labels=3, **IMAGES
    ),
}
families = pytest.mark.parametrize("name", FAMILIES)


def classifier(name: str) -> PreTrainedModel:
    with seeded_scope(0):
        return AutoModelForSequenceClassification.from_config(FAMILIES[name]()).eval()


def one_table(model: PreTrainedModel) -> PreTrainedModel:
    """The model after its embeddings were resized, which makes one module of the encoder's and the decoder's."""
    model.resize_token_embeddings(VOCABULARY + 2, mean_resizing=False)
    return model


def encoded(model: PreTrainedModel, batch: Batch, delta: Tensor) -> Tensor:
    """The logits where the encoder reads its embeddings with the delta on them, and the decoder as it always does."""
    encoder, mask = model.get_encoder(), batch.inputs["attention_mask"]
    words = encoder.get_input_embeddings()(batch.inputs["input_ids"])
    states = encoder(inputs_embeds=words + delta, attention_mask=mask)
    return model(**batch.inputs, encoder_outputs=states).logits


def drawn(model: nn.Module, batch: Batch, space: Space) -> Tensor:
    shape = delta_shape(model, batch, space)
    return 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@families
def test_embeddings_are_what_the_encoder_reads(name: str) -> None:
    model, batch = classifier(name).double(), token_rows([5, 9, 7], classes=3)
    delta = drawn(model, batch, Embeddings())
    with torch.no_grad():
        moved, plain = forward(model, batch.perturbed(Embeddings(), delta)), forward(model, batch)
        assert torch.allclose(moved, encoded(model, batch, delta), rtol=0, atol=1e-12)
    assert bool(((moved - plain).abs().amax(dim=1) > 1e-4).all())


@pytest.mark.parametrize("name", [name for name in FAMILIES if "gemma" not in name])
def test_a_table_that_the_decoder_calls_too_is_perturbed_for_the_encoder_only(name: str) -> None:
    model, batch = one_table(classifier(name).double()), token_rows([5, 9, 7], classes=3)
    assert model.get_encoder().embed_tokens is model.get_decoder().embed_tokens
    delta = drawn(model, batch, Embeddings())
    with torch.no_grad():
        moved = forward(model, batch.perturbed(Embeddings(), delta))
        assert torch.allclose(moved, encoded(model, batch, delta), rtol=0, atol=1e-12)


@families
def test_hidden_states_are_the_encoders(name: str) -> None:
    model, batch = classifier(name), token_rows([5, 9, 7], classes=3)
    inside = set(model.get_encoder().modules())
    assert len(blocks(model)) == 2 and set(blocks(model)) <= inside
    for layer in (0, 1):
        space = Hidden(layer)
        delta = torch.zeros(delta_shape(model, batch, space), requires_grad=True)
        logits = forward(model, batch.perturbed(space, delta))
        assert torch.equal(logits.detach(), forward(model, batch).detach())
        (grad,) = torch.autograd.grad(cross_entropy(logits, batch).sum(), delta)
        assert bool((grad.norm(dim=-1) > 0)[batch.editable].all())


def test_an_encoder_whose_decoder_is_left_out_is_attacked_too() -> None:
    with seeded_scope(0):
        config = T5GemmaConfig(**PAIR, num_labels=3, is_encoder_decoder=False)
        model = AutoModelForSequenceClassification.from_config(config).eval()
    batch = token_rows([5, 9, 7], classes=3)
    for space in (Embeddings(), Hidden(0)):
        delta = torch.zeros(delta_shape(model, batch, space), requires_grad=True)
        logits = forward(model, batch.perturbed(space, delta))
        (grad,) = torch.autograd.grad(cross_entropy(logits, batch).sum(), delta)
        assert bool(grad.flatten(1).any(dim=1).all())


def test_a_relative_radius_counts_in_embeddings_as_the_encoder_receives_them() -> None:
    model = classifier("bart")
    scale, weight = model.config.d_model**0.5, model.model.shared.weight
    threat = ThreatModel(Embeddings(), L2(relative_radius=0.2)).resolved(model)
    words = (weight.detach() * scale).norm(dim=-1)
    assert threat.ball.radius == pytest.approx(0.2 * float(words.mean()), rel=1e-5)
    assert space_module(model, Embeddings()) is model.model.encoder.embed_tokens


def only_configured(folder: Path, config: PretrainedConfig) -> str:
    """A folder with a config.json and no weights."""
    config.save_pretrained(folder)
    folders.tokenizer(eos_token="[SEP]").save_pretrained(folder)
    return str(folder)


def test_what_has_no_classifier_is_refused_before_any_weight_is_read(tmp_path: Path) -> None:
    name = only_configured(tmp_path, MarianConfig(**{**BART, "forced_eos_token_id": None}))
    with pytest.raises(ModelError, match="it is an encoder-decoder of type marian, and transformers has no text class"):
        load_classifier(name, ("no", "yes"))


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_chats_are_refused_before_any_weight_is_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"is an encoder-decoder of type {name}, and task: chat needs a decoder"):
        load_causal(only_configured(tmp_path, FAMILIES[name]()))


def trained(loaded: LoadedModel, batch: Batch) -> None:
    """Two steps of adversarial training."""
    attack = pgd(ThreatModel(Embeddings(), L2(0.1)), steps=1)
    weights = [value for value in loaded.model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.5)
    for step in range(2):
        attacked = attack(loaded.model, batch, step=step, measure=False)
        cross_entropy(forward(loaded.model, attacked.batch), batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("lora", [None, Lora(r=2)], ids=["whole", "lora"])
@pytest.mark.parametrize("save", [folders.bart, folders.t5], ids=["bart", "t5"])
def test_what_is_exported_is_what_was_trained(save: Callable[[Path], Path], lora: Lora | None, tmp_path: Path) -> None:
    labels = ("no", "maybe", "yes")
    loaded = load_classifier(str(save(tmp_path / "base")), labels, lora=lora)
    texts = Examples(("a fine film", "dull", "not at all bad"), None, (2, 0, 1), (0, 1, 2))
    batch = encode(texts, loaded.tokenizer, 16).batch([0, 1, 2])
    loaded.model.eval()
    before = forward(loaded.model, batch).detach()
    trained(loaded, batch)
    measured = forward(loaded.model, batch).detach()
    assert float((measured - before).abs().max()) > 1e-3
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    again = load_classifier(str(tmp_path / "adapter"), labels).model.eval()
    with torch.no_grad():
        assert torch.allclose(plain(**batch.inputs).logits, measured, rtol=0, atol=1e-5)
        assert torch.allclose(forward(again, batch), measured, rtol=0, atol=1e-5)
