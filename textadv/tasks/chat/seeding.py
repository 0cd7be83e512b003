"""The prompts that the adversarial rows of a run ask with in training, made ready for its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textadv.attacks.prompts.seeding import Seeding
from textadv.data import Chat, ChatRows
from textadv.data.paraphrases import Joined
from textadv.data.rendering import Template
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.seeds import ChatAttackConfig
from textadv.tasks.checks import lighter


def seeding(
    config: ChatRunConfig,
    used: Template,
    chats: Sequence[Chat],
    rows: ChatRows,
    variants: Mapping[int, Sequence[int]],
    found: Joined | None,
) -> Seeding | None:
    """What attack.seeds says of these training chats, whose rows may be followed by those of their paraphrases.

    variants: the positions of all rows that are of a chat, by its own; the others have one. found: the prompts of
    files, of each chat. None where the section is null. Each call gives a pool of its own, which is empty.
    """
    wanted = config.attack.seeds
    if wanted is None:
        return None
    texts = {} if found is None else {chat.id: own for chat, own in zip(chats, found.texts, strict=True)}
    of_row = {rows.ids[place]: chat for n, chat in enumerate(chats) for place in variants.get(n, (n,))}
    return Seeding(
        wanted.source(texts, config.seed),
        of_row,
        used,
        config.data.max_length,
        config.data.editable,
        config.mixing.discrete,
        wanted.every,
        wanted.pool,
        wanted.drawing(config.seed),
        config.objective.defence_steps,
        config.seed,
    )


def lighter_chat(attack: ChatAttackConfig) -> ChatAttackConfig:
    """The attack with one step, and its search for prompts with as little as there can be."""
    seeds = attack.seeds
    brief = lighter(attack)
    assert isinstance(brief, ChatAttackConfig)
    return brief if seeds is None else brief.model_copy(update={"seeds": seeds.lighter()})
