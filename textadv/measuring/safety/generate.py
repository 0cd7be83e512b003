"""Prompts -> answers: batches of like length, shared out over the processes, every finished row kept in a file.

An answer is found again by its content: what was asked, of which weights, decoded how. An interrupted run goes on
where it stopped, with any batch size and any number of processes, and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from textadv.data.thoughts import Said, Speech
from textadv.measuring.safety.kept_answers import PASSES, Answer, Status, Store, opened
from textadv.measuring.safety.prompts import (
    PLAIN,
    Decoding,
    Prepare,
    Prompt,
    Tokenizer,
    content_key,
    draw_seed,
    most_flops,
    tokens_read,
    tokens_sent,
)
from textadv.models import counted_parameters
from textadv.models.decoding import end_ids, generate_tokens
from textadv.values.errors import GenerationError, WriteError
from textadv.values.flops import NONE_SPENT, NOT_MEASURED, Flops
from textadv.values.host.phases import phase
from textadv.values.processes import from_shares, own_batches
from textadv.values.spaces import Space

__all__ = ["PLAIN", "Decoding", "Prepare", "Prompt", "Tokenizer", "answers", "content_key", "most_flops"]


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
    allowed: Mapping[int, int] | None = None,
    before: Mapping[str, Sequence[Answer]] | None = None,
    all_may_fail: bool = False,
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
    speech: how the model's thoughts are told from its answers, and what ends its turns; by default it has no thoughts.
    allowed: by the prompt's id, what its search and its answers may take in floating-point operations: it is answered
        as long as one more answer surely fits, and once in any case; where the most likely token is taken, which gives
        one answer again and again, once. Where answers break off, errors fill it up to `decoding.samples`.
    before: by the key of the first of them, what earlier rounds of this attack were answered to a prompt. One that is
        asked again is given these answers, which take nothing more, and no others.
    all_may_fail: whether it is left to the caller what it means that every row fails.

    A row that fails gets the status `error` and the others go on; lines of the store that are damaged are made again.
    Raises GenerationError where every row fails, unless that is allowed, WriteError and OSError where the machine does,
    ValueError where two prompts have one id.
    """
    _require_usable(prompts, prepare)
    run = _Run(
        model,
        tokenizer,
        decoding,
        tuple(end_ids(model, tokenizer, speech) if ends is None else ends),
        key,
        (attack, restart),
        prepare or (lambda part: part),
        speech,
        opened(store, model),
        counted_parameters(model),
        allowed,
        before or {},
    )
    kept = set(run.store.known)
    missing = [prompt for prompt in prompts if run.due(prompt)]
    parts = own_batches(missing, decoding.batch_size, lambda prompt: (len(tokens_read(prompt)), prompt.id), model)
    with phase(attack or "answers", sum(map(len, parts)), "prompts") as advance:
        for part in parts:
            _answer(run, part)
            advance(len(part))
    mine = [(found, answer) for found, answer in run.store.known.items() if found not in kept]
    known = run.store.known | dict(from_shares(mine, model))
    given = [(prompt, answer) for prompt in prompts for answer in _given(run, prompt, known)]
    result = [answer for _, answer in given]
    run.store.share(result)
    # Of which an attack found nothing to send is its own failure, and says nothing of the model.
    asked = [answer for prompt, answer in given if not prompt.failed]
    if asked and all(answer.status == "error" for answer in asked) and not all_may_fail:
        raise GenerationError(f"Every one of {len(asked)} answers failed. The first: {asked[0].reason}")
    return result


def _given(run: _Run, prompt: Prompt, known: Mapping[str, Answer]) -> list[Answer]:
    """The prompt's answers as this round of this attack gets them."""
    attack, restart = run.asks
    earlier = run.repeated(prompt)
    if earlier is not None:
        return [_repeated(replace(answer.under(attack, restart), shared=attack), prompt) for answer in earlier]
    made = [
        _of_prompt(replace(known[found].under(attack, restart), id=prompt.id, sample=sample), prompt)
        for sample, found in enumerate(run.answered(prompt, known))
    ]
    surely = run.surely(prompt, made)
    return [*made[:surely], *(replace(answer, beyond=True) for answer in made[surely:])]


def _repeated(answer: Answer, prompt: Prompt) -> Answer:
    """An answer that the attack has already: no other is made, though its prompt may have been searched for again."""
    free = replace(answer, search_flops=NONE_SPENT, sampling_flops=NONE_SPENT)
    return _of_prompt(free, prompt)


def _of_prompt(answer: Answer, prompt: Prompt) -> Answer:
    """The answer with what this prompt's own text took to find, whichever attack was answered it first."""
    if not prompt.sent:
        return answer
    told = replace(answer, sent=prompt.sent, search=prompt.search, searched=prompt.searched)
    return replace(told, **_costs(prompt, answer.sample))


def _costs(prompt: Prompt, sample: int) -> dict[str, Any]:
    """What finding the prompt took, counted with the first sample, and whether that got where it aimed."""
    passes = {name: vars(prompt)[name] if sample == 0 or vars(prompt)[name] is None else 0 for name in PASSES}
    return {**passes, "search_flops": _searched(prompt, sample), "reached": prompt.reached}


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
    parameters: int
    allowed: Mapping[int, int] | None
    before: Mapping[str, Sequence[Answer]]
    named: dict[tuple[Prompt, int], str] = field(default_factory=dict)

    def key_of(self, prompt: Prompt, sample: int) -> str:
        """The content key of one of the prompt's samples."""
        if (prompt, sample) not in self.named:
            found = content_key(prompt, sample, self.decoding, self.ends, self.key, self.speech)
            self.named[prompt, sample] = found
        return self.named[prompt, sample]

    def repeated(self, prompt: Prompt) -> Sequence[Answer] | None:
        """What an earlier round of the attack was answered to it; None where it is new."""
        return None if prompt.failed else self.before.get(self.key_of(prompt, 0))

    def answered(self, prompt: Prompt, known: Mapping[str, Answer]) -> list[str]:
        """The keys of the prompt's samples: of all that are wanted, or of those that are known and allowed."""
        if self.allowed is None:
            return [self.key_of(prompt, sample) for sample in range(self.decoding.samples)]
        return self._made(prompt, known)[0]

    def _made(self, prompt: Prompt, known: Mapping[str, Answer]) -> tuple[list[str], int]:
        """The keys of the samples that are known and allowed, and what they took with the search for the prompt."""
        assert self.allowed is not None
        keys, spent = list[str](), 0
        while (key := self.key_of(prompt, len(keys))) in known and (not keys or self._fits(prompt, spent)):
            spent += self._took(prompt, known[key], len(keys))
            keys.append(key)
            if self._once(prompt):
                break
        return keys, spent

    def _once(self, prompt: Prompt) -> bool:
        """Whether another answer would be the same again."""
        return self.decoding.temperature == 0 or prompt.failed != ""

    def _took(self, prompt: Prompt, answer: Answer, sample: int) -> int:
        """What an answer took, the first one with its search; of what nobody knows (an error) the most it can be."""
        assert self.allowed is not None
        own, most = _of_prompt(replace(answer, sample=sample), prompt), self._most(prompt)
        search = own.search_flops.total if sample == 0 else 0
        if search is None:
            search = max(self.allowed[prompt.id] - self.decoding.samples * most, 0)
        return search + (most if own.sampling_flops.total is None else own.sampling_flops.total)

    def surely(self, prompt: Prompt, made: Sequence[Answer]) -> int:
        """How many of the answers that were made fit however long they had become; all, where their number is given."""
        search = made[0].search_flops.total if made else None
        if self.allowed is None or search is None:
            return len(made)
        return max((self.allowed[prompt.id] - search) // self._most(prompt), 1)

    def due(self, prompt: Prompt) -> list[tuple[int, str]]:
        """The samples of the prompt that are to be made now, with their keys; more may be due when they are known."""
        if self.repeated(prompt) is not None:
            return []
        if self.allowed is None:
            wanted = enumerate(self.answered(prompt, {}))
            return [(sample, key) for sample, key in wanted if key not in self.store.known]
        made, spent = self._made(prompt, self.store.known)
        if not made:
            return [(0, self.key_of(prompt, 0))]
        if self._once(prompt):
            return []
        last = len(made) + max((self.allowed[prompt.id] - spent) // self._most(prompt), 0)
        if any(self.store.known[key].status == "error" for key in made):
            last = min(last, max(self.decoding.samples, len(made)))
        fresh = [(sample, self.key_of(prompt, sample)) for sample in range(len(made), last)]
        return [(sample, key) for sample, key in fresh if key not in self.store.known]

    def lost(self, prompt: Prompt) -> list[tuple[int, str]]:
        """The samples that are errors where making those that are due broke off: with a budget, those wanted."""
        if self.allowed is None or self._once(prompt):
            return self.due(prompt)
        made = len(self.answered(prompt, self.store.known))
        return [(n, self.key_of(prompt, n)) for n in range(made, max(self.decoding.samples, made + 1))]

    def _fits(self, prompt: Prompt, spent: int) -> bool:
        return self.allowed is None or spent + self._most(prompt) <= self.allowed[prompt.id]

    def _most(self, prompt: Prompt) -> int:
        return most_flops(self.model, self.parameters, len(tokens_read(prompt)), self.decoding.max_new_tokens)


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
            run.store.unasked(_failures(run, prompt, prompt.failed))
    if not sound:
        return
    prompts = sound
    try:
        ready = list(zip(prompts, run.prepare(prompts), strict=True))
        size = run.decoding.batch_size
        while jobs := [_Job(key, prompt, sample) for asked, prompt in ready for sample, key in run.due(asked)]:
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
    run.store.add(_failures(run, prompts[0], reason))


def _failures(run: _Run, prompt: Prompt, reason: str) -> dict[str, Answer]:
    """An error that says why for every sample of the prompt that is due and lost with it, by key."""
    attack, restart = run.asks
    failure = Answer(prompt.id, 0, "error", "", 0, attack, 0, 0, reason, "", prompt.search, restart, sent=prompt.sent)
    if prompt.failed:
        # Nothing was sent, which is known: what is not is what an answer took that broke off.
        failure = replace(failure, sampling_flops=NONE_SPENT, sent=())
        return {
            key: replace(failure, sample=sample, key=key, **_costs(prompt, sample)) for sample, key in run.due(prompt)
        }
    return {key: replace(failure, sample=sample, key=key) for sample, key in run.lost(prompt)}


def _generated(run: _Run, jobs: Sequence[_Job]) -> list[Answer]:
    decoding = run.decoding
    generators = None
    if decoding.temperature > 0:
        seeds = [draw_seed(job.prompt, job.sample, decoding.seed) for job in jobs]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    delta, space = _stacked([job.prompt for job in jobs])
    found = generate_tokens(
        run.model,
        [tokens_read(job.prompt) for job in jobs],
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
    sampling = Flops.of(run.parameters, forward=tokens_sent(len(tokens_read(prompt)), len(tokens)))
    told: dict[str, Any] = {"thought": said.thought, "search": prompt.search, "restart": restart, "sent": prompt.sent}
    made = Answer(prompt.id, job.sample, status, said.text, len(tokens), attack, key=job.key)
    return replace(made, sampling_flops=sampling, **{**told, **_costs(prompt, job.sample)})


def _searched(prompt: Prompt, sample: int) -> Flops:
    """What the search took, counted with the first sample."""
    if sample > 0:
        return NONE_SPENT
    unsaid = NONE_SPENT if prompt.forwards == prompt.backwards == 0 else NOT_MEASURED
    return unsaid if prompt.flops is None else prompt.flops


def _said(run: _Run, prompt: Prompt, written: Sequence[int], ended: bool) -> Said:
    """What stands after prompt and opening, read apart."""
    given = (*prompt.ids, *prompt.opening)
    return run.speech.said(run.tokenizer, given, written, ended=ended, begun=bool(prompt.prefill))
