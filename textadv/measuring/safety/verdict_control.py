"""What a plain fine-tune on the same benign rows explains of what a hardened chat model does better or worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from textadv.measuring.measured import Compared, Measured, compared
from textadv.measuring.safety.caveats import worst_case
from textadv.measuring.safety.record import CAPABILITY, DEGENERATE, REFUSAL, SUCCESS
from textadv.measuring.wording import change_words, value_text

CONTROLS = ("plain", "plain, equal cost")
Direction = Literal["better", "worse", "same"]


def control_of(models: Sequence[Measured]) -> Measured | None:
    """The plain fine-tune that the last model is read beside; None where none was measured between first and last."""
    between = {model.name: model for model in models[1:-1]}
    return next((between[name] for name in CONTROLS if name in between), None)


def control_sentences(models: Sequence[Measured], *, trained: bool) -> tuple[str, ...]:
    """What the control says beside the change from before: of the worst case, and of all that changed for the better.

    Better, worse: the paired 95 % interval lies beyond zero. Without a control, of a perplexity that improved while a
    model was trained: that nothing tells whether hardening did it.
    """
    control = control_of(models)
    if control is None:
        return _uncontrolled(models) if trained and len(models) > 1 else ()
    told = [_worst_case(models, control)]
    told += [_beside(name, models, control) for name in _names(models, control)]
    return tuple(line for line in told if line)


def _uncontrolled(models: Sequence[Measured]) -> tuple[str, ...]:
    return tuple(
        f"{pair.after.name} is better than before ({change_words(pair)}), and no plain fine-tune on the same benign "
        "rows was measured to tell whether hardening did that; baselines: [same_steps] trains one."
        for pair in compared(models[0], models[-1], CAPABILITY)
        if pair.after.unit == "perplexity" and _change(pair) == "better"
    )


def _worst_case(models: Sequence[Measured], control: Measured) -> str:
    worst = worst_case((control, models[-1]), SUCCESS)
    if worst is None:
        return ""
    return (
        f"Fine-tuning on the same benign rows alone ({control.name}) leaves {value_text(worst.before)} % of the "
        f"behaviours broken in the worst case; {models[-1].name} beside it: {change_words(worst)}."
    )


def _names(models: Sequence[Measured], control: Measured) -> list[tuple[str, str]]:
    """Group and name of what is told of: better than before, or worse than the control."""
    found = []
    for group in (REFUSAL, CAPABILITY):
        better = {pair.after.name for pair in compared(models[0], models[-1], group) if _change(pair) == "better"}
        beside = compared(control, models[-1], group)
        names = [pair.after.name for pair in beside if pair.after.name in better or _change(pair) == "worse"]
        found += [(group, name) for name in names if not name.endswith(DEGENERATE)]
    return found


def _beside(which: tuple[str, str], models: Sequence[Measured], control: Measured) -> str:
    group, name = which
    first, last = models[0], models[-1]
    by_name = [
        {pair.after.name: pair for pair in compared(old, new, group)}
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


def _change(pair: Compared) -> Direction:
    sign = 1 if pair.after.lower_is_better else -1
    low, high = sorted((sign * pair.change.low, sign * pair.change.high))
    return "better" if high < 0 else "worse" if low > 0 else "same"
