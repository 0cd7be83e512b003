"""Searches of rows, one by one or all together: whatever is raised, each row gets a status of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from textadv.attacks.prompts.rewritten import AskedFor, Found, Passes, Rewritten
from textadv.attacks.prompts.victim import failed
from textadv.values.errors import WriteError


def row_by_row(
    asked: Sequence[AskedFor], search: Callable[[AskedFor, Passes], Rewritten], found: Found | None = None
) -> list[Rewritten]:
    """What the search made of each row, in their order; where it raises, the row has failed, and why is told.

    search: is given what it is to count in, so that a search that breaks off has taken what went through the model.
    What the machine refuses is no fault of a row: OSError and WriteError are raised.
    """
    ended = []
    for one in asked:
        passes = Passes()
        try:
            row = search(one, passes)
        except (OSError, WriteError):
            raise
        except Exception as error:
            row = failed(one, told(error), passes)
        if found is not None:
            found(row)
        ended.append(row)
    return ended


def together(
    asked: Sequence[AskedFor],
    search: Callable[[Mapping[int, Passes]], Mapping[int, Rewritten]],
    found: Found | None = None,
) -> list[Rewritten]:
    """What one search made of all rows, by id, in their order; where it raises, all have failed. As `row_by_row`."""
    passes = {one.id: Passes() for one in asked}
    try:
        ended = search(passes)
    except (OSError, WriteError):
        raise
    except Exception as error:
        ended = {one.id: failed(one, told(error), passes[one.id]) for one in asked}
    return row_by_row(asked, lambda one, _: ended[one.id], found)


def told(error: Exception) -> str:
    """Why a row failed: a sentence about the data as it is, anything else by its type."""
    return f"{error}" if type(error).__name__ == "DataError" else f"{type(error).__name__}: {error}"
