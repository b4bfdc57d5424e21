"""The stand-in network: every pixel repeated, in numpy, with neither torch nor weights.

It goes the same way as the others (planes -> RGB -> larger RGB -> planes, by the same tables), so that a pipeline, its colour and
its timing can be tried without waiting for a network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from a2n_video.engine.protocol import NOT_FINITE, EngineStats, Geometry, Rows, pack_rows
from a2n_video.errors import DeviceError
from a2n_video.media.chroma import BlockFilter, code_matrices, code_range, enlarging, shrinking
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes, Samples

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


def _alpha(planes: Sequence[Samples], fmt: PlaneFormat, target: PlaneFormat, scale: int) -> Samples | float:
    """The target's alpha plane: the source's repeated, in the target's depth; opaque where the source has none."""
    highest = 1.0 if target.floating else float((1 << target.depth) - 1)
    if not fmt.alpha:
        return highest
    alpha: Samples = repeated(planes[-1], scale)
    if fmt.dtype == target.dtype and fmt.depth == target.depth:
        return alpha
    shown = alpha.astype(np.float32) * (highest / (1.0 if fmt.floating else (1 << fmt.depth) - 1))
    return shown if target.floating else shown + 0.5


class NearestEngine:
    """An `Engine` that repeats pixels; it works in the thread that submits and starts none of its own."""

    def __init__(self, geometry: Geometry, batch_size: int = 1) -> None:
        self.geometry = geometry
        self.batch_size = batch_size
        self._stats = EngineStats()
        self._error: BaseException | None = None
        self._closed = False

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        """See `Engine.submit`; the future is done when this returns."""
        if not 1 <= len(frames) <= self.batch_size:
            raise ValueError(f"{len(frames)} frames came, a batch is 1 to {self.batch_size}")
        if self._closed:
            raise RuntimeError("the engine is closed")
        packed = pack_rows(self.geometry.source, frames)
        future: Future[Rows] = Future()
        started = time.perf_counter()
        try:
            if self._error is not None:
                raise self._error
            rows = self._rows(packed)
        except Exception as error:  # noqa: BLE001  the future hands it on whole
            self._error = error
            future.set_exception(error)
            return future
        s = self._stats
        busy = s.busy_s + time.perf_counter() - started
        self._stats = replace(s, frames=s.frames + len(frames), batches=s.batches + 1, busy_s=busy)
        future.set_result(rows)
        return future

    def stats(self) -> EngineStats:
        return self._stats

    def close(self) -> None:
        self._closed = True

    def _rows(self, packed: Rows) -> Rows:
        fmt, target, color = self.geometry.source, self.geometry.target, self.geometry.color
        rows = np.empty((len(packed), target.samples), target.dtype)
        for source, row in zip(packed, rows, strict=True):
            planes = fmt.unpack(source)
            rgb = planes_to_rgb(planes, fmt, color)
            if not np.isfinite(rgb.sum()):
                raise DeviceError(NOT_FINITE)
            rgb_to_planes(rgb, target, color, row, self.geometry.scale)
            if target.alpha:
                target.unpack(row)[-1][...] = _alpha(planes, fmt, target, self.geometry.scale)
        return rows
