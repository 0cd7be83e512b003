"""What a run prints and records: an aligned line per logged step, JSONL, how far it is, Accelerate's trackers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm

from textadv.values.errors import CheckpointError
from textadv.values.host.phases import OnScreen, untold
from textadv.values.host.printable import printable
from textadv.values.host.writing import append_line, made, saving, write_bytes

LOG_FILE, TIMING_FILE = "log.jsonl", "timing.jsonl"
COLUMNS = ("loss", "gain", "gauge", "broken", "share", "norm", "lr")


class Tracker:
    """Records one training run under `folder`: `log.jsonl`, a function of config, commit and data, and `timing.jsonl`.

    Only the main process prints and writes. Timings have a file of their own so that the log of a resumed run is
    identical to that of one never interrupted.
    """

    def __init__(
        self, folder: Path, accelerator: Accelerator, *, name: str, total: int, bar: bool = True, start: int = 0
    ) -> None:
        self.accelerator, self.name, self.total = accelerator, name, total
        self.log_path, self.timing_path = folder / LOG_FILE, folder / TIMING_FILE
        self.began = time.perf_counter()
        if accelerator.is_main_process:
            made(folder)
        phases = OnScreen() if bar and accelerator.is_main_process else untold
        self._open = ExitStack()
        self._advance = self._open.enter_context(phases(name, total, "steps", start))

    def rewind(self, seen: bytes | int) -> str | None:
        """Puts the log back to what a checkpoint had seen; a sentence where it was damaged. Empty: starts it anew.

        seen: the log itself, or its length where the checkpoint does not hold it. Raises CheckpointError where the log
        is shorter than that, as after it was removed.
        """
        if not self.accelerator.is_main_process:
            return None
        now, told = self.log(), None
        if isinstance(seen, bytes):
            if not now.startswith(seen):
                told = f"{self.log_path.name} was not as it was written; it is as the checkpoint holds it"
        elif len(now) < seen:
            raise CheckpointError(
                f"{self.log_path} has {len(now)} bytes and the checkpoint had seen {seen}: it was cut or removed. "
                "Put it back, or start anew with checkpoint.resume: false."
            )
        kept = seen if isinstance(seen, bytes) else now[:seen]
        if kept != now or not kept:
            write_bytes(self.log_path, kept)
        if not kept:
            with saving(self.timing_path):
                self.timing_path.unlink(missing_ok=True)
        return told

    def log(self) -> bytes:
        """All that was recorded so far; nothing on processes that write none."""
        there = self.accelerator.is_main_process and self.log_path.is_file()
        return self.log_path.read_bytes() if there else b""

    def advance(self) -> None:
        """Says that one step more is done."""
        self._advance(1)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Records the values of one logged step, counted from 1."""
        self._write({"step": step, **values})
        if self.accelerator.is_main_process:
            cells = [f"{column} {values[column]:9.3g}" for column in COLUMNS if column in values]
            self.say(f"{self.name:<9} step {step:>{len(str(self.total))}}/{self.total}  " + "  ".join(cells))
        self.accelerator.log({f"{self.name}/{key}": value for key, value in values.items()}, step=step)

    def evaluation(self, step: int, values: Mapping[str, float], note: str = "") -> None:
        """Records a validation result."""
        self._write({"step": step, **{f"validation_{key}": value for key, value in values.items()}})
        cells = "  ".join(f"{key} {value:.1%}" for key, value in values.items())
        self.say(f"{self.name:<9} step {step:>{len(str(self.total))}}/{self.total}  validation  {cells}{note}")
        self.accelerator.log({f"{self.name}/validation_{key}": value for key, value in values.items()}, step=step)

    def say(self, line: str) -> None:
        """Prints a line above a progress bar, on the main process."""
        if self.accelerator.is_main_process:
            tqdm.write(printable(line, lines=True))

    def close(self) -> None:
        """Ends the telling of how far it is."""
        self._open.close()

    def _write(self, record: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        append_line(self.log_path, json.dumps(record))
        elapsed = {"step": record["step"], "seconds": round(time.perf_counter() - self.began, 3)}
        append_line(self.timing_path, json.dumps(elapsed))
