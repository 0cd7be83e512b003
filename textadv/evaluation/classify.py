"""What a classifier gets right, without and under attack: per attack, in the worst case, and along a list of radii."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from scipy.stats import binom
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textadv.accumulation import NonFiniteError
from textadv.attacks import Attack, ThreatModel
from textadv.attacks.attacked import Cost
from textadv.data import Rows
from textadv.evaluation.calibration import expected_calibration_error, fit_temperature
from textadv.evaluation.results import AttackResult, CurvePoint, Evaluation, RowOutcome
from textadv.evaluation.statistics import Rate, wilson
from textadv.models import bare, editable_mask, evaluating, forward, tempered
from textadv.progress import Scores

BALL_TOLERANCE = 1e-4
COLLAPSE_LEVEL = 0.05
NOT_FINITE = -1


class Hit(NamedTuple):
    """One attacked row: its position, the prediction under attack, norm / radius, and the passes it took."""

    position: int
    prediction: int
    gauge: float
    forwards: int
    backwards: int


def _batches(rows: Rows, positions: Sequence[int], size: int, model: nn.Module) -> list[list[int]]:
    """This process' share of the positions, rows of like length together.

    Under FSDP, whose passes are collective, every process takes all rows.
    """
    ordered = sorted(positions, key=lambda position: (rows.lengths[position], position))
    cut = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    if isinstance(model, FSDPModule) or not torch.distributed.is_initialized():
        return cut
    return cut[torch.distributed.get_rank() :: torch.distributed.get_world_size()]


def _gathered(mine: list[Any], model: nn.Module) -> list[Any]:
    if isinstance(model, FSDPModule) or not torch.distributed.is_initialized():
        return mine
    gathered: list[Any] = gather_object(mine)
    return gathered


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@torch.no_grad()
def clean_logits(model: nn.Module, rows: Rows, positions: Sequence[int], batch_size: int = 64) -> Tensor:
    """The logits of the rows at `positions`, (N, C) float32 on the CPU, in their order; in evaluation mode.

    Raises NonFiniteError where a logit is nan or infinite: an argmax over it would look like a prediction.
    """
    found: list[tuple[int, list[float]]] = []
    with evaluating(model):
        for part in _batches(rows, positions, batch_size, model):
            logits = forward(bare(model), rows.batch(part).to(_device(model)))
            found += zip(part, logits.float().tolist(), strict=True)
    by_position = dict(_gathered(found, model))
    logits = torch.tensor([by_position[position] for position in positions])
    odd = (~logits.isfinite().reshape(len(positions), -1).all(dim=1)).nonzero().flatten().tolist()
    _require_finite(rows, [positions[n] for n in odd], "without an attack")
    return logits


def _require_finite(rows: Rows, odd: Sequence[int], when: str) -> None:
    if odd:
        raise NonFiniteError(
            f"The logits of {len(odd)} rows are not finite {when}, first row ids {[rows.ids[n] for n in odd[:5]]}. "
            "The model has diverged or overflows: lower training.learning_rate, or do without float16."
        )


def attack_rows(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    attack: Attack,
    batch_size: int = 64,
    radius_scale: float = 1.0,
    *,
    threat: ThreatModel | None = None,
) -> list[Hit]:
    """What the attack does to the rows at `positions`, in their order; rows without an editable position hold.

    What the attack says about its success is not believed: its perturbation is put on the original rows and the
    prediction is computed anew. threat: with an absolute radius; the perturbation's norm is measured against it.
    Without it the norms that the attack reports are taken.

    Raises RuntimeError where a perturbation lies outside its ball or moves a position that is not editable, and
    NonFiniteError as `clean_logits`.
    """
    found: list[Hit] = []
    threat = None if threat is None else threat.scaled(radius_scale)
    with evaluating(model):
        for part in _batches(rows, positions, batch_size, model):
            movable = rows.batch(part).editable.flatten(1).any(dim=1).tolist()
            # An attack asked to move nothing would report, rightly, that it has no gradient.
            for attacker, wanted in ((attack, True), (None, False)):
                places = [place for place, moves in zip(part, movable, strict=True) if moves is wanted]
                if places:
                    found += _hits(model, rows, places, attacker, threat, radius_scale)
    by_position = {hit[0]: Hit(*hit) for hit in _gathered(found, model)}
    hits = [by_position[position] for position in positions]
    _require_finite(rows, [hit.position for hit in hits if hit.prediction == NOT_FINITE], f"under {attack}")
    outside = [hit for hit in hits if not hit.gauge <= 1 + BALL_TOLERANCE]
    if outside:
        first = outside[0]
        limits = f" ({threat})" if threat is not None else ""
        raise RuntimeError(
            f"{attack} left its threat model{limits} at {len(outside)} rows: norm / radius {first.gauge:.6g} at row id "
            f"{rows.ids[first.position]}. What it breaks says nothing about that threat model; correct the attack."
        )
    return hits


def _hits(
    model: nn.Module,
    rows: Rows,
    places: Sequence[int],
    attack: Attack | None,
    threat: ThreatModel | None,
    radius_scale: float,
) -> list[Hit]:
    """The rows at `places` as one batch; without an attack they stay as they are."""
    batch = rows.batch(places).to(_device(model))
    gauge, cost = torch.zeros(len(batch)), Cost.none(batch)
    if attack is not None:
        attacked = attack(model, batch, radius_scale=radius_scale)
        space, delta = attacked.perturbation.space, attacked.perturbation.delta.detach()
        if threat is not None and space != threat.space:
            raise RuntimeError(f"{attack} perturbed {space}, the threat model allows {threat.space}.")
        stray = delta.masked_fill(editable_mask(batch, tuple(delta.shape)), 0).flatten(1).any(dim=1)
        found = attacked.gauge if threat is None else threat.ball.gauge(delta)
        gauge, cost = found.masked_fill(stray, float("inf")), attacked.cost
        batch = batch.perturbed(space, delta)
    with torch.no_grad():
        logits = forward(bare(model), batch)
    predictions = logits.argmax(dim=1).masked_fill(~logits.isfinite().all(dim=1), NOT_FINITE)
    values = (predictions, gauge, cost.forwards + cost.queries + 1, cost.backwards)
    return list(map(Hit._make, zip(places, *(value.tolist() for value in values), strict=True)))


def no_better_than_constant(predictions: Sequence[int], labels: Sequence[int]) -> bool:
    """Whether the predictions are as good as answering the most common class always.

    One-sided exact binomial test at 5 %: a model that has collapsed to one class is caught, also where a few rows
    still differ, and its "robust accuracy", the share of that class, is not mistaken for robustness.
    """
    right = sum(guess == label for guess, label in zip(predictions, labels, strict=True))
    majority = max(labels.count(label) for label in set(labels)) / len(labels)
    return bool(binom.sf(right - 1, len(labels), majority) > COLLAPSE_LEVEL)


def scores(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    attack: Attack | None,
    batch_size: int = 64,
    *,
    threat: ThreatModel | None = None,
) -> Scores:
    """Clean and robust accuracy on held-out rows; without an attack the robust accuracy is None.

    threat: what the attack's perturbations are measured against, see `attack_rows`.
    """
    labels = [rows.labels[position] for position in positions]
    predictions = clean_logits(model, rows, positions, batch_size).argmax(dim=1).tolist()
    right = [p for p, guess, label in zip(positions, predictions, labels, strict=True) if guess == label]
    robust = None
    if attack is not None:
        hits = attack_rows(model, rows, right, attack, batch_size, threat=threat)
        robust = sum(hit.prediction == rows.labels[hit.position] for hit in hits) / len(positions)
    return Scores(len(right) / len(positions), robust, no_better_than_constant(predictions, labels))


def evaluate(
    model: nn.Module,
    rows: Rows,
    attacks: Mapping[str, Attack],
    threat: ThreatModel,
    *,
    name: str = "model",
    split: str = "test",
    positions: Sequence[int] | None = None,
    radii: Sequence[float] = (),
    curve_attack: str | None = None,
    calibration: Rows | None = None,
    batch_size: int = 64,
    say: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Everything measured on one classifier.

    attacks: by name, each built for `threat`; run on the rows that are right without attack. threat: a relative radius
    in embeddings is resolved on this model. positions: the rows to attack, all by default; clean accuracy is over the
    same rows. radii: ascending, in the threat's own unit (relative
    where that is relative); the attack `curve_attack` (by default the first) runs at each, on rows that no smaller
    radius broke, since a larger ball holds the smaller one's perturbations. calibration: validation rows on which a
    temperature is fitted first; predictions and attacks then see calibrated logits. say: told how it goes.

    Raises RuntimeError where an attack leaves the threat model, NonFiniteError where a logit is nan or infinite, and
    ModelError where the radius is relative and the space needs rows to measure it on.
    """
    positions = range(len(rows)) if positions is None else positions
    threat = threat.resolved(model)
    temperature = fitted_temperature(model, calibration, batch_size) if calibration is not None else 1.0
    raw = clean_logits(model, rows, positions, batch_size)
    truth = torch.tensor([rows.labels[position] for position in positions])
    guesses = dict(zip(positions, raw.argmax(dim=1).tolist(), strict=True))
    right = [position for position in positions if guesses[position] == rows.labels[position]]
    say(f"{name}: {len(right)} of {len(positions)} {split} rows right without an attack")
    hits: dict[str, dict[int, Hit]] = {}
    results = []
    with tempered(model, temperature):
        for key, attack in attacks.items():
            began = time.perf_counter()
            found = attack_rows(model, rows, right, attack, batch_size, threat=threat)
            hits[key] = {hit.position: hit for hit in found}
            result = _attack_result(key, attack, threat, rows, positions, hits[key], time.perf_counter() - began)
            say(f"{name}: {key} leaves {result.robust.count} right, in {result.seconds:.0f} s")
            results.append(result)
        drawn = curve_attack or next(iter(attacks), None)
        curve: tuple[CurvePoint, ...] = ()
        if drawn is not None:
            curve = _curve(model, rows, positions, right, attacks[drawn], threat, radii, hits[drawn], batch_size)
    alive = [p for p in right if all(found[p].prediction == rows.labels[p] for found in hits.values())]
    return Evaluation(
        name=name,
        rows=len(positions),
        split=split,
        clean=wilson(len(right), len(positions)),
        temperature=temperature,
        ece_before=expected_calibration_error(raw, truth) if len(truth) else float("nan"),
        ece_after=expected_calibration_error(raw, truth, temperature) if len(truth) else float("nan"),
        attacks=tuple(results),
        worst_case=wilson(len(alive), len(positions)),
        curve=curve,
        rows_detail=tuple(_outcome(rows, p, guesses[p], hits) for p in positions),
        curve_attack=drawn if curve else None,
    )


def fitted_temperature(model: nn.Module, calibration: Rows, batch_size: int = 64) -> float:
    """The temperature that makes the model's confidence fit the labels of `calibration`, which are validation rows."""
    logits = clean_logits(model, calibration, range(len(calibration)), batch_size)
    return fit_temperature(logits, torch.tensor(calibration.labels))


def _attack_result(
    name: str,
    attack: Attack,
    threat: ThreatModel,
    rows: Rows,
    positions: Sequence[int],
    hits: Mapping[int, Hit],
    seconds: float,
) -> AttackResult:
    broken = [hit for hit in hits.values() if hit.prediction != rows.labels[hit.position]]
    radius = threat.ball.radius
    assert isinstance(radius, float | int)
    return AttackResult(
        name=name,
        threat=str(threat),
        attack=str(attack),
        radius=float(radius),
        relative_radius=threat.ball.relative_radius,
        robust=wilson(len(hits) - len(broken), len(positions)),
        success=wilson(len(broken), len(hits)),
        norm_ratio=sum(hit.gauge for hit in broken) / len(broken) if broken else float("nan"),
        forwards=sum(hit.forwards for hit in hits.values()),
        backwards=sum(hit.backwards for hit in hits.values()),
        seconds=seconds,
    )


def _curve(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    right: Sequence[int],
    attack: Attack,
    threat: ThreatModel,
    radii: Sequence[float],
    known: Mapping[int, Hit],
    batch_size: int,
) -> tuple[CurvePoint, ...]:
    """Robust accuracy at each radius; at the threat's own, the hits already known are used."""
    relative = threat.ball.relative_radius is not None
    own = threat.ball.relative_radius if relative else threat.ball.radius
    assert isinstance(own, float | int) and isinstance(threat.ball.radius, float | int)
    alive, points = list(right), []
    for radius in radii:
        if radius == own:
            found = [known[position] for position in alive]
        else:
            found = attack_rows(model, rows, alive, attack, batch_size, radius / own, threat=threat)
        alive = [hit.position for hit in found if hit.prediction == rows.labels[hit.position]]
        robust: Rate = wilson(len(alive), len(positions))
        absolute = float(threat.ball.radius) * radius / own
        points.append(CurvePoint(absolute, radius if relative else None, robust))
    return tuple(points)


def _outcome(rows: Rows, position: int, guess: int, hits: Mapping[str, Mapping[int, Hit]]) -> RowOutcome:
    """A row that was wrong already keeps its wrong prediction under every attack."""
    predictions = {key: found[position].prediction if position in found else guess for key, found in hits.items()}
    return RowOutcome(rows.ids[position], rows.labels[position], guess, predictions)
