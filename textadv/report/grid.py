"""A picture of attacked images: original, adversarial, and the difference, made large enough to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from textadv.measuring.accuracy.inspection_images import InspectedImage
from textadv.values.host.printable import printable
from textadv.values.host.writing import replacing

SIDE, GAP, LINE = 160, 8, 14
MIDDLE = 0.5


def write_grid(rows: Sequence[InspectedImage], path: str | Path) -> Path:
    """Writes a PNG with one line per row: original, adversarial, difference; returns its path.

    The difference is grey where nothing changed; white and black are the row's largest change up and down, and the
    caption says by how much it is enlarged. Pixels are shown as squares, none is smoothed. Raises ValueError for no
    rows.
    """
    if not rows:
        raise ValueError("A picture needs at least one row, got none.")
    height, width = rows[0].original.shape[1:]
    scale = max(SIDE // max(height, width), 1)
    cell_height, cell_width = height * scale, width * scale
    step = cell_height + 2 * LINE + GAP
    sheet = Image.new("RGB", (3 * cell_width + 4 * GAP, len(rows) * step + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, row in enumerate(rows):
        top = GAP + place * step
        for column, (image, caption) in enumerate(_cells(row)):
            left = GAP + column * (cell_width + GAP)
            sheet.paste(_shown(image).resize((cell_width, cell_height), Image.Resampling.NEAREST), (left, top))
            draw.multiline_text((left, top + cell_height), caption, fill="black", spacing=0)
    path = Path(path)
    with replacing(path) as partial:
        sheet.save(partial, format="PNG")
    return path


def _cells(row: InspectedImage) -> list[tuple[Tensor, str]]:
    """The three images of a row and what stands below each."""
    difference = row.adversarial - row.original
    largest = float(difference.abs().max())
    factor = MIDDLE / largest if largest > 0 else 1.0
    return [
        (row.original, f"row {row.id}: {printable(row.label)}\n{printable(row.clean[0])} {row.clean[1]:.0%}"),
        (row.adversarial, f"adversarial\n{printable(row.attacked[0])} {row.attacked[1]:.0%}"),
        (MIDDLE + difference * factor, f"difference\nx {factor:.3g}"),
    ]


def _shown(image: Tensor) -> Image.Image:
    """Pixels (channels, height, width) in [0, 1] as a picture in colour."""
    pixels = np.round(image.clamp(0, 1).expand(3, *image.shape[1:]).permute(1, 2, 0).numpy() * 255)
    return Image.fromarray(pixels.astype(np.uint8), mode="RGB")
