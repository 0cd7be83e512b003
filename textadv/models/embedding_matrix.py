"""The matrix of word embeddings as it is trained: whole, or a frozen one with low-rank factors on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from peft.tuners.lora.layer import Embedding as LoraEmbedding
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from textadv.models.adapting import tied
from textadv.models.places import bare, pretrained, space_module
from textadv.values.errors import ModelError
from textadv.values.spaces import Embeddings


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to the matrix: scale x (b a)^T. a: (rank, V). b: (D, rank)."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class EmbeddingMatrix:
    """The matrix (V, D) that word embeddings are rows of. base: (V, D). factors: of the active adapters."""

    base: Tensor
    factors: tuple[Factors, ...] = ()

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """What is trained of it: the base (V, D), then a (rank, V) and b (D, rank) of each adapter; empty: nothing."""
        parts = (self.base, *(part for one in self.factors for part in (one.a, one.b)))
        return tuple(part for part in parts if part.requires_grad)

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The matrix (V, D) itself, detached."""
        return self.base + sum((one.scale * (one.b @ one.a).T for one in self.factors), torch.zeros_like(self.base))


def embedding_matrix(model: nn.Module) -> EmbeddingMatrix:
    """The weights of the model's word embedding, in place. A factor in the forward (Gemma's) is no part of it.

    Raises ModelError where an adapter changes it in another way than LoRA does.
    """
    module = space_module(model, Embeddings())
    if isinstance(module, ModulesToSaveWrapper):
        module = module.modules_to_save[module.active_adapters[0]]
    if isinstance(module, LoraEmbedding):
        base = cast(nn.Embedding, module.get_base_layer())
        active = [name for name in module.active_adapters if name in module.lora_embedding_A]
        if not any(name in module.lora_variant for name in active):
            pairs = ((module.lora_embedding_A[name], module.lora_embedding_B[name]) for name in active)
            scales = (module.scaling[name] for name in active)
            return EmbeddingMatrix(
                base.weight,
                tuple(Factors(a, b, scale) for (a, b), scale in zip(pairs, scales, strict=True)),
            )
    elif isinstance(module, nn.Embedding):
        return EmbeddingMatrix(module.weight)
    raise ModelError(
        f"The word embedding of {type(bare(model)).__name__} is a {type(module).__name__}, and its matrix is read of "
        "plain embeddings, of those that are trained whole and of LoRA without variants. Use one of these."
    )


def embedding_name(model: nn.Module) -> str:
    """What the module of word embeddings is called in `model.lora.targets`: "embed_tokens", "wte"."""
    wanted = space_module(model, Embeddings())
    names = (name for name, module in bare(model).named_modules() if module is wanted)
    return next(names).rpartition(".")[2]


def ties_embeddings(model: nn.Module) -> bool:
    """Whether the model's configuration says that the output layer has the weight of the word embedding."""
    return tied(pretrained(model).config)
