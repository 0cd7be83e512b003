"""The rows of the table of attacks: every attack that can be named, how it is made, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from tests.support.cells import Absent, Cell, Refused
from tests.support.places import PLACES, Place
from textadv.attacks import (
    AdaptiveRadius,
    Attack,
    Contrast,
    Elicit,
    Eot,
    Held,
    MinimumRadius,
    Momentum,
    PenalisedAscent,
    RefusalDirection,
    Stages,
    StepSize,
    ThreatModel,
    apgd_ce,
    fgsm,
    foreign,
    pgd,
    repeat,
    then,
    worst_of,
)
from textadv.attacks.gradient import GradientAttack
from textadv.config.adversary import AttackConfig
from textadv.config.attacks import NamedAttackConfig
from textadv.config.evaluation import EvaluationConfig
from textadv.config.types import ConfigError

TRAINING, EVALUATION, PYTHON = "training", "evaluation", "Python"
ALL = ("linf", "l2", "l1")
Kind = Literal["bounded", "diverging", "breaking", "minimal", "priced", "ablation", "eliciting"]
Make = Callable[[ThreatModel, Place], "Attack | MinimumRadius"]
SURROGATE = "a like model"


@dataclass(frozen=True)
class Row:
    """An attack.

    name: as the page shows it. where: TRAINING (the section `attack`), EVALUATION (`evaluation.attacks`) or PYTHON.
    python: the public names that are behind it. make: the attack at a place. kind: what a cell's test asks of it.
    norms: those it is run with. per: how it measures balls. config: as a file would name it, if one can.
    cells: what places, norms, `token` and `2 classes` say; places that are not named say yes.
    """

    name: str
    where: str
    python: tuple[str, ...]
    make: Make
    kind: Kind = "bounded"
    norms: tuple[str, ...] = ALL
    per: tuple[str, ...] = ("token", "example")
    config: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, Cell] = field(default_factory=dict)

    def cell(self, key: str) -> Cell:
        """What the library says to this place, norm, `token` or `2 classes`."""
        return self.cells.get(key, DIRECTIONS if key == "chat: directions" else None)


DIRECTIONS = Refused("What searches moves vectors in a ball.", "got directions to ablate. Use RefusalDirection")
NO_CLASSES = "It measures the distance to other classes, which chats do not have."
CHATS = tuple(name for name in PLACES if name.startswith("chat") and name != "chat: directions")


def on_chats(cell: Cell) -> dict[str, Cell]:
    """The same answer in every space of a chat model that can be searched."""
    return dict.fromkeys(CHATS, cell)


def trained(name: str, python: str, cells: Mapping[str, Cell] | None = None, **keys: Any) -> Row:
    """A row that the section `attack` names."""
    config = {"name": name, **keys}

    def make(threat: ThreatModel, place: Place) -> Attack:
        return AttackConfig.model_validate(config).make(threat, 0)

    kind: Kind = "diverging" if name in ("virtual_adversarial", "noise") else "bounded"
    return Row(name, TRAINING, (python,), make, kind, config=config, cells=cells or {})


def measured(
    name: str,
    python: tuple[str, ...],
    config: Mapping[str, Any],
    kind: Kind = "bounded",
    norms: tuple[str, ...] = ALL,
    per: tuple[str, ...] = ("token", "example"),
    cells: Mapping[str, Cell] | None = None,
) -> Row:
    """A row that `evaluation.attacks` names."""

    def make(threat: ThreatModel, place: Place) -> Attack:
        subject = place.subject(0)
        parsed = TypeAdapter(NamedAttackConfig).validate_python(dict(config))
        surrogates = {SURROGATE: place.subject(1).model}
        evaluation = EvaluationConfig().model_copy(update={"attacks": {"it": parsed}})
        return evaluation.panel(threat, 0, subject.classes, surrogates)["it"]

    return Row(name, EVALUATION, python, make, kind, norms, per, config, cells or {})


def _by_rank(reason: str) -> dict[str, Cell]:
    return on_chats(Refused(reason, "is a class, and chats have none. Use the goal Elicit"))


def carlini_wagner(form: str, python: str, norm: str) -> Row:
    """A form of Carlini-Wagner, which works in the balls of one norm."""
    per = ("token", "example") if form == "linf" else ("example",)
    cells: dict[str, Cell] = {
        other: Refused(
            f"`form: {form}` is for {norm} balls; `fab` and `deepfool` take every norm.",
            f"needs threat.norm: {norm}, got",
            ConfigError,
        )
        for other in ALL
        if other != norm
    }
    if "token" not in per:
        cells["token"] = Refused(
            "The longest of several token norms has no smooth square.",
            "needs threat.per: example, got token",
            ConfigError,
        )
    config = {
        "name": "carlini_wagner",
        "form": form,
        "steps": 15,
        "search_steps": 4,
        "learning_rate": 0.1,
        "initial_constant": 1.0,
    }
    return measured(f"carlini_wagner, form {form}", (python, "Within"), config, "minimal", (norm,), per, cells)


def of_l2(name: str, python: str, told: str) -> Row:
    """A minimal attack that works in L2 balls per example."""
    elsewhere = Refused(
        f"{told} is for l2 balls; `fab` and `deepfool` take every norm.", "needs threat.norm: l2, got", ConfigError
    )
    token = Refused(
        "The longest of several token norms has no smooth square.", "needs threat.per: example, got token", ConfigError
    )
    cells: dict[str, Cell] = {"linf": elsewhere, "l1": elsewhere, "token": token}
    return measured(name, (python, "Within"), {"name": name, "steps": 40}, "minimal", ("l2",), ("example",), cells)


def autoattacks(version: str, cells: Mapping[str, Cell] | None = None, **keys: Any) -> Row:
    """A version of AutoAttack."""
    config = {"name": "autoattack", "version": version, "steps": 4, **keys}
    refused = Refused("It measures classifiers.", "a chat model has no classes, got chats. Use apgd_ce or pgd")
    python = ("AutoAttack", "autoattack")
    return measured(f"autoattack, {version}", python, config, "breaking", cells={**on_chats(refused), **(cells or {})})


FAB_CELLS: dict[str, Cell] = {
    **on_chats(Refused(NO_CLASSES, "a chat model has none, got chats. Use Carlini-Wagner")),
    "token": Refused("It measures whole rows.", "got threat.per: token. Set threat.per: example", ConfigError),
}
L1_SQUARE = Refused("Square has no form for l1 balls.", "Linf and L2 balls, got L1. Set threat.norm", ConfigError)

CONFIGURED = (
    trained("pgd", "pgd", steps=3),
    trained("fgsm", "fgsm"),
    trained("r_fgsm", "r_fgsm"),
    trained("virtual_adversarial", "VirtualAdversarial", steps=2),
    trained("noise", "Noise"),
    measured("apgd_ce", ("Apgd", "apgd_ce"), {"name": "apgd_ce", "steps": 5}),
    measured("apgd_ce, samples 2", ("Eot",), {"name": "apgd_ce", "steps": 5, "samples": 2}),
    measured(
        "apgd_dlr",
        ("apgd_dlr",),
        {"name": "apgd_dlr", "steps": 5},
        cells={
            "2 classes": Refused(
                "The ratio needs 3 classes.", "at least 3 classes, got 2. Set name: apgd_ce", ConfigError
            ),
            **on_chats(Refused("It compares the logits of classes.", "chats have none. Use margin or cross_entropy")),
        },
    ),
    measured(
        "apgd_targeted",
        ("apgd_targeted",),
        {"name": "apgd_targeted", "steps": 4},
        cells=_by_rank("Its targets are classes, which chats do not have."),
    ),
    measured("fab", ("Fab", "Within"), {"name": "fab", "steps": 15}, "minimal", per=("example",), cells=FAB_CELLS),
    measured(
        "fab_targeted",
        ("fab_targeted", "Within"),
        {"name": "fab_targeted", "steps": 15},
        "minimal",
        per=("example",),
        cells=FAB_CELLS,
    ),
    measured("square", ("Square",), {"name": "square", "queries": 40}, norms=ALL[:2], cells={"l1": L1_SQUARE}),
    measured(
        "deepfool",
        ("DeepFool", "Within"),
        {"name": "deepfool", "steps": 40},
        "minimal",
        cells=on_chats(Refused(NO_CLASSES, "a chat model has none, got rows with targets. Use Carlini-Wagner")),
    ),
    of_l2("ddn", "Ddn", "DDN"),
    of_l2("pdgd", "Pdgd", "PDGD"),
    carlini_wagner("l2", "CarliniWagner", "l2"),
    carlini_wagner("linf", "CarliniWagnerLinf", "linf"),
    carlini_wagner("l0", "CarliniWagnerL0", "l2"),
    autoattacks("standard", queries=20),
    autoattacks("fast"),
    autoattacks("rand", samples=2),
    measured(
        "transfer", ("Transfer",), {"name": "transfer", "model": SURROGATE, "attack": {"name": "pgd", "steps": 3}}
    ),
)


def _momentum(threat: ThreatModel, place: Place) -> Attack:
    return GradientAttack(threat, Momentum(StepSize(relative=0.5)), steps=3)


def _foreign(threat: ThreatModel, place: Place) -> Attack:
    model, rows, _ = place.subject(0)
    return foreign(lambda x, y: pgd(threat, steps=3)(model, rows).inputs["pixel_values"], threat, name="PGD of others")


FOREIGN = Refused("Functions of others take images.", "A foreign attack moves images, and the threat model is on")


def _direction(threat: ThreatModel, place: Place) -> Attack:
    rows = place.subject(0).rows
    return RefusalDirection((0, 1), rows.rows([0]), rows.rows([1, 2]))


TWO_ANSWERS = Refused("It works on two answers of a chat.", "got rows without a prompt and its answer. Use pgd")
PRICED = Refused("The price is on the squared l2 norm.", "prices the L2 norm, got")
COMPOSED = (
    Row("GradientAttack", PYTHON, ("GradientAttack",), _momentum),
    Row(
        "MinimumRadius",
        PYTHON,
        ("MinimumRadius",),
        lambda threat, place: MinimumRadius(lambda one: apgd_ce(one, steps=5), threat, 2 * threat.ball.radius, steps=3),
        "minimal",
    ),
    Row("Eot", PYTHON, ("Eot",), lambda threat, place: Eot(pgd(threat, steps=4), samples=2)),
    Row(
        "PenalisedAscent",
        PYTHON,
        ("PenalisedAscent",),
        lambda threat, place: PenalisedAscent(threat, 1.0, 3),
        "priced",
        ("l2",),
        ("example",),
        cells={"linf": PRICED, "l1": PRICED},
    ),
    Row("worst_of", PYTHON, ("worst_of",), lambda threat, place: worst_of(fgsm(threat), pgd(threat, steps=3))),
    Row("then", PYTHON, ("then",), lambda threat, place: then(fgsm(threat), pgd(threat, steps=3))),
    Row("repeat", PYTHON, ("repeat",), lambda threat, place: repeat(pgd(threat, steps=2), 2)),
    Row("Held", PYTHON, ("Held",), lambda threat, place: Held(pgd(threat, steps=3), 2)),
    Row(
        "Contrast",
        PYTHON,
        ("Contrast",),
        lambda threat, place: Contrast(pgd(threat, steps=3, goal=Elicit()), 0.1),
        "eliciting",
        cells=dict.fromkeys((name for name in PLACES if not name.startswith("chat")), TWO_ANSWERS),
    ),
    Row("Stages", PYTHON, ("Stages",), lambda threat, place: Stages({0: fgsm(threat), 2: pgd(threat, steps=3)})),
    Row(
        "AdaptiveRadius",
        PYTHON,
        ("AdaptiveRadius",),
        lambda threat, place: AdaptiveRadius(fgsm(threat), threat, highest=1.0),
    ),
    Row(
        "foreign",
        PYTHON,
        ("Foreign", "foreign"),
        _foreign,
        per=("example",),
        cells={
            **{name: FOREIGN for name in PLACES if name not in ("image: pixels", "chat: directions")},
        },
    ),
    Row(
        "RefusalDirection",
        PYTHON,
        ("RefusalDirection",),
        _direction,
        "ablation",
        (),
        (),
        cells={
            **dict.fromkeys(PLACES, Absent("It takes directions out of the hidden states of chats, in no ball.")),
            "chat: directions": None,
        },
    ),
)
ROWS = {row.name: row for row in (*CONFIGURED, *COMPOSED)}
