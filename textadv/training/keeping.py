"""Which weights of a run are kept, where they lie, and with which of them it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from textadv.training.checkpoint import Checkpoint, kept_at, link
from textadv.training.manifest import file_hash
from textadv.training.progress import Progress
from textadv.values.errors import CheckpointError, WriteError
from textadv.values.host.writing import replacing, write_tensors
from textadv.values.processes import of_the_first

RANKING = {"robust_best": ("robust", "clean"), "clean_best": ("clean", "robust"), "last": ("step",)}
"""The kinds of weights that are kept, and the measures that rank them, first to last."""


def _rank(entry: dict[str, float], order: tuple[str, ...]) -> tuple[float, ...]:
    return tuple(entry[key] for key in order if key in entry)


def improved(best: dict[str, dict[str, float]], entry: dict[str, float], collapsed: bool) -> list[str]:
    """The kinds for which `entry`, what was measured just now, is better than the best so far.

    collapsed: the model answers no better than one constant class, so that its weights are only kept as the last.
    """
    return [
        kind
        for kind, order in RANKING.items()
        if order[0] in entry
        and not (collapsed and kind != "last")
        and (kind not in best or _rank(entry, order) > _rank(best[kind], order))
    ]


def selected(progress: Progress, wanted: str, *, measured: bool, hardening: bool) -> str:
    """The kind that the run ends with; where it is not the wanted one a note in `progress` says why.

    measured: whether held-out rows were scored at all. hardening: whether rows were attacked.
    """
    if not measured:
        return "last"
    if progress.doubt is not None:
        progress.notes.append(f"on the rows that choose the checkpoint: {progress.doubt}")
    if wanted == "robust_best" and not any("robust" in entry for entry in progress.history):
        progress.notes.append("robust accuracy was not measured: the checkpoint was chosen by clean accuracy")
        wanted = "clean_best"
    if wanted in progress.best:
        return wanted
    state, remedy = "NOT HARDENED", "Lower the radius, or add warm-up or a ramp."
    if not hardening:
        state, remedy = "NOT TRAINED", "Train for more steps, or change training.learning_rate."
    if progress.doubt is not None:
        remedy = "See what the note says of the rows that choose it."
    progress.notes.append(
        f"{state}: at every evaluation the model answered no better than one constant class, so no checkpoint was "
        f"eligible; the last one is kept. {remedy}"
    )
    return "last"


class KeptWeights:
    """The kept weights of a run, one file for each kind beneath `folder`, known again by their checksums.

    Only the main process writes; what it meets is raised on every process.
    """

    def __init__(self, accelerator: Accelerator, folder: Path) -> None:
        self.accelerator, self.folder = accelerator, folder
        self.hashes: dict[str, str] = {}

    def path(self, kind: str) -> Path:
        """The file of that kind."""
        return self.folder / f"{kind}.safetensors"

    def save(self, kinds: Iterable[str], weights: Mapping[str, Tensor]) -> None:
        """Keeps these weights, of any shape, as each of the kinds. Raises WriteError where the system refuses."""
        problem = None
        if self.accelerator.is_main_process:
            try:
                for kind in kinds:
                    write_tensors(self.path(kind), weights)
                    self.hashes[kind] = file_hash(self.path(kind))
            except WriteError as error:
                problem = str(error)
        self._agree(problem, WriteError)

    def restore(self, checkpoint: Checkpoint, kinds: Iterable[str]) -> None:
        """Puts back what was kept when the checkpoint was written. Raises WriteError where the system refuses."""
        problem = None
        if self.accelerator.is_main_process:
            try:
                for kind in kinds:
                    found = kept_at(checkpoint, kind)
                    self.hashes[kind] = file_hash(found)
                    for place in (self.path(kind), *checkpoint.kept_files(kind)):
                        if not place.is_file() or file_hash(place) != self.hashes[kind]:
                            with replacing(place) as partial:
                                link(found, partial)
            except WriteError as error:
                problem = str(error)
        self._agree(problem, WriteError)

    def require(self, kinds: Iterable[str]) -> None:
        """Raises CheckpointError, on every process, where a file is not what this run kept."""
        problem = None
        for kind in kinds if self.accelerator.is_main_process else ():
            path = self.path(kind)
            if not path.is_file() or file_hash(path) != self.hashes[kind]:
                problem = (
                    f"{path} was changed or removed since this run wrote it. The checkpoints hold it: resume with "
                    "checkpoint.resume: true."
                )
        self._agree(problem, CheckpointError)

    def _agree(self, problem: str | None, kind: type[Exception]) -> None:
        first = of_the_first(problem)
        if first is not None:
            raise kind(first)
