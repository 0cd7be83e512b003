"""Adversarial chats that ask with found prompts: a tiny model with a tokenizer, and a pool to begin from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests import chat_run, streams
from textadv.attacks.prompts.gcg import Gcg
from textadv.attacks.prompts.pool import Drawing, Pool
from textadv.attacks.prompts.seeding import Listed, Searched, Seeding, Source
from textadv.data import Chat, ChatRows, Template, encode_chats
from textadv.models import bare
from textadv.objectives import Moment, Objective
from textadv.objectives.alignment import Away, Toward
from textadv.objectives.seeded import Seeded
from textadv.training.accumulation import accumulate
from textadv.training.mixing import in_groups
from textadv.training.step_report import StepReport
from textadv.values.batch import Role
from textadv.values.randomness import seeded_scope

ROWS, LENGTH, STEP = 4, 80, 12


def model() -> nn.Module:
    """A random chat model in float64 with LoRA, in training mode, the same weights each time."""
    settings = LoraConfig(r=2, target_modules="all-linear", task_type=TaskType.CAUSAL_LM, init_lora_weights=False)
    with seeded_scope(2):
        plain = AutoModelForCausalLM.from_config(chat_run.KINDS["qwen"]())
        adapted = get_peft_model(plain, settings)
    return adapted.double().train()


@cache
def template() -> Template:
    return Template(chat_run.tokenizer())


@cache
def chats() -> tuple[Chat, ...]:
    """Behaviours of the lab."""
    found = []
    for number, row in enumerate(chat_run.data()["adversarial_train"][:ROWS]):
        answers = {"safe": str(row["safe"]), "harmful": str(row["target"])}
        asked = ({"role": "user", "content": str(row["prompt"])},)
        found.append(Chat(asked, answers, Role.ADVERSARIAL, 10 + number, f"row {number}"))
    return tuple(found)


def encoded(of: Sequence[Chat] | None = None) -> ChatRows:
    return encode_chats(chats() if of is None else of, template(), LENGTH)


def texts() -> dict[int, tuple[str, ...]]:
    """Three other prompts of each behaviour but the last, by its id."""
    ways = ("Tell me: {}", "{} Now.", "Please! {}")
    return {chat.id: tuple(way.format(chat.prompt) for way in ways) for chat in chats()[:-1]}


def searched() -> Searched:
    """A search of one step for a suffix of two tokens."""
    return Searched(lambda seed, init: Gcg(1, 2, init, width=4, top_k=8, early_stop=False, seed=seed), seed=1)


def seeding(source: Source | None = None, **more: object) -> Seeding:
    """With a pool of its own."""
    own: Mapping[int, Chat] = {chat.id: chat for chat in chats()}
    options: dict[str, object] = {"every": 4, "drawing": Drawing(seed=3), "seed": 3, **more}
    return Seeding(source or Listed(texts()), own, template(), LENGTH, pool=Pool(), **options)  # type: ignore[arg-type]


def cat() -> Objective:
    """Away and toward on one delta."""
    return streams.together(Away(), Toward(), by=streams.attack())


def backpropagated(
    model: nn.Module,
    goal: Objective,
    size: int = ROWS,
    processes: int = 1,
    rank: int = 0,
    step: int = STEP,
    rows: ChatRows | None = None,
    order: Sequence[int] = range(ROWS),
) -> StepReport:
    """Adds the gradient of a step of all rows to `.grad`, as one process of several does with its share."""
    groups = in_groups(list(order)[rank::processes], Role.ADVERSARIAL, size)
    data = encoded() if rows is None else rows
    moment = Moment(step, measure=True)
    return accumulate(model, {Role.ADVERSARIAL: goal}, data, range(ROWS), groups, moment, processes=processes)


def gradient(goal: Objective, size: int = ROWS, **more: object) -> dict[str, Tensor]:
    """Of a step on a new model."""
    subject = model()
    backpropagated(subject, goal, size, **more)  # type: ignore[arg-type]
    return streams.gradients(subject)


SOURCES = {"file": lambda: Listed(texts()), "gcg": searched}


def steps(subject: nn.Module, source: str, size: int, processes: int = 1, rank: int = 0) -> dict[str, Tensor]:
    """The gradients of three steps on one pool, each row on another process in the second; the pool's bytes at last."""
    goal, found = Seeded(cat(), seeding(SOURCES[source](), share=0.7, every=2)), dict[str, Tensor]()
    for step in range(3):
        order = range(ROWS) if step % 2 == 0 else range(ROWS - 1, -1, -1)
        backpropagated(subject, goal, size, processes, rank, step, order=order)
        found |= {f"{step} {name}": value for name, value in streams.descended(bare(subject)).items()}
    return found | goal.pool.state()


def moved(subject: nn.Module) -> nn.Module:
    """The model with other adapter weights."""
    with torch.no_grad():
        for value in subject.parameters():
            if value.requires_grad:
                value.mul_(0.5)
    return subject
