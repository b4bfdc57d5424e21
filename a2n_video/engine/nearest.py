"""The stand-in network: every pixel repeated, in numpy, with neither torch nor weights.

It goes the same way as the others (planes -> RGB -> larger RGB -> planes, by the same tables), so that a pipeline, its colour and
its timing can be tried without waiting for a network.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from a2n_video.engine.numpy_color import planes_to_rgb, repeated, rgb_to_planes
from a2n_video.engine.protocol import NOT_FINITE, EngineStats, Geometry, Rows, pack_rows
from a2n_video.errors import DeviceError
from a2n_video.media.planes import PlaneFormat, Planes, Samples


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
