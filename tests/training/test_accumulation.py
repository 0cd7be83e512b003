"""One optimizer step's gradient: summed, divided once, and refused where a number is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from pytest import approx
from torch import nn

from tests import tiny
from textadv.attacks import pgd
from textadv.models import forward
from textadv.objectives import Adversarial, FreeLB, Moment, Regularised, Term, trades
from textadv.training.mixing import Constant, Mixing
from textadv.values.batch import Batch
from textadv.values.errors import NonFiniteError
from textadv.values.losses import cross_entropy


@dataclass(frozen=True)
class Announcing:
    """Yields the clean loss `yielded` times, having announced `terms`."""

    terms: int
    yielded: int
    keeps_clean: bool = True
    poisoned: int | None = None

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        for _ in range(self.yielded):
            losses = cross_entropy(forward(model, batch), batch)
            if self.poisoned is not None:
                losses = torch.where(batch.ids == self.poisoned, float("nan"), losses)
            yield Term("announced", losses, 1 / self.yielded, adversarial=True)


def test_the_gradient_is_that_of_the_mean_loss() -> None:
    model, data = tiny.bert(dtype=torch.float64), tiny.rows()
    report = tiny.one_step(model, data, None, 3)
    found, batch = tiny.gradients(model), data.batch(range(8))
    model.zero_grad()
    mean = nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels)
    mean.backward()
    assert tiny.largest_difference(tiny.gradients(model), found) < 1e-10
    assert float(report.total_loss) / 8 == approx(mean.item(), abs=1e-10)


def test_without_an_objective_no_row_counts_as_attacked() -> None:
    report = tiny.one_step(tiny.bert(), tiny.rows(), None, 4)
    assert (report.adversarial_rows, float(report.adversarial_size), report.measured) == (0, 0.0, [])


def test_terms_with_weights_make_the_gradient_of_their_sum() -> None:
    """Three times a third of the clean loss is the clean loss."""
    found = []
    for objective in (None, Announcing(3, 3)):
        model = tiny.bert(dtype=torch.float64)
        report = tiny.one_step(model, tiny.rows(), objective, 4)
        found.append(tiny.gradients(model))
    assert tiny.largest_difference(*found) < 1e-10
    assert report.adversarial_rows == 4
    assert set(report.losses) == {"clean", "announced"}
    assert float(report.total_loss) == approx(float(sum(report.losses.values())))


@pytest.mark.parametrize(("yielded", "word"), [(1, "fewer"), (3, "more")])
def test_another_number_of_terms_than_announced_is_an_error(yielded: int, word: str) -> None:
    with pytest.raises(RuntimeError, match=f"Announcing yielded {word} terms than it announced"):
        tiny.one_step(tiny.bert(), tiny.rows(), Announcing(2, yielded), 4)


def test_a_loss_that_is_not_finite_is_named() -> None:
    data, everything = tiny.rows(), Mixing(Constant(1.0))
    with pytest.raises(NonFiniteError) as caught:
        tiny.one_step(tiny.bert(), data, Announcing(1, 1, poisoned=data.ids[5]), 4, mixing=everything, step=3)
    assert "not finite at step 4: announced at row ids [505]. No optimizer step was taken" in str(caught.value)


def test_passes_are_counted() -> None:
    """4 clean rows once each way; 4 attacked rows as their objective takes them."""

    def passes(objective: Adversarial | Regularised | FreeLB | None, micro_batch_size: int = 4) -> tuple[int, int]:
        report = tiny.one_step(tiny.bert(), tiny.rows(), objective, micro_batch_size)
        return int(report.forwards), int(report.backwards)

    attack = pgd(tiny.threat(), steps=3)
    assert passes(None) == (8, 8)
    # PGD-3: 3 gradients, and measured: the clean row and the last iterate; then the training pass.
    assert passes(Adversarial(attack)) == (4 + 4 * (3 + 2 + 1), 4 + 4 * (3 + 1))
    assert passes(trades(attack)) == (4 + 4 * (3 + 2 + 2), 4 + 4 * (3 + 2))
    # FreeLB-3: 3 passes train; measured: the clean row, the first and the last delta.
    assert passes(FreeLB(attack)) == (4 + 4 * (3 + 3), 4 + 4 * 3)
    assert passes(FreeLB(attack), 1) == passes(FreeLB(attack))


def test_rows_keep_their_role_and_the_batch_its_own_padding() -> None:
    seen: list[Batch] = []

    @dataclass(frozen=True)
    class Watching(Announcing):
        def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
            seen.append(batch)
            return super().__call__(model, batch, moment)

    tiny.one_step(tiny.bert(), tiny.rows(), Watching(1, 1), 1)
    assert [int(batch.role[0]) for batch in seen] == [1, 1, 1, 1]
    assert all(bool(batch.inputs["attention_mask"].all()) for batch in seen), "alone, a row has no padding"
    assert len({batch.inputs["input_ids"].shape[1] for batch in seen}) > 1
