"""How an attack is called: on a batch, or on a model's images and labels as they stand in arrays."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, Protocol, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from textadv.attacks.parts.arrays import attackable, like
from textadv.attacks.parts.attacked import Attacked, BrokenAt
from textadv.models import require_model
from textadv.values.batch import Batch, require_batch
from textadv.values.errors import PerturbationError
from textadv.values.kinds import told

Found = TypeVar("Found", Attacked, BrokenAt)
Result = TypeVar("Result", covariant=True)
Labels = Tensor | NDArray[Any] | list[int] | tuple[int, ...]


class Call(Protocol[Result]):
    """An attack, called: a batch gives what the attack hands back, an array the adversarial array of the same type.

    batch: rows; or images (N, channels, height, width), a torch tensor or numpy array of floating point in the range
        of the attack's pixels, and with them `y`, their N classes. The array is returned perturbed, of the same
        shape, type, number format and device. In half precision it is rounded towards the clean image, so that it stays
        in the ball. Rows are numbered from 0, as in `ImageRows`, so that both calls give the same images bit for bit.
    model: for arrays it may be any module that maps such images to logits; it need not have been wrapped.

    Raises TypeError, ValueError or ModelError, in one sentence, at what is not that.
    """

    @overload
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Result: ...

    @overload
    def __call__(
        self,
        model: nn.Module,
        batch: Tensor,
        y: Labels,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Tensor: ...

    @overload
    def __call__(
        self,
        model: nn.Module,
        batch: NDArray[Any],
        y: Labels,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> NDArray[Any]: ...


class Method(Protocol[Result]):
    """The `__call__` of a class of attacks."""

    def __get__(self, instance: object, owner: type | None = None) -> Call[Result]: ...


def on_arrays(method: Callable[..., Found]) -> Method[Found]:
    """The `__call__` of an attack on batches, as one that takes arrays as well; see `Call`.

    What it hands back for a batch knows the model, so that it can offer the adversarial inputs.
    """

    @wraps(method)
    def call(self: object, model: nn.Module, batch: object, y: object = None, **options: Any) -> object:
        require_model(model)
        if isinstance(batch, Tensor | np.ndarray):
            ready = attackable(self, model, batch, y)
            found = _sloped(method(self, ready.model, ready.batch, **options), self)
            return like(batch, ready.batch.inputs["pixel_values"], found.inputs["pixel_values"])
        rows = require_batch(batch, arrays=True)
        if y is not None:
            raise TypeError(f"A batch holds its own labels: call attack(model, batch), got {told(y)} beside it.")
        # A search of training is not measured, and waits for no answer of the device.
        if options.get("measure", True) and bool(rows.unlabelled.any()):
            missing = rows.ids[rows.unlabelled].tolist()[:5]
            raise ValueError(
                f"labels are missing in rows with ids {missing}, and attacks are measured against the class of a row. "
                "Give them: ImageRows(images, labels)."
            )
        return _sloped(_of(method(self, model, rows, **options), model), self)

    return cast(Method[Found], call)


def _of(found: Found, model: nn.Module) -> Found:
    if isinstance(found, BrokenAt):
        return found._replace(attacked=replace(found.attacked, model=weakref.ref(model)))
    return replace(found, model=weakref.ref(model))


def _sloped(found: Found, attack: object) -> Found:
    """The same; raises PerturbationError, which holds it, where the search met no slope."""
    slopes = found.attacked.slopes if isinstance(found, BrokenAt) else found.slopes
    if slopes.flat:
        raise PerturbationError(str(slopes.complaint), attack, found)
    return found


def searched(attack: Callable[..., Found], model: nn.Module, batch: Batch, **options: Any) -> Found:
    """What the attack finds, also where its search met no slope, which `Attacked.slopes` then tells.

    For those that judge several searches together: whether single rows are flat does not depend on which other rows
    share their batch, and of several attacks one that meets a slope is enough. An attack inside one that does not ask
    so ends that one with the error.
    """
    try:
        return attack(model, batch, **options)
    except PerturbationError as error:
        if error.attack is not attack or error.found is None:
            raise
        return cast(Found, error.found)
