"""Every attack under one name, small enough to run in every ball, space and precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.oracles import CurvedBag, token_rows
from textadv.attacks import (
    Adam,
    Attack,
    Attacked,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    Ddn,
    DeepFool,
    Eot,
    Fab,
    GradientAttack,
    MinimumRadius,
    Momentum,
    Pdgd,
    PenalisedAscent,
    Square,
    StepSize,
    ThreatModel,
    Transfer,
    apgd_ce,
    apgd_dlr,
    apgd_targeted,
    autoattack,
    fab_targeted,
    fgsm,
    pgd,
    r_fgsm,
)
from textadv.values.batch import Batch

Maker = Callable[[ThreatModel, nn.Module], Attack]
ALL, TWO, ADAM = ("l2", "linf", "l1"), ("l2", "linf"), {"steps": 15, "learning_rate": 0.05}
GROWING = {"search_steps": 4, "initial_constant": 0.1, "constant_factor": 10.0}


@dataclass(frozen=True)
class Bisected:
    """A minimum radius search that is called like an attack."""

    search: MinimumRadius

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        return self.search(model, batch, step=step, radius_scale=radius_scale).attacked


def searched(threat: ThreatModel) -> Attack:
    return pgd(threat, steps=3, select="most_damaging", early_stop=True)


def climbing(ascent: type[Momentum] | type[Adam]) -> Maker:
    return lambda threat, _: GradientAttack(threat, ascent(StepSize(relative=0.4)), 4, select="most_damaging")


# Name -> the norms that it accepts, and the attack from a threat model and (for transfer) a surrogate. Three classes.
BOUNDED: dict[str, tuple[tuple[str, ...], Maker]] = {
    "fgsm": (ALL, lambda threat, _: fgsm(threat)),
    "r_fgsm": (ALL, lambda threat, _: r_fgsm(threat)),
    "pgd": (ALL, lambda threat, _: pgd(threat, steps=4, restarts=2, select="most_damaging")),
    "momentum": (ALL, climbing(Momentum)),
    "adam": (ALL, climbing(Adam)),
    "apgd_ce": (ALL, lambda threat, _: apgd_ce(threat, steps=7)),
    "apgd_dlr": (ALL, lambda threat, _: apgd_dlr(threat, steps=7, restarts=2)),
    "apgd_targeted": (ALL, lambda threat, _: apgd_targeted(threat, 3, steps=5)),
    "square": (TWO, lambda threat, _: Square(threat, 30)),
    "eot": (ALL, lambda threat, _: Eot(pgd(threat, steps=3), samples=2)),
    "transfer": (ALL, lambda threat, surrogate: Transfer(surrogate, pgd(threat, steps=3), threat, "another")),
    "autoattack": (ALL, lambda threat, _: autoattack(threat, 3, steps=4, queries=10)),
}
# They look at the norm of a whole row: threat.per: example.
MINIMAL: dict[str, tuple[tuple[str, ...], Maker]] = {
    "deepfool": (ALL, lambda threat, _: DeepFool(threat, steps=10)),
    "fab": (ALL, lambda threat, _: Fab(threat, steps=6, restarts=2)),
    "fab_targeted": (ALL, lambda threat, _: fab_targeted(threat, 3, steps=6)),
    "carlini_wagner": (("l2",), lambda threat, _: CarliniWagner(threat, search_steps=4, initial_constant=1.0, **ADAM)),
    "carlini_wagner linf": (("linf",), lambda threat, _: CarliniWagnerLinf(threat, **ADAM, **GROWING)),
    "carlini_wagner l0": (("l2",), lambda threat, _: CarliniWagnerL0(threat, **ADAM, **GROWING)),
    "ddn": (("l2",), lambda threat, _: Ddn(threat, steps=30)),
    "pdgd": (("l2",), lambda threat, _: Pdgd(threat, steps=40)),
    "minimum radius": (ALL, lambda threat, _: Bisected(MinimumRadius(searched, threat, upper=4.0, steps=5))),
}
UNBOUNDED: dict[str, tuple[tuple[str, ...], Maker]] = {
    "penalised": (("l2",), lambda threat, _: PenalisedAscent(threat, 1.0, 5)),
}
EVERY = BOUNDED | MINIMAL | UNBOUNDED


def cases(table: dict[str, tuple[tuple[str, ...], Maker]]) -> dict[str, tuple[str, Maker]]:
    """Each attack in each norm that it accepts: name and norm -> (norm, maker)."""
    return {f"{name}-{norm}": (norm, make) for name, (norms, make) in table.items() for norm in norms}


class BagAlone(CurvedBag):
    """A `CurvedBag` that puts every row through by itself, unpadded, so that its own rounding knows no neighbour."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = []
        for states, tokens, kept in zip(self.embeddings(input_ids), input_ids, attention_mask.bool(), strict=True):
            bent = torch.sin(states[kept] @ self.inner.T) * self.importance[tokens[kept]].unsqueeze(-1)
            logits.append(bent.sum(dim=0) @ self.head.T + self.bias)
        return torch.stack(logits)


class PixelsAlone(nn.Module):
    """Three classes of images of 3 x 4 x 4 through one bent layer, every image by itself."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator).to(dtype))

        self.inner, self.head = drawn(12, 48), drawn(3, 12)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return torch.stack([torch.sin(self.inner @ (image.flatten() - 0.5)) @ self.head.T for image in pixel_values])


def require_nothing_changed(attack: Callable[..., Batch]) -> None:
    """That an attack leaves weights, gradients, modes, inputs and the global generator as they are."""
    model, rows = CurvedBag(), token_rows([5, 9, 7, 3], classes=3)
    model.train()
    model.embeddings.eval()
    model.bias.requires_grad_(False)
    model.head.grad = torch.full_like(model.head, 0.125)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    inputs = {name: value.clone() for name, value in rows.inputs.items()}
    before = torch.get_rng_state()
    attacked = attack(model, rows, step=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.head.grad, torch.full_like(model.head, 0.125))
    assert all(value.grad is None for name, value in model.named_parameters() if name != "head")
    assert [module.training for module in model.modules()] == modes
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["bias"]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, inputs[name]) for name, value in rows.inputs.items())
    assert not model.embeddings._forward_hooks
    assert rows.perturbation is None
    assert not attacked.perturbation.delta.requires_grad
