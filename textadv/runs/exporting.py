"""Writing trained models for others, each loaded again as others load it and compared with the model that was measured.

A difference beyond rounding, in logits or in what says how they are read, is an error: nobody is given another model
than the report is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule

from textadv.measuring.sections.exports import ExportCheck
from textadv.models import (
    ModelError,
    UnmergeableError,
    bare,
    load_trainable_state,
)
from textadv.models.faithful import UnfaithfulError, compare
from textadv.models.strangers import Reader
from textadv.tasks.protocol import Loaded
from textadv.training.progress import Trained
from textadv.values.errors import WriteError
from textadv.values.host.phases import phase, stage
from textadv.values.host.printable import printable
from textadv.values.host.writing import discard, filling, write_text

CARD = "README.md"
FORM = "# Model Card for Model ID"
MARK = "NOT_WHAT_WAS_MEASURED.txt"
UNCHECKED = "This folder was written and has not been compared with the model that was measured.\n"


@dataclass(frozen=True)
class Exported:
    """What was written of one trained model.

    folder: of the selected adapter, or whole model. checks: of every folder. notes: sentences for the report.
    """

    folder: Path
    checks: tuple[ExportCheck, ...] = ()
    notes: tuple[str, ...] = ()


def exported(
    accelerator: Accelerator,
    output: Path,
    loaded: Loaded,
    trained: Trained,
    reader: Reader,
    *,
    name: str = "hardened",
    beneath: str = "",
    about: str = "",
) -> Exported:
    """Writes a trained model beneath the output folder, and compares what was written with it.

    adapter/ holds the selected weights as an adapter (or whole model), merged/ as a plain model, adapters/ each kept
    checkpoint; of a baseline, which has a folder `beneath` of its own, the first two. The tokenizer, or the image
    processor, lies beside each, and a card: `about`, and how the model is loaded. The model keeps the selected weights.
    Only the main process works.

    Raises, on every process, ModelError where a folder holds another model, which stays with a mark in it, and
    WriteError where the system refuses.
    """
    found = Exported(output / beneath / "adapter")
    problem: tuple[bool, str] | None = None
    if accelerator.is_main_process:
        try:
            found = _Exporting(output, beneath, name, loaded, trained, reader, about).run()
        except (ModelError, WriteError) as error:
            problem = isinstance(error, WriteError), str(error)
    problems: list[tuple[bool, str] | None] = broadcast_object_list([problem])
    if problems[0] is not None:
        refused, told = problems[0]
        raise WriteError(told) if refused else ModelError(told)
    return found


@dataclass(frozen=True)
class _Exporting:
    """What `exported` was given."""

    output: Path
    beneath: str
    name: str
    loaded: Loaded
    trained: Trained
    reader: Reader
    about: str

    def run(self) -> Exported:
        root, notes = Path(self.beneath), []
        checks = self._saved(root / "adapter")
        try:
            checks += self._saved(root / "merged", merged=True)
        except UnmergeableError as error:
            notes.append(f"{(root / 'merged').as_posix()}: not written: {error}")
        for kind, path in self.trained.weights.items() if not self.beneath else ():
            load_trainable_state(self.loaded.model, load_file(path))
            checks += self._saved(root / "adapters" / kind, told=f"This folder holds {kind.replace('_', '-')}.\n")
        load_trainable_state(self.loaded.model, load_file(self.trained.weights[self.trained.selected]))
        if self._sharded():
            notes.append("exports: not compared with the measured model, which FSDP keeps on several processes.")
        return Exported(self.output / root / "adapter", tuple(checks), tuple(notes))

    def _sharded(self) -> bool:
        return isinstance(bare(self.loaded.model), FSDPModule)

    def _saved(self, place: Path, merged: bool = False, told: str = "") -> list[ExportCheck]:
        """Writes one folder and compares it with the model as it is now, where that is possible; told: in its card."""
        folder = self.output / place
        mark = folder / MARK
        # The mark comes first: an interruption leaves no folder that looks checked.
        with stage(f"writing {place.as_posix()}"), filling(folder, MARK) as apart:
            self.loaded.save(apart, merged=merged)
            write_card(apart, "\n".join(filter(None, (self.about, told, self.reader.card(apart)))))
            (apart / MARK).write_text(UNCHECKED, encoding="utf-8")
        if self._sharded():
            discard(mark)
            return []
        try:
            with phase(f"comparing {place.as_posix()}", unit="folders"):
                compared = compare(self.reader.measured(), lambda: self.reader.reloaded(folder))
        except UnfaithfulError as error:
            remedy = "Use adapter/, which holds it." if merged else f"Its weights are kept in {self._kept()}."
            told = f"{folder} is not the model that was measured: {error} Do not use that folder, which stays. {remedy}"
            write_text(mark, told + "\n")
            raise ModelError(told) from error
        discard(mark)
        return [ExportCheck(self.name, place.as_posix(), **compared._asdict())]

    def _kept(self) -> Path:
        return self.trained.weights[self.trained.selected].parent


def write_card(folder: Path, more: str = "") -> None:
    """Writes the model card anew as `printable` writes it, since PEFT puts the base model's name into it as it is.

    more: what the model's user must know. PEFT's own card is a form that nobody filled in: its head is kept, which
    tells programs the base model, and `more` stands in place of the form.
    """
    card = folder / CARD
    own = card.read_text(encoding="utf-8") if card.is_file() else ""
    if more and FORM in own:
        own = own.partition(FORM)[0]
    if own or more:
        told = f"{own.rstrip()}\n\n{more}" if own and more else own + more
        card.write_text(printable(told, lines=True), encoding="utf-8")
