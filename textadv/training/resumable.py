"""All that a training run has to have again when it is resumed: gathered, written as a checkpoint, put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from textadv.models import trainable_state
from textadv.training import checkpoint as checkpoints
from textadv.training.averaging import Average
from textadv.training.keeping import KeptWeights
from textadv.training.overfitting import Watch
from textadv.training.progress import Progress, progress_of
from textadv.training.tracking import LOG_FILE, Tracker
from textadv.values.errors import WriteError
from textadv.values.processes import everywhere, of_the_first
from textadv.values.randomness import rng_state, set_rng_state


@dataclass(frozen=True)
class Resumable:
    """What a checkpoint is made of. carried: texts that every checkpoint holds, by the name of their file."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None
    watch: Watch | None
    memory: checkpoints.Memory | None
    kept: KeptWeights
    folder: Path
    keep_last: int
    carried: Mapping[str, str]

    def save(self, progress: Progress, log: bytes) -> None:
        """Writes a checkpoint; every process must call it, and the main one writes.

        log: the training log so far. Raises WriteError, on every process, where the system refuses.
        """
        rng = everywhere([rng_state()])
        weights = trainable_state(self.model)
        optimizer = checkpoints.optimizer_state(self.model, self.optimizer)
        more = {"average": {} if self.average is None else self.average.state()}
        more["guard"] = {} if self.watch is None else self.watch.state()
        memories = everywhere([{} if self.memory is None else self.memory.state()])
        more |= {f"memory-{rank}": state for rank, state in enumerate(memories)}
        problem = None
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            known = asdict(progress) | {"scaler": {} if scaler is None else scaler.state_dict()}
            texts = {LOG_FILE: log, **{name: text.encode() for name, text in self.carried.items()}}
            kept = {kind: self.kept.path(kind) for kind in progress.best}
            try:
                checkpoints.save(
                    self.folder, progress.step, weights, optimizer, rng, known, self.keep_last, more, texts, kept
                )
            except WriteError as error:
                problem = str(error)
        first = of_the_first(problem)
        if first is not None:
            raise WriteError(first)

    def rewind(self, tracker: Tracker, resume: checkpoints.Checkpoint | None) -> None:
        """Puts the log back to what a checkpoint had seen, or starts it anew, and tells what was damaged."""
        seen: bytes | int = 0
        if resume is not None:
            log = checkpoints.carried(resume, LOG_FILE)
            seen = resume.progress["log_bytes"] if log is None else log
        for told in (*(() if resume is None else resume.told), tracker.rewind(seen)):
            if told is not None:
                tracker.say(f"{tracker.name:<9} {told}")

    def restore(self, checkpoint: checkpoints.Checkpoint) -> Progress:
        """Puts everything back; what the run had come to."""
        progress = progress_of(checkpoint.progress)
        checkpoints.restore(checkpoint, self.model, self.optimizer, self.accelerator.num_processes)
        self.kept.restore(checkpoint, progress.best)
        if self.accelerator.is_main_process:
            # Where a run was killed between writing a checkpoint and removing the one that it replaces.
            checkpoints.prune(checkpoint.folder, self.keep_last)
        if self.average is not None:
            self.average.load(self.model, checkpoints.extra(checkpoint, "average"))
        if self.watch is not None:
            self.watch.load(checkpoints.extra(checkpoint, "guard"))
        rank = self.accelerator.process_index
        if self.memory is not None:
            self.memory.load(checkpoints.extra(checkpoint, f"memory-{rank}"))
        scaler = checkpoint.progress.get("scaler")
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        set_rng_state(checkpoint.rng[rank])
        return progress
