"""What a cell of the tables says: yes, or why not. The tests of the cells hold the library to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A refusal must say what to do instead.
REMEDY = re.compile(r"\b(Set|Use|Take|take|must be one of|Valid keys)\b")


@dataclass(frozen=True)
class Refused:
    """The library refuses.

    reason: why, as the page's footnote says it. says: what the error must say. error: its exact type.
    """

    reason: str
    says: str
    error: type[Exception] = ValueError

    def check(self, error: Exception) -> None:
        """Fails unless `error` is the one that was foreseen, and names a remedy."""
        assert type(error) is self.error, repr(error)
        assert self.says in str(error), str(error)
        assert REMEDY.search(str(error)), f"no remedy in: {error}"


@dataclass(frozen=True)
class Absent:
    """The question does not arise; reason: why, as a footnote. There is nothing to run."""

    reason: str


Cell = Refused | Absent | None
"""None: yes."""
