"""The built-in images: shapes drawn from a seed, for quick tries and for tests."""

from __future__ import annotations

import numpy as np

from textadv.data.image_files import ImageSplits, Pictures

SIDE = 20
SHAPES_SIZES = {"train": 1600, "validation": 400, "test": 400}
SHAPES = ("cross", "disc", "square", "triangle")
NOISE, DARK, BRIGHT = 0.04, (0.05, 0.35), (0.55, 0.95)


def shapes(seed: int = 0) -> ImageSplits:
    """2,400 grey images of 20 x 20 pixels: a bright cross, disc, square or triangle on dark ground, equally many.

    1,600 are for training, 400 for validation, 400 for testing. Place, size, brightness and noise vary.
    """
    return ImageSplits(
        **{name: _part(size, np.random.default_rng([seed, n])) for n, (name, size) in enumerate(SHAPES_SIZES.items())},
        labels=SHAPES,
        notes=(),
    )


def _part(rows: int, draw: np.random.Generator) -> Pictures:
    labels = draw.permutation(np.arange(rows) % len(SHAPES))
    images = np.stack([_image(SHAPES[label], draw) for label in labels])
    return Pictures(images, tuple(labels.tolist()), tuple(range(rows)), "builtin:shapes")


def _image(shape: str, draw: np.random.Generator) -> np.ndarray:
    """One image (height, width, 1) of bytes."""
    radius = draw.uniform(4.5, 7.5)
    centre = draw.uniform(radius, SIDE - 1 - radius, size=2)
    down, right = np.mgrid[:SIDE, :SIDE] - centre[:, None, None]
    inside = {
        "cross": (np.minimum(abs(down), abs(right)) <= 0.3 * radius) & (np.maximum(abs(down), abs(right)) <= radius),
        "disc": down**2 + right**2 <= radius**2,
        "square": np.maximum(abs(down), abs(right)) <= 0.85 * radius,
        "triangle": (abs(right) <= (down + radius) / 2) & (down <= radius),
    }[shape]
    values = np.where(inside, draw.uniform(*BRIGHT), draw.uniform(*DARK)) + draw.normal(0, NOISE, inside.shape)
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None]
