"""Separable resampling as MATLAB's `imresize` does it: antialiased when shrinking, mirrored at the borders.

The literature's low-resolution images are made this way (cubic, a = -0.5), so figures are only comparable with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2n_video.media.chroma import cubic

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """An interpolation kernel: its weight at a distance in samples, zero beyond `support`."""

    weight: Callable[[Array], Array]
    support: float


def box(x: Array) -> Array:
    return np.where((x >= -0.5) & (x < 0.5), 1.0, 0.0)


def triangle(x: Array) -> Array:
    weight: Array = np.maximum(0.0, 1 - np.abs(x))
    return weight


def lanczos3(x: Array) -> Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


KERNELS: dict[str, Kernel] = {
    "bicubic": Kernel(weight=cubic, support=2),
    "area": Kernel(weight=box, support=0.5),
    "bilinear": Kernel(weight=triangle, support=1),
    "lanczos": Kernel(weight=lanczos3, support=3),
}


@dataclass(frozen=True, kw_only=True)
class Window:
    """The stretch of a row that is resampled: from `start`, `length` samples long; fractions are allowed."""

    start: float
    length: float


@lru_cache(maxsize=64)
def resize_matrix(n_in: int, n_out: int, kernel: str = "bicubic", window: Window | None = None) -> Array:
    """The (n_out, n_in) float64 matrix that resamples a row of `n_in` samples, or a window of it, to `n_out`.

    Rows sum to 1. Samples beyond the row are mirrored, the edge sample repeated. Do not write to the result: it is cached.
    """
    window = window or Window(start=0, length=n_in)
    scale = n_out / window.length
    shrink = min(scale, 1.0)
    shape = KERNELS[kernel]
    centre = (np.arange(n_out) + 0.5) / scale - 0.5 + window.start
    reach = shape.support / shrink
    first = np.floor(centre - reach).astype(np.int64)
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = shape.weight((centre[:, None] - taps) * shrink)
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.mod(taps, 2 * n_in)
    mirrored = np.minimum(mirrored, 2 * n_in - 1 - mirrored)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out)[:, None], mirrored), weights)
    matrix.setflags(write=False)
    return matrix


def resize(x: Tensor, height: int, width: int, kernel: str = "bicubic") -> Tensor:
    """Resample (..., H, W) to (..., height, width).

    Floating tensors only; computed and returned in the tensor's dtype, on its device; nothing is clamped or rounded.
    """
    if not x.is_floating_point():
        raise ValueError(f"resize takes a floating tensor, not {x.dtype}")
    rows = torch.tensor(resize_matrix(x.shape[-2], height, kernel), dtype=x.dtype, device=x.device)
    columns = torch.tensor(resize_matrix(x.shape[-1], width, kernel), dtype=x.dtype, device=x.device)
    return rows @ x @ columns.T


def resize_array(image: NDArray[np.floating], height: int, width: int, kernel: str = "bicubic") -> NDArray[np.floating]:
    """Resample an (H, W, C) or (H, W) array to (height, width, ...), in its own floating dtype; see `resize`."""
    rows = resize_matrix(image.shape[0], height, kernel).astype(image.dtype)
    columns = resize_matrix(image.shape[1], width, kernel).astype(image.dtype)
    return apply_separable(rows, columns, image)


def apply_separable(rows: NDArray[np.floating], columns: NDArray[np.floating], image: NDArray[np.floating]) -> NDArray[np.floating]:
    """rows @ image @ columns.T for an (H, W) or (H, W, C) array."""
    if image.ndim == 2:
        return np.asarray(rows @ image @ columns.T)
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    return np.moveaxis(rows @ planes @ columns.T, 0, -1)
