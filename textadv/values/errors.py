"""Errors that a user can mend, by what they are about. Here, below all that raises them, so that a recipe knows them
without loading torch; a mistake in the configuration is `textadv.config.types.ConfigError`.
"""

from __future__ import annotations

from textadv.values.host.printable import message


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, found or used."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class DataError(ValueError):
    """The data cannot be used as configured; the message names the `data.` key to change."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class DeadAdversaryError(RuntimeError):
    """The adversary gained nothing over a window of measured steps."""


class EndpointError(RuntimeError):
    """The endpoint refuses whatever it is sent: wrong key, address, model or parameter. The run has to stop."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class GenerationError(RuntimeError):
    """Rows that cannot be continued, or logits that are not numbers."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class ModelError(ValueError):
    """The model does not fit what was asked of it."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class NonFiniteError(RuntimeError):
    """A loss or gradient that is nan or infinite, or of no use since training diverged; no step was taken on it."""


class PerturbationError(RuntimeError):
    """A perturbation that the model's output does not depend on: the attack would be a silent no-op.

    attack, found: where an attack met no slope at all, that attack and what it hands back all the same, for whoever
    judges several searches together.
    """

    def __init__(self, text: str, attack: object = None, found: object = None) -> None:
        super().__init__(text)
        self.attack, self.found = attack, found


class WriteError(Exception):
    """A file of a run that could not be written; what lay there before is unchanged."""
