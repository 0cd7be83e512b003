"""The search for a suffix beside nanoGCG's, pair by pair: the loss that either ends at, seconds, and FLOPs.

    python scripts/bench_suffix.py --model FOLDER --data FILE [--nanogcg FOLDER] [--rows 3] [--steps 20] [--narrow 16]

FILE has a prompt and a target in each row. Every row is searched in turn by nanoGCG (where --nanogcg says the folder
that it was installed to, with `pip install --no-deps --target FOLDER nanogcg==0.3.0`), by gcg, and by gcg with momentum
and weakened layer norms, from the same first suffix, in the same steps, widths and top tokens, without an early stop.
With --narrow both of ours are tried in that width as well, in as many more steps as give as many candidates or more.
Losses are of the texts that came back, put through the chat template: mean nats per token of the target. Seconds are of
this process' processors. FLOPs are those until the loss at which the first of them ended was reached, over all of the
first one's: two for each parameter and token sent forward and two for each sent back; inf: never reached. In the last
line that loss is the mean over rows, and reached where the mean of each row's best so far is. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
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

    @property
    def path(self) -> list[tuple[float, float]]:
        """(tokens so far, best loss so far), as the search went; of nanoGCG its end alone."""
        if self.found is None:
            return [(self.tokens, self.loss)]
        return [(self.tokens * at / self.found.passes.forwards, loss) for at, loss in self.found.path]


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


def share(first: Sequence[Spent], other: Sequence[Spent]) -> float:
    """FLOPs per row until the other's mean loss was that at which the first one ended, over all FLOPs of that one.

    Each row counts with its best so far, one whose search is over with all that it took; inf: it never was so low.
    """
    wanted, all_of_it = mean(one.loss for one in first), mean(one.tokens for one in first)
    for tokens in sorted({at for one in other for at, _ in one.path}):
        best = [min((loss for at, loss in one.path if at <= tokens), default=math.inf) for one in other]
        if mean(best) <= wanted:
            return mean(min(tokens, one.tokens) for one in other) / all_of_it
    return math.inf


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
        ("narrow", 0, "candidates of a step of two more searches; 0: none"),
        ("top-k", 64, "top tokens of a slot"),
        ("length", 20, "tokens of the suffix"),
        ("target-words", 8, "words of a target"),
        ("seed", 0, "seed"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default {default})")
    parser.add_argument("--momentum", type=float, default=0.5, help="of the second gcg (default 0.5)")
    parser.add_argument("--norm-scale", type=float, default=0.7, help="of the second gcg (default 0.7)")
    given = parser.parse_args()
    if given.narrow < 0:
        parser.error(f"--narrow must be 0 or more, got {given.narrow}.")
    return given


def compared(given: argparse.Namespace, victim: ChatVictim, asked: AskedFor) -> list[Spent]:
    """Every search of one row: nanoGCG's where it is there, ours, and ours with momentum and weakened layer norms."""
    row = first_row(victim, asked, None, given.length, cross_entropy)
    [first] = victim.texts(row.slotted, row.slotted.row.unsqueeze(0))
    other = [by_nanogcg(given, victim, asked, first)] if given.nanogcg is not None else []
    ours = []
    for width in widths(given):
        steps = -(-given.steps * given.width // width)
        plain = Gcg(steps, init=first, width=width, top_k=given.top_k, early_stop=False, seed=given.seed)
        ours += [plain, replace(plain, momentum=given.momentum, norm_scale=given.norm_scale)]
    return [*other, *(by_gcg(attack, victim, asked) for attack in ours)]


def widths(given: argparse.Namespace) -> list[int]:
    """Those of our searches."""
    return [given.width, *([given.narrow] if given.narrow else [])]


def main() -> None:
    """Reads the command line, and prints a line for each row as it is done, and the means."""
    given = arguments()
    with one_message():
        loaded = load_causal(given.model)
        victim = ChatVictim(loaded.model.eval(), Template(loaded.tokenizer))
        lines = given.data.read_text(encoding="utf-8").splitlines()[: given.rows]
        names = ["nanogcg"] if given.nanogcg is not None else []
        for width in widths(given):
            names += [f"gcg, {width} candidates", f"gcg, {width} candidates, momentum and norms"]
        columns = [f"{what} {name}" for what in ("loss", "seconds") for name in names]
        columns += [f"FLOPs of {name}" for name in names[1:]]
        tell(f"| row | {' | '.join(columns)} |")
        tell("| --- " * (len(columns) + 1) + "|")
        found: list[list[Spent]] = []
        for number, line in enumerate(lines):
            told = json.loads(line)
            target = " ".join(str(told["target"]).split()[: given.target_words])
            found.append(compared(given, victim, AskedFor(number, tuple(one_turn(told["prompt"])), target)))
            tell(f"| {number} | {numbers([found[-1]])} |")
        tell(f"| mean | {numbers(found)} |")


def numbers(rows: Sequence[Sequence[Spent]]) -> str:
    """The cells of a line over these rows, each with every search: mean losses, mean seconds, shares of the FLOPs."""
    searches = [*zip(*rows, strict=True)]
    means = [mean(one.loss for one in own) for own in searches] + [mean(one.seconds for one in own) for own in searches]
    return " | ".join(f"{value:.4g}" for value in [*means, *(share(searches[0], own) for own in searches[1:])])


if __name__ == "__main__":
    main()
