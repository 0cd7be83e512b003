"""Three streams of chats for a tiny causal model with LoRA, and every objective that hardens it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn

from tests.chats import VOCABULARY, causal
from textadv.attacks import (
    L2,
    Attack,
    Contrast,
    Diverge,
    Elicit,
    FixedStep,
    Goal,
    GradientAttack,
    Held,
    PenalisedAscent,
    RefusalDirection,
    StepSize,
    ThreatModel,
    Untargeted,
)
from textadv.data import ChatRows, JoinedRows, Segment, joined
from textadv.objectives import (
    Adversarial,
    Distributional,
    FreeLB,
    Mart,
    Moment,
    Objective,
    Objectives,
    WeightPerturbation,
    trades,
)
from textadv.objectives.alignment import (
    REFUSAL,
    RESPONSE,
    Away,
    KlToBase,
    Part,
    Preference,
    PrefillRecovery,
    Supervised,
    Tempted,
    Together,
    Toward,
)
from textadv.objectives.rerouting import Reroute, Retain
from textadv.objectives.spectrum import Spectrum
from textadv.objectives.token_means import OverTokens
from textadv.objectives.triplet import Centre, Gather, Stay
from textadv.training.accumulation import accumulate
from textadv.training.mixing import Constant, Mixing
from textadv.training.sampling import Streams
from textadv.training.step_report import StepReport
from textadv.values.batch import Role
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Hidden, Several, Space

ADVERSARIAL, UTILITY, BORDERLINE = 8, 12, 6
BATCH, FIRST = 8, 4
HALF = Mixing(Constant(0.5))


def stream(role: Role, count: int, answers: tuple[str, ...], seed: int) -> ChatRows:
    """Chats of 4 to 8 prompt tokens, the user's between two of the template and one, with answers of 2 to 4."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        size = int(torch.randint(low, high + 1, (), generator=draw))
        return tuple(torch.randint(10, VOCABULARY, (size,), generator=draw).tolist())

    users = [tokens(1, 5) for _ in range(count)]
    edges = [(Segment.TEMPLATE,) * 2, (Segment.TEMPLATE,)]
    return ChatRows(
        prompts=tuple((1, 3, *user, 4) for user in users),
        segments=tuple((*edges[0], *[Segment.USER] * len(user), *edges[1]) for user in users),
        editable=tuple((False, False, *[True] * len(user), False) for user in users),
        answers={name: tuple((*tokens(1, 3), 2) for _ in users) for name in answers},
        main=answers[0],
        ids=tuple(range(count)),
        role=role,
        pad_id=0,
    )


def rows() -> JoinedRows:
    """An adversarial, a utility and a borderline stream, in this order."""
    return joined(
        stream(Role.ADVERSARIAL, ADVERSARIAL, ("safe", "harmful"), 0),
        stream(Role.UTILITY, UTILITY, ("response",), 1),
        stream(Role.BORDERLINE, BORDERLINE, ("response",), 2),
    )


def sampler(mixing: Mixing = HALF, *, borderline_share: float = 0.5, repeat: int = 1, seed: int = 0) -> Streams:
    """Steps of 8 rows: 4 adversarial, 2 utility and 2 borderline unless told otherwise."""
    data = rows()
    return Streams(data, *data.ranges, mixing, BATCH, borderline_share, repeat, seed)


def model(
    name: str = "llama",
    *,
    live: bool = True,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float64,
    targets: str | Sequence[str] = "all-linear",
) -> nn.Module:
    """A causal model of three layers with LoRA, in training mode, the same weights each time.

    live: both factors random, so that every adapter weight has a gradient; otherwise one is zero, as usual.
    targets: the layers with LoRA.
    """
    settings = LoraConfig(
        r=2,
        lora_alpha=2,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=TaskType.CAUSAL_LM,
        init_lora_weights=not live,
        fan_in_fan_out=name == "gpt2",
    )
    with seeded_scope(1):
        adapted = get_peft_model(causal(name, dtype=dtype, spread=3.0), settings)  # type: ignore[arg-type]
    return adapted.to(dtype).train()


def attack(space: Space | None = None, goal: Goal | None = None, radius: float = 0.3) -> GradientAttack:
    """Three steps from a random start in a ball about as large as an embedding."""
    threat = ThreatModel(space or Embeddings(), L2(radius))
    return GradientAttack(threat, FixedStep(StepSize(relative=0.5)), 3, goal or Elicit())


def together(*parts: Objective, by: Attack | None = None, also: tuple[Objective, ...] = ()) -> Together:
    """`parts` at the perturbation that `by` finds, and `also` without it."""
    perturbed = tuple(Part(part, by is not None) for part in parts)
    return Together((*perturbed, *map(Part, also)), by)


def _direction() -> RefusalDirection:
    data = rows()
    return RefusalDirection((0, 1), data.batch(range(4)), data.batch(range(8, 12)), every=2)


def over_refusal() -> Tempted:
    """Borderline rows: their answer, and both parts at a perturbation that elicits a refusal of one or two tokens."""
    parts = (Part(Supervised()), Part(Away(answer=REFUSAL), True), Part(Toward(answer=RESPONSE), True))
    return Tempted(Together(parts, attack(), REFUSAL), ((5, 2), (6,)))


PLACES = Several((Embeddings(), Hidden(0), Hidden(1)))
HARDENING: dict[str, Callable[[], Objective]] = {
    "cat": lambda: together(Away(), Toward(), by=attack()),
    "cat, recovery and kl": lambda: together(Away(), Toward(), by=attack(), also=(PrefillRecovery(), KlToBase())),
    "cat and over-refusal": lambda: together(Away(), Toward(), by=attack()),
    "capo ipo": lambda: together(Preference("ipo"), by=attack()),
    "capo dpo": lambda: together(Preference("dpo"), by=attack()),
    "lat": lambda: together(Away(form="log_1_minus_p"), Toward(), by=Held(Contrast(attack(PLACES), 0.5), 2)),
    "refusal direction": lambda: together(Toward(), by=_direction()),
    "recovery": lambda: together(PrefillRecovery()),
    "rerouting": lambda: together(Reroute((0, 1))),
    "rerouting over tokens": lambda: together(OverTokens(Reroute((0, 1)), "harmful", whole=True)),
    "freelb": lambda: FreeLB(attack(goal=Untargeted())),
    "trades": lambda: trades(attack(goal=Diverge())),
    "adversarial": lambda: Adversarial(attack(goal=Untargeted())),
    "mart": lambda: Mart(attack(goal=Untargeted())),
    "distributional": lambda: Distributional(PenalisedAscent(attack().threat, 2.0, 3, random_start=True), 2.0),
    "weight perturbation": lambda: WeightPerturbation(attack(), lambda by: together(Away(), Toward(), by=by), 0.01),
    "kl": lambda: together(KlToBase(scale_free=True)),
}


def objectives(name: str) -> Objectives:
    """What is minimised on each stream; a new one at each call, as a process makes its own."""
    useful: Objective = Supervised()
    if "kl" in name:
        useful = together(Supervised(), KlToBase())
    if name == "rerouting":
        useful = Retain()
    if name == "rerouting over tokens":
        useful = OverTokens(Retain(), whole=True)
    close: Objective = Supervised(name="borderline")
    if "over-refusal" in name:
        close = over_refusal()
    return {Role.ADVERSARIAL: HARDENING[name](), Role.UTILITY: useful, Role.BORDERLINE: close, Role.CLEAN: close}


EMBEDDED = ("embed_tokens", "q_proj", "k_proj")
"""Layers with LoRA that the paper of `Spectrum` names."""


def flattened(weight: float = 3.0) -> Objectives:
    """What is minimised on each stream with a flat spectrum beside it, as a configuration puts it there."""
    flat, attacked = Part(Spectrum(weight)), (Part(Away(), True), Part(Toward(), True))
    useful = Together((flat, Part(Supervised())))
    hardened = Together((flat, *attacked), attack())
    return {Role.ADVERSARIAL: hardened, Role.UTILITY: useful, Role.BORDERLINE: useful, Role.CLEAN: Supervised()}


def gathered() -> Objectives:
    """What is minimised on each stream with triplets of hidden states, as a configuration puts it there."""
    centre = Centre()
    useful = together(Supervised(), Stay(margin=0.5, centre=centre))
    hardened = together(Gather((1, 2), margin=0.3, centre=centre), Away(), by=attack())
    return {Role.ADVERSARIAL: hardened, Role.UTILITY: useful, Role.BORDERLINE: useful, Role.CLEAN: Supervised()}


class Cut(NamedTuple):
    """How the rows of a step are cut: rows that go through the model together, and which process this is."""

    micro_batch_size: int
    processes: int = 1
    rank: int = 0


def backpropagated(model: nn.Module, goal: Objectives, cut: Cut, step: int = FIRST, **options: object) -> StepReport:
    """Adds one optimizer step's gradient to `.grad`; options: of the sampler."""
    source = sampler(**options)  # type: ignore[arg-type]
    positions, groups = source.step(step, *cut)
    moment = Moment(step, measure=True, progress=0.5)
    return accumulate(model, goal, source.rows, positions, groups, moment, processes=cut.processes)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Every adapter weight's gradient."""
    found = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    return {name: value.clone() for name, value in found.items() if value is not None}


def descended(model: nn.Module, rate: float = 0.1) -> dict[str, Tensor]:
    """The gradients, after which a step down was taken and they were forgotten."""
    found = gradients(model)
    with torch.no_grad():
        for value in model.parameters():
            if value.grad is not None:
                value -= rate * value.grad
    model.zero_grad()
    return found
