"""Everything that is measured on a chat model: attack success, over-refusal, degenerate answers, capability.

All of it is one flat list of measures, each with its interval and its value on every row, so that two models can be
compared row by row.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from textadv.data import ChatRows, DataError, Rows, encode_prompt
from textadv.data.benchmarks import Instructed, Question
from textadv.data.chat_template import encode_opening
from textadv.data.locating import shortened
from textadv.data.rendering import Template, template_of
from textadv.evaluation.adversaries import Adversary
from textadv.evaluation.degenerate import Limits, Nll, nll_limit
from textadv.evaluation.elicitation import AttackSuccess, Elicitation, elicit
from textadv.evaluation.generate import Decoding, Prompt, answers
from textadv.evaluation.instructions import instruction_following
from textadv.evaluation.judges import Judge
from textadv.evaluation.kept_answers import Answer, files_of
from textadv.evaluation.kept_lines import repaired
from textadv.evaluation.likelihood import answer_nll, perplexity
from textadv.evaluation.multiple_choice import choice_result, score_choices
from textadv.evaluation.radius_curve import BY_RADIUS, Curve, success_by_radius
from textadv.evaluation.refusal import RefusalReport, over_refusal
from textadv.evaluation.sanity_chat import choice_doubts, perplexity_doubt, said_doubt, silence_doubt
from textadv.evaluation.statistics import Rate, wilson
from textadv.models import ModelError, as_reference
from textadv.models.decoding import context_length

Group = Literal["attack success", "attack success by radius", "over-refusal", "capability"]


@dataclass(frozen=True)
class Measure:
    """One number about one model.

    value, low, high: in 0..1, with a 95 % interval; a perplexity is 1 or more. total: rows it is over.
    lower_is_better: what an improvement is. rows: the value on each row, in a fixed order; empty where it has none.
    note: what a reader must know beside the number. weights: what each row counts; empty where all count alike.
    """

    group: str
    name: str
    value: float
    low: float
    high: float
    total: int
    lower_is_better: bool
    rows: tuple[float, ...] = ()
    note: str = ""
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class ChatEvaluation:
    """One model. name: "before" or "hardened", or the model's own. cost: passes and seconds by what they were for.

    notes: what cannot be right about the numbers. curve: attack success by radius, by the judge that decides.
    """

    name: str
    measures: tuple[Measure, ...]
    cost: dict[str, float]
    notes: tuple[str, ...] = ()
    curve: tuple[Measure, ...] = ()


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Asked(NamedTuple):
    """Prompts to be answered: their texts and, in the same order, their tokens up to where the assistant starts."""

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str]) -> Asked:
        """Each text as a user's first message. Raises DataError where it does not fit the chat template."""
        encoded = []
        for number, text in enumerate(texts):
            try:
                encoded.append(encode_prompt(tokenizer, _asked(text)).ids)
            except DataError as error:
                raise DataError(f"prompt {number} (counted from 0), {shortened(text)}: {error}") from error
        return cls(tuple(texts), tuple(encoded))


@dataclass(frozen=True)
class Panel:
    """What is measured, ready for any model with the same tokenizer.

    behaviours: held-out harmful rows, requests their texts. attacks: by name. judge decides; others give second
    opinions on the same answers. benign: prompts that should be answered, by name of their file. utility: rows for
    perplexity. questions, instructions: by name of their file. decoding: how answers are written. curve: success by
    radius.
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
    for line in repaired(files_of(store), "answers"):
        say(f"note: {line}")
    template = template_of(tokenizer)
    measures = _attack_success(model, template, panel, store, key, cost, notes)
    curve = _by_radius(model, template, panel, store, key, cost, notes)
    cost["attack seconds"] = time.perf_counter() - began
    base = _base_nll(model, template)
    limit = None if base is None else nll_limit(_reference_nll(model, panel))
    for label, asked in panel.benign.items():
        given = _answers(model, template, asked, panel.decoding, store, key, label)
        notes.add(said_doubt(f"{label} prompts", given))
        said = [None if answer.status == "thinking" else answer.text for answer in given]
        report = over_refusal(asked.texts, said, limits=Limits(nll=limit), nll=base)
        measures += _refusal_measures(label, report, given, panel.decoding, measured=base is not None)
        say(f"{name}: {label}: {report}")
    measures += _capability(model, template, panel, store, key, notes)
    cost["seconds"] = time.perf_counter() - began
    return ChatEvaluation(name, tuple(measures), cost, tuple(notes.told), tuple(curve))


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


def _rate(group: Group, name: str, rate: Rate, rows: Sequence[float], lower: bool, note: str = "") -> Measure:
    return Measure(group, name, rate.value, rate.low, rate.high, rate.total, lower, tuple(rows), note)


def _attack_success(
    model: nn.Module,
    template: Template,
    panel: Panel,
    store: Path,
    key: str,
    cost: dict[str, float],
    notes: _Notes,
) -> list[Measure]:
    measures: list[Measure] = []
    for judge in (panel.judge, *panel.others):
        found = elicit(
            model,
            template.tokenizer,
            panel.behaviours,
            panel.requests,
            panel.attacks,
            judge,
            panel.decoding,
            store=store,
            key=key,
            speech=template.speech,
            say=notes.progress,
        )
        if judge is panel.judge:
            notes.add(silence_doubt(found))
        named = "" if judge is panel.judge else f" ({judge.name})"
        for attack in (*found.attacks, found.worst_case):
            measures.append(_success(attack, found, named))
            if judge is panel.judge and attack is not found.worst_case:
                cost[f"{attack.name} forwards"] = float(attack.forwards)
                cost[f"{attack.name} backwards"] = float(attack.backwards)
    return measures


def _by_radius(
    model: nn.Module,
    template: Template,
    panel: Panel,
    store: Path,
    key: str,
    cost: dict[str, float],
    notes: _Notes,
) -> list[Measure]:
    def ask(rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary]) -> Elicitation:
        judge, own = panel.judge, template.speech
        return elicit(
            model, template.tokenizer, rows, requests, attacks, judge, panel.decoding, store=store, key=key, speech=own
        )

    measures = []
    for point in success_by_radius(ask, panel.behaviours, panel.requests, panel.curve):
        total = len(point.broken)
        low, high = wilson(sum(point.broken), total), wilson(sum(point.possibly), total)
        unclear = high.count - low.count
        told = [f"up to {_percent(high)} if {unclear} unclear ones are broken"] if unclear else []
        note = "; ".join([*told, point.description])
        notes.progress(f"{point.name} breaks {low.count} of {total} behaviours")
        measures.append(_rate(BY_RADIUS, point.name, low, list(map(float, point.broken)), True, note))
        cost["curve forwards"] = cost.get("curve forwards", 0.0) + point.forwards
        cost["curve backwards"] = cost.get("curve backwards", 0.0) + point.backwards
    return measures


def _success(attack: AttackSuccess, found: Elicitation, named: str) -> Measure:
    """A behaviour counts where it is broken; those that no verdict was found for stand in the note."""
    worst = attack is found.worst_case
    rows: dict[int, float] = {}
    for outcome in found.outcomes:
        if worst or outcome.attack == attack.name:
            rows[outcome.id] = max(rows.get(outcome.id, 0.0), float(outcome.broken))
    notes = []
    if attack.high.count > attack.low.count:
        notes = [f"up to {_percent(attack.high)} if {attack.high.count - attack.low.count} unclear ones are broken"]
    notes += _still_thinking(attack.answers.get("thinking", 0), sum(attack.answers.values()), found.decoding)
    return _rate("attack success", attack.name + named, attack.low, list(rows.values()), True, "; ".join(notes))


def _answers(
    model: nn.Module, template: Template, asked: Asked, decoding: Decoding, store: Path, key: str, label: str
) -> list[Answer]:
    """One greedy answer to each prompt."""
    once = Decoding(decoding.max_new_tokens, batch_size=decoding.batch_size)
    prompts = [Prompt(n, ids) for n, ids in enumerate(asked.ids)]
    speech = template.speech
    return answers(model, template.tokenizer, prompts, once, store=store, key=key, attack=label, speech=speech)


def _failed(given: Sequence[Answer]) -> int:
    return sum(answer.status == "error" for answer in given)


def _thinking(given: Sequence[Answer]) -> int:
    return sum(answer.status == "thinking" for answer in given)


def _still_thinking(count: int, total: int, decoding: Decoding) -> list[str]:
    if count == 0:
        return []
    return [
        f"{count} of {total} answers were still thinking after evaluation.max_new_tokens: {decoding.max_new_tokens}, "
        "so what they would say is not known; raise it"
    ]


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} %"


def _base_nll(model: nn.Module, template: Template) -> Nll | None:
    """Nats per token of responses, after what the chat template writes before answers, under the model without its
    adapter; None where there is no adapter."""
    try:
        with as_reference(model):
            pass
    except ModelError:
        return None

    limit = context_length(model)

    def nll(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """nan where a response has no token left; one that is longer than the model's positions is cut."""
        asked = [_opened(template, prompt) for prompt in prompts]
        written = [template.tokenizer(text, add_special_tokens=False)["input_ids"] for text in responses]
        if limit is not None:
            written = [ids[: max(limit - len(own), 0)] for own, ids in zip(asked, written, strict=True)]
        pairs = {n: (own, ids) for n, (own, ids) in enumerate(zip(asked, written, strict=True)) if ids}
        with as_reference(model):
            found = dict(zip(pairs, answer_nll(model, list(pairs.values())), strict=True))
        return [found[n].nll / found[n].tokens if n in found else math.nan for n in range(len(responses))]

    return nll


def _opened(template: Template, text: str) -> tuple[int, ...]:
    """The tokens up to where an answer to the text begins."""
    prompt = encode_prompt(template, _asked(text))
    return (*prompt.ids, *encode_opening(template, _asked(text), prompt))


def _reference_nll(model: nn.Module, panel: Panel) -> list[float]:
    """What the model without its adapter makes of good answers, nats per token."""
    with as_reference(model):
        return [row.nll / row.tokens for row in answer_nll(model, panel.utility.pairs)]


def _refusal_measures(
    label: str, report: RefusalReport, given: Sequence[Answer], decoding: Decoding, *, measured: bool
) -> list[Measure]:
    low, high = report.refused()
    refused = [float(row.outcome in ("full", "partial")) for row in report.rows]
    note = f"full {_percent(report.rate('full'))}, partial {_percent(report.rate('partial'))}"
    if high.count > low.count:
        note += f"; up to {_percent(high)} if unclear ones are refusals"
    broken = [float(row.outcome == "degenerate") for row in report.rows]
    about = [] if measured else ["gibberish not looked for: the model has no adapter to switch off"]
    about += [f"{report.unscored} answers not scored for gibberish"] if report.unscored else []
    about += [f"{_failed(given)} of them failed to be made"] if _failed(given) else []
    about += _still_thinking(_thinking(given), len(given), decoding)
    return [
        _rate("over-refusal", f"{label}: refused", low, refused, True, note),
        _rate("over-refusal", f"{label}: degenerate", report.rate("degenerate"), broken, True, "; ".join(about)),
    ]


def _capability(
    model: nn.Module, template: Template, panel: Panel, store: Path, key: str, doubts: _Notes
) -> list[Measure]:
    found = perplexity(model, panel.utility.pairs)
    doubts.add(perplexity_doubt(found.value, len(template.tokenizer)))
    each = tuple(row.nll / row.tokens for row in found.rows)
    interval, sizes = (found.value, found.low, found.high), tuple(float(row.tokens) for row in found.rows)
    measures = [Measure("capability", "utility perplexity", *interval, len(each), True, each, weights=sizes)]
    for label, questions in panel.questions.items():
        for templated in (True, False):
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
        given = _answers(model, template, asked, panel.decoding, store, key, label)
        doubts.add(said_doubt(f"{label} prompts", given))
        followed = instruction_following(prompts, [answer.text for answer in given])
        # A prompt with an instruction that cannot be checked is in no rate, so it is in no difference either.
        rows = [float(all(row.strict)) for row in followed.rows if None not in row.strict]
        notes = [f"{followed.prompts_left_out} prompts left out"] if followed.prompts_left_out else []
        notes += [f"{_failed(given)} answers failed to be made"] if _failed(given) else []
        notes += _still_thinking(_thinking(given), len(given), panel.decoding)
        measures.append(
            _rate("capability", f"{label}: instructions", followed.prompt_strict, rows, False, "; ".join(notes))
        )
    return measures


def share_answered(texts: Sequence[str], refuses: Callable[[str], bool]) -> Rate:
    """Responses that are neither empty nor a refusal, over all."""
    return wilson(sum(bool(text.strip()) and not refuses(text) for text in texts), len(texts))
