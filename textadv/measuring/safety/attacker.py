"""A model behind an endpoint that rewrites requests: what it refuses or cannot do is told row by row."""

from __future__ import annotations

from dataclasses import dataclass

from textadv.measuring.judges.openai_compatible import ChatEndpoint
from textadv.values.errors import EndpointError


@dataclass(frozen=True)
class EndpointAttacker:
    """An endpoint that is asked by an attack. What it refuses of one row fails that row, what it
    refuses of all (a key, an address) every row; neither ends an evaluation."""

    endpoint: ChatEndpoint

    def __str__(self) -> str:
        return self.endpoint.model

    def __call__(self, prompts: list[str]) -> list[str | Exception]:
        """A text or an error for each message."""
        try:
            return self.endpoint.one_by_one(prompts)
        except EndpointError as error:
            return [error] * len(prompts)
