"""What a run prints and records: an aligned line per logged step, JSONL, how far it is, Accelerate's trackers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm

from textadv.checkpoint import CheckpointError
from textadv.phases import OnScreen, untold
from textadv.printable import printable

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
        self.log_path, self.timing_path = folder / "log.jsonl", folder / "timing.jsonl"
        self.began = time.perf_counter()
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
        phases = OnScreen() if bar and accelerator.is_main_process else untold
        self._open = ExitStack()
        self._advance = self._open.enter_context(phases(name, total, "steps", start))

    def rewind(self, size: int) -> None:
        """Cuts the log back to its first `size` bytes: what a checkpoint had seen. 0 starts log and timings anew.

        Raises CheckpointError where the log is shorter than that, as after it was removed.
        """
        if not self.accelerator.is_main_process:
            return
        self.log_path.touch()
        if self.size() < size:
            raise CheckpointError(
                f"{self.log_path} has {self.size()} bytes and the checkpoint had seen {size}: it was cut or removed. "
                "Put it back, or start anew with checkpoint.resume: false."
            )
        with self.log_path.open("r+b") as file:
            file.truncate(size)
        if size == 0:
            self.timing_path.unlink(missing_ok=True)

    def size(self) -> int:
        """The log's length in bytes, 0 on processes that write none."""
        return self.log_path.stat().st_size if self.accelerator.is_main_process else 0

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
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        elapsed = {"step": record["step"], "seconds": round(time.perf_counter() - self.began, 3)}
        with self.timing_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(elapsed) + "\n")
