"""A config.json may not ask for a model that is many times larger than the weights beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import folders
from textadv.models import ModelError, load_causal, load_classifier, sizes
from textadv.models.loading import load_trained_classifier

LABELS = ("negative", "positive")
COUNTS = ("num_hidden_layers", "num_attention_heads")
SIZES = ("hidden_size", "vocab_size", "intermediate_size")


def asking(folder: Path, **changes: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(folder)


@pytest.mark.parametrize("key", [*COUNTS, *SIZES])
@pytest.mark.parametrize("kind", ["text", "chat"])
def test_a_thousand_million_of_anything_is_one_message(kind: str, key: str, tmp_path: Path) -> None:
    told = f"sets {key}: 1000000000, and no model" if key in COUNTS else "many times larger than the weights beside it"
    if kind == "text":
        folder = folders.bert_classifier(tmp_path / "model", LABELS)
        with pytest.raises(ModelError, match=f"{told}.*Correct config.json"):
            load_classifier(asking(folder, **{key: 10**9}), LABELS)
    else:
        folder = folders.llama(tmp_path / "model", speaks=True)
        with pytest.raises(ModelError, match=f"{told}.*Correct config.json"):
            load_causal(asking(folder, **{key: 10**9}))


def test_layers_that_could_be_are_built_no_further_than_the_weights_go(tmp_path: Path) -> None:
    folder = asking(folders.bert_classifier(tmp_path / "model", LABELS), num_hidden_layers=5000)
    with pytest.raises(ModelError, match="many times larger .*more than 2,.* tensors"):
        load_classifier(folder, LABELS)
    # Nothing is counted afterwards.
    assert len(nn.ModuleList(nn.Linear(1, 1) for _ in range(2000))) == 2000


def test_a_classifier_that_is_loaded_by_its_name_alone(tmp_path: Path) -> None:
    folder = asking(folders.bert_classifier(tmp_path / "model", LABELS), num_hidden_layers=10**9)
    with pytest.raises(ModelError, match="num_hidden_layers: 1000000000"):
        load_trained_classifier(folder)


def test_a_configuration_of_the_hub_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": {"n_layer": 1e11}}))
    monkeypatch.setattr(sizes, "cached_file", lambda name, file, revision: str(path))
    with pytest.raises(ModelError, match="n_layer: 100000000000, and no model has so many"):
        sizes.require_counts("somebody/model")


def test_what_is_no_count_is_not_bounded_by_it(tmp_path: Path) -> None:
    written = {"hidden_size_per_layer": 10**6, "max_position_embeddings": 10**7, "vocab_size": 10**6, "num_layers": 99}
    (tmp_path / "config.json").write_text(json.dumps(written))
    sizes.require_counts(str(tmp_path))


def test_without_files_of_weights_only_what_no_model_has_is_refused(tmp_path: Path) -> None:
    with sizes.bounded(str(tmp_path)), torch.device("meta"):
        nn.Linear(10**5, 10**5)
        with pytest.raises(ModelError, match="many times larger"):
            nn.Linear(10**7, 10**7)
