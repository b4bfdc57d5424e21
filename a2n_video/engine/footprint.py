"""How much memory a batch will take, found without computing it, and what fits into the memory that is free.

A probe: the same steps on meta tensors, which have shapes and no contents, at two heights; what lives at once is counted. Memory
grows linearly with height once a frame goes in strips, so the two points give every frame's need.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from a2n_video.engine.color import ColorConverter
from a2n_video.engine.memory import MIN_STRIP_ROWS, in_strips
from a2n_video.engine.protocol import Geometry
from a2n_video.net.fuse import FusedA2N, fuse
from a2n_video.net.model import A2N
from a2n_video.options import ExecutionPlan

_LOG = logging.getLogger(__name__)
# Of the memory that is free: decoder, encoder and queues want the rest, and libraries want room to work in.
_SHARE: Final = 0.5


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every tensor's storage from its making to its end; `peak` is the most at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._holders: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor)
        return result

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._holders[key]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self.live -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors made by `work` take at once; results that nobody keeps are counted while they live."""
    with torch.inference_mode(False), torch.no_grad(), _Peak() as mode:
        work()
    return int(mode.peak)


def frame_bytes(net: FusedA2N, geometry: Geometry, strip_rows: int) -> int:
    """Bytes that one frame takes from its rows to the result's, by the two-point probe; `net` lies on the meta device."""

    def at_height(height: int) -> int:
        source = replace(geometry.source, height=height)
        probed = replace(geometry, source=source)
        tables = [ColorConverter(fmt, geometry.color, "meta") for fmt in (source, probed.target)]
        rows = torch.empty((1, source.samples), dtype=getattr(torch, str(source.dtype)), device="meta")
        return peak_bytes(lambda: tables[1].to_rows(in_strips(net, tables[0].to_rgb(rows), strip_rows)))

    height = geometry.source.height
    low, high = 2 * max(strip_rows, MIN_STRIP_ROWS), 4 * max(strip_rows, MIN_STRIP_ROWS)
    if height <= high:
        return at_height(height)
    small, large = at_height(low), at_height(high)
    return small + (large - small) * (height - low) // (high - low)


def fitted(plan: ExecutionPlan, model: A2N, geometry: Geometry, free_bytes: int) -> ExecutionPlan:
    """The plan with its batch, then its strips, halved until half of the free memory holds it; said in the log where nothing helps."""
    net = fuse(model).lowered(getattr(torch, plan.dtype)).to("meta")
    budget = int(free_bytes * _SHARE)
    while True:
        need = frame_bytes(net, geometry, plan.strip_rows) * plan.batch_size
        rows = plan.strip_rows or geometry.source.height
        if need <= budget:
            return plan
        if plan.batch_size > 1:
            plan = replace(plan, batch_size=plan.batch_size // 2)
        elif rows // 2 >= MIN_STRIP_ROWS:
            plan = replace(plan, strip_rows=rows // 2)
        else:
            _LOG.warning("a frame takes about %.1f GiB, and %.1f GiB of memory are free", need / 2**30, free_bytes / 2**30)
            return plan
