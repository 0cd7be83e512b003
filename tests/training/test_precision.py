"""Mixed precision: what a run leaves of it on the model, and the loss scale over a resume."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import BertForSequenceClassification

from tests import chat_run, normed, tiny
from tests.oracles import FixedRows
from textadv.attacks import pgd
from textadv.data import EncodedRows
from textadv.models import evaluating, forward, trainable_state
from textadv.objectives import Adversarial, Moment, Term, hardening
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.text.config import RunConfig
from textadv.training.checkpoint import latest
from textadv.training.divergence import LEAST_SCALE
from textadv.training.mixing import Constant, Mixing
from textadv.training.precision import emulation_warning
from textadv.training.progress import Scores
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch
from textadv.values.errors import NonFiniteError
from textadv.values.losses import cross_entropy


@pytest.fixture
def half() -> Iterator[Accelerator]:
    """In bfloat16; accelerate keeps one precision for the whole process."""
    AcceleratorState._reset_state()
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state()


def whole_bert() -> nn.Module:
    """Without adapters, so that accelerate wraps the model's own forward, which transformers has decorated."""
    model = tiny.bert().base_model.model
    for value in model.parameters():
        value.requires_grad_(True)
    return model


MODELS = {
    "images": (normed.network, normed.rows, normed.threat()),
    "lora": (tiny.bert, tiny.rows, tiny.threat()),
    "whole": (whole_bert, tiny.rows, tiny.threat()),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_trained_model_computes_what_its_exported_copy_does(name: str, half: Accelerator, tmp_path: Path) -> None:
    make, rows, threat = MODELS[name]
    model, data = make(), rows()
    during: list[torch.Tensor] = []

    def logits(one: nn.Module) -> torch.Tensor:
        with evaluating(one), torch.no_grad():
            return forward(one, data.batch(range(8)))

    def score(one: nn.Module) -> Scores:
        during.append(logits(one))
        return Scores(1.0, 1.0, False)

    attack = pgd(threat, steps=1)
    mine = trainer(half, model, data, Adversarial(attack), tmp_path, score)
    mine.run()
    exported = make()
    exported.load_state_dict(model.state_dict())
    assert torch.equal(logits(model), logits(exported))
    assert not torch.equal(during[-1], logits(model)), "training and its scores were in bfloat16"
    assert not {"forward", "_original_forward"} & vars(model).keys()


def test_a_forward_of_the_models_own_comes_back(half: Accelerator, tmp_path: Path) -> None:
    model = normed.network()
    plain = model.forward
    vars(model)["forward"] = lambda pixel_values: plain(pixel_values) + 1
    mine = vars(model)["forward"]
    trainer(half, model, normed.rows(), Adversarial(pgd(normed.threat(), steps=1)), tmp_path, None).run()
    assert vars(model)["forward"] is mine


def test_a_bert_of_transformers_keeps_its_decorated_forward() -> None:
    """What `Accelerator.unwrap_model` would strip; without decorators the test above would show nothing."""
    assert "__wrapped__" in vars(BertForSequenceClassification.forward)


def trainer(
    accelerator: Accelerator,
    model: nn.Module,
    rows: FixedRows | EncodedRows,
    objective: Adversarial,
    folder: Path,
    score: object,
    **changes: object,
) -> Trainer:
    settings = tiny.settings(steps=8, micro_batch_size=8, learning_rate=1e-2, **changes)
    stream = OneStream(rows, Mixing(Constant(0.5)), tiny.BATCH_SIZE, settings.seed)
    return Trainer(accelerator, model, stream, hardening(objective), settings, score, folder, bar=False)  # type: ignore[arg-type]


def scaled(folder: Path) -> tuple[list[float], Trainer]:
    """A run with a loss scale that doubles after every third step: the scale of every step, and the run."""
    accelerator = tiny.accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
    mine = trainer(
        accelerator,
        normed.network(),
        normed.rows(),
        Adversarial(pgd(normed.threat(), steps=1)),
        folder,
        None,
        checkpoint_every=4,
        keep_last=9,
    )
    seen: list[float] = []
    update = mine._update

    def updating(step: int, rate: float) -> float:
        seen.append(accelerator.scaler.get_scale())
        return update(step, rate)

    mine._update = updating  # type: ignore[method-assign]
    mine.run(latest(folder / "checkpoints"))
    return seen, mine


def test_the_loss_scale_is_resumed(tmp_path: Path) -> None:
    """The scale, and how many steps it has stood: it doubles after steps 3 and 6, which a new count would miss."""
    whole, first = scaled(tmp_path)
    assert whole == [256.0] * 3 + [512.0] * 3 + [1024.0] * 2
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000008")
    again, second = scaled(tmp_path)
    assert again == whole[4:]
    one, other = trainable_state(first.model), trainable_state(second.model)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class Overflowing:
    """The clean loss, whose gradient is infinite at every step."""

    terms, keeps_clean = 1, False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        losses = cross_entropy(forward(model, batch), batch)
        losses.register_hook(lambda grad: grad * float("inf"))
        yield Term("overflowing", losses, adversarial=True)


def test_a_loss_scale_that_has_run_out_ends_the_run(tmp_path: Path) -> None:
    """Each step with an infinite gradient is skipped and halves the scale, which ends somewhere."""
    accelerator = tiny.accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2 * LEAST_SCALE)
    mine = trainer(accelerator, normed.network(), normed.rows(), Overflowing(), tmp_path, None)  # type: ignore[arg-type]
    before = [value.detach().clone() for value in mine.model.parameters()]
    with pytest.raises(NonFiniteError, match="The gradient norm is .* at step 3"):
        mine.run()
    assert all(map(torch.equal, before, mine.model.parameters())), "no step was taken"


CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize("known", [{"avx512_bf16": True}, {"amx_bf16": True}, {"sve_bf16": True}, {}])
def test_a_cpu_that_computes_bf16_or_does_not_say_so_is_not_warned_of(
    known: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert emulation_warning("training.precision", "bf16", CPU) is None


OLD = {"avx2": True, "avx512_bf16": False, "cpu_name": "Old"}


def test_bf16_on_a_cpu_without_instructions_for_it_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: OLD)
    told = emulation_warning("training.precision", "bf16", CPU)
    assert told is not None
    assert told.startswith("training.precision: bf16 is imitated on this CPU (Old)")
    assert told.endswith("Set training.precision: no.")
    assert emulation_warning("training.precision", "no", CPU) is None
    assert emulation_warning("training.precision", "bf16", torch.device("cuda")) is None
    told = emulation_warning("model.dtype", "bfloat16", CPU)
    assert told is not None and told.endswith("Set model.dtype: float32.")


def test_a_torch_that_does_not_tell_what_the_cpu_knows_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert emulation_warning("training.precision", "bf16", CPU) is None


def test_every_kind_of_run_warns_of_it_before_it_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: OLD)
    chats = chat_run.write_config(chat_run.write_streams(tmp_path), chat_run.save_untaught(tmp_path / "model", "llama"))
    wanted = {"text": RECIPES / "small.yaml", "images": RECIPES / "small_images.yaml", "chat": chats}
    read = {
        name: load_config(path, [f"output={tmp_path / name}", "model.dtype=bfloat16"]) for name, path in wanted.items()
    }
    text, images, chat = read.values()
    assert isinstance(text, RunConfig) and isinstance(images, ImageRunConfig) and isinstance(chat, ChatRunConfig)
    for told in (prepare(text).warnings, prepare(images).warnings, prepare(chat).warnings):
        assert sum(line.startswith("model.dtype: bfloat16 is imitated") for line in told) == 1
