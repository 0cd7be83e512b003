"""`evaluation.edits` in the recipes: measured beside the panel, side by side, shown, and refused early."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import T5Config, T5Model

from recipes import adv_finetune, attack, evaluate
from tests import folders
from tests.attacks.edits.toys import tokenizer
from tests.config_sample import small
from tests.recipes.running import SMALL, Recipe, forked_in_two, refused
from textadv.attacks.edits import STOP_WORDS, MaskedModel, Victim, bae
from textadv.config.edit_sources import EditSources
from textadv.config.types import ConfigError
from textadv.data import Examples
from textadv.measuring.accuracy.record import CLEAN, WORST
from textadv.measuring.measured import Measured
from textadv.measuring.sections.edits import Edits
from textadv.measuring.sections.rows import Rows
from textadv.models import ModelError, load_classifier
from textadv.models.victim import Asked
from textadv.report import read_results
from textadv.tasks.text.editing import Editing

EDITS = (
    "evaluation.edits={letters: {name: deepwordbug, queries: 30}, "
    "padded: {name: padding, labels: [positive], rows: 8}, less: {name: input_reduction, queries: 20, rows: 4}}"
)
FEW = ["threat.relative_radius=0.02", "evaluation.rows=16", "evaluation.masking=null", EDITS]
NAMES = ("negative", "positive")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two whole classifiers whose random weights are large enough that edits break some rows and not all."""
    folder = tmp_path_factory.mktemp("models")
    return folders.bert_classifier(folder / "one", NAMES), folders.bert_classifier(
        folder / "two", NAMES, num_hidden_layers=1
    )


def measured(folder: Path) -> list[Measured]:
    return list(read_results(folder).evaluations)


def test_two_models_are_measured_under_edits_side_by_side(
    tmp_path: Path, recipe: Recipe, models: tuple[Path, Path]
) -> None:
    named = [f"one={models[0]}", f"two={models[1]}"]
    given = [SMALL, *(word for name in named for word in ("--model", name)), *FEW]
    ended = recipe(evaluate, *given, "--output", str(tmp_path / "run"))
    assert ended.code == 0, ended.error
    one, two = measured(tmp_path / "run")
    check(one, tmp_path / "run" / "adversarial" / "one", models[0])
    assert "accuracy under letters" in ended.printed and "edits of the text" in ended.printed
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "Right under edits, in %, of the rows that all models get right without one" in page
    assert "Accuracy under letters by queries, in %:" in page
    assert (tmp_path / "run" / "adversarial" / "two" / "letters.jsonl").exists()
    # Without the edits everything else is as it is with them: they are in no worst case and in no verdict.
    plain = recipe(evaluate, *given[:-1], "--output", str(tmp_path / "plain"))
    assert plain.code == 0, plain.error
    without = read_results(tmp_path / "plain")
    assert without.verdict == read_results(tmp_path / "run").verdict
    for first, second in zip((one, two), without.evaluations, strict=True):
        assert first[WORST] == second[WORST] and first[CLEAN] == second[CLEAN]
        assert [m.id for m in first.measures if m.group != "edits"] == [m.id for m in second.measures]
    # Two processes end as one, and the rows of a run that is there are read back.
    both = forked_in_two("recipes/evaluate.py", *given, "--output", str(tmp_path / "two"))
    assert both.code == 0, both.error
    for name in ("one", "two"):
        files = sorted((tmp_path / "run" / "adversarial" / name).glob("*.jsonl"))
        assert [file.name for file in files] == ["less.jsonl", "letters.jsonl", "padded.jsonl"]
        for file in files:
            assert texts(tmp_path / "two" / "adversarial" / name / file.name) == texts(file)


def texts(file: Path) -> list[tuple[object, ...]]:
    """What a kept row says but for the last bits of its logits."""
    keys = ("id", "label", "text", "edited", "status", "reason", "prediction", "queries", "cached", "changed")
    return [tuple(json.loads(line)[key] for key in keys) for line in file.read_text(encoding="utf-8").splitlines()]


def check(found: Measured, folder: Path, model: Path) -> None:
    """That measures, sections and kept rows say the same, and the model says of the kept texts what they say."""
    rows = found.section(Rows)
    section = found.section(Edits)
    assert rows is not None and section is not None
    clean = {row.id: row.clean_prediction == row.label for row in rows.rows}
    loaded = load_classifier(str(model), NAMES)
    own = Victim(loaded.model, loaded.tokenizer, 32)
    for run in section.runs:
        lines = [json.loads(line) for line in (folder / f"{run.name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["id"] for line in lines] == [row.id for row in run.rows]
        asked = own.logits([Asked(line["edited"]) for line in lines]).argmax(dim=1).tolist()
        assert asked == [line["prediction"] for line in lines] == [row.after for row in run.rows]
        assert all(row.right == clean[row.id] for row in run.rows)
    letters, padded, less = section.runs
    assert (len(letters.rows), len(padded.rows), len(less.rows)) == (16, 8, 4)
    assert {row.id for row in less.rows} < {row.id for row in padded.rows} < {row.id for row in letters.rows}
    assert all(row.after == row.before for row in padded.rows if row.label == 0)
    assert found["edits/robust/letters"].rate.count == sum(row.robust for row in letters.rows) < sum(clean.values())
    assert found["edits/worst"].total == found["edits/clean"].total == 4
    assert found["edits/worst"].rate.count <= found["edits/clean"].rate.count
    assert found.measure("edits/robust/less") is None


def test_attack_shows_texts_before_and_after(recipe: Recipe, models: tuple[Path, Path]) -> None:
    given = [SMALL, "--model", str(models[0]), "--rows", "6"]
    ended = recipe(attack, *given, "--attack", "deepwordbug")
    assert ended.code == 0, ended.error
    shown = ended.printed
    assert "deepwordbug (" in shown and "(6 rows shown)" in shown
    assert len(re.findall(r"^row \d+, (?:negative|positive): ", shown, re.M)) == 6
    assert shown.count("  before (") == 6 and 0 < shown.count("  after  (") <= 6
    configured = recipe(attack, *given, "--attack", "letters", "evaluation.edits={letters: {name: pruthi}}")
    assert configured.code == 0 and "pruthi (" in configured.printed


def test_an_attack_that_needs_a_file_is_not_shown_without_one(recipe: Recipe, models: tuple[Path, Path]) -> None:
    ended = recipe(attack, SMALL, "--model", str(models[0]), "--attack", "textfooler")
    assert ended.code == 1 and "--attack textfooler is not among evaluation.attacks: pgd" in ended.error


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ("{a: {name: textfooler, table: nowhere.json}}", "evaluation.edits.a.table: The synonym table nowhere.json"),
        ("{a: {name: pwws, wordnet: nowhere}}", "evaluation.edits.a.wordnet: nowhere holds none of WordNet's files"),
        ("{a: {name: textbugger, encoder: ./nowhere}}", "evaluation.edits.a.encoder: there is no folder ./nowhere"),
        ("{a: {name: bae, masked_lm: tests}}", "evaluation.edits.a.masked_lm: 'tests' is a folder without config.json"),
        ("{a: {name: deepwordbug, labels: [neutral]}}", "evaluation.edits.a.labels must be classes of the data"),
        ("{a: {name: hotflip}}", "evaluation.edits.a: No token of this tokenizer is a whole word"),
    ],
)
def test_what_cannot_run_is_told_before_anything_does(tmp_path: Path, recipe: Recipe, edits: str, told: str) -> None:
    assert told in refused(recipe, tmp_path / "run", SMALL, f"evaluation.edits={edits}")


def test_an_encoder_that_cannot_work_is_told_before_the_training(tmp_path: Path, recipe: Recipe) -> None:
    """Half of an encoder-decoder loads, and takes no text without an answer."""
    folder = tmp_path / "t5"
    own = tokenizer(["good", "film"], letters=True)
    own.save_pretrained(folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5Model(T5Config(vocab_size=len(own), decoder_start_token_id=0, **sizes)).save_pretrained(folder)
    edits = f"evaluation.edits={{a: {{name: textbugger, encoder: {folder}}}}}"
    told = refused(recipe, tmp_path / "run", SMALL, edits)
    assert f"evaluation.edits.a.encoder: '{folder}' gives no vector of a text" in told


class Mute(nn.Module):
    """Takes no text at all."""

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> object:
        raise ModelError("it takes no text.")


@pytest.mark.parametrize("words", [3, 12, 80])
def test_the_trial_before_a_run_reaches_the_first_edits(words: int, models: tuple[Path, Path]) -> None:
    own = tokenizer(["good", "film"], letters=True)
    own.add_special_tokens({"mask_token": "[MASK]"})
    loaded = load_classifier(str(models[0]), list(NAMES))
    attack = bae(MaskedModel("mute", "0", Mute(), own), queries=500)
    known = [word for word in folders.tokenizer().get_vocab() if word.isalpha() and word not in STOP_WORDS]
    test = Examples((" ".join(known[-words:]),), None, (0,), (0,))
    config = small(f"model.name={models[0]}", "data.max_length=64")
    with pytest.raises(ConfigError, match="evaluation.edits.a: it takes no text"):
        Editing({"a": attack}, EditSources(test, NAMES), test, NAMES).rehearse(config, loaded)


def test_bad_rows_of_a_table_are_warned_of_by_line(tmp_path: Path, recipe: Recipe, models: tuple[Path, Path]) -> None:
    table = tmp_path / "words.json"
    table.write_text('{"good": ["fine"],\n "bad": 3,\n "film": ["movie"]}', encoding="utf-8")
    edits = f"evaluation.edits={{words: {{name: textfooler, table: {table}, rows: 2}}}}"
    output = ["--output", str(tmp_path / "run")]
    ended = recipe(evaluate, SMALL, "--model", str(models[0]), *output, *FEW[:-1], edits)
    assert ended.code == 0, ended.error
    assert "words.json: 1 rows were left out: line 2: 'bad' has 3, not a list of words" in ended.printed


def test_images_have_no_texts_to_edit(tmp_path: Path, recipe: Recipe) -> None:
    edits = "evaluation.edits={a: {name: deepwordbug}}"
    ended = recipe(adv_finetune, "tests/recipes/small_images.yaml", f"output={tmp_path / 'run'}", edits)
    assert ended.code == 1 and "unknown key evaluation.edits" in ended.error


@pytest.mark.parametrize("text", ["这部电影非常好", "film"], ids=range(2))
def test_texts_of_few_words_or_without_spaces_are_tried_as_well(tmp_path: Path, recipe: Recipe, text: str) -> None:
    rows = [f"{text} {'!' * n},{NAMES[n % 2]}" for n in range(1, 41)]
    for name, part in (("train", rows[:20]), ("test", rows[20:])):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "\n".join(part) + "\n", encoding="utf-8")
    data = [f"data={{name: files, train: {tmp_path}/train.csv, test: {tmp_path}/test.csv, max_length: 32}}"]
    told = refused(recipe, tmp_path / "run", SMALL, *data, "evaluation.edits={a: {name: hotflip}}")
    assert "evaluation.edits.a: No token of this tokenizer is a whole word" in told
