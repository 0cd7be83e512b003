"""Averaged weights: the numbers, what they leave alone, the batch norms' statistics, and whole runs with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytest import approx
from safetensors.torch import load_file
from torch import nn

from tests import normed, tiny
from textadv.attacks import pgd
from textadv.models import forward, trainable_state
from textadv.objectives import Adversarial, hardening
from textadv.training.averaging import Average, Averaging, batch_norms, refresh_batch_norm
from textadv.training.checkpoint import latest, optimizer_state
from textadv.training.mixing import Constant, Mixing
from textadv.training.progress import Scores
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch

HARDENING = Adversarial(pgd(normed.threat(), steps=1))


class Numbers(nn.Module):
    """One trained number and one that is frozen."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.frozen = nn.Parameter(torch.full((1,), 5.0, dtype=dtype), requires_grad=False)


def no_rows(count: int) -> Iterable[Batch]:
    return []


def course(rule: Averaging, weights: list[float], model: Numbers | None = None) -> tuple[Average, Numbers]:
    average, model = Average(rule), model or Numbers()
    for step, weight in enumerate(weights, start=1):
        model.trained.data.fill_(weight)
        average.take(model, step)
    return average, model


def seen(average: Average, model: Numbers) -> float:
    with average.shown(model, no_rows):
        return model.trained.item()


# ---- the numbers


def test_swa_is_the_plain_mean() -> None:
    assert seen(*course(Averaging("swa"), [1.0, 2.0, 4.0])) == approx(7 / 3, rel=1e-12)


def test_ema_forgets() -> None:
    """The plain mean of two; the third weight counts 0.4, which is more than a third."""
    rule = Averaging("ema", decay=0.6)
    values = [seen(*course(rule, [1.0, 2.0, 4.0][:count])) for count in (1, 2, 3)]
    assert values == approx([1.0, 1.5, 2.5], rel=1e-12)


def test_the_first_weights_of_a_short_run_do_not_outweigh_the_rest() -> None:
    weights = [float(n) for n in range(50)]
    assert seen(*course(Averaging("ema", decay=0.999), weights)) == approx(24.5, rel=1e-12)
    long = seen(*course(Averaging("ema", decay=0.9), [9.0] + [0.0] * 9 + [1.0] * 20))
    assert long == approx(1 - 0.1 * 0.9**20, rel=1e-12), "a mean of 0.9 over ten, and then it forgets"


def test_start_and_every_say_which_weights_are_taken_in() -> None:
    average, model = course(Averaging("swa", start=3, every=2), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert average.taken == 2
    assert seen(average, model) == approx((3.0 + 5.0) / 2)


def test_before_the_start_the_weights_are_as_they_are() -> None:
    average, model = course(Averaging("ema", start=9), [1.0, 2.0])
    assert average.state() == {}
    assert seen(average, model) == 2.0


def test_half_precision_is_averaged_in_single() -> None:
    """In bfloat16 a step of 1/1000 of the way is lost to rounding: the mean would stay at 1."""
    rule = Averaging("ema", decay=0.999)
    average, model = course(rule, [1.0] + [2.0] * 500, Numbers(torch.bfloat16))
    expected = 2 - 1 / 501
    assert float(average.means["trained"]) == approx(expected, rel=1e-5)
    assert model.trained.dtype == torch.bfloat16
    assert seen(average, model) == approx(expected, rel=1e-2)


def test_only_what_is_trained_is_averaged() -> None:
    average, _ = course(Averaging("ema"), [1.0])
    assert set(average.means) == {"trained"}
    adapted = tiny.bert()
    lora = Average(Averaging("ema"))
    lora.take(adapted, 1)
    assert set(lora.means) == {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert any("lora_A" in name for name in lora.means) and not any("word_embeddings.weight" in n for n in lora.means)


def test_the_raw_weights_come_back_bit_for_bit_even_after_an_error() -> None:
    average, model = course(Averaging("swa"), [0.1, 0.7])
    with pytest.raises(KeyError), average.shown(model, no_rows):
        assert model.trained.item() != 0.7
        raise KeyError
    assert (model.trained.item(), model.frozen.item()) == (0.7, 5.0)


def test_a_saved_average_goes_on_as_it_would_have() -> None:
    rule = Averaging("swa", start=2)
    whole, model = course(rule, [1.0, 2.0, 4.0, 9.0])
    first, _ = course(rule, [1.0, 2.0, 4.0])
    later = Average(rule)
    later.load(model, first.state())
    later.take(model, 4)
    assert later.state().keys() == whole.state().keys()
    assert all(torch.equal(value, later.state()[name]) for name, value in whole.state().items())


@pytest.mark.parametrize(
    "changes", [{"start": 0}, {"every": 0}, {"refresh": 0}, {"decay": 1.0}, {"decay": -0.1}], ids=str
)
def test_what_cannot_average_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="training.averaging."):
        replace(Averaging("ema"), **changes)


# ---- batch norms


def direct_statistics(model: normed.Normed, batches: list[Batch]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and unbiased variance before each norm, averaged over the batches, with batch statistics on the way."""

    def normalised(tensor: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
        mean, variance = tensor.mean((0, 2, 3), keepdim=True), tensor.var((0, 2, 3), unbiased=False, keepdim=True)
        scaled = (tensor - mean) / (variance + norm.eps).sqrt()
        return scaled * norm.weight.reshape(1, -1, 1, 1) + norm.bias.reshape(1, -1, 1, 1)

    found: list[list[torch.Tensor]] = [[], []]
    for batch in batches:
        first = model.conv1(batch.inputs["pixel_values"])
        second = model.conv2(torch.relu(normalised(first, model.norm1)))
        for place, tensor in enumerate((first, second)):
            found[place].append(torch.stack([tensor.mean((0, 2, 3)), tensor.var((0, 2, 3), unbiased=True)]))
    return [tuple(torch.stack(parts).mean(0)) for parts in found]  # type: ignore[misc]


@pytest.mark.parametrize("training", [True, False])
def test_refreshed_statistics_are_those_of_the_rows(training: bool) -> None:
    model, rows = normed.network().train(training), normed.rows()
    batches = [rows.batch(range(start, start + 8)) for start in (0, 8, 16)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    rng = torch.get_rng_state()
    refresh_batch_norm(model, batches)
    with torch.no_grad():
        expected = direct_statistics(model, batches)
    for norm, (mean, variance) in zip(batch_norms(model), expected, strict=True):
        assert torch.allclose(norm.running_mean, mean, rtol=1e-5, atol=1e-6)
        assert torch.allclose(norm.running_var, variance, rtol=1e-5, atol=1e-6)
        assert norm.momentum == 0.1 and int(norm.num_batches_tracked) == 3
    assert torch.equal(torch.get_rng_state(), rng), "dropout stayed off"
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_without_rows_statistics_stay() -> None:
    model = normed.network()
    model.norm1.running_mean.fill_(3.0)
    refresh_batch_norm(model, [])
    assert bool((model.norm1.running_mean == 3.0).all())


def test_averaged_weights_are_shown_with_their_own_statistics_and_the_raw_ones_come_back() -> None:
    model, rows = normed.network(), normed.rows()
    average = Average(Averaging("swa", refresh=2))
    for step in (1, 2):
        with torch.no_grad():
            model.conv1.weight.mul_(1 + step)
        forward(model, rows.batch(range(16)))
        average.take(model, step)
    raw = {name: value.clone() for name, value in model.state_dict().items()}
    asked: list[int] = []

    def some_rows(count: int) -> list[Batch]:
        asked.append(count)
        return [rows.batch(range(start, start + 8)) for start in (0, 8)]

    with average.shown(model, some_rows):
        assert torch.equal(model.conv1.weight, average.means["conv1.weight"])
        with torch.no_grad():
            mean = direct_statistics(model, some_rows(2))[0][0]
        assert torch.allclose(model.norm1.running_mean, mean, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(model.norm1.running_var, raw["norm1.running_var"], rtol=1e-2)
    assert asked[0] == 2
    assert all(torch.equal(value, raw[name]) for name, value in model.state_dict().items())


# ---- whole runs


def trainer(folder: Path, averaging: Averaging | None, score: object = None, **changes: object) -> Trainer:
    names = {"micro_batch_size": 8, "learning_rate": 1e-2, "checkpoint_every": 5, "keep_last": 9, **changes}
    settings = tiny.settings(**names)
    return Trainer(
        tiny.accelerator(),
        normed.network(),
        OneStream(normed.rows(), Mixing(Constant(0.5)), tiny.BATCH_SIZE, settings.seed),
        hardening(HARDENING),
        settings,
        score,  # type: ignore[arg-type]
        folder,
        bar=False,
        averaging=averaging,
    )


def end(mine: Trainer) -> dict[str, torch.Tensor]:
    assert mine.average is not None
    return trainable_state(mine.model) | optimizer_state(mine.model, mine.optimizer.optimizer) | mine.average.state()


def test_the_raw_run_is_untouched_by_averaging(tmp_path: Path) -> None:
    """Same log and same optimizer, whatever is averaged and however often it is shown."""
    plain, averaged = trainer(tmp_path / "plain", None), trainer(tmp_path / "averaged", Averaging("ema", 0.5))
    plain.run(), averaged.run()
    assert tiny.log_of(tmp_path / "plain") == tiny.log_of(tmp_path / "averaged")
    one, other = (optimizer_state(mine.model, mine.optimizer.optimizer) for mine in (plain, averaged))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not torch.equal(plain.model.conv1.weight, averaged.model.conv1.weight), "but it ends with the mean"


def test_averaged_weights_are_scored_kept_and_ended_with(tmp_path: Path) -> None:
    found: list[dict[str, torch.Tensor]] = []

    def score(model: nn.Module) -> Scores:
        found.append(trainable_state(model))
        return Scores(0.5 + 0.1 * len(found), 0.5, False)

    mine = trainer(tmp_path, Averaging("swa", start=2), score)
    weights: list[torch.Tensor] = []
    take = mine.average.take

    def taking(model: nn.Module, step: int) -> None:
        weights.append(model.conv1.weight.detach().clone())
        take(model, step)

    mine.average.take = taking  # type: ignore[method-assign]
    trained = mine.run()
    assert trained.selected_step == 12 and len(found) == 3
    for step, state in zip((4, 8, 12), found, strict=True):
        assert torch.allclose(state["conv1.weight"], torch.stack(weights[1:step]).mean(0), rtol=0, atol=1e-6)
    kept = load_file(trained.weights["robust_best"])
    assert all(torch.equal(value, kept[name]) for name, value in found[2].items())
    assert torch.equal(mine.model.norm1.running_mean, kept["norm1.running_mean"])


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(kind: str, tmp_path: Path) -> None:
    rule = Averaging(kind, 0.8, start=3, every=2, refresh=3)  # type: ignore[arg-type]
    whole = trainer(tmp_path / "whole", rule)
    whole.run()
    for kept in (5, 10):
        folder = tmp_path / str(kept)
        shutil.copytree(tmp_path / "whole", folder)
        for path in (folder / "checkpoints").iterdir():
            if int(path.name[-8:]) > kept:
                shutil.rmtree(path)
        resumed = trainer(folder, rule)
        resumed.run(latest(folder / "checkpoints"))
        one, other = end(whole), end(resumed)
        assert one.keys() == other.keys() and any(name.startswith("mean|") for name in one)
        assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
        assert tiny.log_of(folder) == tiny.log_of(tmp_path / "whole")
