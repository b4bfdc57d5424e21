"""Planes to RGB and back in numpy, by the same tables as in torch (color.py): for what needs no network, and starts without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from a2n_video.media.chroma import BlockFilter, code_matrices, code_range, enlarging, shrinking
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Samples

Floats = npt.NDArray[np.float32]


def _along_rows(block: BlockFilter, x: Floats, n_out: int) -> Floats:
    """Resample (H, W) along H to (n_out, W), edges repeated."""
    n_in, per_block = block.matrix.shape
    blocks = -(-n_out // per_block)
    after = blocks * block.step + block.last - x.shape[0]
    x = np.pad(x[: x.shape[0] + min(after, 0)], ((block.first, max(after, 0)), (0, 0)), mode="edge")
    row, sample = x.strides
    windows = np.lib.stride_tricks.as_strided(x, (blocks, n_in, x.shape[1]), (block.step * row, row, sample), writeable=False)
    out: Floats = np.matmul(block.matrix.T, windows)
    return out.reshape(-1, x.shape[1])[:n_out]


def _along_columns(block: BlockFilter, x: Floats, n_out: int) -> Floats:
    """Resample (H, W) along W to (H, n_out), edges repeated."""
    n_in, per_block = block.matrix.shape
    blocks = -(-n_out // per_block)
    after = blocks * block.step + block.last - x.shape[1]
    x = np.pad(x[:, : x.shape[1] + min(after, 0)], ((0, 0), (block.first, max(after, 0))), mode="edge")
    row, sample = x.strides
    windows = np.lib.stride_tricks.as_strided(x, (x.shape[0], blocks, n_in), (row, block.step * sample, sample), writeable=False)
    out: Floats = np.ascontiguousarray(windows).reshape(-1, n_in) @ block.matrix
    return out.reshape(x.shape[0], -1)[:, :n_out]


def _resampled(make: Callable[[int, float], BlockFilter], fmt: PlaneFormat, color: ColorSpec, x: Samples, size: tuple[int, int]) -> Floats:
    """Chroma to `size` (H, W) by `enlarging` or `shrinking`, on the axes that are subsampled."""
    out = x.astype(np.float32)
    if fmt.log2_chroma_h:
        out = _along_rows(make(1 << fmt.log2_chroma_h, color.siting[1]), out, size[0])
    if fmt.log2_chroma_w:
        out = _along_columns(make(1 << fmt.log2_chroma_w, color.siting[0]), out, size[1])
    return out


def planes_to_rgb(planes: Sequence[Samples], fmt: PlaneFormat, color: ColorSpec) -> Floats:
    """Planes -> RGB (3, H, W), float32, black 0 and white 1, nothing clamped; alpha is left out."""
    codes = np.empty((1 if fmt.family == "gray" else 3, fmt.height, fmt.width), np.float32)
    for i in range(len(codes)):
        codes[i] = planes[i] if i == 0 else _resampled(enlarging, fmt, color, planes[i], (fmt.height, fmt.width))
    tables = code_matrices(fmt, color)
    rgb: Floats = tables.decode.astype(np.float32) @ codes.reshape(len(codes), -1)
    rgb += tables.decode_bias.astype(np.float32)[:, None]
    return rgb.reshape(3, fmt.height, fmt.width)


def rgb_to_planes(rgb: Floats, fmt: PlaneFormat, color: ColorSpec, row: Samples, repeat: int = 1) -> None:
    """RGB (3, H, W), each pixel `repeat` times either way, -> the colour planes of a flat row: rounded, held within the depth.

    `fmt` is the enlarged one. The matrix works before pixels are repeated, which gives the same codes sooner. Alpha is left alone.
    """
    tables, highest = code_matrices(fmt, color), code_range(fmt, color).highest
    codes = tables.encode.astype(np.float32) @ rgb.reshape(3, -1)
    codes += tables.encode_bias.astype(np.float32)[:, None] + (0.0 if highest is None else 0.5)
    for i, (plane, target) in enumerate(zip(codes.reshape(-1, *rgb.shape[1:]), fmt.unpack(row), strict=False)):
        subsampled = i > 0 and target.shape != (fmt.height, fmt.width)
        values = _resampled(shrinking, fmt, color, repeated(plane, repeat), target.shape) if subsampled else plane
        held = values if highest is None else np.clip(values, 0, highest).astype(fmt.dtype)
        target[...] = held if subsampled else repeated(held, repeat)


def repeated(x: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    """(..., H, W) with each sample `times` times either way."""
    return x.repeat(times, axis=-1).repeat(times, axis=-2)
