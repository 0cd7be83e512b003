"""Paraphrases in a chat run: chosen by the model's own likelihood, trained on in their behaviours' turns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import chat_run
from tests.tiny import forget_accelerator
from textadv.models import evaluating, forward
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.loading import encoded_parts
from textadv.tasks.chat.paraphrasing import Rephrased, with_paraphrases
from textadv.tasks.chat.template import template
from textadv.tasks.file import load_config
from textadv.values.batch import Role
from textadv.values.errors import DataError
from textadv.values.losses import cross_entropy

FILES = ("p.jsonl", "long_first.jsonl")
FEW = "data.adversarial.train_rows=8"
WAYS = ("Tell me: {}", "{} I ask for a friend.", "Please! {}", "{} " + "Really, " * 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("paraphrases")
    chat_run.write_config(chat_run.write_streams(place), chat_run.save_untaught(place / "model", "qwen"))
    rows, asked = [], []
    for part in ("adversarial_train", "adversarial_test"):
        prompts = [str(row["prompt"]) for row in chat_run.data()[part]][: 24 if part.endswith("train") else 1]
        rows += [{"original_prompt": one, "inpainted_prompt": way.format(one)} for one in prompts for way in WAYS]
        asked += [{"prompt": WAYS[0].format(one)} for one in prompts]
    chat_run.write_rows(place / "p.jsonl", rows)
    chat_run.write_rows(place / "long.jsonl", rows[3::4])
    chat_run.write_rows(place / "long_first.jsonl", rows[3::4] + rows)
    chat_run.write_rows(place / "asked.jsonl", asked[:24])
    yield place
    forget_accelerator()


def given(folder: Path, more: str = "", file: str = "p.jsonl") -> str:
    return f"data.adversarial.paraphrases={{file: {folder / file}{more}}}"


def chosen(folder: Path, override: str) -> tuple[Rephrased, ChatRunConfig]:
    """The training rows with the paraphrases that are kept."""
    config = load_config(folder / "config.yaml", [override, FEW])
    assert isinstance(config, ChatRunConfig)
    splits, loaded = config.data.make(config.seed)[Role.ADVERSARIAL], config.model.make(config.seed)
    rows, used = encoded_parts(config, loaded, splits)[0], template(config.model, loaded)
    found = config.data.paraphrased(splits)
    return with_paraphrases(config, loaded, used, splits.train, rows, found, torch.device("cpu")), config


def test_the_likeliest_of_the_target_are_kept_beside_their_row(folder: Path) -> None:
    """Chosen by hand: the loss of the target after each of three, the fourth being too long for data.max_length."""
    kept, config = chosen(folder, given(folder, ", per_behaviour: 2"))
    every, _ = chosen(folder, given(folder, ", per_behaviour: null"))
    rows, whole, model = kept.rows, every.rows, config.model.make(config.seed).model
    assert len(rows) == 8 + 2 * 8 and len(whole) == 8 + 3 * 8 and len(set(rows.ids)) == len(rows)
    assert list(kept.variants) == list(range(8)) and len(kept.texts) == 16
    for row, positions in every.variants.items():
        assert positions[0] == row == kept.variants[row][0]
        batch = whole.batch(positions[1:]).answering("harmful")
        with torch.no_grad(), evaluating(model):
            losses = cross_entropy(forward(model, batch), batch)
        best = sorted(losses.argsort()[:2].tolist())
        assert [rows.prompts[n] for n in kept.variants[row][1:]] == [whole.prompts[positions[1 + n]] for n in best]
        for name, answers in rows.answers.items():
            assert {answers[n] for n in kept.variants[row]} == {answers[row]}, name
    told = "\n".join(kept.notes)
    assert "8 paraphrases do not fit into data.max_length: 80" in told
    assert "kept are 16 of 24 that fit, those after which the model finds the target likeliest" in told
    assert "4 of 100 rows are of test behaviours: the file is keyed on what the evaluation reports on" in told
    assert kept.hashes.keys() == {"data.adversarial.paraphrases"} and kept.hashes != every.hashes


@pytest.mark.parametrize("keep", ["first", "seeded"])
def test_what_does_not_fit_takes_no_place_of_what_does(folder: Path, keep: str) -> None:
    """The first of each behaviour in the file is too long, and three others fit."""
    kept, _ = chosen(folder, given(folder, f", per_behaviour: 3, keep: {keep}", "long_first.jsonl"))
    assert [len(places) for places in kept.variants.values()] == [1 + 3] * 8 and len(kept.texts) == 24
    assert kept.texts == chosen(folder, given(folder, ", per_behaviour: null"))[0].texts
    two = [chosen(folder, given(folder, f", per_behaviour: 2, keep: {keep}", name))[0] for name in FILES]
    assert two[0].texts == two[1].texts and len(two[0].texts) == 16, "nor does it change which of those are kept"
    assert (two[0].texts == tuple(text for n in range(0, 24, 3) for text in kept.texts[n : n + 2])) == (keep == "first")
    assert "8 paraphrases do not fit into data.max_length: 80" in "\n".join(kept.notes)


def test_none_that_fits_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"8 paraphrases do not fit into data\.max_length: 80 .* None is left"):
        chosen(folder, given(folder, file="long.jsonl"))


def test_a_run_takes_them_in_their_rows_turns_and_tells_of_prompts_that_it_is_asked(folder: Path) -> None:
    """A paraphrase may read like a benign prompt of an evaluation: contamination is told as of any training row."""
    asked = f"evaluation.over_refusal={{mine: {folder / 'asked.jsonl'}}}"
    task = chat_run.ready(folder, "run", FEW, given(folder, ", per_behaviour: 2, keep: first"), asked)
    assert "8 adversarial, " in task.rows_text() and " and 16 paraphrases to train on" in task.rows_text()
    exact = len({chat.prompt for chat in task.streams[Role.ADVERSARIAL].train})
    wanted = rf"mine: contamination: \d+ of 24 evaluation prompts stand in training \({exact} exact"
    assert any(re.match(wanted, line) for line in task.warnings)
    steps = [task.sampler().step(n, 8).positions for n in range(2)]
    harmful = [position for step in steps for position in step[:4]]
    own = {place: row for row, places in task.variants.items() for place in places}
    assert sorted(own[place] for place in harmful) == list(range(8)) and max(harmful) >= 8, "each row once in a pass"
