"""The prompts that the adversarial rows of a run ask with in training, made ready for its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from textadv.attacks.prompts.seeding import Seeding
from textadv.data import Chat, ChatRows, DataError
from textadv.data.paraphrases import Joined
from textadv.data.rendering import Template
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.seeds import SEEDS, ChatAttackConfig
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


def room_notes(
    config: ChatRunConfig, begun: Seeding | None, chats: Sequence[Chat], rows: ChatRows, found: Joined | None
) -> Iterator[str]:
    """How many of the prompts that were read, or of the rows for which one is searched, do not fit into the model.

    begun: of `seeding`. Raises DataError where none fits.
    """
    length, wanted = config.data.max_length, config.attack.seeds
    if begun is None or wanted is None:
        return
    if found is not None:
        tried = [begun.encoded(chat, text) for chat, own in zip(chats, found.texts, strict=True) for text in own]
        counted, fitting = f"of {len(tried)} prompts", sum(one is not None for one in tried)
        unfit = len(tried) - fitting
    else:
        unfit = sum(size + wanted.tokens > length for size in rows.lengths[: len(chats)])
        counted, fitting = f"of {len(chats)} training behaviours", len(chats) - unfit
    if not unfit:
        return
    told = (
        f"{SEEDS}: {unfit} {counted} have no room in data.max_length: {length} beside their answers, and are left out."
    )
    if not fitting:
        raise DataError(f"{told} None is left: raise data.max_length, or remove {SEEDS}.")
    yield told


def lighter_chat(attack: ChatAttackConfig) -> ChatAttackConfig:
    """The attack with one step, and its search for prompts with as little as there can be."""
    seeds = attack.seeds
    brief = lighter(attack)
    assert isinstance(brief, ChatAttackConfig)
    return brief if seeds is None else brief.model_copy(update={"seeds": seeds.lighter()})
