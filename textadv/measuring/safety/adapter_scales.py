"""Attack success and over-refusal by the scale of the adapter: what whoever holds it can dial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from textadv.data import Rows
from textadv.measuring.judges.refusal import over_refusal
from textadv.measuring.judges.verdicts import Judge
from textadv.measuring.measured import Measure
from textadv.measuring.safety.adversaries import Adversary, Direct, Prefill
from textadv.measuring.safety.answer_book import AnswerBook
from textadv.measuring.safety.degenerate import Limits
from textadv.measuring.safety.elicitation import Elicitation
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.measures import failed, rate
from textadv.measuring.safety.outcomes import Grounds, outcomes_of
from textadv.measuring.safety.panel import Asked, Panel

BY_SCALE: Final = "by adapter scale"

Elicit = Callable[[Rows, Sequence[str], Mapping[str, Adversary], Judge], Elicitation]


def by_scale(
    scale: float,
    panel: Panel,
    elicited: Elicit,
    asked: Callable[[Asked, str], list[Answer]],
    book: AnswerBook,
    grounds: Grounds,
) -> list[Measure]:
    """What complied to a plain request or a prefill of the panel, and what benign prompts were refused, at one scale.

    elicited, asked: ask the model, which has the scale. Gibberish is not looked for among benign answers here.
    """
    plain: dict[str, Any] = {name: one for name, one in panel.attacks.items() if isinstance(one, (Direct, Prefill))}
    named = {f"{name} at scale {scale:g}": one for name, one in ({"direct": Direct()} | plain).items()}
    found, *decided = (
        elicited(panel.behaviours, panel.prompts, named, judge)
        for judge in (panel.judge, panel.decides)
        if judge is not None
    )
    outcomes = outcomes_of(found, grounds, next(iter(decided), None))
    book.outcomes(found, [one.answers for one in outcomes if one.answers])
    worst = outcomes[-1]
    complied = rate(BY_SCALE, f"complied at {scale:g}", worst.complied, worst.rows("complied"), True)
    measures = [_of(complied, panel.behaviours.ids)]
    for label, prompts in panel.benign.items():
        given = asked(prompts, f"{label} at scale {scale:g}")
        said = [None if answer.status == "thinking" else answer.text for answer in given]
        report = over_refusal(prompts.texts, said, limits=Limits(nll=None))
        book.graded(report, given, prompts.row_ids)
        refused = [float(row.outcome in ("full", "partial")) for row in report.rows]
        note = f"{failed(given)} of them failed to be made" if failed(given) else ""
        share = rate(BY_SCALE, f"{label} refused at {scale:g}", report.refused()[0], refused, True, note)
        measures.append(_of(share, prompts.row_ids))
    return measures


def _of(measure: Measure, ids: Sequence[int]) -> Measure:
    return replace(measure, row_ids=tuple(ids))
