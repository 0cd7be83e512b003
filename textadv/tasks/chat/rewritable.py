"""What an attack in text on a chat model is made for, whatever its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from textadv.attacks.prompts.rewritten import RewritingAttack
    from textadv.data import Chat
    from textadv.data.rendering import Template
    from textadv.measuring.safety.adversaries import Adversary
    from textadv.models import LoadedModel
    from textadv.values.batch import Role

KEY = "evaluation.rewrites"


class Rewritable(NamedTuple):
    """What an attack in text is made for.

    chats: the behaviours. template: as the model's chats are written. judge: name of the refusal list that decides.
    batch_size: rows per forward. key: of the section, for errors. train: training rows of each stream; max_length: the
    most tokens that they have.
    """

    loaded: LoadedModel
    template: Template
    chats: Sequence[Chat]
    seed: int
    judge: str
    batch_size: int
    key: str = KEY
    train: Mapping[Role, Sequence[Chat]] = MappingProxyType({})
    max_length: int = 256

    def asked_with(self, attack: RewritingAttack, *, drawn: bool = False) -> Adversary:
        """The adversary that asks what this attack makes of the behaviours. drawn: its variants are drawn alike."""
        from textadv.measuring.safety.rewriting import Rewriting

        return Rewriting(attack, self.chats, self.template, drawn=drawn)
