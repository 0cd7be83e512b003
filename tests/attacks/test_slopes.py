"""An attack that meets no slope says so; whoever asks by `searched` gets what it found, through every wrapper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.misleading import PartlyFlat
from tests.oracles import rightly_labelled, token_rows
from textadv.attacks import (
    L2,
    AdaptiveRadius,
    Attack,
    Attacked,
    DeepFool,
    Eot,
    Held,
    Noise,
    Stages,
    ThreatModel,
    Transfer,
    Within,
    apgd_ce,
    pgd,
    repeat,
    then,
    worst_of,
)
from textadv.attacks.parts.calling import searched
from textadv.models import PerturbationError
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings

THREAT = ThreatModel(Embeddings(), L2(5.0))
FLAT = pgd(THREAT, steps=2)
WRAPPERS: dict[str, Callable[[nn.Module], Attack]] = {
    "pgd": lambda model: FLAT,
    "apgd": lambda model: apgd_ce(THREAT, steps=3),
    "deepfool": lambda model: DeepFool(THREAT),
    "within": lambda model: Within(DeepFool(THREAT), THREAT),
    "eot": lambda model: Eot(FLAT, 2),
    "transfer": lambda model: Transfer(model, FLAT, THREAT, "itself"),
    "stages": lambda model: Stages({0: FLAT}),
    "adaptive radius": lambda model: AdaptiveRadius(FLAT, THREAT),
    "held": lambda model: Held(FLAT, 1),
    "worst of": lambda model: worst_of(FLAT, FLAT),
    "then": lambda model: then(FLAT, FLAT),
    "repeat": lambda model: repeat(FLAT, 2),
    "several": lambda model: worst_of(Within(Eot(FLAT, 2), THREAT), Stages({0: repeat(FLAT, 2)})),
}


def flat_rows() -> tuple[nn.Module, Batch]:
    model = PartlyFlat().eval()
    batch = rightly_labelled(model, token_rows([6] * 8, seed=3))
    return model, batch.rows(batch.inputs["input_ids"][:, 1] % 2 == 1)


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_was_found_is_handed_back_to_who_asks_and_an_error_to_others(name: str) -> None:
    model, batch = flat_rows()
    attack = WRAPPERS[name](model)
    with pytest.raises(PerturbationError, match="exactly zero"):
        attack(model, batch)
    found = searched(attack, model, batch)
    assert found.slopes.flat and found.perturbation.delta.shape[:2] == (len(batch), 6)
    assert not found.success.any() and len(found.gauge) == len(batch)


def test_one_search_that_meets_a_slope_is_enough() -> None:
    model, flat = flat_rows()
    whole = rightly_labelled(model, token_rows([6] * 8, seed=3))
    assert pgd(THREAT, steps=2)(model, whole).slopes.met
    assert not Noise(THREAT)(model, flat).slopes.met and not Noise(THREAT)(model, flat).slopes.flat


class Halving:
    """An attack of one's own around another, which asks for nothing: its error is the other's."""

    def __init__(self, inner: Attack) -> None:
        self.inner = inner

    def __call__(
        self, model: nn.Module, batch: Batch, *, step: int = 0, radius_scale: float | Tensor = 1.0, measure: bool = True
    ) -> Attacked:
        found = self.inner(model, batch, step=step, radius_scale=radius_scale, measure=measure)
        return replace(found, batch=found.batch.perturbed(Embeddings(), found.perturbation.delta / 2))


def test_what_an_attack_inside_found_is_not_taken_for_what_the_outer_one_would_have() -> None:
    model, batch = flat_rows()
    with pytest.raises(PerturbationError, match="exactly zero"):
        searched(Halving(FLAT), model, batch)
    other = rightly_labelled(model, token_rows([6] * 8, seed=3))
    assert torch.isfinite(searched(Halving(FLAT), model, other).gauge).all()
