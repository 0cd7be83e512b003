"""The errors that a user can mend: a recipe prints their message and no traceback."""

from __future__ import annotations

from textadv.accumulation import NonFiniteError
from textadv.checkpoint import CheckpointError
from textadv.config import ConfigError
from textadv.data import DataError
from textadv.liveness import DeadAdversaryError
from textadv.models import ModelError, PerturbationError

USER_ERRORS = (
    CheckpointError,
    ConfigError,
    DataError,
    DeadAdversaryError,
    ModelError,
    NonFiniteError,
    PerturbationError,
)
