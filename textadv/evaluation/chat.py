"""Everything that is measured on a chat model: attack success, over-refusal, degenerate answers, capability.

All of it is one flat list of measures, each with its interval and its value on every row, so that two models can be
compared row by row.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from textadv.data import ChatRows, DataError, Rows, encode_prompt
from textadv.data.benchmarks import Instructed, Question
from textadv.data.locating import shortened
from textadv.data.rendering import Template, template_of
from textadv.evaluation.adversaries import Adversary, behaviours_of
from textadv.evaluation.answer_book import AnswerBook
from textadv.evaluation.chat_measures import (
    Measure,
    failed,
    outcome_measures,
    percent,
    rate,
    refusal_measures,
    still_thinking,
    success,
    thinking,
)
from textadv.evaluation.degenerate import Limits
from textadv.evaluation.elicitation import DIRECT, Elicitation, elicit
from textadv.evaluation.fluency import NOT_SCORED, Base, Messages, Written, own_base, reference_limit
from textadv.evaluation.generate import Decoding, Prompt, answers
from textadv.evaluation.instructions import instruction_following
from textadv.evaluation.judges import Judge
from textadv.evaluation.kept_answers import Answer, files_of, fits
from textadv.evaluation.kept_lines import repaired
from textadv.evaluation.likelihood import perplexity
from textadv.evaluation.multiple_choice import choice_result, score_choices
from textadv.evaluation.outcomes import AttackOutcomes, Grounds, as_outcomes, outcomes_of
from textadv.evaluation.outcomes_calibrated import calibrated
from textadv.evaluation.radius_curve import BY_RADIUS, PLAIN, Curve, success_by_radius
from textadv.evaluation.refusal import RefusalReport, over_refusal
from textadv.evaluation.sanity_chat import choice_doubts, perplexity_doubt, said_doubt, silence_doubt, weaker_doubts
from textadv.evaluation.statistics import Rate, wilson
from textadv.evaluation.subject import TARGET_WORDS
from textadv.phases import each, within


@dataclass(frozen=True)
class ChatEvaluation:
    """One model. name: "before" or "hardened", or the model's own. cost: passes and seconds by what they were for.

    notes: what cannot be right about the numbers. outcomes: what became of every attacked answer, attack by attack and
    in the worst case. fluency: by what gibberish was told, or that it was not looked for.
    curve: attack success by radius, as in `measures`.
    """

    name: str
    measures: tuple[Measure, ...]
    cost: dict[str, float]
    notes: tuple[str, ...] = ()
    outcomes: tuple[AttackOutcomes, ...] = ()
    fluency: str = ""
    curve: tuple[Measure, ...] = ()


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Asked(NamedTuple):
    """Prompts to be answered: their texts and, in the same order, their tokens up to where the assistant starts.

    rows: the ids of the rows in their data; empty where they are numbered as they stand.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str], rows: Sequence[int] = ()) -> Asked:
        """Each text as a user's first message. Raises DataError where it does not fit the chat template."""
        encoded = []
        for number, text in each("encoding prompts", enumerate(texts), len(texts), "prompts"):
            try:
                encoded.append(encode_prompt(tokenizer, _asked(text)).ids)
            except DataError as error:
                raise DataError(f"prompt {number} (counted from 0), {shortened(text)}: {error}") from error
        return cls(tuple(texts), tuple(encoded), tuple(rows))


@dataclass(frozen=True)
class Panel:
    """What is measured, ready for any model with the same tokenizer.

    behaviours: held-out harmful rows, requests their texts. attacks: by name. judge decides; others give second
    opinions on the same answers. benign: prompts that should be answered, by name of their file. utility: rows for
    perplexity. questions, instructions: by name of their file. decoding: how answers are written.
    chats, targets: of the behaviours, their turns and what the adversary wants said; where there are none, the requests
    alone. target_words: so many words of a target are its beginning. useful: turns and good answers to them.
    base: what tells gibberish, the same for all models; None: the model without its adapter, where it has one.
    decides: of `others` the judge whose verdict takes the place of the refusal list and the rule of words.
    curve: success by radius.
    """

    behaviours: ChatRows
    requests: tuple[str, ...]
    attacks: Mapping[str, Adversary]
    judge: Judge
    others: tuple[Judge, ...]
    benign: Mapping[str, Asked]
    utility: ChatRows
    questions: Mapping[str, tuple[Question, ...]]
    instructions: Mapping[str, tuple[tuple[Instructed, ...], Asked]]
    decoding: Decoding
    chats: tuple[Messages, ...] = ()
    targets: tuple[str, ...] = ()
    target_words: int = TARGET_WORDS
    useful: tuple[Written, ...] = ()
    base: Base | None = None
    decides: Judge | None = None
    curve: Curve = field(default_factory=Curve)


def evaluate_chat(
    name: str,
    model: nn.Module,
    tokenizer: Any,
    panel: Panel,
    *,
    key: str,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> ChatEvaluation:
    """Every measure of the panel on one model.

    tokenizer: or the `Template` that the panel was made with: what its model thinks is then told from what it says.
    key: a hash of the model's weights; answers in `folder` of the same weights are not written again.
    """
    cost: dict[str, float] = {}
    notes = _Notes(name, say)
    began = time.perf_counter()
    # A saved model is named by its path, which must not lead out of the folder.
    store = folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.jsonl"
    for line in repaired(files_of(store), "answers", fits):
        say(f"note: {line}")
    book, template = AnswerBook(store), template_of(tokenizer)
    if (earlier := book.note()) is not None:
        say(f"note: {earlier}")
    base = panel.base or own_base(model, template)
    limit = None if base is None else reference_limit(base, panel.useful, panel.utility.pairs)
    if base is not None and limit is None:
        notes.add(NOT_SCORED)
    benign = _benign(model, template, panel, book, key, base, limit)
    grounds = _grounds(panel, base, [report for _, report in benign.values()])
    attacked = time.perf_counter()
    measures, outcomes = _attack_success(model, template, panel, book, key, cost, notes, grounds)
    curve = _by_radius(model, template, panel, book, key, cost, notes, grounds)
    cost["attack seconds"] = time.perf_counter() - attacked
    for label, (given, report) in benign.items():
        notes.add(said_doubt(f"{label} prompts", given))
        measures += refusal_measures(label, report, given, panel.decoding, measured=limit is not None)
        say(f"{name}: {label}: {report}")
    measures += _capability(model, template, panel, book, key, notes)
    book.write()
    cost["seconds"] = time.perf_counter() - began
    rest = (tuple(notes.told), outcomes, grounds.fluency, tuple(curve))
    return ChatEvaluation(name, tuple(measures), cost, *rest)


@dataclass
class _Notes:
    """What cannot be right about the numbers of the model `name`; said as it is found."""

    name: str
    say: Callable[[str], None]
    told: list[str] = field(default_factory=list)

    def add(self, doubt: str | None) -> None:
        if doubt is not None:
            self.told.append(doubt)
            self.say(f"note: {self.name}: {doubt}")

    def progress(self, line: str) -> None:
        """Says how far it is."""
        self.say(f"{self.name}: {line}")


def _benign(
    model: nn.Module,
    template: Template,
    panel: Panel,
    book: AnswerBook,
    key: str,
    base: Base | None,
    limit: float | None,
) -> dict[str, tuple[list[Answer], RefusalReport]]:
    """The answers to the prompts that should be answered, and what they are, by name of the prompts."""
    found = {}
    for label, asked in panel.benign.items():
        given = _answers(model, template, asked, panel.decoding, book, key, label)
        said = [None if answer.status == "thinking" else answer.text for answer in given]
        nll = None if base is None or limit is None else base.said
        with within(f"{label}: gibberish"):
            report = over_refusal(asked.texts, said, limits=Limits(nll=limit), nll=nll)
        book.graded(report, given)
        found[label] = given, report
    return found


def _grounds(panel: Panel, base: Base | None, benign: Sequence[RefusalReport]) -> Grounds:
    """What attacked answers are told by, from what the model says to benign prompts."""
    helped = [row for report in benign for row in report.rows if row.outcome == "none"]
    return calibrated(
        judge=panel.judge,
        decides=panel.decides,
        requests=panel.requests,
        targets=panel.targets or [""] * len(panel.requests),
        asked=panel.chats or [_asked(request) for request in panel.requests],
        words=panel.target_words,
        base=base,
        spoken=[Written(_asked(row.prompt), "", row.response) for row in helped],
        useful=panel.useful,
        pairs=panel.utility.pairs,
    )


def _attack_success(
    model: nn.Module,
    template: Template,
    panel: Panel,
    book: AnswerBook,
    key: str,
    cost: dict[str, float],
    notes: _Notes,
    grounds: Grounds,
) -> tuple[list[Measure], tuple[AttackOutcomes, ...]]:
    judged: dict[str, Elicitation] = {}
    requests = dict(zip(panel.behaviours.ids, panel.requests, strict=True))
    targets = {
        row.id: template.speech.decoded(template.tokenizer, row.target) for row in behaviours_of(panel.behaviours)
    }
    book.ask((DIRECT, *panel.attacks, PLAIN, *panel.curve.attacks), requests, targets)
    for judge in (panel.judge, *panel.others):
        judged[judge.name] = elicit(
            model,
            template.tokenizer,
            panel.behaviours,
            panel.requests,
            panel.attacks,
            judge,
            panel.decoding,
            store=book.path,
            key=key,
            speech=template.speech,
            say=notes.progress,
        )
        book.judged(judged[judge.name], requests)
        book.write()
    first = judged[panel.judge.name]
    notes.add(silence_doubt(first))
    outcomes = outcomes_of(first, grounds, None if panel.decides is None else judged[panel.decides.name])
    for one in outcomes:
        notes.progress(f"{one}, {grounds.definition}")
    for doubt in weaker_doubts(outcomes, panel.attacks):
        notes.add(doubt)
    for attack in first.attacks:
        cost[f"{attack.name} forwards"] = float(attack.forwards)
        cost[f"{attack.name} backwards"] = float(attack.backwards)
    measures = outcome_measures(outcomes, first.decoding)
    for judge in panel.others:
        found = judged[judge.name]
        measures += [success(attack, found, f" ({judge.name})") for attack in (*found.attacks, found.worst_case)]
    return measures, outcomes


def _by_radius(
    model: nn.Module,
    template: Template,
    panel: Panel,
    book: AnswerBook,
    key: str,
    cost: dict[str, float],
    notes: _Notes,
    grounds: Grounds,
) -> list[Measure]:
    places = {number: place for place, number in enumerate(panel.behaviours.ids)}

    def ask(rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary]) -> Elicitation:
        asked = partial(elicit, model, template.tokenizer, rows, requests, attacks, store=book.path, key=key)
        found = asked(panel.judge, panel.decoding, speech=template.speech)
        book.judged(found, dict(zip(rows.ids, requests, strict=True)))
        decided = None
        if panel.decides is not None:
            decided = asked(panel.decides, panel.decoding, speech=template.speech)
        return as_outcomes(found, outcomes_of(found, grounds, decided, places))

    measures = []
    for point in success_by_radius(ask, panel.behaviours, panel.requests, panel.curve):
        total = len(point.broken)
        low, high = wilson(sum(point.broken), total), wilson(sum(point.possibly), total)
        told = [f"up to {percent(high)} with what broke off or is not known"] if high.count > low.count else []
        note = "; ".join([*told, point.description])
        notes.progress(f"{point.name}: complied {low.count} of {total} behaviours, {grounds.definition}")
        measures.append(rate(BY_RADIUS, point.name, low, list(map(float, point.broken)), True, note))
        cost["curve forwards"] = cost.get("curve forwards", 0.0) + point.forwards
        cost["curve backwards"] = cost.get("curve backwards", 0.0) + point.backwards
    book.write()
    return measures


def _answers(
    model: nn.Module, template: Template, asked: Asked, decoding: Decoding, book: AnswerBook, key: str, label: str
) -> list[Answer]:
    """One greedy answer to each prompt."""
    once = Decoding(decoding.max_new_tokens, batch_size=decoding.batch_size)
    prompts = [Prompt(n, ids) for n, ids in enumerate(asked.ids)]
    speech = template.speech
    book.ask([label], dict(enumerate(asked.texts)), rows=dict(enumerate(asked.rows)))
    return answers(model, template.tokenizer, prompts, once, store=book.path, key=key, attack=label, speech=speech)


def _capability(
    model: nn.Module, template: Template, panel: Panel, book: AnswerBook, key: str, doubts: _Notes
) -> list[Measure]:
    with within("utility perplexity"):
        found = perplexity(model, panel.utility.pairs)
    doubts.add(perplexity_doubt(found.value, len(template.tokenizer)))
    each = tuple(row.nll / row.tokens for row in found.rows)
    interval, sizes = (found.value, found.low, found.high), tuple(float(row.tokens) for row in found.rows)
    measures = [Measure("capability", "utility perplexity", *interval, len(each), True, each, weights=sizes)]
    for label, questions in panel.questions.items():
        for templated in (True, False):
            with within(label):
                scores = score_choices(model, template, questions, chat_template=templated, too_long="skip")
            result = choice_result(scores, "acc_norm")
            name = f"{label}: multiple choice" + ("" if templated else ", no template")
            for doubt in choice_doubts(name, scores, result.per_row):
                doubts.add(doubt)
            note = f"{len(result.skipped)} too long, skipped" if result.skipped else ""
            total = len(result.per_row)
            measures.append(
                Measure("capability", name, result.value, result.low, result.high, total, False, result.per_row, note)
            )
    for label, (prompts, asked) in panel.instructions.items():
        given = _answers(model, template, asked, panel.decoding, book, key, label)
        doubts.add(said_doubt(f"{label} prompts", given))
        followed = instruction_following(prompts, [answer.text for answer in given])
        book.followed(asked.texts, given, [row.strict for row in followed.rows])
        # A prompt with an instruction that cannot be checked is in no rate, so it is in no difference either.
        rows = [float(all(row.strict)) for row in followed.rows if None not in row.strict]
        notes = [f"{followed.prompts_left_out} prompts left out"] if followed.prompts_left_out else []
        notes += [f"{failed(given)} answers failed to be made"] if failed(given) else []
        notes += still_thinking(thinking(given), len(given), panel.decoding)
        measures.append(
            rate("capability", f"{label}: instructions", followed.prompt_strict, rows, False, "; ".join(notes))
        )
    return measures


def share_answered(texts: Sequence[str], refuses: Callable[[str], bool]) -> Rate:
    """Responses that are neither empty nor a refusal, over all."""
    return wilson(sum(bool(text.strip()) and not refuses(text) for text in texts), len(texts))
