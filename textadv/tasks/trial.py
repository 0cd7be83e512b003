"""The rows and the first steps of a run tried on its model, before anything expensive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from torch import nn

from textadv.attacks import ThreatModel
from textadv.config.chat import ChatRunConfig
from textadv.config.objective import replays_of
from textadv.config.tasks import ClassifierRunConfig
from textadv.config.text import AttackConfig, RunConfig
from textadv.data import ChatRows, EncodedRows, Rows, length_warning, spelled_warning, unknown_warning
from textadv.measuring.safety.chat import Panel
from textadv.models import LoadedModel, TokenRows, require_embedded, require_longest, require_movable, require_readable
from textadv.objectives import Objectives, hardening
from textadv.tasks import components as build
from textadv.training.mixing import NO_ATTACK
from textadv.training.rehearsal import Rehearsal, rehearse
from textadv.training.sampling import OneStream, Sampler
from textadv.values.batch import Role

SPLITS = ("train", "validation", "test")


def read_texts(config: RunConfig, loaded: LoadedModel, parts: Sequence[EncodedRows]) -> tuple[str, ...]:
    """Sends texts of every kind through the model; sentences about what a reader must know of them.

    parts: train, validation and test rows. Raises ModelError where the model cannot read one, or cannot be attacked.
    """
    named = dict(zip(SPLITS, parts, strict=True))
    doubts = (
        require_readable(config.model.name, loaded, named, config.data.max_length),
        spelled_warning(named, loaded.tokenizer),
        unknown_warning(named, loaded.tokenizer),
        length_warning(config.data.max_length, named, loaded.tokenizer),
    )
    require_movable(config.model.name, loaded.model, named, build.threat(config.threat).space)
    return tuple(doubt for doubt in doubts if doubt is not None)


def read_chats(
    config: ChatRunConfig, loaded: LoadedModel, streams: Mapping[Role, Sequence[ChatRows]]
) -> tuple[str, ...]:
    """Looks every token up in the model's table and sends the longest chat through; sentences about what to know.

    streams: the rows of each split that a stream has. Raises ModelError where the model cannot read one.
    """
    named = {
        f"{role.name.lower()} {split}": rows
        for role, parts in streams.items()
        for split, rows in zip(SPLITS, parts, strict=False)
    }
    require_embedded(config.model.name, loaded.model, loaded.tokenizer, named)
    require_longest(config.model.name, loaded.model, named, config.data.max_length)
    doubt = spelled_warning(named, loaded.tokenizer)
    return () if doubt is None else (doubt,)


def read_panel(config: ChatRunConfig, loaded: LoadedModel, panel: Panel) -> None:
    """The same for what is measured: chats, prompts to be answered and questions."""
    chats = {"behaviour": panel.behaviours, "utility": panel.utility}
    asked = {f"{name} prompt": one for name, one in panel.benign.items()}
    asked |= {f"evaluation.instructions.{name}": one for name, (_, one) in panel.instructions.items()}
    prompts = {name: TokenRows(range(len(one.ids)), one.ids) for name, one in asked.items()}
    for name, questions in panel.questions.items():
        texts = [" ".join((one.question, *one.choices)) for one in questions]
        tokens = loaded.tokenizer(texts, verbose=False)["input_ids"] if texts else []
        prompts[f"evaluation.questions.{name}"] = TokenRows(range(len(texts)), tokens)
    require_embedded(config.model.name, loaded.model, loaded.tokenizer, {**chats, **prompts})
    require_longest(config.model.name, loaded.model, chats, config.data.max_length)


def lighter(attack: AttackConfig) -> AttackConfig:
    """The attack with one step."""
    return attack.model_copy(update={"steps": 1, "restarts": 1, "steps_schedule": None})


def rehearse_classifier(
    config: ClassifierRunConfig, accelerator: Accelerator, model: nn.Module, train: Rows, threat: ThreatModel
) -> None:
    """Tries the smallest forwards and backwards that the trainings of this run make, see `rehearse`."""
    size, seed, training = config.training.batch_size, config.seed, config.training
    objective = build.objective(config.objective, lighter(config.attack), threat, seed, config.mixing)
    mixing = NO_ATTACK if objective is None else build.mixing(config.mixing, seed)
    samplers: list[Sampler] = [OneStream(train, mixing, size, seed, replays_of(config.objective))]
    samplers += [OneStream(train, NO_ATTACK, size, seed)] if config.baselines else []
    run = Rehearsal(
        accelerator,
        config.model.name,
        hardening(objective),
        samplers,
        build.optimizer_steps(len(train), training),
        training.micro_batch_size,
        seed,
    )
    with build.trained_with(config.objective, model, train, seed):
        rehearse(model, run)


def rehearse_chat(
    config: ChatRunConfig,
    accelerator: Accelerator,
    model: nn.Module,
    objectives: Objectives,
    sampler: Sampler,
    steps: int,
) -> None:
    """The same for the training of a chat model.

    objectives: with an attack of one step.
    """
    size = config.training.micro_batch_size
    rehearse(model, Rehearsal(accelerator, config.model.name, objectives, [sampler], steps, size, config.seed))
