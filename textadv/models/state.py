"""What training changes of a model: taken out, and put back in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from textadv.models.places import bare
from textadv.values.errors import ModelError
from textadv.values.plurals import some

TRAINING_ONLY = "training_only_"
"""Submodules whose name begins so exist while a model is trained, and are neither exported nor missed."""


def _whole(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one (a collective call), the tensor itself otherwise."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return tensor


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters themselves that require a gradient, of any shape by name."""
    return {name: value for name, value in bare(model).named_parameters() if value.requires_grad}


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of what training changes: parameters that require a gradient, and all buffers that persist.

    Tensors of any shape by name: whole where the model has parts. Under FSDP2 every process must call it.
    """
    inner = bare(model)
    persistent = inner.state_dict(keep_vars=True)
    changing = {
        name: value for name, value in persistent.items() if value.requires_grad or not isinstance(value, nn.Parameter)
    }
    return {name: _whole(value.detach()).cpu().clone().contiguous() for name, value in changing.items()}


@torch.no_grad()
def load_trainable_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what `trainable_state` returned, in place: tensors of any shape by name.

    Raises ModelError where names or shapes differ.

    What a training-only submodule left in `state` is passed over where the model has no such submodule any more.
    """
    own = bare(model).state_dict(keep_vars=True)
    state = {name: value for name, value in state.items() if name in own or not name.startswith(TRAINING_ONLY)}
    wanted = {name for name, value in own.items() if value.requires_grad or not isinstance(value, nn.Parameter)}
    if wanted != set(state):
        odd = sorted(wanted ^ set(state))
        raise ModelError(
            f"The saved weights do not fit this model: {some(len(odd), 'name differs', 'names differ')}, first "
            f"{odd[0]}."
        )
    for name, value in state.items():
        if own[name].shape != value.shape:
            shapes = f"{tuple(value.shape)}, in the model {tuple(own[name].shape)}"
            raise ModelError(f"The saved weights do not fit this model: {name} has the shape {shapes}.")
    for name, value in state.items():
        target = own[name]
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.data.copy_(value)
