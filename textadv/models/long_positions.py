"""LongRoPE: positions that are read in one of two ways, the same for all rows of a pass (arXiv:2402.13753)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from textadv.models.places import pretrained
from textadv.values.errors import ModelError


def short_positions(model: nn.Module) -> int | None:
    """The most tokens of a row that LongRoPE reads with its short factors; None where the model has no LongRoPE.

    transformers reads all rows of a pass, padded to the longest, with the long factors where that one has more.
    """
    try:
        settings = pretrained(model).config.get_text_config().rope_parameters
    except AttributeError:
        return None
    if not isinstance(settings, Mapping):
        return None
    # Where kinds of layers differ, each has settings of its own.
    own = [one for one in (settings, *settings.values()) if isinstance(one, Mapping)]
    found = [one.get("original_max_position_embeddings") for one in own if one.get("rope_type") == "longrope"]
    return min((int(most) for most in found if most is not None), default=None)


def require_short_positions(name: str, model: nn.Module, max_length: int) -> None:
    """Raises ModelError where rows of `max_length` tokens, data.max_length, are too long for LongRoPE's short factors.

    Losses and attacks of a row would follow from the rows beside it. name: the model's.
    """
    most = short_positions(model)
    if most is not None and max_length > most:
        raise ModelError(
            f"data.max_length: {max_length} lets rows of more than {most} tokens through, and model.name {name} has "
            "LongRoPE, which reads all rows of a batch in another way where one of them is longer than that: what a "
            f"row gets would depend on the rows beside it. Lower data.max_length to {most}."
        )
