"""Which columns of a table hold the prompts and answers of a stream, as data sets are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from textadv.data.tables import Table
from textadv.values.batch import Role
from textadv.values.errors import DataError

_ANSWERED = ("prompt", "input", "response", "messages", "system")
COLUMNS = {
    Role.ADVERSARIAL: ("prompt", "target", "safe", "system"),
    Role.UTILITY: _ANSWERED,
    Role.BORDERLINE: _ANSWERED,
}
"""What a stream's files may hold; a column of that name is taken where the configuration names no other.

input is a text that belongs to the prompt and follows it after a blank line, as in Alpaca.
"""

CHATS = ("messages", "conversations")
RESPONSES = ("response", "completion")
INSTRUCTION, INPUTS, OUTPUT = "instruction", ("input", "context"), "output"
SYSTEMS = ("system", "system_prompt")
HISTORY = "history"
"""Earlier turns beside an instruction: a list of pairs of what was asked and answered."""
WANTED = "label"
"""Beside a completion: whether it is wanted, as in TRL's unpaired preferences."""
CALLED = {
    "prompt": ("prompt", "instruction", "question", "query", "goal", "behavior", "request", "input", "human", "user"),
    "response": ("response", "completion", "output", "answer", "reply", "chosen", "assistant", "gpt"),
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "contents"),
    "target": ("target", "targets"),
    "safe": ("safe", "refusal", "safe_response", "rejected"),
}
"""Names that such columns have elsewhere, to suggest."""


class Picked(NamedTuple):
    """The columns that are read, by what they hold. instructions: they are Alpaca's, whose outputs may be empty."""

    values: dict[str, list[Any]]
    instructions: bool


def picked(table: Table, at: str, role: Role, columns: Mapping[str, str], safe_given: bool) -> Picked:
    """The columns of a table. at: the configuration key of `columns`. safe_given: safe responses need no column.

    Raises DataError where a column is missing, with the one that it may be.
    """
    if role is Role.ADVERSARIAL:
        names = {name: columns.get(name, name) for name in COLUMNS[role] if name != "system" or name in columns}
        if safe_given:
            del names["safe"]
    else:
        names = _answered_names(table, at, role, columns)
    if "system" not in columns:
        names |= {"system": next((name for name in SYSTEMS if name in table.columns), "")}
        if not names["system"]:
            del names["system"]
    for name, column in names.items():
        if column not in table.columns:
            raise DataError(f"{at}.{name}: {table.without(column)} {_remedy(table, at, name, names)}")
    values = {name: table.columns[column] for name, column in names.items()}
    if names.get("prompt") == INSTRUCTION and HISTORY in table.columns:
        values[HISTORY] = table.columns[HISTORY]
    labels = table.columns.get(WANTED, [])
    if names.get("response") == "completion" and labels and all(isinstance(value, bool) for value in labels):
        values[WANTED] = labels
    return Picked(values, names.get("prompt") == INSTRUCTION)


def _answered_names(table: Table, at: str, role: Role, columns: Mapping[str, str]) -> dict[str, str]:
    """The column of messages, or those of prompt, response and what belongs to them.

    Without names that is, of a utility stream, messages; prompt and response or completion; instruction, input and
    output; messages or conversations.
    """
    asked = sorted(columns.keys() & {"prompt", "input", "response"})
    if asked and "messages" in columns:
        raise DataError(f"{at} names messages and {asked[0]}. Name messages, or prompt and response.")
    system = {"system": columns["system"]} if "system" in columns else {}
    if "messages" in columns:
        return {"messages": columns["messages"], **system}
    there = table.columns
    prompt = columns.get("prompt", INSTRUCTION if "prompt" not in there and INSTRUCTION in there else "prompt")
    responses = (*RESPONSES, OUTPUT) if prompt == INSTRUCTION else RESPONSES
    response = columns.get("response", next((name for name in responses if name in there), "response"))
    pair = prompt in there and response in there
    chats = next((name for name in CHATS if name in there), None)
    first = role is Role.UTILITY and chats == CHATS[0]
    if not asked and chats is not None and (first or not pair):
        return {"messages": chats, **system}
    names = {"prompt": prompt, "response": response, **system}
    extra = next((name for name in INPUTS if name in there), None) if prompt == INSTRUCTION else None
    extra = columns.get("input", extra)
    return names if extra is None else {**names, "input": extra}


def _remedy(table: Table, at: str, name: str, names: Mapping[str, str]) -> str:
    """What to set, by what the columns are called."""
    lacking = [other for other, column in names.items() if column not in table.columns]
    if name in ("prompt", "response", "messages") and {"chosen", "rejected"} <= table.columns.keys():
        whole = isinstance(next(iter(table.columns["chosen"]), None), (list, tuple))
        if "prompt" in lacking and not whole:
            return "These are preferences between texts of whole chats. Write the chosen ones as lists of messages."
        role = "messages" if "prompt" in lacking else "response"
        return f"These are preferences. Set {at}.{role}: chosen to train on the chosen answers."
    chat = _called(table, "messages", ()) if "target" not in names else None
    if name in ("prompt", "response") and chat is not None:
        return f"Set {at}.messages: {chat}."
    used = [column for column in names.values() if column in table.columns]
    free = [column for column in table.columns if column not in used]
    if name == "response" and not free:
        return "These are prompts without answers. Add a column of answers, such as those that the model itself gives."
    if name == "prompt" and free == ["text"] and "target" not in names:
        return "These are plain texts, or whole chats as text. Write them as messages, or as prompt and response."
    found = {other: _called(table, other, used) for other in lacking}
    if not any(found.values()) and table.headless:
        return "Its first row looks like data: begin the file with the names of its columns."
    known = [f"{at}.{other}: {column}" for other, column in found.items() if column is not None]
    remedy = f"Set {' and '.join(known)}" if found.get(name) is not None else f"Set {at}.{name} to one of them"
    if name in ("prompt", "response") and "target" not in names:
        remedy += f", or {at}.messages"
    if name == "safe":
        remedy += f", or {at.rpartition('.')[0]}.safe_responses to a list of texts"
    return f"{remedy}."


def _called(table: Table, name: str, used: Sequence[str]) -> str | None:
    """The column that is probably meant by `name`, or None."""
    spelled = {column.lower(): column for column in table.columns if column not in used}
    return next((spelled[other] for other in CALLED.get(name, ()) if other in spelled), None)
