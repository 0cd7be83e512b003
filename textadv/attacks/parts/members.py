"""What an attack is made of: attacks in attacks, and the threat models that they are built for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from textadv.attacks.parts.threat import ThreatModel
from textadv.values.batch import Batch


def parts(attack: object) -> Iterator[object]:
    """The attack, every dataclass in it and in these, and so on; not what its batches hold."""
    if isinstance(attack, Mapping):
        for part in attack.values():
            yield from parts(part)
    elif isinstance(attack, tuple):
        for part in attack:
            yield from parts(part)
    elif is_dataclass(attack) and not isinstance(attack, type | Batch):
        yield attack
        for field in fields(attack):
            yield from parts(vars(attack)[field.name])


def threats(attack: object) -> list[ThreatModel]:
    """Every threat model that the attack, or an attack in it, is built for."""
    return [part for part in parts(attack) if isinstance(part, ThreatModel)]
