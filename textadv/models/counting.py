"""How many parameters a token is multiplied with when it goes through a model."""

from __future__ import annotations

from collections.abc import Iterator

from peft.tuners.lora.layer import Embedding as LoraEmbedding
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from textadv.models.places import bare


def counted_parameters(model: nn.Module) -> int:
    """All parameters but those of embedding tables, in which a token is looked up.

    A table that is the output head as well (tied weights) counts once, as the head. Linear layers count what they
    multiply with, however many bits hold it; adapters count beside their base, but for the table of one on embeddings.
    Of a layer that an adapter trains whole the copy that is used counts. Of a mixture of experts all count.
    """
    whole = bare(model)
    unused = {id(module) for module in _unused(whole)}
    multiplied: dict[int, int] = {}
    for module in whole.modules():
        if isinstance(module, nn.Embedding) or id(module) in unused:
            continue
        for name, own in module.named_parameters(recurse=False):
            size = own.numel()
            if isinstance(module, nn.Linear) and name == "weight":
                size = module.in_features * module.out_features
            multiplied[id(own)] = size
    return sum(multiplied.values())


def _unused(model: nn.Module) -> Iterator[nn.Module]:
    """Modules in which tokens are looked up, and those that another one stands in for."""
    for module in model.modules():
        if isinstance(module, LoraEmbedding):
            yield module.lora_embedding_A
        elif isinstance(module, ModulesToSaveWrapper):
            copies = [copy for name, copy in module.modules_to_save.items() if name not in module.active_adapters]
            for one in (module.original_module, *copies):
                yield from one.modules()
