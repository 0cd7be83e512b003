"""Consistency through a predictor: a small network that is trained beside the model and not exported with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.attacks import Attack, require_attack
from textadv.models import TRAINING_ONLY, bare, dtype_of, evaluating, forward
from textadv.objectives.pairs import both_logits
from textadv.objectives.terms import Moment, Term
from textadv.values.batch import Batch
from textadv.values.decisions import require_classes
from textadv.values.losses import cross_entropy
from textadv.values.randomness import seeded_scope

PREDICTOR = f"{TRAINING_ONLY}predictor"
PREDICTOR_DRAW = 29


@contextmanager
def with_predictor(model: nn.Module, example: Batch, hidden: int = 64, seed: int = 0) -> Iterator[nn.Module]:
    """Inside the block the model has a predictor: a submodule C -> hidden -> C on its logits, drawn from `seed`.

    As part of the model it is handed to the optimizer, synchronised between processes, and kept in checkpoints.
    Afterwards the model has the modules that it had; weights saved meanwhile load into it, see `load_trainable_state`.
    To be entered before the optimizer is made and the model wrapped.

    example: a row or more, whose logits say how many classes there are.
    Raises ValueError for chats, and where the model has a predictor already.
    """
    inner = bare(model)
    parameter = next(inner.parameters())
    with evaluating(model), torch.no_grad():
        logits = forward(inner, example.clean().to(parameter.device))
    require_classes("objective.name: predictor compares the logits of classes", logits, example)
    if PREDICTOR in dict(inner.named_children()):
        raise ValueError("This model has a predictor already: leave the block of with_predictor first.")
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    with seeded_scope(seed, PREDICTOR_DRAW):
        head = nn.Sequential(nn.Linear(logits.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, logits.shape[1]))
    inner.add_module(PREDICTOR, head.to(parameter.device, dtype))
    try:
        yield head
    finally:
        delattr(inner, PREDICTOR)


@dataclass(frozen=True)
class PredictorConsistency:
    """Mean of clean and adversarial cross-entropy + weight x the distance between predicted and given logits.

    The distance is the mean of 1 - cos(h(perturbed), clean) and 1 - cos(h(clean), perturbed), where h is the model's
    predictor and the second of each pair is a constant: SimSiam's symmetric loss with stopped gradients
    (arXiv:2011.10566, equations 3 and 4), with the attack as the augmentation. With losses 0.8 and 1.6, cosines 0.9 and
    0.7 and weight 2 a row contributes 1.2 + 2 x (0.1 + 0.3) / 2 = 1.6.

    Deviations: on logits, which every classifier has, in place of projected features; no batch normalisation in the
    predictor, since a row's loss must not depend on its batch; 1 is added so that the loss is never negative; batch
    norms of the model see clean and perturbed rows as one batch (`both_logits`).

    The model must be inside `with_predictor`.
    """

    attack: Attack
    weight: float = 1.0
    terms: int = 1
    keeps_clean: bool = True

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if not self.weight >= 0:
            raise ValueError(f"objective.weight must not be negative, got {self.weight}.")

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        """One term. Raises ValueError where the model has no predictor, or is sharded by FSDP."""
        head = _predictor(model)
        attacked = self.attack(model, batch, step=moment.step, radius_scale=moment.radius_scale, measure=moment.measure)
        clean, perturbed = both_logits(model, attacked)
        apart = (_distance(head, perturbed, clean) + _distance(head, clean, perturbed)) / 2
        supervised = (cross_entropy(clean, batch) + cross_entropy(perturbed, batch)) / 2
        losses = supervised + self.weight * apart
        yield Term("predictor", losses, adversarial=True, passes=2, attacked=attacked)


def _distance(head: nn.Module, seen: Tensor, wanted: Tensor) -> Tensor:
    dtype = dtype_of(head)
    return 1 - torch.cosine_similarity(head(seen.to(dtype)), wanted.detach().to(dtype), dim=1)


def _predictor(model: nn.Module) -> nn.Module:
    if isinstance(model, FSDPModule):
        raise ValueError("objective.name: predictor is not possible with FSDP, which shards it. Use DDP.")
    head = dict(bare(model).named_children()).get(PREDICTOR)
    if head is None:
        raise ValueError("The model has no predictor: train it inside `with_predictor(model, example)`.")
    return head
