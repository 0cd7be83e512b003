"""Weights that a run keeps are looked at when it is resumed, put back from the checkpoint, or told at the start."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny
from textadv.attacks import pgd
from textadv.measuring.accuracy.classify import scores
from textadv.objectives import Adversarial, hardening
from textadv.training.checkpoint import latest
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.errors import CheckpointError
from textadv.values.host.interrupts import Interrupted

STEPS, DIES_IN = 9, 7


def trainer(folder: Path, dies_in: int | None = None, **changes: object) -> Trainer:
    """Checkpoints after steps 2, 4, 6 and so on, evaluations after each third: the last one kept before 7 is 6's."""
    settings = tiny.settings(steps=STEPS, checkpoint_every=2, evaluate_every=3, select="last", **changes)
    held_out = tiny.rows(8, seed=1, first_id=2000)
    attack = pgd(tiny.threat(0.2), steps=1)
    mine = Trainer(
        tiny.accelerator(),
        tiny.bert(),
        OneStream(tiny.rows(), tiny.HALF, tiny.BATCH_SIZE, settings.seed),
        hardening(Adversarial(pgd(tiny.threat(0.2), steps=1))),
        settings,
        partial(scores, rows=held_out, positions=range(8), attack=attack),
        folder,
        bar=False,
    )
    if dies_in is not None:
        step = mine._step

        def dying(*arguments: object) -> None:
            if mine.progress.step + 1 == dies_in:
                raise Interrupted(15)
            step(*arguments)  # type: ignore[arg-type]

        mine._step = dying  # type: ignore[method-assign]
    return mine


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    trainer(folder).run()
    return kept(folder)


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "weights").iterdir())}


def interrupted(folder: Path, **changes: object) -> Path:
    with pytest.raises(Interrupted):
        trainer(folder, DIES_IN, **changes).run()
    assert (folder / "checkpoints/step-00000006/kept-last.safetensors").is_file()
    return folder / "weights" / "last.safetensors"


def harmed(path: Path, harm: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if harm != "removed":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-5], "emptied": b"", "flipped": flipped}[harm])


@pytest.mark.parametrize("harm", ["removed", "cut", "emptied", "flipped"])
def test_kept_weights_are_put_back_from_the_checkpoint(tmp_path: Path, harm: str, expected: dict[str, bytes]) -> None:
    harmed(interrupted(tmp_path), harm)
    trainer(tmp_path).run(latest(tmp_path / "checkpoints"))
    assert kept(tmp_path) == expected


def test_a_damaged_copy_in_the_checkpoint_is_mended(tmp_path: Path) -> None:
    copy = interrupted(tmp_path).read_bytes(), tmp_path / "checkpoints/step-00000006/kept-last.safetensors"
    harmed(copy[1], "flipped")
    found = latest(tmp_path / "checkpoints")
    assert found is not None and found.folder.name == "step-00000006"
    trainer(tmp_path).resumable.restore(found)
    assert copy[1].read_bytes() == copy[0]


def test_what_was_kept_after_the_checkpoint_is_undone(tmp_path: Path) -> None:
    """The checkpoint of step 4 goes on with what it kept, whatever a later evaluation wrote."""
    path = interrupted(tmp_path)
    harmed(tmp_path / "checkpoints/step-00000006/optimizer.safetensors", "flipped")
    found, resumed = latest(tmp_path / "checkpoints"), trainer(tmp_path)
    assert found is not None and found.folder.name == "step-00000004"
    before = (found.folder / "kept-last.safetensors").read_bytes()
    assert before != path.read_bytes()
    resumed.resumable.restore(found)
    assert path.read_bytes() == before


def test_where_both_copies_are_damaged_an_older_checkpoint_is_gone_on_from(
    tmp_path: Path, expected: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    harmed(interrupted(tmp_path), "flipped")
    harmed(tmp_path / "checkpoints/step-00000006/kept-last.safetensors", "flipped")
    trainer(tmp_path).run(latest(tmp_path / "checkpoints"))
    assert kept(tmp_path) == expected
    told = (
        "resumed from step-00000004: step-00000006 is damaged (weights/last.safetensors, and kept-last.safetensors in"
    )
    assert told in capsys.readouterr().out


def test_where_no_copy_is_left_it_is_told_at_the_start(tmp_path: Path) -> None:
    harmed(interrupted(tmp_path, keep_last=1), "removed")
    (tmp_path / "checkpoints/step-00000006/kept-last.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match="weights/last.safetensors, and kept-last.* Put the files back from a copy"
    ):
        latest(tmp_path / "checkpoints")


@pytest.mark.parametrize("harm", ["removed", "flipped"])
def test_weights_that_change_while_the_run_goes_on_are_not_exported(tmp_path: Path, harm: str) -> None:
    mine = trainer(tmp_path)
    require = mine.kept.require

    def late(kinds: object) -> None:
        harmed(mine.kept.path("last"), harm)
        require(kinds)  # type: ignore[arg-type]

    mine.kept.require = late  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="last.safetensors was changed or removed since this run wrote it"):
        mine.run()
    again = trainer(tmp_path).run(latest(tmp_path / "checkpoints"))
    assert load_file(again.weights["last"])
