"""The accelerator pipeline without its threads: pack, launch, collect, and what each must wait for (rings.py names the edges)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from a2n_video.engine.backend import Backend, Event, StreamName, copy_all, torch_dtype
from a2n_video.engine.memory import Recovery
from a2n_video.engine.network_step import Step, graphed
from a2n_video.engine.protocol import Geometry, Rows, pack_rows
from a2n_video.engine.rings import DEVICE_OUTPUTS, HOST_OUTPUTS, INPUTS, DeviceOutput, Edge, HostOutput, InputSlot, Job
from a2n_video.media.planes import Planes


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is computed: `fast` for every batch, and `exact` once more, a frame at a time, where `fast` set the frame's flag.

    A frame whose flag is set after that, or for which there is no `exact`, is an error of the engine.
    """

    fast: Step
    exact: Step | None = None


@dataclass(kw_only=True)
class DeviceRecovery(Recovery):
    """memory.py's `Recovery` for a step on the compute stream.

    The rows stand in their slot all the while, so the same batch is computed again: no frame is lost or doubled.
    """

    backend: Backend
    step: Step

    def __call__(self, rows: Tensor, out: Tensor, flags: Tensor) -> None:
        while (reason := self._put_on_stream(rows, out, flags)) is not None:
            self.backend.release_memory()
            self._step_down(min(self.batch_size, len(rows)), reason)

    def _put_on_stream(self, rows: Tensor, out: Tensor, flags: Tensor) -> str | None:
        """Why memory ran out, or None. Only words leave: the exception holds every tensor of the frames it came through (pytorch#18853)."""
        work = partial(self.step, strip_rows=self.strip_rows)
        try:
            for start in range(0, len(rows), self.batch_size):
                part = slice(start, start + self.batch_size)
                self.backend.run("compute", work, (rows[part],), (out[part], flags[part]))
        except torch.OutOfMemoryError as error:
            return str(error)
        return None


class Pipeline:
    """Slots, streams and events for one geometry and batch size.

    `fill` may be called from any one thread, `launch` and `redo` only from the thread that made the pipeline, `bad_rows` and `rows`
    from any one thread. Whoever passes a slot or job on to another thread does so through a channel, never twice.
    """

    def __init__(self, backend: Backend, geometry: Geometry, steps: Steps, batch_size: int, strip_rows: int = 0) -> None:
        self.backend = backend
        self.geometry = geometry
        self.batch_size = batch_size
        height = geometry.source.height
        self.fast = DeviceRecovery(batch_size=batch_size, strip_rows=strip_rows, height=height, backend=backend, step=steps.fast)
        self.exact: DeviceRecovery | None = None
        if steps.exact:
            self.exact = DeviceRecovery(batch_size=1, strip_rows=strip_rows, height=height, backend=backend, step=steps.exact)
        came, goes = (torch_dtype(fmt.dtype) for fmt in (geometry.source, geometry.target))
        shape_in, shape_out = (batch_size, geometry.source.samples), (batch_size, geometry.target.samples)
        keep = shape_in if self.exact else (0, 0)
        self.inputs = [InputSlot.make(backend, shape_in, came) for _ in range(INPUTS)]
        self.outputs = [HostOutput.make(backend, shape_out, goes, backend.on_device(keep, came)) for _ in range(HOST_OUTPUTS)]
        self.device_outputs = [DeviceOutput.make(backend, shape_out, goes) for _ in range(DEVICE_OUTPUTS)]
        self._in_turn = cycle(self.device_outputs)

    def warm_up(self) -> None:
        """Compute once on black, so that libraries choose and allocate now, and too little memory shows before the first frame."""
        rows, device = self.inputs[0].device, self.device_outputs[0]
        self.backend.run("compute", Tensor.zero_, (), (rows,))
        self.fast(rows, device.rows, device.flags)
        self.backend.synchronize()

    def use_graph(self) -> None:
        """Replay the fast step as a graph from now on, where that works and changes nothing; after `warm_up`."""
        if self.fast.batch_size == self.batch_size and not self.fast.strip_rows:
            device = self.device_outputs[0]
            self.fast.step = graphed(self.fast.step, self.backend, (self.inputs[0].device, device.rows, device.flags))

    @property
    def recoveries(self) -> int:
        """How often memory ran out and the work went on."""
        return self.fast.count + (self.exact.count if self.exact else 0)

    def fill(self, slot: InputSlot, frames: Sequence[Planes]) -> None:
        """Pack frames into a slot; the last is repeated to fill the batch, since every computation has one shape."""
        self.hold_host("E1", slot.uploaded)
        rows = self.backend.host_view(slot.pinned, write=True)
        pack_rows(self.geometry.source, frames, rows)
        rows[len(frames) :] = rows[len(frames) - 1]

    def launch(self, job: Job) -> None:
        """Put a batch on the streams. The input slot may be filled again after this."""
        slot, host, device = job.source, job.host, next(self._in_turn)
        self.hold_stream("E2", slot.consumed, "upload")
        self.backend.run("upload", copy_all, (slot.pinned,), (slot.device,))
        slot.uploaded.record("upload")
        self.hold_stream("E3", slot.uploaded, "compute")
        self.hold_stream("E4", device.drained, "compute")
        self.fast(slot.device, device.rows, device.flags)
        if self.exact:
            self.backend.run("compute", copy_all, (slot.device,), (host.kept,))
        slot.consumed.record("compute")
        self._download(device, host, [slice(None)])

    def redo(self, job: Job, bad: Sequence[int]) -> None:
        """Compute some rows of a collected job again by the exact route; it must be collected once more."""
        assert self.exact is not None
        host, device = job.host, next(self._in_turn)
        self.hold_stream("E4", device.drained, "compute")
        parts = [slice(i, i + 1) for i in bad]
        for part in parts:
            self.exact(host.kept[part], device.rows[part], device.flags[part])
        self._download(device, host, parts)

    def bad_rows(self, job: Job) -> list[int]:
        """Wait for a job's download; which of its frames came out with RGB that is not finite and are worth the exact route."""
        self.hold_host("E6", job.host.downloaded)
        return [] if self.exact is None else self.flagged(job)

    def flagged(self, job: Job) -> list[int]:
        """Which frames of a collected job came out with RGB that is not finite."""
        flags = self.backend.host_view(job.host.flags, write=False)
        return [i for i in range(job.count) if flags[i]]

    def rows(self, job: Job) -> Rows:
        """A collected job's rows in memory of their own: a slot that is lent on is overwritten while somebody still reads it."""
        return self.backend.host_view(job.host.rows, write=False)[: job.count].copy()

    def hold_stream(self, edge: Edge, event: Event, stream: StreamName) -> None:
        """An edge of rings.py between streams (named, so that a test can take one out)."""
        event.block(stream)

    def hold_host(self, edge: Edge, event: Event) -> None:
        """An edge of rings.py that holds the calling thread."""
        event.synchronize()

    def _download(self, device: DeviceOutput, host: HostOutput, parts: Sequence[slice]) -> None:
        device.computed.record("compute")
        self.hold_stream("E5", device.computed, "download")
        for part in parts:
            self.backend.run("download", copy_all, (device.rows[part], device.flags[part]), (host.rows[part], host.flags[part]))
        device.drained.record("download")
        host.downloaded.record("download")
