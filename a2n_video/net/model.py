"""A2N, the Attention in Attention Network (arXiv 2104.09497), and its configuration.

Every convolution keeps height and width, so a network takes any size. Its *gates* do not: each block weighs its two
branches by a mean over the whole frame, so a part of a frame processed alone gives another result (see engine/memory.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2
Head = Literal["paper", "pixelshuffle"]
HEADS: Final[tuple[Head, ...]] = get_args(Head)


@dataclass(frozen=True, kw_only=True)
class A2NConfig:
    """What makes one A2N differ from another.

    `rgb_range` is the value of white the weights were trained with (1 or 255); `A2N` itself does not rescale.
    `head` "paper" upsamples by nearest + 3x3 convolutions at the output's size; "pixelshuffle" is one 3x3 convolution
    at the input's size, for small networks.
    """

    scale: int = 2
    n_features: int = 40
    n_upsample_features: int = 24
    n_blocks: int = 16
    non_attention_kernel: Literal[1, 3] = 3  # 1 is the paper's A2N-M
    head: Head = "paper"
    rgb_range: float = 1.0
    temperature: float = 30.0  # t of the softmax over the two branches
    reduction: int = 4  # of the attention dropout module's hidden layer

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ValueError(f"head is {' or '.join(HEADS)}, not {self.head}")
        if self.scale not in (1, 2, 3, 4):
            raise ValueError(f"scale is 1, 2, 3 or 4, not {self.scale}")
        if self.scale == 1 and self.head == "paper":
            raise ValueError("scale 1 needs the pixelshuffle head")
        if min(self.n_features, self.n_upsample_features, self.n_blocks, self.reduction) < 1:
            raise ValueError(f"widths and depth are 1 or more: {self}")

    @property
    def hidden(self) -> int:
        """Width of the attention dropout module's hidden layer."""
        return max(1, self.n_features // self.reduction)


def conv(n_in: int, n_out: int, kernel: int = 3, *, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps height and width (zeros around the frame)."""
    return nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=bias)


def lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, NEGATIVE_SLOPE)


class AttentionBranch(nn.Module):
    """Pixel attention between two convolutions: k4(k3(x) * sigmoid(k2(lrelu(k1(x)))))."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.k1 = conv(n_features, n_features)
        self.k2 = conv(n_features, n_features, 1, bias=True)
        self.k3 = conv(n_features, n_features)
        self.k4 = conv(n_features, n_features)

    def attention(self, x: Tensor) -> Tensor:
        """The attention map, (N, F, H, W) in (0, 1)."""
        return torch.sigmoid(self.k2(lrelu(self.k1(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.k4(self.k3(x) * self.attention(x))  # type: ignore[no-any-return]


class AttentionInAttentionBlock(nn.Module):
    """One residual block: the attention and the non-attention branch, weighed by the attention dropout module."""

    def __init__(self, config: A2NConfig) -> None:
        super().__init__()
        n = config.n_features
        self.temperature = config.temperature
        self.conv_first = conv(n, n, 1)
        self.ADM = nn.Sequential(nn.Linear(n, config.hidden, bias=False), nn.ReLU(), nn.Linear(config.hidden, 2, bias=False))
        self.attention = AttentionBranch(n)
        self.non_attention = conv(n, n, config.non_attention_kernel)
        self.conv_last = conv(n, n, 1)

    def gates(self, x: Tensor) -> Tensor:
        """The attention dropout module: weights of (attention, non-attention), (N, 2), each row sums to 1."""
        return torch.softmax(self.ADM(x.mean(dim=(2, 3))) / self.temperature, dim=1)

    def forward(self, x: Tensor) -> Tensor:  # (N, F, H, W) -> the same
        inner = lrelu(self.conv_first(x))
        gates = self.gates(inner)[:, :, None, None, None]  # (N, 2, 1, 1, 1)
        mixed = self.attention(inner) * gates[:, 0] + self.non_attention(inner) * gates[:, 1]
        return self.conv_last(lrelu(mixed)) + x  # type: ignore[no-any-return]


class PixelAttention(nn.Module):
    """x * sigmoid(conv(x)), the attention of the upsampling stages."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.conv = conv(n_features, n_features, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class A2N(nn.Module):
    """The whole network: RGB (N, 3, H, W) in 0..rgb_range -> (N, 3, scale*H, scale*W) in about the same range.

    Nothing is clamped. Parameter names are those of the authors' files, so their weights load as they are.
    """

    def __init__(self, config: A2NConfig) -> None:
        super().__init__()
        self.config = config
        n, up = config.n_features, config.n_upsample_features
        self.conv_first = conv(3, n, bias=True)
        self.AAB_trunk = nn.Sequential(*(AttentionInAttentionBlock(config) for _ in range(config.n_blocks)))
        self.trunk_conv = conv(n, n, bias=True)
        if config.head == "pixelshuffle":
            self.conv_last = conv(n, 3 * config.scale**2, bias=True)
            return
        self.upconv1 = conv(n, up, bias=True)
        self.att1 = PixelAttention(up)
        self.HRconv1 = conv(up, up, bias=True)
        if config.scale == 4:
            self.upconv2 = conv(up, up, bias=True)
            self.att2 = PixelAttention(up)
            self.HRconv2 = conv(up, up, bias=True)
        self.conv_last = conv(up, 3, bias=True)

    def trunk(self, x: Tensor) -> Tensor:
        """Features at the input's size: (N, 3, H, W) -> (N, F, H, W)."""
        features = self.conv_first(x)
        return features + self.trunk_conv(self.AAB_trunk(features))  # type: ignore[no-any-return]

    def upsample(self, features: Tensor) -> Tensor:
        """The head: (N, F, H, W) -> (N, 3, scale*H, scale*W), without the skip."""
        if self.config.head == "pixelshuffle":
            return F.pixel_shuffle(self.conv_last(features), self.config.scale)
        first = 2 if self.config.scale == 4 else self.config.scale
        up = lrelu(self.att1(self.upconv1(F.interpolate(features, scale_factor=first, mode="nearest"))))
        up = lrelu(self.HRconv1(up))
        if self.config.scale == 4:
            up = lrelu(self.att2(self.upconv2(F.interpolate(up, scale_factor=2, mode="nearest"))))
            up = lrelu(self.HRconv2(up))
        return self.conv_last(up)  # type: ignore[no-any-return]

    def skip(self, x: Tensor) -> Tensor:
        """The bilinear enlargement that the network corrects."""
        return F.interpolate(x, scale_factor=self.config.scale, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(self.trunk(x)) + self.skip(x)
