"""Two processes make the step of one, with the attack on, and talk once per optimizer step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import tiny
from tests.distributed import gradient_cases
from tests.distributed.gradient_cases import CASES, DTYPE, Case

at_two = gradient_cases.at_two


def alone(case: Case) -> dict[str, Tensor]:
    """The gradient of one process, all rows in one batch."""
    model = tiny.bert(dtype=DTYPE)
    objective = None if case.objective is None else tiny.objectives()[case.objective]
    tiny.one_step(model, tiny.rows(), objective, 8, mixing=case.mixing)
    return tiny.gradients(model)


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_gradient_of_one(name: str, mode: str, left: Path) -> None:
    found = load_file(left / mode / f"{name}.safetensors")
    assert tiny.largest_difference(alone(CASES[name]), found) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_ddp_synchronises_once_per_optimizer_step(name: str, left: Path) -> None:
    buckets = json.loads((left / "ddp" / "counts.json").read_text())[name]
    assert buckets == [0], "a tiny model is one bucket, sent once"


def test_cases_take_more_than_one_backward() -> None:
    """Otherwise one synchronisation would be no achievement."""
    assert CASES["freelb in micro-batches"].micro_batch_size == 1
    assert tiny.objectives()["freelb"].terms == 3


def test_a_run_on_two_processes_resumes_bit_for_bit(left: Path) -> None:
    folder = left / "ddp"
    whole, resumed = load_file(folder / "whole.safetensors"), load_file(folder / "resumed.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert tiny.log_of(folder / "whole") == tiny.log_of(folder / "resumed")


def test_a_checkpoint_holds_the_generators_of_each_process(left: Path) -> None:
    checkpoint = left / "ddp" / "whole" / "checkpoints" / "step-00000003"
    first, second = (load_file(checkpoint / f"rng-{rank}.safetensors")["cpu"] for rank in range(2))
    assert not torch.equal(first, second), "both processes would draw the same dropout masks"


def test_only_the_main_process_writes_a_log(left: Path) -> None:
    folder = left / "ddp"
    assert (folder / "tracker-0" / "log.jsonl").is_file()
    assert not (folder / "tracker-1").exists()
    steps = [json.loads(line)["step"] for line in tiny.log_of(folder / "whole").splitlines()]
    assert steps == [1, 2, 2, 3, 4, 4, 5, 6, 6]
