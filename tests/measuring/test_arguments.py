"""What cannot be meant by the arguments of an evaluation is one sentence; none gives a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import textadv as ta
from textadv.measuring.measured import Measured

THREAT = ta.ThreatModel(ta.Pixels(), ta.Linf(0.1, per="example"))
IMAGES = np.random.default_rng(0).random((12, 1, 4, 4)).astype(np.float32)
LABELS = np.arange(12) % 3


class Returning(torch.nn.Module):
    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 3)
        self.shape = shape

    def forward(self, pixels: Tensor) -> Any:
        return self.shape(self.linear(pixels.flatten(1)))


def found(network: nn.Module | None = None, attacks: dict[str, Any] | None = None, **options: Any) -> Measured:
    torch.manual_seed(0)
    model = ta.as_classifier(network or torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)))
    panel = {"fgsm": ta.fgsm(THREAT)} if attacks is None else attacks
    return ta.evaluate(model, ta.ImageRows(IMAGES, LABELS), panel, THREAT, **options)


REFUSED = {
    "descending": ({"radii": [0.1, 0.05]}, "radii must ascend"),
    "twice the same": ({"radii": [0.1, 0.1]}, "radii must ascend"),
    "one radius": ({"radii": 0.1}, "radii must be a sequence"),
    "radii as texts": ({"radii": ["8/255"]}, "each of radii must be a number"),
    "no rows": ({"positions": []}, "at least one row"),
    "a mask": ({"positions": np.arange(12) < 3}, "flatnonzero"),
    "a row twice": ({"positions": [1, 1, 2]}, "1 stands there twice"),
    "no batch": ({"batch_size": 0}, "batch_size must be"),
    "an attack for a search": ({"minimum": ta.fgsm(THREAT)}, "Give RadiusSearch"),
    "no folder": ({"keep_adversarial": True}, "keep_adversarial must be a folder"),
    "one name": ({"names": "abc"}, "names must be the names"),
    "too few targets": ({"attacks": {"aa": ta.autoattack(THREAT, classes=2)}}, "Give classes=3"),
    "class numbers": ({"network": Returning(lambda logits: logits.argmax(1))}, "logits of shape"),
    "a place each": ({"network": Returning(lambda logits: logits[:, :, None])}, "logits of shape"),
    "one logit": ({"network": Returning(lambda logits: logits[:, :1])}, "one number per row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_sentence(case: str) -> None:
    options, sentence = REFUSED[case]
    with pytest.raises((TypeError, ValueError, ta.ModelError), match=sentence) as caught:
        found(**options)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("names", [["a", "b", "c"], {0: "a", 1: "b", 2: "c"}, {"2": "c", "0": "a", "1": "b"}])
def test_names_may_be_a_list_or_id2label(names: Any) -> None:
    class Rolled(torch.nn.Module):
        def forward(self, pixels: Tensor) -> Any:
            return pixels.flatten(1)[:, :3].roll(1, 1)

    labels = np.arange(48) % 3
    images = np.full((48, 1, 4, 4), 0.4, np.float32)
    images.reshape(48, -1)[np.arange(48), labels] = 0.9
    rows = ta.ImageRows(images, labels)
    notes = ta.evaluate(ta.as_classifier(Rolled()), rows, {}, THREAT, names=names).notes
    assert len(notes) >= 1
    assert 'data.labels: ["c", "a", "b"]' in notes[0]


def test_numpy_names_are_plain_texts() -> None:
    notes = found(attacks={}, names=np.array(["a", "b", "c"]), positions=range(3)).notes
    assert "np.str_" not in "".join(notes)


def test_a_search_for_the_smallest_radius_has_a_public_name() -> None:
    unit = ta.ThreatModel(ta.Pixels(), ta.Linf(1.0, per="example"))
    assert found(minimum=ta.RadiusSearch(ta.fgsm(unit), rows=2)).section(ta.MinimumRadii) is not None


def test_normalisation_for_other_channels_is_one_sentence() -> None:
    model = ta.as_classifier(torch.nn.Flatten(), mean=[0.1, 0.2], std=[1.0, 1.0])
    with pytest.raises(ta.ModelError, match="2 channels, and the images have 1"):
        model(torch.zeros(1, 1, 4, 4))


def test_logits_too_far_apart_for_a_slope_are_named_as_such() -> None:
    with pytest.raises(ta.PerturbationError, match="logits lie so far apart"):
        found(Returning(lambda logits: logits * 1e6), positions=[0, 1, 2])
