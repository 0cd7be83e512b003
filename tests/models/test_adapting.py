"""New adapters on layers that share a weight, and what of them is written."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from tests import folders
from tests.adapters import LABELS, shaken
from textadv.models import (
    LoadedModel,
    Lora,
    ModelError,
    UnmergeableError,
    load_causal,
    load_classifier,
    save_adapter,
    save_merged,
)
from textadv.models.adapting import new_adapter, shared_layers
from textadv.models.sources import quiet
from textadv.values.randomness import seeded_scope

IDS = torch.arange(5, 25).unsqueeze(0)
GPT2 = {"q_proj": "c_attn", "embed_tokens": "wte"}
TARGETS = {
    "output": ["q_proj", "lm_head"],
    "input": ["q_proj", "embed_tokens"],
    "both": ["q_proj", "lm_head", "embed_tokens"],
    "neither": ["q_proj"],
    "linear": "all-linear",
}


def speaking(kind: str, folder: Path) -> str:
    if kind == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2)
        with quiet(), seeded_scope(1):
            GPT2LMHeadModel(config).save_pretrained(folder)
        folders.tokenizer(pad_token=None, eos_token="[SEP]").save_pretrained(folder)
        return str(folder)
    return str(folders.llama(folder, speaks=True, tie_word_embeddings=kind == "tied llama"))


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(IDS).logits
    return found


def trained(name: str, targets: object) -> LoadedModel:
    loaded = load_causal(name, lora=Lora(r=4, targets=targets))  # type: ignore[arg-type]
    assert isinstance(loaded.model, PeftModel)
    shaken(loaded.model)
    return loaded


@pytest.mark.parametrize("kind", ["tied llama", "llama", "gpt2"])
@pytest.mark.parametrize("where", TARGETS)
def test_both_exports_are_what_was_trained_wherever_the_adapter_sits(where: str, kind: str, tmp_path: Path) -> None:
    name = speaking(kind, tmp_path / "base")
    targets = TARGETS[where]
    if kind == "gpt2" and isinstance(targets, list):
        targets = [GPT2.get(target, target) for target in targets]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = trained(name, targets)
        expected = logits(loaded.model)
        save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
        save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    assert torch.equal(logits(loaded.model), expected), "saving changed the model in training"
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = AutoModelForCausalLM.from_pretrained(name)
        plain = logits(base)
        adapter = PeftModel.from_pretrained(base, tmp_path / "adapter")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert float((plain - expected).abs().max()) > 0.1
    assert torch.equal(logits(adapter), expected)
    assert torch.allclose(logits(merged), expected, atol=2e-5, rtol=1e-5)
    untied = kind != "llama" and where in ("output", "input", "both")
    assert merged.config.tie_word_embeddings is (kind != "llama" and not untied)
    assert bool(shared_layers(loaded.model)) is untied  # type: ignore[arg-type]
    again = load_causal(str(tmp_path / "merged"))
    assert torch.equal(logits(again.model), logits(merged))


def test_a_model_that_always_shares_its_embeddings_takes_no_adapter_on_them() -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    model = T5ForSequenceClassification(T5Config(vocab_size=60, **sizes))
    with pytest.raises(ModelError, match=r"model.lora.targets: the weight of transformer.*embed_tokens is shared"):
        new_adapter(model, Lora(r=2, targets=["q", "embed_tokens"]))
    assert isinstance(new_adapter(T5ForSequenceClassification(model.config), Lora(r=2, targets=["q"])), PeftModel)


def test_the_revision_of_the_base_model_is_written_into_the_adapter(tmp_path: Path) -> None:
    name = str(folders.bert(tmp_path / "base"))
    loaded = load_classifier(name, LABELS, lora=Lora(r=2), revision="v2")
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    written = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == (name, "v2")
    chat = load_causal(speaking("llama", tmp_path / "chat"), lora=Lora(r=2), revision="v3")
    save_adapter(chat.model, chat.tokenizer, tmp_path / "chat_adapter")
    assert json.loads((tmp_path / "chat_adapter/adapter_config.json").read_text())["revision"] == "v3"


def test_a_tokenizer_is_saved_as_it_was_and_not_as_it_was_last_called(tmp_path: Path) -> None:
    from textadv.data import Examples, encode

    loaded = load_classifier(str(folders.bert(tmp_path / "base")), LABELS)
    loaded.tokenizer.backend_tokenizer.enable_truncation(50, direction="left")
    before = loaded.tokenizer.backend_tokenizer.truncation
    for length in (8, 12):
        encode(Examples(("a long text of many words and more", "b"), None, (0, 1), (0, 1)), loaded.tokenizer, length)
        assert loaded.tokenizer.backend_tokenizer.truncation == before
        assert loaded.tokenizer.backend_tokenizer.padding is None
    loaded.tokenizer.backend_tokenizer.no_truncation()
    encode(Examples(("a text", "b"), None, (0, 1), (0, 1)), loaded.tokenizer, 8)
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    assert json.loads((tmp_path / "merged/tokenizer.json").read_text())["truncation"] is None
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").config.id2label == dict(
        enumerate(LABELS)
    )


def test_what_cannot_be_folded_into_plain_weights_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_classifier(str(folders.bert(tmp_path / "base")), LABELS, lora=Lora(r=2))
    base = loaded.model.get_base_model()  # type: ignore[operator]
    base.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(UnmergeableError, match="its weights are quantised"):
        save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    del base.config.quantization_config

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Cannot merge these layers")

    monkeypatch.setattr("peft.tuners.lora.layer.Linear.merge", refuse)
    with pytest.raises(UnmergeableError, match="PEFT cannot fold .*: Cannot merge these layers"):
        save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
