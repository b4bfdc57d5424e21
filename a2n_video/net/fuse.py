"""Exact rewrites of A2N for inference: the same numbers with fewer passes over memory.

- k1 and k3 read the same input: one convolution with twice the outputs.
- k4 and the non-attention branch meet in a sum: one convolution over [attended, inner].
- With r = w_attention / w_non_attention, lrelu(a w_a + b w_n) = w_n lrelu(r a + b): a frame's gates scale data, never weights.
- Nearest upsampling by s before a 3x3 convolution = a convolution at the input's size to s*s times the channels, then
  PixelShuffle; zeros around the frame fall on the same places.

Every stage also works on a strip of rows (see engine/memory.py), which is why stages are methods and borders are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2n_video.net.model import A2N, A2NConfig, AttentionInAttentionBlock, PixelAttention, lrelu

# Of attention: from there on the other branch is lost in rounding, and where its weight is none the ratio would have no end.
MOST_ODDS: Final = 2.0**64


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which means and the last convolution are taken: at least float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widened(x: Tensor) -> Tensor:
    """`x` in the dtype of `accumulator`; itself where it has it."""
    return x.to(accumulator(x.dtype))


@dataclass(frozen=True)
class Borders:
    """Whether a strip of rows begins at the frame's first row, and ends at its last."""

    top: bool = True
    bottom: bool = True


WHOLE = Borders()


def _frozen(weight: Tensor) -> nn.Parameter:
    """A copy that no optimiser sees."""
    return nn.Parameter(weight.detach().clone(), requires_grad=False)


class RowConv(nn.Module):
    """A 3x3 convolution that pads with zeros at true borders only; elsewhere a strip loses its outermost row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = _frozen(weight)
        self.bias = None if bias is None else _frozen(bias)

    def forward(self, x: Tensor, borders: Borders = WHOLE) -> Tensor:
        if not borders.top and not borders.bottom:
            return F.conv2d(x, self.weight, self.bias, padding=(0, 1))
        y = F.conv2d(x, self.weight, self.bias, padding=1)
        return y[:, :, 0 if borders.top else 1 : y.shape[2] if borders.bottom else -1]


class PointConv(nn.Module):
    """A 1x1 convolution."""

    def __init__(self, source: nn.Conv2d) -> None:
        super().__init__()
        self.weight = _frozen(source.weight)
        self.bias = None if source.bias is None else _frozen(source.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


def _like(source: nn.Conv2d) -> RowConv:
    return RowConv(source.weight, source.bias)


def _as_3x3(weight: Tensor) -> Tensor:
    """A 1x1 kernel as the middle of a 3x3 one."""
    return weight if weight.shape[-1] == 3 else F.pad(weight, (1, 1, 1, 1))


class FusedBlock(nn.Module):
    """`AttentionInAttentionBlock`, rewritten."""

    def __init__(self, block: AttentionInAttentionBlock) -> None:
        super().__init__()
        branch = block.attention
        self.temperature = block.temperature
        self.conv_first = PointConv(block.conv_first)
        self.gate_weights = nn.ParameterList(_frozen(layer.weight) for layer in block.ADM if isinstance(layer, nn.Linear))
        self.k13 = RowConv(torch.cat([branch.k1.weight, branch.k3.weight]), None)
        self.k2 = PointConv(branch.k2)
        self.k4n = RowConv(torch.cat([branch.k4.weight, _as_3x3(block.non_attention.weight)], dim=1), None)
        self.conv_last = PointConv(block.conv_last)

    def inner(self, x: Tensor) -> Tensor:
        """What both branches and the gates read: (N, F, H, W) -> the same shape; row by row."""
        return lrelu(self.conv_first(x))

    def gates(self, mean: Tensor) -> Tensor:
        """(N, F) mean of the *whole frame's* inner map, float32 -> (N, 2) weights of attention and non-attention."""
        first, second = (weight.to(mean.dtype) for weight in self.gate_weights)
        return torch.softmax(F.linear(F.relu(F.linear(mean, first)), second) / self.temperature, dim=1)

    def mix(self, x: Tensor, inner: Tensor, gates: Tensor, borders: Borders = WHOLE) -> Tensor:
        """The block's result on rows of `x`; `inner` has two rows more on each side that is not a border."""
        ratio = (gates[:, 0] / gates[:, 1]).clamp(max=MOST_ODDS)
        attention, non_attention = (weight[:, None, None, None].to(x.dtype) for weight in (ratio, 1 / (1 + ratio)))
        both = self.k13(inner, borders)
        near = inner[:, :, 0 if borders.top else 1 : inner.shape[2] if borders.bottom else -1]
        a, y = both.chunk(2, dim=1)
        attended = y * torch.sigmoid(self.k2(lrelu(a))) * attention
        mixed = lrelu(self.k4n(torch.cat([attended, near], dim=1), borders))
        correction: Tensor = self.conv_last(mixed) * non_attention
        return x + correction

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        return self.mix(x, inner, self.gates(inner.mean(dim=(2, 3), dtype=accumulator(inner.dtype))))


def subpixel_weight(weight: Tensor, scale: int) -> Tensor:
    """(O, I, 3, 3) after nearest upsampling by `scale` -> (O*scale**2, I, 3, 3) before PixelShuffle, in its channel order.

    Output row scale*y + i reads, for tap d, input row y + floor((i + d) / scale): taps that fall on one input row add up.
    """
    out = weight.new_zeros((weight.shape[0], scale, scale, weight.shape[1], 3, 3))
    for i in range(scale):
        for j in range(scale):
            for d in range(-1, 2):
                for e in range(-1, 2):
                    out[:, i, j, :, (i + d) // scale + 1, (j + e) // scale + 1] += weight[:, :, d + 1, e + 1]
    return out.flatten(0, 2)


class SubpixelStage(nn.Module):
    """Nearest upsampling, 3x3 convolution and pixel attention; the first two at the input's size."""

    def __init__(self, source: nn.Conv2d, attention: PixelAttention, scale: int) -> None:
        super().__init__()
        self.scale = scale
        bias = None if source.bias is None else source.bias.detach().repeat_interleave(scale**2)
        self.conv = RowConv(subpixel_weight(source.weight.detach(), scale), bias)
        self.attention = PointConv(attention.conv)

    def forward(self, x: Tensor, borders: Borders = WHOLE) -> Tensor:
        up = F.pixel_shuffle(self.conv(x, borders), self.scale)
        return lrelu(up * torch.sigmoid(self.attention(up)))


class FusedA2N(nn.Module):
    """`A2N` rewritten; same input, same result. `head_halo` is the rows of features a strip's head needs on either side."""

    def __init__(self, model: A2N) -> None:
        super().__init__()
        self.config: A2NConfig = model.config
        self.conv_first = _like(model.conv_first)
        self.blocks = nn.ModuleList(FusedBlock(block) for block in model.AAB_trunk if isinstance(block, AttentionInAttentionBlock))
        self.trunk_conv = _like(model.trunk_conv)
        self.stages = nn.ModuleList()
        self.convs = nn.ModuleList()
        if model.config.head == "paper":
            first = 2 if model.config.scale == 4 else model.config.scale
            self.stages.append(SubpixelStage(model.upconv1, model.att1, first))
            self.convs.append(_like(model.HRconv1))
            if model.config.scale == 4:
                self.stages.append(SubpixelStage(model.upconv2, model.att2, 2))
                self.convs.append(_like(model.HRconv2))
        self.conv_last = _like(model.conv_last)

    @property
    def head_halo(self) -> int:
        """Rows at the input's size that `head` reads beyond a strip, on a side that is no border; `trunk_conv`'s one is not in it."""
        return 1 if self.config.head == "pixelshuffle" else 3 if self.config.scale == 4 else 2

    def head(self, features: Tensor, borders: Borders = WHOLE) -> Tensor:
        """The enlarging part without the skip: (N, F, H, W) -> (N, 3, scale*H, scale*W), float32 or wider.

        A strip carries `head_halo` more rows on each side that is no border; the result is without them.
        """
        x, halo = features, self.head_halo * self.config.scale
        lost = 0  # rows at the current size that convolutions have taken off a side that is no border
        for stage, conv in zip(self.stages, self.convs, strict=True):
            x = lrelu(conv(stage(x, borders), borders))
            lost = (lost + 1) * (2 if self.config.scale == 4 else self.config.scale) + 1
        # `lowered` leaves the last convolution in float32, so its input is widened: 16 bits would show in the sum with the skip.
        tail: Tensor = self.conv_last(widened(x), borders)
        if self.config.head == "pixelshuffle":
            tail, lost = F.pixel_shuffle(tail, self.config.scale), self.config.scale
        else:
            lost += 1
        top, bottom = (0 if b else halo - lost for b in (borders.top, borders.bottom))
        return tail[:, :, top : tail.shape[2] - bottom]

    def lowered(self, dtype: torch.dtype) -> FusedA2N:
        """Itself with its weights in `dtype`, except those of the last convolution, which stay at least float32."""
        self.to(dtype)
        self.conv_last.to(accumulator(dtype))
        return self

    def skip(self, x: Tensor) -> Tensor:
        """The bilinear enlargement that the network corrects."""
        return bilinear(x, self.config.scale)

    def correction(self, x: Tensor) -> Tensor:
        """What is added to `skip`, float32 or wider."""
        first = features = self.conv_first(x.to(self.conv_first.weight.dtype))
        for block in self.blocks:
            features = block(features)
        return self.head(first + self.trunk_conv(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.correction(x).to(x.dtype) + self.skip(x)


def bilinear(x: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) -> (N, C, scale*H, scale*W), corners not aligned."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def fuse(model: A2N) -> FusedA2N:
    """The rewritten network with copies of the model's weights, in its dtype, on its device, for inference."""
    return FusedA2N(model).eval()
