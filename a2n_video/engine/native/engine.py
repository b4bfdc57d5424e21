"""The engine around the native network: colour in torch on the engine's thread, the network beside it, exact strips where memory ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from a2n_video.engine.color import ColorConverter, enlarge_alpha, finite
from a2n_video.engine.cpu import cpu_strip_rows, lowered, set_threads_here
from a2n_video.engine.host_memory import free_host_bytes
from a2n_video.engine.memory import Recovery, in_strips
from a2n_video.engine.native.library import Network
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.engine.worker import WorkerEngine
from a2n_video.errors import DeviceError
from a2n_video.net.model import A2N
from a2n_video.options import ExecutionPlan

_LOG = logging.getLogger(__name__)


class NativeCompute:
    """Rows -> rows through the native network; see `WorkerEngine`.

    While a batch is in the network, this thread turns planes into RGB for the next and back for the one before. Where memory for a
    whole frame's maps runs out, torch takes over in exact strips: the same frame, and all that follow.
    """

    def __init__(self, model: A2N, geometry: Geometry, plan: ExecutionPlan) -> None:
        set_threads_here(1)  # for colour: a team would spin beside the network's threads
        self._model, self._scale = model, geometry.scale
        self._source = ColorConverter(geometry.source, geometry.color, covers=geometry.target.alpha)
        self._target = ColorConverter(geometry.target, geometry.color)
        try:
            self._network = Network(model, plan.threads)
        except MemoryError as error:
            raise DeviceError(f"the native engine: {error} in {plan.threads} threads; give fewer with --threads") from None
        self._beside = ThreadPoolExecutor(1, "a2n-native", set_threads_here, (plan.threads,))  # torch's, for strips
        self._strips: Recovery | None = None
        # Linux gives more memory than there is, and kills whoever uses it: what would not fit is found out beforehand.
        need = self._network.bytes_for(geometry.source.height, geometry.source.width)
        if need > free_host_bytes() // 2:
            self._go_to_strips(geometry.source.height, geometry.source.width, f"{need >> 20} MiB of maps in {plan.threads} threads")

    def start(self, rows: Rows) -> Callable[[], Rows]:
        with torch.inference_mode():
            source = torch.from_numpy(rows)
            rgb, alpha = self._source.to_rgb(source), self._source.alpha(source)
        return partial(self._finish, self._beside.submit(self._enlarge, rgb), alpha)

    def recoveries(self) -> int:
        return 0 if self._strips is None else 1 + self._strips.count

    def close(self) -> None:
        """End the network's threads; the engine's thread calls it last."""
        self._beside.shutdown()
        self._network.close()

    def _enlarge(self, rgb: Tensor) -> Tensor:
        n, _, height, width = rgb.shape
        if self._strips is None:
            result = rgb.new_empty((n, 3, height * self._scale, width * self._scale))
            try:
                for frame, target in zip(rgb, result, strict=True):
                    self._network.run(frame, target)
            except MemoryError as error:
                reason = str(error)
            else:
                return result
            self._go_to_strips(height, width, reason)
        return self._in_strips(rgb)

    def _go_to_strips(self, height: int, width: int, reason: str) -> None:
        _LOG.warning("out of memory (%s); going on in strips, more slowly", reason)
        # Torch's maps are the larger ones: half a frame of them takes more than what did not fit.
        self._strips = Recovery(batch_size=1, strip_rows=cpu_strip_rows(width), height=height)
        self._lowered = lowered(self._model, torch.float32)

    def _in_strips(self, rgb: Tensor) -> Tensor:
        assert self._strips is not None
        with torch.inference_mode():
            return self._strips.run(lambda part, rows: in_strips(self._lowered, part, rows), rgb)

    def _finish(self, running: Future[Tensor], alpha: Tensor | None) -> Rows:
        with torch.inference_mode():
            rgb = finite(running.result())
            return self._target.to_rows(rgb, None if alpha is None else enlarge_alpha(alpha, self._scale)).numpy()


def open_native_engine(model: A2N, geometry: Geometry, plan: ExecutionPlan) -> WorkerEngine:
    """An engine for a loaded model as the plan says. MissingDependencyError where the library was not built."""
    return WorkerEngine(geometry, plan.batch_size, lambda: NativeCompute(model, geometry, plan))
