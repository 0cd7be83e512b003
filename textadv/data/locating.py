"""Where in a rendered chat each content stands, and which token holds what.

Where the contents stand is found by rendering the same chat with a placeholder for each content: what remains is the
template's own text. The real rendering must then be that text with the contents (as they are, or stripped) filled in;
the tokenizer's character offsets say which token holds what.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from textadv.data.rendering import SUPPLY, Message, Template
from textadv.data.thoughts import marks_of_text
from textadv.values.errors import DataError

NOBODY = -1


@dataclass(frozen=True)
class Rendered:
    """A chat as one string; owners: per character the index of the message it belongs to, or NOBODY (template)."""

    text: str
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Tokens:
    """A rendered chat as tokens: of each its id, the message that it belongs to (or NOBODY) and its first character."""

    ids: tuple[int, ...]
    owners: tuple[int, ...]
    starts: tuple[int, ...]


def located(template: Template, messages: Sequence[Message], *, generation: bool) -> Rendered:
    """The chat as the template writes it, with the place of each content in it.

    An earlier turn of the assistant may lose its thoughts. Raises DataError where the template leaves out a content, or
    changes it otherwise.
    """
    text = template.render(messages, generation=generation)
    pieces = template.skeleton(messages, generation=generation)
    contents = [int(re.sub(r"\D", "", piece)) for piece in pieces[1::2]]
    lost = sorted(set(range(len(messages))) - set(contents))
    if lost:
        role = messages[lost[0]]["role"]
        raise DataError(
            f"the chat template leaves out the text of message {lost[0]} ({role}), which cannot be located in what it "
            f"writes. {SUPPLY}"
        )
    depends = f"the chat template's own text depends on the contents, so they cannot be located. {SUPPLY}"
    if not text.startswith(pieces[0]):
        raise DataError(depends)
    owners = [NOBODY] * len(pieces[0])
    for index, literal in zip(contents, pieces[2::2], strict=True):
        forms = _forms(template, messages[index])
        written = next((form for form in forms if text.startswith(form + literal, len(owners))), None)
        if written is None:
            raise DataError(
                f"the chat template changes the text of message {index} ({messages[index]['role']}: "
                f"{shortened(messages[index]['content'])}) by more than stripping it, or its own text after it "
                f"depends on it, so it cannot be located. {SUPPLY}"
            )
        owners += [index] * len(written) + [NOBODY] * len(literal)
    if len(owners) != len(text):
        raise DataError(depends)
    return Rendered(text, tuple(owners))


def _forms(template: Template, message: Message) -> Iterator[str]:
    """How a content may stand in what the template writes."""
    content = message["content"]
    said = [content]
    if message["role"] == "assistant":
        marks = marks_of_text(content, template.marks)
        said += [template.split(content).text, *([] if marks is None else [content.rpartition(marks.end)[2]])]
    for text in said:
        yield from (text, text.rstrip(), text.lstrip(), text.strip())


def tokenised(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> Tokens:
    """The tokens of the rendered chat. Raises DataError where one holds text of two owners.

    A token that holds blanks of one and other text of another belongs to the other text (a sentencepiece word carries
    the blank before it); one that holds blanks of several and nothing else is the template's.
    """
    text = rendered.text
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    owners, starts, covered = [], [], 0
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # Some tokenizers leave the blanks that a token begins with out of its offsets.
        first = covered if text[covered:start].isspace() else start
        held = set(rendered.owners[first:end])
        if len(held) > 1:
            held = {rendered.owners[i] for i in range(first, end) if not text[i].isspace()} or {NOBODY}
        if len(held) > 1:
            raise DataError(_merged(tokenizer, token, rendered, first, end))
        # A token without a character (the blank that sentencepiece puts before a text) goes with what follows it.
        owners.append(held.pop() if held else rendered.owners[min(start, len(text) - 1)])
        starts.append(first)
        covered = end
    return Tokens(tuple(encoded["input_ids"]), tuple(owners), tuple(starts))


def _merged(tokenizer: PreTrainedTokenizerBase, token: int, rendered: Rendered, start: int, end: int) -> str:
    around = rendered.text[max(0, start - 20) : end + 20]
    return (
        f"the token {tokenizer.convert_ids_to_tokens(token)!r} (id {token}) at characters {start} to {end} of the "
        f"rendered chat, in {around!r}, holds text of the template and of a message, or of two messages, so it is "
        "neither to be edited nor to be left alone. Put a blank, a new line or a special token at that border of the "
        "template and supply it with model.chat_template: the path of a Jinja file."
    )


def shortened(text: str) -> str:
    """The text as it is printed in messages."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
