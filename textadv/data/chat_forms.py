"""The forms in which chats are kept -> messages: ShareGPT's turns, contents in parts, lists of messages, lists as text.

Errors begin with `where`, which names the configuration key, the row and its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, KeysView, Mapping, Sequence
from typing import Any, NamedTuple

from textadv.data.chat_template import SEGMENTS
from textadv.data.rendering import Message
from textadv.data.thoughts import spelled
from textadv.values.errors import DataError
from textadv.values.host.printable import clipped
from textadv.values.host.reading import literal_of

ROLES = {name: name for name in SEGMENTS} | {"developer": "system", "human": "user", "prompter": "user"}
ROLES |= dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "ai"), "assistant")
"""What a speaker is called, in lower case, and whose turn that is."""

CONTENTS = ("content", "value", "text", "parts", "message")
"""The key of a turn's content, the first that is there."""

TEXT_PARTS = ("text", "input_text", "output_text")
_UNLEARNED = {"weight": (0, False), "train": (False,), "training": (False,)}
_WRITTEN = re.compile(r"\s*\[\s*\{\s*['\"](role|from|content|value|type)['\"]\s*:")


class Answered(NamedTuple):
    """A prompt with its answer.

    answer: None where there is none, and `problem` then says so. cut: turns of the user after the answer were left out.
    passed_over: so were answers after it that are not to be learned. unwanted: so is the only one.
    """

    messages: tuple[Message, ...]
    answer: str | None
    problem: str = ""
    cut: bool = False
    passed_over: bool = False
    unwanted: bool = False


def answered_chat(value: object, where: str) -> Answered:
    """A whole chat, the last turn being the answer; later turns of the user are left out.

    So are answers that the data says not to learn (OpenAI's weight: 0, axolotl's train: false), and what follows.
    Raises DataError where it is no list of messages, or the answer follows no turn of the user.
    """
    turns = _turns(value, where)
    roles = [turn.role for turn in turns]
    answers = [place for place, role in enumerate(roles) if role == "assistant"]
    learned = [place for place in answers if not _unlearned(turns[place].message)]
    if answers and not learned:
        return Answered(
            (), None, f"{where} has no answer that is to be learned (weight: 0, or train: false).", unwanted=True
        )
    end = len(turns)
    passed_over = bool(answers) and answers[-1] != learned[-1]
    if passed_over:
        end = learned[-1] + 1
    while end > 1 and roles[end - 1] == "user" and "assistant" in roles[:end]:
        end -= 1
    if roles[end - 2 : end] != ["user", "assistant"]:
        raise DataError(
            f"{where} has the turns {', '.join(roles) or '(none)'}; the last must be the assistant's answer to a user. "
            "Correct or remove the row."
        )
    problem = empty(turns[end - 1].content, turns[end - 1].at)
    answer = None if problem else turns[end - 1].said()
    cut = end < len(turns) and not passed_over
    return Answered(_messages(turns[: end - 1]), answer, problem, cut, passed_over)


def answered(prompt: object, response: object, where: tuple[str, str]) -> Answered:
    """A prompt and its answer from two values, see `prompt_messages`; the answer may be a text or a list of messages.

    A list of messages may repeat the prompt before the answer. where: of the prompt, and of the response.
    """
    messages = prompt_messages(prompt, where[0])
    problem = empty(response, where[1])
    if problem:
        return Answered(messages, None, problem)
    value = _listed(response, where[1])
    if not _is_chat(value):
        return Answered(messages, text(value, where[1]))
    *before, last = _turns(value, where[1])
    if last.role != "assistant" or (before and _messages(before) not in (messages, messages[-len(before) :])):
        raise DataError(
            f"{where[1]} has the turns {', '.join(turn.role for turn in (*before, last))}; a response is one turn of "
            "the assistant, or the prompt's turns and that. Name a column of whole chats as messages."
        )
    problem = empty(last.content, last.at)
    return Answered(messages, None if problem else last.said(), problem)


def prompt_messages(value: object, where: str) -> tuple[Message, ...]:
    """The turns up to the user's last: a text or parts are that turn alone. Raises DataError where another follows."""
    listed = _listed(value, where)
    if not _is_chat(listed):
        return ({"role": "user", "content": text(listed, where)},)
    turns = _turns(listed, where)
    if turns[-1].role != "user":
        raise DataError(
            f"{where} has the turns {', '.join(turn.role for turn in turns)}; a prompt ends with the user's. Remove "
            "what follows it, or name a column of whole chats as messages where the stream has answers."
        )
    return _messages(turns)


def earlier_turns(value: object, where: str) -> tuple[Message, ...]:
    """The turns that a list of pairs of what was asked and answered holds; none where it is empty."""
    if empty(value, where):
        return ()
    value = _read_again(value) if isinstance(value, str) else value
    if value == []:
        return ()
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value
    ):
        raise DataError(
            f"{where} is {clipped(value)}, which is no list of pairs (asked, answered). Correct or remove it."
        )
    turns: list[Message] = []
    for asked, said in value:
        turns += [{"role": "user", "content": text(asked, where)}, {"role": "assistant", "content": text(said, where)}]
    return tuple(turns)


def prompt_text(value: object, where: str) -> str:
    """The text of a prompt of one turn; DataError where there are more."""
    messages = prompt_messages(value, where)
    if len(messages) > 1:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(f"{where} has the turns {roles}; what is asked here is one turn of the user. Remove the row.")
    return messages[0]["content"]


def answer_texts(value: object, where: str) -> list[str]:
    """The texts of one answer or of a list of them; each a text, parts, or a message of the assistant."""
    listed = _listed(value, where)
    if not isinstance(listed, (list, tuple)) or _is_chat(listed) or _is_parts(listed):
        return [_said(listed, where)]
    if not listed:
        raise DataError(f"{where} has an empty list. Give it at least one text, or remove the row.")
    return [_said(entry, f"{where}, entry {number},") for number, entry in enumerate(listed)]


def _said(value: object, where: str) -> str:
    if not _is_chat(value):
        return text(value, where)
    *before, last = _turns(value, where)
    if before or last.role != "assistant":
        raise DataError(f"{where} must be a text or one message of the assistant. Correct or remove the row.")
    return last.said()


# ---- contents


def text(value: object, where: str) -> str:
    """The text of a content: itself, or its parts of text in lines of their own. DataError where there is none."""
    if _is_parts([value]):
        value = [value]
    if _is_parts(value):
        assert isinstance(value, (list, tuple))
        kinds = [part.get("type") or "text" for part in value]
        other = next((kind for kind in kinds if kind not in TEXT_PARTS), None)
        if other is not None:
            raise DataError(f"{where} has a part of the type {other!r}, and only text is read. Remove the row.")
        written = [part.get("text") for part in value]
        value = "\n".join(written) if all(isinstance(part, str) for part in written) else written
    if not isinstance(value, str):
        raise DataError(f"{where} has {clipped(value)}, which is not text. Correct or remove it.")
    if not value.strip():
        raise DataError(f"{where} is empty. Fill it in or remove it.")
    return value


def empty(value: object, where: str) -> str:
    """What to say where there is nothing: null, not-a-number, blanks or an empty list; otherwise an empty text."""
    if isinstance(value, float) and math.isnan(value):
        value = None
    if value is None:
        return f"{where} has None, which is not text. Correct or remove it."
    blank = isinstance(value, str) and not value.strip()
    return f"{where} is empty. Fill it in or remove it." if blank or value == [] else ""


def _is_parts(value: object) -> bool:
    """Whether this is a list of parts such as {"type": "text", "text": ...}."""
    return _all_are(value, lambda keys: not {"role", "from"} & keys and bool({"type", "text"} & keys))


# ---- messages


class _Turn(NamedTuple):
    """One turn as it is kept: its role, content and place, and all that the message holds."""

    role: str
    content: Any
    at: str
    message: Mapping[str, Any]

    def said(self) -> str:
        """Its text, after the thought that the message holds under a name of its own."""
        return spelled(self.message, text(self.content, self.at))


def _is_chat(value: object) -> bool:
    """Whether this is a list of messages."""
    return _all_are(value, lambda keys: bool({"role", "from"} & keys))


def _all_are(value: object, fits: Callable[[KeysView[str]], bool]) -> bool:
    """Whether this is a list of one mapping or more, whose keys all fit."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(part, Mapping) and fits(part.keys()) for part in value)


def _listed(value: object, where: str) -> object:
    """A list of messages or parts that was written as text, one list for each key, or one message, as a list."""
    if isinstance(value, Mapping) and {"role", "from"} & value.keys():
        if all(isinstance(column, (list, tuple)) for column in value.values()):
            return [dict(zip(value, turn, strict=False)) for turn in zip(*value.values(), strict=False)]
        return [value]
    if not isinstance(value, str) or not _WRITTEN.match(value):
        return value
    found = _read_again(value)
    if found is not None:
        return found
    raise DataError(
        f"{where} has {clipped(value)}, a list that was written as text and cannot be read again. Write the rows as "
        "jsonl or parquet."
    )


def _read_again(written: str) -> list[Any] | None:
    """The list that was written as text, in JSON or in Python; None where it is none."""
    try:
        return list(literal_of(written))
    except (ValueError, TypeError):
        return None


def _turns(value: object, where: str) -> list[_Turn]:
    listed = _listed(value, where)
    if not isinstance(listed, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in listed):
        raise DataError(
            f"{where} has {clipped(value)}, which is no list of messages with role and content (or from and value)."
        )
    return [_turn(turn, f"{where}, message {number},") for number, turn in enumerate(listed)]


def _turn(turn: Mapping[str, Any], at: str) -> _Turn:
    """One message with role and content, or with ShareGPT's from and value."""
    speaker = _first(turn, "role", "from")
    role = ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        if speaker is None:
            raise DataError(f"{at} has neither role nor from; there are {', '.join(turn) or 'no keys'}. Rename them.")
        raise DataError(
            f"{at} has the role {speaker!r}; roles are {', '.join(SEGMENTS)} (or human and gpt). Correct or remove the "
            "row."
        )
    if turn.get("tool_calls") or turn.get("function_call"):
        raise DataError(f"{at} calls a tool, and only text is read. Remove the row.")
    if not set(CONTENTS) & turn.keys():
        raise DataError(f"{at} has neither content nor value; there are {', '.join(turn)}. Rename them.")
    content = _first(turn, *CONTENTS)
    if isinstance(content, (list, tuple)) and content and all(isinstance(part, str) for part in content):
        content = [{"type": "text", "text": part} for part in content]
    return _Turn(role, content, at, turn)


def _unlearned(message: Mapping[str, Any]) -> bool:
    """Whether the data says of an answer that it is not to be learned."""
    return any(message.get(key) is not None and message[key] in values for key, values in _UNLEARNED.items())


def _first(turn: Mapping[str, Any], *keys: str) -> Any:
    """The first that is there; parquet files hold both kinds of keys where their rows differ."""
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _messages(turns: Sequence[_Turn]) -> tuple[Message, ...]:
    """The messages with their texts; an empty system text is none."""
    kept = [turn for turn in turns if not (turn.role == "system" and empty(turn.content, turn.at))]
    return tuple({"role": turn.role, "content": text(turn.content, turn.at)} for turn in kept)
