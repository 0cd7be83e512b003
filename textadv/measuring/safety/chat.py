"""Everything that is measured on a chat model: attack success, over-refusal, degenerate answers, capability.

All of it is one flat list of measures, each with its interval and its value on every row, so that two models can be
compared row by row.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import nn

from textadv.data import Rows
from textadv.data.rendering import Template, one_turn, template_of
from textadv.measuring.capability.instructions import instruction_following
from textadv.measuring.capability.likelihood import perplexity
from textadv.measuring.capability.multiple_choice import choice_result, score_choices
from textadv.measuring.judges.refusal import RefusalReport, over_refusal
from textadv.measuring.judges.validation import reliability
from textadv.measuring.judges.verdicts import Judge
from textadv.measuring.ledger import repaired
from textadv.measuring.measured import Measure, Measured
from textadv.measuring.safety.adapter_scales import by_scale
from textadv.measuring.safety.adversaries import Adversary, behaviours_of
from textadv.measuring.safety.answer_book import AnswerBook, Row
from textadv.measuring.safety.curve_reach import Reached, curve_doubts, inside, with_curve, with_worst_case
from textadv.measuring.safety.degenerate import Limits
from textadv.measuring.safety.elicitation import BehaviourOutcome, Elicitation, elicit
from textadv.measuring.safety.fluency import NOT_SCORED, Base, own_base, reference_limit, said_nll
from textadv.measuring.safety.generate import Decoding, Prompt, answers
from textadv.measuring.safety.invariance import Told as Attacked
from textadv.measuring.safety.invariance import batch_invariance
from textadv.measuring.safety.kept_answers import Answer, files_of, fits, opened
from textadv.measuring.safety.measures import (
    failed,
    outcome_measures,
    percent,
    rate,
    refusal_measures,
    still_thinking,
    success,
    thinking,
)
from textadv.measuring.safety.outcomes import Grounds, as_outcomes, outcomes_of, refusals_of
from textadv.measuring.safety.outcomes_calibrated import grounds_of
from textadv.measuring.safety.panel import Asked, Panel
from textadv.measuring.safety.radius_curve import BY_RADIUS, success_by_radius
from textadv.measuring.safety.record import Talked
from textadv.measuring.safety.sanity import (
    chance_of,
    choice_doubts,
    failed_doubt,
    failed_doubts,
    perplexity_doubt,
    said_doubt,
    silence_doubt,
    weaker_doubts,
)
from textadv.measuring.safety.success_at import attack_runs, failures_of, samples_of
from textadv.measuring.sections.batch_invariance import BatchInvariance
from textadv.measuring.sections.outcomes import AttackOutcomes
from textadv.measuring.statistics import Rate, wilson
from textadv.models.adapter_scale import adapter_moves, adapter_scaled
from textadv.values.flops import NONE_SPENT, Flops
from textadv.values.host.phases import within
from textadv.values.plurals import some

__all__ = ["Asked", "Panel", "evaluate_chat", "share_answered"]


def evaluate_chat(
    name: str,
    model: nn.Module,
    tokenizer: Any,
    panel: Panel,
    *,
    key: str,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Every measure of the panel on one model.

    tokenizer: or the `Template` that the panel was made with: what its model thinks is then told from what it says.
    key: names all but the prompt that answers follow from; those in `folder` under the same are not written again.
    """
    # A saved model is named by its path, which must not lead out of the folder.
    store = folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.jsonl"
    for line in repaired(files_of(store).there(), "answers", fits):
        say(f"note: {line}")
    return _Evaluation(name, model, template_of(tokenizer), panel, AnswerBook(store, name), key, say).run()


@dataclass
class _Evaluation:
    """The evaluation of the model `name`: what its parts share.

    book: what is known of its answers. notes: what cannot be right about the numbers, said as it is found. cost: passes
    and seconds, by what they were for. reached: what the curve broke. attacked: what the panel was answered.
    curve_flops: what the curve's searches and answers took. answers: whether the model has answered anything; until
    then an attack to which every answer fails ends the evaluation.
    """

    name: str
    model: nn.Module
    template: Template
    panel: Panel
    book: AnswerBook
    key: str
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    reached: Reached = field(default_factory=Reached)
    attacked: Attacked | None = None
    curve_flops: tuple[Flops, Flops] = (NONE_SPENT, NONE_SPENT)
    answers: bool = False

    def run(self) -> Measured:
        """The record."""
        panel, began = self.panel, time.perf_counter()
        self._told(self.book.note())
        base = panel.base or own_base(self.model, self.template)
        limit = None if base is None else reference_limit(base, panel.useful, panel.utility.pairs)
        if base is not None and limit is None:
            self._doubt(NOT_SCORED)
        benign = self._benign(base, limit)
        grounds = grounds_of(panel, base, {label: report for label, (_, report) in benign.items()})
        attacked = time.perf_counter()
        measures, outcomes = self._attack_success(grounds)
        curve = self._by_radius(grounds)
        measures, outcomes = self._with_curve(measures, outcomes)
        measures += self._by_scale(grounds)
        self.cost["attack seconds"] = time.perf_counter() - attacked
        for label, (given, report) in benign.items():
            self._doubt(said_doubt(f"{label} prompts", given))
            graded = refusal_measures(label, report, given, panel.decoding, measured=limit is not None)
            measures += [replace(measure, row_ids=panel.benign[label].row_ids) for measure in graded]
            self._progress(f"{label}: {report}")
        measures += [*self._capability(), *self._instructions()]
        self.book.write(last=True)
        self._told(self.book.earlier())
        invariance = self._invariance(grounds)
        self.cost["seconds"] = time.perf_counter() - began
        assert self.attacked is not None
        found, told = self.attacked
        return Talked(
            name=self.name,
            measures=tuple(measures),
            attacks=attack_runs(found, panel.attacks),
            judges=tuple(reliability(judge) for judge in (panel.judge, *panel.others)),
            cost=self.cost,
            notes=tuple(self.notes),
            outcomes=outcomes,
            fluency=grounds.fluency,
            curve=tuple(curve),
            curve_flops=self.curve_flops if curve else None,
            behaviours=tuple(panel.behaviours.ids),
            samples=samples_of(found, told, panel.success_at, panel.budget, panel.attacks),
            failures=failures_of(found, told),
            invariance=invariance,
        ).record

    def _told(self, line: str | None) -> None:
        if line is not None:
            self.say(f"note: {line}")

    def _doubt(self, doubt: str | None) -> None:
        if doubt is not None and doubt not in self.notes:
            self.notes.append(doubt)
            self._told(f"{self.name}: {doubt}")

    def _progress(self, line: str) -> None:
        """Says how far it is."""
        self.say(f"{self.name}: {line}")

    def _asked(self, asked: Asked, label: str) -> list[Answer]:
        """One greedy answer to each prompt."""
        once = Decoding(self.panel.decoding.max_new_tokens, batch_size=self.panel.decoding.batch_size)
        prompts = [Prompt(n, ids) for n, ids in enumerate(asked.ids)]
        made = partial(answers, self.model, self.template.tokenizer, prompts, once, all_may_fail=True)
        given = made(store=self.book.path, key=self.key, attack=label, speech=self.template.speech)
        self.answers |= any(answer.status != "error" for answer in given)
        self._doubt(failed_doubt(f"{label} prompts", given))
        return given

    def _benign(self, base: Base | None, limit: float | None) -> dict[str, tuple[list[Answer], RefusalReport]]:
        """The answers to the prompts that should be answered, and what they are, by name of the prompts."""
        found = {}
        for label, asked in self.panel.benign.items():
            given = self._asked(asked, label)
            said = [None if answer.status == "thinking" else answer.text for answer in given]
            nll = None
            if base is not None and limit is not None:
                nll = partial(said_nll, base, dict(zip(asked.texts, asked.turns, strict=True)))
            with within(f"{label}: gibberish"):
                report = over_refusal(asked.texts, said, limits=Limits(nll=limit), nll=nll)
            self.book.graded(report, given, asked.row_ids)
            found[label] = given, report
        return found

    def _elicited(
        self, rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary], judge: Judge, **told: Any
    ) -> Elicitation:
        """What the attacks elicit, as the judge sees it, which the book takes note of. told: who is told of it."""
        asked = partial(elicit, self.model, self.template.tokenizer, rows, requests, attacks, judge)
        asked = partial(asked, self.panel.decoding, store=self.book.path, key=self.key, budget=self.panel.budget)
        asked = partial(asked, all_may_fail=self.answers)
        found = asked(speech=self.template.speech, refusals=refusals_of(self.panel.judge), **told)
        for doubt in failed_doubts(found, attacks):
            self._doubt(doubt)
        self.book.judged(found, self._rows)
        return found

    @cached_property
    def _rows(self) -> dict[int, Row]:
        """The behaviours as the lines of answers tell of them, by id."""
        found, speech = behaviours_of(self.panel.behaviours), self.template.speech
        chats = self.panel.chats or [()] * len(found)
        rows = {}
        for row, prompt, chat in zip(found, self.panel.prompts, chats, strict=True):
            target = speech.decoded(self.template.tokenizer, speech.unclosed(row.target))
            rows[row.id] = Row(row.id, prompt, target, () if list(chat) == list(one_turn(prompt)) else chat)
        return rows

    def _attack_success(self, grounds: Grounds) -> tuple[list[Measure], tuple[AttackOutcomes, ...]]:
        panel, judged = self.panel, dict[str, Elicitation]()
        for judge in (panel.judge, *panel.others):
            judged[judge.name] = self._elicited(
                panel.behaviours, panel.prompts, panel.attacks, judge, say=self._progress
            )
            self.book.write()
        first = judged[panel.judge.name]
        self.answers = True
        self._doubt(silence_doubt(first))
        outcomes = outcomes_of(first, grounds, None if panel.decides is None else judged[panel.decides.name])
        for one in outcomes:
            self._progress(f"{one}, {grounds.definition}")
        self.book.outcomes(first, [one.answers for one in outcomes if one.answers])
        for doubt in weaker_doubts(outcomes, panel.attacks):
            self._doubt(doubt)
        self.attacked = first, outcomes
        for attack in first.attacks:
            self.cost[f"{attack.name} forwards"] = float(attack.forwards)
            self.cost[f"{attack.name} backwards"] = float(attack.backwards)
        spent = {attack.name: attack.flops for attack in (*first.attacks, first.worst_case)}
        measures = outcome_measures(outcomes, first.decoding, spent)
        for judge in panel.others:
            found = judged[judge.name]
            measures += [success(attack, found) for attack in (*found.attacks, found.worst_case)]
        return [replace(measure, row_ids=tuple(panel.behaviours.ids)) for measure in measures], outcomes

    def _with_curve(
        self, measures: list[Measure], outcomes: tuple[AttackOutcomes, ...]
    ) -> tuple[list[Measure], tuple[AttackOutcomes, ...]]:
        """Measures and outcomes whose worst case counts what the curve found inside the threat."""
        panel, ids = self.panel, self.panel.behaviours.ids
        found = with_curve(outcomes, self.reached, inside(panel.curve, panel.attacks), ids)
        for doubt in curve_doubts(outcomes, panel.attacks, self.reached, panel.curve, ids):
            self._doubt(doubt)
        if found[-1].behaviours != outcomes[-1].behaviours:
            self._progress(f"{found[-1]}, with the curve up to the threat's radius")
        counted = with_worst_case(measures, outcomes[-1], found[-1], panel.decoding)
        return [replace(measure, row_ids=tuple(ids)) for measure in counted], found

    def _invariance(self, grounds: Grounds) -> BatchInvariance | None:
        """What some prompts are answered alone, beside what they were answered in batches."""
        panel, tokenizer, speech = self.panel, self.template.tokenizer, self.template.speech
        places = {number: place for place, number in enumerate(panel.behaviours.ids)}

        def ask(rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary], alone: Decoding) -> Attacked:
            judges = [judge for judge in (panel.judge, panel.decides) if judge is not None]
            asked = partial(elicit, self.model, tokenizer, rows, requests, attacks)
            asked = partial(asked, key=self.key, speech=speech, refusals=refusals_of(panel.judge), all_may_fail=True)
            found, *decided = (asked(judge, alone) for judge in judges)
            return found, outcomes_of(found, grounds, next(iter(decided), None), places)

        assert self.attacked is not None
        wanted = (panel.behaviours, panel.prompts, panel.attacks, panel.decoding, self.attacked, panel.batch_invariance)
        with within("answered alone"):
            return batch_invariance(ask, *wanted)

    def _by_radius(self, grounds: Grounds) -> list[Measure]:
        panel, cost, searched = self.panel, self.cost, dict[tuple[str, int], BehaviourOutcome]()
        places = {number: place for place, number in enumerate(panel.behaviours.ids)}

        def ask(rows: Rows, requests: Sequence[str], attacks: Mapping[str, Adversary]) -> Elicitation:
            found, *decided = (
                self._elicited(rows, requests, attacks, judge)
                for judge in (panel.judge, panel.decides)
                if judge is not None
            )
            outcomes = outcomes_of(found, grounds, next(iter(decided), None), places)
            self.book.outcomes(found, [one.answers for one in outcomes if one.answers])
            searched.update({(outcome.attack, outcome.id): outcome for outcome in found.outcomes})
            self.reached.saw(attacks, rows.ids, outcomes)
            return as_outcomes(found, outcomes)

        measures = []
        for point in success_by_radius(ask, panel.behaviours, panel.prompts, panel.curve):
            total = len(point.broken)
            low, high = wilson(sum(point.broken), total), wilson(sum(point.possibly), total)
            told = [f"up to {percent(high)} with what broke off or is not known"] if high.count > low.count else []
            note = "; ".join([*told, point.description])
            self._progress(f"{point.name}: complied {low.count} of {total} behaviours, {grounds.definition}")
            measure = rate(BY_RADIUS, point.name, low, list(map(float, point.broken)), True, note)
            flops = point.search_flops + point.answer_flops
            measures.append(replace(measure, row_ids=tuple(panel.behaviours.ids[:total]), flops=flops))
            self.curve_flops = (self.curve_flops[0] + point.search_flops, self.curve_flops[1] + point.answer_flops)
            cost["curve forwards"] = cost.get("curve forwards", 0.0) + point.forwards
            cost["curve backwards"] = cost.get("curve backwards", 0.0) + point.backwards
        opened(self.book.path, self.model).share(self._carried([measure.name for measure in measures], searched))
        return measures

    def _by_scale(self, grounds: Grounds) -> list[Measure]:
        """What complied and what was refused at each scale of the adapter; counted in no worst case."""
        if self.panel.scales and not adapter_moves(self.model):
            self._told(f"{self.name}: its adapter changes nothing, so that evaluation.adapter_scales are left out")
            return []
        measures = []
        for scale in self.panel.scales:
            with adapter_scaled(self.model, scale), within(f"adapter x {scale:g}"):
                asked = replace(self, key=f"{self.key}, adapter x {scale:g}")
                measures += by_scale(scale, self.panel, asked._elicited, asked._asked, self.book, grounds)
            told = ", ".join(f"{one.name} {percent(one.rate)}" for one in measures if one.name.endswith(f" {scale:g}"))
            self._progress(f"adapter scale: {told}")
        return measures

    def _carried(self, names: Sequence[str], told: Mapping[tuple[str, int], BehaviourOutcome]) -> list[Answer]:
        """What counts at a radius where it was not asked for: the answers to behaviours that broke at a smaller one.

        names: of the curve's attacks, by ascending radius. told: what was asked, by attack and id.
        """
        found = []
        for number in self.panel.behaviours.ids:
            last: BehaviourOutcome | None = None
            for name in names:
                own = told.get((name, number))
                if own is None and last is not None:
                    found += self.book.carried(name, last)
                last = own or last
        return found

    def _capability(self) -> list[Measure]:
        """The likelihood of useful answers, and questions with choices."""
        with within("utility perplexity"):
            found = perplexity(self.model, self.panel.utility.pairs)
        self._doubt(perplexity_doubt(found.value, len(self.template.tokenizer)))
        each = tuple(row.nll / row.tokens for row in found.rows)
        interval, sizes = (found.value, found.low, found.high), tuple(float(row.tokens) for row in found.rows)
        measures = [
            Measure(
                "capability", "utility perplexity", *interval, len(each), True, each, weights=sizes, unit="perplexity"
            )
        ]
        for label, questions in self.panel.questions.items():
            for templated in (True, False):
                with within(label):
                    scores = score_choices(
                        self.model, self.template, questions, chat_template=templated, too_long="skip"
                    )
                result = choice_result(scores, "acc_norm")
                name = f"{label}: multiple choice" + ("" if templated else ", no template")
                for doubt in choice_doubts(name, scores, result.per_row):
                    self._doubt(doubt)
                note = f"{len(result.skipped)} too long, skipped" if result.skipped else ""
                total, numbers = len(result.per_row), (result.value, result.low, result.high)
                chance = chance_of(scores)
                measures.append(
                    Measure("capability", name, *numbers, total, False, result.per_row, note, chance=chance)
                )
        return measures

    def _instructions(self) -> list[Measure]:
        """Instructions that code can check."""
        measures = []
        for label, (prompts, asked) in self.panel.instructions.items():
            given = self._asked(asked, label)
            self._doubt(said_doubt(f"{label} prompts", given))
            followed = instruction_following(prompts, [answer.text for answer in given])
            self.book.followed(asked.texts, given, [row.strict for row in followed.rows], asked.row_ids)
            # A prompt with an instruction that cannot be checked is in no rate, so it is in no difference either.
            whole = {number: row.strict for number, row in zip(asked.row_ids, followed.rows, strict=True)}
            held = {number: float(all(strict)) for number, strict in whole.items() if None not in strict}
            notes = [f"{some(followed.prompts_left_out, 'prompt')} left out"] if followed.prompts_left_out else []
            notes += [f"{some(failed(given), 'answer')} failed to be made"] if failed(given) else []
            notes += still_thinking(thinking(given), len(given), self.panel.decoding)
            name, rows = f"{label}: instructions", list(held.values())
            measure = rate("capability", name, followed.prompt_strict, rows, False, "; ".join(notes))
            measures.append(replace(measure, row_ids=tuple(held)))
        return measures


def share_answered(texts: Sequence[str], refuses: Callable[[str], bool]) -> Rate:
    """Responses that are neither empty nor a refusal, over all."""
    return wilson(sum(bool(text.strip()) and not refuses(text) for text in texts), len(texts))
