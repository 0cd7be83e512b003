"""Free training, split batch norms, averaging and the guard, in two processes and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.distributed import guard_cases

at_two = guard_cases.at_two


def end(folder: Path, name: str, rank: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


def test_both_processes_end_with_the_same_weights_optimizer_and_average(left: Path) -> None:
    first, second = end(left, "whole", 0), end(left, "whole", 1)
    assert {"norm1.adversarial.weight", "taken", "mean|head.weight", "module.head.weight|exp_avg"} <= first.keys()
    assert differing(first, second) == []


def test_both_processes_measure_with_the_statistics_of_the_first(left: Path) -> None:
    """Each has passed rows of its own in the last step."""
    first, second = (
        {key: value for key, value in end(left, "whole", rank).items() if key.startswith("raw|")} for rank in (0, 1)
    )
    assert {"raw|norm1.clean.running_mean", "raw|norm2.adversarial.running_var"} <= first.keys()
    assert differing(first, second) == []
    assert not torch.equal(first["raw|norm1.clean.running_mean"], torch.zeros(6))


def test_the_averaged_batch_norms_are_refreshed_alike(left: Path) -> None:
    found = end(left, "whole", 0)
    assert int(found["kept|norm1.clean.num_batches_tracked"]) == 3
    assert not torch.equal(found["kept|norm1.clean.running_mean"], found["kept|norm1.adversarial.running_mean"])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(rank: int, left: Path) -> None:
    assert differing(end(left, "whole", rank), end(left, "resumed", rank)) == []
    assert tiny.log_of(left / "whole") == tiny.log_of(left / "resumed")


def test_a_checkpoint_holds_the_delta_of_each_process(left: Path) -> None:
    folder = left / "whole" / "checkpoints" / "step-00000006"
    first, second = (load_file(folder / f"memory-{rank}.safetensors")["delta"] for rank in range(2))
    assert first.shape == second.shape == (2, 3, 8, 8) and not torch.equal(first, second)
    assert load_file(folder / "guard.safetensors")["step"] == 4
