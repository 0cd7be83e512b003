"""What a checkpoint lacks, has in another shape or has too much is told; files that are damaged are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import chats, folders
from tests.vision import CLASSES, SIDE, saved, tiny
from textadv.models import (
    ImageShape,
    LoadedModel,
    ModelError,
    load_causal,
    load_classifier,
    load_image_classifier,
    read_preprocessing,
)

LABELS = ("negative", "positive")
WEIGHTS = "model.safetensors"
Held = Mapping[str, Tensor]


def rewritten(folder: Path, change: Callable[[Held], Held]) -> Path:
    """The folder with other weights."""
    save_file(dict(change(load_file(folder / WEIGHTS))), folder / WEIGHTS, {"format": "pt"})
    return folder


def configured(folder: Path, file: str = "config.json", **changes: object) -> Path:
    """The folder with other values in a JSON file."""
    known = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(known | changes), encoding="utf-8")
    return folder


def without(part: str) -> Callable[[Held], Held]:
    return lambda held: {key: value for key, value in held.items() if part not in key}


def text(folder: Path) -> LoadedModel:
    return load_classifier(str(folder), LABELS)


def told(folder: Path, load: Callable[[Path], object] = text) -> str:
    """What is said of a folder that cannot be used: one line that ends as a sentence."""
    with pytest.raises(ModelError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and str(folder) in message and len(message) < 900
    return message


def test_a_block_that_the_checkpoint_lacks_is_refused_and_a_single_weight_told(tmp_path: Path) -> None:
    cut = rewritten(folders.bert_classifier(tmp_path / "cut", LABELS), without("layer.1."))
    assert "the checkpoint lacks block 1 (bert.encoder.layer.1.attention.self.query.weight and 15 more)" in told(cut)
    deeper = configured(folders.llama(tmp_path / "deeper"), num_hidden_layers=3)
    assert "the checkpoint lacks block 2 (model.layers.2.self_attn.q_proj.weight" in told(deeper)
    one = "bert.encoder.layer.0.output.dense.weight"
    loaded = text(rewritten(folders.bert_classifier(tmp_path / "one", LABELS), without(one)))
    assert loaded.initialised == (one,)
    (note,) = loaded.notes
    assert f"lacks 1 of 39 weights below the head, such as {one}: they start at random" in note


@pytest.mark.parametrize("make", [folders.bert, folders.bert_without_pooler, folders.distilbert, folders.deberta])
def test_whole_checkpoints_without_a_head_have_no_note(make: Callable[[Path], Path], tmp_path: Path) -> None:
    assert text(make(tmp_path)).notes == ()


def test_blocks_that_config_json_leaves_out_are_told(tmp_path: Path) -> None:
    loaded = text(configured(folders.bert_classifier(tmp_path / "bert", LABELS), num_hidden_layers=1))
    assert "holds 1 blocks more (from encoder.layer.1 on) than the 1 of its config.json" in loaded.notes[0]
    chat = load_causal(str(configured(chats.saved(tmp_path / "llama"), num_hidden_layers=2)))
    assert "holds 1 blocks more (from layers.2 on) than the 2 of its config.json" in chat.notes[0]


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    wide = configured(folders.bert_classifier(tmp_path / "wide", LABELS), vocab_size=500)
    assert "word_embeddings.weight in the shape (400, 16), and its config.json asks for (500, 16)." in told(wide)
    three = configured(
        folders.bert_classifier(tmp_path / "three", ("a", "b", "c")), id2label={"0": "negative", "1": "positive"}
    )
    assert "classifier.bias in the shape (3,), and its config.json asks for (2,) (2 weights do not fit)" in told(three)
    deep = configured(chats.saved(tmp_path / "llama"), intermediate_size=40)
    assert "(9 weights do not fit)" in told(deep, lambda folder: load_causal(str(folder)))


def damaged(folder: Path) -> Mapping[str, tuple[Path, str]]:
    """Folders by what is wrong with them, and a part of what is said of it."""

    def made(name: str) -> Path:
        return folders.bert_classifier(folder / name, LABELS)

    pointer, cut, bare, lost, broken = made("pointer"), made("cut"), made("bare"), made("lost"), made("broken")
    (pointer / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n", encoding="utf-8")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-9])
    (configured(bare, "tokenizer_config.json", tokenizer_class="BertTokenizer") / "tokenizer.json").unlink()
    without_any = made("without")
    for path in without_any.glob("tokenizer*"):
        path.unlink()
    (lost / "config.json").unlink()
    made("runs/checkpoint-5")
    (broken / "tokenizer.json").write_text("{}", encoding="utf-8")
    return {
        "a pointer of Git LFS": (pointer, "model.safetensors is a pointer of Git LFS"),
        "weights cut off": (cut, "damaged or was not written to its end: download or save it again"),
        "no tokenizer": (without_any, "is a folder without a tokenizer (tokenizer.json, vocab.txt or the like)"),
        "no vocabulary": (bare, "has a vocabulary of 5 special tokens and no word"),
        "no config.json": (lost, "is a folder without config.json, so it holds no model"),
        "checkpoints inside": (folder / "runs", f"Name one of them, such as {folder / 'runs/checkpoint-5'}."),
        "an empty tokenizer.json": (broken, "could not be loaded: KeyError: 'added_tokens'."),
        "an activation that is none": (configured(made("act"), hidden_act="swiglux"), "KeyError: 'swiglux'."),
        "a number as a word": (configured(made("word"), num_hidden_layers="2"), "'num_hidden_layers'"),
        "a list of names": (configured(made("list"), id2label=["a", "b"]), "could not be loaded: AttributeError"),
        "an unknown type": (configured(made("type"), model_type="foobar"), "model type `foobar`"),
        "classes from one": (
            configured(made("one"), id2label={"1": "negative", "2": "positive"}),
            "its config.json numbers the classes 1, 2 (id2label)",
        ),
        "code of its own": (
            configured(made("code"), model_type="x", auto_map={"AutoConfig": "configuration_x.X"}),
            "Set model.trust_remote_code: true where you have read that code and trust it.",
        ),
    }


def test_damaged_and_odd_files_end_in_one_sentence(tmp_path: Path) -> None:
    for name, (folder, part) in damaged(tmp_path).items():
        assert part in told(folder), name


def test_names_that_only_label2id_gives_are_read_in_its_order(tmp_path: Path) -> None:
    """As `from_pretrained(..., label2id=...)` leaves them, without id2label."""
    generic = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    other = folders.bert_classifier(tmp_path / "other", LABELS)
    configured(other, **generic, label2id={"positive": 0, "negative": 1})
    assert "orders its classes positive, negative and the data negative, positive" in told(other)
    same = folders.bert_classifier(tmp_path / "same", LABELS)
    assert text(configured(same, **generic, label2id={"negative": 0, "positive": 1})).initialised == ()


def test_what_a_configuration_asks_the_model_to_return_besides_logits_is_left_out(tmp_path: Path) -> None:
    """With `output_attentions: true` transformers loads a model that it refuses to save."""
    asked = {"output_attentions": True, "output_hidden_states": True}
    loaded = text(configured(folders.bert_classifier(tmp_path / "bert", LABELS), **asked))
    loaded.model.save_pretrained(tmp_path / "again")  # type: ignore[operator]
    chat = load_causal(str(configured(chats.saved(tmp_path / "llama"), **asked, return_dict=False)))
    chat.model.save_pretrained(tmp_path / "spoken")  # type: ignore[operator]


def test_a_model_that_counts_positions_by_a_padding_id_of_its_own_keeps_it(tmp_path: Path) -> None:
    roberta = configured(folders.roberta(tmp_path / "roberta"), pad_token_id=1)
    assert text(roberta).model.config.pad_token_id == 1  # type: ignore[union-attr]
    llama = configured(folders.llama(tmp_path / "llama"), pad_token_id=1)
    loaded = text(llama)
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id != 1  # type: ignore[union-attr]


def test_an_encoder_is_no_chat_model(tmp_path: Path) -> None:
    """transformers makes a language model of it whose tokens read the answer that they are to predict."""
    bert = folders.bert(tmp_path / "bert")
    assert "is an encoder of type bert" in told(bert, lambda folder: load_causal(str(folder)))
    decoder = configured(bert, is_decoder=True)
    assert "checkpoint lacks cls.predictions" in told(decoder, lambda folder: load_causal(str(folder)))


def test_statistics_of_batch_norms_that_the_checkpoint_lacks_are_told(tmp_path: Path) -> None:
    folder = rewritten(saved(tiny("resnet"), tmp_path / "resnet"), without("running_mean"))
    found = load_image_classifier(str(folder), CLASSES, ImageShape(3, SIDE, SIDE), read_preprocessing(str(folder)))
    assert any("running_mean: they start at random" in note for note in found.notes)
    counts = rewritten(saved(tiny("resnet"), tmp_path / "old"), without("num_batches_tracked"))
    found = load_image_classifier(str(counts), CLASSES, ImageShape(3, SIDE, SIDE), read_preprocessing(str(counts)))
    assert found.notes == ()
