"""Signals end work where nothing is lost, and a program that did not ask keeps its own handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from tests import tiny
from tests.processes import ROOT
from textadv.attacks import pgd
from textadv.objectives import Adversarial, Moment, Term, hardening
from textadv.training.checkpoint import latest
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.batch import Batch
from textadv.values.host import interrupts
from textadv.values.host.interrupts import Interrupted, asked, finishing, heeding


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_a_block_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended, heeding():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert ended.value.number == number and signal.getsignal(number) is before


def test_a_step_is_finished_after_sigterm_and_not_after_ctrl_c() -> None:
    with heeding(), finishing():
        assert asked() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == signal.SIGTERM
    with pytest.raises(Interrupted), heeding(), finishing():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_a_step_that_takes_too_long_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE", 0.05)
    with pytest.raises(Interrupted), heeding(), finishing():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)


class Signalled:
    """Adversarial training that sends its own process SIGTERM within an optimizer step."""

    def __init__(self, step: int) -> None:
        self.step, self.inner = step, Adversarial(pgd(tiny.threat(0.2), steps=2))
        self.terms, self.keeps_clean = 1, False

    def __call__(self, model: nn.Module, batch: Batch, moment: Moment) -> Iterator[Term]:
        if moment.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        yield from self.inner(model, batch, moment)


@pytest.mark.parametrize(("whole_every", "saved"), [(1, 4), (3, 6)])
def test_training_ends_with_a_checkpoint_from_which_it_can_go_on(tmp_path: Path, whole_every: int, saved: int) -> None:
    """whole_every 3: step 4 lies within a batch that stays for three steps."""
    settings = tiny.settings(steps=9, checkpoint_every=9, whole_every=whole_every)
    stream = OneStream(tiny.rows(), tiny.HALF, tiny.BATCH_SIZE, settings.seed)
    trainer = Trainer(
        tiny.accelerator(), tiny.bert(), stream, hardening(Signalled(3)), settings, None, tmp_path, bar=False
    )
    with pytest.raises(Interrupted, match="SIGTERM") as ended, heeding():
        trainer.run()
    assert ended.value.place == f"after step {saved} of 9 of hardened"
    found = latest(tmp_path / "checkpoints")
    assert found is not None and found.progress["step"] == saved


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_while_a_script_imports_both_end_it_with_one_line(number: signal.Signals, code: int) -> None:
    script = "from textadv.values.host.interrupts import while_importing; while_importing(); import os, time; "
    script += f"os.kill(os.getpid(), {int(number)}); time.sleep(30)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (code, "stopped before anything began\n")


IMPORTING = """
from textadv.values.host.interrupts import while_importing
while_importing()
import sys
from textadv.runs.errors import one_message
with one_message("checkpoint.resume=true"):
    sys.path.insert(0, sys.argv[1])
    import slow
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_a_recipe_imports_once_its_configuration_is_right_is_interrupted_too(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(IMPORTING)
    (tmp_path / "slow.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(30)\n")
    command = [sys.executable, str(recipe), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code
    assert ended.stderr.startswith("stopped by ") and len(ended.stderr.splitlines()) == 1
    assert f"Go on with: python {recipe} {tmp_path}" in ended.stderr


def test_a_signal_that_ended_one_block_does_not_end_the_next_training(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), heeding():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    settings, stream = tiny.settings(steps=2), OneStream(tiny.rows(), tiny.HALF, tiny.BATCH_SIZE, 0)
    objectives = hardening(Adversarial(pgd(tiny.threat(0.2), steps=2)))
    trainer = Trainer(tiny.accelerator(), tiny.bert(), stream, objectives, settings, None, tmp_path, bar=False)
    assert trainer.run().progress.step == 2
