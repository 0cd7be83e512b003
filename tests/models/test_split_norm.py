"""Split batch norms: who passes which, what each of them learns, and the way there and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests import normed, tiny
from textadv.attacks import pgd
from textadv.models import ModelError, evaluating, forward, load_trainable_state, trainable_state
from textadv.models.split_norm import SplitBatchNorm, convert, merge, merged_state, split_norms, using
from textadv.objectives import Adversarial, FreeLB, Moment, Objective, hardening, trades
from textadv.training.accumulation import accumulate
from textadv.training.averaging import refresh_batch_norm
from textadv.training.mixing import NO_ATTACK, Constant, Mixing
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch, Role
from textadv.values.spaces import Pixels

ATTACK = pgd(normed.threat(), steps=2)
CLEAN, ADVERSARIAL = ("clean", "adversarial")


def batch(role: Role = Role.CLEAN, shift: float | None = None) -> Batch:
    """Eight rows of one role, perturbed by a constant where one is given."""
    found = normed.rows(8).batch(range(8)).with_role(role)
    return found if shift is None else found.perturbed(Pixels(), torch.full_like(found.inputs["pixel_values"], shift))


def statistics(model: nn.Module, which: str) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers() if f".{which}." in name}


def moved(model: nn.Module, before: dict[str, dict[str, torch.Tensor]]) -> set[str]:
    return {
        which
        for which, known in before.items()
        if any(not torch.equal(value, statistics(model, which)[name]) for name, value in known.items())
    }


def both(model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    return {which: statistics(model, which) for which in (CLEAN, ADVERSARIAL)}


# ---- who passes which


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (batch(), CLEAN),
        (batch(shift=0.1), CLEAN),
        (batch(Role.UTILITY, 0.1), CLEAN),
        (batch(Role.ADVERSARIAL), CLEAN),
        (batch(Role.ADVERSARIAL, 0.0), ADVERSARIAL),
        (batch(Role.ADVERSARIAL, 0.1), ADVERSARIAL),
    ],
    ids=["clean", "clean perturbed", "utility", "to be attacked", "zero delta", "attacked"],
)
def test_only_perturbed_adversarial_rows_pass_the_adversarial_norms(rows: Batch, expected: str) -> None:
    model = convert(normed.network())
    before = both(model)
    forward(model, rows)
    assert moved(model, before) == {expected}


def test_a_model_called_by_itself_passes_the_clean_norms() -> None:
    model = convert(normed.network())
    before = both(model)
    model(**batch().inputs)
    assert moved(model, before) == {CLEAN}


def test_a_batch_of_both_is_parted() -> None:
    """Each row's logits, and each set's statistics, are those of its part alone."""
    rows, mask = batch(Role.ADVERSARIAL, 0.1), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)
    mixed = replace(rows, role=mask.long())
    model, other = convert(normed.network(dropout=0.0)), convert(normed.network(dropout=0.0))
    for split in (model, other):
        split_norms(split)[0].adversarial.bias.data += 1.0
    logits = forward(model, mixed)
    assert torch.allclose(logits[mask], forward(other, rows.rows(mask)), rtol=1e-5, atol=1e-6)
    assert torch.allclose(logits[~mask], forward(other, rows.rows(~mask).with_role(Role.CLEAN)), rtol=1e-5, atol=1e-6)
    assert moved(convert(normed.network()), both(model)) == {CLEAN, ADVERSARIAL}
    for which in (CLEAN, ADVERSARIAL):
        for name, value in statistics(model, which).items():
            assert torch.allclose(value, statistics(other, which)[name], rtol=1e-5, atol=1e-6)


def test_norms_over_something_else_than_rows_are_refused() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = SplitBatchNorm(nn.BatchNorm1d(3))

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.norm(pixel_values.permute(0, 2, 3, 1).reshape(-1, 3))

    with pytest.raises(ModelError, match="a batch norm gets 512 rows for a batch of 8"):
        forward(Flattened(), batch(Role.ADVERSARIAL, 0.1))


def test_a_norm_of_its_own_makes_a_difference_to_the_logits() -> None:
    model = convert(normed.network(dropout=0.0)).eval()
    rows = batch(Role.ADVERSARIAL, 0.1)
    same = forward(model, rows)
    assert torch.equal(same, forward(model, rows.with_role(Role.CLEAN))), "they start alike"
    split_norms(model)[0].adversarial.bias.data += 1.0
    changed = forward(model, rows)
    assert not torch.allclose(same, changed)
    assert torch.equal(same, forward(model, rows.with_role(Role.CLEAN)))


@pytest.mark.parametrize("which", [CLEAN, ADVERSARIAL])
def test_using_sends_every_row_one_way(which: str) -> None:
    model = convert(normed.network())
    before = both(model)
    with using(model, which):  # type: ignore[arg-type]
        forward(model, batch())
        forward(model, batch(Role.ADVERSARIAL, 0.1))
    assert moved(model, before) == {which}
    assert all(norm.always is None for norm in split_norms(model))
    with using(normed.network(), CLEAN):
        pass


# ---- in training


def step(model: nn.Module, objective: Objective, mixing: Mixing, size: int = 8) -> None:
    rows = normed.rows(8)
    groups = mixing.groups(0, rows.lengths, size)
    accumulate(model, hardening(objective), rows, range(8), groups, Moment(0, measure=True))


def test_each_set_learns_from_its_own_rows() -> None:
    """The gradients of the clean affine map are those of the clean rows alone, and the other way round."""
    model, mixing = convert(normed.network(dropout=0.0)), Mixing(Constant(0.5))
    step(model, Adversarial(ATTACK), mixing)
    found = tiny.gradients(model)
    alone = convert(normed.network(dropout=0.0))
    places = [place for group in mixing.groups(0, (1,) * 8, 8) if group.role is Role.CLEAN for place in group.positions]
    rows = normed.rows(8).batch(places)
    (nn.functional.cross_entropy(forward(alone, rows), rows.labels, reduction="sum") / 8).backward()
    for name, value in tiny.gradients(alone).items():
        if ".clean." in name:
            assert torch.allclose(value, found[name], rtol=1e-5, atol=1e-7) and bool(value.any())
        if ".adversarial." in name:
            assert bool((value == 0).all()), "zero, not missing: DDP waits for every parameter"
            assert bool(found[name].any())
        if name == "conv1.weight":
            assert not torch.allclose(value, found[name])


@pytest.mark.parametrize(
    "objective", [Adversarial(ATTACK), trades(ATTACK), FreeLB(ATTACK)], ids=lambda o: type(o).__name__
)
def test_clean_rows_never_touch_the_adversarial_statistics(objective: Objective) -> None:
    model = convert(normed.network())
    before = both(model)
    step(model, objective, NO_ATTACK)
    assert moved(model, before) == {CLEAN}
    before = both(model)
    with_attack = convert(normed.network())
    step(with_attack, objective, Mixing(Constant(1.0)))
    assert ADVERSARIAL in moved(with_attack, both(convert(normed.network())))
    assert (CLEAN in moved(with_attack, both(convert(normed.network())))) == (
        not isinstance(objective, Adversarial | FreeLB)
    )


def test_the_attack_sees_the_adversarial_norms() -> None:
    model = convert(normed.network(dropout=0.0))
    for norm in split_norms(model):
        norm.clean.weight.data.neg_()
    rows = batch(Role.ADVERSARIAL)
    with using(model, ADVERSARIAL):
        expected = ATTACK(model, rows).perturbation.delta
    assert torch.equal(ATTACK(model, rows).perturbation.delta, expected)
    assert not torch.equal(ATTACK(model, rows.with_role(Role.CLEAN)).perturbation.delta, expected)


def test_refreshing_leaves_the_adversarial_statistics() -> None:
    model = convert(normed.network())
    before = both(model)
    refresh_batch_norm(model, [batch()])
    assert moved(model, before) == {CLEAN}


def split_trainer(folder: Path, objective: Objective | None, mixing: Mixing) -> Trainer:
    settings = tiny.settings(steps=2, micro_batch_size=8)
    return Trainer(
        tiny.accelerator(),
        convert(normed.network()),
        OneStream(normed.rows(), mixing, tiny.BATCH_SIZE, settings.seed),
        hardening(objective),
        settings,
        None,
        folder,
        bar=False,
    )


def test_a_run_without_adversarial_rows_is_refused(tmp_path: Path) -> None:
    for objective, mixing in ((None, NO_ATTACK), (Adversarial(ATTACK), NO_ATTACK)):
        with pytest.raises(ModelError, match="this run attacks none"):
            split_trainer(tmp_path, objective, mixing)
    split_trainer(tmp_path, Adversarial(ATTACK), Mixing(Constant(0.5))).run()


# ---- there and back


def test_converting_changes_no_number_and_merging_gives_back_the_names() -> None:
    plain, model = normed.network(), convert(normed.network())
    assert sum(isinstance(module, SplitBatchNorm) for module in model.modules()) == 2
    with evaluating(plain), evaluating(model):
        assert torch.equal(forward(plain, batch()), forward(model, batch()))
    assert merge(model).state_dict().keys() == plain.state_dict().keys()
    assert not split_norms(model)


@pytest.mark.parametrize("which", [CLEAN, ADVERSARIAL])
def test_merging_keeps_the_set_that_was_asked_for(which: str) -> None:
    model = convert(normed.network(dropout=0.0))
    step(model, Adversarial(ATTACK), Mixing(Constant(0.5)))
    with torch.no_grad():
        for norm in split_norms(model):
            norm.adversarial.weight.mul_(1.5)
    state = merged_state(model, trainable_state(model), which)  # type: ignore[arg-type]
    with evaluating(model), using(model, which):  # type: ignore[arg-type]
        expected = forward(model, batch())
    merged = merge(model, which)  # type: ignore[arg-type]
    with evaluating(merged):
        assert torch.equal(forward(merged, batch()), expected)
        assert torch.equal(forward(merged, batch(Role.ADVERSARIAL, 0.0)), expected)
    fresh = normed.network(dropout=0.0)
    load_trainable_state(fresh, state)
    with evaluating(fresh):
        assert torch.equal(forward(fresh, batch()), expected)


def test_a_split_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = convert(normed.network())
    step(model, Adversarial(ATTACK), Mixing(Constant(0.5)))
    save_file(trainable_state(model), tmp_path / "split.safetensors")
    other = convert(normed.network())
    load_trainable_state(other, load_file(tmp_path / "split.safetensors"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(ModelError, match="do not fit this model"):
        load_trainable_state(normed.network(), load_file(tmp_path / "split.safetensors"))


def test_what_cannot_be_split_or_merged_is_refused() -> None:
    with pytest.raises(ModelError, match="needs batch norms, and PeftModel"):
        convert(tiny.bert())
    with pytest.raises(ModelError, match="split already"):
        convert(convert(normed.network()))
    with pytest.raises(ModelError, match="no split batch norm to merge"):
        merge(normed.network())
