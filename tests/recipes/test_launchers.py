"""How a mistake ends through each launcher: with the one message, and no traceback but the launcher's own."""

from __future__ import annotations

from tests.processes import accelerate_launch, lines_of, pair
from tests.recipes.running import SMALL

RECIPE = ["recipes/adv_finetune.py", SMALL, "attack.stepz=3"]
ACCELERATE = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
MESSAGE = "error: unknown key attack.stepz in the override attack.stepz=3: did you mean attack.steps?"
NOTE = "note: accelerate adds a traceback of its own below this error; accelerate launch --quiet leaves it out."


def test_a_quiet_launch_ends_with_the_message() -> None:
    code, said = accelerate_launch(*ACCELERATE, "--num_processes", "1", "--quiet", *RECIPE)
    assert code == 1
    assert said[-1].startswith(MESSAGE)
    assert not [line for line in said if line.startswith(("Traceback", "note: "))]


def test_another_launch_says_whose_the_traceback_is() -> None:
    code, said = accelerate_launch(*ACCELERATE, "--num_processes", "1", *RECIPE)
    assert code == 1
    place = said.index(NOTE)
    assert said[place + 1].startswith(MESSAGE)
    assert said[place + 2].startswith("Traceback") and "CalledProcessError" in said[-1]


def test_the_report_of_torchrun_ends_with_the_message() -> None:
    code, said = lines_of(pair(*RECIPE))
    assert code == 1
    assert sum(line.startswith("Traceback") for line in said) == 1
    assert set(said[-1]) == {"="}
    assert said[-2].startswith("  traceback : error") and MESSAGE.removeprefix("error: ") in said[-2]
