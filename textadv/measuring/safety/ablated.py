"""Asking a chat model without what it refuses with: its own refusal direction, taken out of its hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn

from textadv.attacks import RefusalDirection
from textadv.data import Rows
from textadv.measuring.safety.adversaries import Behaviour, Round, Try
from textadv.measuring.safety.generate import Prompt
from textadv.models import counted_parameters
from textadv.models.ablating import ablating
from textadv.values.batch import Batch
from textadv.values.digests import digest
from textadv.values.flops import Flops


@dataclass(frozen=True, eq=False)
class RefusalAblation:
    """The request as it stands, asked of the model without its refusal direction (arXiv:2406.11717).

    layers: blocks after which it is taken out, at every position of prompt and answer. harmful, harmless: training
    prompts whose mean hidden states the directions lie between; those of this very model, before or after training.

    Deviations: as `RefusalDirection`: every layer has a direction of its own; what enters the first block stays.
    """

    layers: tuple[int, ...]
    harmful: Batch = field(repr=False)
    harmless: Batch = field(repr=False)

    def __str__(self) -> str:
        return (
            f"direct request, own refusal direction ablated after layers {self.layers[0]} to {self.layers[-1]} (from "
            f"{len(self.harmful)} harmful and {len(self.harmless)} harmless training prompts)"
        )

    @property
    def threat(self) -> str:
        """What the adversary changes."""
        return f"hidden states after layers {self.layers[0]} to {self.layers[-1]}, one direction each"

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterator[Round]:
        """One round, asked while the directions are out of the model; it is as before when the next is asked for."""
        # A direction that is kept from call to call would be another model's.
        directions = RefusalDirection(self.layers, self.harmful, self.harmless).directions(model)
        told = digest([directions.float().cpu().numpy().tobytes()])
        with ablating(model, self.layers, directions):
            yield Round([self._asked(row, f"{self.layers} {told}", model, len(behaviours)) for row in behaviours])

    def tries(self, model: nn.Module, behaviours: Sequence[Behaviour]) -> list[list[Try]]:
        """One round: a share of what finding the directions takes, and an answer; see `Bounded`."""
        share = self._share(model, len(behaviours)).total
        assert share is not None
        return [[Try(share, len(row.ids)) for row in behaviours]]

    def _asked(self, row: Behaviour, origin: str, model: nn.Module, behaviours: int) -> Prompt:
        passes = -(-(len(self.harmful) + len(self.harmless)) // behaviours)
        flops = self._share(model, behaviours)
        return Prompt(row.id, row.ids, origin=f"refusal ablation {origin}", forwards=passes, flops=flops)

    def _share(self, model: nn.Module, behaviours: int) -> Flops:
        """What finding the directions takes, shared out over so many behaviours, rounded up."""
        read = [batch.prompt_lengths for batch in (self.harmful, self.harmless)]
        tokens = sum(int(lengths.sum()) for lengths in read if lengths is not None)
        return Flops.of(counted_parameters(model), forward=-(-tokens // behaviours))
