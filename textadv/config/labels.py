"""Names of a user's choice that become keys, columns or files of results: no two alike, none that is taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

ATTACKS = r"direct|worst_case|prefill_\d+|embedding(_at_.*)?|free_suffix_of_\d+"
"""What the attacks on a chat model are called in ids."""
TAKEN = {"clean", "worst_case"}
"""What stands beside the attacks of a classifier in tables."""


def called(name: str) -> str:
    """The name as ids and files that tell no capitals apart have it; see `textadv.measuring.safety.measure_ids`."""
    return re.sub(r"[^a-z0-9.-]+", "_", name.lower()).strip("_")


def set_problems(sets: Mapping[str, Iterable[str]]) -> list[str]:
    """What is wrong with the names of the sets that a chat model is measured on, by the key that holds them."""
    keys = [f"{key}.{name}" for key, names in sets.items() for name in names]
    lines = []
    for key in keys:
        name = called(key.rpartition(".")[2])
        if name == "borderline":
            lines.append(f"{key} is what the rows of data.borderline are called. Rename it.")
        elif re.fullmatch(ATTACKS, name):
            lines.append(f"{key} is what an attack is called, under whose name answers are kept. Rename it.")
        elif not name:
            lines.append(f"{key} needs a letter or a digit to be told from others in results. Rename it.")
    return lines + _alike(keys)


def attack_problems(key: str, names: Iterable[str]) -> list[str]:
    """What is wrong with the names of a classifier's attacks, which stand at `key`."""
    keys = [f"{key}.{name}" for name in names]
    taken = [own for own in keys if called(own.rpartition(".")[2]) in TAKEN]
    lines = [f"{own} is what tables call another column. Rename it." for own in taken]
    return lines + _alike(keys)


def radius_problems(radii: Sequence[float]) -> list[str]:
    """Radii by which attacks would be called alike, so that one would take the other's place."""
    first: dict[str, float] = {}
    lines = []
    for radius in radii:
        if (name := f"{radius:g}") in first:
            lines.append(
                f"evaluation.elicitation.radii: {first[name]} and {radius} would both be called embedding at {name}. "
                "Leave one out."
            )
        first.setdefault(name, radius)
    return lines


def _alike(keys: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    lines = []
    for key in keys:
        name = called(key.rpartition(".")[2])
        if name and name in first:
            lines.append(f"{first[name]} and {key} would be called alike in results and files. Rename one of them.")
        first.setdefault(name, key)
    return lines
