"""What a plain fine-tune on the same benign rows explains of what a hardened chat model does better or worse."""

from __future__ import annotations

from typing import Literal

from textadv.evaluation.chat import ChatEvaluation
from textadv.evaluation.chat_results import ChatResults, ChatTraining
from textadv.evaluation.elicitation import WORST_CASE
from textadv.report.comparison_chat import (
    CAPABILITY,
    REFUSAL,
    SUCCESS,
    Compared,
    change_words,
    compared,
    compared_models,
    control_of,
    is_perplexity,
    value_text,
)

DEGENERATE = ": degenerate"
Change = Literal["better", "worse", "same"]


def control_sentences(results: ChatResults) -> tuple[str, ...]:
    """What the control says beside the change from before: of the worst case, and of all that changed for the better.

    Better, worse: the paired 95 % interval lies beyond zero. Without a control, of a perplexity that improved while a
    model was trained: that nothing tells whether hardening did it.
    """
    control = control_of(results)
    if control is None:
        return _uncontrolled(results)
    told = [_worst_case(results, control)]
    told += [_beside(name, results, control) for name in _names(results, control)]
    return tuple(line for line in told if line)


def baseline_lines(results: ChatResults) -> tuple[str, ...]:
    """How each plain fine-tune was trained, and which checkpoint was kept."""
    return tuple(map(_trained, results.baselines))


def _trained(run: ChatTraining) -> str:
    return (
        f"{run.name}: the same utility and borderline rows without adversarial ones: {run.steps:,} optimizer steps, "
        f"{run.rows_seen:,} rows, {run.forwards:,} forwards and {run.backwards:,} backwards of one row, "
        f"{run.seconds:,.0f} s. Kept: {run.selected}, from step {run.selected_step:,}, by validation perplexity."
    )


def _uncontrolled(results: ChatResults) -> tuple[str, ...]:
    if results.training is None:
        return ()
    return tuple(
        f"{pair.after.name} is better than before ({change_words(pair)}), and no plain fine-tune on the same benign "
        "rows was measured to tell whether hardening did that; baselines: [same_steps] trains one."
        for pair in compared(results, CAPABILITY)
        if is_perplexity(pair.after) and _change(pair) == "better"
    )


def _worst_case(results: ChatResults, control: ChatEvaluation) -> str:
    pairs = compared_models(control, results.evaluations[-1], SUCCESS)
    worst = next((pair for pair in pairs if pair.after.name == WORST_CASE), None)
    if worst is None:
        return ""
    return (
        f"Fine-tuning on the same benign rows alone ({control.name}) leaves {value_text(worst.before)} % of the "
        f"behaviours broken in the worst case; {results.evaluations[-1].name} beside it: {change_words(worst)}."
    )


def _names(results: ChatResults, control: ChatEvaluation) -> list[tuple[str, str]]:
    """Group and name of what is told of: better than before, or worse than the control."""
    found = []
    for group in (REFUSAL, CAPABILITY):
        better = {pair.after.name for pair in compared(results, group) if _change(pair) == "better"}
        beside = compared_models(control, results.evaluations[-1], group)
        names = [pair.after.name for pair in beside if pair.after.name in better or _change(pair) == "worse"]
        found += [(group, name) for name in names if not name.endswith(DEGENERATE)]
    return found


def _beside(which: tuple[str, str], results: ChatResults, control: ChatEvaluation) -> str:
    group, name = which
    first, last = results.evaluations[0], results.evaluations[-1]
    by_name = [
        {pair.after.name: pair for pair in compared_models(old, new, group)}
        for old, new in ((first, last), (first, control), (control, last))
    ]
    if not all(name in pairs for pairs in by_name):
        return ""
    own, plain, beside = (pairs[name] for pairs in by_name)
    label, words = name.removesuffix(": refused"), f"{control.name} ({change_words(beside)})"
    if _change(own) != "better":
        return f"{label} is worse than that of {words}, which the comparison with {first.name} does not show."
    opening = f"{label} is better than {first.name} ({change_words(own)})"
    if _change(beside) == "better":
        return f"{opening}, and better than {words}: hardening adds to what the benign rows do."
    if _change(plain) != "better":
        return f"{opening}, yet not shown to be better than {words}: no gift of hardening is shown."
    opening += f", and so is {control.name} ({change_words(plain)})"
    if _change(beside) == "worse":
        return f"{opening}; it is worse than {words}: the benign rows did it, and hardening took some of it back."
    return f"{opening}; no difference to {words} is shown: the benign rows did it, not hardening."


def _change(pair: Compared) -> Change:
    sign = 1 if pair.after.lower_is_better else -1
    low, high = sorted((sign * pair.change.low, sign * pair.change.high))
    return "better" if high < 0 else "worse" if low > 0 else "same"
