"""Batches: every field keeps its rows together, and nothing is changed in place."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from torch import Tensor

from tests.oracles import token_rows
from textadv.values.batch import Batch, Role, concatenate
from textadv.values.spaces import Embeddings, Hidden

SPACE = Embeddings()


def batch() -> Batch:
    return token_rows([5, 9, 7], classes=3).perturbed(SPACE, torch.arange(3 * 9 * 2.0).reshape(3, 9, 2))


def tensors(rows: Batch) -> dict[str, torch.Tensor]:
    found = dict(rows.inputs) | {name: getattr(rows, name) for name in ("labels", "editable", "ids", "role")}
    return found if rows.perturbation is None else found | {"delta": rows.perturbation.delta}


def test_every_field_is_known_to_these_tests() -> None:
    """Chats, texts and windows have tests of their own: test_chat_batch, edits/test_batches, models/test_windows."""
    chats = {"targets", "answers", "openings", "prompt_lengths", "prefix"}
    known = {"inputs", "labels", "editable", "ids", "role", "perturbation"}
    assert {field.name for field in fields(Batch)} == known | chats | {"written", "windows"}


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True]), torch.tensor([1])])
def test_rows_picks_the_same_rows_of_every_field(index: Tensor) -> None:
    whole, part = batch(), batch().rows(index)
    for name, value in tensors(whole).items():
        assert torch.equal(tensors(part)[name], value[index]), name
    assert part.perturbation is not None
    assert part.perturbation.space == SPACE
    assert len(part) == len(part.labels) == len(whole.labels[index])


def test_concatenate_is_the_inverse_of_rows() -> None:
    whole = batch()
    again = concatenate([whole.rows(torch.tensor([0])), whole.rows(torch.tensor([1, 2]))])
    for name, value in tensors(whole).items():
        assert torch.equal(tensors(again)[name], value), name
    assert concatenate([whole.clean(), whole.clean()]).perturbation is None
    assert len(concatenate([whole, whole])) == 6


def test_concatenate_refuses_rows_with_and_without_a_perturbation() -> None:
    for parts in ([batch(), batch().clean()], [batch().clean(), batch()]):
        with pytest.raises(ValueError, match="one space or none does, got none, word embeddings"):
            concatenate(parts)
    other = batch().perturbed(Hidden(0), batch().perturbation.delta)
    with pytest.raises(ValueError, match="got hidden states after layer 0, word embeddings"):
        concatenate([batch(), other])


def test_perturbed_replaces_and_clean_removes_and_neither_touches_the_original() -> None:
    whole = batch()
    other = whole.perturbed(Hidden(1), torch.zeros(3, 9, 2))
    assert other.perturbation.space == Hidden(1)
    assert whole.perturbation.space == SPACE
    assert other.clean().perturbation is None
    assert other.inputs is whole.inputs


def test_with_role_marks_every_row() -> None:
    whole = batch()
    assert whole.with_role(Role.ADVERSARIAL).role.tolist() == [1, 1, 1]
    assert whole.role.tolist() == [0, 0, 0]


def test_to_moves_every_tensor() -> None:
    moved = batch().to("meta")
    assert {value.device.type for value in tensors(moved).values()} == {"meta"}
    assert moved.device.type == "meta"
    assert batch().clean().to("meta").perturbation is None


def test_a_batch_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        batch().labels = torch.zeros(3)


@pytest.mark.parametrize("name", ["labels", "editable", "ids", "role", "inputs", "perturbation"])
def test_fields_of_another_number_of_rows_are_refused(name: str) -> None:
    whole = batch()
    if name == "inputs":
        wrong = {"inputs": {key: value[:2] for key, value in whole.inputs.items()}}
    elif name == "perturbation":
        wrong = {"perturbation": replace(whole.perturbation, delta=whole.perturbation.delta[:2])}
    else:
        wrong = {name: getattr(whole, name)[:2]}
    with pytest.raises(ValueError, match=r"labels needs . rows in every field, got"):
        replace(whole, **wrong)


def test_a_mask_that_is_not_bool_is_refused() -> None:
    with pytest.raises(TypeError, match="editable must be a bool mask, .* got torch.int64"):
        replace(batch(), editable=batch().editable.long())
