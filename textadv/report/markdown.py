"""The report as text: an aligned table for the terminal and a Markdown page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from textadv.evaluation.chat_results import ChatResults
from textadv.evaluation.results import Results
from textadv.printable import printable
from textadv.report.comparison import comparison
from textadv.report.exports import EXPORTS, export_table
from textadv.report.summary import doubts, summary, threat_lines, training_lines
from textadv.report.tables import (
    attack_table,
    cascade_table,
    curve_table,
    masking_table,
    minimum_lines,
    minimum_table,
    sizes_table,
    worst_case_lines,
)
from textadv.yaml_text import write_yaml

CASCADE = (
    "Each stage starts from the clean row and runs on the rows that those before it left right. Passes are of one row; "
    "queries are the forwards that no gradient was taken of."
)
MASKING = (
    "Whether attacks failed for want of a gradient, in which case the numbers above are too high. A check rings, is "
    "silent, or was not run; points are percent of rows."
)

MINIMUM = (
    "The smallest radius at which the attack broke each of a sample of rows: an upper bound of the true one. Rows that "
    "are wrong without an attack count as 0; brackets are 95 % intervals."
)

SIZES = (
    "The smallest perturbation that each attack which looks for one found for every attacked row, inside the radius or "
    "not, in the unit of the radius. Rows that are wrong without an attack count as 0; brackets are 95 % intervals."
)


def comparison_table(results: Results) -> str:
    """The before/after table, a caption above it, as Markdown whose columns line up so that it reads in a terminal too.

    Rows: clean accuracy, robust accuracy per attack and in the worst case, attack success (of the rows right without an
    attack), calibration error without and with the temperature T, training cost. Rates have their 95 % Wilson interval;
    the last column holds the paired difference of the last model to the plain one with Newcombe's interval and
    McNemar's p.
    """
    table = comparison(results)
    if not table.models:
        return table.caption
    titles = ["", *table.models, *([table.difference_title] if table.difference_title else [])]
    rows = [[row.label, *row.cells, *([row.difference] if table.difference_title else [])] for row in table.rows]
    return f"{escaped(table.caption)}\n\n{aligned([titles, *rows])}"


def report_markdown(results: Results) -> str:
    """The whole report as Markdown: summary and warnings first, then the numbers, last how to repeat them.

    Text that came from outside (names, notes, configuration) is escaped.
    """
    model, data = subject_names(results)
    parts = [f"# Robustness of {escaped(model)} on {escaped(data)}"]
    parts.append(" ".join(escaped(sentence) for sentence in summary(results).sentences))
    parts.append(section("Read before trusting the numbers", bullets(doubts(results))))
    parts.append(f"## Before and after\n\n{comparison_table(results)}")
    parts.append(
        "Intervals: Wilson's for a rate, Newcombe's paired one for a difference; p is McNemar's exact test on the same "
        "rows. Attack success is over the rows that were right without an attack."
    )
    parts.append(section("Robust accuracy by radius", _curve(results)))
    parts.append(section("Threat model and attacks", _attacks(results)))
    parts.append(section("Stage by stage", _grid(CASCADE, cascade_table(results))))
    parts.append(section("Masked gradients", _grid(MASKING, masking_table(results))))
    parts.append(section("Smallest radius that breaks a row", _minimum(results)))
    parts.append(section("Sizes of the smallest perturbations", _grid(SIZES, sizes_table(results))))
    parts.append(section("Training", bullets(training_lines(results))))
    parts.append(section("Exports", _grid(EXPORTS, export_table(results.exports))))
    parts.append(reproduce(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of `rows`, the first being the header, with columns padded to one width."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def config_yaml(results: Results | ChatResults) -> str:
    """The resolved configuration as YAML, ready to be run again."""
    return write_yaml(results.config).rstrip()


def subject_names(results: Results) -> tuple[str, str]:
    """The names of the model and of the data, as far as the configuration gives them."""
    names = []
    for section in ("model", "data"):
        values = results.config.get(section)
        names.append(str(values.get("name", section)) if isinstance(values, dict) else section)
    return names[0], names[1]


def escaped(text: str) -> str:
    """`text` on one line, with what Markdown, HTML or a terminal would act on made harmless."""
    return re.sub(r"[\\`|]|<(?=[a-zA-Z/!?])|\[(?=[^\]]*\]\()", lambda found: f"\\{found.group()}", printable(text))


def bullets(lines: Sequence[str]) -> str:
    """The lines, escaped, as a list."""
    return "\n".join(f"- {escaped(line)}" for line in lines)


def section(title: str, body: str) -> str:
    """A titled section; nothing where the body is empty."""
    return f"## {title}\n\n{body}" if body else ""


def reproduce(results: Results | ChatResults) -> str:
    """The configuration, versions, seeds and hashes, as a section."""
    text = config_yaml(results)
    # A fence longer than any run of backticks inside cannot be closed from within.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    facts = {
        "textadv": results.textadv_version,
        "created": results.created,
        **{f"seed, {name}": str(seed) for name, seed in results.seeds.items()},
        **{f"model, {name}": path for name, path in results.models.items() if name != path},
        **results.environment,
        **{f"hash, {name}": value for name, value in results.hashes.items()},
    }
    listed = bullets([f"{name}: {value}" for name, value in facts.items()])
    return (
        f"## How to reproduce\n\nSave this configuration as `run.yaml` and run\n\n```\n{command(results)}\n```\n\n"
        f"{fence}yaml\n{text}\n{fence}\n\n{listed}"
    )


def command(results: Results | ChatResults) -> str:
    """What repeats the run: a training, or the evaluation of saved models."""
    if trained(results):
        return "accelerate launch --quiet recipes/adv_finetune.py run.yaml"
    named = " ".join(f"--model {shlex.quote(_argument(results, found.name))}" for found in results.evaluations)
    return f"accelerate launch --quiet recipes/evaluate.py run.yaml {named} --output OUTPUT"


def _argument(results: Results | ChatResults, name: str) -> str:
    """How a model was given to the recipe; MODEL where that could mean more than a name and a path."""
    path = results.models.get(name, name)
    given = path if path == name else f"{name}={path}"
    return given if re.fullmatch(r"[\w.,/:@+= ()-]+", given) else "MODEL"


def trained(results: Results | ChatResults) -> bool:
    """Whether the run trained a model, or measured saved ones only."""
    return bool(results.trainings) if isinstance(results, Results) else results.training is not None


def _attacks(results: Results) -> str:
    rows = attack_table(results)
    lines = (*threat_lines(results), *worst_case_lines(results))
    return f"{bullets(lines)}\n\n{aligned(rows)}" if rows else ""


def _grid(told: str, rows: Sequence[Sequence[str]]) -> str:
    return f"{told}\n\n{aligned(rows)}" if rows else ""


def _minimum(results: Results) -> str:
    rows = minimum_table(results)
    return f"{_grid(MINIMUM, rows)}\n\n{bullets(minimum_lines(results))}" if rows else ""


def _curve(results: Results) -> str:
    rows = curve_table(results)
    if not rows:
        return ""
    attacks = dict.fromkeys(e.curve_attack for e in results.evaluations if e.curve and e.curve_attack)
    under = f"Attack: {escaped(', '.join(attacks))}.\n\n" if attacks else ""
    return f"{under}{aligned(rows)}\n\n![Robust accuracy by radius](curve.svg)"
