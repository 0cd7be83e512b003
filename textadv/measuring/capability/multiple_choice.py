"""Multiple choice by likelihood: which of the given choices a causal language model finds most likely.

Zero-shot only. Layouts, `{q}` being the question and `{a}` a choice:

- "cloze" scores the choice's text. Without the chat template the prompt is `Question: {q}\\nAnswer:` and the answer
  ` {a}`, with one leading space; with it the user says `{q}` and the assistant `{a}`.
- "letters" lists the choices and scores the letter. Without the chat template the prompt is `{q}\\nA. ...\\nB. ...
  \\nAnswer:` and the answer ` A`; with it the user's turn ends in `Answer with the letter of the right choice.` instead
  of `Answer:`, and the assistant says `A`. MMLU's subject goes before it: `The following are multiple choice questions
  (with answers) about {subject}.`

The end of the assistant's turn is no part of the answer scored, nor is what the chat template writes before answers.
The prompts are close to lm-eval's for ARC and MMLU; TruthfulQA (arXiv:2109.07958) is published with six examples before
the question, so its numbers are others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from textadv.data.benchmarks import Question
from textadv.data.chat_template import encode_prompt, encode_reply
from textadv.data.rendering import Template, one_turn, template_of
from textadv.measuring.capability.likelihood import Pair, answer_nll, bootstrap_interval
from textadv.measuring.statistics import Rate, wilson
from textadv.models.decoding import context_length
from textadv.values.errors import DataError
from textadv.values.host.phases import each

Layout = Literal["cloze", "letters"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class ScoredQuestion:
    """The log-likelihood of each choice, in nats, and the UTF-8 bytes of what was scored, without a leading space."""

    question: Question
    log_likelihoods: tuple[float, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ChoiceScores:
    """All questions of a file under one layout.

    skipped: ids of the questions that are longer than the model's positions; they are in no result.
    """

    layout: str
    chat_template: bool
    scored: tuple[ScoredQuestion, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceResult:
    """One rule over the questions scored.

    rate: questions answered rightly; None for mc2, which is no count.
    value, low, high: the rate's, or the mean of mc2 with a 95 % bootstrap interval; in 0..1.
    per_row: what each question counts, 0 or 1, or its probability mass; ids: their ids. skipped: as in `ChoiceScores`.
    """

    rule: str
    layout: str
    chat_template: bool
    rate: Rate | None
    value: float
    low: float
    high: float
    ids: tuple[str, ...]
    per_row: tuple[float, ...]
    skipped: tuple[str, ...]


def score_choices(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    chat_template: bool,
    layout: Layout = "cloze",
    batch_size: int = 16,
    too_long: Literal["error", "skip"] = "error",
    shots: int = 0,
) -> ChoiceScores:
    """The log-likelihood of every choice of every question.

    tokenizer: a fast Hugging Face tokenizer, or a `Template`. chat_template: whether the question goes through the
    tokenizer's template.
    too_long: what to do with a question that, with its longest choice, exceeds the model's positions.
    shots: examples before the question; only 0 is possible.

    Raises DataError on a question that is too long (unless skipped), ValueError on another number of shots, and as
    `answer_nll`.
    """
    if shots != 0:
        raise ValueError(f"shots must be 0, got {shots}: multiple choice is zero-shot here.")
    template = template_of(tokenizer)
    encode = partial(_plain, template.tokenizer)
    if chat_template:
        encode = partial(_templated, template, template.speech.closing)
    limit = context_length(model) or math.inf
    kept: list[tuple[Question, list[Pair]]] = []
    skipped = []
    for question in each("encoding choices", questions, len(questions), "questions"):
        pairs = encode(question, layout)
        longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
        if longest <= limit:
            kept.append((question, pairs))
        elif too_long == "skip":
            skipped.append(question.id)
        else:
            raise DataError(
                f"Question {question.id!r} has {longest} tokens with its longest choice, and the model {limit} "
                'positions. Leave such questions out with too_long: "skip"; they are then counted.'
            )
    found = iter(answer_nll(model, [pair for _, pairs in kept for pair in pairs], batch_size))
    scored = tuple(
        ScoredQuestion(
            question,
            tuple(-next(found).nll for _ in pairs),
            tuple(len(answer.encode()) for answer in _answers(question, layout)),
        )
        for question, pairs in kept
    )
    return ChoiceScores(layout, chat_template, scored, tuple(skipped))


def choice_result(scores: ChoiceScores, rule: str) -> ChoiceResult:
    """What `rule` makes of the scores; the same scores serve every rule.

    - "acc": a right choice has a higher log-likelihood than every wrong one. A tie is wrong.
    - "acc_norm": the same with the log-likelihood per byte of the choice.
    - "mc1": "acc" for TruthfulQA's mc1 targets; it asks for one right choice.
    - "mc2": the right choices' share of the probability of all choices, for TruthfulQA's mc2 targets.

    Raises ValueError on an unknown rule, or where mc1 meets a question with several right choices.
    """
    if rule not in RULES:
        raise ValueError(f"The rule must be one of {', '.join(RULES)}, got {rule!r}.")
    values = tuple(float(RULES[rule](row)) for row in scores.scored)
    ids = tuple(row.question.id for row in scores.scored)
    rate = None
    if rule == "mc2":
        each = np.array(values)
        value = float(each.mean()) if values else math.nan
        low, high = bootstrap_interval(lambda chosen: float(each[chosen].mean()), len(values))
    else:
        rate = wilson(int(sum(values)), len(values))
        value, low, high = rate.value, rate.low, rate.high
    return ChoiceResult(rule, scores.layout, scores.chat_template, rate, value, low, high, ids, values, scores.skipped)


def _wins(row: ScoredQuestion, scores: Sequence[float]) -> bool:
    right = [score for n, score in enumerate(scores) if n in row.question.true]
    wrong = [score for n, score in enumerate(scores) if n not in row.question.true]
    return max(right) > max(wrong)


def _acc(row: ScoredQuestion) -> bool:
    return _wins(row, row.log_likelihoods)


def _acc_norm(row: ScoredQuestion) -> bool:
    return _wins(row, [score / size for score, size in zip(row.log_likelihoods, row.sizes, strict=True)])


def _mc1(row: ScoredQuestion) -> bool:
    if len(row.question.true) != 1:
        raise ValueError(
            f"mc1 needs questions with one right choice, {row.question.id!r} has {len(row.question.true)}: read the "
            'file with targets "mc1".'
        )
    return _acc(row)


def _mc2(row: ScoredQuestion) -> float:
    # Shifted by the largest: long choices have likelihoods that underflow.
    masses = np.exp(np.array(row.log_likelihoods) - max(row.log_likelihoods))
    return float(masses[list(row.question.true)].sum() / masses.sum())


RULES: dict[str, Callable[[ScoredQuestion], float]] = {"acc": _acc, "acc_norm": _acc_norm, "mc1": _mc1, "mc2": _mc2}


def _answers(question: Question, layout: Layout) -> Sequence[str]:
    return question.choices if layout == "cloze" else LETTERS[: len(question.choices)]


def _prompt(question: Question, layout: Layout, *, chat_template: bool) -> str:
    if layout == "cloze":
        return question.question if chat_template else f"Question: {question.question}\nAnswer:"
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, question.choices, strict=False))
    ending = "Answer with the letter of the right choice." if chat_template else "Answer:"
    about = f" about {question.subject}" if question.subject else ""
    return (
        f"The following are multiple choice questions (with answers){about}.\n\n{question.question.strip()}\n"
        f"{listed}{ending}"
    )


def _plain(tokenizer: Any, question: Question, layout: Layout) -> list[Pair]:
    """Prompt and choice tokenised as one text; the tokens that reach beyond the prompt are the answer."""
    prompt = _prompt(question, layout, chat_template=False)
    pairs: list[Pair] = []
    for answer in _answers(question, layout):
        coded = tokenizer(f"{prompt} {answer}", return_offsets_mapping=True, verbose=False)
        own = [end > len(prompt) for _, end in coded["offset_mapping"]]
        first = own.index(True)
        # A tokenizer may close the text with special tokens, which are no part of the answer.
        last = len(own) - own[::-1].index(True)
        pairs.append((coded["input_ids"][:first], coded["input_ids"][first:last]))
    return pairs


def _templated(template: Template, end: tuple[int, ...], question: Question, layout: Layout) -> list[Pair]:
    messages = one_turn(_prompt(question, layout, chat_template=True))
    prompt = encode_prompt(template, messages)
    pairs: list[Pair] = []
    for answer in _answers(question, layout):
        opening, ids = encode_reply(template, messages, prompt, answer)
        if ids[len(ids) - len(end) :] != end or len(ids) == len(end):
            raise DataError(
                f"The chat template joins the choice {answer!r} of question {question.id!r} with the end of the turn, "
                "so it cannot be scored by itself. Score it without the chat template."
            )
        pairs.append(((*prompt.ids, *opening), ids[: len(ids) - len(end)]))
    return pairs
