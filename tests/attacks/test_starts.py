"""Where the searches of a gradient attack start: uniform in the ball as published, or spread from the clean row on."""

from __future__ import annotations

import pytest
import torch

from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L2, Diverge, FixedStep, GradientAttack, Linf, StepSize, ThreatModel, pgd
from textadv.attacks.parts.starts import spread_start, uniform_start
from textadv.config.adversary import AttackConfig, selecting
from textadv.config.attacks import of_panel
from textadv.config.evaluation import MinimumRadiusConfig
from textadv.config.types import ConfigError
from textadv.tasks.file import parse_config
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings

WHOLE = ThreatModel(Embeddings(), L2(0.2, per="example"))


def rows(count: int = 12) -> Batch:
    return rightly_labelled(CurvedBag(), token_rows([40] * count, classes=3))


def standing(**options: object) -> GradientAttack:
    """An attack of one step of length 0: it returns where it starts."""
    return GradientAttack(WHOLE, FixedStep(StepSize(relative=0.0)), steps=1, **options)


def test_the_first_of_spread_starts_is_the_clean_row_and_the_published_one_lies_on_the_surface() -> None:
    model, batch = CurvedBag(), rows()
    assert not standing(starts="spread")(model, batch).perturbation.delta.any()
    assert bool((standing(starts="ball")(model, batch).gauge > 0.95).all())


def test_the_others_have_radii_uniform_in_0_to_1_and_the_directions_of_the_published_ones() -> None:
    model, batch = CurvedBag(), rows(600)
    delta = spread_start(model, batch, WHOLE, torch.float32, 0, 3, 1)
    gauge = WHOLE.ball.gauge(delta).sort().values
    expected = (torch.arange(600) + 0.5) / 600
    assert float((gauge - expected).abs().max()) < 1.63 / 600**0.5, "Kolmogorov-Smirnov at 1 %"
    plain = uniform_start(model, batch, WHOLE, torch.float32, 0, 3, 1)
    assert bool((torch.cosine_similarity(delta.flatten(1), plain.flatten(1)) > 0.9999).all())
    other = spread_start(model, batch, WHOLE, torch.float32, 0, 3, 2)
    assert not torch.allclose(WHOLE.ball.gauge(other), WHOLE.ball.gauge(delta), atol=0.01)


def test_a_row_starts_at_the_same_point_in_any_batch() -> None:
    model, batch = CurvedBag(), rows()
    for ball in (L2(0.2), Linf(0.1)):
        threat = ThreatModel(Embeddings(), ball)
        whole = spread_start(model, batch, threat, torch.float32, 5, 1, 2)
        part = spread_start(model, batch.rows(torch.tensor([7, 2])), threat, torch.float32, 5, 1, 2)
        assert torch.equal(part, whole[[7, 2]])


def test_a_goal_without_a_slope_at_the_clean_row_never_starts_there() -> None:
    found = standing(starts="spread", goal=Diverge())(CurvedBag(), rows())
    gauge = found.gauge
    assert bool((gauge > 0).all()) and float(gauge.min()) < 0.9
    assert "random start at a random radius" in str(standing(starts="spread", goal=Diverge()))


def test_measuring_spreads_the_starts_and_training_does_not() -> None:
    assert pgd(WHOLE).starts == pgd(WHOLE, restarts=2, select="most_damaging").starts == "ball"
    assert "clean start, then random radii" in str(pgd(WHOLE, restarts=2, select="most_damaging", starts="spread"))
    assert AttackConfig(**of_panel({"steps": 20})).starts == "spread"
    assert AttackConfig(**of_panel({"steps": 20, "starts": "ball"})).starts == "ball"
    assert AttackConfig(**of_panel({"name": "r_fgsm"})).starts == "ball"
    assert AttackConfig(**selecting({})).starts == "ball"
    assert AttackConfig().starts == MinimumRadiusConfig().attack.starts.replace("spread", "ball") == "ball"
    assert AttackConfig(starts="spread").make(WHOLE, 0).starts == "spread"
    with pytest.raises(ValueError, match="attack.starts must be ball or spread, got 'clean'"):
        pgd(WHOLE, starts="clean")


@pytest.mark.parametrize("objective", ["freelb", "free", "distributional"])
def test_an_objective_that_climbs_by_itself_refuses_spread_starts(objective: str) -> None:
    config = {
        "output": "x",
        "model": {"name": "builtin:tiny-encoder"},
        "data": {"name": "builtin:reviews"},
        "threat": {"radius": 0.1},
        "attack": {"starts": "spread", "steps": 1 if objective == "free" else 3},
        "objective": {"name": objective},
        "training": {"steps": 1},
    }
    with pytest.raises(ConfigError, match=f"attack.starts must be ball with objective.name: {objective}, got spread"):
        parse_config(config)
