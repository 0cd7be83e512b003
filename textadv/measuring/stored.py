"""Results read from JSON text, of this and of earlier versions."""

from __future__ import annotations

from textadv.measuring.earlier import CHAT_VERSION, upgraded, upgraded_chat
from textadv.measuring.results import SCHEMA_VERSION, Results, typed
from textadv.values.host.reading import json_of


def from_json(text: str) -> Results:
    """The results that `to_json` wrote, or that earlier versions did.

    Raises ValueError when the text is not such results: not JSON, an unknown schema version, a field missing, unknown
    or of the wrong kind; the message names the place.
    """
    data = json_of(text)
    found = (data.get("task"), data.get("schema_version")) if isinstance(data, dict) else (None, None)
    if found == ("chat", CHAT_VERSION):
        return upgraded_chat(data)
    if found == (None, 1):
        return upgraded(data)
    if found != (None, SCHEMA_VERSION):
        of_chat = f" of task {found[0]}" if found[0] is not None else ""
        raise ValueError(
            f"These results have schema_version {found[1]!r}{of_chat}, this textadv reads 1 to {SCHEMA_VERSION}. "
            "Read them with the textadv version that wrote them (textadv_version in the file)."
        )
    return typed(Results, data, "results")
