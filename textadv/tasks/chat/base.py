"""The model that training started from, by which every measured chat model's answers are gibberish or fluent."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textadv.config.types import ConfigError
from textadv.data import Chat, DataError
from textadv.data.chat_template import encode_prompt
from textadv.data.rendering import Template
from textadv.measuring.judges.llm_judge import LlmJudge
from textadv.measuring.judges.verdicts import ClassifierJudge, Judge
from textadv.measuring.safety.fluency import Base, Messages, Written
from textadv.models import ModelError
from textadv.models.adapters import find_adapter
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.template import template

KEY = "evaluation.base_model"
TRIED = 8
MOST_REASON = 400
NO_BASE = (
    f"{KEY} is not set, and no --model is an adapter whose base could serve: gibberish is not looked for. Among "
    "attacked answers it counts as complied where it is on the subject or begins as the target, else as broken off; "
    f"among benign answers it counts as answered. Set {KEY} to the model that training started from; for a "
    "model that was not trained here (a base or foreign one), to that model itself."
)


def trained_base(config: ChatRunConfig, useful: Sequence[Written] = ()) -> Base | None:
    """The base of a training run; None where it is the trained model without its adapter.

    useful: good answers that it has to score. Raises ConfigError where evaluation.base_model cannot be loaded or used,
    or scores none of them.
    """
    if config.evaluation.base_model is not None:
        return _loaded(config, config.evaluation.base_model, None, useful)
    name = config.model.name
    if config.model.lora is not None or _adapter_base(config, name) is not None:
        return None
    return _loaded(config, name, config.model.revision, useful)


def common_base(
    config: ChatRunConfig, names: Sequence[str], useful: Sequence[Written] = ()
) -> tuple[Base | None, tuple[str, ...]]:
    """One base for all of these models, and what must be known of it.

    That is evaluation.base_model, or else the base of the first that is an adapter; None for a single adapter, which is
    its own base when it is switched off, and where none is known. Raises as `trained_base`.
    """
    if config.evaluation.base_model is not None:
        return _loaded(config, config.evaluation.base_model, None, useful), ()
    found = next((base for name in names if (base := _adapter_base(config, name)) is not None), None)
    if found is None:
        return None, (NO_BASE,)
    return (None if len(names) == 1 else _loaded(config, *found, useful)), ()


def _adapter_base(config: ChatRunConfig, name: str) -> tuple[str, str | None] | None:
    adapter = find_adapter(name, config.model.revision, tasks=("CAUSAL_LM", None))
    return None if adapter is None else (adapter.base, adapter.settings.revision)


def unread_notes(base: Base | None, useful: Sequence[Written], asked: Sequence[Messages]) -> tuple[str, ...]:
    """What a base cannot score, for the turns or the length: of good answers, and answers to behaviours (asked)."""
    if base is None:
        return ()
    attacked = [Written(turns, "", "") for turns in asked]
    told = []
    for rows, what, follows in (
        (useful, "good answers that set the limit of gibberish", "The limit follows from the others"),
        (attacked, "behaviours", "Answers to them are not looked at for gibberish"),
    ):
        count, reason = base.unread(rows)
        if count:
            told.append(
                f"{base.name}, which tells gibberish, cannot score {count} of {len(rows)} {what}, the first because "
                f"of: {reason[:MOST_REASON]}. {follows}; set {KEY} to a model that takes these turns and this length."
            )
    return tuple(told)


def _check_scores(base: Base, useful: Sequence[Written]) -> None:
    """Raises ConfigError where the base scores no good answer, or no likelihood of the first is a number."""
    count, reason = base.unread(useful)
    if useful and count == len(useful):
        told = f"none of {count} good answers can be scored, the first because of: {reason[:MOST_REASON]}"
    elif (
        useful
        and not any(map(math.isfinite, base.nll(useful[:TRIED])))
        and not any(map(math.isfinite, base.nll(useful)))
    ):
        told = f"of {len(useful)} good answers no likelihood is a finite number"
    else:
        return
    remedy = f"Set {KEY} to a model whose chat template takes the turns of data.utility and whose positions hold them."
    raise ConfigError([f"{KEY}: {base.name} cannot tell gibberish from fluent text: {told}. {remedy}"])


def _loaded(config: ChatRunConfig, name: str, revision: str | None, useful: Sequence[Written] = ()) -> Base:
    changed = {"name": name, "revision": revision, "lora": None, "quantization": None, "gradient_checkpointing": False}
    settings = config.model.model_copy(update=changed)
    try:
        loaded = settings.make(config.seed)
        used = template(settings, loaded, config.data.surrogates)
        encode_prompt(used, [{"role": "user", "content": "Yes or no?"}])
    except (ModelError, DataError) as error:
        raise ConfigError(
            [f"{KEY}: {error} It tells gibberish from fluent text: name the model that training started from."]
        ) from error
    loaded.model.eval().requires_grad_(False)
    base = Base(name, loaded.model, used)
    _check_scores(base, useful)
    return base


def useful_answers(chats: Sequence[Chat], used: Template) -> tuple[Written, ...]:
    """The responses of useful chats, thoughts left out, as answers that a fluent model could have given."""
    said = [(chat.messages, used.split(chat.answers["response"]).text) for chat in chats]
    return tuple(Written(messages, "", text) for messages, text in said)


def deciding(others: Sequence[Judge]) -> Judge | None:
    """Of the second judges the one whose verdict decides: a language model, else a classifier, else none."""
    for kind in (LlmJudge, ClassifierJudge):
        for judge in others:
            if isinstance(judge, kind):
                return judge
    return None
