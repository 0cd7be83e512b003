"""Arguments of the wrong kind to what people call: one sentence that says what to do, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

import textadv as ta
from tests.attacks.strangers import Art, Torchattacks, climbed
from tests.tiny import rows as token_rows
from textadv.data.reviews import reviews
from textadv.data.tokenizer import reviews_tokenizer
from textadv.values.kinds import told

ROWS = token_rows(8)
IMAGES = ta.ImageRows(torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)), [0, 1, 0, 1])
NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
MODEL = ta.as_classifier(NETWORK)
THREAT = ta.ThreatModel(ta.Pixels(), ta.Linf(0.1, per="example"))
PGD = ta.pgd(THREAT, steps=2)
EXAMPLES = reviews().train
PANEL = {"pgd": PGD}


def evaluated(**changes: Any) -> Callable[[], object]:
    given: dict[str, Any] = {"model": MODEL, "rows": IMAGES, "attacks": PANEL, "threat": THREAT, **changes}
    return lambda: ta.evaluate(**given)


def scored(**changes: Any) -> Callable[[], object]:
    given: dict[str, Any] = {"model": MODEL, "rows": IMAGES, "positions": range(4), "attack": PGD, **changes}
    return lambda: ta.scores(**given)


def trained(**changes: Any) -> Callable[[], object]:
    given: dict[str, Any] = {
        "accelerator": Accelerator(cpu=True),
        "model": MODEL,
        "sampler": ta.OneStream(IMAGES, ta.Mixing(), batch_size=2),
        "objectives": ta.hardening(ta.Adversarial(PGD)),
        "settings": ta.Settings(steps=1),
        "score": None,
        "folder": Path("nowhere"),
        **changes,
    }
    return lambda: ta.Trainer(**given)


def called(function: Any, *arguments: Any, **named: Any) -> Callable[[], object]:
    return lambda: function(*arguments, **named)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "evaluate a name": (evaluated(model="gpt2"), "model must be a torch module, got the text 'gpt2'. Load it"),
    "evaluate a list of rows": (evaluated(rows=["a", "b"]), "rows must be rows .*, got a list of 2. Texts become rows"),
    "evaluate a batch": (evaluated(rows=IMAGES.batch([0])), "rows must be rows .*, got a Batch"),
    "evaluate a tensor": (evaluated(rows=IMAGES.pixels), r"got a Tensor of shape \(4, 1, 4, 4\).*ImageRows"),
    "evaluate examples": (evaluated(rows=EXAMPLES), "got an Examples. Texts become rows by encode"),
    "evaluate one attack": (evaluated(attacks=PGD), "attacks must be a mapping of names to attacks, got a GradientAtt"),
    "evaluate a name for attacks": (evaluated(attacks="pgd"), "attacks must be a mapping .* got the text 'pgd'"),
    "evaluate a list of attacks": (evaluated(attacks=[PGD]), "got a list of 1. Example: {'pgd20': pgd"),
    "evaluate a named attack": (evaluated(attacks={"a": "pgd"}), r"attacks\['a'\] must be an attack, got the text"),
    "evaluate a class": (evaluated(attacks={"a": ta.Square}), "must be an attack, got the class Square itself. Build"),
    "evaluate a model as attack": (evaluated(attacks={"a": MODEL}), "must be an attack, got a Normalised"),
    "evaluate a function": (evaluated(attacks={"a": climbed}), "called as attack.*got the function climbed.*foreign"),
    "evaluate torchattacks": (
        evaluated(attacks={"a": Torchattacks(NETWORK)}),
        "got a Torchattacks. An attack of another",
    ),
    "evaluate art": (evaluated(attacks={"a": Art(NETWORK)}), "must be an attack, got an Art. .*is foreign"),
    "evaluate a search": (
        evaluated(attacks={"a": ta.MinimumRadius(ta.fgsm, THREAT, upper=1.0)}),
        "must be an attack in a ball, got a MinimumRadius. Give evaluate",
    ),
    "evaluate in a ball": (evaluated(threat=ta.Linf(0.1)), "threat must be a ThreatModel, got a Ball. Example"),
    "evaluate a radius": (evaluated(threat=0.1), "threat must be a ThreatModel, got the number 0.1"),
    "evaluate a number": (evaluated(positions=10), r"positions must be a sequence .*, got the number 10. Give them as"),
    "score a config": (scored(model=ta.Settings(steps=1)), "model must be a torch module, got a Settings"),
    "score nothing": (scored(model=None), "model must be a torch module, got None"),
    "score a name": (scored(attack="pgd"), "attack must be an attack, got the text 'pgd'"),
    "score texts": (scored(rows=EXAMPLES), "got an Examples"),
    "forward a tensor": (called(ta.forward, MODEL, IMAGES.pixels), "batch must be a Batch, got a Tensor of shape"),
    "forward rows": (called(ta.forward, MODEL, IMAGES), "batch must be a Batch, got an ImageRows. Take one from rows"),
    "forward a name": (called(ta.forward, "bert", IMAGES.batch([0])), "model must be a torch module, got the text"),
    "evaluating a name": (called(lambda name: ta.evaluating(name).__enter__(), "bert"), "model must be a torch module"),
    "encode texts": (
        called(ta.encode, ["a text"], reviews_tokenizer(), 8),
        "examples must be Examples, got a list of 1",
    ),
    "encode splits": (called(ta.encode, reviews(), reviews_tokenizer(), 8), "got a Splits. Take a split"),
    "encode with a name": (
        called(ta.encode, EXAMPLES, "bert-base-uncased", 8),
        "tokenizer must be a tokenizer, got the",
    ),
    "encode to a text": (
        called(ta.encode, EXAMPLES, reviews_tokenizer(), "8"),
        "max_length must be a number of tokens",
    ),
    "classifier of a name": (called(ta.as_classifier, "resnet18"), "module must be a torch module, got the text"),
    "classifier of a function": (called(ta.as_classifier, climbed), "got the function climbed. Wrap a function in an"),
    "classifier of a class": (called(ta.as_classifier, nn.Linear), "got the class Linear itself"),
    "train a name": (trained(model="bert"), "model must be a torch module"),
    "train rows": (
        trained(sampler=IMAGES),
        "sampler must be a sampler, got an ImageRows. Rows of one data set: OneStr",
    ),
    "train an objective": (
        trained(objectives=ta.Adversarial(PGD)),
        "objectives must be a mapping .* got an Adversarial",
    ),
    "train a mapping": (trained(settings={"steps": 1}), "settings must be Settings, got a dict of 1"),
    "train without accelerate": (trained(accelerator="cpu"), "accelerator must be an Accelerator, got the text 'cpu'"),
    "harden by an attack": (
        called(ta.hardening, PGD),
        "objective must be an objective, got a GradientAttack. An attack",
    ),
    "harden by a name": (called(ta.hardening, "trades"), "objective must be an objective, got the text 'trades'"),
    "an objective of a name": (called(ta.Adversarial, "pgd"), "attack must be an attack, got the text 'pgd'"),
    "trades of a name": (called(ta.trades, "pgd"), "attack must be an attack, got the text 'pgd'"),
    "mart of a ball": (called(ta.Mart, THREAT.ball), "attack must be an attack, got a Ball"),
    "freelb of a threat": (called(ta.FreeLB, THREAT), "attack must be a gradient attack, got a ThreatModel. Give pgd"),
    "free of a text": (called(ta.Free, "pgd", replays=2), "attack must be a gradient attack, got the text"),
    "sample texts": (called(ta.OneStream, EXAMPLES, ta.Mixing(), 2), "got an Examples. Texts become rows by encode"),
    "sample a ratio": (called(ta.OneStream, ROWS, 0.5, 2), "mixing must be a Mixing, got the number 0.5"),
    "threat of a class": (
        called(ta.ThreatModel, ta.Pixels, ta.Linf(0.1)),
        "space must be a space, got the class Pixels",
    ),
    "threat of a name": (
        called(ta.ThreatModel, "pixels", ta.Linf(0.1)),
        "space must be a space, got the text 'pixels'",
    ),
    "threat turned round": (called(ta.ThreatModel, ta.Linf(0.1), ta.Pixels()), "space must be a space, got a Ball"),
    "threat of a radius": (called(ta.ThreatModel, ta.Pixels(), 0.1), "ball must be a ball, got the number 0.1"),
    "a radius in quotes": (
        called(ta.Linf, "8/255"),
        "threat.radius must be a number, got the text '8/255'. Write 8 / 255",
    ),
    "then a name": (called(ta.then, PGD, "pgd"), "second must be an attack, got the text 'pgd'"),
    "worst of a list": (called(ta.worst_of, [PGD, PGD]), "attack 1 of worst_of must be an attack, got a list of 2"),
    "repeat a class": (called(ta.repeat, ta.Square, 2), "attack must be an attack, got the class Square itself"),
    "a mean of a name": (called(ta.Eot, "pgd"), "attack must be an attack, got the text"),
    "transfer from a name": (
        called(ta.Transfer, "resnet18", PGD, THREAT, "a name"),
        "model must be a torch module, got the text 'resnet18'",
    ),
    "look at texts": (
        called(ta.inspect_rows, MODEL, EXAMPLES, [0], PGD, THREAT, str, ["a"]),
        "got an Examples. Texts become rows",
    ),
    "look at images": (
        called(ta.inspect_images, MODEL, IMAGES.pixels, [0], PGD, THREAT, ["a"]),
        "rows must be rows .*, got a Tensor of shape",
    ),
}
BUILT: dict[str, Callable[[Any], object]] = {
    "pgd": ta.pgd,
    "fgsm": ta.fgsm,
    "r_fgsm": ta.r_fgsm,
    "apgd_ce": ta.apgd_ce,
    "apgd_dlr": ta.apgd_dlr,
    "apgd_targeted": lambda threat: ta.apgd_targeted(threat, 3),
    "autoattack": lambda threat: ta.autoattack(threat, 3),
    "square": lambda threat: ta.Square(threat, 10),
    "fab": ta.Fab,
    "fab_targeted": lambda threat: ta.fab_targeted(threat, 3),
    "deepfool": ta.DeepFool,
    "carlini_wagner": ta.CarliniWagner,
    "carlini_wagner linf": ta.CarliniWagnerLinf,
    "carlini_wagner l0": ta.CarliniWagnerL0,
    "virtual_adversarial": ta.VirtualAdversarial,
    "noise": ta.Noise,
    "minimum radius": lambda threat: ta.MinimumRadius(ta.fgsm, threat, upper=1.0),
    "adaptive radius": lambda threat: ta.AdaptiveRadius(PGD, threat),
    "transfer": lambda threat: ta.Transfer(MODEL, PGD, threat, "a name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kind_is_told_in_one_sentence(name: str) -> None:
    wrong, message = WRONG[name]
    with pytest.raises(TypeError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 350


@pytest.mark.parametrize("name", BUILT)
def test_every_attack_is_built_for_a_threat_model(name: str) -> None:
    with pytest.raises(TypeError, match="threat must be a ThreatModel, got a Ball. Example: ThreatModel"):
        BUILT[name](THREAT.ball)


@pytest.mark.parametrize("positions", [[4], [-1], [True, 2.0], ["a"], [0, None]], ids=str)
def test_positions_outside_the_rows_are_told(positions: list[Any]) -> None:
    with pytest.raises(ValueError, match="positions must lie in 0 to 3, of 4 rows, got"):
        evaluated(positions=positions)()


@pytest.mark.parametrize("positions", [np.array([2, 0]), torch.tensor([2, 0]), (2, 0), range(2, -1, -2)], ids=str)
def test_positions_may_be_arrays(positions: Any) -> None:
    assert evaluated(positions=positions)()["accuracy/clean"].total == 2  # type: ignore[index]
    assert scored(positions=positions)().clean >= 0  # type: ignore[attr-defined]


def test_rows_without_classes_are_neither_measured_nor_trained_on() -> None:
    bare = ta.ImageRows(IMAGES.pixels)
    for wrong in (evaluated(rows=bare), scored(rows=bare), called(ta.OneStream, bare, ta.Mixing(), 2)):
        with pytest.raises(ta.DataError, match="labels are missing at 4 of 4 rows"):
            wrong()


def test_a_value_is_told_in_few_words() -> None:
    long = told("x" * 5000)
    assert len(long) < 80 and told(torch.zeros(2, 3)) == "a Tensor of shape (2, 3)"
    assert [told(value) for value in (None, 3, [1, 2], {}, int, THREAT.ball)] == [
        "None",
        "the number 3",
        "a list of 2",
        "a dict of 0",
        "the class int itself",
        "a Ball",
    ]
