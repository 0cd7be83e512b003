"""Adapters that PEFT alone saved: loaded to the numbers that PEFT gives, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from tests import folders
from tests.adapters import LABELS, QUERY, TEXT, TEXTS, VARIANTS, shaken, text_logits, trained
from tests.chats import chats, saved
from tests.models.test_causal_loading import TEMPLATE
from tests.vision import CLASSES, SIDE, tiny
from tests.vision import saved as saved_vision
from textadv.data import Examples, encode
from textadv.models import (
    ImageShape,
    LoadedModel,
    ModelError,
    evaluating,
    forward,
    load_causal,
    load_classifier,
    load_image_classifier,
    load_trained_classifier,
    read_preprocessing,
    save_adapter,
    save_merged,
)

FILE, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FAMILIES = {
    "bert": (folders.bert, ["query"]),
    "roberta": (folders.roberta, ["query"]),
    "distilbert": (folders.distilbert, ["q_lin"]),
    "deberta": (folders.deberta, ["query_proj"]),
    "gpt2": (folders.gpt2, ["c_attn"]),
    "llama": (folders.llama, ["q_proj", "embed_tokens"]),
}


def logits(loaded: LoadedModel) -> Tensor:
    rows = encode(Examples(TEXTS, None, (0, 1, 0, 1), (0, 1, 2, 3)), loaded.tokenizer, 32)
    with evaluating(loaded.model), torch.no_grad():
        return forward(loaded.model, rows.batch(range(4)))


def problem(name: Path | str, load: Callable[..., object] = load_classifier, **options: Any) -> str:
    arguments = {"labels": LABELS} if load is load_classifier else {}
    with pytest.raises(ModelError) as caught:
        load(str(name), **(arguments | options))
    return str(caught.value)


def changed(folder: Path, **values: object) -> Path:
    """The folder, other values in its adapter_config.json."""
    path = folder / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")
    return folder


def reweighted(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The folder, with other weights of the adapter."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    return folder


# ---- what PEFT can save


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_is_loaded_as_peft_loads_it_trained_on_and_merged(kind: str, tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    expected = text_logits(trained(base, tmp_path / "adapter", VARIANTS[kind]()), base)
    loaded = load_classifier(str(tmp_path / "adapter"), LABELS)
    assert torch.allclose(logits(loaded), expected, atol=1e-6)
    assert loaded.initialised == () and folders.parameters(loaded.model, trainable=True)
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again")
    again = load_classifier(str(tmp_path / "again"), LABELS, seed=5)
    assert torch.allclose(logits(again), expected, atol=1e-6)
    assert folders.parameters(again.model, True) == folders.parameters(loaded.model, True)
    save_merged(loaded.model, loaded.tokenizer, tmp_path / "merged")
    assert torch.allclose(logits(load_classifier(str(tmp_path / "merged"), LABELS)), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_with_its_base_models_tokenizer(family: str, tmp_path: Path) -> None:
    make, targets = FAMILIES[family]
    base = make(tmp_path / "base")
    whole = ["pooler"] if family == "deberta" else None
    config = LoraConfig(**TEXT, r=4, target_modules=targets, modules_to_save=whole, fan_in_fan_out=family == "gpt2")
    model = trained(base, tmp_path / "adapter", config)
    loaded = load_classifier(str(tmp_path / "adapter"), LABELS)
    rows = encode(Examples(TEXTS[:1], None, (0,), (0,)), loaded.tokenizer, 32).batch([0])
    model.config.pad_token_id = loaded.tokenizer.pad_token_id
    with torch.no_grad():
        expected = model(**rows.inputs).logits
        assert torch.allclose(forward(loaded.model.eval(), rows), expected, atol=1e-6)
    assert loaded.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()
    assert not list((tmp_path / "adapter").glob("tokenizer*"))


def test_a_chat_adapter_without_a_tokenizer_is_loaded(tmp_path: Path) -> None:
    base, batch = saved(tmp_path / "base", "llama", TEMPLATE), chats().answering("harmful")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], use_rslora=True)
    model = trained(base, tmp_path / "adapter", config, task="chat")
    loaded = load_causal(str(tmp_path / "adapter"))
    with evaluating(loaded.model), torch.no_grad():
        assert torch.equal(forward(loaded.model, batch), forward(model, batch))
    assert loaded.tokenizer.chat_template == TEMPLATE


@pytest.mark.parametrize("whole", [None, ["classifier"]])
def test_an_image_adapter_without_a_processor_is_loaded(whole: list[str] | None, tmp_path: Path) -> None:
    model = get_peft_model(tiny("vit"), LoraConfig(r=4, target_modules=["q_proj", "fc1"], modules_to_save=whole))
    model.peft_config["default"].base_model_name_or_path = str(saved_vision(tiny("vit"), tmp_path / "base"))
    shaken(model)
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    name, shape = str(tmp_path / "adapter"), ImageShape(3, SIDE, SIDE)
    processor = read_preprocessing(name)
    loaded = load_image_classifier(name, CLASSES, shape, processor)
    pixels = torch.rand(2, *shape)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in processor.mean_std)
    with torch.no_grad():
        expected = model.eval()((pixels - mean) / std).logits
        assert torch.allclose(loaded.model.eval()(pixels), expected, atol=1e-6)
    with pytest.raises(ModelError, match="classes"):
        load_image_classifier(name, CLASSES[:2], shape, processor)


def test_an_adapter_with_a_head_of_its_own_does_without_that_of_its_base_model(tmp_path: Path) -> None:
    base = folders.bert_classifier(tmp_path / "base", ("a", "b", "c"))
    model = trained(base, tmp_path / "adapter", LoraConfig(**TEXT, **QUERY))
    with pytest.raises(ModelError, match="was trained for 3 classes and the data has 2"):
        load_classifier(str(tmp_path / "adapter"), LABELS)
    assert torch.allclose(
        logits(load_classifier(str(tmp_path / "adapter"), ("a", "b", "c"))), text_logits(model, base), atol=1e-6
    )
    plain = folders.bert_classifier(tmp_path / "two", LABELS)
    model = trained(plain, tmp_path / "other", LoraConfig(**TEXT, **QUERY))
    # Another model takes its base's place, as one with a head for other classes does.
    shutil.rmtree(plain)
    folders.bert_classifier(plain, ("a", "b", "c"))
    other = load_classifier(str(tmp_path / "other"), LABELS)
    assert logits(other).shape == (4, 2) and other.initialised == ()


def test_a_trained_classifier_is_known_without_being_told_its_classes(tmp_path: Path) -> None:
    base = folders.bert_classifier(tmp_path / "base", ("bad", "good"))
    trained(base, tmp_path / "adapter", LoraConfig(**TEXT, **QUERY))
    assert load_trained_classifier(str(tmp_path / "adapter")).model.config.id2label == {0: "bad", 1: "good"}
    plain = folders.bert(tmp_path / "plain")
    trained(plain, tmp_path / "other", LoraConfig(**TEXT, **QUERY))
    assert load_trained_classifier(str(tmp_path / "other")).model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


# ---- where the base model is


def test_a_base_model_by_a_relative_path_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.bert(tmp_path / "models" / "base")
    (tmp_path / "elsewhere").mkdir()
    for written in ("./models/base", "models/base"):
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / "runs" / written.replace("/", "_") / "adapter"
        model = trained(Path(written), folder, LoraConfig(**TEXT, **QUERY))
        assert json.loads((folder / FILE).read_text())["base_model_name_or_path"] == written.removeprefix("./")
        changed(folder, base_model_name_or_path=written)
        expected = text_logits(model, tmp_path / "models/base")
        for place in ("", "elsewhere"):
            monkeypatch.chdir(tmp_path / place)
            loaded = load_classifier(str(folder), LABELS)
            assert torch.allclose(logits(loaded), expected, atol=1e-6)
        # What is saved from there names a folder that is found from there.
        save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again")
        assert Path(json.loads((tmp_path / "again" / FILE).read_text())["base_model_name_or_path"]).is_dir()


def test_two_folders_that_a_relative_path_could_mean_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "there"):
        folders.bert(tmp_path / place / "base")
    monkeypatch.chdir(tmp_path / "there")
    trained(Path("base"), Path("adapter"), LoraConfig(**TEXT, **QUERY))
    monkeypatch.chdir(tmp_path / "here")
    told = problem(tmp_path / "there/adapter")
    assert str(tmp_path / "here/base") in told and str(tmp_path / "there/base") in told and FILE in told


def in_the_hubs_cache(name: str, source: Path, cache: Path, revision: str = "main") -> None:
    """A repository as the Hub's cache keeps it."""
    commit, place = f"{len(revision):040x}", cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / revision).write_text(commit, encoding="utf-8")
    shutil.copytree(source, place / "snapshots" / commit)


def test_an_adapter_and_its_base_model_are_found_on_the_hub_in_their_revisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    base = folders.bert(tmp_path / "base")
    model = trained(base, tmp_path / "adapter", LoraConfig(**TEXT, **QUERY), tokenizer=True)
    changed(tmp_path / "adapter", base_model_name_or_path="acme/base", revision="old")
    in_the_hubs_cache("acme/base", base, cache, "old")
    in_the_hubs_cache("acme/adapter", tmp_path / "adapter", cache, "second")
    loaded = load_classifier("acme/adapter", LABELS, revision="second")
    assert torch.allclose(logits(loaded), text_logits(model, base), atol=1e-6)
    save_adapter(loaded.model, loaded.tokenizer, tmp_path / "again")
    written = json.loads((tmp_path / "again" / FILE).read_text())
    assert (written["base_model_name_or_path"], written["revision"]) == ("acme/base", "old")
    assert "'acme/adapter' could not be loaded" in problem("acme/adapter")


# ---- what is refused


def refused(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Folders by what is wrong with them, and a part of what is said of it."""
    base = folders.bert(tmp_path / "base")
    trained(base, tmp_path / "fine", LoraConfig(**TEXT, **QUERY))

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tmp_path / "fine", tmp_path / name))

    def made(name: str, config: Any) -> Path:
        trained(base, tmp_path / name, config)
        return tmp_path / name

    found: dict[str, tuple[Path, str]] = {
        "moved": (changed(copy("moved"), base_model_name_or_path=str(tmp_path / "gone")), f"no folder {tmp_path}/gone"),
        "moved, relative": (changed(copy("relative"), base_model_name_or_path="./gone"), "and in its parents"),
        "no base": (changed(copy("none"), base_model_name_or_path=None), "names no base model"),
        "an id": (changed(copy("id"), base_model_name_or_path="nobody/nothing"), "base model 'nobody/nothing'"),
        "an adapter": (changed(copy("stacked"), base_model_name_or_path=str(tmp_path / "fine")), "an adapter itself"),
        "another task": (changed(copy("task"), task_type="CAUSAL_LM"), "task_type: CAUSAL_LM, for chat models"),
        "no such task": (changed(copy("image"), task_type="IMAGES"), "Invalid task type: 'IMAGES'"),
        "no kind": (changed(copy("kind"), peft_type="MAGIC"), "peft_type"),
        "a newer setting": (
            changed(copy("newer"), use_magic=True, peft_version="99.1.dev0@abc"),
            "does not know, so that the adapter would do something else. It was written by PEFT 99.1.dev0@abc",
        ),
        "a word for a number": (changed(copy("word"), r="4"), "sets r: '4', which is no number"),
        "prompt": (made("prompt", PromptTuningConfig(**TEXT, num_virtual_tokens=2)), "peft_type: PROMPT_TUNING"),
        "prefix": (made("prefix", PrefixTuningConfig(**TEXT, num_virtual_tokens=2)), "peft_type: PREFIX_TUNING"),
        "no head": (made("headless", LoraConfig(**QUERY)), "classifier.bias is in neither"),
        "other layers": (changed(copy("layers"), target_modules=["nowhere"]), "does not fit its base model"),
    }
    lacking = reweighted(copy("lacking"), lambda held: {key: held[key] for key in sorted(held)[2:]})
    found["a missing weight"] = (lacking, "does not fit its base model")
    spare = reweighted(
        copy("spare"), lambda held: held | {"base_model.model.bert.nowhere.lora_A.weight": torch.ones(2)}
    )
    found["a weight too many"] = (
        spare,
        "no place for base_model.model.bert.nowhere.lora_A.weight of its adapter_model.safetensors",
    )
    other = reweighted(
        copy("wide"),
        lambda held: {key: value.repeat(1, 2) if "lora_A" in key else value for key, value in held.items()},
    )
    found["another shape"] = (other, "does not fit its base model")
    broken = copy("broken")
    (broken / FILE).write_text("{", encoding="utf-8")
    found["no json"] = (broken, "is no JSON: ")
    pickled = copy("pickled")
    torch.save(load_file(pickled / WEIGHTS), pickled / "adapter_model.bin")
    (pickled / WEIGHTS).unlink()
    found["a pickle"] = (pickled, "convert it: python -c")
    empty = copy("empty")
    (empty / WEIGHTS).unlink()
    found["no weights"] = (empty, f"no {WEIGHTS}")
    cut = copy("cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:50])
    found["cut weights"] = (cut, "cannot be read")
    pointer = copy("pointer")
    (pointer / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n", encoding="utf-8")
    found["a pointer"] = (pointer, "is a pointer of Git LFS")
    beside = copy("beside")
    (beside / "config.json").write_text("{", encoding="utf-8")
    found["a broken config.json"] = (beside, "the config.json beside it cannot be read")
    copy("several/one")
    copy("several/two")
    found["several"] = (tmp_path / "several", f"one, two. Name one of them, such as {tmp_path / 'several/one'}")
    return found


def test_what_cannot_be_used_is_told_by_the_name_of_the_adapter_and_its_file(tmp_path: Path) -> None:
    for name, (folder, part) in refused(tmp_path).items():
        told = problem(folder)
        assert part in told and "\n" not in told, f"{name}: {told}"
        assert str(folder) in told and told.endswith((".", '"')), f"{name}: {told}"
        assert "adapter" in told and "Traceback" not in told, f"{name}: {told}"


def test_keys_that_other_tools_write_are_left_out_as_peft_leaves_them_out_and_told(tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    model = trained(base, tmp_path / "fine", LoraConfig(**TEXT, **QUERY))
    changed(tmp_path / "fine", unsloth_fixed=True, group_size=16, nothing=None, enable_lora=False)
    loaded = load_classifier(str(tmp_path / "fine"), LABELS)
    assert torch.equal(logits(loaded), text_logits(model, base))
    (note,) = loaded.notes
    assert "PEFT knows nothing of group_size, unsloth_fixed in adapter_config.json" in note


def test_a_pickle_is_converted_by_the_command_that_is_told(tmp_path: Path) -> None:
    base = folders.bert(tmp_path / "base")
    trained(base, tmp_path / "adapter", LoraConfig(**TEXT, **QUERY))
    held = load_file(tmp_path / "adapter" / WEIGHTS)
    torch.save(held, tmp_path / "adapter/adapter_model.bin")
    (tmp_path / "adapter" / WEIGHTS).unlink()
    command = problem(tmp_path / "adapter").split('python -c "')[1].rstrip('"')
    exec(compile(command, "told", "exec"), {})
    again = load_file(tmp_path / "adapter" / WEIGHTS)
    assert all(torch.equal(value, again[key]) for key, value in held.items())
    load_classifier(str(tmp_path / "adapter"), LABELS)


def test_a_prefix_and_another_task_are_refused_for_chats_too(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    trained(base, tmp_path / "p", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), task="chat")
    assert "peft_type: PROMPT_TUNING" in problem(tmp_path / "p", load_causal)
    trained(
        folders.bert(tmp_path / "bert"),
        tmp_path / "c",
        IA3Config(**TEXT, target_modules=["query"], feedforward_modules=[]),
    )
    assert "task_type: SEQ_CLS, for classifying texts" in problem(tmp_path / "c", load_causal)
