"""Hard rows among those of a data set: which take part in a step, what a checkpoint holds of them, when rounds come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests import edited
from textadv.data import EncodedRows, Examples, encode
from textadv.measuring.blocks import Grid
from textadv.measuring.sections.mining import Mining, plateau
from textadv.tasks.text.mining import with_hard_rows
from textadv.training.mining import HardRow, Mined, MinedMemory, MinedRows, Round, Tried, mine, round_steps
from textadv.training.mixing import Constant, Mixing
from textadv.training.progress import Progress
from textadv.training.sampling import OneStream
from textadv.training.tracking import Tracker
from textadv.values.batch import Role

HARD = [HardRow("bad bad superbx good", None, 1), HardRow("lovely", None, 0), HardRow("dull \U0001f600", None, 1)]
READER = edited.reader()


def joined(rows: EncodedRows, hard: Sequence[HardRow]) -> EncodedRows:
    return with_hard_rows(rows, hard, lambda own: encode(own, READER, edited.LENGTH))


def sampler(share: float = 0.5, ratio: float = 0.25) -> MinedRows:
    rows = edited.rows(READER, 12)
    stream = OneStream(rows, Mixing(Constant(ratio)), 4, seed=3)
    return MinedRows(stream, lambda hard: joined(rows, hard), share)


def test_without_hard_rows_the_steps_are_those_of_the_data() -> None:
    found = sampler()
    for step in range(6):
        assert found.step(step, 2) == found.stream.step(step, 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_share_of_each_step_is_hard_and_every_row_of_it_stays_one(processes: int) -> None:
    found = sampler()
    assert found.add(HARD) == 3 and len(found.rows) == 15
    seen: Counter[int] = Counter()
    for step in range(12):
        shares = [found.step(step, 2, processes, rank) for rank in range(processes)]
        positions = shares[0].positions
        hard = [position for position in positions if position >= 12]
        assert len(positions) == 4 and len(hard) == len(set(hard)) == 2
        assert [p for p in positions if p < 12] == [
            old for old, new in zip(found.stream.step(step, 2).positions, positions, strict=True) if new < 12
        ]
        placed = [place for share in shares for group in share.groups for place in group.positions]
        assert sorted(placed) == [0, 1, 2, 3]
        attacked = [group for share in shares for group in share.groups if group.role is Role.ADVERSARIAL]
        assert sum(len(group.positions) for group in attacked) == found.mixing.count(step, 4, processes)
        seen.update(hard)
    assert set(seen) == {12, 13, 14}


def test_fewer_hard_rows_than_their_share_are_all_taken_once() -> None:
    found = sampler(share=1.0)
    found.add(HARD[:1])
    assert [sum(p >= 12 for p in found.step(step, 4).positions) for step in range(3)] == [1, 1, 1]


def test_hard_rows_have_their_own_text_label_and_number_beside_the_others() -> None:
    found = sampler()
    found.add(HARD)
    batch = found.rows.batch([0, 12, 13])
    assert batch.labels.tolist()[1:] == [1, 0] and len(set(batch.ids.tolist())) == 3
    assert batch.written is not None and batch.written.rows()[0][1:] == (HARD[0].text, HARD[1].text)
    alone = encode(Examples((HARD[0].text,), None, (1,), (0,)), READER, edited.LENGTH)
    assert found.rows.tokens[12] == alone.tokens[0] and found.rows.editable[12] == alone.editable[0]


def test_a_row_that_is_there_is_not_added_again() -> None:
    found = sampler()
    assert found.add([HARD[0], HARD[0], HARD[1]]) == 2
    assert found.add([HARD[1], HARD[2]]) == 1
    assert found.add([HARD[0]._replace(label=0)]) == 1


class _Carried:
    """What an objective carries."""

    def __init__(self) -> None:
        self.held = {"teacher": torch.ones(2)}

    def state(self) -> dict[str, Tensor]:
        return self.held

    def load(self, state: dict[str, Tensor]) -> None:
        self.held = state


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.integers(0, 1)), max_size=4, unique=True))
def test_a_checkpoint_gives_the_same_rows_back(rows: list[tuple[str, int]]) -> None:
    one, other = sampler(), sampler()
    one.add([HardRow(text, None, label) for text, label in rows])
    other.add(HARD)
    MinedMemory(other).load(MinedMemory(one).state())
    assert other.found == one.found and len(other.rows) == 12 + len(rows)
    assert [other.step(step, 2) for step in range(4)] == [one.step(step, 2) for step in range(4)]


def test_an_empty_state_forgets_the_rows_and_what_the_objective_carried() -> None:
    found, carried = sampler(), _Carried()
    found.add(HARD)
    memory = MinedMemory(found, carried)
    assert set(memory.state()) == {"mined", "teacher"}
    memory.load(memory.state())
    assert set(carried.held) == {"teacher"} and found.found == HARD
    memory.load({})
    assert found.found == [] and len(found.rows) == 12 and carried.held == {}


@pytest.mark.parametrize(("rounds", "steps", "expected"), [(1, 10, (5, 10)), (3, 8, (2, 4, 6, 8)), (2, 3, (1, 2, 3))])
def test_rounds_come_evenly_and_a_measurement_at_the_end(rounds: int, steps: int, expected: tuple[int, ...]) -> None:
    assert round_steps(rounds, steps) == expected


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="mining.rounds: 3 need more than 3 optimizer steps, and there are 3"):
        round_steps(3, 3)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.5])
def test_a_share_of_no_row_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="mining.share"):
        sampler(share)


def test_batches_that_stay_are_refused() -> None:
    found = sampler()
    with pytest.raises(ValueError, match="stay for several steps"):
        replace(found, stream=replace(found.stream, repeat=2))


def rounds(*wrong: int, rows: int = 40) -> list[Round]:
    """Rounds in which the first so many held-out rows were wrong."""
    return [
        Round(10 * n, (Tried("typos", 50, 5, tuple(place < count for place in range(rows))),), 5, 5 * n + 5)
        for n, count in enumerate(wrong)
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ((30, 12, 11, 12), "typos: no fall beyond chance since round 2."),
        ((30, 20, 12, 2), "typos: still falling in the last part."),
        ((12, 12, 11), "typos: no fall beyond chance."),
        ((2, 30), "typos: no fall beyond chance."),
    ],
)
def test_the_plateau_is_told(wrong: tuple[int, ...], told: str) -> None:
    assert plateau(rounds(*wrong), "typos") == told


class _Taking:
    """A miner before step 2 whose round takes 10 forward passes, 4 backward ones and half a second."""

    steps = (2,)

    def __call__(self, model: nn.Module, step: int) -> Mined:
        return Mined(rounds(3)[0], 10, 4, 0.5)


def test_what_a_round_takes_is_part_of_what_the_training_takes(tmp_path: Path) -> None:
    progress = Progress(step=1, forwards=7, backwards=6, seconds=1.0)
    tracker = Tracker(tmp_path, Accelerator(cpu=True), name="hardened", total=3, bar=False)
    mine(_Taking(), nn.Linear(1, 1), progress, tracker)
    assert progress == Progress(step=1, forwards=7, backwards=6, seconds=1.0)
    progress.step = 2
    mine(_Taking(), nn.Linear(1, 1), progress, tracker)
    tracker.close()
    assert (progress.forwards, progress.backwards, progress.seconds) == (17, 10, 1.5) and len(progress.rounds) == 1


def test_tables_and_lines_tell_the_rows_apart_and_say_what_came_after_the_last_step() -> None:
    own = rounds(30, 12)
    last = Round(own[1].step, (own[1].tried[0]._replace(rows=0, wrong=0),), 0, 10)
    _, held_out, training, _ = Mining.blocks({"hardened": Mining((own[0], last))})
    assert isinstance(held_out, Grid) and isinstance(training, Grid)
    assert [row[0] for row in held_out.rows] == ["held-out rows, after step", f"{own[0].step}", f"{own[1].step}"]
    assert [row[0] for row in training.rows] == ["training rows, after step", f"{own[0].step}"]
    assert "typos 5/50 (30/40)" in str(own[0])
    assert str(last).endswith("10 hard rows in all  wrong when edited, held out: typos 12/40")


def test_a_round_comes_back_from_its_record_and_the_section_shows_shares() -> None:
    own = rounds(30, 12)
    assert [Round.of(one.record) for one in own] == own
    earlier = own[0].record | {"tried": [one[:4] for one in own[0].record["tried"]]}
    assert Round.of(earlier) == own[0], "a checkpoint from before rows without an edit were counted"
    shown = str(Mining.blocks({"hardened": Mining(tuple(own))}))
    assert "75.0" in shown and "30.0" in shown and "10.0" in shown


def test_rows_on_which_no_edit_was_tried_are_told_of_a_round() -> None:
    own = rounds(30, 12)
    none = Round(0, (own[0].tried[0]._replace(untried=9),), 5, 5)
    assert str(none).endswith("  no edit tried: typos 9/90") and "no edit tried" not in str(own[0])
    assert Round.of(none.record) == none
    shown = str(Mining.blocks({"hardened": Mining((none, own[1]))}))
    assert "No edit was tried on 9 of 180 rows, whose queries were spent before the first: raise queries." in shown
    assert "No edit was tried" not in str(Mining.blocks({"hardened": Mining(tuple(own))}))
