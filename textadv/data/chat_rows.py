"""Chats -> token rows -> batches: a prompt, its answers by name, and what of the prompt an adversary may touch.

A thought in an answer of the data is never a target, nor the beginning of one. In the responses of useful chats it
stands before the answer, where the template has its empty one; in targets and safe answers, which begin where the
template lets answers begin, it is left out.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import Literal, NamedTuple, get_args

import torch
from transformers import PreTrainedTokenizerBase

from textadv.data.chat import Chat
from textadv.data.chat_template import Encoded, Reply, Segment, encode_prompt, encode_reply
from textadv.data.control_tokens import control_ids
from textadv.data.rendering import Template, template_of
from textadv.values.batch import Batch, Role, padded
from textadv.values.digests import digest
from textadv.values.errors import DataError
from textadv.values.host.phases import each

Editable = Literal["user", "suffix", "user_and_template"]

MAIN = {Role.ADVERSARIAL: "safe", Role.UTILITY: "response", Role.BORDERLINE: "response"}
"""The answer that a batch of each stream is composed with."""
THOUGHTFUL = "response"
"""The answer before which a thought of the data stays."""


@dataclass(frozen=True)
class ChatRows:
    """Tokenised chats of one stream, not padded.

    prompts: token ids up to where the assistant starts; segments and editable: of each of those tokens.
    answers: name -> per row the token ids of that answer, end of turn included unless the row was cut.
    openings: name -> per row what the template writes before that answer; where a name is missing, nothing.
    main: the name of the answer that batches are composed with.
    pad_id: stands after a prompt that is shorter than others.
    cut_prompts, cut_answers: how many rows have a prompt, or an answer, that was cut to data.max_length.
    kept_thoughts, left_thoughts: how many answers have a thought that stands before them, or that was left out.
    spelled: per row, the control tokens that its texts and answers spell out; empty: in no row.
    """

    prompts: tuple[tuple[int, ...], ...]
    segments: tuple[tuple[Segment, ...], ...]
    editable: tuple[tuple[bool, ...], ...]
    answers: Mapping[str, tuple[tuple[int, ...], ...]]
    main: str
    ids: tuple[int, ...]
    role: Role
    pad_id: int
    cut_prompts: int = 0
    cut_answers: int = 0
    openings: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    kept_thoughts: int = 0
    left_thoughts: int = 0
    spelled: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Zeros: chats have no class."""
        return (0,) * len(self)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt with the longest of its answers and what stands before it."""
        replies = [
            [len(opening) + len(answer) for opening, answer in zip(self.opening(name), answers, strict=True)]
            for name, answers in self.answers.items()
        ]
        longest = map(max, zip(*replies, strict=True))
        return tuple(len(prompt) + reply for prompt, reply in zip(self.prompts, longest, strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 of all tokens: what the model is given and what it is to say."""
        return digest([json.dumps([self.prompts, dict(self.openings), dict(self.answers)]).encode()])

    def opening(self, answer: str) -> tuple[tuple[int, ...], ...]:
        """What the template writes before each row's answer of that name."""
        return self.openings.get(answer, ((),) * len(self))

    @cached_property
    def pairs(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """Per row what stands before its main answer, the opening included, and that answer."""
        replies = zip(self.prompts, self.opening(self.main), self.answers[self.main], strict=True)
        return tuple(((*prompt, *opening), answer) for prompt, opening, answer in replies)

    @cached_property
    def tokens(self) -> tuple[tuple[int, ...], ...]:
        """The token ids of each row: its prompt, and every answer that it may get with what stands before it."""
        replies = [rows for name, answers in self.answers.items() for rows in (self.opening(name), answers)]
        return tuple(tuple(chain(*row)) for row in zip(self.prompts, *replies, strict=True))

    @property
    def uneditable(self) -> int:
        """How many rows have no editable token; no attack can move them."""
        return sum(not any(row) for row in self.editable)

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, in this order, each followed by its main answer, padded on the right.

        Raises ValueError where `index` is empty.
        """
        if len(index) == 0:
            raise ValueError("A batch needs at least one row, got an empty index.")
        prompts = [self.prompts[i] for i in index]
        ids = padded(prompts, self.pad_id)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        labels = torch.zeros_like(lengths)
        alone = Batch(
            inputs={
                "input_ids": ids,
                "attention_mask": (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(torch.int64),
            },
            labels=labels,
            editable=padded([self.editable[i] for i in index], 0).bool(),
            ids=torch.tensor([self.ids[i] for i in index]),
            role=torch.full_like(labels, int(self.role)),
            answers={name: padded([rows[i] for i in index]) for name, rows in self.answers.items()},
            openings={name: padded([rows[i] for i in index]) for name, rows in self.openings.items()},
            prompt_lengths=lengths,
        )
        return alone.answering(self.main)


def following_rows(first: ChatRows, more: Sequence[ChatRows]) -> ChatRows:
    """The rows of one stream with others of the same stream after them; what was counted is that of `first`."""
    parts = (first, *more)

    def chained(name: str) -> tuple[tuple[int, ...], ...]:
        return tuple(chain.from_iterable(part.opening(name) for part in parts))

    return replace(
        first,
        prompts=tuple(chain.from_iterable(part.prompts for part in parts)),
        segments=tuple(chain.from_iterable(part.segments for part in parts)),
        editable=tuple(chain.from_iterable(part.editable for part in parts)),
        answers={name: tuple(chain.from_iterable(part.answers[name] for part in parts)) for name in first.answers},
        openings={name: chained(name) for name in first.answers} if any(part.openings for part in parts) else {},
        ids=tuple(chain.from_iterable(part.ids for part in parts)),
        spelled=tuple(chain.from_iterable(part.spelled or ((),) * len(part) for part in parts)),
    )


@dataclass(frozen=True)
class JoinedRows:
    """Several streams as one `Rows`: the positions of each part follow those of the part before it.

    Ids are the parts' own, each part's raised beyond those of the part before it, so that none occurs twice.
    """

    parts: tuple[ChatRows, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def ranges(self) -> tuple[range, ...]:
        """The positions of each part, in the order of the parts."""
        ends = list(accumulate(map(len, self.parts)))
        return tuple(range(end - len(part), end) for part, end in zip(self.parts, ends, strict=True))

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Zeros: chats have no class."""
        return (0,) * len(self)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids of all rows."""
        raised = zip(self.parts, self._first_ids, strict=True)
        return tuple(first + own for part, first in raised for own in part.ids)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt with the longest of its answers."""
        return tuple(length for part in self.parts for length in part.lengths)

    @cached_property
    def _first_ids(self) -> tuple[int, ...]:
        spans = [max(part.ids, default=-1) + 1 for part in self.parts]
        return (0, *accumulate(spans[:-1]))

    def batch(self, index: Sequence[int]) -> Batch:
        """The rows at these positions, which must be of one part: parts differ in their answers.

        Raises ValueError where they are not, or where `index` is empty.
        """
        if len(index) == 0:
            raise ValueError("A batch needs at least one row, got an empty index.")
        starts = [positions.start for positions in self.ranges]
        owners = {bisect_right(starts, i) - 1 for i in index}
        if len(owners) > 1 or not 0 <= min(index) <= max(index) < len(self):
            raise ValueError(
                f"The rows of one batch must come from one part, got positions {list(index)}; the parts are "
                f"{', '.join(f'{part.start} to {part.stop - 1}' for part in self.ranges)}."
            )
        owner = owners.pop()
        batch = self.parts[owner].batch([i - starts[owner] for i in index])
        return replace(batch, ids=batch.ids + self._first_ids[owner])


def joined(*parts: ChatRows) -> JoinedRows:
    """The parts as one `Rows`. Raises ValueError where a part is empty."""
    if not parts or not all(map(len, parts)):
        raise ValueError(f"Each part needs at least one row, got parts of {list(map(len, parts))} rows.")
    return JoinedRows(parts)


def encode_chats(
    chats: Sequence[Chat],
    tokenizer: PreTrainedTokenizerBase | Template,
    max_length: int,
    *,
    editable: Editable = "user",
    suffix_slots: int = 0,
    suffix_token: str = " !",
) -> ChatRows:
    """The chats of one stream as tokens, in their order.

    max_length: the most tokens of a prompt with an answer. A row that is longer loses, in this order: the thought that
        stands before its answer; the end of its answers, down to one token; then the end of the text of the user's last
        turn, down to one token. The template and the other turns are never cut, so neither is the assistant start, nor
        are suffix slots.
    editable: "user": the text of every user turn, control tokens that it spells out excepted, and the suffix slots;
        "suffix": the slots alone; "user_and_template": the template's tokens in the prompt too, the beginning-of-text
        token excepted.
    suffix_slots: so many copies of `suffix_token`, which must be one token, follow the text of the user's last turn.

    Raises DataError where a chat does not fit the template (see `encode_prompt`), where a harmful target would not fit
    into max_length beside the shortest prompt (it alone is what the adversary aims at), where the template and the
    other turns leave no room for one token of text and one of an answer, or where the slots cannot be made.
    """
    if not chats or len({chat.role for chat in chats}) > 1:
        raise ValueError(f"Chats of one stream are needed, got {sorted({chat.role.name for chat in chats})}.")
    template = template_of(tokenizer)
    tokenizer = template.tokenizer
    slots = _slots(tokenizer, editable, suffix_slots, suffix_token)
    rows = []
    for chat in each("encoding chats", chats, len(chats)):
        try:
            rows.append(_row(chat, template, max_length, slots))
        except DataError as error:
            raise DataError(f"{chat.place}: {error}") from error
    control = control_ids(tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return ChatRows(
        prompts=tuple(row.prompt.ids for row in rows),
        segments=tuple(row.prompt.segments for row in rows),
        editable=tuple(_editable(row, editable, control, tokenizer.bos_token_id) for row in rows),
        answers={name: tuple(row.replies[name].answer for row in rows) for name in chats[0].answers},
        openings={name: tuple(row.replies[name].opening for row in rows) for name in chats[0].answers},
        main=MAIN[chats[0].role],
        ids=tuple(chat.id for chat in chats),
        role=chats[0].role,
        pad_id=0 if pad is None else pad,
        cut_prompts=sum(row.cut_prompt for row in rows),
        cut_answers=sum(row.cut_answer for row in rows),
        kept_thoughts=sum(row.kept_thoughts for row in rows),
        left_thoughts=sum(row.left_thoughts for row in rows),
        spelled=tuple(_spelled(row, control) for row in rows),
    )


class _Row(NamedTuple):
    prompt: Encoded
    slots: range
    replies: dict[str, Reply]
    cut_prompt: bool
    cut_answer: bool
    kept_thoughts: int
    left_thoughts: int


def _slots(tokenizer: PreTrainedTokenizerBase, editable: str, count: int, token: str) -> tuple[int, ...]:
    if editable not in get_args(Editable):
        raise DataError(f"data.editable must be one of {', '.join(get_args(Editable))}, got {editable!r}.")
    if count < 0 or (editable == "suffix" and count == 0):
        least = 1 if editable == "suffix" else 0
        raise DataError(
            f"data.suffix_slots must be at least {least} with data.editable: {editable}, got {count}. "
            "To let the adversary edit the user's text set data.editable: user."
        )
    if count == 0:
        return ()
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    # Sentencepiece may write the blank before a word as a token of its own.
    ids = [i for i in ids if str(tokenizer.decode([i])).strip()] or ids
    if len(ids) != 1 or ids[0] in control_ids(tokenizer) | {tokenizer.unk_token_id}:
        raise DataError(
            f"data.suffix_token must be one ordinary token, got {token!r}, which is "
            f"{tokenizer.convert_ids_to_tokens(ids)}. Choose a word or sign that the tokenizer has as one token."
        )
    return (ids[0],) * count


def _row(chat: Chat, template: Template, max_length: int, slots: tuple[int, ...]) -> _Row:
    prompt = encode_prompt(template, chat.messages)
    replies, thoughts = _replies(chat, template, prompt, max_length - len(prompt) - len(slots))
    text = _last_user_text(prompt)
    fixed = len(prompt) - len(text) + len(slots) + max(len(reply.opening) for reply in replies.values())
    if fixed + 2 > max_length:
        raise DataError(
            f"the template, the other turns and the suffix slots take {fixed} tokens, so data.max_length: {max_length} "
            f"leaves no room for the user's text and an answer. Set it to at least {fixed + 2}, or remove the row."
        )
    target = replies["harmful"].answer if "harmful" in replies else ()
    if fixed + 1 + len(target) > max_length:
        raise DataError(
            f"the target has {len(target)} tokens and the prompt at least {fixed + 1}, more than "
            f"data.max_length: {max_length}. Raise it (up to the context of the model), or shorten the target."
        )
    kept = min(len(text), max_length - fixed - 1)
    room = max_length - fixed - kept
    cut = {name: reply._replace(answer=reply.answer[:room]) for name, reply in replies.items()}
    after = text.start + kept
    return _Row(
        prompt=Encoded(
            (*prompt.ids[:after], *slots, *prompt.ids[text.stop :]),
            (*prompt.segments[:after], *(Segment.USER for _ in slots), *prompt.segments[text.stop :]),
        ),
        slots=range(after, after + len(slots)),
        replies=cut,
        cut_prompt=kept < len(text),
        cut_answer=cut != replies,
        kept_thoughts=thoughts,
        left_thoughts=sum(template.split(answer).thought != "" for answer in chat.answers.values()) - thoughts,
    )


def _replies(chat: Chat, template: Template, prompt: Encoded, room: int) -> tuple[dict[str, Reply], int]:
    """The chat's answers by name, and how many stand after a thought; room: the most tokens that both may have."""
    replies, thoughts = {}, 0
    for name, answer in chat.answers.items():
        replies[name] = encode_reply(template, chat.messages, prompt, answer, thoughts=False)
        if name == THOUGHTFUL and template.split(answer).thought:
            thoughtful = encode_reply(template, chat.messages, prompt, answer)
            if thoughtful != replies[name] and len(thoughtful.opening) + len(thoughtful.answer) <= room:
                replies[name], thoughts = thoughtful, thoughts + 1
    return replies, thoughts


def _spelled(row: _Row, control: frozenset[int]) -> tuple[int, ...]:
    """The control tokens that a text of the row spells; the last token of an answer is the template's."""
    prompt = zip(row.prompt.ids, row.prompt.segments, strict=True)
    written = [token for token, segment in prompt if segment is not Segment.TEMPLATE]
    said = chain(*(reply.answer[:-1] for reply in row.replies.values()))
    return tuple(token for token in (*written, *said) if token in control)


def _last_user_text(prompt: Encoded) -> range:
    """The positions of the text of the last user turn."""
    if Segment.USER not in prompt.segments:
        raise DataError("the tokenizer has no token for the user's text. Correct it.")
    end = len(prompt) - prompt.segments[::-1].index(Segment.USER)
    start = end
    while start > 0 and prompt.segments[start - 1] is Segment.USER:
        start -= 1
    return range(start, end)


def _editable(row: _Row, editable: str, control: frozenset[int], bos: int | None) -> tuple[bool, ...]:
    def touched(place: int, token: int, segment: Segment) -> bool:
        if editable == "suffix" or place in row.slots:
            return place in row.slots
        if segment is Segment.USER:
            return token not in control
        return editable == "user_and_template" and segment is Segment.TEMPLATE and token != bos

    pairs = zip(row.prompt.ids, row.prompt.segments, strict=True)
    return tuple(touched(place, token, segment) for place, (token, segment) in enumerate(pairs))
