"""What was seen in one optimizer step, by one process and by all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed

from textadv.attacks import Attacked
from textadv.objectives import Term
from textadv.training.liveness import Pulse
from textadv.values.batch import Batch
from textadv.values.errors import NonFiniteError
from textadv.values.processes import everywhere


@dataclass
class StepReport:
    """What one process saw in one optimizer step; sums over its own rows, kept on the device.

    losses: by term, each (). total_loss: (). adversarial_size, total_size: (), of the terms' magnitudes, since a term
    that drives away from something is negative. forwards, backwards: () int64, passes of rows. suspects: the terms,
    losses and row ids, (B,).
    """

    device: torch.device
    losses: dict[str, Tensor] = field(default_factory=dict)
    total_loss: Tensor = field(init=False)
    adversarial_size: Tensor = field(init=False)
    total_size: Tensor = field(init=False)
    forwards: Tensor = field(init=False)
    backwards: Tensor = field(init=False)
    adversarial_rows: int = 0
    measured: list[Attacked] = field(default_factory=list)
    suspects: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total_loss = torch.zeros((), device=self.device, dtype=torch.float64)
        self.adversarial_size, self.total_size = self.total_loss.clone(), self.total_loss.clone()
        self.forwards = torch.zeros((), device=self.device, dtype=torch.int64)
        self.backwards = self.forwards.clone()

    def add(self, term: Term, batch: Batch) -> None:
        """Takes note of a term of the rows `batch`."""
        losses = term.losses.detach().double()
        weighted = losses.sum() * term.weight
        self.losses[term.name] = self.losses.get(term.name, torch.zeros_like(weighted)) + weighted
        self.total_loss += weighted
        self.total_size += weighted.abs()
        self.suspects.append((term.name, losses, batch.ids))
        self.forwards += term.passes * len(batch) + term.searched[0]
        self.backwards += term.passes * len(batch) + term.searched[1]
        if term.adversarial:
            self.adversarial_size += weighted.abs()
        if term.attacked is not None:
            cost = term.attacked.cost
            self.forwards += cost.forwards.sum() + cost.queries.sum()
            self.backwards += cost.backwards.sum()
            # Where edits were drawn for no row there was no attack to be watched.
            if term.attacked.measured is not None and not bool(term.attacked.gauge.isnan().all()):
                self.measured.append(term.attacked)

    def require_finite(self, step: int) -> None:
        """Raises NonFiniteError, naming the step (as logged), terms and row ids, unless all losses are finite."""
        if bool(torch.isfinite(self.total_loss)):
            return
        named = [
            f"{name} at row ids {ids[~torch.isfinite(losses)].tolist()}"
            for name, losses, ids in self.suspects
            if not bool(torch.isfinite(losses).all())
        ]
        raise NonFiniteError(
            f"The loss is not finite at step {step + 1}: {'; '.join(named)}. No optimizer step was taken."
        )


def largest_of_all(number: int, accelerator: Accelerator) -> int:
    """The largest of the processes' numbers, on every process."""
    if accelerator.num_processes == 1:
        return number
    found = torch.tensor(number, device=accelerator.device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def over_processes(report: StepReport, batch_size: int) -> tuple[dict[str, float], Pulse | None]:
    """The values of a step to be logged, over all processes, and the adversary's pulse where it was measured."""
    mine = (
        float(report.total_loss),
        float(report.adversarial_size),
        float(report.total_size),
        report.adversarial_rows,
        [(Pulse.of(attacked), len(attacked.batch)) for attacked in report.measured],
    )
    everyone: list[Any] = everywhere([mine])
    total, adversarial, size, attacked_rows = (sum(part[n] for part in everyone) for n in range(4))
    values = {
        "loss": total / batch_size,
        "share": adversarial / size if size else 0.0,
        "ratio": attacked_rows / batch_size,
    }
    pulses = [entry for part in everyone for entry in part[4]]
    if not pulses:
        return values, None
    pulse = Pulse.mean(pulses)
    return values | {"gain": pulse.gain, "gauge": pulse.gauge, "broken": pulse.success}, pulse
