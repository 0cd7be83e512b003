"""An attack whose perturbation is used for several optimizer steps before it is searched anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.attacked import Attack, Attacked, Cost
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.values.batch import Batch
from textadv.values.plurals import some


@dataclass
class _Memory:
    """What was found at optimizer step `searched`, by the ids of the rows that were attacked together."""

    searched: int = -1
    found: dict[tuple[int, ...], Attacked] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """Searches at every `steps`-th optimizer step and in between returns what it found for the same rows.

    The K defence steps per perturbation of targeted LAT (arXiv:2407.15549). A step in between costs no pass and
    measures nothing. To be used with a sampler that repeats the rows for as long: `Streams(repeat=steps)`.

    Deviations: none known.

    Raises ValueError at rows that were not searched at the last multiple of `steps`: that is also the only place
    where a run can be resumed.
    """

    attack: Attack
    steps: int
    _memory: _Memory = field(default_factory=_Memory, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_attack("attack", self.attack)
        if self.steps < 1:
            raise ValueError(f"objective.defence_steps must be at least 1, got {self.steps}.")

    def __str__(self) -> str:
        return f"{self.attack}, held for {some(self.steps, 'optimizer step')}"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows perturbed; see `Attack`."""
        model, batch, back = entered(self, model, batch, y, measure)
        memory, rows, begun = self._memory, tuple(batch.ids.tolist()), step - step % self.steps
        if memory.searched != begun:
            memory.searched = begun
            memory.found.clear()
        if step == begun:
            memory.found[rows] = searched(
                self.attack, model, batch, step=step, radius_scale=radius_scale, measure=measure
            )
            return back(memory.found[rows])
        if rows not in memory.found:
            raise ValueError(
                f"Rows {list(rows)} were not attacked at optimizer step {begun}, so there is nothing to hold at "
                f"step {step}. Set checkpoint.every to a multiple of objective.defence_steps ({self.steps})."
            )
        attacked = memory.found[rows]
        return back(Attacked(attacked.batch, attacked.gauge, Cost.none(batch), None, origin=attacked.origin))
