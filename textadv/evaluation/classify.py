"""What a classifier gets right, without and under attack: per attack, in the worst case, and along a list of radii."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from scipy.stats import binom
from torch import nn

from textadv.attacks import Attack, AutoAttack, ThreatModel
from textadv.data import Rows
from textadv.evaluation.attacking import attack_rows, clean_logits, samples_of
from textadv.evaluation.calibration import expected_calibration_error, fit_temperature
from textadv.evaluation.cascade import merged, run_stages, stage_results
from textadv.evaluation.finished import Finished, Hit
from textadv.evaluation.masking import Alarm, Ran, masking_flags
from textadv.evaluation.minimum import RadiusSearch, minimum_radii
from textadv.evaluation.results import AttackResult, CurvePoint, Evaluation, MaskingFlag, RowOutcome
from textadv.evaluation.statistics import Rate, wilson
from textadv.models import tempered
from textadv.progress import Scores

COLLAPSE_LEVEL = 0.05


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
        hits = attack_rows(model, rows, right, attack, batch_size, threat=threat, name="validation")
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
    finished: Finished | None = None,
    alarm: Alarm | None = None,
    minimum: RadiusSearch | None = None,
) -> Evaluation:
    """Everything measured on one classifier.

    attacks: by name, each built for `threat`; run on the rows that are right without attack, those that come in stages
    stage by stage. threat: a relative radius in embeddings is resolved on this model. positions: the rows to attack,
    all by default; clean accuracy is over the same rows. radii: ascending, in the threat's own unit (relative
    where that is relative); the attack `curve_attack` (by default the first) runs at each, on rows that no smaller
    radius broke, since a larger ball holds the smaller one's perturbations. calibration: validation rows on which a
    temperature is fitted first; predictions and attacks then see calibrated logits. say: told how it goes. finished:
    where rows that are done are kept and read back. alarm: how much is looked at for masked gradients, None for not
    at all. minimum: how the smallest radius that breaks each row is looked for, None for not at all.

    Raises RuntimeError where an attack leaves the threat model, NonFiniteError where a logit is nan or infinite, and
    ModelError where the radius is relative and the space needs rows to measure it on.
    """
    positions = range(len(rows)) if positions is None else positions
    threat = threat.resolved(model)
    temperature = fitted_temperature(model, calibration, batch_size) if calibration is not None else 1.0
    samples = max(map(samples_of, attacks.values()), default=1)
    raw = clean_logits(model, rows, positions, batch_size, samples)
    truth = torch.tensor([rows.labels[position] for position in positions])
    guesses = dict(zip(positions, raw.argmax(dim=1).tolist(), strict=True))
    right = [position for position in positions if guesses[position] == rows.labels[position]]
    say(f"{name}: {len(right)} of {len(positions)} {split} rows right without an attack")
    kept = None if finished is None else _repaired(finished, say).under(temperature)
    with tempered(model, temperature):
        panel = _panel(model, rows, attacks, right, threat, batch_size, kept, lambda line: say(f"{name}: {line}"))
        hits = {key: merged(ran.stages) for key, ran in panel.items()}
        drawn = curve_attack or next(iter(attacks), None)
        curve: tuple[CurvePoint, ...] = ()
        if drawn is not None:
            curve = _curve(model, rows, positions, right, attacks[drawn], threat, radii, hits[drawn], batch_size, kept)
        flags: tuple[MaskingFlag, ...] = ()
        if alarm is not None and panel and right:
            flags = masking_flags(model, rows, panel, right, len(positions), threat, alarm, batch_size, kept)
            _say_flags(flags, lambda line: say(f"{name}: {line}"))
        smallest = None if minimum is None else minimum_radii(model, rows, positions, threat, minimum, batch_size, kept)
        if smallest is not None:
            say(f"{name}: smallest radius of {len(smallest.radii)} rows, in {smallest.seconds:.0f} s")
    alive = [p for p in right if all(found[p].prediction == rows.labels[p] for found in hits.values())]
    return Evaluation(
        name=name,
        rows=len(positions),
        split=split,
        clean=wilson(len(right), len(positions)),
        temperature=temperature,
        ece_before=expected_calibration_error(raw, truth) if len(truth) else float("nan"),
        ece_after=expected_calibration_error(raw, truth, temperature) if len(truth) else float("nan"),
        attacks=tuple(_attack_result(key, ran, threat, rows, positions, right) for key, ran in panel.items()),
        worst_case=wilson(len(alive), len(positions)),
        curve=curve,
        rows_detail=tuple(_outcome(rows, p, guesses[p], hits) for p in positions),
        curve_attack=drawn if curve else None,
        worst_case_meaning=_meaning(attacks, threat),
        masking=flags,
        minimum=smallest,
    )


def _panel(
    model: nn.Module,
    rows: Rows,
    attacks: Mapping[str, Attack],
    right: Sequence[int],
    threat: ThreatModel,
    batch_size: int,
    finished: Finished | None,
    say: Callable[[str], None],
) -> dict[str, Ran]:
    """Every attack, stage by stage, on the rows that are right without one."""
    return {
        key: Ran(
            attack,
            run_stages(model, rows, right, key, attack, batch_size, threat=threat, finished=finished, say=say),
        )
        for key, attack in attacks.items()
    }


def _say_flags(flags: Sequence[MaskingFlag], say: Callable[[str], None]) -> None:
    """Says every flag that rings, or that none does."""
    for flag in flags:
        if flag.state == "ring":
            say(f"masking alarm, {flag.name}: {flag.told}")
    if all(flag.state != "ring" for flag in flags):
        say("masking alarm: silent")


def _meaning(attacks: Mapping[str, Attack], threat: ThreatModel) -> str:
    """What the worst case over these attacks stands for."""
    if not attacks:
        return "No attack was run."
    single = next(iter(attacks.values()))
    if len(attacks) == 1 and isinstance(single, AutoAttack):
        return f"AutoAttack {single.version}, {single.meaning} within: {threat}."
    listed = ", ".join(attacks)
    return f"Rows that stay right under each of {listed}: an upper bound of the accuracy under any attack in: {threat}."


def fitted_temperature(model: nn.Module, calibration: Rows, batch_size: int = 64) -> float:
    """The temperature that makes the model's confidence fit the labels of `calibration`, which are validation rows."""
    logits = clean_logits(model, calibration, range(len(calibration)), batch_size)
    return fit_temperature(logits, torch.tensor(calibration.labels))


def _attack_result(
    name: str,
    ran: Ran,
    threat: ThreatModel,
    rows: Rows,
    positions: Sequence[int],
    right: Sequence[int],
) -> AttackResult:
    hits = merged(ran.stages)
    broken = [hit for hit in hits.values() if hit.prediction != rows.labels[hit.position]]
    radius = threat.ball.radius
    assert isinstance(radius, float | int)
    staged = isinstance(ran.attack, AutoAttack)
    return AttackResult(
        name=name,
        threat=str(threat),
        attack=str(ran.attack),
        radius=float(radius),
        relative_radius=threat.ball.relative_radius,
        robust=wilson(len(hits) - len(broken), len(positions)),
        success=wilson(len(broken), len(hits)),
        norm_ratio=sum(hit.gauge for hit in broken) / len(broken) if broken else float("nan"),
        forwards=sum(hit.forwards for hit in hits.values()),
        backwards=sum(hit.backwards for hit in hits.values()),
        seconds=sum(stage.seconds for stage in ran.stages),
        cascade=stage_results(ran.stages, rows, len(right), len(positions)) if staged else (),
    )


def _repaired(finished: Finished, say: Callable[[str], None]) -> Finished:
    """The same, once what is damaged of it was taken out and told."""
    for line in finished.repaired():
        say(f"note: {line}")
    return finished


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
    finished: Finished | None,
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
            scale = radius / own
            ledger = None if finished is None else finished.ledger(attack, threat, scale)
            given = (model, rows, alive, attack, batch_size, scale)
            found = attack_rows(*given, threat=threat, ledger=ledger, sloped=True, name=f"curve at {radius:g}")
        alive = [hit.position for hit in found if hit.prediction == rows.labels[hit.position]]
        robust: Rate = wilson(len(alive), len(positions))
        absolute = float(threat.ball.radius) * radius / own
        points.append(CurvePoint(absolute, radius if relative else None, robust))
    return tuple(points)


def _outcome(rows: Rows, position: int, guess: int, hits: Mapping[str, Mapping[int, Hit]]) -> RowOutcome:
    """A row that was wrong already keeps its wrong prediction under every attack."""
    predictions = {key: found[position].prediction if position in found else guess for key, found in hits.items()}
    return RowOutcome(rows.ids[position], rows.labels[position], guess, predictions)
