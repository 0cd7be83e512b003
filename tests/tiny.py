"""A two-class task that a tiny BERT with LoRA learns in a few steps, and what training it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from tests.oracles import FIRST, LAST, PAD, VOCABULARY, WORDS
from textadv.attacks import L2, AdaptiveRadius, PenalisedAscent, ThreatModel, pgd
from textadv.data import EncodedRows
from textadv.objectives import (
    Adversarial,
    Distributional,
    Free,
    FreeLB,
    Mart,
    Moment,
    Objective,
    Regularised,
    WeightPerturbation,
    hardening,
    trades,
)
from textadv.training.accumulation import accumulate
from textadv.training.mixing import NO_ATTACK, Constant, Mixing
from textadv.training.progress import Scores, Settings
from textadv.training.step_report import StepReport
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Space

HALF = Mixing(Constant(0.5))
BATCH_SIZE = 8
SETTINGS = Settings(
    steps=12,
    micro_batch_size=4,
    learning_rate=3e-2,
    log_every=1,
    evaluate_every=4,
    warmup_ratio=0.0,
)


def rows(count: int = 32, seed: int = 0, first_id: int = 500) -> EncodedRows:
    """Rows of 5 to 11 tokens; each class has eight words of its own."""
    generator = torch.Generator().manual_seed(seed)
    features, editable, labels = [], [], []
    for row in range(count):
        label = row % 2
        length = int(torch.randint(3, 10, (), generator=generator))
        words = (WORDS + 8 * label + torch.randint(0, 8, (length,), generator=generator)).tolist()
        features.append({"input_ids": [FIRST, *words, LAST], "attention_mask": [1] * (length + 2)})
        editable.append([False, *[True] * length, False])
        labels.append(label)
    ids = tuple(range(first_id, first_id + count))
    pad = {"input_ids": PAD, "attention_mask": 0}
    return EncodedRows(tuple(features), tuple(editable), tuple(labels), ids, pad, "right")


def bert(dropout: float = 0.0, *, dtype: torch.dtype = torch.float32, live_adapters: bool = True) -> nn.Module:
    """A two-layer BERT with LoRA, the same weights each time.

    live_adapters: both factors random, so that every adapter weight has a gradient; otherwise one is zero, as usual.
    """
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=2,
        initializer_range=0.2,
        pad_token_id=PAD,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    adapters = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type=TaskType.SEQ_CLS,
        init_lora_weights=not live_adapters,
    )
    with seeded_scope(0):
        model = get_peft_model(BertForSequenceClassification(config), adapters)
    return model.to(dtype).train()


def threat(radius: float = 0.5, space: Space | None = None) -> ThreatModel:
    """An L2 ball per token, about half as large as an embedding."""
    return ThreatModel(space or Embeddings(), L2(radius))


def objectives(radius: float = 0.5, space: Space | None = None) -> dict[str, Objective]:
    """One objective of each kind, all with random starts."""
    attack = pgd(threat(radius, space), steps=3)
    return {
        "adversarial": Adversarial(attack),
        "trades": trades(attack),
        "mart": Mart(attack),
        "regularised": Regularised(attack),
        "distributional": Distributional(PenalisedAscent(attack.threat, 2.0, 3, random_start=True), 2.0),
        "adaptive radius": Adversarial(AdaptiveRadius(attack, attack.threat)),
        "weight perturbation": WeightPerturbation(attack, Adversarial, 0.05),
        "free": Free(pgd(threat(radius, space), steps=1, relative_step_size=1.0), replays=1),
        "freelb": FreeLB(attack),
        "freelb with a clean term": FreeLB(attack, clean_term=True),
    }


def one_step(
    model: nn.Module,
    data: EncodedRows,
    objective: Objective | None,
    micro_batch_size: int,
    *,
    mixing: Mixing = HALF,
    processes: int = 1,
    rank: int = 0,
    step: int = 3,
) -> StepReport:
    """The gradient of one optimizer step over the first 8 rows, left in `.grad`."""
    positions = list(range(8))
    lengths = [data.lengths[position] for position in positions]
    mixing = NO_ATTACK if objective is None else mixing
    groups = mixing.groups(step, lengths, micro_batch_size, processes, rank)
    moment = Moment(step, measure=True)
    return accumulate(model, hardening(objective), data, positions, groups, moment, processes=processes)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter's gradient."""
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of an entry; the entries themselves must reach 0.05 for it to mean something."""
    assert one.keys() == other.keys()
    assert max(float(value.abs().max()) for value in one.values()) > 0.05
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def settings(**changes: object) -> Settings:
    """`SETTINGS` with some values changed."""
    return replace(SETTINGS, **changes)  # type: ignore[arg-type]


def forget_accelerator() -> None:
    """So that the next accelerator of this process is made anew."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def accelerator() -> Accelerator:
    """On the CPU, whatever the machine has."""
    return Accelerator(cpu=True)


class Scorer:
    """A `score` that hands out given values in turn, and remembers what was asked of it."""

    def __init__(self, values: Sequence[Scores]) -> None:
        self.values = list(values)
        self.calls = 0

    def __call__(self, model: nn.Module) -> Scores:
        self.calls += 1
        return self.values[self.calls - 1]


def log_of(folder: Path) -> bytes:
    """The run's log, byte by byte."""
    return (folder / "log.jsonl").read_bytes()
