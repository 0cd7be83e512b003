"""Published networks with their published weights, and the images they were measured on. For tests alone.

Each constructor takes the folder of the fixture `shared` and gives a network in evaluation mode that is called as
`network(pixel_values=...)`, with pixels in [0, 1], and returns logits (B, 10). `shared/SOURCES.md` names the sources.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from textadv.values.batch import Batch, Role

# What these weights were trained with: the mean and deviation of ImageNet, not of CIFAR-10.
RESNET_MEAN, RESNET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _weights(path: Path, prefix: str = "") -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as stored:
        return {name.removeprefix(prefix): torch.from_numpy(stored[name]) for name in stored.files}


class SmallCNN(nn.Module):
    """The MNIST network of TRADES (arXiv:1901.08573); its dropout, which has no weights, is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 32, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 32, 3),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2, 2),
                conv3=nn.Conv2d(32, 64, 3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(64, 64, 3),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2, 2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(1024, 200),
                relu1=nn.ReLU(),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=nn.Linear(200, 10),
            )
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(self.feature_extractor(pixel_values).flatten(1))


class StridedCNN(nn.Sequential):
    """The MNIST network of "Fast is better than free" (arXiv:2001.03994): two strided convolutions."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return super().forward(pixel_values)


class _Block(nn.Module):
    """Two convolutions and a shortcut without weights: every other pixel, and channels of zeros on both sides."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.missing = stride, (channels - channels_in) // 2

    def forward(self, states: Tensor) -> Tensor:
        short = pad(states[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.missing, self.missing))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(states))))) + short)


class ResNet20(nn.Module):
    """The CIFAR-10 ResNet-20 (arXiv:1512.03385, section 4.2) over pixels in [0, 1]: it normalises them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(_Block(16, 32, 2), _Block(32, 32, 1), _Block(32, 32, 1))
        self.layer3 = nn.Sequential(_Block(32, 64, 2), _Block(64, 64, 1), _Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor(RESNET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(RESNET_STD).reshape(3, 1, 1), persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        states = relu(self.bn1(self.conv1((pixel_values - self.mean) / self.std)))
        return self.linear(self.layer3(self.layer2(self.layer1(states))).mean(dim=(2, 3)))


def trades_mnist(shared: Path) -> nn.Module:
    """TRADES' SmallCNN for MNIST at Linf 0.3: 99.5 % on clean images, 92.8 % under AutoAttack."""
    network = SmallCNN()
    network.load_state_dict(_weights(shared / "weights/trades_mnist/model_mnist_smallcnn.pt.npz"))
    return network.eval()


def fgsm_rs_mnist(shared: Path) -> nn.Module:
    """The strided network trained with FGSM from random starts, MNIST at Linf 0.3: gradients alone overrate it."""
    network = StridedCNN()
    network.load_state_dict(_weights(shared / "weights/fast_adversarial_mnist/fgsm.pth.npz"))
    return network.eval()


def resnet20_cifar10(shared: Path) -> nn.Module:
    """A ResNet-20 for CIFAR-10 without adversarial training."""
    network = ResNet20()
    weights = _weights(shared / "weights/resnet_cifar10_akamaster/resnet20-12fca82f.th.npz", "module.")
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(counters | weights)
    return network.eval()


def image_batch(pixels: Tensor, labels: Tensor) -> Batch:
    """Images (B, channels, height, width) with ids from 0, every pixel editable."""
    return Batch(
        inputs={"pixel_values": pixels},
        labels=labels,
        editable=torch.ones_like(pixels[:, :1], dtype=torch.bool),
        ids=torch.arange(len(pixels)),
        role=torch.full_like(labels, int(Role.CLEAN)),
    )


def _images(path: Path, count: int, split: str) -> tuple[Tensor, Tensor]:
    with np.load(path, allow_pickle=False) as stored:
        pixels, labels = stored[f"x_{split}"][:count], stored[f"y_{split}"][:count]
    return torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels).long()


def mnist(shared: Path, count: int, split: str = "test") -> Batch:
    """The first `count` images of MNIST's `test` or `train` split, (count, 1, 28, 28) in [0, 1]."""
    pixels, labels = _images(shared / "data/mnist/mnist.npz", count, split)
    return image_batch(pixels.unsqueeze(1), labels)


def cifar10(shared: Path, count: int, split: str = "test") -> Batch:
    """The first `count` images of the CIFAR-10 subset's `test` or `train` split, (count, 3, 32, 32) in [0, 1]."""
    pixels, labels = _images(shared / "data/cifar10_subset/cifar10_4000_1000.npz", count, split)
    return image_batch(pixels.permute(0, 3, 1, 2).contiguous(), labels)
