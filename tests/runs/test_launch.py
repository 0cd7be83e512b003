"""What the launcher sets is used or refused, and what it left out is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import chat_run, launch_cases
from tests.processes import ONE_PROCESS, ROOT, WORKER, accelerate_launch, lines_of, name_of, pair
from tests.tiny import forget_accelerator
from textadv.config.run import RunSection
from textadv.config.types import ConfigError
from textadv.runs.launch import accumulation_of, launch_warnings, launched
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.text.config import RunConfig

RECIPES = ROOT / "tests" / "recipes"
OF_LAUNCHERS = ("ACCELERATE_", "FSDP_", "MASTER_", "WORLD_SIZE", "LOCAL_RANK", "RANK")
FILE = "or of the file that `accelerate config` wrote."


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Started by no launcher; a test may ask for an accelerator of its own."""
    for name in [name for name in os.environ if name.startswith(OF_LAUNCHERS)]:
        monkeypatch.delenv(name)
    forget_accelerator()
    yield
    forget_accelerator()


def small(*overrides: str) -> RunSection:
    return load_config(RECIPES / "small.yaml", overrides)


PRECISIONS: dict[str, tuple[list[str], str | None, str]] = {
    "neither says one": ([], None, "no"),
    "the launcher says none": ([], "no", "no"),
    "the launcher alone": ([], "bf16", "bf16"),
    "the configuration alone": (["training.precision=bf16"], None, "bf16"),
    "a launcher that was not told": (["training.precision=bf16"], "no", "bf16"),
    "both the same": (["training.precision=bf16"], "bf16", "bf16"),
    "an older configuration": (["training.precision=no"], "no", "no"),
}


@pytest.mark.parametrize(("overrides", "given", "used"), PRECISIONS.values(), ids=PRECISIONS)
def test_precision(overrides: list[str], given: str | None, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", given)
    config, accelerator = launched(small(*overrides))
    assert config.training.precision == accelerator.mixed_precision == used
    assert config == small(f"training.precision={used}")


REFUSED: dict[str, tuple[list[str], Mapping[str, str], str]] = {
    "another precision": (
        ["training.precision=no"],
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        "training.precision: no and accelerate launch --mixed_precision bf16 contradict one another.",
    ),
    "a precision of eight bits": (
        [],
        {"ACCELERATE_MIXED_PRECISION": "fp8"},
        f"accelerate launch --mixed_precision fp8 is not supported. Choose no, bf16 or fp16 {FILE}",
    ),
    "fp16 on a CPU": ([], {"ACCELERATE_MIXED_PRECISION": "fp16"}, "training.precision: fp16 needs a GPU"),
    "a precision that the objective cannot have": (
        ["objective={name: adversarial, weight_perturbation: 0.01}"],
        {"ACCELERATE_MIXED_PRECISION": "fp16"},
        "objective.weight_perturbation: 0.01 takes gradients that training.precision: fp16 cannot scale.",
    ),
    "a compiled model": (
        [],
        {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"},
        "accelerate launch --dynamo_backend inductor is not supported",
    ),
    "accumulation": (
        [],
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
        "accelerate's gradient_accumulation_steps must be 1, got 4: training.batch_size",
    ),
    "deepspeed": (
        [],
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        "accelerate launch --use_deepspeed is not supported (ACCELERATE_USE_DEEPSPEED is set). Take it out",
    ),
    "megatron": ([], {"ACCELERATE_USE_MEGATRON_LM": "true"}, "accelerate launch --use_megatron_lm is not supported"),
    "parallelism": (
        [],
        {"ACCELERATE_USE_PARALLELISM_CONFIG": "true"},
        "accelerate launch --use_parallelism_config is not supported",
    ),
    "sharding without accelerators": (
        [],
        {"ACCELERATE_USE_FSDP": "true"},
        "accelerate launch --use_fsdp shards a model over several accelerators, which are not here.",
    ),
    "an address that is missing": (
        [],
        {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "0"},
        "accelerate cannot start here: ",
    ),
}


@pytest.mark.parametrize(("overrides", "variables", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_by_name(
    overrides: list[str], variables: Mapping[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        launched(small(*overrides))
    (line,) = refused.value.lines
    assert line.startswith(told), line


def test_every_kind_of_run_writes_down_the_precision_that_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    chats = chat_run.write_config(chat_run.write_streams(tmp_path), chat_run.save_untaught(tmp_path / "model", "llama"))
    text = small(f"output={tmp_path / 'text'}")
    images = load_config(RECIPES / "small_images.yaml", [f"output={tmp_path / 'images'}"])
    chat = load_config(chats, [f"output={tmp_path / 'chat'}"])
    assert isinstance(text, RunConfig) and isinstance(images, ImageRunConfig) and isinstance(chat, ChatRunConfig)
    assert text.training.precision is images.training.precision is chat.training.precision is None
    for task in (prepare(text), prepare(images), prepare(chat)):
        saved = load_config(task.run.output / "config.yaml")
        assert saved == task.config and saved.training.precision == "bf16"


WARNED: dict[str, tuple[Mapping[str, str], bool]] = {
    "by nobody": ({}, False),
    "by accelerate, one": ({"ACCELERATE_MIXED_PRECISION": "no"}, False),
    "by accelerate, several": ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, True),
    "with an address for something else": ({"MASTER_ADDR": "127.0.0.1"}, False),
}


@pytest.mark.parametrize(("variables", "told"), WARNED.values(), ids=WARNED)
def test_a_process_that_should_not_be_alone_says_so(
    variables: Mapping[str, str], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines = list(launch_warnings(*launched(small())))
    assert len(lines) == told
    assert all(line.startswith("accelerate launch --num_processes: one process runs") for line in lines)


def test_a_precision_for_training_where_nothing_is_trained_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = small(f"output={tmp_path}")
    assert isinstance(config, RunConfig)
    told = (
        "accelerate launch --mixed_precision bf16 is for training, and here nothing is trained: models are measured in "
    )
    assert any(line.startswith(told) for line in prepare(config, training=False).warnings)


MET = (WORKER, name_of(launch_cases.met))
AT_HOME = """
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
mixed_precision: bf16
num_machines: 1
num_processes: 2
use_cpu: true
"""


def test_what_stands_in_the_file_at_home_is_used_or_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "default_config.yaml").write_text(AT_HOME)
    code, said = accelerate_launch(*MET)
    assert code == 0, said
    (line,) = (line for line in said if "--num_processes: one process runs" in line)
    assert line.startswith("1 processes, bf16: ")
    assert f"`torchrun --nproc_per_node 2 {WORKER} ...` starts two" in line


@pytest.mark.parametrize("flag", [["--gradient_accumulation_steps", "4"], ["--gradient-accumulation-steps=4"]])
def test_accumulation_that_accelerate_tells_nobody_is_refused(flag: list[str]) -> None:
    """Without DeepSpeed `accelerate launch` takes the flag and passes nothing on."""
    code, said = accelerate_launch(*ONE_PROCESS, *flag, *MET)
    assert code == 1
    assert any(line.startswith("error: accelerate's gradient_accumulation_steps must be 1, got 4") for line in said)
    assert accumulation_of({}, ["accelerate", "launch", "mine.py", "--gradient_accumulation_steps", "4"]) == "1"


def test_what_one_process_meets_alone_ends_both_with_its_message() -> None:
    code, said = lines_of(pair(*MET, "alone"))
    assert code == 1
    # The processes may write into one line.
    text = "\n".join(said)
    assert "error in process 1: data.train: files/mine.csv is missing." in text
    assert "error: process 1 cannot go on: data.train: files/mine.csv is missing." in text
    # Only the launcher itself has a traceback, and its report ends with the message.
    assert sum(line.startswith("Traceback") for line in said) == 1
    assert said[-2].strip().startswith("traceback : error") and said[-2].endswith("files/mine.csv is missing.")
