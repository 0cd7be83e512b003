"""Pickles, which run code when they are read, are refused by name with what to do; links in a folder lead nowhere."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import folders
from tests.vision import CLASSES, SIDE, tiny
from tests.vision import saved as saved_vision
from textadv.data import DataError, load_splits
from textadv.models import (
    ImageShape,
    ModelError,
    load_causal,
    load_classifier,
    load_image_classifier,
    read_preprocessing,
)
from textadv.models.networks import NETWORKS

LABELS = ("negative", "positive")
NAMES = ("pytorch_model.bin", "model.bin", "model.pt", "weights.pth", "weights.pkl", "model.pickle", "epoch3.ckpt")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return (Path.touch, (self.mark,))


def image(name: str) -> object:
    return load_image_classifier(name, CLASSES, ImageShape(3, SIDE, SIDE), read_preprocessing(name))


LOADERS: dict[str, tuple[Callable[[Path], Path], Callable[[str], object]]] = {
    "text": (lambda folder: folders.bert_classifier(folder, LABELS), lambda name: load_classifier(name, LABELS)),
    "chat": (lambda folder: folders.llama(folder, speaks=True), load_causal),
    "image": (lambda folder: saved_vision(tiny("vit"), folder), image),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_pickled_weights_of_any_name(kind: str, tmp_path: Path) -> None:
    make, load = LOADERS[kind]
    folder = make(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "training_args.bin")
    for name in NAMES:
        (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
        with pytest.raises(ModelError, match=f"holds its weights as {name}, a pickle, .*convert it: python -c"):
            load(str(folder))
        (folder / name).unlink()
    with pytest.raises(ModelError) as error:
        load(str(folder))
    assert "a pickle" not in str(error.value), "what a trainer leaves beside weights is none"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", [*NAMES, "model.safetensors", "model.txt"])
@pytest.mark.parametrize("load", [LOADERS["text"][1], LOADERS["chat"][1], image], ids=["text", "chat", "image"])
def test_a_file_as_model(name: str, load: Callable[[str], object], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    said = "is a pickle" if name in NAMES else "is a file. Name the folder"
    with pytest.raises(ModelError, match=said):
        load(str(tmp_path / name))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter.ckpt"])
def test_a_pickled_adapter(name: str, tmp_path: Path) -> None:
    base = folders.bert_classifier(tmp_path / "base", LABELS)
    settings = {"peft_type": "LORA", "task_type": "SEQ_CLS", "base_model_name_or_path": str(base)}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    (tmp_path / "adapter" / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(ModelError, match=f"as {name}, a pickle, .*adapter_model.safetensors"):
        load_classifier(str(tmp_path / "adapter"), LABELS)
    assert not (tmp_path / "mark").exists()


def test_a_pickle_of_a_built_in_network(tmp_path: Path) -> None:
    kind = next(iter(NETWORKS))
    known = {"architecture": kind, "labels": list(CLASSES), "channels": 3, "height": 32, "width": 32}
    (tmp_path / "config.json").write_text(json.dumps(known))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": 32}))
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(ModelError, match=r"model.pt, a pickle"):
        load_image_classifier(str(tmp_path), CLASSES, ImageShape(3, 32, 32), read_preprocessing(str(tmp_path)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", LOADERS)
def test_a_pickle_under_the_name_of_safetensors(kind: str, tmp_path: Path) -> None:
    make, load = LOADERS[kind]
    folder = make(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(ModelError, match="could not be loaded"):
        load(str(folder))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["rows.pkl", "rows.pickle", "rows.pt", "rows.joblib"])
def test_pickled_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with pytest.raises(DataError, match="opening a pickle runs what it holds"):
        load_splits("files", train=tmp_path / name, test=tmp_path / "test.csv")
    with pytest.raises(DataError):
        load_splits(str(tmp_path))
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("textadv.values.host.writing") is None, reason="files of a run follow links as yet"
)
@pytest.mark.parametrize("name", ["config.yaml", "hashes.json"])
def test_a_link_in_the_output_folder_is_replaced_and_not_followed(name: str, tmp_path: Path) -> None:
    from accelerate import Accelerator

    from tests.config_sample import small
    from textadv.runs.output import claim, free_output

    victim = tmp_path / "victim"
    output = tmp_path / "run"
    output.mkdir()
    config = small(f"output={output}")
    victim.write_text("mine")
    free_output(config)
    (output / name).symlink_to(victim)
    claim(config, Accelerator(), output, {"data.train": "0"})
    assert victim.read_text() == "mine" and not (output / name).is_symlink()
