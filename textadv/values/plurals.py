"""Numbers of things in words."""

from __future__ import annotations


def some(count: int, thing: str, things: str = "") -> str:
    """So many of a thing, `1 row` and `2 rows`; things: the plural where it does not end in `s`."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"
