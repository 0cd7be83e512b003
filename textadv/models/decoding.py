"""Generating tokens from a causal language model: batched, cached, greedy or sampled, from perturbed prompts or not.

A loop of its own rather than `model.generate`: each row samples from a stream of its own, so that no result depends
on the batch, and a perturbation is added while the prompt is read, in the way `forward` adds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import Cache

from textadv.data.thoughts import Speech
from textadv.models.finite import overflow
from textadv.models.long_positions import short_positions
from textadv.models.places import bare, device_of, embedding_table, pretrained
from textadv.models.running import _added, evaluating
from textadv.values.batch import Perturbation
from textadv.values.errors import GenerationError
from textadv.values.spaces import Space


class EndNaming(Protocol):
    """What `end_ids` reads of a tokenizer."""

    @property
    def eos_token_id(self) -> int | None: ...


def end_ids(model: nn.Module, tokenizer: EndNaming, speech: Speech) -> tuple[int, ...]:
    """The tokens that end an answer, ascending: those of the model's generation settings, the tokenizer's own, and the
    one that ends the turns of the chat template. Whatever generates answers asks for them here."""
    settings = pretrained(model).generation_config
    named = None if settings is None else settings.eos_token_id
    found = {named, tokenizer.eos_token_id} if isinstance(named, int | None) else {*named, tokenizer.eos_token_id}
    return tuple(sorted(speech.ends.union(token for token in found if token is not None)))


def context_length(model: nn.Module) -> int | None:
    """The most positions the model was made for; None where its configuration names no limit."""
    try:
        return int(pretrained(model).config.get_text_config().max_position_embeddings)
    except AttributeError:
        return None


@dataclass
class _Decoding:
    """The rows still being continued: their numbers, last tokens' logits, cache, mask and next positions."""

    rows: list[int]
    logits: Tensor
    cache: Cache
    mask: Tensor
    positions: Tensor

    def keep(self, going: Sequence[int]) -> None:
        """Drops all rows but those at these places."""
        if len(going) == len(self.rows):
            return
        index = torch.tensor(going, device=self.mask.device)
        self.rows = [self.rows[place] for place in going]
        # Unlike `batch_select_indices`, also the states of convolutions and recurrences.
        self.cache.reorder_cache(cast(torch.LongTensor, index))
        self.mask, self.positions = self.mask[index], self.positions[index]

    def advance(self, model: nn.Module, tokens: Sequence[int]) -> None:
        """Reads one more token of each row."""
        ids = torch.tensor(tokens, device=self.mask.device).unsqueeze(1)
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        self.positions = self.positions + 1
        output = bare(model)(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.positions.unsqueeze(1),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits, self.cache = output.logits[:, -1], output.past_key_values


@torch.no_grad()
def generate_tokens(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_ids: Iterable[int],
    pad_id: int,
    temperature: float = 0.0,
    generators: Sequence[torch.Generator] | None = None,
    delta: Tensor | None = None,
    space: Space | None = None,
) -> list[list[int]]:
    """The tokens that the model adds to each prompt, the ending token included where one came; in evaluation mode.

    A row ends with one of `end_ids`, after `max_new_tokens` tokens, or where the model's positions are used up. What
    a row gets does not depend on the rows beside it, but for rounding. Under LongRoPE a row that grows too long for the
    short factors is read anew with the long ones and goes on from there, as transformers' own Phi-3 does.

    temperature: 0 takes the most likely token; above 0 the logits are divided by it and one number per token is drawn
        from the row's generator (on the CPU).
    delta: (B, S, D), or (B, N, S, D) for several places: added in `space` while the prompt is read. Row i's first
        token is at index 0, as in training; what lies beyond a row's prompt must be zero.

    Raises GenerationError on an empty prompt, one that leaves no room for an answer, a token that the model does not
    know, a delta that reaches beyond its prompt, and logits that are not finite.
    """
    if temperature > 0 and (generators is None or len(generators) != len(prompts)):
        raise ValueError(f"A temperature of {temperature} needs one generator for each of {len(prompts)} prompts.")
    if not prompts:
        return []
    room = _room(model, prompts, max_new_tokens)
    answers = _Answers(model, prompts, frozenset(end_ids), pad_id, temperature, generators, delta, space)
    most = short_positions(model)
    with evaluating(model):
        if most is not None:
            answers.go_on([min(given, most + 1 - len(prompt)) for given, prompt in zip(room, prompts, strict=True)])
        answers.go_on(room)
    return answers.tokens


@dataclass
class _Answers:
    """What is generated after each prompt; the fields are the arguments of `generate_tokens`."""

    model: nn.Module
    prompts: Sequence[Sequence[int]]
    ends: frozenset[int]
    pad_id: int
    temperature: float
    generators: Sequence[torch.Generator] | None
    delta: Tensor | None
    space: Space | None
    tokens: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in self.prompts]

    def _goes_on(self, row: int, room: Sequence[int]) -> bool:
        said = self.tokens[row]
        return len(said) < room[row] and not (said and said[-1] in self.ends)

    def go_on(self, room: Sequence[int]) -> None:
        """Reads every row that has not ended and has fewer tokens than its room, and generates up to that."""
        rows = [row for row in range(len(self.prompts)) if self._goes_on(row, room)]
        if not rows:
            return
        given = [[*self.prompts[row], *self.tokens[row]] for row in rows]
        delta = self.delta if self.delta is None or len(rows) == len(self.prompts) else self.delta[rows]
        state = _read(self.model, rows, given, self.pad_id, delta, self.space)
        while True:
            streams = [self.generators[row] for row in state.rows] if self.generators is not None else []
            _require_finite(self.model, state)
            chosen = _choose(state, self.temperature, streams)
            for row, token in zip(state.rows, chosen, strict=True):
                self.tokens[row].append(token)
            going = [place for place, row in enumerate(state.rows) if self._goes_on(row, room)]
            if not going:
                return
            state.keep(going)
            state.advance(self.model, [chosen[place] for place in going])


def _room(model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
    """How many tokens each row may get. Raises GenerationError where a row has none, or cannot be read."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
    size = embedding_table(model).shape[0]
    limit = context_length(model)
    room = []
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise GenerationError(f"Prompt {row} has no token. A chat template gives even an empty request some.")
        if not 0 <= min(prompt) <= max(prompt) < size:
            raise GenerationError(
                f"Prompt {row} has token ids from {min(prompt)} to {max(prompt)}, and the model knows 0 to {size - 1}: "
                "the tokenizer is another model's."
            )
        if limit is not None and len(prompt) >= limit:
            raise GenerationError(
                f"Prompt {row} has {len(prompt)} tokens, which leaves no room in the model's {limit} positions. "
                "Shorten the prompt."
            )
        room.append(max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt)))
    return room


def _read(
    model: nn.Module,
    rows: Sequence[int],
    prompts: Sequence[Sequence[int]],
    pad_id: int,
    delta: Tensor | None,
    space: Space | None,
) -> _Decoding:
    """One pass over the prompts of these rows, padded on the left so that all end together."""
    device = device_of(bare(model))
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    mask = (torch.arange(width, device=device) >= (width - lengths).unsqueeze(1)).long()
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    with _moved(model, delta, space, lengths, width):
        output = bare(model)(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
    return _Decoding(list(rows), output.logits[:, -1], output.past_key_values, mask, positions[:, -1])


def _moved(
    model: nn.Module, delta: Tensor | None, space: Space | None, lengths: Tensor, width: int
) -> AbstractContextManager[None]:
    if delta is None:
        return nullcontext()
    if space is None or not space.per_position:
        raise ValueError(f"A delta needs the space it is added in, which has positions, got {space}.")
    return _added(model, Perturbation(space, _left_aligned(delta.to(lengths.device), lengths, width)))


def _left_aligned(delta: Tensor, lengths: Tensor, width: int) -> Tensor:
    """The delta (B, ..., S, D), whose rows begin at index 0, moved so that row i ends at `width`."""
    if len(delta) != len(lengths):
        raise ValueError(f"A delta of {len(delta)} rows does not fit {len(lengths)} prompts.")
    place = torch.arange(delta.shape[-2], device=delta.device)
    beyond = (place >= lengths.unsqueeze(1)).reshape(len(delta), *[1] * (delta.dim() - 3), -1, 1)
    if bool((delta.ne(0) & beyond).any()):
        raise GenerationError("The delta is not zero beyond the end of its prompt: it was made for another one.")
    kept = min(delta.shape[-2], width)
    moved = delta.new_zeros((*delta.shape[:-2], width, delta.shape[-1]))
    moved[..., :kept, :] = delta[..., :kept, :]
    shifts = (width - lengths).tolist()
    return torch.stack([row.roll(shift, dims=-2) for row, shift in zip(moved, shifts, strict=True)])


def _require_finite(model: nn.Module, state: _Decoding) -> None:
    finite = state.logits.amax(dim=1).isfinite()
    if not bool(finite.all()):
        odd = [row for row, fine in zip(state.rows, finite.tolist(), strict=True) if not fine]
        raise GenerationError(f"The logits of prompts {odd[:5]} are not finite. {overflow(model)}")


def _choose(state: _Decoding, temperature: float, generators: Sequence[torch.Generator]) -> list[int]:
    """The next token of each row.

    Sampling inverts the distribution function at one uniform number per row, in float64: a row's token then follows
    from its own stream and logits alone, where a draw for the whole batch would mix the rows up.
    """
    if temperature == 0:
        return state.logits.argmax(dim=1).tolist()
    upto = (state.logits.double() / temperature).softmax(dim=1).cumsum(dim=1)
    drawn = [torch.rand((), generator=stream, dtype=torch.float64).item() for stream in generators]
    share = torch.tensor(drawn, device=upto.device, dtype=torch.float64).unsqueeze(1) * upto[:, -1:]
    # The first token whose running total exceeds the number; one of probability zero never does.
    return torch.searchsorted(upto, share, right=True).squeeze(1).clamp_max(upto.shape[1] - 1).tolist()
