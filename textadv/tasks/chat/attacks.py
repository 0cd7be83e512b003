"""The attacks that a run on a chat model is measured with, on its behaviours and with its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textadv.attacks import ThreatModel, radius_unit
from textadv.data import Chat, ChatSplits, encode_chats
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.safety.adversaries import Adversary, Direct, EmbeddingAttack, Prefill
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.radius_curve import Curve
from textadv.models import LoadedModel
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.elicitation import measuring_attack
from textadv.tasks.chat.rewritable import Rewritable
from textadv.tasks.chat.rewrites import rewrites
from textadv.tasks.chat.template import template
from textadv.values.batch import Role
from textadv.values.spaces import Embeddings

SEARCH_KEY = "evaluation.elicitation.attack"


def chat_attacks(
    config: ChatRunConfig,
    loaded: LoadedModel,
    chats: Sequence[Chat],
    threat: ThreatModel,
    streams: Mapping[Role, ChatSplits],
) -> dict[str, Adversary]:
    """What every behaviour is attacked with, by name. Raises ConfigError as `measuring_attack` does."""
    wanted, size = config.evaluation.elicitation, config.evaluation.batch_size
    found: dict[str, Adversary] = {"direct": Direct()}
    found |= {f"prefill {tokens}": Prefill(tokens) for tokens in wanted.prefill}
    radii: list[float | None] = [*(wanted.radii or [])] or [None]
    for radius in radii:
        name = "embedding" if radius is None else f"embedding at {radius:g}"
        attack = measuring_attack(wanted.attack, SEARCH_KEY, threat, config.seed, radius)
        found[name] = wanted.embedding_attack(attack, _beginnings(config, loaded), size)
    if wanted.suffix_tokens:
        slots = encode_chats(
            chats,
            template(config.model, loaded, config.data.surrogates),
            config.data.max_length + wanted.suffix_tokens,
            editable="suffix",
            suffix_slots=wanted.suffix_tokens,
        )
        unit = radius_unit(loaded.model, Embeddings(), threat.ball)
        free = config.evaluation.elicitation.suffix_attack(unit, config.seed)
        found[f"free suffix of {wanted.suffix_tokens}"] = EmbeddingAttack(free, 1, slots, batch_size=size)
    used = template(config.model, loaded, config.data.surrogates)
    train = {role: splits.train for role, splits in streams.items()}
    scene = Rewritable(
        loaded,
        used,
        chats,
        config.seed,
        config.evaluation.judge,
        size,
        train=train,
        max_length=config.data.max_length,
    )
    return found | rewrites(config.evaluation.rewrites, scene)


def chat_curve(config: ChatRunConfig, loaded: LoadedModel, threat: ThreatModel) -> Curve:
    """Attack success by radius, where the configuration names no radii. Raises as `chat_attacks` does."""
    wanted, size = config.evaluation.elicitation, config.evaluation.batch_size
    attack = measuring_attack(wanted.attack, SEARCH_KEY, threat, config.seed)
    attacks = wanted.curve(attack, _beginnings(config, loaded), size)
    return Curve(attacks, wanted.curve_behaviours)


def _beginnings(config: ChatRunConfig, loaded: LoadedModel) -> Beginnings:
    return Beginnings.of(template(config.model, loaded), REFUSAL_LISTS[config.evaluation.judge])
