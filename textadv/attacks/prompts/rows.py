"""Searches of rows one by one: each row gets a status of its own, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textadv.attacks.prompts.rewritten import AskedFor, Found, Rewritten
from textadv.attacks.prompts.victim import failed
from textadv.values.errors import WriteError


def row_by_row(
    asked: Sequence[AskedFor], search: Callable[[AskedFor], Rewritten], found: Found | None = None
) -> list[Rewritten]:
    """What the search made of each row, in their order; where it raises, the row has failed, and why is told.

    What the machine refuses is no fault of a row: OSError and WriteError are raised.
    """
    ended = []
    for one in asked:
        try:
            row = search(one)
        except (OSError, WriteError):
            raise
        except Exception as error:
            row = failed(one, told(error))
        if found is not None:
            found(row)
        ended.append(row)
    return ended


def told(error: Exception) -> str:
    """Why a row failed: a sentence about the data as it is, anything else by its type."""
    return f"{error}" if type(error).__name__ == "DataError" else f"{type(error).__name__}: {error}"
