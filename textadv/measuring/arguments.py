"""What an evaluation is asked for, checked before anything runs: one sentence about what cannot be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from textadv.attacks import Attack, ThreatModel, require_any_radius, require_attack, require_threat
from textadv.data import Rows, require_labelled
from textadv.measuring.accuracy.adversarial_rows import files_of
from textadv.measuring.accuracy.minimum import RadiusSearch
from textadv.models import require_model
from textadv.values.kinds import told, wrong_kind


class Measurable(NamedTuple):
    """The positions to measure; where the adversarial rows of each attack go, None: nowhere; the names of classes."""

    positions: Sequence[int]
    files: dict[str, Path] | None
    names: tuple[str, ...]


def require_measurable(
    model: nn.Module,
    rows: Rows,
    attacks: Mapping[str, Attack],
    threat: ThreatModel,
    positions: Sequence[int] | None,
    radii: Sequence[float],
    curve_attack: str | None,
    keep_adversarial: str | Path | None,
    batch_size: int,
    minimum: RadiusSearch | None,
    names: Sequence[str],
) -> Measurable:
    """What is to be measured. Raises as `evaluate`, whose arguments these are."""
    require_model(model)
    require_labelled(rows)
    if not isinstance(attacks, Mapping):
        raise wrong_kind("attacks", attacks, "a mapping of names to attacks", "Example: {'pgd20': pgd(threat)}.")
    for name, attack in attacks.items():
        require_attack(f"attacks[{name!r}]", attack)
    require_threat(threat)
    if curve_attack is not None and curve_attack not in attacks:
        raise ValueError(
            f"curve_attack must be one of {', '.join(attacks) or 'the attacks'}, got {told(curve_attack)}."
        )
    drawn = curve_attack or next(iter(attacks), None)
    own = threat.ball.radius if threat.ball.relative_radius is None else threat.ball.relative_radius
    _require_ascending(radii)
    if drawn is not None and any(radius != own for radius in radii):
        require_any_radius(attacks[drawn], "Name another attack as curve_attack, or leave radii out.")
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise wrong_kind("batch_size", batch_size, "a number of rows, at least 1", "Leave it out for 64.")
    if minimum is not None and not isinstance(minimum, RadiusSearch):
        raise wrong_kind("minimum", minimum, "a RadiusSearch", "Give RadiusSearch(attack).")
    if keep_adversarial is not None and not isinstance(keep_adversarial, str | Path):
        raise wrong_kind("keep_adversarial", keep_adversarial, "a folder", "Example: 'runs/adversarial'.")
    places = _positions(rows, range(len(rows)) if positions is None else positions)
    called = _class_names(names)
    return Measurable(places, None if keep_adversarial is None else files_of(Path(keep_adversarial), attacks), called)


def _require_ascending(radii: object) -> None:
    """Raises TypeError or ValueError unless these are radii as a curve takes them."""
    given = radii.tolist() if isinstance(radii, Tensor | np.ndarray) else radii
    remedy = "Example: [1 / 255, 4 / 255, 8 / 255]."
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise wrong_kind("radii", radii, "a sequence of numbers", remedy)
    for radius in given:
        if not isinstance(radius, int | float | np.number):
            raise wrong_kind("each of radii", radius, "a number", remedy)
    # A row that a smaller radius broke is not tried at a larger one.
    if any(not later > before for before, later in pairwise(given)):
        raise ValueError(f"radii must ascend, got {told(given)} that do not. Give sorted(set(radii)).")


def _class_names(names: object) -> tuple[str, ...]:
    """What classes are called, from a sequence or array, or a mapping of their numbers as in `id2label`."""
    if isinstance(names, Mapping):
        return tuple(str(names[number]) for number in sorted(names, key=int))
    if isinstance(names, Tensor | np.ndarray):
        names = names.tolist()
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise wrong_kind("names", names, "the names of the classes", "Example: ['cat', 'dog'].")
    return tuple(str(name) for name in names)


def require_scorable(
    model: nn.Module, rows: Rows, positions: Sequence[int], attack: Attack | None, threat: ThreatModel | None
) -> Sequence[int]:
    """The positions. Raises as `require_measurable`, for the arguments of `scores`."""
    require_model(model)
    require_labelled(rows)
    if attack is not None:
        require_attack("attack", attack)
    if threat is not None:
        require_threat(threat)
    return _positions(rows, positions)


def _positions(rows: Rows, positions: object) -> Sequence[int]:
    """The positions, known to be those of rows."""
    if isinstance(positions, Tensor | np.ndarray):
        positions = positions.tolist()
    if isinstance(positions, list) and positions and all(isinstance(place, bool) for place in positions):
        raise ValueError("positions must be the positions of rows, got a mask. Give numpy.flatnonzero(mask).")
    if isinstance(positions, str) or not isinstance(positions, Sequence):
        remedy = f"Give them as range(100) or a list, from 0 to {len(rows) - 1}."
        raise wrong_kind("positions", positions, "a sequence of the positions of rows", remedy)
    odd = [place for place in positions if not isinstance(place, int | np.integer) or not 0 <= place < len(rows)]
    if odd:
        raise ValueError(f"positions must lie in 0 to {len(rows) - 1}, of {len(rows)} rows, got {told(odd[0])}.")
    if not positions:
        raise ValueError("positions must name at least one row, got none. Leave them out for all rows.")
    twice = [place for place, count in Counter(positions).items() if count > 1]
    if twice:
        raise ValueError(
            f"positions must name each row once, and {twice[0]} stands there twice. Give sorted(set(...))."
        )
    return positions
