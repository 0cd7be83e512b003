"""A short adversarial training run on images, for one process or several.

Of two the main process leaves the weights after it in FOLDER, a file for each number format.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from tests import tiny
from tests.distributed.pairs import accelerator_of_two, keep
from textadv.attacks import Linf, ThreatModel, pgd
from textadv.data import Fitting, fitted, shapes
from textadv.models import ImageShape, load_image_classifier, read_preprocessing, trainable_state
from textadv.objectives import Adversarial, hardening
from textadv.training.sampling import OneStream
from textadv.training.trainer import Trainer
from textadv.values.spaces import Pixels

NETWORK, SIDE = "builtin:small-cnn", 20
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def trained(accelerator: Accelerator, folder: Path, dtype: torch.dtype, steps: int = 3) -> dict[str, Tensor]:
    """The weights after so many steps of 8 rows, 4 of them attacked by a PGD of two steps."""
    splits, shape = shapes(), ImageShape(1, SIDE, SIDE)
    model = load_image_classifier(NETWORK, splits.labels, shape, read_preprocessing(NETWORK)).model.to(dtype)
    attack = pgd(ThreatModel(Pixels(), Linf(16 / 255, per="example")), steps=2)
    settings = tiny.settings(steps=steps, learning_rate=1e-3, evaluate_every=steps, select="last")
    trainer = Trainer(
        accelerator,
        model,
        OneStream(fitted(splits.train, Fitting(*shape)), tiny.HALF, tiny.BATCH_SIZE),
        hardening(Adversarial(attack)),
        settings,
        None,
        folder,
        bar=False,
    )
    run = trainer.run().progress
    assert run.adversarial_rows * accelerator.num_processes == 4 * steps
    return {name: value.detach().clone().contiguous() for name, value in trainable_state(trainer.model).items()}


def at_two(folder: str) -> None:
    """The run in each number format."""
    accelerator = accelerator_of_two(views=False)
    for name, dtype in DTYPES.items():
        keep(Path(folder) / f"{name}.safetensors", trained(accelerator, Path(folder) / name, dtype))
