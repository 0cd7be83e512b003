"""Prompts -> answers: batches of like length, shared out over the processes, every finished row kept in a file.

An answer is found again by its content: what was asked, of which weights, decoded how. An interrupted run goes on
where it stopped, with any batch size and any number of processes, and repeats nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textadv.data.thoughts import Decoder, Said, Speech, thinks
from textadv.measuring.safety.kept_answers import PASSES, Answer, Status, Store, opened
from textadv.models.decoding import EndNaming, end_ids, generate_tokens
from textadv.values.errors import GenerationError, WriteError
from textadv.values.host.phases import phase
from textadv.values.processes import from_shares, own_batches
from textadv.values.randomness import derived_seed
from textadv.values.spaces import Space


class Tokenizer(Decoder, EndNaming, Protocol):
    """What is read of a tokenizer."""

    @property
    def pad_token_id(self) -> int | None: ...


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    max_new_tokens: per answer. temperature: 0 takes the most likely token. samples: answers per prompt. seed: sample s
    of row r is drawn from (seed, r, s). batch_size: rows at a time; it changes no answer.
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
        how |= {"seed": decoding.seed, "sample": sample}
    what: dict[str, object] = {"id": prompt.id, "ids": prompt.ids, "prefill": prompt.prefill, "ends": sorted(ends)}
    what |= {"opening": prompt.opening} if prompt.opening else {}
    what |= {"marks": speech.marks, "lead": speech.lead} if speech != PLAIN else {}
    digest = hashlib.blake2b(json.dumps([key, how, what, prompt.origin]).encode(), digest_size=16)
    if prompt.delta is not None and not prompt.origin:
        delta = prompt.delta.detach().cpu().contiguous()
        digest.update(f"{prompt.space!r} {delta.dtype} {tuple(delta.shape)}".encode())
        digest.update(delta.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def answers(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    store: Path | None = None,
    key: str = "",
    attack: str = "",
    restart: int = 0,
    ends: Sequence[int] | None = None,
    prepare: Prepare | None = None,
    speech: Speech = PLAIN,
) -> list[Answer]:
    """One answer for each prompt and sample, all samples of the first prompt first; the same on every process.

    store: a JSON-lines file that every finished answer is appended to at once, and read from at the start; processes
        other than the first write beside it (name-1.jsonl). Rows that failed are not kept: they are tried again.
    key: names the weights, e.g. their hash; answers of other weights are then never taken for these.
    ends: the tokens that end an answer; by default those of `end_ids`. attack, restart: go into each answer. What
        another attack or restart was answered already is not made again: it says `shared`, has no passes, and gets a
        line of its own in the store.
    prepare: called with the prompts of a batch just before they are answered, to fill in their deltas; not called for
        prompts whose answers are all known. Such prompts need an `origin`.
    speech: how the model's thoughts are told from its answers; by default it has none.

    A row that fails gets the status `error` and the others go on; lines of the store that are damaged are made again.
    Raises GenerationError where every row fails, WriteError and OSError where the machine does, ValueError where two
    prompts have one id.
    """
    _require_usable(prompts, prepare)
    run = _Run(
        model,
        tokenizer,
        decoding,
        tuple(end_ids(model, tokenizer) if ends is None else ends),
        key,
        (attack, restart),
        prepare or (lambda part: part),
        speech,
        opened(store, model),
    )
    kept = set(run.store.known)
    missing = [prompt for prompt in prompts if not all(found in kept for found in run.keys(prompt))]
    parts = own_batches(missing, decoding.batch_size, lambda prompt: (len(_given(prompt)), prompt.id), model)
    with phase(attack or "answers", sum(map(len, parts)), "prompts") as advance:
        for part in parts:
            _answer(run, part)
            advance(len(part))
    mine = [(found, answer) for found, answer in run.store.known.items() if found not in kept]
    known = run.store.known | dict(from_shares(mine, model))
    given = [(prompt, sample, found) for prompt in prompts for sample, found in enumerate(run.keys(prompt))]
    result = [
        _of_prompt(replace(known[found].under(attack, restart), id=prompt.id, sample=sample), prompt)
        for prompt, sample, found in given
    ]
    run.store.share(result)
    # Of which an attack found nothing to send is its own failure, and says nothing of the model.
    asked = [answer for answer, (prompt, *_) in zip(result, given, strict=True) if not prompt.failed]
    if asked and all(answer.status == "error" for answer in asked):
        raise GenerationError(f"Every one of {len(asked)} answers failed. The first: {asked[0].reason}")
    return result


def _of_prompt(answer: Answer, prompt: Prompt) -> Answer:
    """The answer with what this prompt's own text took to find, whichever attack was answered it first."""
    if not prompt.sent:
        return answer
    return replace(answer, sent=prompt.sent, search=prompt.search, **_costs(prompt, answer.sample))


def _costs(prompt: Prompt, sample: int) -> dict[str, Any]:
    """What finding the prompt took, counted with the first sample."""
    return {name: vars(prompt)[name] if sample == 0 or vars(prompt)[name] is None else 0 for name in PASSES}


def _require_usable(prompts: Sequence[Prompt], prepare: Prepare | None) -> None:
    ids = [prompt.id for prompt in prompts]
    if len(set(ids)) < len(ids):
        twice = next(number for number in ids if ids.count(number) > 1)
        raise ValueError(f"Every prompt needs an id of its own, got {twice} more than once.")
    if prepare is not None and not all(prompt.origin for prompt in prompts):
        raise ValueError("Prompts that are prepared later need an origin: their answers are found by it.")


# ---- answering


@dataclass(frozen=True)
class _Run:
    """What stays the same from batch to batch."""

    model: nn.Module
    tokenizer: Tokenizer
    decoding: Decoding
    ends: tuple[int, ...]
    key: str
    asks: tuple[str, int]
    prepare: Prepare
    speech: Speech
    store: Store

    def keys(self, prompt: Prompt) -> list[str]:
        """The content keys of the prompt's samples."""
        samples = range(self.decoding.samples)
        return [content_key(prompt, sample, self.decoding, self.ends, self.key, self.speech) for sample in samples]


class _Job(NamedTuple):
    """One answer to be made, and the key it is kept under."""

    key: str
    prompt: Prompt
    sample: int


def _answer(run: _Run, prompts: Sequence[Prompt]) -> None:
    """Leaves an answer for every sample of the prompts in the store; where a batch fails, its rows are tried alone."""
    sound = [prompt for prompt in prompts if not prompt.failed]
    for prompt in prompts:
        if prompt.failed:
            _fail(run, prompt, prompt.failed)
    if not sound:
        return
    prompts = sound
    try:
        jobs = []
        for asked, prompt in zip(prompts, run.prepare(prompts), strict=True):
            for sample, key in enumerate(run.keys(asked)):
                jobs += [] if key in run.store.known else [_Job(key, prompt, sample)]
        size = run.decoding.batch_size
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            run.store.add(dict(zip([job.key for job in part], _generated(run, part), strict=True)))
        return
    except (OSError, WriteError):
        # Of the machine, and no fault of these rows: trying them alone would meet it again.
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    # Out here nothing holds the memory of the failed batch any more.
    if len(prompts) > 1:
        for prompt in prompts:
            _answer(run, [prompt])
        return
    _fail(run, prompts[0], reason)


def _fail(run: _Run, prompt: Prompt, reason: str) -> None:
    """Leaves an error that says why for every sample of the prompt that is not known."""
    left = [(sample, key) for sample, key in enumerate(run.keys(prompt)) if key not in run.store.known]
    attack, restart = run.asks
    failure = Answer(prompt.id, 0, "error", "", 0, attack, 0, 0, reason, "", prompt.search, restart, sent=prompt.sent)
    run.store.add({key: replace(failure, sample=sample, key=key) for sample, key in left})


def _generated(run: _Run, jobs: Sequence[_Job]) -> list[Answer]:
    decoding = run.decoding
    generators = None
    if decoding.temperature > 0:
        seeds = [derived_seed(decoding.seed, job.prompt.id, job.sample) for job in jobs]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    delta, space = _stacked([job.prompt for job in jobs])
    found = generate_tokens(
        run.model,
        [_given(job.prompt) for job in jobs],
        max_new_tokens=decoding.max_new_tokens,
        end_ids=run.ends,
        pad_id=run.tokenizer.pad_token_id or 0,
        temperature=decoding.temperature,
        generators=generators,
        delta=delta,
        space=space,
    )
    return [_finished(run, job, tokens) for job, tokens in zip(jobs, found, strict=True)]


def _stacked(prompts: Sequence[Prompt]) -> tuple[Tensor | None, Space | None]:
    """The rows' deltas as one tensor (B, ..., S, D), zero where a row has none or is shorter."""
    moved = [prompt.delta for prompt in prompts if prompt.delta is not None]
    if not moved:
        return None, None
    spaces = {prompt.space for prompt in prompts if prompt.space is not None}
    if len(spaces) > 1:
        raise ValueError(f"Prompts of one call are perturbed in one space, got {sorted(map(str, spaces))}.")
    *places, _, width = moved[0].shape
    stacked = moved[0].new_zeros((len(prompts), *places, max(len(prompt.ids) for prompt in prompts), width))
    for row, prompt in enumerate(prompts):
        if prompt.delta is not None:
            stacked[row, ..., : len(prompt.ids), :] = prompt.delta
    return stacked, spaces.pop()


def _given(prompt: Prompt) -> list[int]:
    """What the model reads before it writes."""
    return [*prompt.ids, *prompt.opening, *prompt.prefill]


def _finished(run: _Run, job: _Job, tokens: Sequence[int]) -> Answer:
    ended, prompt = tokens[-1] in run.ends, job.prompt
    added = list(tokens[:-1] if ended else tokens)
    own = _said(run, prompt, added, ended)
    status: Status = "ok" if ended else "truncated"
    if not own.text.strip():
        wrote = run.speech.decoded(run.tokenizer, added).strip() != ""
        status = "thinking" if wrote and not ended else "empty"
    said = _said(run, prompt, [*prompt.prefill, *added], ended) if prompt.prefill else own
    attack, restart = run.asks
    told: dict[str, Any] = {"thought": said.thought, "search": prompt.search, "restart": restart, "sent": prompt.sent}
    made = Answer(prompt.id, job.sample, status, said.text, len(tokens), attack, key=job.key)
    return replace(made, **{**told, **_costs(prompt, job.sample)})


def _said(run: _Run, prompt: Prompt, written: Sequence[int], ended: bool) -> Said:
    """What stands after prompt and opening, read apart.

    Where the prompt begins a thought and the model ends its turn without ending that, it has answered at once.
    """
    speech, begun = run.speech, bool(prompt.prefill)
    text = speech.decoded(run.tokenizer, written)
    alone = speech.marks is not None and not prompt.opening and not begun
    thinking = alone and thinks(speech.decoded(run.tokenizer, prompt.ids), speech.marks)
    said = speech.read(text, thinking=thinking, begun=begun)
    return speech.read(text) if thinking and ended and said == Said(text.strip(), "", ended=False) else said
