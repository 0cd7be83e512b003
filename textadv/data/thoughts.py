"""Thoughts: what a reasoning model writes before its answer, the marks that they stand between, texts read apart.

A text holds thoughts from each start mark to the next end mark; an end mark without a start ends a thought that began
with the text, as in the templates that drop the thoughts of earlier turns. What stands outside of thoughts is the
answer. Once that has begun, a start mark without an end is a word of it, so that nothing said is taken for a thought.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Decoder(Protocol):
    """What is read of a tokenizer."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = ...) -> str | list[str]: ...


class Marks(NamedTuple):
    """What a thought begins and ends with, as text."""

    start: str
    end: str


# In the order in which they are looked for.
KNOWN = (
    Marks("<think>", "</think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    Marks("<|channel>thought", "<channel|>"),
)
REASONING = ("reasoning_content", "thinking", "reasoning")
_TAGS = re.compile(r"([<\[◁]\S+?[>\]▷])\s*([<\[◁]\S+?[>\]▷])")
_CLOSING = re.compile(r"/|end", re.IGNORECASE)


class Said(NamedTuple):
    """A text read apart. ended: whether every thought in it ended."""

    thought: str
    text: str
    ended: bool


@dataclass(frozen=True)
class Speech:
    """How what a model writes is read.

    marks: what its thoughts stand between; None: it writes none.
    lead: what else its template writes between prompt and answer, without outer blanks; an answer that begins with it
        begins as the template's do.
    hidden: ids of the special tokens that no text shows; None: all of them, for marks and lead are made of others.
    closing: ids of what its template writes after an answer, the token that ends the turn last; it is no part of how a
        text is read, and two that differ in it alone are equal.
    """

    marks: Marks | None = None
    lead: str = ""
    hidden: frozenset[int] | None = None
    closing: tuple[int, ...] = field(default=(), compare=False)

    @property
    def ends(self) -> frozenset[int]:
        """The id of the token that ends a turn of the template's, which need not be the tokenizer's end token."""
        return frozenset(self.closing[-1:])

    def unclosed(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The tokens of an answer without what the template writes after it."""
        cut = len(ids) - len(self.closing)
        return tuple(ids[:cut] if cut >= 0 and tuple(ids[cut:]) == self.closing else ids)

    def said(
        self, tokenizer: Decoder, given: Sequence[int], written: Sequence[int], *, ended: bool, begun: bool = False
    ) -> Said:
        """What the model wrote after a prompt, read apart.

        given: the tokens that it read. written: those that stand after them, the one that ended its turn left out.
        ended: whether one did. begun: as in `read`.

        Where the prompt begins a thought and the model ends its turn without ending that, it has answered at once.
        """
        text = self.decoded(tokenizer, written)
        thinking = self.marks is not None and not begun and thinks(self.decoded(tokenizer, given), self.marks)
        said = self.read(text, thinking=thinking, begun=begun)
        return self.read(text) if thinking and ended and said == Said(text.strip(), "", ended=False) else said

    def decoded(self, tokenizer: Decoder, ids: Sequence[int]) -> str:
        """The tokens as text, special ones left out but for those that marks and lead are made of."""
        if self.hidden is None:
            return str(tokenizer.decode(list(ids), skip_special_tokens=True))
        return str(tokenizer.decode([token for token in ids if token not in self.hidden], skip_special_tokens=False))

    def read(self, text: str, *, thinking: bool = False, begun: bool = False) -> Said:
        """The thoughts in the text, a blank line between them, and the rest.

        thinking: the text goes on with a thought that the prompt began. begun: the text begins with words of the answer
        that were put into the model's mouth; an end mark without a start is then a word like any other.
        """
        thoughts, spoken, inside = [""], [""], thinking
        for piece in self._pieces(text):
            if self.marks is not None and piece == self.marks.start and not inside:
                inside = True
                thoughts.append("")
            elif self.marks is not None and piece == self.marks.end and (inside or not begun):
                if not inside:
                    thoughts.append("".join(spoken))
                    spoken = [""]
                inside = False
            else:
                (thoughts if inside else spoken)[-1] += piece
        if inside and self.marks is not None and (begun or spoken[-1].strip()):
            spoken[-1] += self.marks.start + thoughts.pop()
            inside = False
        told = "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
        said = "".join(spoken)
        marked = thinking or len(thoughts) > 1
        return Said(told, said if begun else self._without_lead(said, marked), not inside)

    def _pieces(self, text: str) -> list[str]:
        if self.marks is None:
            return [text]
        longest_first = sorted(self.marks, key=len, reverse=True)
        return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)

    def _without_lead(self, said: str, marked: bool) -> str:
        text = said.lstrip()
        if self.lead and text.startswith(self.lead):
            return text[len(self.lead) :].lstrip()
        return text if marked else said


def marks_of_text(text: str, marks: Marks | None) -> Marks | None:
    """The marks of a thought that the text begins with, the model's own or known ones; its own where it begins with
    none, for an end mark may stand alone."""
    pairs = (pair for pair in (marks, *KNOWN) if pair is not None)
    return next((pair for pair in pairs if text.lstrip().startswith(pair.start) and pair.end in text), marks)


def spelled(message: Mapping[str, Any], content: str) -> str:
    """The content of a message after the thought that it holds under a name of its own, as servers give it."""
    found = (message.get(name) for name in REASONING)
    thought = next((value for value in found if isinstance(value, str) and value.strip()), None)
    start, end = KNOWN[0]
    return content if thought is None else f"{start}\n{thought.strip()}\n{end}\n\n{content}"


def empty_thought(text: str) -> Marks | None:
    """The tags of an empty thought such as `<think></think>` in the text, whatever its word is."""
    for first, second in _TAGS.findall(text):
        if _CLOSING.search(second) and not _CLOSING.search(first):
            return Marks(first, second)
    return None


def between(prompt: str, before: str, marks: Marks | None) -> str | None:
    """What a template writes between a prompt and the answer to it; None where the two texts do not fit together.

    prompt: with the generation prompt. before: an answered chat up to the answer.

    A generation prompt may end in a thought, begun or empty, that the answered chat lacks. One that was begun is then
    closed as the answered chat closes it, or, where it does not, by the end mark with the blanks that stand after the
    start mark before it and twice after it: `<think>\\n` by `\\n</think>\\n\\n`.
    """
    if before.startswith(prompt):
        return before[len(prompt) :]
    found = None if marks is None else _ending_thought(prompt, marks)
    if marks is None or found is None:
        return None
    head, blank, closed = found
    head = head if before.startswith(head) else head.rstrip()
    if not before.startswith(head):
        return None
    rest = before[len(head) :]
    own = rest.lstrip().removeprefix(marks.start)
    if own.lstrip().startswith(marks.end):
        return own.lstrip().removeprefix(marks.end).lstrip() if closed else own
    return rest if closed else f"{blank}{marks.end}{2 * blank}{rest}"


def _ending_thought(prompt: str, marks: Marks) -> tuple[str, str, bool] | None:
    """Of a prompt that ends in a thought without words: what stands before it, the blanks in it, whether it ended."""
    pattern = rf"(.*){re.escape(marks.start)}(\s*)({re.escape(marks.end)}\s*)?"
    found = re.fullmatch(pattern, prompt, flags=re.DOTALL)
    return None if found is None else (found[1], found[2], found[3] is not None)


def thinks(prompt: str, marks: Marks | None) -> bool:
    """Whether the prompt ends in a thought that was begun."""
    return marks is not None and prompt.rstrip().endswith(marks.start)


def with_thought(opening: str, thought: str, marks: Marks, spelled: str) -> str:
    """The opening with a thought in the place of the empty one, or, where it has none, with `spelled` before its words.

    spelled: the thought with marks and blanks.
    """
    start, end = map(re.escape, marks)
    block = re.search(rf"({start})?(\s*){end}", opening)
    if block is not None:
        # As many blanks before the thought as after it, where both of its marks are here.
        cut = block.start(2) + ((len(block[2]) + 1) // 2 if block[1] else 0)
        return opening[:cut] + thought + opening[cut:]
    if not opening.strip():
        return opening + spelled
    # Of some models the end mark is what their template writes before answers.
    return spelled if marks.end.endswith(opening.strip()) else spelled + opening
