"""How many parameters a token is multiplied with when it goes through a model."""

from __future__ import annotations

from torch import nn

from textadv.models.places import bare


def counted_parameters(model: nn.Module) -> int:
    """All parameters but those of embedding tables, in which a token is looked up.

    A table that is the output head as well (tied weights) counts once, as the head. Linear layers count what they
    multiply with, however many bits hold it; adapters count beside their base. Of a mixture of experts all count.
    """
    multiplied: dict[int, int] = {}
    for module in bare(model).modules():
        for name, own in module.named_parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                continue
            size = own.numel()
            if isinstance(module, nn.Linear) and name == "weight":
                size = module.in_features * module.out_features
            multiplied[id(own)] = size
    return sum(multiplied.values())
