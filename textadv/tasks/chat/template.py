"""What a chat run has to do with its chat template: how it is used, what follows from it, what a reader must know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from textadv.config.types import ConfigError
from textadv.data import ChatRows, ChatSplits
from textadv.data.characters import Surrogates, unbroken
from textadv.data.chat_rows import THOUGHTFUL
from textadv.data.rendering import Template, varying
from textadv.data.thoughts import Marks
from textadv.models import LoadedModel
from textadv.tasks.chat.config import ChatModelConfig, ChatRunConfig
from textadv.values.batch import Role
from textadv.values.descriptions import INITIAL, model_hashes
from textadv.values.digests import digest

Encoded = Mapping[Role, Sequence[ChatRows]]
"""Of each stream the parts that are not empty, in the order of train, validation and test."""


def template(config: ChatModelConfig, loaded: LoadedModel, surrogates: Surrogates = "error") -> Template:
    """The model's chat template with the variables and marks that the configuration gives it.

    surrogates: half characters in the template, or in what it writes, are an error, or U+FFFD is put in their place.
    Raises ConfigError where the template reads no variable of a name.
    """
    name = f"the tokenizer's own chat template (model.name {config.name})"
    if config.chat_template is not None:
        name = f"the chat template in model.chat_template ({config.chat_template})"
    source = loaded.tokenizer.chat_template = unbroken(loaded.tokenizer.chat_template, name, surrogates)
    unread = [name for name in config.template_variables if not re.search(rf"\b{name}\b", str(source))]
    if source is not None and unread:
        keys = ", ".join(f"model.template_variables.{name}" for name in unread)
        raise ConfigError([f"{keys}: the chat template reads no variable of that name. Correct or remove it."])
    think = None if config.think is None else Marks(*config.think)
    return Template(loaded.tokenizer, dict(config.template_variables), think, name, surrogates)


def chat_hashes(
    streams: Mapping[Role, ChatSplits], encoded: Encoded, loaded: LoadedModel, used: Template
) -> dict[str, str]:
    """SHA-256 of each stream's parts, as texts and as the tokens that the template makes of them, of tokenizer and
    template, and of the weights and settings that the run starts from."""
    found = {}
    for role, splits in streams.items():
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        for name, part in parts.items():
            text = json.dumps([[list(map(dict, chat.messages)), dict(chat.answers)] for chat in part])
            found[f"data.{role.name.lower()}.{name}"] = digest([text.encode()])
        for name, rows in zip((name for name, part in parts.items() if part), encoded.get(role, ()), strict=False):
            found[f"data.{role.name.lower()}.{name}.tokens"] = rows.digest
    vocabulary = json.dumps(sorted(loaded.tokenizer.get_vocab().items()))
    found["tokenizer"] = digest([vocabulary.encode()])
    use = json.dumps([dict(used.variables), used.think]) if used.variables or used.think else ""
    found["chat_template"] = digest([str(loaded.tokenizer.chat_template).encode(), use.encode()])
    return found | model_hashes(INITIAL, loaded.model)


def changed_tokens(changed: Sequence[str], streams: Mapping[Role, ChatSplits], used: Template) -> str:
    """Why tokens have changed whose texts have not, and what to do; "" where more than tokens has changed."""
    if not all(name.endswith(".tokens") for name in changed):
        return ""
    written = _varying(streams, used)
    why = "Another version of transformers, or of the tokenizer's files, reads them otherwise."
    if written:
        why = f"The chat template reads the clock, and now writes {written!r}: see model.template_variables."
    return f"The texts in them are the same. {why} Start anew in another output folder."


def clock_warning(streams: Mapping[Role, ChatSplits], used: Template) -> Iterator[str]:
    """That the template writes otherwise at another time, where it does."""
    written = _varying(streams, used)
    if written:
        yield (
            f"The chat template reads the clock: now it writes {written!r}, at another time another line. What is "
            "measured then is measured with other prompts, and a run that is interrupted cannot be resumed. To hold it "
            "still give the date in model.template_variables, if the template reads one there, or another template in "
            "model.chat_template."
        )


def template_warnings(
    config: ChatRunConfig, streams: Mapping[Role, ChatSplits], encoded: Encoded, used: Template
) -> Iterator[str]:
    """What of the chat template, and of the texts that it was given, a reader must know."""
    yield from clock_warning(streams, used)
    if config.model.template_variables:
        told = ", ".join(f"{name}: {json.dumps(value)}" for name, value in config.model.template_variables.items())
        yield (
            f"model.template_variables ({told}) are not saved with the model: whoever serves it must pass the same to "
            "its chat template (chat_template_kwargs, as most servers call them)."
        )
    for role, parts in encoded.items():
        yield from _told(f"data.{role.name.lower()}", config, parts)


def _varying(streams: Mapping[Role, ChatSplits], used: Template) -> str:
    """A line of a prompt of any stream that the template writes otherwise at another time."""
    found = (varying(used, splits.train[0].messages) for splits in streams.values())
    return next(filter(None, found), "")[:80]


def _told(key: str, config: ChatRunConfig, parts: Sequence[ChatRows]) -> Iterator[str]:
    """What a stream's texts hold that is no plain text."""
    kept = sum(rows.kept_thoughts for rows in parts)
    if kept:
        yield f"{key}: {kept} answers hold a thought. It stands before the answer and is not trained."
    left = sum(rows.left_thoughts for rows in parts)
    if left:
        long = parts[0].main == THOUGHTFUL
        why = f", for which the prompt or data.max_length: {config.data.max_length} leaves no room" if long else ""
        yield f"{key}: {left} answers hold a thought{why}. It is left out, and the answer alone trained and measured."
