"""Paraphrases in a chat run: chosen by the model's own likelihood, trained on in their behaviours' turns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import chat_run
from tests.tiny import forget_accelerator
from textadv.models import evaluating, forward, trainable_state
from textadv.runs.harden import train_hardened
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.task import ChatTask
from textadv.tasks.file import load_config
from textadv.values.batch import Role
from textadv.values.errors import DataError
from textadv.values.losses import cross_entropy

WAYS = ("Tell me: {}", "{} I ask for a friend.", "Please! {}", "{} " + "Really, " * 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = chat_run.prepared(tmp_path_factory.mktemp("paraphrases")).parent
    rows = []
    for part in ("adversarial_train", "adversarial_test"):
        prompts = [str(row["prompt"]) for row in chat_run.data()[part]][: 24 if part.endswith("train") else 1]
        rows += [{"original_prompt": one, "inpainted_prompt": way.format(one)} for one in prompts for way in WAYS]
    chat_run.write_rows(place / "p.jsonl", rows)
    yield place
    forget_accelerator()


def made(folder: Path, name: str, *overrides: str) -> ChatTask:
    forget_accelerator()
    brief = [f"output={folder / name}", *chat_run.BRIEF, "evaluation.questions={}", "evaluation.instructions={}"]
    config = load_config(folder / "config.yaml", [*brief, "training.steps=2", *overrides])
    assert isinstance(config, ChatRunConfig)
    task = prepare(config)
    assert isinstance(task, ChatTask)
    return task


def given(folder: Path, more: str = "") -> str:
    return f"data.adversarial.paraphrases={{file: {folder / 'p.jsonl'}, per_behaviour: 2{more}}}"


def test_the_likeliest_of_the_target_are_kept_beside_their_row(folder: Path) -> None:
    """Chosen by hand: the loss of the target after each of three, the fourth being too long for data.max_length."""
    task = made(folder, "likely", given(folder))
    rows, count = task.train.parts[0], len(task.streams[Role.ADVERSARIAL].train)
    assert count == 24 and len(rows) == count + 2 * 24 and len(set(rows.ids)) == len(rows)
    assert sorted(task.variants) == sorted(positions[0] for positions in task.variants.values())
    everything = made(
        folder, "all", f"data.adversarial.paraphrases={{file: {folder / 'p.jsonl'}, per_behaviour: null}}"
    )
    loaded, whole = everything.load(), everything.train.parts[0]
    for row, positions in everything.variants.items():
        assert len(positions) == 4
        batch = whole.batch(positions[1:]).answering("harmful")
        with torch.no_grad(), evaluating(loaded.model):
            losses = cross_entropy(forward(loaded.model, batch), batch)
        best = sorted(losses.argsort()[:2].tolist())
        assert [rows.prompts[n] for n in task.variants[row][1:]] == [whole.prompts[positions[1 + n]] for n in best]
        for name, answers in rows.answers.items():
            assert {answers[n] for n in task.variants[row]} == {answers[row]}, name
    told = "\n".join(task.warnings)
    assert "24 paraphrases do not fit into data.max_length: 80" in told
    assert "kept are 48 of 72 that fit, those after which the model finds the target likeliest" in told
    assert "4 of 100 rows are of test behaviours: the file is keyed on what the evaluation reports on" in told
    assert "24 adversarial, " in task.rows_text() and "and 48 paraphrases to train on" in task.rows_text()
    assert task.hashes["data.adversarial.paraphrases"] != everything.hashes["data.adversarial.paraphrases"]


def test_a_run_trains_on_them_and_on_no_more_rows_than_without(folder: Path) -> None:
    left = {}
    for name, overrides in {"with": (given(folder, ", keep: first"),), "without": ()}.items():
        task = made(folder, name, *overrides)
        steps = [task.sampler().step(n, 8).positions for n in range(12)]
        harmful = [position for step in steps for position in step[:4]]
        assert len(harmful) == 48 and (max(harmful) >= 24) == (name == "with")
        stage = train_hardened(task)
        left[name] = torch.cat([value.flatten() for value in trainable_state(stage.loaded.model).values()])
        assert [line["ratio"] for line in chat_run.log_of(folder / name) if "loss" in line] == [0.5, 0.5]
    assert not torch.equal(left["with"], left["without"])


def test_prompts_of_further_evaluation_files_are_looked_for_among_them(folder: Path) -> None:
    """A paraphrase may read like a benign prompt that the report asks: contamination is told as of any training row."""
    prompts = [str(row["prompt"]) for row in chat_run.data()["adversarial_train"]]
    chat_run.write_rows(folder / "asked.jsonl", [{"prompt": WAYS[0].format(prompt)} for prompt in prompts])
    asked = f"evaluation.over_refusal={{mine: {folder / 'asked.jsonl'}}}"
    task = made(folder, "asked", given(folder, ", keep: first"), asked)
    exact = len({chat.prompt for chat in task.streams[Role.ADVERSARIAL].train})
    wanted = rf"mine: contamination: \d+ of 24 evaluation prompts stand in training \({exact} exact"
    assert any(re.match(wanted, line) for line in task.warnings)


def test_none_that_fits_is_an_error_before_anything_else(folder: Path) -> None:
    prompt = str(chat_run.data()["adversarial_train"][0]["prompt"])
    row = {"original_prompt": prompt, "inpainted_prompt": prompt + " Really?" * 80}
    (folder / "long.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="1 paraphrases do not fit into data.max_length: 80 .* None is left"):
        made(folder, "long", f"data.adversarial.paraphrases={folder / 'long.jsonl'}")
