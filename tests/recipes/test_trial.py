"""Rows and models that do not fit end every recipe with one message; encoder-decoders fit, from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from recipes import adv_finetune, attack, evaluate
from tests import chat_run, folders
from tests.recipes.running import (
    SMALL,
    Recipe,
    check_consistent,
    file_overrides,
    results_of,
    review_rows,
    write_csv,
)

LABELS = ("negative", "positive")
UNKNOWN = "'<user>' (id {size}). They stand in {place}, and the model's table has {size} rows"


def extended(folder: Path) -> tuple[Path, int]:
    """The model of a folder whose tokenizer gets a word that the model has no embedding for, and how many it has."""
    tokens = AutoTokenizer.from_pretrained(folder)
    size = len(tokens)
    tokens.add_tokens([AddedToken("<user>", normalized=False)])
    tokens.save_pretrained(folder)
    return folder, size


def data(folder: Path, place: str, text: str) -> list[str]:
    """Overrides for local files, in which the last row of the split `place` begins with `text`."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for split in ("train", "validation", "test"):
        rows = review_rows(20, split)
        if split == place:
            rows[-1] = rows[-1] | {"text": f"{text} {rows[-1]['text']}"}
        paths[split] = write_csv(folder / f"{split}.csv", rows)
    return file_overrides(**paths)


@pytest.mark.parametrize("place", ["train", "validation", "test"])
def test_a_token_without_an_embedding_in_any_split(tmp_path: Path, recipe: Recipe, place: str) -> None:
    folder, size = extended(folders.bert_classifier(tmp_path / "model", LABELS))
    extra = data(tmp_path / "data", place, "<user>")
    told = UNKNOWN.format(place=f"{place} row 19", size=size)
    trained = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", f"model.name={folder}", *extra)
    measured = recipe(evaluate, SMALL, "--model", str(folder), "--output", str(tmp_path / "out"), *extra)
    both = ["--model", "builtin:tiny-encoder", "--model", str(folder), "--output", str(tmp_path / "both")]
    second = recipe(evaluate, SMALL, *both, *extra)
    shown = recipe(attack, SMALL, "--model", str(folder), *extra)
    for ended in (trained, measured, second, shown):
        assert ended.code == 1 and told in ended.error and "resize_token_embeddings" in ended.error, ended
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_token_without_an_embedding_in_a_chat(tmp_path: Path, recipe: Recipe, config: Path) -> None:
    folder, size = extended(chat_run.save_untaught(tmp_path / "model", "llama"))
    rows = chat_run.data()["utility_train"]
    rows = [row | {"response": f"<user> {row['response']}"} if n == 3 else row for n, row in enumerate(rows)]
    mine = chat_run.write_rows(tmp_path / "utility.jsonl", rows)
    extra = [*chat_run.BRIEF, f"model.name={folder}", f"data.utility.train={mine}", "data.utility.train_rows=null"]
    told = UNKNOWN.format(place="utility train row 3", size=size)
    ended = recipe(adv_finetune, str(config), f"output={tmp_path / 'run'}", *extra)
    assert ended.code == 1 and told in ended.error, ended.error
    benign = chat_run.write_rows(tmp_path / "benign.jsonl", [{"prompt": "Who is <user>?"}])
    extra = [*chat_run.BRIEF, f"model.name={folder}", f"evaluation.over_refusal={{mine: {benign}}}"]
    told = UNKNOWN.format(place="mine prompt row 0", size=size)
    ended = recipe(adv_finetune, str(config), f"output={tmp_path / 'run'}", *extra)
    assert ended.code == 1 and told in ended.error, ended.error


def test_texts_that_spell_special_tokens_are_counted(tmp_path: Path, recipe: Recipe, bert: Path) -> None:
    extra = [f"model.name={bert}", *data(tmp_path / "data", "train", "[SEP] [MASK]"), "training.steps=1"]
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", *extra)
    assert ended.code == 0, ended.error
    told = "data: the texts of 1 train rows spell special tokens of the tokenizer ([SEP], [MASK]). It reads them as"
    assert f"warning: {told}" in ended.printed
    assert any(line.startswith(told) for line in results_of(tmp_path / "run").warnings)
    shown = recipe(attack, SMALL, "--model", str(tmp_path / "run" / "merged"), *extra[1:])
    assert f"warning: {told}" in shown.printed


ENCODER_DECODERS = {"bart": folders.bart, "t5": folders.t5}


@pytest.mark.parametrize("space", ["{relative_radius: 0.2}", "{space: hidden, layer: 1, relative_radius: 0.2}"])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoder_decoders_are_trained_measured_and_exported(
    tmp_path: Path, recipe: Recipe, name: str, space: str
) -> None:
    folder, lora = ENCODER_DECODERS[name](tmp_path / "model"), "null" if "hidden" in space else "{r: 2, alpha: 4}"
    own = [f"threat={space}", "evaluation.rows=8", "evaluation.calibrate=false"]
    extra = [f"model.name={folder}", f"model.lora={lora}", *own]
    run = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", *extra)
    assert run.code == 0, run.error
    trained = results_of(tmp_path / "run")
    check_consistent(trained)
    again = recipe(evaluate, SMALL, "--model", str(tmp_path / "run/merged"), "--output", str(tmp_path / "out"), *own)
    assert again.code == 0, again.error
    measured = results_of(tmp_path / "out").evaluations[0]
    assert measured.clean == trained.evaluations[-1].clean
    shown = recipe(attack, SMALL, "--model", str(tmp_path / "run/adapter"), "--rows", "2", *own)
    assert shown.code == 0 and "(2 rows shown)" in shown.printed, shown.error


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_end_token_in_a_text_of_an_encoder_decoder(tmp_path: Path, recipe: Recipe, name: str) -> None:
    folder = ENCODER_DECODERS[name](tmp_path / "model")
    extra = [f"model.name={folder}", *data(tmp_path / "data", "train", "[SEP]")]
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", *extra)
    assert ended.code == 1
    assert ended.error.startswith(
        f"error: model.name {folder} is an encoder-decoder, whose classifier takes a batch only"
    )
    assert "1 here, but not in train row 19, whose texts spell it" in ended.error


SINGLE = {
    "the rest of a batch": (["training.batch_size=9", "training.micro_batch_size=8", "objective.name=clean"], "clean"),
    "one attacked row": (["training.batch_size=8", "mixing.ratio=0.125"], "adversarial"),
    "a batch of the baseline": (
        ["training.batch_size=9", "training.micro_batch_size=8", "mixing.ratio=0.5", "baselines=[same_steps]"],
        "clean",
    ),
}


@pytest.mark.parametrize(("sizes", "role"), SINGLE.values(), ids=SINGLE)
def test_a_batch_norm_that_would_get_one_row(tmp_path: Path, recipe: Recipe, sizes: list[str], role: str) -> None:
    images = ["tests/recipes/small_images.yaml", f"output={tmp_path / 'run'}", "model.name=builtin:small-resnet"]
    ended = recipe(adv_finetune, *images, "data.image_size=8", *sizes)
    assert ended.code == 1
    told = (
        f"error: model.name builtin:small-resnet cannot be trained on 1 {role} row at once: ValueError: Expected more"
    )
    assert ended.error.startswith(told) and "Two rows work: choose training.batch_size" in ended.error
    assert not (tmp_path / "run" / "config.yaml").exists() and "step" not in ended.printed
