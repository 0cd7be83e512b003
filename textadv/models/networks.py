"""The built-in image networks: small enough for a CPU, written out, with new weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL_CNN, SMALL_RESNET = "builtin:small-cnn", "builtin:small-resnet"
SMALLEST = {SMALL_CNN: 20, SMALL_RESNET: 8}
WIDTHS = (32, 64, 128, 256)
BLOCKS_PER_STAGE = 2


class SmallCnn(nn.Module):
    """Logits (B, C) of images (B, channels, height, width) of 20 pixels a side and more.

    Two convolutions of 32, a pool, two of 64, a pool, two layers of 200: the MNIST network of arXiv:1608.04644,
    without its dropout.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        size = 64 * _pooled(height) * _pooled(width)
        self.classifier = nn.Sequential(
            nn.Linear(size, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, classes)
        )
        _draw_weights(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits (B, C) of pixels (B, channels, height, width)."""
        return self.classifier(self.features(pixels))


def _draw_weights(network: nn.Module) -> None:
    """Weights that keep the size of activations from layer to layer under ReLU (arXiv:1502.01852), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _pooled(side: int) -> int:
    """The side of the last feature map: twice two valid convolutions of 3 and a pool of 2."""
    return ((side - 4) // 2 - 4) // 2


class _Block(nn.Module):
    """Two normalised convolutions beside a short cut, activation first (arXiv:1603.05027)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        moves = stride != 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if moves else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """The next features."""
        active = F.relu(self.norm1(features))
        kept = features if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
        return kept + self.conv2(F.relu(self.norm2(self.conv1(active))))


class SmallResnet(nn.Module):
    """Logits (B, C) of images (B, channels, height, width): a pre-activation ResNet-18 of half the usual width.

    Made for 32 x 32 pixels, takes any size from 8 on. BatchNorm in training mode sees the rows of one forward pass: a
    step in micro-batches is then not exactly the step in one.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        before = WIDTHS[0]
        for stage, after in enumerate(WIDTHS):
            for block in range(BLOCKS_PER_STAGE):
                stages.append(_Block(before, after, 2 if stage and not block else 1))
                before = after
        self.blocks = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(before)
        self.classifier = nn.Linear(before, classes)
        _draw_weights(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits (B, C) of pixels (B, channels, height, width)."""
        features = F.relu(self.norm(self.blocks(self.stem(pixels))))
        return self.classifier(torch.mean(features, dim=(2, 3)))


NETWORKS: dict[str, Callable[[int, int, int, int], nn.Module]] = {SMALL_CNN: SmallCnn, SMALL_RESNET: SmallResnet}
