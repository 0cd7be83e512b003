"""The report of a chat run as one HTML file that asks nothing of the network and runs no script."""

from __future__ import annotations

from textadv.evaluation.chat_measures import Measure
from textadv.evaluation.chat_results import ChatResults
from textadv.evaluation.elicitation import WORST_CASE
from textadv.report.comparison_chat import (
    BOUND,
    CAPABILITY,
    INDENT,
    REFUSAL,
    SUCCESS,
    Compared,
    attack_and_judge,
    change_words,
    chat_caption,
    chat_table,
    compared,
    is_perplexity,
    value_text,
)
from textadv.report.control_chat import baseline_lines
from textadv.report.exports import EXPORTS, export_table
from textadv.report.markdown import command, config_yaml
from textadv.report.page import embedded, rendered
from textadv.report.plots_chat import success_svg
from textadv.report.plots_radius import radius_svg
from textadv.report.summary_chat import (
    DEGENERATE,
    chat_doubts,
    chat_summary,
    judge_lines,
    measure_notes,
    most_worsened,
    training_line,
)
from textadv.report.tables_chat import OUTCOMES, cost_table, objective_table, outcome_table, radius_table, radius_told

ANSWERS = (
    "What the models answered, harmful answers among it, is not shown here: it lies in answers/ beside this report, "
    "one file of JSON lines per model."
)
INTERVALS = (
    "Intervals: Wilson's for a rate, Newcombe's paired one for a difference of rates, a bootstrap over rows for a "
    "perplexity and its change; p is McNemar's exact test on the same rows. A behaviour is complied with where any "
    "answer to an attack complies: no refusal, no gibberish, and on the subject or beginning as the target. "
    "It is broken off where none complies and any is empty, loops, is gibberish, repeats the request or is about "
    "something else. Success lies between what complied and all that is not refused. The worst case is over all."
)
# A gain that costs something, or leaves much to break, has the colour of what is not proven.
COLOURS = {"trade": "unproven", "partial": "unproven"}


def chat_html(results: ChatResults) -> str:
    """The whole report as one self-contained HTML page: no script, no request, light and dark.

    Every value is escaped; a Content-Security-Policy forbids all but inline style and embedded images. Answers of the
    models are not on it.
    """
    told = chat_summary(results)
    header, *rows = chat_table(results)
    return rendered(
        "page_chat.html.j2",
        results=results,
        model=chat_model_name(results),
        rows=_rows(results),
        verdict=COLOURS.get(told.verdict, told.verdict),
        headline=told.headline,
        sentences=told.sentences,
        figures=_figures(results),
        doubts=chat_doubts(results),
        header=header,
        table=[(row, row[0].startswith(INDENT)) for row in rows],
        caption=chat_caption(results),
        intervals=INTERVALS,
        notes=measure_notes(results),
        plot=_plot(results),
        radius_plot=embedded(radius_svg(results)) if radius_told(results) else "",
        radius_told=radius_told(results),
        radius_rows=radius_table(results),
        judges=judge_lines(results),
        attacks=attack_lines(results),
        training=[line for line in (training_line(results), *baseline_lines(results)) if line],
        objective=objective_table(results),
        outcomes=outcome_table(results),
        outcomes_told=OUTCOMES,
        cost=cost_table(results),
        export_rows=export_table(results.exports),
        export_told=EXPORTS,
        answers=ANSWERS,
        config=config_yaml(results),
        command=command(results),
    )


def chat_model_name(results: ChatResults) -> str:
    """The model's name, as far as the configuration gives one."""
    model = results.config.get("model")
    return str(model.get("name", "model")) if isinstance(model, dict) else "model"


def attack_lines(results: ChatResults) -> tuple[str, ...]:
    """Each measuring attack with what it did, and what it could change."""
    return tuple(f"{name}: {text.removesuffix('; none')}" for name, text in results.attacks.items())


def _rows(results: ChatResults) -> str:
    measures = results.evaluations[-1].measures if results.evaluations else ()
    total = next((m.total for m in measures if m.group == SUCCESS), 0)
    return f"{total} held-out behaviours, {len(results.attacks)} attacks"


def _figures(results: ChatResults) -> list[tuple[str, str, str]]:
    """Title, value and detail of what a reader looks for first: of several measures the one that worsened most."""
    worst = next((pair for pair in compared(results, SUCCESS) if pair.after.name == WORST_CASE), None)
    bound = next((pair for pair in compared(results, BOUND) if pair.after.name == WORST_CASE), None)
    refusals = [pair for pair in compared(results, REFUSAL) if not pair.after.name.endswith(DEGENERATE)]
    capability = compared(results, CAPABILITY)
    shares = [pair for pair in capability if not is_perplexity(pair.after)]
    chosen = {
        "Attack success, worst case": worst,
        "Not refused, worst case": bound,
        "Over-refusal": most_worsened(refusals),
        "Capability" if shares else "Perplexity": most_worsened(shares or capability),
    }
    return [_figure(title, pair, results) for title, pair in chosen.items() if pair is not None]


def _figure(title: str, pair: Compared, results: ChatResults) -> tuple[str, str, str]:
    name = "" if pair.after.name == WORST_CASE else f", {pair.after.name.removesuffix(': refused')}"
    against = f"{change_words(pair)}, against {_number(pair.before)} {results.evaluations[0].name}"
    return f"{title}{name}", _number(pair.after), against


def _number(measure: Measure) -> str:
    """The value alone, as it stands in the table."""
    return value_text(measure).split(" ")[0] + ("" if is_perplexity(measure) else " %")


def _plot(results: ChatResults) -> str:
    names = {m.name for model in results.evaluations for m in model.measures if m.group == SUCCESS}
    if not any(not attack_and_judge(name, results.attacks)[1] for name in names):
        return ""
    return embedded(success_svg(results))
