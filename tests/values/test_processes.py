"""Sharing work over processes: every item is somebody's, in batches of like length; a problem of one is everyone's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from textadv.values import processes
from textadv.values.host.writing import WriteError
from textadv.values.processes import everywhere, from_shares, of_the_first, own_batches, own_share, raise_everywhere


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int, others: list[Any]) -> None:
    """This process as one of several; `others`: what the processes before it send wherever something is gathered."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    monkeypatch.setattr(processes, "gather_object", lambda mine: [*others, *mine])


def test_alone_a_process_has_everything() -> None:
    model = nn.Linear(1, 1)
    assert own_share([1, 2, 3], model) == from_shares([1, 2, 3], model) == everywhere([1, 2, 3]) == [1, 2, 3]
    assert own_batches("a bbb cc".split(), 2, len, model) == [["a", "cc"], ["bbb"]]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        own_batches([1], 0, int, model)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shares_are_disjoint_and_whole(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    model, shares = nn.Linear(1, 1), []
    for rank in range(world):
        as_rank(monkeypatch, rank, world, [])
        shares.append(own_batches(range(11), 2, int, model))
    assert sorted(item for share in shares for part in share for item in part) == list(range(11))
    assert [len(share) for share in shares] == [len(range(rank, 6, world)) for rank in range(world)]


def test_processes_in_step_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 1, 2, ["theirs"])
    monkeypatch.setattr(processes, "in_step", lambda model: True)
    assert own_share([1, 2, 3], nn.Linear(1, 1)) == [1, 2, 3] and from_shares(["mine"], nn.Linear(1, 1)) == ["mine"]


def test_what_one_process_meets_all_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_everywhere(None, WriteError)
    as_rank(monkeypatch, 1, 2, ["the disk is full"])
    assert of_the_first("mine") == "the disk is full" and everywhere(["mine"]) == ["the disk is full", "mine"]
    with pytest.raises(WriteError, match="the disk is full"):
        raise_everywhere(None, WriteError)
    with pytest.raises(ValueError, match="my own"):
        raise_everywhere(ValueError("my own"), WriteError)
