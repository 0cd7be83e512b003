"""What the numbers say, in sentences: what was bought, what it cost, and what a reader should doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from textadv.evaluation.beside import counted
from textadv.evaluation.results import AttackResult, Evaluation, Results, Training
from textadv.evaluation.statistics import Rate, wilson
from textadv.report.comparison import (
    Paired,
    baseline_of,
    compare,
    p_text,
    passes,
    percent,
    points_text,
    radius_text,
    rate_text,
    right_clean,
    right_everywhere,
    right_under,
    training_of,
)
from textadv.report.exports import export_doubts

Verdict = Literal["gain", "partial", "trade", "loss", "unproven", "uncompared"]

MOST_STILL_BROKEN = 0.5
"""A model that attacks break on more of its right rows than this is no success, whatever it gained."""


@dataclass(frozen=True)
class Summary:
    """The verdict on robustness and the sentences that back it, the most important first."""

    verdict: Verdict
    sentences: tuple[str, ...]


def summary(results: Results) -> Summary:
    """What hardening bought against the baseline, what it cost, and for whom that is a good trade."""
    if not results.evaluations:
        return Summary("uncompared", ("No model was evaluated.",))
    subject, baseline = results.evaluations[-1], baseline_of(results)
    if not subject.rows:
        return Summary("uncompared", (f"The {subject.split} split had no row to evaluate, so nothing is known.",))
    saved = not results.trainings and all(e.attacks and e.name != "plain" for e in results.evaluations)
    if len(results.evaluations) > 2 and saved:
        return Summary("uncompared", _several(results.evaluations))
    if baseline is None or not subject.attacks:
        return Summary("uncompared", (_standing(subject), "There is no second model to compare it with."))
    robust = compare(baseline, subject, right_everywhere)
    clean = compare(baseline, subject, right_clean)
    if robust is None or clean is None:
        told = f"{baseline.name} and {subject.name} were not measured on the same rows under the same attacks"
        return Summary("uncompared", (_standing(baseline), _standing(subject), f"{told}, so no difference is tested."))
    unimproved, still = _unimproved(baseline, subject), _still_broken(subject)
    verdict = _verdict(robust)
    if verdict == "gain" and (unimproved or still.value > MOST_STILL_BROKEN):
        verdict = "partial"
    cost = _cost(training_of(results, baseline), training_of(results, subject))
    sentences = [
        _bought(baseline, subject, robust, verdict, bool(results.trainings)),
        _clean_change(clean),
        cost,
        _for_whom(verdict, clean),
    ]
    if verdict in ("gain", "partial"):
        sentences.insert(1, _what_is_left(unimproved, still))
    equal = next((e for e in results.evaluations[:-1] if e.name == "plain, equal cost"), None)
    if equal is not None and equal is not baseline:
        sentences.insert(-1, _equal_cost(equal, subject))
    return Summary(verdict, tuple(sentence for sentence in sentences if sentence))


def threat_lines(results: Results) -> tuple[str, ...]:
    """Each threat model with the attacks that were run inside it, once."""
    found = [attack for evaluation in results.evaluations for attack in evaluation.attacks]
    return tuple(dict.fromkeys(f"{a.name}: {a.threat}; attack: {a.attack}" for a in found))


def training_lines(results: Results) -> tuple[str, ...]:
    """One sentence or two per training run: what was kept and whether robust overfitting was seen."""
    return tuple(_training_line(run) for run in results.trainings)


def doubts(results: Results) -> tuple[str, ...]:
    """The run's warnings and notes, then what the numbers themselves give away about a broken model or attack."""
    found = list(results.warnings)
    for run in results.trainings:
        found += [f"{run.name}: {note}" for note in run.notes]
    for evaluation in results.evaluations:
        found += [f"{evaluation.name}: {note}" for note in evaluation.notes]
        found += _collapse(evaluation) + _rising_curve(evaluation) + _idle_attacks(evaluation) + _masking(evaluation)
        found += _beside(evaluation) + _closer(evaluation)
    found += export_doubts(results.exports)
    return tuple(dict.fromkeys(found))


def _standing(evaluation: Evaluation) -> str:
    clean = f"{evaluation.name} is right on {rate_text(evaluation.clean)} of {evaluation.rows} {evaluation.split} rows"
    if not evaluation.attacks:
        return f"{clean}; no attack was run."
    return f"{clean} and on {rate_text(evaluation.worst_case)} under attack ({_attacks(evaluation)})."


def _several(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """The extremes among more than two models, none of which is another's baseline."""
    sentences = []
    for told, rate in ((f"under attack ({_attacks(evaluations[0])})", _worst), ("without an attack", _clean)):
        most, fewest = max(evaluations, key=lambda e: rate(e).value), min(evaluations, key=lambda e: rate(e).value)
        sentences.append(
            f"Of {len(evaluations)} models {most.name} is right on the most rows {told}, {rate_text(rate(most))}, and "
            f"{fewest.name} on the fewest, {rate_text(rate(fewest))}."
        )
    return tuple(sentences)


def _worst(evaluation: Evaluation) -> Rate:
    return evaluation.worst_case


def _clean(evaluation: Evaluation) -> Rate:
    return evaluation.clean


def _attacks(evaluation: Evaluation) -> str:
    named: dict[str, list[str]] = {}
    for attack in evaluation.attacks:
        named.setdefault(attack.threat, []).append(attack.name)
    return "; ".join(f"{', '.join(names)}, within: {threat}" for threat, names in named.items())


def _verdict(robust: Paired) -> Verdict:
    if robust.difference.low > 0:
        return "gain"
    return "loss" if robust.difference.high < 0 else "unproven"


def _bought(baseline: Evaluation, subject: Evaluation, robust: Paired, verdict: Verdict, trained: bool) -> str:
    measured = (
        f"{subject.name} stays right under attack on {percent(subject.worst_case.value)} of {robust.rows} "
        f"{subject.split} rows, {baseline.name} on {percent(baseline.worst_case.value)}: "
        f"{points_text(robust.difference)} points, {p_text(robust.p)} ({_attacks(subject)})"
    )
    later, earlier = ("hardened", "baseline") if trained else ("last", "first")
    more = "Hardening bought robustness" if trained else "The last model is more robust than the first"
    opening = {
        "gain": more,
        "partial": f"{more}, in part",
        "trade": "",
        "loss": f"The {later} model is less robust than the {earlier}",
        "unproven": "No gain in robustness was shown",
        "uncompared": "",
    }
    return f"{opening[verdict]}: {measured}."


def _unimproved(baseline: Evaluation, subject: Evaluation) -> list[AttackResult]:
    """The attacks that still break rows and were not shown to break fewer than before."""
    found = []
    for attack in subject.attacks:
        paired = compare(baseline, subject, right_under(attack.name))
        if paired is not None and paired.difference.low <= 0 and attack.success.count:
            found.append(attack)
    return found


def _still_broken(subject: Evaluation) -> Rate:
    """Rows that some attack breaks, of those that are right without one."""
    return wilson(subject.clean.count - subject.worst_case.count, subject.clean.count)


def _what_is_left(unimproved: Sequence[AttackResult], still: Rate) -> str:
    told = f"Attacks still break {rate_text(still)} of the {still.total} rows that it is right on without one"
    named = ", ".join(f"{attack.name}, which breaks {percent(attack.success.value)}" for attack in unimproved)
    return f"{told}; no gain was shown against {named}." if named else f"{told}."


def _clean_change(clean: Paired) -> str:
    change = f"{points_text(clean.difference)} points, {p_text(clean.p)}"
    if clean.difference.high < 0:
        return f"It cost clean accuracy: {change}."
    if clean.difference.low > 0:
        return f"Clean accuracy rose: {change}."
    return f"Clean accuracy changed by {change}; {clean.rows} rows cannot tell that from no change."


def _cost(first: Training | None, second: Training | None) -> str:
    if second is None:
        return ""
    if first is None or not passes(first) or not first.seconds:
        return f"Training took {second.seconds:,.0f} s and {passes(second):,} passes of one row."
    return (
        f"Training took {passes(second) / passes(first):.1f} times the passes of {first.name} "
        f"({second.seconds:,.0f} s against {first.seconds:,.0f} s)."
    )


def _equal_cost(equal: Evaluation, subject: Evaluation) -> str:
    robust, clean = compare(equal, subject, right_everywhere), compare(equal, subject, right_clean)
    if robust is None or clean is None:
        return ""
    return (
        f"Against a plain fine-tune of equal cost: {points_text(robust.difference)} points under attack, "
        f"{points_text(clean.difference)} points clean."
    )


def _for_whom(verdict: Verdict, clean: Paired) -> str:
    if verdict == "loss":
        return "Nobody is served by shipping this model instead of the baseline."
    if verdict == "unproven":
        return "Nothing here supports shipping this model instead of the baseline; more rows might decide it."
    trade = "a trade" if clean.difference.high < 0 or verdict == "partial" else "a good trade"
    return (
        f"That is {trade} where inputs may be perturbed as the threat model below describes; "
        "these numbers say nothing about attacks outside it."
    )


def _training_line(run: Training) -> str:
    line = (
        f"{run.name}: objective {run.objective}, {run.steps:,} optimizer steps, {run.rows_seen:,} rows of which "
        f"{run.adversarial_rows:,} attacked, {passes(run):,} passes, {run.seconds:,.0f} s. "
        f"Kept: {run.selected}, from step {run.selected_step:,}."
    )
    if run.best_robust is not None and run.last_robust is not None and run.overfitting is not None:
        line += (
            f" Robust accuracy on validation rows: best {percent(run.best_robust)}, last {percent(run.last_robust)}, "
            f"so robust overfitting is {100 * run.overfitting:.1f} points."
        )
    return line


def _collapse(evaluation: Evaluation) -> list[str]:
    """Of results that were written without notes."""
    if evaluation.notes:
        return []
    predicted = {row.clean_prediction for row in evaluation.rows_detail}
    if len(predicted) == 1 and len({row.label for row in evaluation.rows_detail}) > 1:
        return [f"{evaluation.name} gives every row class {predicted.pop()}: it has collapsed, its robustness is void."]
    return []


def _rising_curve(evaluation: Evaluation) -> list[str]:
    """A larger ball holds the smaller one, so a real rise means that the attack fails at the larger radius."""
    pairs = zip(evaluation.curve, evaluation.curve[1:], strict=False)
    return [
        f"{evaluation.name}: robust accuracy rises from {percent(a.robust.value)} to {percent(b.robust.value)} between "
        f"{radius_text(a.radius, a.relative_radius)} and {radius_text(b.radius, b.relative_radius)}; "
        "the attack is too weak there or its gradient is masked."
        for a, b in pairs
        if b.robust.value > a.robust.value + 0.02
    ]


def _idle_attacks(evaluation: Evaluation) -> list[str]:
    return [
        f"{evaluation.name}: {a.name} broke none of {a.success.total} rows; check that the attack works before "
        "reading this as robustness."
        for a in evaluation.attacks
        if a.success.total and not a.success.count
    ]


def _masking(evaluation: Evaluation) -> list[str]:
    ringing = [flag for flag in evaluation.masking if flag.state == "ring"]
    return [f"{evaluation.name}: masking alarm, {flag.name}: {flag.told}" for flag in ringing]


def _beside(evaluation: Evaluation) -> list[str]:
    """Rows that the worst case counts as broken though no attack of the panel broke them."""
    told = counted([row.beside for row in evaluation.rows_detail if row.beside])
    return [f"{evaluation.name}: {told}."] if told else []


def _closer(evaluation: Evaluation) -> list[str]:
    """Rows that the search for the smallest radius broke inside the ball and no attack of the panel did."""
    found = evaluation.minimum
    if found is None or not evaluation.attacks:
        return []
    right = {row.id for row in evaluation.rows_detail if right_everywhere(replace(row, beside=""))}
    closer = [row for row in found.radii if row.id in right and row.radius is not None and row.radius <= found.radius]
    if not closer:
        return []
    return [
        f"{evaluation.name}: the search for the smallest radius broke {len(closer)} of {len(found.radii)} rows inside "
        "the threat's radius that every attack of the evaluation left right: these are too weak. Add restarts, or "
        "autoattack."
    ]
