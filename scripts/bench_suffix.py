"""The search for a suffix beside nanoGCG's, pair by pair: the loss that either ends at, seconds, and FLOPs.

    python scripts/bench_suffix.py --model FOLDER --data FILE [--nanogcg FOLDER] [--rows 3] [--steps 20]

FILE has a prompt and a target in each row. Every row is searched in turn by nanoGCG (where --nanogcg says the folder
that it was installed to, with `pip install --no-deps --target FOLDER nanogcg==0.3.0`), by gcg, and by gcg with momentum
and weakened layer norms, from the same first suffix, in the same steps, widths and top tokens, without an early stop.
Losses are of the texts that came back, put through the chat template: mean nats per token of the target. Seconds are of
this process' processors. FLOPs are those until the loss at which the first of them ended was reached, over all of the
first one's: two for each parameter and token sent forward and two for each sent back; inf: never reached. Prints a
Markdown table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from textadv.attacks.prompts.first_suffix import first_row
from textadv.attacks.prompts.gcg import Gcg
from textadv.attacks.prompts.rewritten import AskedFor, Rewritten
from textadv.attacks.prompts.victim import ChatVictim, with_text
from textadv.data.rendering import Template, one_turn
from textadv.models import load_causal
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.values.host.printable import tell
from textadv.values.losses import cross_entropy


class Spent(NamedTuple):
    """What a search of one row came to. seconds: of processors. tokens: sent there and back. found: None of nanoGCG."""

    loss: float
    seconds: float
    tokens: int
    found: Rewritten | None = None


def by_nanogcg(given: argparse.Namespace, victim: ChatVictim, asked: AskedFor, first: str) -> Spent:
    """nanoGCG's search of the row from this first suffix, and the loss of the text that it gives back."""
    sys.path.insert(0, str(given.nanogcg))
    nanogcg: Any = importlib.import_module("nanogcg")
    config = nanogcg.GCGConfig(
        num_steps=given.steps,
        optim_str_init=first,
        search_width=given.width,
        topk=given.top_k,
        seed=given.seed,
        use_prefix_cache=False,
        verbosity="ERROR",
    )
    content = asked.messages[-1]["content"] + "{optim_str}"
    sent_through: list[int] = []

    def count(_module: object, _args: object, options: dict[str, Any]) -> None:
        given = options["inputs_embeds"]
        # What has a graph is sent back too.
        sent_through.append(given.shape[0] * given.shape[1] * (2 if given.requires_grad else 1))

    began = time.process_time()
    with victim.model.register_forward_pre_hook(count, with_kwargs=True):
        found = nanogcg.run(
            victim.model, victim.template.tokenizer, [{"role": "user", "content": content}], asked.target, config
        )
    seconds = time.process_time() - began
    sent = with_text(asked.messages, found.best_string)
    loss = float(victim.losses([victim.encoded(sent)], [victim.reply(sent, asked.target)])[0])
    return Spent(loss, seconds, sum(sent_through))


def by_gcg(attack: Gcg, victim: ChatVictim, asked: AskedFor) -> Spent:
    """Our search of the row."""
    began = time.process_time()
    [found] = attack(victim, [asked])
    if found.loss is None:
        raise ValueError(found.why)
    tokens = found.passes.forward_tokens + found.passes.backward_tokens
    return Spent(found.loss, time.process_time() - began, tokens, found)


def share(first: Spent, other: Spent) -> float:
    """FLOPs until the other search, one of ours, came to the loss at which the first one ended, over all of its own."""
    assert other.found is not None
    reached = next((at for at, loss in other.found.path if loss <= first.loss), math.inf)
    return other.tokens * reached / other.found.passes.forwards / first.tokens


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = reader(__doc__)
    parser.add_argument("--model", required=True, help="folder or Hub id of a chat model")
    parser.add_argument("--data", type=Path, required=True, help="jsonl file of prompts and targets")
    parser.add_argument("--nanogcg", type=Path, help="folder that nanogcg 0.3.0 was installed to; none: it is left out")
    for name, default, what in (
        ("rows", 3, "first rows of the file"),
        ("steps", 20, "steps of every search"),
        ("width", 128, "candidates of a step"),
        ("top-k", 64, "top tokens of a slot"),
        ("length", 20, "tokens of the suffix"),
        ("target-words", 8, "words of a target"),
        ("seed", 0, "seed"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default {default})")
    parser.add_argument("--momentum", type=float, default=0.5, help="of the second gcg (default 0.5)")
    parser.add_argument("--norm-scale", type=float, default=0.7, help="of the second gcg (default 0.7)")
    return parser.parse_args()


def compared(given: argparse.Namespace, victim: ChatVictim, asked: AskedFor) -> list[Spent]:
    """Every search of one row: nanoGCG's where it is there, ours, and ours with momentum and weakened layer norms."""
    row = first_row(victim, asked, None, given.length, cross_entropy)
    [first] = victim.texts(row.slotted, row.slotted.row.unsqueeze(0))
    plain = Gcg(given.steps, init=first, width=given.width, top_k=given.top_k, early_stop=False, seed=given.seed)
    better = Gcg(
        given.steps,
        init=first,
        width=given.width,
        top_k=given.top_k,
        momentum=given.momentum,
        norm_scale=given.norm_scale,
        early_stop=False,
        seed=given.seed,
    )
    other = [by_nanogcg(given, victim, asked, first)] if given.nanogcg is not None else []
    return [*other, by_gcg(plain, victim, asked), by_gcg(better, victim, asked)]


def main() -> None:
    """Reads the command line, and prints a line for each row as it is done, and the means."""
    given = arguments()
    with one_message():
        loaded = load_causal(given.model)
        victim = ChatVictim(loaded.model.eval(), Template(loaded.tokenizer))
        lines = given.data.read_text(encoding="utf-8").splitlines()[: given.rows]
        names = [*(["nanogcg"] if given.nanogcg is not None else []), "gcg", "gcg, momentum and norms"]
        columns = [f"{what} {name}" for what in ("loss", "seconds") for name in names]
        columns += [f"FLOPs of {name}" for name in names[1:]]
        tell(f"| row | {' | '.join(columns)} |")
        tell("| --- " * (len(columns) + 1) + "|")
        found = []
        for number, line in enumerate(lines):
            told = json.loads(line)
            target = " ".join(str(told["target"]).split()[: given.target_words])
            spent = compared(given, victim, AskedFor(number, tuple(one_turn(told["prompt"])), target))
            numbers = [*(one.loss for one in spent), *(one.seconds for one in spent)]
            numbers += [share(spent[0], one) for one in spent[1:]]
            found.append(numbers)
            tell(f"| {number} | {' | '.join(f'{value:.4g}' for value in numbers)} |")
        tell(f"| mean | {' | '.join(f'{mean(column):.4g}' for column in zip(*found, strict=True))} |")


if __name__ == "__main__":
    main()
