"""A chat run whose adversary begins from found prompts: of a file, and of a search that a checkpoint carries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import chat_run
from tests.tiny import forget_accelerator
from textadv.models import trainable_state
from textadv.objectives.seeded import Seeded
from textadv.runs.harden import train_hardened
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.loading import encoded_parts
from textadv.tasks.chat.seeding import room_notes, seeding
from textadv.tasks.chat.template import template
from textadv.tasks.file import load_config
from textadv.training import checkpoint as checkpoints
from textadv.values.batch import Role
from textadv.values.errors import DataError

FEW = "data.adversarial.train_rows=8"
SEARCH = (
    FEW,
    "attack.seeds={name: gcg, steps: 1, length: 2, width: 2, top_k: 8, every: 2, pool: 2}",
    "mixing.discrete=0.7",
    "training.steps=4",
    "checkpoint={every: 2, keep_last: 3}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = chat_run.prepared(tmp_path_factory.mktemp("seeds")).parent
    prompts = [str(row["prompt"]) for row in chat_run.data()["adversarial_train"]]
    rows = [{"original_prompt": one, "suffix": end} for one in prompts for end in ("! ! now", "x x", "x " * 90)]
    chat_run.write_rows(place / "suffixes.jsonl", [*rows, {"original_prompt": None, "suffix": "!"}])
    yield place
    forget_accelerator()


def trained(folder: Path, name: str, *overrides: str) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    stage = train_hardened(chat_run.ready(folder, name, *overrides))
    return trainable_state(stage.loaded.model), chat_run.log_of(folder / name)


def test_suffixes_of_a_file_are_trained_on_and_what_is_wrong_with_them_is_told(folder: Path) -> None:
    task = chat_run.ready(folder, "file", FEW, f"attack.seeds={{name: file, file: {folder / 'suffixes.jsonl'}}}")
    told = "\n".join(task.warnings)
    assert "attack.seeds: 1 of 73 rows of" in told and "lack a prompt (the first is row 72, counted from 0)" in told
    assert "attack.seeds: 8 of 24 prompts have no room in data.max_length: 80 beside their answers" in told
    assert "attack.seeds" in task.hashes
    goal = task.objectives()[Role.ADVERSARIAL]
    assert isinstance(goal, Seeded) and set(goal.seeding.chats) == set(task.train.parts[0].ids)
    train_hardened(task)
    log = [line for line in chat_run.log_of(folder / "file") if "loss" in line]
    assert all(line["ratio"] == 0.5 and 0.5 < line["gauge"] < 1.001 for line in log), "the attack runs on top"
    found = checkpoints.latest(folder / "file" / "training" / "hardened" / "checkpoints")
    assert found is not None
    goal.pool.load(checkpoints.extra(found, "memory-0"))
    kept = [seed.text for seeds in goal.pool.seeds.values() for seed in seeds]
    assert kept and all(text.endswith(("! ! now", "x x")) for text in kept), "what is too long was left out"


def test_a_run_with_a_search_goes_on_bit_for_bit(folder: Path) -> None:
    state, log = trained(folder, "gcg", *SEARCH)
    saved = folder / "gcg" / "training" / "hardened" / "checkpoints"
    pools = [checkpoints.extra(checkpoints._read(step), "memory-0")["pool"] for step in checkpoints.steps_of(saved)]
    assert len(pools) == 2 and not torch.equal(*(pool[:100] for pool in pools)), "the pool grows between checkpoints"
    shutil.rmtree(saved / "step-00000004")
    again, logged = trained(folder, "gcg", *SEARCH, "checkpoint.resume=true")
    assert state.keys() == again.keys() and all(torch.equal(again[name], value) for name, value in state.items())
    assert logged == log
    last = checkpoints.latest(saved)
    assert last is not None and torch.equal(checkpoints.extra(last, "memory-0")["pool"], pools[1])


def test_behaviours_without_room_for_a_suffix_are_counted(folder: Path) -> None:
    found, long = noted(folder, 45)
    assert 0 < long < 24
    assert [line.partition(" beside")[0] for line in found] == [
        f"attack.seeds: {long} of 24 training behaviours have no room in data.max_length: 80"
    ]
    assert noted(folder, 2) == ([], 0)
    with pytest.raises(DataError, match=r"attack\.seeds: 24 of 24 .* None is left: raise data\.max_length"):
        noted(folder, 80)


def noted(folder: Path, length: int) -> tuple[list[str], int]:
    """What is told of suffixes of so many tokens, and how many rows are too long for one."""
    config = load_config(folder / "config.yaml", [f"attack.seeds={{name: gcg, length: {length}}}"])
    assert isinstance(config, ChatRunConfig)
    splits, loaded = config.data.make(config.seed)[Role.ADVERSARIAL], config.model.make(config.seed)
    rows, used = encoded_parts(config, loaded, splits)[0], template(config.model, loaded)
    begun = seeding(config, used, splits.train, rows, {}, None)
    long = sum(size + length > 80 for size in rows.lengths)
    return list(room_notes(config, begun, splits.train, rows, None)), long


def test_a_file_of_other_behaviours_is_told_before_the_model_is_loaded(folder: Path) -> None:
    chat_run.write_rows(folder / "other.jsonl", [{"original_prompt": "Boil an egg", "suffix": "!"}])
    with pytest.raises(DataError, match="attack.seeds: none of 1 rows is of a training prompt of data.adversarial"):
        chat_run.ready(folder, "other", f"attack.seeds={{name: file, file: {folder / 'other.jsonl'}}}")
