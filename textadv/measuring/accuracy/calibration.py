"""How far a classifier's confidence can be believed, and the one number that repairs most of it.

Sharp, overconfident logits starve a score-based attack of its signal, so that a badly calibrated model looks robust.
Attacks are therefore run on logits divided by a temperature that was fitted on clean validation data.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 100.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in 0.05..100 by which dividing the logits makes the labels most likely.

    logits: (N, C) on validation data; labels: (N,) int64 class ids.

    Raises ValueError on other shapes, no row, a label outside 0..C-1 or logits that are not finite.
    Guo et al., arXiv:1706.04599, section 4.2. Deviation: the labels are smoothed by 1 / (N + 1), one unseen row of
    unknown label. Where every row is right the plain likelihood asks for ever sharper logits, and on those the
    gradient of an attack vanishes; with a few hundred rows and some errors the smoothing is not noticeable.
    """
    scores, classes = _checked(logits, labels)
    smoothing = 1 / (len(classes) + 1)

    def mean_loss(log_temperature: float) -> float:
        scaled = scores / math.exp(log_temperature)
        return float(torch.nn.functional.cross_entropy(scaled, classes, label_smoothing=smoothing))

    # The loss is convex in 1/T, so it has one minimum in log T as well, which a bounded scalar search finds.
    bounds = (math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
    found = minimize_scalar(mean_loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # The search never evaluates the ends themselves.
    best = min((float(found.x), *bounds), key=mean_loss)
    return math.exp(best)


def expected_calibration_error(logits: Tensor, labels: Tensor, temperature: float = 1.0, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy in 0..1, over equal-width bins of confidence weighted by rows.

    logits: (N, C); labels: (N,) int64 class ids; temperature: divides the logits; bins: of the confidence 0..1.
    A confidence on the edge of two bins counts in the lower one.

    Raises ValueError as `fit_temperature`, and on a temperature that is not positive or fewer than one bin.
    Guo et al., arXiv:1706.04599, equation 3.
    """
    scores, classes = _checked(logits, labels)
    if not temperature > 0 or bins < 1:
        raise ValueError(f"temperature must be positive and bins at least 1, got {temperature} and {bins}.")
    confidence, predicted = torch.softmax(scores / temperature, dim=-1).max(dim=-1)  # (N,), (N,)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    bin_of_row = torch.bucketize(confidence, edges[1:-1])  # (N,)
    excess = confidence - (predicted == classes).double()
    per_bin = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, bin_of_row, excess)
    return float(per_bin.abs().sum() / len(classes))


def _checked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float64 and labels in int64, on the CPU and without a graph."""
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"Calibration needs logits (N, C) and labels (N,) with at least one row, "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    scores, classes = logits.detach().to("cpu", torch.float64), labels.detach().to("cpu", torch.int64)
    if not torch.isfinite(scores).all():
        rows = (~torch.isfinite(scores).all(dim=-1)).nonzero().flatten().tolist()
        raise ValueError(f"Calibration needs finite logits, rows {rows[:5]} have nan or infinity.")
    if classes.min() < 0 or classes.max() >= scores.shape[1]:
        raise ValueError(
            f"Labels must lie in 0..{scores.shape[1] - 1}, got {int(classes.min())}..{int(classes.max())}."
        )
    return scores, classes
