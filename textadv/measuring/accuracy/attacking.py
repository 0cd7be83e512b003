"""Rows of a data set put through a classifier, as they are and under an attack, and the predictions checked anew."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from textadv.attacks import Attack, AutoAttack, Eot, ThreatModel
from textadv.attacks.parts.attacked import Cost, Slopes
from textadv.attacks.parts.calling import searched
from textadv.attacks.parts.unperturbed import mean_logits
from textadv.data import Rows
from textadv.measuring.accuracy.adversarial_rows import rows_of
from textadv.measuring.accuracy.attacked_rows import NONE_FOUND, Hit, Ledger
from textadv.measuring.ledger import Row
from textadv.models import Averaged, delta_shape, device_of, editable_mask, evaluating, require_logits
from textadv.models.finite import overflow
from textadv.values.batch import Batch
from textadv.values.decisions import Decisions, Label, of_rows, right_in_all
from textadv.values.errors import NonFiniteError, PerturbationError
from textadv.values.host.phases import phase
from textadv.values.plurals import some
from textadv.values.processes import from_shares, own_batches
from textadv.values.randomness import seeded_scope
from textadv.values.windows import margins

BALL_TOLERANCE = 1e-4
NOT_FINITE = -1
CHECK_SEED = 17


def samples_of(attack: Attack | None) -> int:
    """How many passes one prediction is the mean of, where the attack is one on models whose output is random."""
    if isinstance(attack, Eot) or (isinstance(attack, AutoAttack) and attack.version == "rand"):
        return attack.samples
    return 1


@contextmanager
def _looking(model: nn.Module, samples: int) -> Iterator[nn.Module]:
    """The model to look at, in evaluation mode without gradients; means of passes are the same at every call."""
    with evaluating(model), torch.no_grad():
        if samples == 1:
            yield model
            return
        with seeded_scope(CHECK_SEED):
            yield Averaged(model, samples)


def _batches(rows: Rows, positions: Sequence[int], size: int, model: nn.Module) -> list[list[int]]:
    """This process' share of the positions, rows of like length together."""
    return own_batches(positions, size, lambda position: (rows.lengths[position], position), model)


def clean_logits(
    model: nn.Module, rows: Rows, positions: Sequence[int], batch_size: int = 64, samples: int = 1
) -> Tensor:
    """The logits of the rows at `positions`, (N, C) float32 on the CPU, in their order; in evaluation mode.

    Of rows of several labels those of each, N in all, as `in_line` has their labels.

    samples: passes that they are the mean of, where the model's output is random.

    Raises ModelError as `require_logits`, and NonFiniteError where a logit is nan or infinite: an argmax over it would
    look like a prediction.
    """
    found: list[tuple[int, list[list[float]]]] = []
    parts = _batches(rows, positions, batch_size, model)
    with _looking(model, samples) as seen, phase("without an attack", sum(map(len, parts))) as advance:
        for part in parts:
            batch = rows.batch(part).to(device_of(model))
            decided = _decided(mean_logits(seen, batch), batch)
            each = decided.logits.float().split(decided.counts)
            found += ((place, own.tolist()) for place, own in zip(part, each, strict=True))
            advance(len(part))
    by_position = dict(from_shares(found, model))
    odd = [place for place in positions if not all(map(math.isfinite, chain.from_iterable(by_position[place])))]
    _require_finite(model, rows, odd, "without an attack")
    return torch.tensor([own for position in positions for own in by_position[position]])


def _decided(logits: Tensor, batch: Batch) -> Decisions:
    """The decisions of these rows. Raises ModelError where rows of one class do not have one row of logits each."""
    if batch.one_each:
        require_logits(logits, len(batch))
    return Decisions.of(logits, batch)


def guessed(rows: Rows, positions: Sequence[int], logits: Tensor) -> dict[int, Label]:
    """What each row at `positions` is taken for, by position. logits: as `clean_logits` gives them, (N, C)."""
    labels = [rows.labels[position] for position in positions]
    return dict(zip(positions, of_rows(logits.argmax(dim=1).tolist(), labels), strict=True))


def partly_right(rows: Rows, guesses: Mapping[int, Label]) -> list[int]:
    """The positions at which something is right and may be broken; of rows of one class those that are right."""
    return [position for position, guess in guesses.items() if right_in_all(rows.labels[position], guess)]


def _require_finite(model: nn.Module, rows: Rows, odd: Sequence[int], when: str) -> None:
    if odd:
        raise NonFiniteError(
            f"The logits of {len(odd)} rows are not finite {when}, first row ids {[rows.ids[n] for n in odd[:5]]}. "
            f"{overflow(model, rows.batch(odd[:1]).to(device_of(model)))}"
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
    ledger: Ledger | None = None,
    sloped: bool = False,
    kept: dict[int, Row] | None = None,
    scored: int | None = None,
    name: str = "attack",
) -> list[Hit]:
    """What the attack does to the rows at `positions`, in their order; rows without an editable position hold.

    A row whose gradient is zero holds too, unless the attack breaks it without.

    What the attack says about its success is not believed: its perturbation is put on the original rows and the
    prediction is computed anew. threat: with an absolute radius; the perturbation's norm is measured against it.
    Without it the norms that the attack reports are taken. ledger: rows that it knows are not attacked again, and
    every batch is written to it. sloped: whether other rows of this model are known to have a gradient. kept: gets the
    adversarial rows, tensors of any shape, by position, see `write_rows`; on every process those of all. scored: the
    class whose lead under attack each hit tells, of rows of one class. name: what this phase is called where it is told
    how far it is.

    Raises PerturbationError where no row has a gradient, nor is known to; RuntimeError where a perturbation lies
    outside its ball or moves a position that is not editable, and NonFiniteError as `clean_logits`.
    """
    found: list[Hit] = []
    unwritten: list[tuple[list[Hit], float]] = []
    own: dict[int, Row] | None = None if kept is None else {}
    threat = None if threat is None else threat.scaled(radius_scale)
    parts = _batches(rows, positions, batch_size, model)
    slopes = Slopes(sloped)
    with evaluating(model), phase(name, sum(map(len, parts))) as advance:
        for part in parts:
            known = [] if ledger is None else ledger.look_up(rows, part, own)
            done = {hit.position for hit in known}
            slopes = slopes.plus(Slopes(bool(known)))
            began = time.perf_counter()
            left = [place for place in part if place not in done]
            fresh, met = _attacked(model, rows, left, attack, threat, radius_scale, own, scored)
            slopes = slopes.plus(met)
            unwritten.append((fresh, time.perf_counter() - began))
            if not slopes.flat:
                _write(ledger, unwritten, own)
            found += known + fresh
            advance(len(part))
    _require_slope(slopes, model)
    _write(ledger, unwritten, own)
    if kept is not None and own is not None:
        kept |= dict(from_shares(list(own.items()), model))
    if ledger is not None:
        ledger.read = sum(from_shares([ledger.read], model))
    by_position = {hit[0]: Hit(*hit) for hit in from_shares(found, model)}
    hits = [by_position[position] for position in positions]
    _require_finite(model, rows, [hit.position for hit in hits if hit.prediction == NOT_FINITE], f"under {attack}")
    outside = [hit for hit in hits if not hit.gauge <= 1 + BALL_TOLERANCE]
    if outside:
        first = outside[0]
        limits = f" ({threat})" if threat is not None else ""
        raise RuntimeError(
            f"{attack} left its threat model{limits} at {some(len(outside), 'row')}: norm / radius {first.gauge:.6g} "
            "at row id "
            f"{rows.ids[first.position]}. What it breaks says nothing about that threat model; correct the attack."
        )
    return hits


def _require_slope(slopes: Slopes, model: nn.Module) -> None:
    """Raises PerturbationError on every process where no process' rows have a gradient and some were searched."""
    for other in from_shares([slopes], model):
        slopes = slopes.plus(Slopes(*other))
    if slopes.flat:
        raise PerturbationError(str(slopes.complaint))


def _write(
    ledger: Ledger | None, batches: list[tuple[list[Hit], float]], kept: Mapping[int, Row] | None = None
) -> None:
    """Writes down batches with the seconds that they took, but for what an error is due for, and empties the list.

    Rows without a gradient wait until another row has one: a model that none reaches must not look robust later.
    """
    for hits, seconds in batches:
        if ledger is not None and hits and all(map(_is_sound, hits)):
            ledger.write(hits, seconds, kept)
    batches.clear()


def _is_sound(hit: Hit) -> bool:
    return hit.prediction != NOT_FINITE and hit.gauge <= 1 + BALL_TOLERANCE


def _attacked(
    model: nn.Module,
    rows: Rows,
    part: Sequence[int],
    attack: Attack,
    threat: ThreatModel | None,
    radius_scale: float,
    kept: dict[int, Row] | None,
    scored: int | None,
) -> tuple[list[Hit], Slopes]:
    """The rows at `part`: those that can be moved as one batch under attack, the others as they are."""
    if not part:
        return [], Slopes()
    movable = rows.batch(part).editable.flatten(1).any(dim=1).tolist()
    found: list[Hit] = []
    slopes = Slopes()
    # An attack asked to move nothing would report, rightly, that it has no gradient.
    for attacker, wanted in ((attack, True), (None, False)):
        places = [place for place, moves in zip(part, movable, strict=True) if moves is wanted]
        if places:
            hits, met = _hits(model, rows, places, attacker, threat, radius_scale, samples_of(attack), kept, scored)
            found, slopes = found + hits, slopes.plus(met)
    return found, slopes


def _hits(
    model: nn.Module,
    rows: Rows,
    places: Sequence[int],
    attack: Attack | None,
    threat: ThreatModel | None,
    radius_scale: float,
    samples: int,
    kept: dict[int, Row] | None,
    scored: int | None,
) -> tuple[list[Hit], Slopes]:
    """The rows at `places` as one batch, and what the search met; without an attack they stay as they are."""
    batch = rows.batch(places).to(device_of(model))
    gauge, cost, slopes = torch.zeros(len(batch)), Cost.none(batch), Slopes()
    sizes: list[float | None] = [None] * len(batch)
    if attack is not None:
        attacked = searched(attack, model, batch, radius_scale=radius_scale).of_same_tokens("The evaluation")
        slopes = attacked.slopes
        space, delta = attacked.perturbation.space, attacked.perturbation.delta.detach()
        if threat is not None and space != threat.space:
            raise RuntimeError(f"{attack} perturbed {space}, the threat model allows {threat.space}.")
        stray = delta.masked_fill(editable_mask(batch, tuple(delta.shape)), 0).flatten(1).any(dim=1)
        found = attacked.gauge if threat is None else threat.ball.gauge(delta)
        gauge, cost = found.masked_fill(stray, float("inf")), attacked.cost
        if attacked.size is not None:
            sizes = attacked.size.masked_fill(attacked.size.isinf(), NONE_FOUND).tolist()
        batch = batch.perturbed(space, delta)
    predictions, leads = _predictions(model, batch, samples, scored)
    if kept is not None:
        kept |= zip(places, rows_of(batch if attack is not None else _still(model, batch, threat)), strict=True)
    queries = cost.queries + samples
    values = (gauge, cost.forwards + queries, cost.backwards, queries)
    columns = (value.tolist() for value in values)
    return list(map(Hit._make, zip(places, predictions, *columns, sizes, leads, strict=True))), slopes


def _still(model: nn.Module, batch: Batch, threat: ThreatModel | None) -> Batch:
    """Rows that nothing can move, with a perturbation of zeros."""
    assert threat is not None
    return batch.perturbed(threat.space, torch.zeros(delta_shape(model, batch, threat.space), device=batch.device))


def _predictions(
    model: nn.Module, batch: Batch, samples: int, scored: int | None
) -> tuple[list[Label], list[float | None]]:
    """What each row is taken for, NOT_FINITE where a logit is nan or infinite, and by how much class `scored` leads."""
    with _looking(model, samples) as seen:
        decided = Decisions.of(mean_logits(seen, batch), batch)
    guesses = decided.logits.argmax(dim=1).tolist()
    finite = decided.every(decided.logits.isfinite().all(dim=1)).tolist()
    leads: list[float | None] = [None] * len(batch)
    if scored is not None:
        leads = margins(decided.logits.float(), scored).tolist()
    if decided.counted is None:
        return [guess if sound else NOT_FINITE for guess, sound in zip(guesses, finite, strict=True)], leads
    each = of_rows(guesses, [(0,) * count for count in decided.counts])
    return [guess if sound else NOT_FINITE for guess, sound in zip(each, finite, strict=True)], leads
