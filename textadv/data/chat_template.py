"""Chats -> tokens through the tokenizer's own chat template, each token labelled with whose it is.

Three parts follow each other: the prompt, as the template gives it to a model that answers; the opening, which is the
template's own text between prompt and answer (an empty thought, mostly nothing); the answer, to its end of turn. Blanks
alone are no opening: whether they are tokens of their own is the tokenizer's affair, so they begin the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from textadv.data.characters import unbroken
from textadv.data.control_tokens import end_of_turn
from textadv.data.locating import NOBODY, Rendered, located, shortened, tokenised
from textadv.data.rendering import SUPPLY, Message, Template, template_of
from textadv.data.thoughts import Said, Speech, marks_of_text, with_thought
from textadv.values.errors import DataError


class Segment(IntEnum):
    """Whose a token is. A default system prompt that the template itself writes is TEMPLATE."""

    SYSTEM = 0
    TEMPLATE = 1
    USER = 2
    ASSISTANT = 3


SEGMENTS = {"system": Segment.SYSTEM, "user": Segment.USER, "assistant": Segment.ASSISTANT}


@dataclass(frozen=True)
class Encoded:
    """The token ids of one chat and the segment of each."""

    ids: tuple[int, ...]
    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Reply(NamedTuple):
    """What follows a prompt as tokens: what the template writes before the answer, and the answer with its end."""

    opening: tuple[int, ...]
    answer: tuple[int, ...]


def encode_prompt(tokenizer: PreTrainedTokenizerBase | Template, messages: Sequence[Message]) -> Encoded:
    """The chat up to where the assistant starts, generation prompt included: what a model is given that answers.

    messages: the turns before the answer, the last one the user's. Whose a token on a border is: see
    `locating.tokenised`. Special tokens that a content spells are read as such, as `apply_chat_template` reads them.

    Raises DataError where the tokenizer has no template or no offsets, where the template fails, drops or rewrites a
    content, marks no assistant start, or where a token holds text of two segments.
    """
    template = template_of(tokenizer)
    _check(template.tokenizer, messages)
    rendered = located(template, messages, generation=True)
    _check_assistant_start(template, messages, rendered)
    tokens = tokenised(template.tokenizer, rendered)
    _check_round_trip(template, messages, tokens.ids, generation=True)
    own = [SEGMENTS[message["role"]] for message in messages]
    return Encoded(tokens.ids, tuple(Segment.TEMPLATE if n == NOBODY else own[n] for n in tokens.owners))


def encode_answered(
    tokenizer: PreTrainedTokenizerBase | Template, messages: Sequence[Message], answer: str
) -> tuple[Encoded, tuple[int, ...]]:
    """The prompt, and the ids that `answer` has after it: content and end of turn, as `encode_answer` gives them."""
    prompt = encode_prompt(tokenizer, messages)
    return prompt, encode_answer(tokenizer, messages, prompt, answer)


def encode_answer(
    tokenizer: PreTrainedTokenizerBase | Template, messages: Sequence[Message], prompt: Encoded, answer: str
) -> tuple[int, ...]:
    """All ids that follow `prompt` in the answered chat, to the end of the assistant's turn: see `encode_reply`."""
    reply = encode_reply(tokenizer, messages, prompt, answer)
    return (*reply.opening, *reply.answer)


def encode_reply(
    tokenizer: PreTrainedTokenizerBase | Template,
    messages: Sequence[Message],
    prompt: Encoded,
    answer: str,
    *,
    thoughts: bool = True,
) -> Reply:
    """The ids that `answer` has after `prompt` (the encoding of `messages`), to the end of the assistant's turn.

    They are what follows the prompt when the whole chat is tokenised at once, up to and including the first special
    token after the answer; where the template writes none, the answer and tokenizer.eos_token. Where the prompt begins
    a thought that the answered chat lacks, or ends in the midst of a token of the opening, the opening is tokenised
    after the prompt as it stands: see `thoughts.between`.

    A thought in the answer (`<think>...</think>text`) is no part of it. thoughts: whether it stands in the opening, in
    the place of the template's empty one, or is left out; it is left out where the prompt ends one already.

    Raises DataError where the prompt is tokenised otherwise before this answer or where no token of the answer is left.
    """
    template = template_of(tokenizer)
    said = template.split(unbroken(answer, "the answer"))
    thought = ": all of it is a thought" if said.thought else ""
    nothing = (
        f"the answer {shortened(answer)} has no token of its own, so there is nothing to train on{thought}. Correct it."
    )
    if not said.text.strip():
        raise DataError(nothing)
    index = len(messages)
    whole = [*messages, {"role": "assistant", "content": said.text}]
    rendered = located(template, whole, generation=False)
    _check_round_trip(template, whole, tokenised(template.tokenizer, rendered).ids, generation=False)
    before = template.render(messages, generation=True)
    start = rendered.owners.index(index)
    opening = template.between(before, rendered.text[:start])
    if thoughts and said.thought:
        opening = _thoughtful(template, before, opening, answer, said)
    text = before + opening + rendered.text[start:]
    owners = (NOBODY,) * (len(before) + len(opening)) + rendered.owners[start:]
    ids, own = _after(template.tokenizer, prompt, len(before), Rendered(text, owners))
    places = [place for place, owner in enumerate(own) if owner == index]
    if not places:
        raise DataError(nothing)
    first = places[0] if opening.strip() else 0
    return Reply(ids[:first], (*ids[first : places[-1] + 1], *_end_of_turn(template, ids[places[-1] + 1 :])))


def encode_opening(
    tokenizer: PreTrainedTokenizerBase | Template, messages: Sequence[Message], prompt: Encoded
) -> tuple[int, ...]:
    """The ids that stand between `prompt` and any answer to it; none where the template writes nothing but blanks."""
    template = template_of(tokenizer)
    if not template.opening(messages).strip():
        return ()
    return encode_reply(template, messages, prompt, "Yes").opening


def _thoughtful(template: Template, prompt: str, opening: str, answer: str, said: Said) -> str:
    """The opening with the answer's thought, in the template's own marks where it has some."""
    found = marks_of_text(answer, template.marks)
    marks = template.marks or found
    if marks is None or prompt.rstrip().endswith(marks.end):
        return opening
    spelled = f"{marks.start}\n{said.thought}\n{marks.end}\n\n"
    if marks == found and answer.endswith(said.text):
        spelled = answer.removesuffix(said.text)
    return with_thought(opening, said.thought, marks, spelled)


def _after(
    tokenizer: PreTrainedTokenizerBase, prompt: Encoded, length: int, rendered: Rendered
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that follow the prompt in the rendered chat, and their owners. length: of the prompt, in characters.

    Where a token begins in the prompt and ends in the template's own text after it, that text up to the next token is
    tokenised by itself. Raises DataError where that says something else.
    """
    tokens = tokenised(tokenizer, rendered)
    if tokens.ids[: len(prompt)] == prompt.ids:
        return tokens.ids[len(prompt) :], tokens.owners[len(prompt) :]
    ends = [*tokens.starts, len(rendered.text)]
    border = next(place for place, start in enumerate(ends) if start >= length)
    gap, rest = rendered.text[length : ends[border]], tokens.ids[border:]
    if gap and not any(owner != NOBODY for owner in rendered.owners[length : ends[border]]):
        written = tokenizer.decode(list(tokens.ids))
        bridge = tuple(tokenizer(gap, add_special_tokens=False)["input_ids"])
        # Sentencepiece puts a blank of its own before a text.
        for ids in (bridge, bridge[1:]):
            if tokenizer.decode([*prompt.ids, *ids, *rest]) == written:
                return (*ids, *rest), (*[NOBODY] * len(ids), *tokens.owners[border:])
    raise DataError(_prompt_changed(tokenizer, prompt.ids, tokens.ids))


def _end_of_turn(template: Template, after: Sequence[int]) -> tuple[int, ...]:
    """`end_of_turn`; DataError where the turn has none."""
    ending = end_of_turn(template.tokenizer, after)
    if not ending:
        raise DataError(
            "the chat template puts no special token after the answer and tokenizer.eos_token is not set, so the model "
            f"cannot learn to stop. {SUPPLY}"
        )
    return ending


def _check(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> None:
    if tokenizer.chat_template is None:
        raise DataError(
            "the tokenizer has no chat template, so a chat cannot be written as the model expects it. "
            "Supply one with model.chat_template: the path of a Jinja file."
        )
    if not tokenizer.is_fast:
        raise DataError(
            f"the tokenizer ({type(tokenizer).__name__}) gives no character offsets, so what the user wrote cannot be "
            "told from the template. Use a model.name that comes with a tokenizer.json."
        )
    for number, message in enumerate(messages):
        if message.get("role") not in tuple(SEGMENTS):
            raise DataError(
                f"message {number} has the role {message.get('role')!r}; roles are {', '.join(SEGMENTS)}. Correct it."
            )
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"message {number} ({message['role']}) has the content {content!r}; it needs text.")
        unbroken(content, f"message {number} ({message['role']})")
    if not messages or messages[-1]["role"] != "user":
        raise DataError("a prompt must end with a turn of the user. Remove what follows it.")


def _check_assistant_start(template: Template, messages: Sequence[Message], rendered: Rendered) -> None:
    """DataError unless the prompt ends with something that says: now the assistant."""
    last = len(rendered.owners) - 1 - rendered.owners[::-1].index(len(messages) - 1)
    opening = Speech(template.marks).read(template.opening(messages)).text
    # Llama-2 marks the start by closing the user's turn, and add_generation_prompt changes nothing; but where a header
    # stands before the answer and not in the prompt, a model given the prompt would have to write that header itself.
    prompts = (template.skeleton(messages, generation=generation) for generation in (True, False))
    silent = next(prompts) == next(prompts)
    if not rendered.text[last + 1 :].strip() or (silent and opening.strip()):
        raise DataError(
            "the chat template has no assistant marker: with add_generation_prompt it ends the prompt in "
            f"{rendered.text[-40:]!r}, which does not say that the assistant's turn begins. {SUPPLY}"
        )


def _check_round_trip(
    template: Template, messages: Sequence[Message], ids: tuple[int, ...], *, generation: bool
) -> None:
    if template.tokens(messages, generation=generation) != list(ids):
        raise DataError(
            "tokenizer.apply_chat_template(tokenize=True) gives other tokens than tokenising what it writes, so the "
            f"template cannot be told from the texts. Use the tokenizer class that belongs to the model. {SUPPLY}"
        )


def _prompt_changed(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], whole: tuple[int, ...]) -> str:
    place = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
    alone = tokenizer.convert_ids_to_tokens(list(prompt[place:][:4]))
    answered = tokenizer.convert_ids_to_tokens(list(whole[place:][:4]))
    return (
        f"the prompt is tokenised otherwise before its answer: from token {place} on it is {alone} alone and "
        f"{answered} in the answered chat. Let the template's generation prompt end in a special token or before "
        "the blank that precedes the answer, and supply it with model.chat_template: the path of a Jinja file."
    )
