"""What a classifier gets right, without and under attack: per attack, in the worst case, and along a list of radii."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, AutoAttack, ThreatModel, Transfer, require_same_classes
from textadv.data import Rows, require_labelled
from textadv.measuring.accuracy.adversarial_rows import write_rows
from textadv.measuring.accuracy.attacked_rows import Finished, Hit
from textadv.measuring.accuracy.attacking import attack_rows, clean_logits, guessed, partly_right, samples_of
from textadv.measuring.accuracy.calibration import expected_calibration_error, fit_temperature
from textadv.measuring.accuracy.cascade import merged, run_stages, stage_results
from textadv.measuring.accuracy.masking import Alarm, Ran, masking_flags
from textadv.measuring.accuracy.minimum import RadiusSearch, minimum_radii, quartiles_of, sizes_of
from textadv.measuring.accuracy.record import AttackResult, Classified, RobustPoint, right_everywhere
from textadv.measuring.accuracy.sanity import Answered, answer_doubts, no_better_than_constant, temperature_doubt
from textadv.measuring.arguments import require_measurable, require_scorable
from textadv.measuring.beside import COUNTED, Beside
from textadv.measuring.ledger import Row
from textadv.measuring.measured import Measured
from textadv.measuring.sections.radii import MinimumRadii
from textadv.measuring.sections.rows import RowOutcome
from textadv.measuring.statistics import Rate, wilson
from textadv.models import tempered
from textadv.training.progress import Scores
from textadv.values.decisions import Label, in_line, right_in_all
from textadv.values.processes import rank

SURROGATE_ROWS = 256


def scores(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    attack: Attack | None,
    batch_size: int = 64,
    *,
    threat: ThreatModel | None = None,
    names: Sequence[str] = (),
) -> Scores:
    """Clean and robust accuracy on held-out rows, of several labels by label; None is that without an attack.

    threat: what the attack's perturbations are measured against, see `attack_rows`. names: of the classes.
    """
    positions = require_scorable(model, rows, positions, attack, threat)
    logits = clean_logits(model, rows, positions, batch_size)
    guesses = guessed(rows, positions, logits)
    answered = _answered(rows, positions, logits, "validation", names)
    total = len(answered.labels)
    clean = sum(right_in_all(rows.labels[position], guess) for position, guess in guesses.items())
    robust = None
    if attack is not None:
        left = partly_right(rows, guesses)
        hits = attack_rows(model, rows, left, attack, batch_size, threat=threat, name="validation")
        held = (right_in_all(rows.labels[hit.position], guesses[hit.position], hit.prediction) for hit in hits)
        robust = sum(held) / total
    constant = no_better_than_constant(answered.guesses, answered.labels)
    return Scores(clean / total, robust, constant, answered.order_doubt())


def _answered(rows: Rows, positions: Sequence[int], logits: Tensor, split: str, names: Sequence[str]) -> Answered:
    """What was answered to these rows. logits: as `clean_logits` gives them, (N, C)."""
    labels = [rows.labels[position] for position in positions]
    several = any(isinstance(label, tuple) for label in labels)
    return Answered(logits.argmax(dim=1).tolist(), in_line(labels), logits.shape[1], split, names, several)


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
    names: Sequence[str] = (),
    keep_adversarial: str | Path | None = None,
) -> Measured:
    """Everything measured on one classifier: `found["accuracy/worst_case"]`, `found.section(Cascade)` and the like.

    attacks: by name, each built for `threat`; run on the rows that are right without attack (of several labels: in
    any), those that come in stages stage by stage. A row of several labels is right where all of them are. threat: a
    relative radius in embeddings is resolved on this model. positions: the rows to attack, all by default; clean
    accuracy is over the same rows. radii: ascending, in the threat's own unit (relative where that is relative); the
    attack `curve_attack` (by default the first) runs at each, on rows that no smaller radius broke, since a larger
    ball holds the smaller one's perturbations. calibration: validation rows on which a temperature is fitted first;
    predictions and attacks then see calibrated logits. say: told how it goes. finished: where rows that are done are
    kept and read back. alarm: how much is looked at for masked gradients, None for not at all. minimum: how the
    smallest radius that breaks each row is looked for, None for not at all. names: what the classes are called in
    `notes`, which say what cannot be right about the numbers, before any attack runs. keep_adversarial: a folder for
    the rows as each attack of the panel left them, a safetensors file for each, see `write_rows`.

    Raises TypeError, ValueError or DataError, before anything runs, where an argument is of the wrong kind;
    RuntimeError where an attack leaves the threat model, NonFiniteError where a logit is nan or infinite, and
    ModelError where the model returns no logits, or the radius is relative and the space needs rows to measure it on.
    """
    positions, into, names = require_measurable(
        model, rows, attacks, threat, positions, radii, curve_attack, keep_adversarial, batch_size, minimum, names
    )
    threat, curve_attack = threat.resolved(model), curve_attack or next(iter(attacks), None)
    fitted = None if calibration is None else calibrated(model, calibration, batch_size, names)
    temperature = fitted.temperature if fitted else 1.0
    raw = _clean(model, rows, positions, batch_size, attacks.values())
    guesses, answered = guessed(rows, positions, raw), _answered(rows, positions, raw, split, names)
    right = [p for p in positions if guesses[p] == rows.labels[p]]
    say(f"{name}: {len(right)} of {len(positions)} {split} rows right without an attack")
    notes = tuple(_doubts(answered, fitted, attacks, rows, positions[:SURROGATE_ROWS], batch_size))
    _say_all(notes, lambda line: say(f"note: {name}: {line}"))
    kept = None if finished is None else _repaired(finished, say).under(temperature)
    with tempered(model, temperature):
        panel = _panel(model, rows, attacks, guesses, threat, batch_size, kept, _named(say, name), into)
        hits, beside = {key: merged(ran.stages) for key, ran in panel.items()}, Beside(rows)
        curve = _curve(model, positions, right, attacks, curve_attack, threat, radii, hits, batch_size, kept, beside)
        flags = masking_flags(model, rows, panel, right, len(positions), threat, alarm, batch_size, kept, beside)
        smallest = None if minimum is None else minimum_radii(model, rows, positions, threat, minimum, batch_size, kept)
    detail = _outcomes(rows, guesses, hits, beside, None if _averages(attacks) else smallest)
    measured = Classified(
        name=name,
        rows=len(positions),
        split=split,
        clean=wilson(len(right), len(positions)),
        temperature=temperature,
        ece_before=expected_calibration_error(raw, torch.tensor(answered.labels)),
        ece_after=expected_calibration_error(raw, torch.tensor(answered.labels), temperature),
        attacks=tuple(_attack_result(key, ran, threat, rows, positions, right) for key, ran in panel.items()),
        worst_case=wilson(sum(map(right_everywhere, detail)), len(positions)),
        curve=curve,
        rows_detail=detail,
        curve_attack=curve_attack if curve else None,
        worst_case_meaning=_meaning(attacks, threat) + (COUNTED if any(row.beside for row in detail) else ""),
        masking=flags,
        minimum=smallest,
        notes=notes,
    )
    return _said(measured, say)


def _averages(attacks: Mapping[str, Attack]) -> bool:
    """Whether some attack looks at means of several passes."""
    return max(map(samples_of, attacks.values()), default=1) > 1


def _clean(
    model: nn.Module, rows: Rows, positions: Sequence[int], batch_size: int, attacks: Collection[Attack]
) -> Tensor:
    """The logits without an attack; raises ValueError where an attack is built for other classes."""
    logits = clean_logits(model, rows, positions, batch_size, max(map(samples_of, attacks), default=1))
    require_same_classes(attacks, logits.shape[1])
    return logits


def _named(say: Callable[[str], None], name: str) -> Callable[[str], None]:
    """What tells lines about the model of that name."""
    return lambda line: say(f"{name}: {line}")


def _doubts(
    answered: Answered,
    fitted: Calibrated | None,
    attacks: Mapping[str, Attack],
    rows: Rows,
    sample: Sequence[int],
    batch_size: int,
) -> Iterator[str]:
    """What cannot be right: about the answers, the temperature, and the models that attacks are transferred from."""
    if not answered.labels:
        return
    yield from answer_doubts(answered)
    if fitted is not None:
        same = None not in (answered.order, fitted.answered.order)
        same = same and answered.order.classes == fitted.answered.order.classes  # type: ignore[union-attr]
        yield from (doubt for doubt in fitted.doubts if not same or doubt != fitted.answered.order_doubt())
    for key, attack in attacks.items():
        if isinstance(attack, Transfer):
            logits = clean_logits(attack.surrogate, rows, sample, batch_size)
            theirs = _answered(rows, sample, logits, answered.split, answered.names)
            told = f"{attack.name}, which {key} is transferred from"
            yield from (f"{told}: {doubt}" for doubt in answer_doubts(theirs))


def _panel(
    model: nn.Module,
    rows: Rows,
    attacks: Mapping[str, Attack],
    guesses: Mapping[int, Label],
    threat: ThreatModel,
    batch_size: int,
    finished: Finished | None,
    say: Callable[[str], None],
    files: Mapping[str, Path] | None,
) -> dict[str, Ran]:
    """Every attack, stage by stage, on the rows in which something is right without one.

    guesses: what each is taken for then. files: where adversarial rows go.
    """
    found, left = {}, partly_right(rows, guesses)
    for key, attack in attacks.items():
        kept: dict[int, Row] | None = None if files is None else {}
        stages = run_stages(
            model, rows, left, key, attack, batch_size, threat=threat, finished=finished, say=say, kept=kept
        )
        found[key] = Ran(attack, stages)
        if files is not None and kept is not None and rank() == 0:
            hits = merged(stages)
            write_rows(files[key], kept, [hits[position] for position in left], rows, attack, threat)
            say(f"{key}: {len(left)} adversarial rows in {files[key]}")
    return found


def _said(found: Classified, say: Callable[[str], None]) -> Measured:
    """The record, told of first."""
    _say_all(_told(found), say)
    return found.record


def _told(found: Classified) -> Iterator[str]:
    """What the attacks gave away, or that no flag rings, and how long the search for the smallest radius took."""
    yield from (f"note: {found.name}: {doubt}" for doubt in found.doubts)
    if found.masking and all(flag.state != "ring" for flag in found.masking):
        yield f"{found.name}: masking alarm: silent"
    if found.minimum is not None:
        searched = f"smallest radius of {len(found.minimum.radii)} rows, in {found.minimum.seconds:.0f} s"
        yield f"{found.name}: {searched}"


def _say_all(lines: Iterable[str], say: Callable[[str], None]) -> None:
    for line in lines:
        say(line)


def _meaning(attacks: Mapping[str, Attack], threat: ThreatModel) -> str:
    """What the worst case over these attacks stands for."""
    if not attacks:
        return "No attack was run."
    single = next(iter(attacks.values()))
    if len(attacks) == 1 and isinstance(single, AutoAttack):
        return f"AutoAttack {single.version}, {single.meaning} within: {threat}."
    listed = ", ".join(attacks)
    return f"Rows that stay right under each of {listed}: an upper bound of the accuracy under any attack in: {threat}."


class Calibrated(NamedTuple):
    """A temperature, the answers to the rows that it was fitted on, and what cannot be right about either."""

    temperature: float
    answered: Answered
    doubts: tuple[str, ...]


def calibrated(model: nn.Module, calibration: Rows, batch_size: int = 64, names: Sequence[str] = ()) -> Calibrated:
    """The temperature that makes the model's confidence fit the labels of `calibration`, which are validation rows.

    names: of the classes.
    """
    require_labelled(calibration)
    positions = range(len(calibration))
    logits = clean_logits(model, calibration, positions, batch_size)
    temperature = fit_temperature(logits, torch.tensor(in_line(calibration.labels)))
    answered = _answered(calibration, positions, logits, "validation", names)
    doubts = (answered.order_doubt(), temperature_doubt(temperature, answered))
    return Calibrated(temperature, answered, tuple(doubt for doubt in doubts if doubt is not None))


def fitted_temperature(model: nn.Module, calibration: Rows, batch_size: int = 64) -> float:
    """The temperature alone, see `calibrated`."""
    return calibrated(model, calibration, batch_size).temperature


def _attack_result(
    name: str,
    ran: Ran,
    threat: ThreatModel,
    rows: Rows,
    positions: Sequence[int],
    right: Sequence[int],
) -> AttackResult:
    hits = merged(ran.stages)
    broken = [hits[position] for position in right if hits[position].prediction != rows.labels[position]]
    radius = threat.ball.radius
    assert isinstance(radius, float | int)
    staged = isinstance(ran.attack, AutoAttack)
    sizes = sizes_of(rows, positions, hits)
    return AttackResult(
        name=name,
        threat=str(threat),
        attack=str(ran.attack),
        radius=float(radius),
        relative_radius=threat.ball.relative_radius,
        robust=wilson(len(right) - len(broken), len(positions)),
        success=wilson(len(broken), len(right)),
        norm_ratio=sum(hit.gauge for hit in broken) / len(broken) if broken else float("nan"),
        forwards=sum(hit.forwards for hit in hits.values()),
        backwards=sum(hit.backwards for hit in hits.values()),
        seconds=sum(stage.seconds for stage in ran.stages),
        cascade=stage_results(ran.stages, rows, len(right), len(positions)) if staged else (),
        sizes=sizes,
        quartiles=quartiles_of([row.radius for row in sizes]),
    )


def _repaired(finished: Finished, say: Callable[[str], None]) -> Finished:
    """The same, once what is damaged of it was taken out and told."""
    for line in finished.repaired():
        say(f"note: {line}")
    return finished


def _curve(
    model: nn.Module,
    positions: Sequence[int],
    right: Sequence[int],
    attacks: Mapping[str, Attack],
    drawn: str | None,
    threat: ThreatModel,
    radii: Sequence[float],
    hits: Mapping[str, Mapping[int, Hit]],
    batch_size: int,
    finished: Finished | None,
    beside: Beside,
) -> tuple[RobustPoint, ...]:
    """Robust accuracy at each radius under the attack `drawn`; at the threat's own, the hits known are used.

    beside: where the rows are noted that break at the threat's radius or a smaller one.
    """
    if drawn is None:
        return ()
    attack, known, rows = attacks[drawn], hits[drawn], beside.rows
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
        if radius <= own:
            beside.saw(found, f"{drawn} at radius {radius:g}")
        alive = [hit.position for hit in found if hit.prediction == rows.labels[hit.position]]
        robust: Rate = wilson(len(alive), len(positions))
        absolute = float(threat.ball.radius) * radius / own
        points.append(RobustPoint(absolute, radius if relative else None, robust))
    return tuple(points)


def _outcomes(
    rows: Rows,
    guesses: Mapping[int, Label],
    hits: Mapping[str, Mapping[int, Hit]],
    beside: Beside,
    smallest: MinimumRadii | None,
) -> tuple[RowOutcome, ...]:
    """What happened to every row. guesses: by position, without an attack; smallest: where it tells of the threat."""
    beside.measured(smallest, tuple(guesses))
    return tuple(_outcome(rows, position, guess, hits, beside) for position, guess in guesses.items())


def _outcome(
    rows: Rows, position: int, guess: Label, hits: Mapping[str, Mapping[int, Hit]], beside: Beside
) -> RowOutcome:
    """A row in which all was wrong keeps its wrong prediction under every attack, and is broken by nothing else."""
    predictions = {key: found[position].prediction if position in found else guess for key, found in hits.items()}
    label = rows.labels[position]
    held = guess == label and all(prediction == label for prediction in predictions.values())
    return RowOutcome(rows.ids[position], label, guess, predictions, beside.found.get(position, "") if held else "")
