"""How a mistake ends through each launcher: with the one message, and no traceback but the launcher's own."""

from __future__ import annotations

import sys

from tests.processes import finished, free_port
from tests.recipes.running import SMALL

RECIPE = ["recipes/adv_finetune.py", SMALL, "attack.stepz=3"]
ACCELERATE = ["accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
MESSAGE = "error: unknown key attack.stepz in the override attack.stepz=3: did you mean attack.steps?"
NOTE = "note: accelerate adds a traceback of its own below this error; accelerate launch --quiet leaves it out."


def lines_of(*words: str) -> tuple[int, list[str]]:
    ended = finished([sys.executable, "-m", *words])
    return ended.returncode, [line for line in ended.stdout.splitlines() if line.strip()]


def test_a_quiet_launch_ends_with_the_message() -> None:
    code, said = lines_of(*ACCELERATE, "--num_processes", "1", "--quiet", *RECIPE)
    assert code == 1
    assert said[-1].startswith(MESSAGE)
    assert not [line for line in said if line.startswith(("Traceback", "note: "))]


def test_another_launch_says_whose_the_traceback_is() -> None:
    code, said = lines_of(*ACCELERATE, "--num_processes", "1", *RECIPE)
    assert code == 1
    place = said.index(NOTE)
    assert said[place + 1].startswith(MESSAGE)
    assert said[place + 2].startswith("Traceback") and "CalledProcessError" in said[-1]


def test_the_report_of_torchrun_ends_with_the_message() -> None:
    port = f"--master-port={free_port()}"
    code, said = lines_of("torch.distributed.run", "--nproc-per-node=2", port, *RECIPE)
    assert code == 1
    assert sum(line.startswith("Traceback") for line in said) == 1
    assert set(said[-1]) == {"="}
    assert said[-2].startswith("  traceback : error") and MESSAGE.removeprefix("error: ") in said[-2]
