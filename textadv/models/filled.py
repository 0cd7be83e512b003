"""Which weights of a model its checkpoint filled, and which of the checkpoint's found no place in it.

Nothing is drawn at random, and nothing left out, without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from textadv.models.places import blocks, pretrained
from textadv.models.sources import require_safetensors
from textadv.values.errors import ModelError

POOLER = "pooler."
# Old checkpoints have no such count, and only a momentum of null reads it.
COUNTED = "num_batches_tracked"
CORRECT = "Correct config.json, or download the model again."


class Filled(NamedTuple):
    """A model of transformers with the weights of its checkpoint.

    new: the names of the weights that the checkpoint lacked, or had in another shape. random, spare: a sentence for the
    report where some of those lie below the head, and where the checkpoint holds more blocks than config.json asks for.
    """

    model: nn.Module
    new: tuple[str, ...]
    random: tuple[str, ...]
    spare: tuple[str, ...]


def filled(name: str, auto: Any, heads: Iterable[str] = (), **settings: Any) -> Filled:
    """The model of `name` as the class `auto` of transformers loads it from safetensors. settings: for `auto`.

    heads: parts of names of weights that a new one may take the place of. Raises ModelError where the checkpoint is a
    pickle, does not fit config.json, or lacks most of the model.
    """
    require_safetensors(name, auto.__name__)
    model, report = auto.from_pretrained(
        name, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **settings
    )
    _require_shapes(name, report, heads)
    new = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    random = _require_body(name, model, report["missing_keys"])
    return Filled(model, tuple(new), random, _left_out(name, model, report))


def _require_shapes(name: str, report: Mapping[str, Any], heads: Iterable[str]) -> None:
    """Raises ModelError where the checkpoint holds a weight in another shape than config.json says.

    heads: parts of names of weights for which that is no fault, since a new one takes their place.
    """
    free = tuple(heads)
    wrong = sorted(found for found in report["mismatched_keys"] if not any(part in found[0] for part in free))
    if wrong:
        key, held, wanted = wrong[0]
        more = "" if len(wrong) == 1 else f" ({len(wrong)} weights do not fit)"
        raise ModelError(
            f"model.name {name!r}: the checkpoint holds {key} in the shape {tuple(held)}, and its config.json asks for "
            f"{tuple(wanted)}{more}. {CORRECT}"
        )


def _require_body(name: str, model: nn.Module, missing: Iterable[str]) -> tuple[str, ...]:
    """A sentence for the report where some weights below the head, other than a pooler's, are new; () where none is.

    missing: names of the weights that the checkpoint lacked.

    Raises ModelError where most of the model below its head, or a whole block of it, is missing from the checkpoint.
    """
    lacking = set(missing)
    prefix = f"{pretrained(model).base_model_prefix}."
    body = {key: value.numel() for key, value in model.state_dict().items() if key.startswith(prefix)}
    absent = [key for key in body if key in lacking]
    if 2 * sum(body[key] for key in absent) > sum(body.values()):
        raise ModelError(
            f"model.name {name!r}: the weights of {type(model).__name__} are not in the checkpoint ({len(absent)} of "
            f"{len(body)} below the head, such as {absent[0]}), so the model would be random. Its config.json names "
            "another architecture than the weights have, or they carry other names."
        )
    place = _place_of_blocks(model)
    for number in range(len(blocks(model)) if place else 0):
        own = [key for key in body if key.startswith(f"{place}.{number}.")]
        if own and lacking.issuperset(own):
            raise ModelError(
                f"model.name {name!r}: the checkpoint lacks block {number} ({own[0]} and {len(own) - 1} more), which "
                f"config.json asks for, so it would be random. {CORRECT}"
            )
    new = [key for key in absent if not key.startswith(f"{prefix}{POOLER}") and not key.endswith(COUNTED)]
    if not new:
        return ()
    return (
        f"model: the checkpoint of {name} lacks {len(new)} of {len(body)} weights below the head, such as {new[0]}: "
        "they start at random.",
    )


def _left_out(name: str, model: nn.Module, report: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for the report where the checkpoint holds more blocks than config.json asks for; () where not."""
    place = _place_of_blocks(model)
    if not place:
        return ()
    # A checkpoint may have been saved with or without the name of the model's body before the block's.
    tail = place.removeprefix(f"{pretrained(model).base_model_prefix}.")
    pattern = re.compile(rf"(?:.*\.)?{re.escape(tail)}\.(\d+)\.")
    found = {int(match[1]) for key in report["unexpected_keys"] if (match := pattern.match(key))}
    spare = sorted(number for number in found if number >= len(blocks(model)))
    if not spare:
        return ()
    return (
        f"model: the checkpoint of {name} holds {len(spare)} blocks more (from {tail}.{spare[0]} on) than the "
        f"{len(blocks(model))} of its config.json. They are left out.",
    )


def _place_of_blocks(model: nn.Module) -> str:
    """The name of the list of blocks in the model; "" where there is none, or all of them share their weights."""
    try:
        found = blocks(model)
    except (ModelError, AttributeError):
        return ""
    return next((key for key, module in model.named_modules() if module is found), "")
