"""Does the structure of A2N look further than plain convolutions? Diffusion indices of two small networks trained alike.

    python -m a2n_video.training data PICTURES PAIRS          # once
    python tests/benchmarks/diffusion.py PAIRS PICTURES -o diffusion.csv

Both have the same depth of 3x3 convolutions, so the same receptive field, nearly the same number of parameters, and see the same batches.
PICTURES for the measurement are at full size (Set14, say): of each of the first ten the crop richest in detail, shrunk by bicubic.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from a2n_video.net.model import A2N, A2NConfig, conv, lrelu
from a2n_video.tools.ablation import pairs
from a2n_video.tools.lam import local_attribution
from a2n_video.tools.results import write_rows
from a2n_video.training.data import PairBatches

SIDE, WINDOW = 64, 16
COLUMNS = ("picture", "left", "top", "a2n_diffusion", "plain_diffusion", "a2n_area_90", "plain_area_90")


class PlainBlock(nn.Module):
    """x + conv(lrelu(conv(x))): as deep as an A2N block's attention branch (k3, then k4)."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.a, self.b = conv(n_features, n_features), conv(n_features, n_features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(lrelu(self.a(x)))  # type: ignore[no-any-return]


class Plain(nn.Module):
    """The same frame as a small A2N, with plain residual blocks: no attention, no weights from the whole picture."""

    def __init__(self, n_features: int, n_blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = conv(3, n_features, bias=True)
        self.trunk = nn.Sequential(*(PlainBlock(n_features) for _ in range(n_blocks)), conv(n_features, n_features, bias=True))
        self.last = conv(n_features, 3 * scale**2, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        out = F.pixel_shuffle(self.last(features + self.trunk(features)), self.scale)
        return out + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def networks(blocks: int, scale: int) -> dict[str, nn.Module]:
    """A tiny A2N, and the plain network whose width brings it nearest in parameters."""
    torch.manual_seed(1)
    a2n = A2N(A2NConfig(scale=scale, n_features=16, n_blocks=blocks, head="pixelshuffle"))
    width = min(range(8, 64), key=lambda n: abs(size(Plain(n, blocks, scale)) - size(a2n)))
    torch.manual_seed(1)
    return {"a2n": a2n, "plain": Plain(width, blocks, scale)}


def train(models: dict[str, nn.Module], data: PairBatches, steps: int) -> dict[str, float]:
    """Adam, L1, cosine from 1e-3, batch by batch alike for both; the mean loss of the last tenth, in 8-bit steps."""
    optimisers = {name: torch.optim.Adam(model.parameters(), lr=1e-3) for name, model in models.items()}
    losses: dict[str, list[float]] = {name: [] for name in models}
    for step in range(steps):
        low, high = (t.float() / 255 for t in data[step])
        for name, model in models.items():
            for group in optimisers[name].param_groups:
                group["lr"] = 1e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
            loss = (model(low) - high).abs().mean()
            optimisers[name].zero_grad()
            loss.backward()
            optimisers[name].step()
            losses[name].append(255 * loss.item())
    return {name: float(np.mean(values[-max(1, steps // 10) :])) for name, values in losses.items()}


def richest(small: Tensor) -> tuple[int, int]:
    """(left, top) of the SIDE x SIDE crop with the greatest mean step between neighbours."""
    grey = small.mean(dim=1, keepdim=True)
    detail = F.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1)) + F.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1))
    sums = F.avg_pool2d(detail, SIDE, stride=4)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return 4 * column, 4 * row


def measured(models: dict[str, nn.Module], smalls: list[Tensor], scale: int) -> list[tuple[Any, ...]]:
    middle = scale * SIDE // 2 - WINDOW // 2
    rows: list[tuple[Any, ...]] = []
    for number, small in enumerate(smalls, 1):
        left, top = richest(small)
        crop = small[..., top : top + SIDE, left : left + SIDE].contiguous()
        found = [local_attribution(model, crop, (middle, middle, WINDOW)) for model in models.values()]
        rows.append((number, left, top, *(f.diffusion for f in found), *(f.area for f in found)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    data = PairBatches(given.pairs, batch=8, side=48, clean_share=1.0, seed=1)
    models = networks(given.blocks, data.scale)
    print({name: size(model) for name, model in models.items()}, "parameters")
    started = time.monotonic()
    print(train(models, data, given.steps), f"L1 after {given.steps} steps, {time.monotonic() - started:.0f} s")
    for model in models.values():
        model.eval().requires_grad_(False)
    rows = measured(models, [small for small, _ in pairs(given.pictures, data.scale)][:10], data.scale)
    write_rows(given.output, COLUMNS, rows)
    for row in rows:
        print(*(f"{value:.3f}" if isinstance(value, float) else value for value in row))
    means = np.mean([row[3:] for row in rows], axis=0)
    print(f"mean diffusion index: a2n {means[0]:.3f}, plain {means[1]:.3f}; mean area of 90 %: {means[2]:.1f}, {means[3]:.1f} pixels")


if __name__ == "__main__":
    main()
