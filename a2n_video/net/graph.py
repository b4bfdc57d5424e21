"""The rewritten network in the form that graph compilers run best, with 8-bit convolutions in its trunk where asked.

Compilers fuse what follows a convolution into it but have no fast way to split or join maps: here each of a block's four 3x3
convolutions stands alone and their sum is taken on the way. For 8 bits, what those four read and their weights are rounded to
256 levels (weights per output channel); the compiler turns that into integer arithmetic. All else stays as it was. Whole frames only.

The bilinear skip is no part of it: a compiler that may lower float32 to bfloat16 would lower the picture itself, and near white bfloat16
has steps of a whole code of 8 bits. On Set5 that alone costs 0.019 dB, the network's own maps 0.004 (rounding simulated in torch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2n_video.net.fuse import FusedA2N, FusedBlock
from a2n_video.net.model import lrelu

_LEVELS = 255
WEIGHT_LEVELS: Final = 127  # on either side of zero
# Without VNNI a processor adds two products of 8 bits in 16, and what does not fit is cut off: 2 * 255 * 63 fits, 2 * 255 * 127 does not.
NARROW_WEIGHT_LEVELS: Final = 63
_SIDE = (160, 208)


@dataclass(frozen=True)
class Levels:
    """How a map is rounded: value = (code - zero) * step, code 0..255; values beyond are held at the ends."""

    step: float
    zero: int

    @classmethod
    def covering(cls, x: Tensor) -> Levels:
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 1e-6)
        step = (high - low) / _LEVELS
        return cls(step, round(-low / step))


class GraphBlock(nn.Module):
    """A `FusedBlock` taken apart again; `levels` of (inner, attended) make its 3x3 convolutions 8-bit, with `weight_levels`."""

    def __init__(self, block: FusedBlock, levels: tuple[Levels, Levels] | None = None, weight_levels: int = WEIGHT_LEVELS) -> None:
        super().__init__()
        self.block = block
        self.levels = levels
        self.weight_levels = weight_levels
        k1, k3 = block.k13.weight.chunk(2)
        k4, non_attention = block.k4n.weight.chunk(2, dim=1)
        self.weights = nn.ParameterList(nn.Parameter(w.clone(), requires_grad=False) for w in (k1, k3, k4, non_attention))

    def forward(self, x: Tensor) -> Tensor:  # (N, F, H, W) -> the same
        k1, k3, k4, non_attention = (
            weight if self.levels is None else _rounded_weight(weight, self.weight_levels) for weight in self.weights
        )
        inner = self.block.inner(x)
        gates = self.block.gates(inner.mean(dim=(2, 3)))[:, :, None, None]
        near = self._rounded(inner, 0)
        attended = F.conv2d(near, k3, padding=1) * torch.sigmoid(self.block.k2(lrelu(F.conv2d(near, k1, padding=1))))
        mixed = F.conv2d(self._rounded(attended, 1), k4, padding=1) * gates[:, :1] + F.conv2d(near, non_attention, padding=1) * gates[:, 1:]
        correction: Tensor = self.block.conv_last(lrelu(mixed))
        return x + correction

    def _rounded(self, x: Tensor, which: int) -> Tensor:
        if self.levels is None:
            return x
        levels = self.levels[which]
        return torch.fake_quantize_per_tensor_affine(x, levels.step, levels.zero, 0, _LEVELS)


def _rounded_weight(weight: Tensor, levels: int) -> Tensor:
    steps = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / levels
    return torch.fake_quantize_per_channel_affine(weight, steps, torch.zeros(len(steps), dtype=torch.int32), 0, -levels, levels)


class ForCompiler(nn.Module):
    """What a network adds to the bilinear skip, in the form above: RGB (N, 3, H, W) -> (N, 3, scale*H, scale*W).

    `net` is changed. float32 only: the compiler lowers what it may. `int8` rounds as above, weights to `weight_levels` on either side of 0.
    """

    def __init__(self, net: FusedA2N, *, int8: bool = False, weight_levels: int = WEIGHT_LEVELS) -> None:
        super().__init__()
        levels = calibrated(net) if int8 else [None] * len(net.blocks)
        blocks = [block for block in net.blocks if isinstance(block, FusedBlock)]
        net.blocks = nn.ModuleList(GraphBlock(block, level, weight_levels) for block, level in zip(blocks, levels, strict=True))
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.correction(x)


def calibrated(net: FusedA2N) -> list[tuple[Levels, Levels]]:
    """Levels for every block: the range of its maps on a built-in picture, so that any weights can be run in 8 bits."""
    found = []
    with torch.no_grad():
        features = net.conv_first(calibration_picture())
        for block in net.blocks:
            assert isinstance(block, FusedBlock)
            inner = block.inner(features)
            a, y = block.k13(inner).chunk(2, dim=1)
            attended = y * torch.sigmoid(block.k2(lrelu(a)))
            found.append((Levels.covering(inner), Levels.covering(attended)))
            features = block(features)
    return found


def calibration_picture() -> Tensor:
    """RGB (1, 3, H, W) in 0..1, always the same: flat areas in strong colours, fine lines, waves and grain, as soft as a lens makes them.

    The softness counts: with edges of one pixel the authors' x2 loses 0.70 dB on Set5 (levels too far apart), softened once 0.004,
    three times 0.10 (maps are cut off).
    """
    rng = np.random.default_rng(7)
    height, width = _SIDE
    y, x = np.mgrid[:height, :width]
    picture = np.empty((3, height, width))
    picture[:] = 0.5 + 0.3 * np.sin(x / 17.0) * np.cos(y / 23.0)
    for _ in range(60):
        top, left = rng.integers(0, height), rng.integers(0, width)
        picture[:, top : top + rng.integers(2, 40), left : left + rng.integers(2, 40)] = rng.choice([0, 1, rng.random()], 3)[:, None, None]
    picture[:, :, width // 2 :: 7] = rng.random(3)[:, None, None]
    picture[:, height // 2 :: 5, : width // 3] = 1.0 - picture[:, height // 2 :: 5, : width // 3]
    picture += rng.normal(0, 0.03, picture.shape)
    sharp = torch.from_numpy(picture.clip(0, 1)[None].astype(np.float32))
    return F.avg_pool2d(F.pad(sharp, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
