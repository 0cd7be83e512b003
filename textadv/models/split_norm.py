"""Two batch norms in the place of one: perturbed rows have statistics and an affine map of their own (AdvProp)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from textadv.models import ModelError, bare, recomputes
from textadv.values.batch import Batch, Role

Which = Literal["clean", "adversarial"]


class SplitBatchNorm(nn.Module):
    """A batch norm for clean rows and one for perturbed rows, which start alike (arXiv:1911.09665, section 4).

    The adversarial one serves the rows of role ADVERSARIAL in a batch that carries a perturbation, in the attack as in
    the loss; the clean one serves all others, so the unperturbed pass of rows that are to be attacked too. A batch may
    hold both. `using` overrides it.
    """

    takes_batch = True

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.clean, self.adversarial = norm, deepcopy(norm)
        self.always: Which | None = None

    def forward(self, tensor: Tensor, batch: Batch | None = None) -> Tensor:
        """The tensor (B, channels, ...) normalised, in its shape. batch: what `textadv.forward` sends through, or None.

        Raises ModelError where the tensor's first dimension is not that of rows.
        """
        perturbed = self._perturbed(tensor, batch)
        if isinstance(perturbed, Tensor):
            order = torch.cat([(~perturbed).nonzero(), perturbed.nonzero()]).squeeze(1)
            parts = torch.cat([self.clean(tensor[~perturbed]), self.adversarial(tensor[perturbed])])
            return parts[order.argsort()]
        used, other = (self.adversarial, self.clean) if perturbed else (self.clean, self.adversarial)
        out: Tensor = used(tensor)
        if self.training and torch.is_grad_enabled():
            # DDP waits for a gradient of every parameter: the other norm's is zero here.
            for parameter in other.parameters():
                out = out + 0 * parameter.sum().to(out.dtype)
        return out

    def _perturbed(self, tensor: Tensor, batch: Batch | None) -> bool | Tensor:
        """Which rows (B,) are for the adversarial norm; True for all, False for none."""
        if self.always is not None:
            return self.always == "adversarial"
        if batch is None or batch.perturbation is None:
            return False
        rows = batch.role == int(Role.ADVERSARIAL)
        if len(tensor) != len(rows):
            raise ModelError(
                f"model.split_norm: a batch norm gets {len(tensor)} rows for a batch of {len(rows)}: it cannot be told "
                "which of them are perturbed. Set model.split_norm: null."
            )
        count = int(rows.sum())
        return rows if 0 < count < len(rows) else count > 0


def split_norms(model: nn.Module) -> list[SplitBatchNorm]:
    """The split norms of the model, in its order; empty where `convert` was not called."""
    return [module for module in bare(model).modules() if isinstance(module, SplitBatchNorm)]


def adversarial_norms(model: nn.Module) -> set[nn.Module]:
    """The batch norms that serve perturbed rows."""
    return {norm.adversarial for norm in split_norms(model)}


def convert(model: nn.Module) -> nn.Module:
    """The same model with every batch norm split, in place; to be called before an optimizer is built.

    In `state_dict` the entry `bn.weight` becomes `bn.clean.weight` and `bn.adversarial.weight`, so a saved split model
    is loaded into a converted one.

    Raises ModelError where the model has no batch norm, is split already, or recomputes activations in backward, where
    it would not be known any more which rows they belong to.
    """
    if split_norms(model):
        raise ModelError("model.split_norm: the batch norms of this model are split already.")
    if recomputes(model):
        raise ModelError(
            "model.split_norm does not go with gradient checkpointing. Switch that off in the model, or set "
            "model.split_norm: null."
        )
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]
    if not places:
        raise ModelError(
            f"model.split_norm needs batch norms, and {type(bare(model)).__name__} has none. Set "
            "model.split_norm: null."
        )
    for parent, name, child in places:
        split = SplitBatchNorm(child)
        split.training = child.training
        setattr(parent, name, split)
    return model


def merge(model: nn.Module, which: Which = "clean") -> nn.Module:
    """The same model with one norm of each split kept in place of both: plain again, its names as before `convert`.

    `clean` is AdvProp's choice, for accuracy without an attack; the model trained against the attack is `adversarial`
    (arXiv:1906.03787, section 4). Raises ModelError where nothing is split.
    """
    if not split_norms(model):
        raise ModelError("model.split_norm: this model has no split batch norm to merge.")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SplitBatchNorm):
                setattr(parent, name, child.clean if which == "clean" else child.adversarial)
    return model


def merged_state(model: nn.Module, state: dict[str, Tensor], which: Which = "clean") -> dict[str, Tensor]:
    """The saved state of a split model as that of the model after `merge(model, which)`; to be called before it.

    state, and what comes back: tensors of any shape by name.
    """
    places = [name for name, module in bare(model).named_modules() if isinstance(module, SplitBatchNorm)]
    other = "adversarial" if which == "clean" else "clean"
    dropped = tuple(f"{place}.{other}." for place in places)
    merged = {name: value for name, value in state.items() if not name.startswith(dropped)}
    for place in places:
        start = f"{place}.{which}."
        renamed = {name: f"{place}.{name[len(start) :]}" for name in merged if name.startswith(start)}
        merged = {renamed.get(name, name): value for name, value in merged.items()}
    return merged


@contextmanager
def using(model: nn.Module, which: Which | None) -> Iterator[None]:
    """Inside the block every row passes the norms `which`, as after `merge(model, which)`: for measuring.

    None: each row those of its own. Does nothing to a model without split norms.
    """
    norms = split_norms(model)
    before = [norm.always for norm in norms]
    for norm in norms:
        norm.always = which
    try:
        yield
    finally:
        for norm, always in zip(norms, before, strict=True):
            norm.always = always


def require_adversarial_rows(model: nn.Module, attacked: bool) -> None:
    """Raises ModelError where the model is split and the run attacks no rows: the second set would never be trained."""
    if not attacked and split_norms(model):
        raise ModelError(
            "model.split_norm keeps batch norms for adversarial rows, and this run attacks none (objective.name: "
            "clean, or mixing.ratio: 0). Set model.split_norm: null, or an objective with an attack."
        )
