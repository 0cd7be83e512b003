"""Every attack that results name has lines of its own, which join the results; what attacks share is made once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from tests.measuring.test_answer_book import lines_of, spoken
from tests.measuring.test_chat import Scripted, Searching, evaluated, likely, panel, scripted
from textadv.data import ChatRows
from textadv.measuring.ledger import keep, line_of, repaired
from textadv.measuring.safety.adversaries import Behaviour, Direct, Prefill, Round
from textadv.measuring.safety.chat import Panel
from textadv.measuring.safety.kept_answers import files_of
from textadv.measuring.safety.radius_curve import PLAIN, Curve
from textadv.measuring.safety.record import Talked

__all__ = ["likely", "scripted"]
Lines = dict[tuple[str, int], list[dict[str, Any]]]


@dataclass(frozen=True)
class Thrice:
    """Three ways to begin the answer, the first of which is that of `Searching`."""

    threat: str = "beginning of the answer"

    def rounds(self, model: nn.Module, rows: ChatRows, behaviours: Sequence[Behaviour]) -> list[Round]:
        found = [Prefill(tokens).rounds(model, rows, behaviours)[0].prompts for tokens in (2, 3, 1)]
        return [Round([replace(p, forwards=7, backwards=1, search="one text") for p in part]) for part in found]


def wanted() -> Panel:
    attacks = {"direct": Direct(), "prefill": Searching(), "again": Searching(), "three": Thrice()}
    curve = Curve({"embedding at 1": Searching(), "embedding at 2": Thrice()}, 3)
    return replace(panel(), attacks=attacks, curve=curve)


def of_attacks(folder: Path) -> Lines:
    """The lines by attack and row, in the order of restarts and samples."""
    found: Lines = defaultdict(list)
    for line in lines_of(folder / "before.jsonl"):
        found[line["answer"]["attack"], line["row"]].append(line)
    return {
        place: sorted(lines, key=lambda line: (line["answer"]["restart"], line["answer"]["sample"]))
        for place, lines in found.items()
    }


def test_every_attack_has_a_line_of_every_answer(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    evaluated(tmp_path, wanted=wanted())
    by = of_attacks(tmp_path)
    counts = {"direct": 1, "prefill": 1, "again": 1, "three": 3}
    assert {(name, row): count for name, count in counts.items() for row in range(4)} == {
        place: len(lines) for place, lines in by.items() if place[0] in counts
    }
    assert [line["answer"]["restart"] for line in by["three", 1]] == [0, 1, 2]
    # Nobody is asked twice: four requests, with three beginnings each and without, and the benign ones.
    assert len(scripted.asked) == 4 * 4 + 4 + 3


def test_what_is_shared_is_counted_where_it_was_made(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    found = evaluated(tmp_path, wanted=wanted())
    by = of_attacks(tmp_path)
    passes = {
        name: [(line["answer"]["shared"], line["answer"]["forwards"]) for line in by[name, 0]]
        for name in ("prefill", "again", "three")
    }
    assert passes == {"prefill": [("", 3)], "again": [("prefill", 0)], "three": [("prefill", 0), ("", 7), ("", 7)]}
    assert [found.cost[f"{name} forwards"] for name in ("prefill", "again", "three")] == [12, 0, 56]
    assert [found.cost[f"curve {name}"] for name in ("forwards", "backwards")] == [0, 0]
    kept = sum(line["answer"]["forwards"] for lines in by.values() for line in lines)
    assert kept == sum(cost for name, cost in found.cost.items() if name.endswith("forwards"))


def joined(found: Talked, by: Lines) -> None:
    """That every answer of the results' outcomes has its line, with that outcome."""
    for one in found.outcomes[:-1]:
        for row, answers in zip(found.behaviours, one.answers, strict=True):
            assert [line["outcome"] for line in by[one.attack, row]] == list(answers), (one.attack, row)
    for measure in found.measures:
        names = {measure.name, measure.name.partition(":")[0]} & {name for name, _ in by}
        for name in names:
            assert len(measure.row_ids) == len(measure.rows) == measure.total
            assert all((name, row) in by for row in measure.row_ids), measure.name


def test_lines_and_results_join(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    found = evaluated(tmp_path, wanted=wanted())
    by = of_attacks(tmp_path)
    joined(found, by)
    assert found.behaviours == (0, 1, 2, 3)
    (followed,) = [measure for measure in found.measures if measure.name == "checks: instructions"]
    assert followed.row_ids == (0, 1), "the third cannot be checked and is in no rate"
    assert by["prefill", 1][0]["outcome"].startswith("complied")
    assert all(line["outcome"] for (name, _), lines in by.items() for line in lines if name != "checks")


def test_every_point_of_the_curve_has_lines(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    found = evaluated(tmp_path, wanted=wanted())
    by = of_attacks(tmp_path)
    assert [measure.name for measure in found.curve] == [PLAIN, "embedding at 1", "embedding at 2"]
    for measure in found.curve:
        assert measure.row_ids == (0, 1, 2)
        complied = [
            any(line["outcome"].startswith("complied") for line in by[measure.name, row]) for row in measure.row_ids
        ]
        assert tuple(map(float, complied)) == measure.rows
    # "always" broke at 0 and "begun" at 1: they are asked at no larger radius, and count there by that answer.
    shared = {row: [line["answer"]["shared"] for line in by["embedding at 2", row]] for row in range(3)}
    assert shared == {0: ["direct"], 1: ["prefill"], 2: ["prefill", "three", "three"]}
    assert {line["answer"]["shared"] for row in range(3) for line in by[PLAIN, row]} == {"direct"}


def test_a_second_evaluation_changes_nothing(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    first = evaluated(tmp_path, wanted=wanted())
    written, asked = (tmp_path / "before.jsonl").read_bytes(), len(scripted.asked)
    again = evaluated(tmp_path, wanted=wanted())
    assert (tmp_path / "before.jsonl").read_bytes() == written and len(scripted.asked) == asked
    assert first.measures == again.measures and first.curve == again.curve
    passes = [{name: cost for name, cost in one.cost.items() if "wards" in name} for one in (first, again)]
    assert passes[0] == passes[1]


def test_a_run_begun_without_restarts_keeps_its_answers(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    path = tmp_path / "before.jsonl"
    first = evaluated(tmp_path, wanted=wanted())
    asked, by = len(scripted.asked), of_attacks(tmp_path)
    made = [line for line in lines_of(path) if not line["answer"]["shared"]]
    for line in made:
        line["answer"] = {name: value for name, value in line["answer"].items() if name not in ("restart", "shared")}
    kept = [{"key": line["key"], "answer": line["answer"]} for line in made]
    path.write_text("".join(f"{line_of(line)}\n" for line in kept), encoding="utf-8")
    assert not repaired(files_of(path).there(), "answers")
    again = evaluated(tmp_path, wanted=wanted())
    assert len(scripted.asked) == asked and of_attacks(tmp_path) == by
    assert first.measures == again.measures


def test_an_answer_that_others_share_is_made_again_with_its_passes(
    scripted: Scripted, likely: list[bool], tmp_path: Path
) -> None:
    path = tmp_path / "before.jsonl"
    first = evaluated(tmp_path, wanted=wanted())
    asked, by = len(scripted.asked), of_attacks(tmp_path)
    left = [line for line in lines_of(path) if line is not by["prefill", 2][0] and line != by["prefill", 2][0]]
    path.write_text("".join(f"{line_of(line)}\n" for line in left), encoding="utf-8")
    again = evaluated(tmp_path, wanted=wanted())
    assert len(scripted.asked) == asked + 1 and of_attacks(tmp_path) == by
    assert again.cost["prefill forwards"] == first.cost["prefill forwards"]


def test_answers_of_other_weights_are_told_and_marked(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    evaluated(tmp_path, key="other weights")
    count = len(lines_of(tmp_path / "before.jsonl"))
    (told,) = [line for line in spoken(tmp_path) if "were not used" in line]
    assert f"{count} of {2 * count} kept answers are of other weights, prompts, searches or settings" in told
    lines = lines_of(tmp_path / "before.jsonl")
    assert [line.get("earlier", False) for line in lines] == [True] * count + [False] * count
    evaluated(tmp_path, key="other weights")
    assert [line.get("earlier", False) for line in lines_of(tmp_path / "before.jsonl")] == [False] * count + [
        True
    ] * count


def test_lines_of_another_model_stay_as_they_are(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    evaluated(tmp_path, name="before-1", key="other weights")
    other = (tmp_path / "before-1.jsonl").read_bytes()
    assert not [line for line in spoken(tmp_path) if "lines" in line or "not used" in line]
    assert (tmp_path / "before-1.jsonl").read_bytes() == other
    assert {json.loads(line)["model"] for line in other.splitlines()} == {"before-1"}


def test_a_line_of_no_answer_stays(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    keep(tmp_path / "before.jsonl", [{"key": "k", "answer": {"id": 1}}])
    evaluated(tmp_path)
    assert len(lines_of(tmp_path / "before.jsonl")) == 4 * 2 + 4 + 3, "it is damage, and taken out"
