"""What the accelerator computes for a batch: planes -> RGB -> network -> planes, eagerly, compiled, or as a replayed graph."""

from __future__ import annotations

import logging
import time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Final, Literal, Protocol, get_args

import torch
from torch import Tensor

from a2n_video.engine.backend import Backend, Tensors, copy_all, torch_dtype
from a2n_video.engine.color import ColorConverter, enlarge_alpha
from a2n_video.engine.memory import in_strips
from a2n_video.engine.protocol import Geometry
from a2n_video.net.fuse import FusedA2N, fuse
from a2n_video.net.model import A2N
from a2n_video.options import ExecutionPlan

log = logging.getLogger(__name__)
Layout = Literal["nchw", "nhwc"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)
_TIMED_RUNS = 3


class Step(Protocol):
    """A computation on the compute stream; it waits for nothing and leaves nothing behind that another stream would use."""

    def __call__(self, rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
        """Rows (n, source samples) to `out` (n, target samples); `flags` (n,) becomes 1 where a frame's RGB is not finite.

        With `strip_rows` the network goes through each frame in strips of about so many rows, to the same result.
        """


class NetworkStep:
    """The network between its colour conversions. Tables and weights lie on the device before the first call."""

    def __init__(self, net: FusedA2N, geometry: Geometry, device: torch.device) -> None:
        self._net = net
        self._scale = geometry.scale
        self._source = ColorConverter(geometry.source, geometry.color, device, covers=geometry.target.alpha)
        self._target = ColorConverter(geometry.target, geometry.color, device)

    def __call__(self, rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
        rgb = in_strips(self._net, self._source.to_rgb(rows), strip_rows)
        # One pass and no map of booleans: finite values this small cannot sum to infinity in float32.
        flags.copy_(~torch.isfinite(rgb.sum(dim=(1, 2, 3))))
        alpha = self._source.alpha(rows)
        out.copy_(self._target.to_rows(rgb, None if alpha is None else enlarge_alpha(alpha, self._scale)))


class Float32Step:
    """A step without TF32, whose mantissa is no longer than float16's."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self, rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            self._step(rows, out, flags, strip_rows=strip_rows)


class GraphedStep:
    """A step as a graph for one batch size, replayed on buffers of its own; other shapes run eagerly and drop the graph's memory.

    Copying in and out of those buffers is on the device and costs far less than the launches the graph saves. Make it on the
    thread and stream it will run on.
    """

    def __init__(self, step: Step, like: Tensors) -> None:
        self._step = step
        self._buffers: Tensors | None = tuple(torch.zeros_like(t) for t in like)
        self._graph = _captured(step, self._buffers)

    def __call__(self, rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
        if self._buffers is None or strip_rows or len(rows) != len(self._buffers[0]):
            self._graph = self._buffers = None  # memory has run out: this gives some back
            self._step(rows, out, flags, strip_rows=strip_rows)
            return
        assert self._graph is not None
        copy_all(rows, self._buffers[0])
        self._graph.replay()
        copy_all(*self._buffers[1:], out, flags)


def _captured(step: Step, buffers: Tensors) -> torch.cuda.CUDAGraph | None:
    for _ in range(2):  # libraries choose and allocate before a capture, in which they may not
        step(*buffers)
    graph = torch.cuda.CUDAGraph()
    torch.accelerator.synchronize()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        step(*buffers)
    finally:
        graph.capture_end()
    return graph


def network_step(model: A2N, geometry: Geometry, plan: ExecutionPlan, device: torch.device) -> Step:
    """The step that a plan asks for, without its graph, from a model on any device (which stays as it is)."""
    net = fuse(deepcopy(model).to(device)).lowered(getattr(torch, plan.dtype))
    net.to(memory_format=torch.channels_last if plan.layout == "nhwc" else torch.contiguous_format)
    if plan.compile:
        for block in net.blocks:  # one compilation serves them all
            block.compile(dynamic=False)
    step = NetworkStep(net, geometry, device)
    return Float32Step(step) if plan.dtype == "float32" else step


def exact_step(model: A2N, geometry: Geometry, plan: ExecutionPlan, device: torch.device) -> Step | None:
    """The float32 step for frames that float16 cannot hold, or None where the plan's dtype has float32's range."""
    exact = replace(plan, dtype="float32", compile=False, cuda_graph=False)
    return network_step(model, geometry, exact, device) if plan.dtype == "float16" else None


def graphed(step: Step, backend: Backend, like: Tensors) -> Step:
    """`step` as a graph for buffers (rows, out, flags) like these, or itself, with a warning, where a graph cannot be made or differs."""
    made: list[GraphedStep] = []
    try:
        backend.run("compute", lambda *buffers: made.append(GraphedStep(step, buffers)), like, ())
        backend.synchronize()
        reason = "" if _agree(made[0], step, backend, like) else "its result differs from the eager one"
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
    if not reason:
        return made[0]
    log.warning("%s: going on without a CUDA graph: %s", backend.name, reason)
    made.clear()
    backend.release_memory()
    return step


def _agree(one: Step, other: Step, backend: Backend, like: Tensors) -> bool:
    """Whether two steps give the same bits on made-up rows."""
    rows, *results = (torch.empty_like(t) for t in (*like, *like[1:]))
    rows.copy_((torch.arange(rows.numel(), device=rows.device) % 251).reshape(rows.shape))
    backend.synchronize()
    backend.run("compute", one, (rows,), tuple(results[:2]))
    backend.run("compute", other, (rows,), tuple(results[2:]))
    backend.synchronize()
    return torch.equal(results[0], results[2]) and torch.equal(results[1], results[3])


def time_layouts(model: A2N, geometry: Geometry, plan: ExecutionPlan, backend: Backend) -> Layout:
    """The memory layout in which a batch of the plan takes less time on a device; "nhwc" where memory does not even reach for this."""
    seconds: dict[Layout, float] = {}
    shapes = ((geometry.source.samples, geometry.source), (geometry.target.samples, geometry.target))
    rows, out = (backend.on_device((plan.batch_size, n), torch_dtype(fmt.dtype)) for n, fmt in shapes)
    flags = backend.on_device((plan.batch_size,), torch.uint8)
    for layout in LAYOUTS:
        step = network_step(model, geometry, replace(plan, layout=layout, compile=False), backend.device)
        try:
            seconds[layout] = _timed(step, backend, (rows, out, flags))
        except torch.OutOfMemoryError:
            return "nhwc"
    log.info("%s: seconds a batch by layout: %s", backend.name, seconds)
    return min(LAYOUTS, key=seconds.__getitem__)


def _timed(step: Step, backend: Backend, buffers: Tensors) -> float:
    """Seconds of the quickest of a few runs, after one that is not counted."""
    taken = []
    for _ in range(_TIMED_RUNS + 1):
        backend.synchronize()
        started = time.perf_counter()
        backend.run("compute", partial(step, strip_rows=0), buffers[:1], buffers[1:])
        backend.synchronize()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])
