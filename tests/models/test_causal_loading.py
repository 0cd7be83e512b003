"""Loading causal models from folders and adapter folders: what is trained, what is kept, what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from tests import folders
from tests.adapters import shaken_loaded
from tests.chats import MODELS, WIDTH, chats, saved
from textadv.attacks import L2, Elicit, ThreatModel, pgd
from textadv.models import (
    LoadedModel,
    Lora,
    ModelError,
    as_reference,
    evaluating,
    forward,
    hidden_states,
    load_causal,
    save_adapter,
    save_merged,
)
from textadv.models.places import blocks
from textadv.values.batch import Batch
from textadv.values.losses import cross_entropy
from textadv.values.spaces import Embeddings, Hidden

LINEAR = {
    "q_proj": 1,
    "k_proj": 1,
    "v_proj": 1,
    "o_proj": 1,
    "gate_proj": 1,
    "up_proj": 1,
    "down_proj": 1,
}
LAYERS = dict.fromkeys(MODELS, LINEAR) | {"gpt2": {"c_attn": 1, "c_proj": 2, "c_fc": 1}}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
BATCH = chats().answering("harmful")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a model of the given architecture, written once."""
    parent = tmp_path_factory.mktemp("models")

    def folder(name: str) -> str:
        return str(parent / name if (parent / name).is_dir() else saved(parent / name, name, TEMPLATE))

    return folder


def logits(loaded: LoadedModel, batch: Batch = BATCH) -> Tensor:
    with evaluating(loaded.model), torch.no_grad():
        return forward(loaded.model, batch)


# ---- what is trained


@pytest.mark.parametrize("name", MODELS)
def test_lora_sits_on_every_linear_layer_and_never_on_the_head(name: str, base: Callable[[str], str]) -> None:
    loaded = load_causal(base(name), lora=Lora(r=2))
    trained = folders.parameters(loaded.model, trainable=True)
    assert all(".lora_A." in weight or ".lora_B." in weight for weight in trained)
    for layer, count in LAYERS[name].items():
        assert sum(f".{layer}.lora_A." in weight for weight in trained) == 3 * count, layer
    assert len(trained) == 2 * 3 * sum(LAYERS[name].values())
    assert not any(word in weight for weight in trained for word in ("lm_head", "embed", "wte", "wpe"))
    assert loaded.initialised == ()
    assert loaded.model.peft_config["default"].task_type == "CAUSAL_LM"  # type: ignore[index,union-attr]


@pytest.mark.parametrize("name", MODELS)
def test_a_new_adapter_changes_nothing_and_switches_off(name: str, base: Callable[[str], str]) -> None:
    plain = logits(load_causal(base(name)))
    loaded = load_causal(base(name), lora=Lora(r=2))
    assert torch.allclose(logits(loaded), plain, atol=1e-5)
    moved = shaken_loaded(loaded, 0.3)
    assert not torch.allclose(logits(moved), plain, atol=1e-2)
    with as_reference(moved.model):
        assert torch.allclose(logits(moved), plain, atol=1e-5)


def test_without_lora_every_weight_is_trained(base: Callable[[str], str]) -> None:
    loaded = load_causal(base("llama"))
    assert not isinstance(loaded.model, PeftModel)
    assert folders.parameters(loaded.model, trainable=False) == []


def test_layers_can_be_named(base: Callable[[str], str]) -> None:
    loaded = load_causal(base("llama"), lora=Lora(r=2, targets=("q_proj", "v_proj")))
    assert len(folders.parameters(loaded.model, trainable=True)) == 2 * 3 * 2
    with pytest.raises(ModelError, match=r"model.lora.targets \['nowhere'\] match no layer of LlamaForCausalLM"):
        load_causal(base("llama"), lora=Lora(targets=("nowhere",)))


def test_new_weights_are_a_function_of_the_seed_and_the_callers_random_numbers_stay(base: Callable[[str], str]) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(torch.seed())
        before = torch.get_rng_state()
        found = load_causal(base("llama"), seed=seed, lora=Lora()).model.state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        return found

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    changed = {name for name, value in first.items() if not torch.equal(value, other[name])}
    assert changed == {name for name in first if "lora_A" in name}


# ---- there and back


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_folder_gives_the_same_logits_and_is_trained_on(
    name: str, base: Callable[[str], str], tmp_path: Path
) -> None:
    loaded = shaken_loaded(load_causal(base(name), lora=Lora(r=2), seed=1), 0.3)
    save_adapter(loaded.model, loaded.tokenizer, tmp_path)
    assert "model.safetensors" not in {path.name for path in tmp_path.iterdir()}
    again = load_causal(str(tmp_path), seed=2)
    assert torch.equal(logits(again), logits(loaded))
    assert folders.parameters(again.model, True) == folders.parameters(loaded.model, True) != []
    assert again.tokenizer.chat_template == TEMPLATE
    assert again.tokenizer.pad_token_id == loaded.tokenizer.pad_token_id == again.model.config.pad_token_id


@pytest.mark.parametrize("name", MODELS)
def test_the_merged_model_agrees_with_the_adapter(name: str, base: Callable[[str], str], tmp_path: Path) -> None:
    loaded = shaken_loaded(load_causal(base(name), lora=Lora(r=2)), 0.1)
    expected = logits(loaded)
    save_merged(loaded.model, loaded.tokenizer, tmp_path)
    merged = load_causal(str(tmp_path))
    assert not isinstance(merged.model, PeftModel)
    assert torch.allclose(logits(merged), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(logits(loaded), expected), "merging changed the model in training"


def test_an_adapter_takes_no_other_on_top(base: Callable[[str], str], tmp_path: Path) -> None:
    loaded = load_causal(base("llama"), lora=Lora(r=2))
    save_adapter(loaded.model, loaded.tokenizer, tmp_path)
    with pytest.raises(ModelError, match="is an adapter and model.lora asks for another on top"):
        load_causal(str(tmp_path), lora=Lora())


def test_an_adapter_whose_base_is_gone_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    loaded = load_causal(str(folder), lora=Lora(r=2))
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"there is no folder {folder}"):
        load_causal(str(tmp_path / "adapter"))


# ---- the tokenizer


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_template_file_takes_the_place_of_the_tokenizers_own(
    encoding: str, base: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages[0].content }} ¡olé!", encoding=encoding)
    assert load_causal(base("llama")).tokenizer.chat_template == TEMPLATE
    tokenizer = load_causal(base("llama"), chat_template=str(file)).tokenizer
    chat = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "hello ¡olé!"


def test_a_template_that_cannot_be_read_is_refused(base: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.jinja", "none.jinja"):
        with pytest.raises(ModelError, match=rf"model.chat_template: .*{name} cannot be read"):
            load_causal(base("llama"), chat_template=str(tmp_path / name))


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(tmp_path: Path) -> None:
    saved(tmp_path)
    folders.tokenizer(pad_token=None, eos_token="[SEP]").save_pretrained(tmp_path)
    loaded = load_causal(str(tmp_path))
    assert loaded.tokenizer.pad_token == "[SEP]"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id


# ---- what is not there


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ModelError, match=f"model.name: there is no folder {name}"):
        load_causal(name)


def test_a_folder_without_a_model_or_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folders.tokenizer().save_pretrained(tmp_path / "tokens")
    with pytest.raises(ModelError, match="tokens' is a folder without config.json, so it holds no model"):
        load_causal(str(tmp_path / "tokens"))
    for path in saved(tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="bare' is a folder without a tokenizer"):
        load_causal(str(tmp_path / "bare"))


def test_four_bits_need_bitsandbytes(base: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    with pytest.raises(ModelError, match=r"needs the package bitsandbytes. Install textadv\[quantization\]"):
        load_causal(base("llama"), quantization="4bit", lora=Lora())


# ---- running


def quietened(model: nn.Module) -> nn.Module:
    """In training mode, without dropout."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def gradients(loaded: LoadedModel, layers: tuple[int, ...] = ()) -> tuple[dict[str, Tensor], int]:
    """Of the loss at a perturbed prompt, or of the hidden states after `layers`; and how often block 1's MLP ran."""
    model, calls = quietened(shaken_loaded(loaded, 0.3).model), []
    block = blocks(model)[1]
    assert isinstance(block.mlp, nn.Module)
    block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    delta = 0.2 * torch.randn(*BATCH.editable.shape, WIDTH, generator=torch.Generator().manual_seed(1))
    rows = BATCH.perturbed(Embeddings(), delta * BATCH.editable.unsqueeze(-1))
    if layers:
        sum(state.square().mean() for state in hidden_states(model, rows, layers)[1]).backward()  # type: ignore[union-attr]
    else:
        cross_entropy(forward(model, rows), rows).sum().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}, len(calls)


@pytest.mark.parametrize("layers", [(), (0, 1)], ids=["loss", "hidden states"])
@pytest.mark.parametrize("name", MODELS)
def test_gradient_checkpointing_changes_no_gradient(
    name: str, layers: tuple[int, ...], base: Callable[[str], str]
) -> None:
    (plain, once), (saving, twice) = (
        gradients(load_causal(base(name), lora=Lora(r=2), gradient_checkpointing=on), layers) for on in (False, True)
    )
    assert (once, twice) == (1, 2), "the block was not run again in the backward pass"
    assert plain.keys() == saving.keys() and len(plain) == 2 * (len(layers) or 3) * sum(LAYERS[name].values())
    largest = max(float(value.abs().max()) for value in plain.values())
    assert largest > 0.01
    assert max(float((value - saving[key]).abs().max()) for key, value in plain.items()) < 1e-5 * max(largest, 1)


def test_under_checkpointing_an_attack_works_and_hidden_states_are_refused(base: Callable[[str], str]) -> None:
    loaded = shaken_loaded(load_causal(base("llama"), lora=Lora(r=2), gradient_checkpointing=True), 0.3)
    model, plain = loaded.model.train(), shaken_loaded(load_causal(base("llama"), lora=Lora(r=2)), 0.3).model.train()
    attack = pgd(ThreatModel(Embeddings(), L2(0.003)), steps=3, goal=Elicit())
    found, expected = attack(model, BATCH), attack(plain, BATCH)
    assert torch.allclose(found.perturbation.delta, expected.perturbation.delta, atol=1e-6)
    assert float(found.outcome.climb.min()) > 0
    with pytest.raises(ModelError, match="does not go with model.gradient_checkpointing"):
        forward(model, BATCH.perturbed(Hidden(0), torch.zeros(*BATCH.editable.shape, WIDTH)))


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_runs_attacks_and_trains_with_finite_numbers(name: str, base: Callable[[str], str]) -> None:
    loaded = shaken_loaded(load_causal(base(name), lora=Lora(r=2), dtype="bfloat16"), 0.05)
    frozen = {value.dtype for value in loaded.model.parameters() if not value.requires_grad}
    assert frozen == {torch.bfloat16}
    exact = logits(shaken_loaded(load_causal(base(name), lora=Lora(r=2)), 0.05))
    near = logits(loaded).float()
    assert float((near - exact).abs().max() / exact.abs().max()) < 0.1
    found = pgd(ThreatModel(Embeddings(), L2(0.3)), steps=3, goal=Elicit())(loaded.model, BATCH)
    assert bool(torch.isfinite(found.perturbation.delta).all()) and float(found.outcome.loss_gain.mean()) > 0
    cross_entropy(forward(loaded.model, found.batch), BATCH).sum().backward()
    grads = [value.grad for value in loaded.model.parameters() if value.requires_grad]
    assert all(grad is not None and bool(torch.isfinite(grad).all()) for grad in grads)


def test_a_dtype_is_that_of_the_weights(base: Callable[[str], str]) -> None:
    for name in ("float32", "bfloat16", "float16"):
        model = load_causal(base("llama"), dtype=name).model
        assert {value.dtype for value in model.parameters()} == {getattr(torch, name)}
