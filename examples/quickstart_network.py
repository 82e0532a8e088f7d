"""The network of the quickstart, and its ordinary training on public data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True)
class Recipe:
    """Size and training of the network for one data set."""

    stages: tuple[int, ...]  # channels of the stages before the cut
    width: int  # channels at the cut
    hidden: int  # channels of the server's convolution
    pretraining: int  # epochs on public data
    epochs: int  # epochs of every server
    batch: int
    tuning: int  # public records on which sensitivity and threshold are chosen
    seeds: int  # repetitions that are averaged


RECIPES = {
    "digits": Recipe((16,), 32, 32, pretraining=30, epochs=20, batch=64, tuning=220, seeds=3),
    "fashion-mnist": Recipe((16, 32), 64, 64, pretraining=4, epochs=8, batch=128, tuning=2000, seeds=2),
    "cifar10": Recipe((32, 64), 64, 64, pretraining=8, epochs=10, batch=128, tuning=2000, seeds=1),
}
QUICK = Recipe((4,), 4, 4, pretraining=1, epochs=1, batch=32, tuning=50, seeds=1)  # to try the program


def make_network(image: Sequence[int], recipe: Recipe, classes: int) -> nn.Sequential:
    """A small convolutional network: what lies up to "norm" will be the edge, the rest the server.

    "norm" has no learned scale: what leaves it has mean 0 and variance 1 in each channel, on public
    data. So features are centred, and a sensitivity is a number of standard deviations.
    """
    channels, side = image[0], image[1]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate(recipe.stages, 1):
        stage = [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        if side > 8:
            stage, side = [*stage, nn.MaxPool2d(2)], side // 2
        parts[f"stage{number}"], channels = nn.Sequential(*stage), width
    parts["conv"] = nn.Conv2d(channels, recipe.width, 3, padding=1)
    parts["norm"] = nn.BatchNorm2d(recipe.width, affine=False)
    parts["server_conv"] = nn.Conv2d(recipe.width, recipe.hidden, 3, padding=1)
    parts["server_norm"] = nn.BatchNorm2d(recipe.hidden)  # takes features of any scale
    parts["server_relu"] = nn.ReLU()
    parts["server_pool"] = nn.AvgPool2d(2)  # averages noise out, where a maximum would pick it
    parts["flatten"] = nn.Flatten()
    parts["dropout"] = nn.Dropout(0.5)
    parts["classes"] = nn.Linear(recipe.hidden * (side // 2) ** 2, classes)
    return nn.Sequential(parts)


def pretrain(network: nn.Module, public: TensorDataset, recipe: Recipe, step: Callable[[str], None]) -> None:
    """Train on the public classes; ``step`` is called after each epoch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    loader = DataLoader(public, recipe.batch, shuffle=True, drop_last=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.pretraining * len(loader))
    network.train()
    for _ in range(recipe.pretraining):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
        step("training the network on public data")
    network.eval()
