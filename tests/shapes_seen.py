"""Calls of functions on tensors with tiny inputs, and the shape that each docstring states for what comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tests.chats import causal, chats
from tests.oracles import CurvedBag, image_rows, token_rows
from textadv.attacks import L2, Adam, Linf, Momentum, StepSize, ThreatModel, pgd
from textadv.attacks.minimal import contract
from textadv.attacks.minimal.carlini_wagner import changed_units
from textadv.attacks.parts import apgd_steps, chat_goals, goals, hinge, hyperplane, probe, starts, unperturbed, windows
from textadv.attacks.parts.attacked import Attacked
from textadv.attacks.parts.balls import Ball
from textadv.models import editable_mask, forward, hidden_states, vectors
from textadv.models.networks import SmallCnn
from textadv.models.places import embedding_table
from textadv.objectives.free import LargestEntryStep
from textadv.objectives.margin_aware import boosted_cross_entropy
from textadv.values import batch as batches
from textadv.values import losses
from textadv.values.batch import Batch
from textadv.values.decisions import Decisions
from textadv.values.spaces import Box, Embeddings, Pixels

SIZES = {"B": 3, "S": 9, "D": 8, "C": 5, "K": 8, "V": 61, "channels": 3, "height": 16, "width": 16, "T1": 2, "T2": 3}
NO_SIZE = {"N", "T", "n"}  # read off the first tensor that has them


@dataclass(frozen=True)
class Seen:
    """One call. stated: the shape as it stands in the docstring; sizes: letters that mean another number here."""

    of: Any
    stated: str
    call: Callable[[], Tensor]
    sizes: dict[str, int] | None = None

    @property
    def name(self) -> str:
        return f"{getattr(self.of, '__qualname__', self.of)} {self.stated}"

    def fits(self, shape: torch.Size) -> bool:
        """Whether a shape is the stated one, extent by extent; `...` is any number of them."""
        known = {**SIZES, **(self.sizes or {})}
        extents = [extent for extent in re.split(r",\s*", self.stated.strip("()")) if extent]
        pattern = ""
        for extent in extents:
            if extent == "...":
                pattern += r"(\d+,)*"
            elif extent in NO_SIZE and extent not in known:
                pattern += rf"(?P<{extent}>\d+),"
            else:
                size = sum(known[part] if part in known else int(part) for part in extent.split(" + "))
                pattern += f"{size},"
        return re.fullmatch(pattern, "".join(f"{size}," for size in shape)) is not None


@cache
def texts() -> tuple[nn.Module, Batch]:
    return CurvedBag(classes=5).eval(), token_rows([5, 9, 7], classes=5)


@cache
def talks() -> tuple[nn.Module, Batch]:
    return causal(), chats(((6, 3), (4, 2), (9, 5))).answering("harmful")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


TEXTS, CHATS, IMAGES = texts()[1], talks()[1], image_rows(3)
CLASSES, OTHER, TOKENS, DELTA, PICTURE = (
    drawn(3, 5),
    drawn(3, 5) + 1,
    drawn(3, 8, 61),
    drawn(3, 9, 8),
    drawn(3, 3, 16, 16),
)
ROWS, MODEL = torch.tensor([0.5, 1.0, 2.0]), texts()[0]
THREAT, ON_PIXELS = ThreatModel(Embeddings(), L2(1.0)), ThreatModel(Pixels(), Linf(0.1, per="example"))
BALL, OWN = L2(1.0), L2(ROWS)
DECIDED = Decisions.of(TOKENS, CHATS)
EACH = drawn(len(DECIDED.labels))
STEP = StepSize(relative=0.5)
ABSENT = ThreatModel(Embeddings(), L2(1.0, per="example"))


@cache
def smallest() -> contract.Smallest:
    return contract.Smallest.of_clean(MODEL, TEXTS, ABSENT)


@cache
def canvas() -> windows.Canvas:
    return windows.canvas_of(torch.ones(3, 3, 16, 16, dtype=torch.bool))


def whole() -> windows.Window:
    sides = windows.window_sides(canvas(), 0.2)
    return windows.drawn_window(canvas(), sides, torch.rand(3), torch.rand(3))


def point() -> probe.Point:
    return probe.evaluate_at(MODEL, TEXTS, THREAT, DELTA, goals.Untargeted(), None, ascend=True)


def leaf() -> tuple[Tensor, Tensor]:
    return contract.logits_at(MODEL, TEXTS, THREAT, DELTA)


def slope() -> Tensor:
    logits, where = leaf()
    return contract.slope(MODEL, losses.margin(logits, TEXTS), where, TEXTS, THREAT)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in range(3)]


SEEN = [
    Seen(losses.cross_entropy, "(B,)", lambda: losses.cross_entropy(CLASSES, TEXTS)),
    Seen(losses.sequence_nll, "(B,)", lambda: losses.sequence_nll(TOKENS, CHATS)),
    Seen(losses.bounded_nll, "(B,)", lambda: losses.bounded_nll(TOKENS, CHATS, ROWS, 9 * ROWS, mean=True)),
    Seen(losses.log_1_minus_p, "(B,)", lambda: losses.log_1_minus_p(TOKENS, CHATS)),
    Seen(losses.margin, "(B,)", lambda: losses.margin(TOKENS, CHATS)),
    Seen(losses.wrong, "(B,)", lambda: losses.wrong(CLASSES, TEXTS)),
    Seen(losses.token_losses, "(B, K)", lambda: losses.token_losses(TOKENS, CHATS, "margin")),
    Seen(losses.dlr, "(B,)", lambda: losses.dlr(CLASSES, TEXTS)),
    Seen(losses.targeted_dlr, "(B,)", lambda: losses.targeted_dlr(CLASSES, TEXTS, (TEXTS.labels + 1) % 5)),
    Seen(losses.kl, "(B,)", lambda: losses.kl(CLASSES, OTHER, TEXTS)),
    Seen(losses.kl_of_decisions, "(N,)", lambda: losses.kl_of_decisions(CLASSES, OTHER), {"N": 3}),
    Seen(losses.symmetric_kl, "(B,)", lambda: losses.symmetric_kl(TOKENS, 2 * TOKENS, CHATS)),
    Seen(losses.detached_symmetric_kl, "(B,)", lambda: losses.detached_symmetric_kl(CLASSES, OTHER, TEXTS)),
    Seen(boosted_cross_entropy, "(B,)", lambda: boosted_cross_entropy(CLASSES, TEXTS)),
    Seen(Decisions.at, "(N, C)", lambda: DECIDED.at(TOKENS), {"N": len(EACH), "C": 61}),
    Seen(Decisions.row.fget, "(N,)", lambda: DECIDED.row, {"N": len(EACH)}),
    Seen(Decisions.sums, "(B,)", lambda: DECIDED.sums(EACH)),
    Seen(Decisions.means, "(B,)", lambda: DECIDED.means(EACH)),
    Seen(Decisions.placed, "(B, K)", lambda: DECIDED.placed(EACH)),
    Seen(Decisions.largest, "(B,)", lambda: DECIDED.largest(EACH)),
    Seen(Decisions.every, "(B,)", lambda: DECIDED.every(EACH > 0)),
    Seen(batches.padded, "(B, T)", lambda: batches.padded([[1], [1, 2], [3]]), {"T": 2}),
    Seen(
        batches.following,
        "(B, T1 + T2)",
        lambda: batches.following(batches.padded([[1, 2], [1], [3]]), batches.padded([[1, 2, 3], [1], [2]])),
    ),
    Seen(batches.per_row, "(B, 1, ...)", lambda: batches.per_row(ROWS, DELTA)),
    Seen(Box.bounds, "(B, ...)", lambda: Box(PICTURE, 0, 1).bounds(torch.float64)[0]),
    Seen(Pixels.box, "(B, channels, height, width)", lambda: Pixels().box({"pixel_values": PICTURE}).clean),
    Seen(Ball.bound, "(B, 1, ...)", lambda: OWN.bound(DELTA)),
    Seen(Ball.bound, "()", lambda: BALL.bound(DELTA)),
    Seen(Ball.steepest, "(B, ...)", lambda: BALL.steepest(DELTA)),
    Seen(Ball.unit, "(B, ...)", lambda: BALL.unit(DELTA)),
    Seen(Ball.project, "(B, ...)", lambda: OWN.project(DELTA)),
    Seen(Ball.gauge, "(B,)", lambda: BALL.gauge(DELTA)),
    Seen(Ball.sample, "(B, ...)", lambda: BALL.sample(editable_mask(TEXTS, (3, 9, 8)), generators())),
    Seen(ThreatModel.confine, "(B, ...)", lambda: ON_PIXELS.confine(IMAGES, PICTURE)),
    Seen(STEP.length, "(B, 1, ...)", lambda: STEP.length(OWN, DELTA)),
    Seen(Momentum.update, "(B, ...)", lambda: Momentum(STEP).update(DELTA, DELTA, BALL, (DELTA,))[0]),
    Seen(Momentum.init, "(B, ...)", lambda: Momentum(STEP).init(DELTA)[0]),
    Seen(Adam.update, "(B, ...)", lambda: Adam(STEP).update(DELTA, DELTA, BALL, (DELTA, DELTA))[1][1]),
    Seen(LargestEntryStep.update, "(B, ...)", lambda: LargestEntryStep(STEP).update(DELTA, DELTA, BALL, ())[0]),
    Seen(goals.Untargeted.value, "(B,)", lambda: goals.Untargeted().value(TOKENS, CHATS, None)),
    Seen(goals.Untargeted.reached, "(B,)", lambda: goals.Untargeted().reached(CLASSES, TEXTS)),
    Seen(goals.Targeted.reached, "(B,)", lambda: goals.Targeted(1).reached(CLASSES, TEXTS)),
    Seen(goals.Diverge.value, "(B,)", lambda: goals.Diverge().value(CLASSES, TEXTS, OTHER)),
    Seen(goals.Elicit.value, "(B,)", lambda: goals.Elicit().value(TOKENS, CHATS, None)),
    Seen(goals.ranked_target, "(B,)", lambda: goals.ranked_target(CLASSES, TEXTS, 2)),
    Seen(goals.TargetedMargin.value, "(B,)", lambda: goals.TargetedMargin().value(OTHER, TEXTS, CLASSES)),
    Seen(goals.TargetedDlr.value, "(B,)", lambda: goals.TargetedDlr().value(OTHER, TEXTS, CLASSES)),
    Seen(chat_goals.early_weights, "(B, K)", lambda: chat_goals.early_weights(torch.ones(3, 8).bool(), 2, 0.8)),
    Seen(chat_goals.Begin.value, "(B,)", lambda: chat_goals.Begin().value(TOKENS, CHATS, None)),
    Seen(chat_goals.Avoid.reached, "(B,)", lambda: chat_goals.Avoid().reached(TOKENS, CHATS)),
    Seen(probe.Point, "(B, ...)", lambda: required(point().grad)),
    Seen(probe.Point, "(B,)", lambda: point().value),
    Seen(unperturbed.one_pass, "(B, C)", lambda: unperturbed.one_pass(MODEL, TEXTS)),
    Seen(unperturbed.mean_logits, "(B, K, C)", lambda: unperturbed.mean_logits(*talks()), {"C": 61}),
    Seen(unperturbed.value_at_clean, "(B,)", lambda: unperturbed.value_at_clean(goals.Untargeted(), TEXTS, CLASSES)),
    Seen(
        starts.uniform_start,
        "(B, ...)",
        lambda: starts.uniform_start(MODEL, TEXTS, THREAT, torch.float64, seed=0, step=0),
    ),
    Seen(contract.size_of, "(B,)", lambda: contract.size_of(BALL, DELTA)),
    Seen(contract.logits_at, "(B, C)", lambda: leaf()[0]),
    Seen(contract.logits_at, "(B, ...)", lambda: leaf()[1]),
    Seen(contract.slope, "(B, ...)", slope),
    Seen(contract.Smallest, "(B, ...)", lambda: smallest().low),
    Seen(contract.Smallest, "(B,)", lambda: smallest().size),
    Seen(contract.Smallest.open, "(N,)", lambda: smallest().open()),
    Seen(hinge.units_of, "(B, 1, ...)", lambda: hinge.units_of(smallest(), ABSENT, shared=True)[0]),
    Seen(hinge.Scaled, "(N, 1, ...)", lambda: hinge.Scaled(drawn(3, 1, 1)).rows(torch.tensor([0, 2])).unit, {"N": 2}),
    Seen(hyperplane.project_l2, "(B, n)", lambda: hyperplane.project_l2(*(drawn(3, 7),) * 2, ROWS, *limits())),
    Seen(
        apgd_steps.project_l1_box, "(..., n)", lambda: apgd_steps.project_l1_box(drawn(3, 7), ROWS[:, None], *limits())
    ),
    Seen(windows.Canvas, "(B, height)", lambda: canvas().y),
    Seen(windows.Canvas, "(B, 1, height, width)", lambda: canvas().editable),
    Seen(windows.Window.mask, "(B, 1, height, width)", lambda: whole().mask(canvas())),
    Seen(
        windows.bump,
        "(B, height, width)",
        lambda: windows.bump(windows.window_sides(canvas(), 0.2), torch.tensor([True, False, True]), (16, 16)),
    ),
    Seen(
        windows.tiles,
        "(B, channels, height, width)",
        lambda: windows.tiles(canvas(), torch.ones(3, 3, 25).long(), torch.ones(3, 25).bool()),
    ),
    Seen(windows.Draws.numbers, "(B, count)", lambda: windows.Draws.of(generators(), 4).numbers(6), {"count": 6}),
    Seen(changed_units, "(B,)", lambda: changed_units(PICTURE, Pixels())),
    Seen(Attacked, "(B,)", lambda: pgd(THREAT, steps=2)(MODEL, TEXTS).gauge),
    Seen(forward, "(B, C)", lambda: forward(MODEL, TEXTS)),
    Seen(forward, "(B, K, V)", lambda: forward(*talks())),
    Seen(
        hidden_states, "(B, S, D)", lambda: hidden_states(*talks(), [1])[1][0], {"S": CHATS.editable.shape[1], "D": 32}
    ),
    Seen(embedding_table, "(V, D)", lambda: embedding_table(talks()[0]), {"D": 32}),
    Seen(editable_mask, "(B, ...)", lambda: editable_mask(TEXTS, (3, 9, 8))),
    Seen(vectors, "(N, D)", lambda: next(iter(vectors(MODEL, Embeddings())))),
    Seen(SmallCnn.forward, "(B, C)", lambda: SmallCnn(3, 16, 16, 5).eval()(PICTURE.float())),
]


def required(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def limits() -> tuple[Tensor, Tensor]:
    low = drawn(3, 7).clamp(max=0) - 1
    return low, low + 5
