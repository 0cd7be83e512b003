"""What reading the data left out stands among the warnings of a run, of every task."""

from __future__ import annotations

import json
from pathlib import Path

from tests import chat_run
from tests.data.files import many, write
from tests.data.test_image_folders import folders
from tests.tasks.test_images import configured
from textadv.data import ImageSplits
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.tasks.text.config import RunConfig

SMALL = str(Path(__file__).parents[1] / "recipes" / "small.yaml")


def test_texts_without_a_label(tmp_path: Path) -> None:
    rows = [*many(40), ("nobody knows", -1), (None, -1)]
    files = {split: str(write(tmp_path / f"{split}.jsonl", rows)) for split in ("train", "validation", "test")}
    data = {"name": "files", **files, "unlabelled": "drop", "max_length": 16}
    config = load_config(SMALL, [f"output={tmp_path / 'run'}", f"data={json.dumps(data)}"])
    assert isinstance(config, RunConfig)
    task = prepare(config)
    counts = ", ".join(f"2 of 42 {split} rows" for split in files)
    assert f"data.label: {counts} have no label and are left out (data.unlabelled: drop)." in task.warnings
    assert len(task.train) == len(task.test) == 40


def test_files_that_are_no_images(tmp_path: Path) -> None:
    folders(tmp_path / "images", images=6)
    (tmp_path / "images" / "train" / "cat" / "a.heic").write_bytes(b"no image")
    data = {"name": "files", "path": str(tmp_path / "images"), "image_size": 20}
    task = prepare(configured(tmp_path, data=data))
    (told,) = (line for line in task.warnings if ".heic" in line)
    assert isinstance(task.splits, ImageSplits) and task.splits.notes == (told,)


def test_chats_without_an_output_and_turns_without_an_answer(tmp_path: Path) -> None:
    path = chat_run.prepared(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "utility_train.jsonl").read_text().splitlines()]
    instructions = [{"instruction": row["prompt"], "output": row["response"]} for row in rows]
    chat_run.write_rows(tmp_path / "utility_train.jsonl", [*instructions, {"instruction": "What?", "output": ""}])
    turns = [{"role": role, "content": "What?"} for role in ("user", "assistant", "user")]
    chat_run.write_rows(tmp_path / "borderline_test.jsonl", [{"messages": turns}])
    config = load_config(path, chat_run.BRIEF)
    assert isinstance(config, ChatRunConfig)
    told = [line for line in prepare(config).warnings if line.startswith("data.")]
    assert [line.partition(" rows of ")[0] for line in told] == [
        f"data.utility: 1 of {len(rows) + 1}",
        "data.borderline: 1 of 1",
    ]
