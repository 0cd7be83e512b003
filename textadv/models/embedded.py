"""A perturbed text as the model's own forward takes it: embeddings in place of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textadv.models.places import encoder_of, space_module
from textadv.models.running import evaluating
from textadv.values.batch import Batch
from textadv.values.errors import ModelError
from textadv.values.spaces import Embeddings


@torch.no_grad()
def embedded_inputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The inputs of `batch` with `inputs_embeds` (B, S, D), its perturbed word embeddings, in place of `input_ids`.

    What the embedding module returns, plus the delta: before positions and types are added. The model called on it
    returns what `forward` returns for the batch, where it reads its tokens nowhere else. A decoder's classification
    head does: it looks for the last token that is no padding, so its rows must be given one by one, unpadded.

    Raises ModelError for encoder-decoders, whose decoders read the tokens as well.
    """
    kept = batch.perturbation
    if kept is None or not isinstance(kept.space, Embeddings):
        raise ValueError(f"Embeddings of rows perturbed in embeddings are asked for, got {kept and kept.space}.")
    if encoder_of(model) is not None:
        raise ModelError(
            "An encoder-decoder reads its tokens twice, and its perturbed embeddings are no input of it. Run "
            "forward(model, attacked.batch), which adds the perturbation where it belongs."
        )
    with evaluating(model):
        embedded = space_module(model, kept.space)(batch.inputs["input_ids"])
    rest = {name: value for name, value in batch.inputs.items() if name != "input_ids"}
    return {"inputs_embeds": embedded + kept.delta.detach().to(embedded.dtype), **rest}
