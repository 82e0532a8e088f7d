"""Models to cut: ResNet-18, VGG-16, a small U-Net, a transformer encoder and an MLP.

All take 32x32 images except the MLP, are plain PyTorch, and scale with ``width``. The module names are
those that users of torchvision expect, so ``split(resnet18(), at="layer2")`` reads as it should.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He, Zhang, Ren, Sun 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, inputs, h, w) -> (batch, outputs, h', w')
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


class ResNet(nn.Module):
    """A residual network for small images: a 3x3 stem without pooling, four stages of blocks."""

    def __init__(self, blocks: tuple[int, ...], width: int, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks[0], 1)
        self.layer2 = self._stage(width, 2 * width, blocks[1], 2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks[2], 2)
        self.layer4 = self._stage(4 * width, 8 * width, blocks[3], 2)
        self.fc = nn.Linear(8 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, in_channels, 32, 32) -> (batch, classes)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet18(width: int = 64, in_channels: int = 3, classes: int = 10) -> ResNet:
    """ResNet-18 for 32x32 inputs; ``width`` channels in the first stage, eight times as many in the last."""
    return ResNet((2, 2, 2, 2), width, in_channels, classes)


class VGG(nn.Module):
    """Convolutions with batch normalisation in one Sequential, a classifier in another."""

    def __init__(self, plan: tuple[int | str, ...], width: int, in_channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, step * width, 3, padding=1))
            layers += [nn.BatchNorm2d(step * width), nn.ReLU(inplace=True)]
            channels = step * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(channels, classes)
        )

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, in_channels, 32, 32) -> (batch, classes)
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


def vgg16(width: int = 64, in_channels: int = 3, classes: int = 10) -> VGG:
    """VGG-16 with batch normalisation (Simonyan, Zisserman 2015, configuration D) for 32x32 inputs."""
    plan = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")
    return VGG(plan, width, in_channels, classes)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Three levels with skips between them (Ronneberger, Fischer, Brox 2015); one score per pixel and class.

    Its skips are what makes it hard to cut: below the first level, more than one tensor crosses.
    """

    def __init__(self, width: int = 32, in_channels: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.down1 = _double_conv(in_channels, width)
        self.down2 = _double_conv(width, 2 * width)
        self.pool = nn.MaxPool2d(2)
        self.bottom = _double_conv(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge2 = _double_conv(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge1 = _double_conv(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, in_channels, h, w) -> (batch, classes, h, w)
        skip1 = self.down1(x)
        skip2 = self.down2(self.pool(skip1))
        x = self.up2(self.bottom(self.pool(skip2)))
        x = self.up1(self.merge2(torch.cat([skip2, x], dim=1)))
        x = self.merge1(torch.cat([skip1, x], dim=1))
        return self.head(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence of tokens."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, tokens, width) -> the same
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, tokens, width) -> the same
        x = x + F.dropout(self.attention(self.norm1(x)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class Transformer(nn.Module):
    """A transformer encoder that classifies 32x32 images from their patches (Dosovitskiy et al. 2021)."""

    def __init__(
        self,
        width: int = 64,
        in_channels: int = 3,
        classes: int = 10,
        *,
        depth: int = 4,
        heads: int = 4,
        patch: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + (32 // patch) ** 2, width) / width**0.5)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, in_channels, 32, 32) -> (batch, classes)
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], dim=1) + self.position
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def mlp(width: int = 128, inputs: int = 64, classes: int = 10, *, depth: int = 2) -> nn.Sequential:
    """A multilayer perceptron over flattened inputs: ``depth`` hidden layers of ``width`` units."""
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.1)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
