"""How near the searches for smallest L2 radii come to FAB's, and how many rows Square breaks in L2, on public networks.

    python scripts/bench_minimal.py --shared FOLDER [--networks fgsm_rs trades] [--rows 100] [--seeds 13]

FOLDER holds `weights` and `data/mnist` as the tests use them. Prints two Markdown tables of the first test images of
MNIST: per network and search the quartiles of the smallest radius up to --upper, its median over that of FAB, the rows
that no radius broke and the passes per row; then, per network, the rows that Square breaks within --radius with its
schedule rescaled, their mean over --seeds seeds and its standard error. --seeds 0 leaves the second out. `minimum` is
the default of `evaluation.minimum_radius`: FAB, then PGD-20 bisected below it. From the checkout; with the defaults
about two hours of one core, most of it for trades.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import networks  # noqa: E402 - the checkout's own, wherever this is called from
from textadv.attacks import L2, Ddn, DeepFool, Fab, Pdgd, Square, ThreatModel, pgd  # noqa: E402
from textadv.data import ImageRows  # noqa: E402
from textadv.measuring.accuracy.minimum import RadiusSearch, minimum_radii  # noqa: E402
from textadv.measuring.sections.radii import MinimumRadii  # noqa: E402
from textadv.runs.screen import parser as reader  # noqa: E402
from textadv.values.host.printable import tell  # noqa: E402
from textadv.values.spaces import Pixels  # noqa: E402

NETWORKS: dict[str, Callable[[Path], nn.Module]] = {
    "fgsm_rs": networks.fgsm_rs_mnist,
    "trades": networks.trades_mnist,
}


def _pgd(threat: ThreatModel, with_fab: bool) -> RadiusSearch:
    one = ThreatModel(threat.space, L2(1.0, per="example"))
    return RadiusSearch(pgd(one, steps=20, select="most_damaging", early_stop=True), upper=1.0, with_fab=with_fab)


def _alone(attack: Callable[[ThreatModel], Fab | Ddn | Pdgd | DeepFool]) -> Callable[[ThreatModel], RadiusSearch]:
    return lambda threat: RadiusSearch(attack(threat), upper=1.0)


SEARCHES: dict[str, Callable[[ThreatModel], RadiusSearch]] = {
    "fab": _alone(Fab),
    "minimum": lambda threat: _pgd(threat, with_fab=True),
    "pgd": lambda threat: _pgd(threat, with_fab=False),
    "ddn": _alone(Ddn),
    "pdgd": _alone(Pdgd),
    "deepfool": _alone(DeepFool),
}


def ball(radius: float) -> ThreatModel:
    """Pixels in an L2 ball per image."""
    return ThreatModel(Pixels(), L2(radius, per="example"))


def median(found: MinimumRadii) -> float:
    """The median radius, inf where that is a row never broken."""
    middle = found.quartiles[1]
    return math.inf if middle is None else middle


def radii(name: str, model: nn.Module, rows: ImageRows, searches: Sequence[str], upper: float) -> Iterator[str]:
    """A line of the first table for each search; FAB comes first, since the others are measured by it."""
    whole, count = ball(upper), len(rows.labels)
    known = math.nan
    for search in ["fab", *(one for one in searches if one != "fab")]:
        found = minimum_radii(model, rows, range(count), whole, SEARCHES[search](whole))
        known = median(found) if search == "fab" else known
        low, middle, high = ("> upper" if value is None else f"{value:.2f}" for value in found.quartiles)
        unbroken = sum(row.radius is None for row in found.radii)
        passes = f"{found.forwards / count:.0f} | {found.backwards / count:.0f}"
        yield f"| {name} | {search} | {middle} | {low}, {high} | {median(found) / known:.3f} | {unbroken} | {passes} |"


def broken(name: str, model: nn.Module, rows: ImageRows, radius: float, queries: int, seeds: int) -> str:
    """The line of the second table."""
    batch, counts = rows.batch(range(len(rows.labels))), []
    for seed in range(seeds):
        counts.append(int(Square(ball(radius), queries, rescale=True, seed=seed)(model, batch).success.sum()))
    error = f"{statistics.stdev(counts) / math.sqrt(seeds):.1f}" if seeds > 1 else "unknown of one seed"
    return f"| {name} | {len(rows.labels)} | {statistics.mean(counts):.1f} | {error} |"


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = reader(__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with `weights` and `data/mnist`")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="which networks")
    parser.add_argument("--rows", type=int, default=100, help="images, the first of the test split (default 100)")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES), help="FAB is always run")
    parser.add_argument("--upper", type=float, default=8.0, help="largest radius tried (default 8)")
    parser.add_argument("--radius", type=float, default=2.25, help="Square's radius (default 2.25)")
    parser.add_argument("--queries", type=int, default=300, help="Square's queries per row (default 300)")
    parser.add_argument("--seeds", type=int, default=13, help="runs of Square, 0 for none (default 13)")
    given = parser.parse_args()
    if min(given.rows, given.queries) < 1 or given.seeds < 0:
        parser.error(
            f"--rows and --queries must be at least 1, got {given.rows} and {given.queries}; --seeds 0 or more."
        )
    for name in ("upper", "radius"):
        if not 0 < getattr(given, name) < math.inf:
            parser.error(f"--{name} must be above 0 and finite, got {getattr(given, name)}.")
    for part in ("weights", "data/mnist/mnist.npz"):
        if not (given.shared / part).exists():
            parser.error(
                f"--shared {given.shared} holds no {part}. Give the folder that the tests take real data from."
            )
    return given


def main() -> None:
    """Reads the command line and prints the tables."""
    given = arguments()
    torch.set_num_threads(1)
    batch = networks.mnist(given.shared, given.rows)
    rows = ImageRows(batch.inputs["pixel_values"], batch.labels)
    models = {name: NETWORKS[name](given.shared) for name in given.networks}
    tell(f"{len(rows.labels)} images; smallest L2 radii up to {given.upper:g}\n")
    tell("| network | search | median | quartiles | over FAB's | not broken | forwards | backwards |")
    tell("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, model in models.items():
        for line in radii(name, model, rows, given.searches, given.upper):
            tell(line)
    if given.seeds:
        tell(f"\nSquare within L2 {given.radius:g}, {given.queries} queries, schedule rescaled, {given.seeds} seeds\n")
        tell("| network | images | broken | standard error |\n| --- | --- | --- | --- |")
        for name, model in models.items():
            tell(broken(name, model, rows, given.radius, given.queries, given.seeds))


if __name__ == "__main__":
    main()
