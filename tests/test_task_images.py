"""What is found before an image run starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textadv.config_file import parse_config
from textadv.config_images import ImageRunConfig
from textadv.task_images import prepare_images

SIDE = 8


def test_images_that_stand_in_two_splits_are_counted_for_every_two(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE), dtype=np.uint8)
    parts = {"train": images[:8], "val": images[[0, 8, 9, 10]], "test": images[[9, 10, 11, 0, 1]]}
    labels = {f"y_{name}": np.arange(len(part)) % 2 for name, part in parts.items()}
    np.savez(tmp_path / "images.npz", **{f"x_{name}": part for name, part in parts.items()}, **labels)
    config = parse_config(
        {
            "task": "images",
            "output": str(tmp_path / "run"),
            "model": {"name": "builtin:small-cnn"},
            "data": {"name": "files", "path": str(tmp_path / "images.npz"), "image_size": 20},
            "threat": {"norm": "linf", "radius": 0.1},
            "training": {"steps": 4, "batch_size": 4, "micro_batch_size": 4},
            "evaluation": {"attacks": {"pgd": {"steps": 2}}},
        }
    )
    assert isinstance(config, ImageRunConfig)
    told = [line for line in prepare_images(config).warnings if "pixel by pixel" in line]
    assert told == [
        f"data: {count} rows are images that also stand in {first}, pixel by pixel."
        for count, first in (("1 of 4 validation", "train"), ("2 of 5 test", "train"), ("3 of 5 test", "validation"))
    ]
