"""What is found before an image run starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textadv.config.types import ConfigError
from textadv.runs.ready import prepare
from textadv.tasks.file import parse_config
from textadv.tasks.images.config import ImageRunConfig

SIDE = 8


def configured(tmp_path: Path, **sections: object) -> ImageRunConfig:
    """A run of four optimizer steps on the npz file, its sections replaced by these."""
    raw = {
        "task": "images",
        "output": str(tmp_path / "run"),
        "model": {"name": "builtin:small-cnn"},
        "data": {"name": "files", "path": str(tmp_path / "images.npz"), "image_size": 20},
        "threat": {"norm": "linf", "radius": 0.1},
        "training": {"steps": 4, "batch_size": 4, "micro_batch_size": 4},
        "evaluation": {"attacks": {"pgd": {"steps": 2}}},
    }
    config = parse_config({**raw, **sections})
    assert isinstance(config, ImageRunConfig)
    return config


def write_images(tmp_path: Path) -> None:
    """16 images in three splits, of which some stand in two."""
    images = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE), dtype=np.uint8)
    parts = {"train": images[:8], "val": images[[0, 8, 9, 10]], "test": images[[9, 10, 11, 0, 1]]}
    labels = {f"y_{name}": np.arange(len(part)) % 2 for name, part in parts.items()}
    np.savez(tmp_path / "images.npz", **{f"x_{name}": part for name, part in parts.items()}, **labels)


def test_images_that_stand_in_two_splits_are_counted_for_every_two(tmp_path: Path) -> None:
    write_images(tmp_path)
    config = configured(tmp_path)
    told = [line for line in prepare(config).warnings if "pixel by pixel" in line]
    assert told == [
        f"data: {count} rows are images that also stand in {first}, pixel by pixel."
        for count, first in (("1 of 4 validation", "train"), ("2 of 5 test", "train"), ("3 of 5 test", "validation"))
    ]


@pytest.mark.parametrize(("norm", "radius"), [("l2", 20.0), ("l1", 400.0)])
def test_a_ball_that_holds_every_image_is_refused(tmp_path: Path, norm: str, radius: float) -> None:
    """Black and white are 20 apart in L2 and 400 in L1, of 20 x 20 pixels."""
    write_images(tmp_path)
    with pytest.raises(ConfigError, match=f"threat.radius: {radius:g} in {norm} allows every image"):
        prepare(configured(tmp_path, threat={"norm": norm, "radius": radius}))
    assert not (tmp_path / "run" / "config.yaml").exists()
    prepare(configured(tmp_path, threat={"norm": norm, "radius": radius * 0.99}))


@pytest.mark.parametrize(
    "mixing", [{"ratio": 0.0}, {"warmup_steps": 4}, {"ratio_schedule": {"kind": "step", "values": {0: 0.0, 4: 1.0}}}]
)
def test_a_run_that_attacks_no_row_is_refused(tmp_path: Path, mixing: dict[str, object]) -> None:
    write_images(tmp_path)
    with pytest.raises(ConfigError, match="mixing attacks none of the rows of these 4 optimizer steps"):
        prepare(configured(tmp_path, mixing=mixing))
    plain = configured(tmp_path, mixing=mixing, objective={"name": "clean"})
    prepare(plain)
