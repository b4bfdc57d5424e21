"""PSNR and SSIM on luma, as the super-resolution literature measures them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from a2n_video.errors import InputError

PEAK = 255.0
LUMA = (65.738, 129.057, 25.064)
BEST_DB: Final = 99.0  # stands for the infinity of equal pictures, which neither a mean nor a curve nor JSON can hold
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian (Wang et al. 2004)
K1, K2 = 0.01, 0.03
STRIP = 64  # rows of SSIM at a time: what is made of them stays in a cache, and large pictures take half the time


def luma(rgb: Tensor) -> Tensor:
    """Y in 16..235 of RGB in 0..255, (N, 3, H, W) -> (N, 1, H, W): BT.601 with the literature's rounded factors (over 256)."""
    weights = torch.tensor(LUMA, dtype=torch.float64, device=rgb.device).view(1, 3, 1, 1)
    return 16 + (weights * rgb).sum(dim=1, keepdim=True) / 256


def shave(x: Tensor, border: int) -> Tensor:
    """Without `border` pixels on each side."""
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB of each image of two batches (N, C, H, W) with values in 0..255, at most BEST_DB. Shape (N,)."""
    error = (a.double() - b.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(PEAK**2 / error)).clamp(max=BEST_DB)


def check_measurable(what: object, width: int, height: int, border: int = 0, window: int = WINDOW) -> None:
    """InputError for a picture that is smaller than the window (SSIM's) once `border` pixels on each side are left out."""
    least = window + 2 * border
    if min(width, height) < least:
        raise InputError(f"{what}: {width}x{height} is too small to measure, {least} pixels on each side are the least; leave it out")


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of each image of two one-channel batches (N, 1, H, W) in 0..255, without padding. Shape (N,).

    Images smaller than the 11x11 window are a ValueError.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs {WINDOW}x{WINDOW} pixels or more, these are {a.shape[-1]}x{a.shape[-2]}")
    strips = [slice(top, top + STRIP + WINDOW - 1) for top in range(0, a.shape[-2] - WINDOW + 1, STRIP)]
    return torch.cat([_similarity(a[..., rows, :].double(), b[..., rows, :].double()) for rows in strips], dim=-2).mean(dim=(1, 2, 3))


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM at each place of the window."""
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def _smooth(x: Tensor) -> Tensor:
    """SSIM's Gaussian, as sums of shifted copies: six times as quick on a CPU as torch's convolution of one channel."""
    taps = torch.exp(-((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    first, *others = (taps / taps.sum()).tolist()
    for axis in (-2, -1):
        length = x.shape[axis] - WINDOW + 1
        total = first * x.narrow(axis, 0, length)
        for place, tap in enumerate(others, 1):
            total.add_(x.narrow(axis, place, length), alpha=tap)
        x = total
    return x


def psnr_y(a: Tensor, b: Tensor, border: int) -> Tensor:
    """PSNR on luma of two RGB batches (N, 3, H, W) in 0..255, `border` pixels left out on each side. Shape (N,)."""
    return psnr(shave(luma(a.double()), border), shave(luma(b.double()), border))


def ssim_y(a: Tensor, b: Tensor, border: int) -> Tensor:
    """SSIM on luma of two RGB batches (N, 3, H, W) in 0..255, `border` pixels left out on each side. Shape (N,)."""
    return ssim(shave(luma(a.double()), border), shave(luma(b.double()), border))
