"""A chat run that is killed in training, or while it answers, ends where an uninterrupted one does."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from recipes import adv_finetune
from tests import chat_run
from tests.invariants.mortal import Mortal
from tests.processes import worked
from tests.seen import read_chat_results
from tests.tiny import forget_accelerator
from textadv.measuring.safety import generate
from textadv.measuring.safety.kept_answers import Answer
from textadv.objectives import Objectives
from textadv.runs import harden as run
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.objective import ChatObjectiveConfig
from textadv.tasks.file import load_config
from textadv.values.batch import Role

pytestmark = pytest.mark.slow
# Checkpoints after steps 2 and 4, a measurement after 3: the fifth step undoes nothing but itself, the fourth a search.
STEPS = (
    "training.steps=5",
    "checkpoint.every=2",
    "selection.every=3",
    "objective.defence_steps=2",
    "evaluation.batch_size=4",
)
LAST_BREATH, KEPT = 4, 30


class Folders(NamedTuple):
    """The configuration and the outputs of three runs of it."""

    config: Path
    whole: Path
    killed: Path
    silenced: Path
    generated: int


def harden(config: Path, output: Path, *extra: str) -> None:
    """The recipe, in this process."""
    forget_accelerator()
    loaded = load_config(config, [f"output={output}", *STEPS, *extra])
    assert isinstance(loaded, ChatRunConfig)
    run.harden(loaded)


def recipe(*arguments: str) -> None:
    sys.argv = ["adv_finetune.py", *arguments]
    adv_finetune.main()


def die_in_step(number: str, *arguments: str) -> None:
    """The recipe with these arguments, killing itself between two backward passes of that optimizer step."""
    whole = ChatObjectiveConfig.make

    def mortal(*given: Any) -> Objectives:
        found = whole(*given)
        return {**found, Role.ADVERSARIAL: Mortal(found[Role.ADVERSARIAL], int(number))}

    ChatObjectiveConfig.make = mortal  # type: ignore[method-assign]
    recipe(*arguments)


def die_after_answers(number: str, *arguments: str) -> None:
    """The recipe, killing itself once so many answers are in files."""
    add, count = generate.Store.add, 0

    def mortal(store: generate.Store, found: Mapping[str, Answer]) -> None:
        nonlocal count
        add(store, found)
        count += len(found) if store.path is not None else 0
        if count >= int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    generate.Store.add = mortal  # type: ignore[assignment, method-assign]
    recipe(*arguments)


def killed(how: Callable[..., None], number: int, config: Path, output: Path) -> None:
    """The recipe in a process that ends itself."""
    result = worked(how, number, config, f"output={output}", *STEPS)
    assert result.returncode == -signal.SIGKILL, result.stdout[-4000:]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    """Runs that were killed in training and while answering, each gone on with, beside one that was not."""
    folder = tmp_path_factory.mktemp("resume")
    config = chat_run.prepared(folder)
    whole, in_training, answering = (folder / name for name in ("whole", "killed", "silenced"))
    harden(config, whole)

    killed(die_in_step, LAST_BREATH, config, in_training)
    checkpoints = in_training / "training" / "hardened" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]
    assert not (in_training / "adapter").exists() and not (in_training / "answers" / "hardened.jsonl").exists()
    harden(config, in_training, "checkpoint.resume=true")

    killed(die_after_answers, KEPT, config, answering)
    assert not (answering / "training").exists(), "it must have been killed while the untrained model was measured"
    with open(answering / "answers" / "before.jsonl", "a", encoding="utf-8") as file:
        file.write('{"key": "cut off in the mid')
    with pytest.MonkeyPatch.context() as patch:
        made = counted(patch)
        harden(config, answering)
    yield Folders(config, whole, in_training, answering, made["before"])
    forget_accelerator()


def counted(patch: pytest.MonkeyPatch) -> Counter[str]:
    """How many answers are made from now on, by the name of the file that keeps them."""
    made: Counter[str] = Counter()
    generated = generate._generated

    def counting(run: generate._Run, jobs: list[generate._Job]) -> list[generate.Answer]:
        made[run.store.path.stem if run.store.path else "none"] += len(jobs)
        return generated(run, jobs)

    patch.setattr(generate, "_generated", counting)
    return made


def test_an_adapter_of_a_resumed_run_is_bit_identical(ended: Folders) -> None:
    for name in ("adapter", *(f"adapters/{path.name}" for path in (ended.whole / "adapters").iterdir())):
        one, other = (load_file(f / name / "adapter_model.safetensors") for f in (ended.whole, ended.killed))
        assert one.keys() == other.keys() and any(value.any() for key, value in one.items() if "lora_B" in key)
        assert [key for key, value in one.items() if not torch.equal(value, other[key])] == []
    merged = [load_file(f / "merged" / "model.safetensors") for f in (ended.whole, ended.killed)]
    assert all(torch.equal(value, merged[1][key]) for key, value in merged[0].items())


def test_its_log_and_what_was_measured_are_the_same(ended: Folders) -> None:
    log = chat_run.log_of(ended.whole)
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5]
    whole = read_chat_results(ended.whole)
    for folder in (ended.killed, ended.silenced):
        assert chat_run.log_of(folder) == log
        results = read_chat_results(folder)
        assert [model.measures for model in results.evaluations] == [model.measures for model in whole.evaluations]
        assert results.hashes == whole.hashes
        one, other = results.training, whole.training
        assert one is not None and other is not None
        assert (one.forwards, one.backwards, one.selected_step) == (
            other.forwards,
            other.backwards,
            other.selected_step,
        )


def test_answers_that_were_kept_are_not_made_again(ended: Folders) -> None:
    lines = (ended.silenced / "answers" / "before.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    asked = [(line["key"], line["answer"]["attack"], line["answer"]["restart"]) for line in told]
    assert len(set(asked)) == len(asked)
    # Of what several attacks were answered one line is of the answer that was made.
    keys = [line["key"] for line in told if not line["answer"]["shared"]]
    assert len(set(keys)) == len(keys) > KEPT and {line["key"] for line in told} == set(keys)
    assert ended.generated == len(keys) - kept_before(keys, ended) < len(keys)
    same = (ended.whole / "answers" / "before.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == sorted(same)


def kept_before(keys: list[str], ended: Folders) -> int:
    """Answers that stood in the file when the run was killed: whole batches up to the limit."""
    size = load_config(ended.silenced / "config.yaml").evaluation.batch_size
    assert len(keys) - ended.generated in range(KEPT, KEPT + size)
    return len(keys) - ended.generated


def test_a_model_that_was_measured_is_not_asked_again(ended: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch)
    before = read_chat_results(ended.whole)
    harden(ended.config, ended.whole, "checkpoint.resume=true")
    assert made["before"] == made["hardened"] == 0
    after = read_chat_results(ended.whole)
    assert [model.measures for model in after.evaluations] == [model.measures for model in before.evaluations]
