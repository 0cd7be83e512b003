"""Loading classifiers from folders, and writing what training changed so that others can load it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from tests import folders
from tests.adapters import shaken_loaded
from textadv.data import EncodedRows, Examples, encode
from textadv.models import (
    LoadedModel,
    Lora,
    ModelError,
    evaluating,
    forward,
    load_classifier,
    save_adapter,
    save_merged,
    vectors,
)
from textadv.models.loading import TINY_ENCODER
from textadv.models.sources import quiet
from textadv.tasks.text.config import ModelConfig
from textadv.values.spaces import Embeddings

LABELS = ("negative", "positive")
TEXTS = ("the plot was not bad at all", "dull", "a warm and funny film", "never again, sorry")
BASES = {
    "bert": folders.bert,
    "bert without pooler": folders.bert_without_pooler,
    "distilbert": folders.distilbert,
    "roberta": folders.roberta,
    "gpt2": folders.gpt2,
}


def logits(loaded: LoadedModel) -> Tensor:
    rows = encode(Examples(TEXTS, None, (0, 1, 0, 1), (0, 1, 2, 3)), loaded.tokenizer, 32)
    with evaluating(loaded.model), torch.no_grad():
        return forward(loaded.model, rows.batch(range(4)))


@pytest.mark.parametrize("make", BASES.values(), ids=BASES)
def test_under_lora_only_adapters_and_what_is_new_are_trained(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    base = str(make(tmp_path / "base"))
    loaded = load_classifier(base, LABELS, lora=Lora(r=4))
    new = {name.rpartition(".")[0].rpartition(".")[2] for name in loaded.initialised}
    trained = folders.parameters(loaded.model, trainable=True)
    assert new, "the checkpoint has no head"
    for name in trained:
        assert "lora_" in name or (".modules_to_save." in name and set(name.split(".")) & new), name
    for module in new:
        assert any(module in name.split(".") for name in trained), f"{module} is new and is not trained"
    assert not any("embedding" in name for name in trained)
    whole = load_classifier(base, LABELS)
    assert folders.parameters(whole.model, trainable=False) == []
    assert whole.initialised == loaded.initialised


def test_every_linear_layer_of_gpt2_is_adapted_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_classifier(str(folders.gpt2(tmp_path)), LABELS, lora=Lora(r=2))
    names = folders.parameters(loaded.model, trainable=True)
    for layer in ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"):
        assert sum(f"{layer}.lora_A" in name for name in names) == folders.BLOCKS


def test_new_weights_are_a_function_of_the_seed_and_nothing_else(tmp_path: Path) -> None:
    base = str(folders.bert(tmp_path))

    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(torch.seed())
        return load_classifier(base, LABELS, seed=seed, lora=Lora()).model.state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    head = next(name for name in first if name.endswith("modules_to_save.default.weight"))
    assert not torch.equal(first[head], other[head])
    assert any("lora_A" in name and not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", ["folder", TINY_ENCODER])
def test_the_callers_random_numbers_are_left_alone(tmp_path: Path, name: str) -> None:
    base = str(folders.bert(tmp_path)) if name == "folder" else name
    before = torch.get_rng_state()
    load_classifier(base, LABELS, seed=5, lora=Lora())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_new_head_is_named_and_a_whole_checkpoint_has_none(tmp_path: Path) -> None:
    base = load_classifier(str(folders.bert(tmp_path / "base")), LABELS)
    assert base.initialised == ("classifier.bias", "classifier.weight")
    whole = load_classifier(str(folders.bert_classifier(tmp_path / "whole", LABELS)), LABELS, lora=Lora())
    assert whole.initialised == ()
    assert len(load_classifier(TINY_ENCODER, LABELS).initialised) > 30


@pytest.mark.parametrize("make", BASES.values(), ids=BASES)
def test_an_adapter_folder_gives_the_same_logits_whatever_the_seed(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    base = str(make(tmp_path / "base"))
    loaded = shaken_loaded(load_classifier(base, LABELS, lora=Lora(), seed=1))
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    again = load_classifier(str(tmp_path / "adapter"), LABELS, seed=2)
    assert torch.equal(logits(again), logits(loaded))
    assert again.initialised == ()
    assert folders.parameters(again.model, True) == folders.parameters(loaded.model, True)


def test_an_adapter_of_the_built_in_encoder_finds_its_base_whatever_the_seed(tmp_path: Path) -> None:
    loaded = shaken_loaded(load_classifier(TINY_ENCODER, LABELS, lora=Lora(), seed=1))
    save_adapter(loaded.model, loaded.tokenizer, tmp_path)
    assert torch.equal(logits(load_classifier(str(tmp_path), LABELS, seed=2)), logits(loaded))


@pytest.mark.parametrize("make", BASES.values(), ids=BASES)
def test_the_merged_model_loads_without_peft_and_agrees_with_the_adapter(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    loaded = shaken_loaded(load_classifier(str(make(tmp_path / "base")), LABELS, lora=Lora()))
    expected = logits(loaded)
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    assert torch.equal(logits(loaded), expected), "merging changed the model in training"
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert not isinstance(plain, PeftModel)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert float((logits(LoadedModel(plain, tokenizer, ())) - expected).abs().max()) < 1e-5
    assert plain.config.id2label == dict(enumerate(LABELS))


def test_a_whole_model_is_saved_whole_and_without_a_progress_bar(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = shaken_loaded(load_classifier(TINY_ENCODER, LABELS, seed=1))
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "model")
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    for folder in ("model", "merged"):
        again = load_classifier(str(tmp_path / folder), LABELS)
        assert torch.equal(logits(again), logits(loaded)) and again.initialised == ()
    assert capfd.readouterr() == ("", "")


def test_only_safetensors_and_text_are_written_with_the_tokenizer_beside(tmp_path: Path) -> None:
    loaded = load_classifier(str(folders.bert(tmp_path / "base")), LABELS, lora=Lora())
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    for folder, weights in (("adapter", "adapter_model.safetensors"), ("merged", "model.safetensors")):
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert {weights, "tokenizer.json", "tokenizer_config.json", "config.json"} <= names
        assert {Path(name).suffix for name in names} <= {".safetensors", ".json", ".md", ".txt"}


def test_a_decoder_without_a_pad_token_pads_with_its_end_token(tmp_path: Path) -> None:
    loaded = load_classifier(str(folders.gpt2(tmp_path)), LABELS)
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == "[SEP]"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id
    alone = [
        logits_of(loaded.model, encode(Examples((text,), None, (0,), (0,)), loaded.tokenizer, 32)) for text in TEXTS
    ]
    assert torch.allclose(torch.cat(alone), logits(loaded), atol=1e-5), "padding changes the prediction"


def logits_of(model: nn.Module, rows: EncodedRows) -> Tensor:
    with evaluating(model), torch.no_grad():
        return forward(model, rows.batch([0]))


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_the_weights_have_the_dtype_asked_for(tmp_path: Path, name: str) -> None:
    wanted = getattr(torch, name)
    for base in (str(folders.bert(tmp_path)), TINY_ENCODER):
        whole = load_classifier(base, LABELS, dtype=name)
        assert {value.dtype for value in whole.model.parameters()} == {wanted}
        adapted = load_classifier(base, LABELS, dtype=name, lora=Lora())
        assert {value.dtype for n, value in adapted.model.named_parameters() if not value.requires_grad} == {wanted}


def test_gradient_checkpointing_is_on_and_gives_the_same_gradient(tmp_path: Path) -> None:
    base = str(folders.bert(tmp_path))
    found = []
    for on in (False, True):
        loaded = load_classifier(base, LABELS, lora=Lora(), gradient_checkpointing=on)
        assert loaded.model.get_base_model().is_gradient_checkpointing is on  # type: ignore[operator,union-attr]
        for module in loaded.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        assert not any(chunk.requires_grad for chunk in vectors(loaded.model, Embeddings()))
        rows = encode(Examples(TEXTS, None, (0, 1, 0, 1), (0, 1, 2, 3)), loaded.tokenizer, 32)
        forward(loaded.model.train(), rows.batch(range(4))).square().sum().backward()
        found.append({n: v.grad for n, v in loaded.model.named_parameters() if v.requires_grad})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_code_from_a_repository_is_not_run_unless_asked_for() -> None:
    assert inspect.signature(load_classifier).parameters["trust_remote_code"].default is False
    assert ModelConfig(name="x").trust_remote_code is False


def problem(name: str, labels: tuple[str, ...] = LABELS, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(name, labels, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_classes_of_the_checkpoint_must_be_those_of_the_data_in_their_order(tmp_path: Path) -> None:
    name = str(folders.bert_classifier(tmp_path / "model", ("Positive", "Negative")))
    assert "Set data.labels: [positive, negative]" in problem(name)
    assert "trained for 2 classes and the data has 3: a, b, c" in problem(name, ("a", "b", "c"))
    assert load_classifier(name, ("Positive", "negative")).initialised == ()
    loaded = load_classifier(str(folders.bert(tmp_path / "base")), LABELS, lora=Lora())
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    assert "Set data.labels: [negative, positive]" in problem(str(tmp_path / "adapter"), ("positive", "negative"))
    assert "the data has 3" in problem(str(tmp_path / "adapter"), ("a", "b", "c"))


def test_what_cannot_be_loaded_is_told_in_the_users_words(tmp_path: Path) -> None:
    assert "there is no folder" in problem(str(tmp_path / "absent"))
    assert "there is no folder runs/a/adapter" in problem("runs/a/adapter")
    assert "'nobody/nothing' could not be loaded" in problem("nobody/nothing")
    (tmp_path / "empty").mkdir()
    assert "config.json" in problem(str(tmp_path / "empty"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "vit"}')
    assert "could not be loaded" in problem(str(tmp_path / "broken"))
    cut = folders.bert(tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    assert "could not be loaded" in problem(str(tmp_path / "cut"))


def test_tokenizers_that_cannot_pad_are_refused(tmp_path: Path) -> None:
    assert "neither a pad nor an end token" in problem(str(folders.gpt2(tmp_path / "gpt2", end=None)))
    late = folders.bert(tmp_path / "late", pad_token="<added>")
    assert "resize_token_embeddings" in problem(str(late))


def test_adapters_on_adapters_and_layers_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    loaded = load_classifier(str(folders.bert(tmp_path / "base")), LABELS, lora=Lora())
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "adapter")
    assert "Set model.lora: null" in problem(str(tmp_path / "adapter"), lora=Lora())
    assert "model.lora.targets ['nowhere']" in problem(str(tmp_path / "base"), lora=Lora(targets=["nowhere"]))


def test_transformers_gets_its_verbosity_back() -> None:
    level = logging.get_verbosity()
    with pytest.raises(KeyError), quiet():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
        raise KeyError
    assert logging.get_verbosity() == level and logging.is_progress_bar_enabled()
