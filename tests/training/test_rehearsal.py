"""The first forwards and backwards of training, rehearsed: what would stop them is told, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tests import tiny
from tests.oracles import CurvedBag, FixedRows, image_rows, token_rows
from textadv.attacks import Linf, ThreatModel, pgd
from textadv.data import Rows
from textadv.models import ModelError, PerturbationError, running
from textadv.objectives import Adversarial, hardening
from textadv.training.mixing import NO_ATTACK, Constant, Linear, Mixing
from textadv.training.rehearsal import Rehearsal, _trials, rehearse
from textadv.training.sampling import OneStream
from textadv.values.batch import Batch, Role
from textadv.values.digests import weights_hash
from textadv.values.randomness import rng_state, seeded_scope
from textadv.values.spaces import Pixels

SEED = 5


def run(
    rows: Rows, threat: ThreatModel, *mixings: Mixing, batch: int = 8, micro: int = 4, steps: int = 12
) -> Rehearsal:
    objectives = hardening(Adversarial(pgd(threat, steps=1)))
    samplers = [OneStream(rows, mixing, batch) for mixing in mixings]
    return Rehearsal(tiny.accelerator(), "mine", objectives, samplers, steps, micro, SEED)


def texts(*mixings: Mixing, **sizes: int) -> Rehearsal:
    return run(tiny.rows(), tiny.threat(), *(mixings or (tiny.HALF,)), **sizes)


def refused(model: nn.Module, wanted: Rehearsal) -> str:
    with pytest.raises(ModelError) as error:
        rehearse(model, wanted)
    assert "\n" not in str(error.value)
    return str(error.value)


class Seen:
    """The role, the number and the mode of the rows of every forward of a model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Role, int, bool]] = []
        self.inner = running._passed
        monkeypatch.setattr(running, "_passed", self)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        self.calls.append((Role(int(batch.role[0])), len(batch), model.training))
        return self.inner(model, batch)

    def trained_on(self) -> list[tuple[Role, int]]:
        return [(role, rows) for role, rows, training in self.calls if training]


ONE_OF_EIGHT = Mixing(Constant(1 / 8))
RISING = Mixing(Linear(0.125, 1.0, 10))
SIZES: dict[str, tuple[Sequence[Mixing], int, dict[Role, int]]] = {
    "halves": ([tiny.HALF], 4, {Role.CLEAN: 4, Role.ADVERSARIAL: 4}),
    "one row is attacked": ([ONE_OF_EIGHT], 4, {Role.CLEAN: 3, Role.ADVERSARIAL: 1}),
    "a ratio that rises": ([RISING], 8, {Role.CLEAN: 1, Role.ADVERSARIAL: 1}),
    "a baseline with a smaller rest": ([tiny.HALF, NO_ATTACK], 7, {Role.CLEAN: 1, Role.ADVERSARIAL: 4}),
    "after a warm-up": ([replace(ONE_OF_EIGHT, warmup_steps=6)], 8, {Role.CLEAN: 7, Role.ADVERSARIAL: 1}),
}


@pytest.mark.parametrize(("mixings", "micro", "smallest"), SIZES.values(), ids=SIZES)
def test_the_smallest_group_of_each_role_is_trained_on_and_no_other(
    mixings: Sequence[Mixing], micro: int, smallest: dict[Role, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    rehearse(tiny.bert(), texts(*mixings, micro=micro))
    assert sorted(seen.trained_on()) == sorted(smallest.items())
    # The attack: a clean pass, its one step, and where it ended.
    assert len(seen.calls) - len(seen.trained_on()) == 3


class SmallNet(nn.Module):
    """A network whose batch norm, after all places are pooled, has one number per channel and row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.first(pixel_values).mean(dim=(2, 3)))))


def net() -> nn.Module:
    with seeded_scope(0):
        return SmallNet()


PIXELS = ThreatModel(Pixels(), Linf(8 / 255, per="example"))


checkpointing = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(training: bool) -> None:
    for model, wanted in (
        (tiny.bert(dropout=0.3), texts()),
        (net(), run(FixedRows(image_rows(16)), PIXELS, tiny.HALF)),
    ):
        model.train(training)
        before, state = weights_hash(model), rng_state()
        rehearse(model, wanted)
        assert weights_hash(model) == before, "the statistics of batch norms among them"
        assert all(torch.equal(value, state[key]) for key, value in rng_state().items())
        assert all(value.grad is None for value in model.parameters())
        assert all(module.training == training for module in model.modules())


def test_a_batch_norm_that_gets_a_single_row() -> None:
    wanted = run(FixedRows(image_rows(16)), PIXELS, ONE_OF_EIGHT)
    told = refused(net(), wanted)
    assert told.startswith("model.name mine cannot be trained on 1 adversarial row at once: ValueError: Expected more")
    assert told.endswith(
        "Two rows work: choose training.batch_size, training.micro_batch_size and the share of attacked rows (mixing) "
        "so that no forward has a single one."
    )
    rehearse(net(), run(FixedRows(image_rows(16)), PIXELS, Mixing(Constant(2 / 8))))


class Failing(CurvedBag):
    """A bag that does something else where it is trained."""

    def __init__(self, instead: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> None:
        super().__init__(classes=2, dtype=dtype)
        self.instead = instead

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = super().forward(input_ids, attention_mask)
        return self.instead(logits) if self.training else logits


def bags() -> Rehearsal:
    rows = FixedRows(token_rows([5, 7, 6, 9, 8, 5, 7, 6]))
    return run(rows, tiny.threat(), tiny.HALF)


def raising(error: Exception) -> Callable[[Tensor], Tensor]:
    def fail(logits: Tensor) -> Tensor:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no part"),
        IndexError("beyond"),
        KeyError("part"),
        NotImplementedError("not yet"),
        RuntimeError("shapes\ndiffer"),
        TypeError("unexpected"),
        ValueError("not so"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_in_training_only_becomes_one_message(error: Exception) -> None:
    told = refused(Failing(raising(error)), bags())
    assert told.startswith(f"model.name mine cannot be trained on 4 clean rows at once: {type(error).__name__}: ")
    assert told.endswith("Name another model, or correct its code.")


def test_too_little_memory_names_what_takes_less() -> None:
    told = refused(Failing(raising(torch.OutOfMemoryError("CUDA out of memory."))), bags())
    assert told.startswith("cpu has too little memory to train on 4 clean rows of 9 tokens at once: OutOfMemoryError: ")
    assert "Lower training.micro_batch_size, data.max_length, or set" in told
    small = net()
    small.register_forward_hook(lambda *_: raising(torch.OutOfMemoryError("out of memory"))(torch.zeros(1)))
    told = refused(small, run(FixedRows(image_rows(16)), PIXELS, tiny.HALF))
    assert "rows of 16 x 16 pixels at once" in told and "data.image_size" in told


def test_a_model_that_an_accelerator_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.bert()
    monkeypatch.setattr(model, "to", raising(torch.OutOfMemoryError("CUDA out of memory.")))
    told = refused(model, texts())
    assert told.startswith("model.name mine cannot be moved to cpu: OutOfMemoryError: CUDA out of memory.")
    assert told.endswith("Use a smaller model, or set model.dtype: bfloat16.")


@checkpointing
def test_recomputing_that_fails_names_its_key() -> None:
    model = tiny.bert()
    model.base_model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    rehearse(model, texts())

    def fails(module: nn.Module, _args: object, _output: object) -> None:
        if module.training:
            raise RuntimeError("it cannot be computed again")

    model.register_forward_hook(fails)
    told = refused(model, texts())
    assert "it cannot be computed again" in told and told.endswith("Set model.gradient_checkpointing: false.")


def test_a_loss_that_is_not_finite() -> None:
    told = refused(Failing(lambda logits: logits / 0), bags())
    assert told == (
        "model.name mine has a loss that is not finite for 4 clean rows, before any step was taken. Load another "
        "checkpoint, or lower the threat's radius."
    )
    told = refused(Failing(lambda logits: logits / 0, dtype=torch.float16), bags())
    assert told.endswith("float16 overflows: set model.dtype: float32.")


def test_a_half_that_the_cpu_does_not_compute() -> None:
    failing = Failing(raising(RuntimeError("\"bmm\" not implemented for 'Half'")), dtype=torch.float16)
    assert refused(failing, bags()).endswith("The CPU does not compute all of it in float16. Set model.dtype: float32.")


def test_a_model_without_a_weight_to_train() -> None:
    assert refused(tiny.bert().requires_grad_(False), texts()).startswith("The model has no trainable parameter.")


def test_a_perturbation_that_reaches_nothing_counts_from_the_first_step_on() -> None:
    """A head that is zero gives no gradient, and does not stay zero where steps without an attack come first."""
    model = CurvedBag(classes=2, dtype=torch.float32)
    with torch.no_grad():
        model.head.zero_()
    with pytest.raises(PerturbationError, match="exactly zero"):
        rehearse(copy.deepcopy(model), bags())
    rows = FixedRows(token_rows([5, 7, 6, 9, 8, 5, 7, 6]))
    rehearse(model, run(rows, tiny.threat(), Mixing(Constant(0.5), warmup_steps=2)))


def test_an_accelerator_gets_the_largest_group_too(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = texts(ONE_OF_EIGHT, micro=4)
    monkeypatch.setattr(Accelerator, "device", torch.device("meta"))
    sizes = sorted((trial.group.role, len(trial.group.positions)) for trial in _trials(wanted))
    assert sizes == [(Role.CLEAN, 3), (Role.CLEAN, 4), (Role.ADVERSARIAL, 1), (Role.ADVERSARIAL, 1)]
