"""What the curve over radii broke of a chat model inside the threat: it counts in the worst case of the same model.

A worst case is never better than what the run itself found. A point of the curve counts where an attack of the panel
might have made the same perturbation: in a ball of the same kind that is as large or larger. The second judges did not
read the curve's answers, so that their worst cases are over the panel alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from textadv.measuring.measured import Measure
from textadv.measuring.safety.adversaries import Adversary, Direct
from textadv.measuring.safety.elicitation import DIRECT, WORST_CASE
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.measures import outcome_measures
from textadv.measuring.safety.outcomes import Outcome, counted, gravest
from textadv.measuring.safety.radius_curve import PLAIN, Curve
from textadv.measuring.safety.sanity import contains, weaker_than
from textadv.measuring.sections.outcomes import AttackOutcomes


@dataclass
class Reached:
    """The outcomes at every point of a curve: name of its attack -> id of the behaviour -> what became of it."""

    outcomes: dict[str, dict[int, Outcome]] = field(default_factory=dict)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)

    def saw(self, names: Iterable[str], ids: Sequence[int], told: Sequence[AttackOutcomes]) -> None:
        """Takes note of the attacks `names` among those told of, whose behaviours are `ids`."""
        wanted = set(names)
        for one in told:
            if one.attack in wanted:
                self.outcomes.setdefault(one.attack, {}).update(zip(ids, one.behaviours, strict=True))  # type: ignore[arg-type]
                self.kinds.setdefault(one.attack, Counter()).update(one.kinds)

    def below(self, names: Iterable[str], ids: Sequence[int]) -> list[Outcome | None]:
        """The gravest outcome of each behaviour at these points; None where it was not asked."""
        points = [self.outcomes.get(name, {}) for name in names]
        each = [[point[number] for point in points if number in point] for number in ids]
        return [gravest(found) if found else None for found in each]


def inside(curve: Curve, attacks: Mapping[str, Adversary]) -> list[str]:
    """The names of the points that some attack of the panel contains, the plain request among them."""
    points: dict[str, Adversary] = {PLAIN: Direct(), **curve.attacks} if curve.attacks else {}
    panel = {DIRECT: Direct(), **attacks}
    return [
        name for name, narrow in points.items() if any(contains(wide, narrow, as_large=True) for wide in panel.values())
    ]


def with_curve(
    outcomes: Sequence[AttackOutcomes], reached: Reached, names: Sequence[str], ids: Sequence[int]
) -> tuple[AttackOutcomes, ...]:
    """The same outcomes, the worst case with what the points `names` found; ids: of the behaviours, in their order."""
    found = reached.below(names, ids)
    kinds: Counter[str] = Counter()
    for name in names:
        kinds.update(reached.kinds.get(name, {}))
    return tuple(_recounted(one, found, kinds) if one.attack == WORST_CASE else one for one in outcomes)


def _recounted(worst: AttackOutcomes, found: Sequence[Outcome | None], kinds: Mapping[str, int]) -> AttackOutcomes:
    behaviours = [
        gravest([own] if beside is None else [own, beside]) for own, beside in zip(worst.behaviours, found, strict=True)
    ]
    if tuple(behaviours) == worst.behaviours:
        return worst
    kinds = Counter(worst.kinds) + Counter(kinds)
    return counted(worst.attack, behaviours, kinds, answers=worst.answers, whole=worst.whole, silent=worst.silent)


def with_worst_case(
    measures: Sequence[Measure], before: AttackOutcomes, worst: AttackOutcomes, decoding: Decoding
) -> list[Measure]:
    """The measures, those of the worst case counted anew, with how many behaviours only the curve found.

    before: the worst case over the panel alone.
    """
    if worst.behaviours == before.behaviours:
        return list(measures)
    fresh = {measure.id: measure for measure in outcome_measures([worst], decoding)}
    fields = ("value", "low", "high", "total", "rows", "note")
    found = []
    for measure in measures:
        if measure.id in fresh:
            again = fresh[measure.id]
            more = sum(new > old for new, old in zip(again.rows, measure.rows, strict=True))
            told = [f"{more} of them by the curve alone, at or below the threat's radius"] if more else []
            again = replace(again, note="; ".join([*([again.note] if again.note else []), *told]))
            measure = replace(measure, **{name: getattr(again, name) for name in fields})
        found.append(measure)
    return found


def curve_doubts(
    outcomes: Sequence[AttackOutcomes],
    attacks: Mapping[str, Adversary],
    reached: Reached,
    curve: Curve,
    ids: Sequence[int],
) -> Iterable[str]:
    """The attacks that break fewer than the curve did in a ball that they contain, see `weaker_doubts`."""
    for one in outcomes:
        wide = attacks.get(one.attack)
        names = [] if wide is None else [n for n, a in curve.attacks.items() if contains(wide, a, as_large=True)]
        found = reached.below(names, ids)
        asked = [place for place, outcome in enumerate(found) if outcome is not None]
        if asked:
            own = replace(one, behaviours=tuple(one.behaviours[place] for place in asked))
            beside = tuple(str(found[place]) for place in asked)
            yield from weaker_than(own, replace(one, attack="the curve up to its radius", behaviours=beside))
