"""The masking alarm: signs that attacks failed because gradients mislead them, and not because the model is robust.

A flag rings where at least `LEAST_ROWS` rows and more than `BOUND` of all rows say so. On nine published models whose
gradients are sound, FAB and Square together took at most 0.02 points beyond APGD; 0.2 points are ten times that, and
AutoAttack's own bound for Square. With fewer than 1000 rows that would be one row, which also falls to luck: of 200
MNIST images Square takes 1 from TRADES' network (arXiv:1901.08573) after all gradient attacks, and 4 from one trained
with FGSM (arXiv:2001.03994), which is known to mask.

One row alone rings where it stands for more than `ALONE` of all rows, which is what that one image of 200 is: an
adversarial row is verified, so no second one is needed to believe it, and of few rows it moves the number that is
reported by more points than a sound network ever lost. A flag of exact zeros has no such row and keeps to two.

Not among the checks, though published (arXiv:1902.06705, arXiv:2106.09947): that doubling the steps changes nothing,
that an unbounded attack leaves no row, that an adversarial point on the way is returned (attacks here keep the worst
point, so there is nothing to check), and how unstable the loss is around a row. The first two are a matter of running
the evaluation again with other settings; the curve over radii shows the second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import NamedTuple

import torch
from torch import nn

from textadv.attacks import (
    Apgd,
    Attack,
    AutoAttack,
    Eot,
    GradientAttack,
    Momentum,
    Noise,
    Square,
    StepSize,
    ThreatModel,
    Transfer,
    Untargeted,
    fgsm,
    repeat,
)
from textadv.attacks.parts.probe import evaluate_at
from textadv.attacks.parts.unperturbed import half_to_single
from textadv.data import Rows
from textadv.measuring.accuracy.attacked_rows import Finished, Hit
from textadv.measuring.accuracy.attacking import attack_rows, samples_of
from textadv.measuring.accuracy.cascade import StageHits
from textadv.measuring.beside import Beside
from textadv.measuring.sections.masking import MaskingFlag
from textadv.models import PerturbationError, delta_shape, device_of, dtype_of, evaluating
from textadv.values.host.phases import each
from textadv.values.losses import cross_entropy, margin
from textadv.values.plurals import some
from textadv.values.randomness import seeded_sample

LEAST_ROWS = 2
BOUND = 0.002
ALONE = 0.005
NOISE_DRAWS = 10
SAMPLE_DRAW = 14
SEARCH_STEPS = 50
MOMENTUM = 0.75
WEAK = "the gradients are masked, or the gradient attacks too weak"


@dataclass(frozen=True)
class Alarm:
    """How much is looked at: rows at most per check, a seeded sample; queries of the Square probe."""

    rows: int = 256
    queries: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, count in (("rows", self.rows), ("queries", self.queries)):
            if count < 1:
                raise ValueError(f"evaluation.masking.{name} must be at least 1, got {count}.")

    def sample(self, positions: Sequence[int]) -> list[int]:
        """At most `rows` of the positions, in order."""
        return seeded_sample(positions, self.rows, self.seed, SAMPLE_DRAW)


class Ran(NamedTuple):
    """An attack of the panel with what its stages did."""

    attack: Attack
    stages: list[StageHits]


@dataclass(frozen=True)
class Looked:
    """What every check needs.

    panel: the attacks that ran. right: positions of the rows that are right without an attack, out of `total`.
    threat: with an absolute radius. finished: see `Finished`. beside: where rows that a probe breaks are noted.
    """

    model: nn.Module
    rows: Rows
    panel: Mapping[str, Ran]
    right: Sequence[int]
    total: int
    threat: ThreatModel
    alarm: Alarm
    batch_size: int
    finished: Finished | None
    beside: Beside

    def hits(self, name: str, attack: Attack, positions: Sequence[int]) -> list[Hit]:
        """What a probe does to these rows; where the panel looks at means of passes, the probe does too."""
        samples = max(samples_of(ran.attack) for ran in self.panel.values())
        attack = Eot(attack, samples) if samples > 1 else attack
        ledger = None if self.finished is None else self.finished.ledger(attack, self.threat)
        given = (self.model, self.rows, positions, attack, self.batch_size)
        found = attack_rows(*given, threat=self.threat, ledger=ledger, name="masking alarm")
        self.beside.saw(found, f"{name} of the masking alarm")
        return found

    @property
    def several(self) -> bool:
        """Whether rows have several labels, which AutoAttack and Square are not for."""
        return isinstance(self.rows.labels[self.right[0]], tuple)

    def broken_by(self, name: str, attack: Attack, left: Sequence[int]) -> _Tried:
        """What a probe breaks of a sample of the rows that are left."""
        sample = self.alarm.sample(left)
        hits = self.hits(name, attack, sample)
        broken = sum(hit.prediction != self.rows.labels[hit.position] for hit in hits)
        return _Tried(name, broken, len(sample), len(left))

    def left_by(self, stages: Sequence[StageHits]) -> list[int]:
        """The rows right without an attack that none of the stages broke."""
        broken = {position for stage in stages for position in stage.broken(self.rows)}
        return [position for position in self.right if position not in broken]

    def gradient_stages(self, backwards: int = 1) -> list[StageHits]:
        """The stages that took at least so many gradients of this model at some row."""
        own = (ran for ran in self.panel.values() if not isinstance(ran.attack, Transfer))
        found = (stage for ran in own for stage in ran.stages)
        return [stage for stage in found if any(hit.backwards >= backwards for hit in stage.hits)]


def masking_flags(
    model: nn.Module,
    rows: Rows,
    panel: Mapping[str, Ran],
    right: Sequence[int],
    total: int,
    threat: ThreatModel,
    alarm: Alarm | None,
    batch_size: int = 64,
    finished: Finished | None = None,
    beside: Beside | None = None,
) -> tuple[MaskingFlag, ...]:
    """Every check, in the order of the report; none without an alarm, an attack and a row. See `Looked`."""
    if alarm is None or not panel or not right:
        return ()
    looked = Looked(model, rows, panel, right, total, threat, alarm, batch_size, finished, beside or Beside(rows))
    return (_without_gradients(looked), _single_step(looked), _other_search(looked), *_gradients(looked))


class _Tried(NamedTuple):
    """What broke `broken` of `tried` rows that were left, there being `left` of them in all."""

    name: str
    broken: int
    tried: int
    left: int

    def share(self, total: int) -> float:
        """The share of all rows that this would break of those left, as far as those tried tell."""
        return self.broken / self.tried * self.left / total if self.tried else 0.0

    def told(self, total: int) -> str:
        """The finding in words."""
        sampled = " sampled" if self.tried < self.left else ""
        about = f", about {100 * self.share(total):.1f} points of all rows" if self.broken else ""
        return f"{self.name} broke {self.broken} of {self.tried}{sampled} rows that they left{about}"


def _judged(name: str, tried: Sequence[_Tried], who: str, total: int, remedy: str) -> MaskingFlag:
    """Rings where any of what was tried breaks more than the bound for so many rows."""
    number = max(one.share(total) for one in tried)
    ring = any(one.share(total) > (BOUND if one.broken >= LEAST_ROWS else ALONE) for one in tried)
    told = f"{who}: {'; '.join(one.told(total) for one in tried)}"
    told += f": {WEAK}. {remedy}" if ring else "."
    return MaskingFlag(name, "ring" if ring else "silent", number, told)


def _without_gradients(looked: Looked) -> MaskingFlag:
    """Whether what needs no gradient of this model, as one of another's does not, breaks rows that its own left."""
    name, gradient = "attacks without gradients", looked.gradient_stages()
    if not gradient:
        return MaskingFlag(name, "not run", None, "No attack that takes gradients ran on any row.")
    left = looked.left_by(gradient)
    tried = []
    for ran in looked.panel.values():
        for stage in ran.stages:
            given = {hit.position for hit in stage.hits} & set(left)
            if stage not in gradient and given:
                tried.append(_Tried(stage.name, len(stage.broken(looked.rows) & given), len(given), len(left)))
    tried += [looked.broken_by(probe_name, probe, left) for probe_name, probe in _probes(looked)]
    who = f"{some(len(left), 'row is', 'rows are')} right after the gradient attacks"
    remedy = "Evaluate with autoattack, version: standard, and read that number."
    if looked.several:
        remedy = "Give the attacks more steps and restarts, and do not read what they leave as robustness before."
    return _judged(name, tried, who, looked.total, remedy)


def _probes(looked: Looked) -> list[tuple[str, Attack]]:
    """Noise always; Square where an AutoAttack ran without it, and the ball allows it."""
    threat, alarm = looked.threat, looked.alarm
    probes: list[tuple[str, Attack]] = [
        (f"noise ({NOISE_DRAWS} draws)", repeat(Noise(threat, seed=alarm.seed), NOISE_DRAWS))
    ]
    automatic = [ran.attack for ran in looked.panel.values() if isinstance(ran.attack, AutoAttack)]
    searched = any(stage.name == "Square" for attack in automatic for stage in attack.stages)
    if automatic and not searched and threat.ball.geometry.name in ("L2", "Linf"):
        probe = Square(threat, alarm.queries, rescale=True, seed=alarm.seed)
        probes.append((f"Square ({alarm.queries} queries)", probe))
    return probes


def _probed(
    looked: Looked, name: str, probe: tuple[str, Attack], left: Sequence[int], who: str, remedy: str
) -> MaskingFlag:
    """The flag of a probe that follows gradients, by its name, on the rows that are left."""
    try:
        tried = looked.broken_by(*probe, left)
    except PerturbationError as error:
        return MaskingFlag(name, "not run", None, f"{probe[0]} has no gradient to follow: {error}")
    return _judged(name, [tried], who, looked.total, remedy)


def _single_step(looked: Looked) -> MaskingFlag:
    """Whether one large step breaks rows that attacks of many steps left."""
    name, iterative = "one step beats many", looked.gradient_stages(backwards=2)
    if not iterative:
        return MaskingFlag(name, "not run", None, "No attack of several steps ran on any row.")
    left = looked.left_by(iterative)
    who = f"{some(len(left), 'row is', 'rows are')} right after the attacks of many steps"
    remedy = "Give the attacks more steps, restarts and smaller step sizes."
    return _probed(looked, name, ("FGSM", fgsm(looked.threat)), left, who, remedy)


def _other_search(looked: Looked) -> MaskingFlag:
    """Whether a search of another family breaks rows that all attacks with gradients left.

    That tells an attack which is too weak, though nothing is masked: PGD from starts on the surface of the ball, say.
    """
    name = "another search"
    if not looked.gradient_stages():
        return MaskingFlag(name, "not run", None, "No attack that takes gradients ran on any row.")
    left = looked.left_by([stage for ran in looked.panel.values() for stage in ran.stages])
    own = (ran.attack for ran in looked.panel.values() if not isinstance(ran.attack, Transfer))
    probe = _of_another_family(looked, {type(part) for attack in own for part in _parts(attack)})
    remedy = "Add apgd_ce to evaluation.attacks, or give the attacks more steps and restarts."
    return _probed(
        looked, name, probe, left, f"{some(len(left), 'row is', 'rows are')} right after all attacks", remedy
    )


def _of_another_family(looked: Looked, families: Collection[type]) -> tuple[str, Attack]:
    """APGD, or where the panel has that, PGD with small steps, momentum and the margin as its goal."""
    threat, seed = looked.threat, looked.alarm.seed
    if Apgd not in families:
        return f"APGD ({SEARCH_STEPS} steps)", Apgd(threat, SEARCH_STEPS, random_start=False, seed=seed)
    steps = SEARCH_STEPS // 2
    ascent = Momentum(StepSize(relative=5 / steps), MOMENTUM)
    search = GradientAttack(
        threat, ascent, steps, Untargeted(margin), True, 2, early_stop=True, select="most_damaging", starts="spread"
    )
    return f"PGD on the margin with momentum (2 x {some(steps, 'step')})", replace(search, seed=seed)


def _parts(attack: object) -> Iterator[object]:
    """The attack and all that it is made of."""
    yield attack
    inner: list[object] = [stage.attack for stage in attack.stages] if isinstance(attack, AutoAttack) else []
    if is_dataclass(attack):
        values = [getattr(attack, one.name) for one in fields(attack)]
        inner += [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    for part in inner:
        if callable(part) and not isinstance(part, nn.Module):
            yield from _parts(part)


def _gradients(looked: Looked) -> tuple[MaskingFlag, MaskingFlag]:
    """The shares of rows whose gradient at the clean row is exactly zero, and is not finite."""
    names = "zero gradient", "gradient not finite"
    sample = looked.alarm.sample(looked.right)
    if not sample:
        empty = "No row is right without an attack."
        return MaskingFlag(names[0], "not run", None, empty), MaskingFlag(names[1], "not run", None, empty)
    zero = overflowed = 0
    with evaluating(looked.model):
        starts = range(0, len(sample), looked.batch_size)
        for start in each("masking alarm: gradients", starts, len(starts), "batches"):
            found = _zero_and_overflowed(looked, sample[start : start + looked.batch_size])
            zero, overflowed = zero + found[0], overflowed + found[1]
    of = f"of {len(sample)} rows"
    remedy = "Do not read what attacks leave as robustness." if looked.several else "Evaluate with square."
    dead = zero >= min(LEAST_ROWS, len(sample)) and zero / len(sample) > BOUND
    flags = (
        (names[0], dead, zero, f"The gradient at the clean row is exactly zero for {zero} {of}"),
        (names[1], overflowed > 0, overflowed, f"The gradient at the clean row is not finite for {overflowed} {of}"),
    )
    first, second = (
        MaskingFlag(
            name,
            "ring" if ring else "silent",
            count / len(sample),
            f"{told}: no attack that follows gradients can work there. {remedy}" if ring else f"{told}.",
        )
        for name, ring, count, told in flags
    )
    return first, second


def _zero_and_overflowed(looked: Looked, places: Sequence[int]) -> tuple[int, int]:
    """How many rows have a gradient of zeros, of the cross-entropy or of the margin, and one that is not finite."""
    batch = looked.rows.batch(places).to(device_of(looked.model))
    model, threat = looked.model, looked.threat
    dtype = half_to_single(dtype_of(model))
    nowhere = torch.zeros(delta_shape(model, batch, threat.space), device=batch.device, dtype=dtype)
    movable = batch.editable.flatten(1).any(dim=1)
    dead, odd = torch.zeros_like(movable), torch.zeros_like(movable)
    for loss in (cross_entropy, margin):
        try:
            grad = evaluate_at(model, batch, threat, nowhere, Untargeted(loss), None, ascend=True).grad
        except PerturbationError:
            dead = torch.ones_like(dead)
            continue
        assert grad is not None
        flat = grad.flatten(1)
        dead, odd = dead | ~flat.any(dim=1), odd | ~flat.isfinite().all(dim=1)
    return int((dead & movable).sum()), int((odd & movable).sum())
