"""The torch engine on the CPU: one thread, inference mode, channels_last, bfloat16 where the processor has it, exact strips."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Final

import torch
from torch import Tensor

from a2n_video.engine.color import ColorConverter, enlarge_alpha, finite
from a2n_video.engine.memory import Recovery, in_strips
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.engine.worker import WorkerEngine
from a2n_video.net.fuse import FusedA2N, fuse
from a2n_video.net.model import A2N
from a2n_video.options import ExecutionPlan

# Source pixels of a strip: its maps stay in the cache; fewer rows than this spend too much on the halo.
_STRIP_PIXELS: Final = 640 * 72
_STRIP_MIN_ROWS: Final = 24


def cpu_strip_rows(width: int) -> int:
    """Rows of a strip of a frame of that width."""
    return max(_STRIP_MIN_ROWS, _STRIP_PIXELS // width)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; elsewhere float32 is faster."""
    return torch.cpu._is_avx512_bf16_supported() or has_amx()


def has_amx() -> bool:
    """Whether the processor multiplies whole tiles of bfloat16 (Intel's AMX)."""
    return torch.cpu._is_amx_tile_supported()


def has_vnni() -> bool:
    """Whether the processor adds products of 8 bits in 32; others hold the sum of two in 16, which large ones do not fit."""
    return torch.cpu._is_vnni_supported()


def set_threads_here(count: int) -> None:
    """Have torch use `count` threads for work that this thread starts. Torch also hands the number on to every thread that is new to it,
    the program's own among them: another thread sets that back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    other = Thread(target=torch.set_num_threads, args=(before,))
    other.start()
    other.join()


class TorchCompute:
    """Rows -> rows through the network in torch; see `WorkerEngine`. All of it runs on the thread that makes it."""

    def __init__(self, model: A2N, geometry: Geometry, plan: ExecutionPlan) -> None:
        set_threads_here(plan.threads)
        self._scale = geometry.scale
        self._source = ColorConverter(geometry.source, geometry.color, covers=geometry.target.alpha)
        self._target = ColorConverter(geometry.target, geometry.color)
        self._net = lowered(model, getattr(torch, plan.dtype))
        self._recovery = Recovery(batch_size=plan.batch_size, strip_rows=plan.strip_rows, height=geometry.source.height)

    def start(self, rows: Rows) -> Callable[[], Rows]:
        """Nothing runs beside this thread: all is done when the result is asked for."""
        return partial(self._result, rows)

    def close(self) -> None:
        """Nothing is left to end."""

    def recoveries(self) -> int:
        return self._recovery.count

    def _result(self, rows: Rows) -> Rows:
        with torch.inference_mode():
            return self._recovery.run(self._part, torch.from_numpy(rows)).numpy()

    def _part(self, rows: Tensor, strip_rows: int) -> Tensor:
        rgb = finite(in_strips(self._net, self._source.to_rgb(rows), strip_rows))
        alpha = self._source.alpha(rows)
        return self._target.to_rows(rgb, None if alpha is None else enlarge_alpha(alpha, self._scale))


def lowered(model: A2N, dtype: torch.dtype) -> FusedA2N:
    """The rewritten network in `dtype`, laid out for the CPU (channels_last: FACTS of the project measured 75 against 259 GMAC/s)."""
    return fuse(model).lowered(dtype).to(memory_format=torch.channels_last)


def open_cpu_engine(model: A2N, geometry: Geometry, plan: ExecutionPlan) -> WorkerEngine:
    """An engine for a loaded model as the plan says."""
    return WorkerEngine(geometry, plan.batch_size, lambda: TorchCompute(model, geometry, plan))
