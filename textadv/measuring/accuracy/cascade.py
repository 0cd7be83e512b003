"""Attacks that come in stages, run on a data set: each stage on the rows that are still right after those before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import nn

from textadv.attacks import Attack, AutoAttack, ThreatModel
from textadv.data import Rows
from textadv.measuring.accuracy.attacked_rows import Finished, Hit
from textadv.measuring.accuracy.attacking import attack_rows
from textadv.measuring.ledger import Row
from textadv.measuring.sections.cascade import StageResult
from textadv.measuring.statistics import wilson


class StageHits(NamedTuple):
    """What one stage did to the rows that it was given; hits: one per row. seconds: wall clock."""

    name: str
    attack: str
    hits: list[Hit]
    seconds: float

    def broken(self, rows: Rows) -> set[int]:
        """The positions of the rows that this stage broke."""
        return {hit.position for hit in self.hits if hit.prediction != rows.labels[hit.position]}


def stages_of(name: str, attack: Attack) -> list[tuple[str, Attack]]:
    """The attack's stages by name, or itself as its only stage."""
    if isinstance(attack, AutoAttack):
        return [(stage.name, stage.attack) for stage in attack.stages]
    return [(name, attack)]


def run_stages(
    model: nn.Module,
    rows: Rows,
    positions: Sequence[int],
    name: str,
    attack: Attack,
    batch_size: int = 64,
    *,
    threat: ThreatModel,
    finished: Finished | None = None,
    say: Callable[[str], None] = lambda line: None,
    kept: dict[int, Row] | None = None,
) -> list[StageHits]:
    """Every stage of the attack on those of the rows at `positions` that no stage before has broken.

    finished: where rows that are done are kept, see `Finished`. say: told after every stage. kept: gets the adversarial
    rows, tensors of any shape, by position, each as the last stage that it met left it. Raises what `attack_rows` does.
    """
    alive, found = list(positions), []
    stages = stages_of(name, attack)
    for place, (stage, one) in enumerate(stages):
        ledger = None if finished is None else finished.ledger(one, threat, keeping=kept is not None)
        if finished is not None and ledger is None:
            say(f"{name}, {stage}: cannot be told from other attacks, so that its finished rows are not kept")
        called = name if len(stages) == 1 else f"{name}, {stage}"
        began = time.perf_counter()
        # What the first stage leaves may be just the rows without a gradient.
        hits = attack_rows(
            model,
            rows,
            alive,
            one,
            batch_size,
            threat=threat,
            ledger=ledger,
            sloped=place > 0,
            kept=kept,
            name=called,
        )
        seconds = time.perf_counter() - began
        again = ""
        if ledger is not None and ledger.read:
            seconds += ledger.seconds * ledger.read / len(ledger.known)
            again = f" ({ledger.read} rows read back, having been attacked before)"
        found.append(StageHits(stage, str(one), hits, seconds))
        alive = [hit.position for hit in hits if hit.prediction == rows.labels[hit.position]]
        say(f"{called} leaves {len(alive)} right, in {seconds:.0f} s{again}")
    return found


def merged(stages: Iterable[StageHits]) -> dict[int, Hit]:
    """One hit per row: the last stage that it met decides, which broke it if any did; passes are those of all."""
    found: dict[int, Hit] = {}
    for stage in stages:
        for hit in stage.hits:
            before = found.get(hit.position)
            if before is not None:
                passes = (a + b for a, b in zip(before[3:6], hit[3:6], strict=True))
                hit = Hit(hit.position, hit.prediction, hit.gauge, *passes)
            found[hit.position] = hit
    return found


def stage_results(stages: Sequence[StageHits], rows: Rows, right: int, total: int) -> tuple[StageResult, ...]:
    """The cascade: what was left after each stage of `right` rows that were right without an attack, out of `total`."""
    results, left = [], right
    for stage in stages:
        broken = len(stage.broken(rows))
        left -= broken
        results.append(
            StageResult(
                name=stage.name,
                attack=stage.attack,
                robust=wilson(left, total),
                broken=broken,
                forwards=sum(hit.forwards for hit in stage.hits),
                backwards=sum(hit.backwards for hit in stage.hits),
                queries=sum(hit.queries for hit in stage.hits),
                seconds=stage.seconds,
            )
        )
    return tuple(results)
