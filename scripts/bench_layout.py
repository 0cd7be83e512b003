"""What the layout of convolution weights costs: a built-in network channel by channel against row by row, as a ratio.

    python scripts/bench_layout.py [--batch 128] [--repeats 20]

Both layouts take turns within one run, so that a busy machine slows both; prints the median time of a forward and
backward pass of each, per row, and the median of the paired ratios.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from textadv.models.networks import NETWORKS
from textadv.runs.screen import parser as reader

SHAPES = {"builtin:small-cnn": (1, 28, 28), "builtin:small-resnet": (3, 32, 32)}
CLASSES = 10


def timed(network: nn.Module, pixels: Tensor, bf16: bool) -> float:
    """Seconds of one forward and backward pass to the pixels."""
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = network(pixels).logsumexp(1).sum()
    torch.autograd.grad(loss, pixels)
    return time.perf_counter() - start


def paired(name: str, batch: int, repeats: int, bf16: bool) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    shape = SHAPES[name]
    pixels = torch.rand(batch, *shape).requires_grad_()
    by_row = NETWORKS[name](*shape, CLASSES).requires_grad_(False).eval()
    by_channel = convert_conv2d_weight_memory_format(copy.deepcopy(by_row), torch.channels_last)
    for network in (by_row, by_channel):
        timed(network, pixels, bf16)
    pairs = [(timed(by_row, pixels, bf16), timed(by_channel, pixels, bf16)) for _ in range(repeats)]
    rows, channels = (1e3 * statistics.median(side) / batch for side in zip(*pairs, strict=True))
    ratio = statistics.median(channel / row for row, channel in pairs)
    precision = "bf16" if bf16 else "float32"
    return f"| {name} | {precision} | {rows:.3f} | {channels:.3f} | {ratio:.2f} |"


def main() -> None:
    """Reads the command line and prints a Markdown table."""
    parser = reader(__doc__)
    parser.add_argument("--batch", type=int, default=128, help="rows per pass")
    parser.add_argument("--repeats", type=int, default=20, help="pairs of passes")
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.repeats) < 1:
        parser.error(f"--batch and --repeats must be at least 1, got {arguments.batch} and {arguments.repeats}.")
    print(f"{torch.get_num_threads()} threads, {arguments.batch} rows per pass, {arguments.repeats} pairs\n")
    print(
        "| network | precision | row by row, ms per row | channel by channel | ratio |\n| --- | --- | --- | --- | --- |"
    )
    for name in SHAPES:
        for bf16 in (False, True):
            print(paired(name, arguments.batch, arguments.repeats, bf16))


if __name__ == "__main__":
    main()
