"""The chats of a run in a model's tokens, tried on it, and the places where it is attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textadv.attacks import ThreatModel
from textadv.config.types import ConfigError
from textadv.data import ChatRows, ChatSplits, encode_chats, spelled_warning
from textadv.models import LoadedModel, blocks, device_of, require_embedded, require_longest, space_module
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.template import template
from textadv.values.batch import Role
from textadv.values.spaces import Hidden, Several

THREAT_ROWS = 64
SPLITS = ("train", "validation", "test")


def encoded_parts(config: ChatRunConfig, loaded: LoadedModel, splits: ChatSplits) -> tuple[ChatRows, ...]:
    """Training and, where there are some, validation and test rows."""
    parts = [part for part in (splits.train, splits.validation, splits.test) if part]
    used = template(config.model, loaded, config.data.surrogates)
    return tuple(encode_chats(part, used, config.data.max_length, editable=config.data.editable) for part in parts)


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


def resolved_threat(config: ChatRunConfig, loaded: LoadedModel, rows: ChatRows) -> ThreatModel:
    """The threat with an absolute radius; one relative to hidden states is measured on the first of these rows.

    Raises as `require_places`.
    """
    threat = config.threat.make()
    require_places(config, loaded, threat)
    sample = rows.batch(range(min(len(rows), THREAT_ROWS))).to(device_of(loaded.model))
    return threat.resolved(loaded.model, sample.prompts())


def require_places(config: ChatRunConfig, loaded: LoadedModel, threat: ThreatModel) -> None:
    """Raises ModelError where the model has no such block, ConfigError where a change there would reach no answer."""
    last = len(blocks(loaded.model)) - 1
    for place in threat.space.places if isinstance(threat.space, Several) else (threat.space,):
        space_module(loaded.model, place)
        if place == Hidden(last) and config.data.editable == "user":
            raise ConfigError(
                [
                    f"threat.layer or threat.layers: {last} is the last block, and what is added there to the user's "
                    f"tokens reaches no token of the answer. Name blocks 0 to {last - 1}."
                ]
            )
