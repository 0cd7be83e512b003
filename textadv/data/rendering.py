"""A tokenizer's chat template as a run uses it: with its variables, its errors, and what it writes before an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from textadv.data.characters import Surrogates, unbroken
from textadv.data.control_tokens import end_of_turn
from textadv.data.encoding import reading_of
from textadv.data.guarded import TemplateError, rendered
from textadv.data.thoughts import KNOWN, Marks, Said, Speech, between, empty_thought, marks_of_text, thinks
from textadv.values.digests import digest
from textadv.values.errors import DataError

Message = Mapping[str, str]
"""One turn: `role` (system, user or assistant) and `content`."""

SUPPLY = "Supply another template with model.chat_template: the path of a Jinja file."
# Between them every part of a date and of a time of day changes.
_LATER = (timedelta(days=400, hours=12), timedelta(days=33, hours=1, minutes=7, seconds=11))
_PLACEHOLDER = re.compile(r"(textadv\d+content)")


def one_turn(text: str) -> list[Message]:
    """A chat of which this is the user's first message."""
    return [{"role": "user", "content": text}]


@dataclass(frozen=True, eq=False)
class Template:
    """The chat template of a tokenizer, in the place of the tokenizer wherever chats are written.

    variables: what the template gets besides the messages. think: the marks of a thought where they are given; None:
    they are looked for. name: what errors call the template. surrogates: half characters that it writes are an error,
    or U+FFFD is put in their place.
    """

    tokenizer: PreTrainedTokenizerBase
    variables: Mapping[str, Any] = field(default_factory=dict)
    think: Marks | None = None
    name: str = "the chat template"
    surrogates: Surrogates = "error"

    def render(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The chat as one string; generation: up to where the assistant starts. Raises DataError where it cannot."""
        return self._written(messages, generation)

    def tokens(self, messages: Sequence[Message], *, generation: bool) -> list[int]:
        """The token ids that `apply_chat_template` itself gives. Raises DataError where it cannot."""
        if self._own_way:
            return list(self._applied(messages, generation, tokenize=True))
        text = self._written(messages, generation)
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def _own_way(self) -> bool:
        """Whether the tokenizer writes chats by code of its own, in the place of a template."""
        apply = getattr(self.tokenizer.apply_chat_template, "__func__", None)
        return apply is not PreTrainedTokenizerBase.apply_chat_template

    def _written(self, messages: Sequence[Message], generation: bool) -> str:
        """The chat as `apply_chat_template` writes it, in a process of its own: see `guarded`."""
        if self._own_way:
            return str(self._applied(messages, generation, tokenize=False))
        # What apply_chat_template gives a template, at the time that it would read.
        values = {**self.tokenizer.special_tokens_map, **self.variables, "messages": list(map(dict, messages))}
        values |= {"tools": None, "documents": None, "add_generation_prompt": generation}
        with self._naming(messages):
            template = self.tokenizer.get_chat_template()
            text = rendered(template, values, chat_template_utils.datetime.now())
        return unbroken(text, f"{self.name} writes what", self.surrogates)

    def _applied(self, messages: Sequence[Message], generation: bool, *, tokenize: bool) -> Any:
        chat = [dict(message) for message in messages]
        with self._naming(messages):
            return self.tokenizer.apply_chat_template(
                chat, add_generation_prompt=generation, tokenize=tokenize, return_dict=False, **self.variables
            )

    @contextmanager
    def _naming(self, messages: Sequence[Message]) -> Iterator[None]:
        """Inside the block whatever is raised is the template's fault, and names it."""
        try:
            yield
        except Exception as error:  # a template is a program, so it can raise anything
            plain = isinstance(error, (jinja2.TemplateError, TemplateError))
            why = f"{error}" if plain else f"{type(error).__name__}: {error}"
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"{self.name} refuses a chat of the turns {roles}: {why.rstrip('.')}. Change the turns, or the "
                "template: model.chat_template, the path of a Jinja file."
            ) from error

    @property
    def reading(self) -> str:
        """A hash of all by which chats become tokens, and tokens words: tokenizer, template, variables and marks."""
        own = self.tokenizer
        words = [own.special_tokens_map, bool(getattr(own, "clean_up_tokenization_spaces", False))]
        written = [own.chat_template, dict(self.variables), self.think]
        return digest([json.dumps([*reading_of(own), *words, *written], default=str).encode()])

    def skeleton(self, messages: Sequence[Message], *, generation: bool) -> list[str]:
        """The template's own text in pieces, with a placeholder between them (at each odd place) for each content."""
        empty = [{"role": message["role"], "content": f"textadv{i}content"} for i, message in enumerate(messages)]
        return _PLACEHOLDER.split(self.render(empty, generation=generation))

    def opening(self, messages: Sequence[Message]) -> str:
        """What the template writes between the prompt and the answer to it: an empty thought, a blank, often nothing.

        messages: the turns before the answer. Raises DataError where it leaves out the answer, or writes the prompt of
        an answered chat otherwise than the prompt alone.
        """
        prompt, before = self._parts(messages)
        return self.between(prompt, before)

    def between(self, prompt: str, before: str) -> str:
        """`thoughts.between` with this template's marks; DataError where the two texts do not fit together."""
        opening = between(prompt, before, self.marks)
        if opening is None:
            raise DataError(
                f"the chat template writes the prompt of an answered chat otherwise (it ends in {before[-40:]!r}) than "
                f"the prompt alone (which ends in {prompt[-40:]!r}). If the prompt begins a thought there, name its "
                f"marks with model.think: [start, end]. {SUPPLY}"
            )
        return opening

    def _parts(self, messages: Sequence[Message]) -> tuple[str, str]:
        """The prompt, and an answered chat up to the answer, each content a placeholder."""
        prompt = "".join(self.skeleton(messages, generation=True))
        pieces, answer = self._answered(messages)
        return prompt, "".join(pieces[:answer])

    def _answered(self, messages: Sequence[Message]) -> tuple[list[str], int]:
        """The pieces of an answered chat, see `skeleton`, and which of them is the answer."""
        pieces = self.skeleton([*messages, {"role": "assistant", "content": ""}], generation=False)
        answer = f"textadv{len(messages)}content"
        if answer not in pieces:
            raise DataError(f"the chat template leaves out the assistant's answer. {SUPPLY}")
        return pieces, pieces.index(answer)

    @cached_property
    def _asked(self) -> tuple[str, str]:
        """The prompt and the answered chat of a single question; of a template that refuses one, nothing."""
        try:
            return self._parts(one_turn("textadv"))
        except DataError:
            return "", ""

    @cached_property
    def marks(self) -> Marks | None:
        """The marks of a thought: those given, those of an empty thought before answers, or known ones that the prompt
        ends with, the template names or the tokenizer has tokens for; None where there are none."""
        if self.think is not None:
            return self.think
        prompt, before = self._asked
        written = empty_thought(before[len(prompt) :]) if before.startswith(prompt) else None
        source = str(self.tokenizer.chat_template)
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values()}
        begun = (marks for marks in KNOWN if thinks(prompt, marks))
        named = (marks for marks in KNOWN if marks.start in source or marks.end in source or {*marks} <= added)
        return written or next(begun, None) or next(named, None)

    @cached_property
    def _closing(self) -> tuple[int, ...]:
        """The tokens that follow the answer to a single question, to its end of turn; none of a template that refuses
        one, nor without offsets."""
        if not self.tokenizer.is_fast:
            return ()
        try:
            pieces, answer = self._answered(one_turn("textadv"))
        except DataError:
            return ()
        stop = len("".join(pieces[: answer + 1]))
        encoded = self.tokenizer("".join(pieces), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return end_of_turn(self.tokenizer, [token for token, (start, _) in pairs if start >= stop])

    @cached_property
    def speech(self) -> Speech:
        """How what the model writes after a prompt is read."""
        opening = between(*self._asked, self.marks) or ""
        lead = Speech(self.marks).read(opening).text.strip()
        special = {n: token.content for n, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        shown = {n for n, content in special.items() if content in "".join((*(self.marks or ()), lead))}
        return Speech(self.marks, lead, frozenset(special) - shown if shown else None, self._closing)

    def split(self, answer: str) -> Said:
        """An answer as data have it, its thoughts apart; a thought that it begins with may have any known marks."""
        return Speech(marks_of_text(answer, self.marks)).read(answer)


def template_of(tokenizer: PreTrainedTokenizerBase | Template) -> Template:
    """The tokenizer's chat template as it stands, unless it is one already."""
    return tokenizer if isinstance(tokenizer, Template) else Template(tokenizer)


def varying(template: Template, messages: Sequence[Message]) -> str:
    """The first line of the prompt that the template writes otherwise at another time; "" where it does not."""
    now = template.render(messages, generation=True)
    # Where it draws at random, it need not be another time.
    others = (_rendered_later(template, messages, later) for later in (timedelta(), *_LATER))
    other = next((text for text in others if text != now), now)
    pairs = zip_longest(now.splitlines(), other.splitlines(), fillvalue="")
    return next((line for line, moved in pairs if line != moved), "")


def _rendered_later(template: Template, messages: Sequence[Message], later: timedelta) -> str:
    with _clock_moved(later):
        try:
            return template.render(messages, generation=True)
        except DataError:
            return ""


@contextmanager
def _clock_moved(later: timedelta) -> Iterator[None]:
    """Inside the block templates read a clock that is ahead: transformers gives them its own module's `datetime`."""
    clock = chat_template_utils.datetime
    moved = SimpleNamespace(now=lambda: clock.now() + later)
    chat_template_utils.datetime = moved  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        chat_template_utils.datetime = clock  # type: ignore[misc]
