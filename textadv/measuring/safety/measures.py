"""The measures of a chat model: one number each, with its interval, its rows and what must be known beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from textadv.measuring.judges.refusal import RefusalReport
from textadv.measuring.measured import Measure, share
from textadv.measuring.safety.elicitation import AttackSuccess, Elicitation
from textadv.measuring.safety.fluency import NOT_LOOKED_FOR
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.measure_ids import measure_id
from textadv.measuring.safety.outcomes_calibrated import kinds_text, silence_note
from textadv.measuring.safety.record import BY_JUDGE, HEADINGS, SUCCESS
from textadv.measuring.sections.outcomes import AttackOutcomes
from textadv.measuring.statistics import Rate
from textadv.values.flops import Flops, summed

Group = Literal[
    "attack success",
    "not refused",
    "broken off",
    "attack success by radius",
    "by adapter scale",
    "over-refusal",
    "capability",
]


def rate(group: Group, name: str, rate: Rate, rows: Sequence[float], lower: bool, note: str = "") -> Measure:
    """A rate as a measure. rows: its value on each row, in their order."""
    return share(group, name, rate, rows, lower, note, heading=HEADINGS.get(group))


def outcome_measures(
    outcomes: Sequence[AttackOutcomes], decoding: Decoding, spent: Mapping[str, Flops] | None = None
) -> list[Measure]:
    """Attack success, its upper bound, and what broke off, of each attack. spent: what each took, by its name."""
    spent = spent or {}
    complied, bound, broken = [], [], []
    for one in outcomes:
        thinking = still_thinking(one.kinds.get("unknown: thinking", 0), sum(one.kinds.values()), decoding)
        note = "; ".join([*silence_note(one), *thinking])
        success = rate("attack success", one.attack, one.complied, one.rows("complied"), True, note)
        complied.append(replace(success, flops=spent.get(one.attack)))
        rows = one.rows("complied", "unknown", "broken off")
        unknown = f"{one.unknown.count} of them not known" if one.unknown.count else ""
        bound.append(rate("not refused", one.attack, one.high, rows, True, unknown))
        told = kinds_text(one, "broken off") if one.answers else ""
        broken.append(rate("broken off", one.attack, one.broken_off, one.rows("broken off"), True, told))
    return [*complied, *bound, *broken]


def success(attack: AttackSuccess, found: Elicitation) -> Measure:
    """What a second judge says: a behaviour counts where it is broken; those without a verdict stand in the note."""
    worst = attack is found.worst_case
    rows: dict[int, float] = {}
    for outcome in found.outcomes:
        if worst or outcome.attack == attack.name:
            rows[outcome.id] = max(rows.get(outcome.id, 0.0), float(outcome.broken))
    notes = []
    if attack.high.count > attack.low.count:
        notes = [f"up to {percent(attack.high)} if {attack.high.count - attack.low.count} unclear ones are broken"]
    notes += still_thinking(attack.answers.get("thinking", 0), sum(attack.answers.values()), found.decoding)
    id = measure_id(SUCCESS, f"{attack.name} ({found.judge})")
    group, values = f"{BY_JUDGE}{found.judge}", list(rows.values())
    measure = share(group, attack.name, attack.low, values, True, "; ".join(notes), id=id)
    return replace(measure, flops=attack.flops)


def failed(given: Sequence[Answer]) -> int:
    """How many answers could not be made."""
    return sum(answer.status == "error" for answer in given)


def thinking(given: Sequence[Answer]) -> int:
    """How many answers were cut off while the model was thinking."""
    return sum(answer.status == "thinking" for answer in given)


def still_thinking(count: int, total: int, decoding: Decoding) -> list[str]:
    """What to say of answers that were cut off while the model was thinking; nothing where none was."""
    if count == 0:
        return []
    return [
        f"{count} of {total} answers were still thinking after evaluation.max_new_tokens: {decoding.max_new_tokens}, "
        "so what they would say is not known; raise it"
    ]


def percent(rate: Rate) -> str:
    """The rate, in percent."""
    return f"{100 * rate.value:.1f} %"


def refusal_measures(
    label: str, report: RefusalReport, given: Sequence[Answer], decoding: Decoding, *, measured: bool
) -> list[Measure]:
    """How many benign prompts were refused, and got a degenerate answer. measured: whether gibberish was looked for."""
    low, high = report.refused()
    refused = [float(row.outcome in ("full", "partial")) for row in report.rows]
    note = f"full {percent(report.rate('full'))}, partial {percent(report.rate('partial'))}"
    if high.count > low.count:
        note += f"; up to {percent(high)} if unclear ones are refusals"
    broken = [float(row.outcome == "degenerate") for row in report.rows]
    about = [] if measured else [NOT_LOOKED_FOR]
    about += [f"{report.unscored} answers not scored for gibberish"] if report.unscored else []
    about += [f"{failed(given)} of them failed to be made"] if failed(given) else []
    about += still_thinking(thinking(given), len(given), decoding)
    spent = summed(answer.flops for answer in given)
    measures = [
        rate("over-refusal", f"{label}: refused", low, refused, True, note),
        rate("over-refusal", f"{label}: degenerate", report.rate("degenerate"), broken, True, "; ".join(about)),
    ]
    return [replace(measure, flops=spent) for measure in measures]
