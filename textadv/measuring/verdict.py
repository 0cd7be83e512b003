"""What the numbers of classifiers say, in sentences: what was bought, what it cost, for whom that is a good trade."""

from __future__ import annotations

from collections.abc import Sequence

from textadv.measuring.accuracy.detection_verdict import Detected, detected
from textadv.measuring.accuracy.record import (
    CLEAN,
    ROBUST,
    SUCCESS,
    WORST,
    counted_in,
    robust_of,
    standing,
    what_is_counted,
    within,
)
from textadv.measuring.measured import Change, Measure, Measured, change
from textadv.measuring.rates import MISSING, percent, rate_text
from textadv.measuring.results import Figure, Training, Verdict, VerdictWord
from textadv.measuring.sections.rows import Rows
from textadv.measuring.statistics import Rate, wilson
from textadv.measuring.wording import p_text, points_text

MOST_STILL_BROKEN = 0.5
"""A model that attacks break on more of its right rows than this is no success, whatever it gained."""
HEADLINES: dict[VerdictWord, str] = {
    "gain": "Robustness gained",
    "partial": "Robustness gained in part",
    "loss": "Robustness lost",
    "unproven": "No gain shown",
    "uncompared": "Nothing to compare",
}


def baseline_of(models: Sequence[Measured]) -> Measured | None:
    """What the last model is compared with: the plain fine-tune, else the first model, else nothing."""
    earlier = models[:-1]
    plain = [model for model in earlier if model.name == "plain"]
    return next(iter((*plain, *earlier)), None)


def classifier_verdict(models: Sequence[Measured], trainings: Sequence[Training]) -> Verdict:
    """What hardening bought against the baseline, what it cost, and for whom that is a good trade."""
    if not models:
        return _uncompared("No model was evaluated.")
    subject, baseline = models[-1], baseline_of(models)
    detector = detected(baseline, subject)
    figures = (*detector.figures, *_figures(baseline, subject, trainings))
    if not subject[CLEAN].total:
        return _uncompared(f"The {_split(subject)} split had no row to evaluate, so nothing is known.", figures=figures)
    saved = not trainings and all(model.measure(WORST) and model.name != "plain" for model in models)
    if len(models) > 2 and saved:
        return _uncompared(*_several(models), *detector.sentences, figures=figures)
    if baseline is None or subject.measure(WORST) is None:
        told = "There is no second model to compare it with."
        return _uncompared(standing(subject), *detector.sentences, told, figures=figures)
    robust, clean = _change(baseline, subject, WORST), _change(baseline, subject, CLEAN)
    if robust is None or clean is None:
        told = f"{baseline.name} and {subject.name} were not measured on the same rows under the same attacks"
        told += ", so no difference under attack is tested."
        return _uncompared(standing(baseline), standing(subject), told, *detector.sentences, figures=figures)
    unimproved, still = _unimproved(baseline, subject), _still_broken(subject)
    word = _word(robust)
    if word == "gain" and (unimproved or still.value > MOST_STILL_BROKEN):
        word = "partial"
    sentences = [
        _bought(baseline, subject, robust, word, bool(trainings)),
        _what_is_left(unimproved, still, counted_in(subject)) if word in ("gain", "partial") else "",
        _clean_change(clean, len(subject[CLEAN].rows)),
        *detector.sentences,
        _cost(training_of(trainings, baseline), training_of(trainings, subject)),
        _equal_cost(models, baseline, subject),
        _for_whom(word, clean, detector),
    ]
    return Verdict(word, HEADLINES[word], tuple(filter(None, sentences)), figures)


def training_of(trainings: Sequence[Training], model: Measured | None) -> Training | None:
    """The run that made the model, or None."""
    return next((run for run in trainings if model and run.name == model.name), None)


def _uncompared(*sentences: str, figures: tuple[Figure, ...] = ()) -> Verdict:
    return Verdict("uncompared", HEADLINES["uncompared"], sentences, figures)


def _split(model: Measured) -> str:
    found = model.section(Rows)
    return found.split if found else "test"


def _change(before: Measured, after: Measured, id: str) -> Change | None:
    first, second = before.measure(id), after.measure(id)
    return None if first is None or second is None else change(first, second)


def _several(models: Sequence[Measured]) -> tuple[str, ...]:
    """The extremes among more than two models, none of which is another's baseline."""
    sentences = []
    for told, id in ((f"under attack ({within(models[0])})", WORST), ("without an attack", CLEAN)):
        most, fewest = max(models, key=lambda m: m[id].value), min(models, key=lambda m: m[id].value)
        sentences.append(
            f"Of {len(models)} models {most.name} is right on the most {counted_in(most)} {told}, "
            f"{rate_text(most[id].rate)}, and {fewest.name} on the fewest, {rate_text(fewest[id].rate)}."
        )
    return tuple(sentences)


def _word(robust: Change) -> VerdictWord:
    if robust.low > 0:
        return "gain"
    return "loss" if robust.high < 0 else "unproven"


def _tested(found: Change) -> str:
    return f"{points_text(found)} points" + ("" if found.p is None else f", {p_text(found.p)}")


def _bought(baseline: Measured, subject: Measured, robust: Change, word: VerdictWord, trained: bool) -> str:
    measured = (
        f"{subject.name} stays right under attack on {percent(subject[WORST].value)} of {subject[WORST].total} "
        f"{what_is_counted(subject)}, {baseline.name} on {percent(baseline[WORST].value)}: {_tested(robust)} "
        f"({within(subject)})"
    )
    later, earlier = ("hardened", "baseline") if trained else ("last", "first")
    more = "Hardening bought robustness" if trained else "The last model is more robust than the first"
    opening = {
        "gain": more,
        "partial": f"{more}, in part",
        "loss": f"The {later} model is less robust than the {earlier}",
        "unproven": "No gain in robustness was shown",
    }
    return f"{opening[word]}: {measured}."


def _unimproved(baseline: Measured, subject: Measured) -> list[Measure]:
    """The success of attacks that still break rows and were not shown to break fewer than before."""
    found = []
    for robust in robust_of(subject):
        paired = _change(baseline, subject, robust.id)
        success = subject[SUCCESS + robust.id.removeprefix(ROBUST)]
        if paired is not None and paired.low <= 0 and success.rate.count:
            found.append(success)
    return found


def _still_broken(subject: Measured) -> Rate:
    """Rows that some attack breaks, of those that are right without one."""
    clean = subject[CLEAN].rate.count
    return wilson(clean - subject[WORST].rate.count, clean)


def _what_is_left(unimproved: Sequence[Measure], still: Rate, counted: str) -> str:
    told = f"Attacks still break {rate_text(still)} of the {still.total} {counted} that it is right on without one"
    named = ", ".join(f"{m.id.removeprefix(SUCCESS)}, which breaks {percent(m.value)}" for m in unimproved)
    return f"{told}; no gain was shown against {named}." if named else f"{told}."


def _clean_change(clean: Change, rows: int) -> str:
    if clean.high < 0:
        return f"It cost clean accuracy: {_tested(clean)}."
    if clean.low > 0:
        return f"Clean accuracy rose: {_tested(clean)}."
    return f"Clean accuracy changed by {_tested(clean)}; {rows} rows cannot tell that from no change."


def _cost(first: Training | None, second: Training | None) -> str:
    if second is None:
        return ""
    if first is None or not first.passes or not first.seconds:
        return f"Training took {second.seconds:,.0f} s and {second.passes:,} passes of one row."
    return (
        f"Training took {second.passes / first.passes:.1f} times the passes of {first.name} "
        f"({second.seconds:,.0f} s against {first.seconds:,.0f} s)."
    )


def _equal_cost(models: Sequence[Measured], baseline: Measured, subject: Measured) -> str:
    equal = next((model for model in models[:-1] if model.name == "plain, equal cost"), None)
    if equal is None or equal is baseline:
        return ""
    robust, clean = _change(equal, subject, WORST), _change(equal, subject, CLEAN)
    if robust is None or clean is None:
        return ""
    told = f"{points_text(robust)} points under attack, {points_text(clean)} points clean."
    return f"Against a plain fine-tune of equal cost: {told}"


def _for_whom(word: VerdictWord, clean: Change, detector: Detected) -> str:
    if word == "loss":
        return "Nobody is served by shipping this model instead of the baseline."
    if word == "unproven":
        return "Nothing here supports shipping this model instead of the baseline; more rows might decide it."
    trade = "a trade" if clean.high < 0 or detector.worse or word == "partial" else "a good trade"
    return (
        f"That is {trade} where inputs may be perturbed as the threat model below describes; "
        "these numbers say nothing about attacks outside it."
    )


def _figures(baseline: Measured | None, subject: Measured, trainings: Sequence[Training]) -> tuple[Figure, ...]:
    """What it withstands, what it knows, what it took."""
    titles = {WORST: "Right under the worst attack", CLEAN: "Right without attack"}
    figures = [_figure(title, found, baseline) for id, title in titles.items() if (found := subject.measure(id))]
    run, other = training_of(trainings, subject), training_of(trainings, baseline)
    if run is not None and other is not None and other.passes:
        figures.append(Figure("Training cost", f"x {run.passes / other.passes:.1f}", f"the passes of {other.name}"))
    elif run is not None:
        figures.append(Figure("Training cost", f"{run.seconds:,.0f} s", f"{run.passes:,} passes of one row"))
    return tuple(figures)


def _figure(title: str, found: Measure, baseline: Measured | None) -> Figure:
    first = baseline.measure(found.id) if baseline else None
    paired = change(first, found) if first else None
    alone = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]" if found.total else MISSING
    told = f"{points_text(paired)} points against {baseline.name}" if paired and baseline else alone
    return Figure(title, percent(found.value), told)
