"""What a model is asked and how it is answered: by what an answer is known again, and what it takes at most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from textadv.data.thoughts import Decoder, Speech
from textadv.models.decoding import EndNaming, context_length
from textadv.values.digests import tensor_bytes
from textadv.values.flops import Flops
from textadv.values.randomness import derived_seed
from textadv.values.spaces import Space


class Tokenizer(Decoder, EndNaming, Protocol):
    """What is read of a tokenizer."""

    @property
    def pad_token_id(self) -> int | None: ...


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    max_new_tokens: per answer. temperature: 0 takes the most likely token. samples: answers per prompt. seed: of what
    is drawn, see `draw_seed`. batch_size: rows at a time; it changes no answer.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "samples", "batch_size"):
            if vars(self)[name] < 1:
                raise ValueError(f"decoding.{name} must be at least 1, got {vars(self)[name]}.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"decoding.temperature must be 0 or more and finite, got {self.temperature}.")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"decoding.samples: {self.samples} at temperature 0 would give one answer {self.samples} times. Set "
                "decoding.temperature above 0, or decoding.samples: 1."
            )


@dataclass(frozen=True, eq=False)
class Prompt:
    """One row to be answered.

    id: the row's own, unique among the prompts. ids: the tokens up to where the assistant starts. prefill: tokens of
        the answer that are put into the assistant's mouth, after opening: what the chat template writes before answers.
    delta: what is added to the prompt in `space`: (S, D), or (N, S, D) for N places; S is len(ids).
    origin: a text that, with tokens and weights, determines the delta; it then stands for the delta in the content
        key, so that an answer is found again before the delta is searched for.
    forwards, backwards: passes of this row through the model that finding the delta took.
    search: what the search for the delta aimed at, in words; goes into the answer.
    sent: the messages whose tokens these are, where an attack in text wrote others than were asked; forward_tokens,
        backward_tokens: what finding them sent through, None where it is not known. All go into the answer.
    failed: why there is nothing to be answered: the answer is then an error that says so.
    flops: what the search took; None where nobody counted it, which counts as 0 only where it took no pass.
    searched: names the search that found what was sent, so that one that others are told of as well is known again.
    reached: whether the search got where it aimed, by its own measure (see `Answer`); None where it does not say.
    """

    id: int
    ids: tuple[int, ...]
    prefill: tuple[int, ...] = ()
    delta: Tensor | None = None
    space: Space | None = None
    origin: str = ""
    forwards: int = 0
    backwards: int = 0
    opening: tuple[int, ...] = ()
    search: str = ""
    sent: tuple[Mapping[str, str], ...] = ()
    forward_tokens: int | None = None
    backward_tokens: int | None = None
    failed: str = ""
    flops: Flops | None = None
    reached: bool | None = None
    searched: str = ""

    def __post_init__(self) -> None:
        if (self.delta is None) != (self.space is None):
            raise ValueError("A prompt has both a delta and its space, or neither.")
        if self.delta is not None and self.delta.shape[-2] != len(self.ids):
            raise ValueError(
                f"The delta of prompt {self.id} has {self.delta.shape[-2]} positions and the prompt {len(self.ids)}."
            )


PLAIN = Speech()
Prepare = Callable[[Sequence[Prompt]], Sequence[Prompt]]


def content_key(
    prompt: Prompt, sample: int, decoding: Decoding, ends: Sequence[int], key: str = "", speech: Speech = PLAIN
) -> str:
    """A hash of all that an answer follows from; `key` stands for the weights. The batch size is no part of it."""
    how: dict[str, object] = {"max_new_tokens": decoding.max_new_tokens, "temperature": decoding.temperature}
    if decoding.temperature > 0:
        how |= {"seed": decoding.seed, "sample": sample, "draws": "of the prompt"}
    what: dict[str, object] = {"id": prompt.id, "ids": prompt.ids, "prefill": prompt.prefill, "ends": sorted(ends)}
    what |= {"opening": prompt.opening} if prompt.opening else {}
    what |= {"marks": speech.marks, "lead": speech.lead} if speech != PLAIN else {}
    digest = hashlib.blake2b(json.dumps([key, how, what, prompt.origin]).encode(), digest_size=16)
    digest.update(_delta_bytes(prompt))
    return digest.hexdigest()


def draw_seed(prompt: Prompt, sample: int, seed: int) -> int:
    """The seed of one of the prompt's samples: a function of (seed, row id, what the model reads, sample).

    Answers to two prompts are drawn apart, whatever they have in common, and those to one prompt alike, whoever asks.
    """
    read = hashlib.blake2b(json.dumps([prompt.ids, prompt.opening, prompt.prefill, prompt.origin]).encode())
    read.update(_delta_bytes(prompt))
    return derived_seed(seed, prompt.id, int.from_bytes(read.digest()[:8], "little", signed=True), sample)


def _delta_bytes(prompt: Prompt) -> bytes:
    """The perturbation, where no origin says what it follows from."""
    if prompt.delta is None or prompt.origin:
        return b""
    delta = prompt.delta.detach().cpu().contiguous()
    kind = f"{prompt.space!r} {delta.dtype} {tuple(delta.shape)}".encode()
    return kind + tensor_bytes(delta)


def tokens_read(prompt: Prompt) -> list[int]:
    """What the model reads before it writes."""
    return [*prompt.ids, *prompt.opening, *prompt.prefill]


def most_flops(model: nn.Module, parameters: int, given: int, max_new_tokens: int) -> int:
    """What an answer takes at most, in floating-point operations; `given` tokens are read before it."""
    limit = context_length(model)
    room = max_new_tokens if limit is None else max(min(max_new_tokens, limit - given), 1)
    most = Flops.of(parameters, forward=tokens_sent(given, room)).total
    assert most is not None
    return most


def tokens_sent(given: int, written: int) -> int:
    """Tokens that go through the model: what it reads, and what it writes but for the last of it."""
    return given + written - 1
