"""The ids of a chat run's measures: what programs compare by, while names are for people.

An id is `GROUP/WHAT` or `GROUP/WHAT/ASPECT`: the group with underscores, then the parts of the name. Attack success
has the attack (`attack_success/prefill_5`, `attack_success/worst_case`) and, for a judge beside the one that decides,
that judge (`attack_success/direct/target_said`), as `not_refused` and `broken_off` have; over-refusal the prompts and
what became of them (`over_refusal/borderline/refused`); capability the file and the test
(`capability/arc_easy/multiple_choice`). `capability/utility/perplexity` is the utility rows'. An id says nothing of
models, and stays where the wording of a name changes.
"""

from __future__ import annotations

import re

PERPLEXITY = {"utility perplexity": "utility: perplexity"}


def measure_id(group: str, name: str) -> str:
    """The id of the measure that has this name in its group, as results had it before they held ids."""
    what, _, judge = name.partition(" (") if name.endswith(")") else (PERPLEXITY.get(name, name), "", "")
    parts = [*what.split(": "), *([judge[:-1]] if judge else [])]
    return "/".join((_part(group).replace("-", "_"), *map(_part, parts)))


def _part(text: str) -> str:
    """Letters, digits, dots, underscores and dashes; what is between others becomes one underscore."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")
