"""What an evaluation is asked for, checked before anything runs: one sentence about what cannot be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from textadv.attacks import Attack, ThreatModel, require_any_radius, require_attack, require_threat
from textadv.data import Rows, require_labelled
from textadv.evaluation.adversarial_rows import files_of
from textadv.kinds import told, wrong_kind
from textadv.models import require_model


class Measurable(NamedTuple):
    """The positions to measure, all by default; and where the adversarial rows of each attack go, None: nowhere."""

    positions: Sequence[int]
    files: dict[str, Path] | None


def require_measurable(
    model: nn.Module,
    rows: Rows,
    attacks: Mapping[str, Attack],
    threat: ThreatModel,
    positions: Sequence[int] | None,
    radii: Sequence[float],
    curve_attack: str | None,
    keep_adversarial: str | Path | None,
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
    if drawn is not None and any(radius != own for radius in radii):
        require_any_radius(attacks[drawn], "Name another attack as curve_attack, or leave radii out.")
    places = _positions(rows, range(len(rows)) if positions is None else positions)
    return Measurable(places, None if keep_adversarial is None else files_of(Path(keep_adversarial), attacks))


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
    if isinstance(positions, str) or not isinstance(positions, Sequence):
        remedy = f"Give them as range(100) or a list, from 0 to {len(rows) - 1}."
        raise wrong_kind("positions", positions, "a sequence of the positions of rows", remedy)
    odd = [place for place in positions if not isinstance(place, int | np.integer) or not 0 <= place < len(rows)]
    if odd:
        raise ValueError(f"positions must lie in 0 to {len(rows) - 1}, of {len(rows)} rows, got {told(odd[0])}.")
    return positions
