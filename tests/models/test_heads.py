"""How a head is read: one class of several, whatever the checkpoint's configuration said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tests import folders
from tests.adapters import QUERY, TEXT, trained
from tests.vision import CLASSES, SIDE, tiny
from tests.vision import saved as saved_vision
from textadv.models import (
    ImageShape,
    LoadedModel,
    Lora,
    ModelError,
    load_classifier,
    load_image_classifier,
    read_preprocessing,
    save_adapter,
    save_merged,
)

LABELS = ("negative", "positive")
OTHERS = ("multi_label_classification", "regression")


def said(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text())["problem_type"])


def both(loaded: LoadedModel, folder: Path) -> tuple[Path, Path]:
    save_adapter(loaded.model, loaded.tokenizer, folder / "adapter")
    save_merged(loaded.model, loaded.tokenizer, folder / "merged")
    return folder / "adapter", folder / "merged"


@pytest.mark.parametrize("kind", OTHERS)
def test_a_trained_head_is_read_as_one_class_and_that_is_told(kind: str, tmp_path: Path) -> None:
    name = folders.bert_classifier(tmp_path / "model", LABELS, problem_type=kind)
    loaded = load_classifier(str(name), LABELS, lora=Lora(r=2))
    (note,) = loaded.notes
    assert f"problem_type: {kind}" in note and str(name) in note
    assert [said(folder) for folder in both(loaded, tmp_path)] == ["single_label_classification"] * 2
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    read = pipeline("text-classification", plain, tokenizer=AutoTokenizer.from_pretrained(tmp_path / "merged"))
    scores = [found["score"] for found in read("a warm and funny film", top_k=None)]
    assert sum(scores) == pytest.approx(1) and min(scores) >= 0


@pytest.mark.parametrize("kind", OTHERS)
def test_what_a_base_model_without_a_head_says_is_of_no_account(kind: str, tmp_path: Path) -> None:
    name = folders.bert(tmp_path / "model")
    settings = json.loads((name / "config.json").read_text())
    (name / "config.json").write_text(json.dumps(settings | {"problem_type": kind}))
    loaded = load_classifier(str(name), LABELS)
    assert loaded.notes == () and said(both(loaded, tmp_path)[1]) == "single_label_classification"


def test_an_adapters_own_head_is_trained_for_one_class_whatever_its_base_model_says(tmp_path: Path) -> None:
    base = folders.bert_classifier(tmp_path / "base", LABELS, problem_type="multi_label_classification")
    trained(base, tmp_path / "own", LoraConfig(**TEXT, **QUERY))
    trained(base, tmp_path / "borrowed", LoraConfig(**QUERY))
    own, borrowed = (load_classifier(str(tmp_path / name), LABELS) for name in ("own", "borrowed"))
    assert own.notes == () and len(borrowed.notes) == 1
    assert said(both(own, tmp_path / "out")[0]) == "single_label_classification"


def test_a_model_that_gives_one_score_chooses_no_class(tmp_path: Path) -> None:
    name = folders.bert_classifier(tmp_path / "model", ("score",), problem_type="regression")
    with pytest.raises(ModelError, match=r"is a regression model \(num_labels: 1 .* chooses no class"):
        load_classifier(str(name), LABELS)


def test_image_classifiers_are_read_the_same_way(tmp_path: Path) -> None:
    model = tiny("vit")
    model.config.problem_type = "multi_label_classification"
    name, shape = str(saved_vision(model, tmp_path / "model")), ImageShape(3, SIDE, SIDE)
    loaded = load_image_classifier(name, CLASSES, shape, read_preprocessing(name))
    assert len(loaded.notes) == 1 and "multi_label_classification" in loaded.notes[0]
    assert loaded.model.config.problem_type == "single_label_classification"  # type: ignore[attr-defined]
    other = load_image_classifier(name, ("a", "b"), shape, read_preprocessing(name))
    assert other.replaced == len(CLASSES) and other.notes == ()
