"""Attacks that others wrote, under the contract of an attack: any function from images and classes to images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Attacked, Cost
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.guarding import Passes, counting, guarded
from textadv.attacks.parts.members import parts, threats
from textadv.attacks.parts.probe import assess, differentiable
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.unperturbed import one_pass
from textadv.data import from_numpy
from textadv.models import evaluating
from textadv.values.batch import Batch
from textadv.values.kinds import told, wrong_kind
from textadv.values.spaces import OUTSIDE

TOLERANCE = 1e-4
# So many ranges above the image box are no overshoot.
UNITS = 20
LONGEST = 200
CALLED_AS = "fn(x, y) -> x_adv"


@runtime_checkable
class Generates(Protocol):
    """An attack of the Adversarial Robustness Toolbox."""

    def generate(self, x: Any, y: Any) -> Any: ...


def _bounded(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


@dataclass(frozen=True)
class Foreign:
    """An attack that calls someone else's; made by `foreign`, which says what the fields are.

    Deviations: none; it follows no paper.
    """

    fn: Callable[..., Any] | Generates = field(repr=False, metadata={"described": False})
    threat: ThreatModel
    name: str
    outside: Literal["project", "refuse"] = "project"
    numpy: bool = False
    seed: int = 0
    goal: Goal = field(default_factory=Untargeted)

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if not isinstance(self.name, str) or not self.name.strip():
            raise wrong_kind("name", self.name, "a text that says what the attack is", "Example: name='PGD, 40 steps'.")
        remedy = f"Give {CALLED_AS}, a torchattacks object, an ART attack, or a function that calls foolbox."
        if isinstance(self.fn, type) or not (callable(self.fn) or isinstance(self.fn, Generates)):
            raise wrong_kind("fn", self.fn, "an attack that can be called", remedy)
        if threats(self.fn):
            raise wrong_kind("fn", self.fn, "an attack of another library", "This one is an attack already: name it.")
        if not self.threat.space.is_picture:
            raise ValueError(
                f"A foreign attack moves images, and the threat model is on {self.threat.space}. Use "
                "ThreatModel(Pixels(), ball)."
            )
        if self.outside not in ("project", "refuse"):
            raise ValueError(f"outside must be 'project' or 'refuse', got {told(self.outside)}.")

    def __str__(self) -> str:
        return f"{self.name} (foreign)"

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` as the foreign attack leaves them, in the ball; see `Attack` for the arguments.

        Raises ValueError at a radius_scale other than 1, since the radius is inside the function, and RuntimeError
        where the function fails, returns something else than such images, or changes the model.
        """
        model, batch, back = entered(self, model, batch, y, measure)
        if not bool((torch.as_tensor(radius_scale) == 1).all()):
            raise ValueError(
                f"The radius of {self} is inside its function, so it runs at that of its threat model only. Make "
                "another one for another radius, and name another attack for curves, warm-ups and smallest radii."
            )
        rows = batch.clean()
        threat = self.threat.resolved(model, rows)
        pixels = rows.inputs["pixel_values"]
        with counting(model) as passes, differentiable():
            moved = self._moved(model, rows, step)
        delta = self._confined(threat, rows, moved.to(pixels.device, pixels.dtype) - pixels)
        with evaluating(model):
            clean = one_pass(model, rows) if measure else None
            return back(assess(model, rows, threat, delta, None, self.goal, clean, self._cost(passes, rows)))

    def _moved(self, model: nn.Module, rows: Batch, step: int) -> Tensor:
        """What the function returns for these rows, as a tensor of their shape."""
        x, y = rows.inputs["pixel_values"].detach().clone(), rows.labels.clone()
        arrays = self.numpy or isinstance(self.fn, Generates)
        given = (x.cpu().numpy(), y.cpu().numpy()) if arrays else (x, y)
        with guarded(model, str(self), self.seed, step, *rows.ids.tolist()):
            returned = self._called(*given)
        return self._images(returned, rows)

    def _called(self, x: Any, y: Any) -> object:
        try:
            return self.fn.generate(x=x, y=y) if isinstance(self.fn, Generates) else self.fn(x, y)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"{self} raised {type(error).__name__} when it was called as {CALLED_AS}: "
                f"{_bounded(error)} Give a function of "
                "images and classes; foolbox is lambda x, y: attack(fmodel, x, y, epsilons=radius)."
            ) from error

    def _images(self, returned: object, rows: Batch) -> Tensor:
        if isinstance(returned, tuple) and len(returned) == 3:
            # foolbox: as it was found, clipped to its radius, whether it succeeded.
            returned = returned[1]
        tensor = from_numpy(returned) if isinstance(returned, np.ndarray) else returned
        wanted = tuple(rows.inputs["pixel_values"].shape)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != wanted:
            raise RuntimeError(
                f"{self} must return images of shape {wanted}, those that it was given, or foolbox's (raw, clipped, "
                f"success) at one radius, got {told(returned)}. Return the adversarial images themselves."
            )
        if not tensor.is_floating_point():
            raise RuntimeError(
                f"{self} must return floating point in the range of {self.threat.space}, got {tensor.dtype}. Divide "
                "bytes by 255, or let it return floating point."
            )
        space, box = self.threat.space, self.threat.space.box(rows.inputs)
        assert box is not None
        low, high = float(tensor.detach().amin()), float(tensor.detach().amax())
        if high > box.high + UNITS * box.width:
            raise RuntimeError(
                f"{self} must return images in the range of {space}, got {low:.3g} to {high:.3g}, which are in other "
                "units. Divide bytes by 255."
            )
        odd = (~tensor.detach().isfinite()).flatten(1).any(dim=1).cpu()
        if bool(odd.any()):
            raise RuntimeError(f"{self} returned nan or infinite pixels at row ids {rows.ids.cpu()[odd].tolist()[:5]}.")
        return tensor.detach()

    def _confined(self, threat: ThreatModel, rows: Batch, delta: Tensor) -> Tensor:
        """The delta in its ball and the image box; a warning, or an error, where it was not."""
        confined = threat.confine(rows, delta)
        box = threat.space.box(rows.inputs)
        assert box is not None
        slack = OUTSIDE * box.width
        gauge = threat.ball.gauge(delta)
        odd = (gauge > 1 + TOLERANCE) | ((delta - confined).abs().flatten(1).amax(dim=1) > slack)
        if not bool(odd.any()):
            return confined
        found = (
            f"{self} left its threat model ({threat}) at {int(odd.sum())} of {len(rows)} rows, first row ids "
            f"{rows.ids[odd].tolist()[:5]}: norm / radius up to {float(gauge.max()):.4g}, pixels up to "
            f"{float((delta - confined).abs().max()):.2g} too far"
        )
        if self.outside == "refuse":
            raise RuntimeError(f"{found}. Give it the radius of the threat model, or set outside='project'.")
        warnings.warn(f"{found}. These rows were brought back, and are measured there.", stacklevel=2)
        return confined

    def _cost(self, passes: Passes, rows: Batch) -> Cost:
        if not passes.forwards:
            warnings.warn(
                f"{self} did not run the model that it is measured on, so that its passes are unknown and not counted: "
                "it searched another model, or a copy.",
                stacklevel=2,
            )
        return passes.cost(rows)


def require_any_radius(attack: object, remedy: str) -> None:
    """Raises ValueError where the attack, or an attack in it, runs at one radius only. remedy: a whole sentence."""
    fixed = next((part for part in parts(attack) if isinstance(part, Foreign)), None)
    if fixed is not None:
        raise ValueError(
            f"{fixed} runs at one radius, which is inside its function, and others are asked for. {remedy}"
        )


def foreign(
    fn: Callable[..., Any] | Generates,
    threat: ThreatModel,
    *,
    name: str,
    outside: Literal["project", "refuse"] = "project",
    numpy: bool = False,
    seed: int = 0,
) -> Foreign:
    """An attack of another library, or of your own, as an attack of the panel.

    fn: from images (B, channels, height, width) and classes (B,) to adversarial images: a function, a torchattacks
        object, an ART attack (whose `generate` gets numpy arrays), or a function that calls foolbox, whose tuple may be
        returned as it is. It holds the model that it searches, and its settings.
    threat: on pixels, of the radius that fn was given. name: what results call it. Finished rows of an interrupted
        evaluation are known by it: say the settings in it, and change it when you change fn.
    outside: what becomes of images outside the ball or the box: brought back with a warning, or refused.
    numpy: fn takes numpy arrays. seed: the global generators that fn draws from are set by (seed, step, row ids)
        while it runs, so that a batch gets the same images again; a row in another batch may not.

    Gauge and outcome are measured here; what fn says of its success is not asked. The cost is counted by hooks on the
    model that is measured, or the network in it, where fn runs that one; which rows a pass held is not known. Weights,
    buffers, gradients, modes and global random numbers are put back after every call.

    Raises TypeError or ValueError where fn, threat or name are not that.

    Deviations: none; it follows no paper.
    """
    return Foreign(fn, threat, name, outside, numpy, seed)
