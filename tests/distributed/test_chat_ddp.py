"""Two processes make the step of one on three streams of chats, and talk once per optimizer step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import streams, tiny
from tests.distributed import chat_cases
from tests.distributed.chat_cases import CASES, TWICE, steps, subject
from textadv.values.batch import Role

at_two = chat_cases.at_two


@pytest.mark.parametrize("name", CASES)
def test_two_processes_make_the_gradient_of_one(name: str, left: Path) -> None:
    found = load_file(left / f"{name}.safetensors")
    assert tiny.largest_difference(steps(subject(name), name, 8), found) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_ddp_synchronises_once_per_optimizer_step(name: str, left: Path) -> None:
    buckets = json.loads((left / "counts.json").read_text())[name]
    assert buckets == [0] * (2 if name in TWICE else 1), "a tiny model is one bucket, sent once"


def test_cases_take_more_than_one_backward_of_several_streams() -> None:
    """Otherwise one synchronisation would be no achievement."""
    goals = streams.objectives("cat, recovery and kl")
    groups = streams.sampler().step(streams.FIRST, 8, 2, 1).groups
    assert {group.role for group in groups} == {Role.ADVERSARIAL, Role.UTILITY, Role.BORDERLINE}
    assert sum(goals[group.role].terms for group in groups) == 4 + 2 + 1
