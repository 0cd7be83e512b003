"""Attack success by radius: what breaks stays broken, nothing is searched twice, and the plain request stands at 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.measuring.talking import FORBIDDEN_CHATS, Chats, Watching, Words, searching, trained
from textadv.data import Rows
from textadv.measuring.safety.adversaries import Adversary, EmbeddingAttack
from textadv.measuring.safety.elicitation import Elicitation, elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import Curve, success_by_radius
from textadv.values.flops import NOT_MEASURED

RADII = (0.05, 0.2, 0.8)


@dataclass
class Asking:
    """Asks the shallow model, and remembers which rows."""

    asked: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = trained().shallow

    def __call__(self, rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary]) -> Elicitation:
        self.asked += [(name, tuple(rows.ids)) for name in attacks]
        return elicit(self.model, Words(), rows, requests, attacks, Watching(), Decoding(8))


def test_a_curve_rises_and_searches_only_for_what_is_left() -> None:
    chats = Chats(FORBIDDEN_CHATS.pairs[:8])
    attack = searching(1.0, steps=4)
    attacks = {
        f"embedding at {radius}": EmbeddingAttack(replace(attack, threat=searching(radius).threat)) for radius in RADII
    }
    ask = Asking()
    points = success_by_radius(ask, chats, chats.requests, Curve(attacks, 6))
    assert [point.name for point in points] == ["embedding at 0", *attacks]
    counts = [sum(point.broken) for point in points]
    assert counts == sorted(counts) and counts[0] == 0 and 0 < counts[2] < counts[3]
    ids = chats.ids[:6]
    left = [tuple(row for row, broken in zip(ids, point.broken, strict=True) if not broken) for point in points]
    assert ask.asked == [("embedding at 0", ids), *zip(attacks, left[:3], strict=True)]
    assert [point.broken == point.possibly for point in points] == [True] * 4
    assert points[0].backwards == 0 and points[1].backwards > 0 and "4 steps" in points[1].description
    alone = elicit(
        ask.model, Words(), chats, chats.requests, {"one": attacks["embedding at 0.2"]}, Watching(), Decoding(8)
    )
    single = [outcome.broken for outcome in alone.outcomes if outcome.attack == "one"][:6]
    assert list(points[2].broken) == [a or b for a, b in zip(single, points[1].broken, strict=True)]


def test_what_is_broken_at_once_is_asked_for_no_more_and_no_attack_makes_no_curve() -> None:
    chats = Chats(FORBIDDEN_CHATS.pairs[:2])
    ask = Asking()
    ask.model = trained().helpful
    points = success_by_radius(ask, chats, chats.requests, Curve({"embedding at 1": EmbeddingAttack(searching(1.0))}))
    assert [point.broken for point in points] == [(True, True)] * 2
    assert ask.asked == [("embedding at 0", chats.ids)] and points[1].forwards == 0
    assert success_by_radius(ask, chats, chats.requests, Curve()) == []


def test_a_point_of_which_an_answer_was_not_counted_is_not_measured() -> None:
    """The sum of the others would be told as what the point took."""
    chats = Chats(FORBIDDEN_CHATS.pairs[:2])
    ask = Asking()

    def uncounting(rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary]) -> Elicitation:
        found = ask(rows, requests, attacks)
        first = "embedding at 1" in attacks
        return replace(found, attacks=tuple(replace(one, uncounted=int(first)) for one in found.attacks))

    curve = Curve({"embedding at 1": EmbeddingAttack(searching(0.01, steps=1))})
    plain, point = success_by_radius(uncounting, chats, chats.requests, curve)
    assert plain.answer_flops.total and plain.search_flops.total == 0
    assert (point.search_flops, point.answer_flops) == (NOT_MEASURED, NOT_MEASURED)
