"""The accelerator pipeline without its threads: pack, launch, collect, and what each must wait for (rings.py names the edges)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from a2n_video.engine.backend import Backend, Event, StreamName, Work, copy_all, torch_dtype
from a2n_video.engine.protocol import Geometry, Rows, pack_rows
from a2n_video.engine.rings import DEVICE_OUTPUTS, HOST_OUTPUTS, INPUTS, DeviceOutput, Edge, HostOutput, InputSlot, Job
from a2n_video.errors import DeviceError
from a2n_video.media.planes import Planes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Route:
    """A computation `work(rows, out, flags)` for whole frames, and its exact equal in strips for when even one frame does not fit."""

    whole: Work
    strips: Work | None = None


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is computed: `fast` for every batch, and `exact` once more, a frame at a time, where `fast` set the frame's flag.

    Without `exact` nobody looks at the flags.
    """

    fast: Route
    exact: Route | None = None


class Recovering:
    """A route that survives running out of memory: halves what it computes at once, then goes to strips, and stays there.

    The rows it is given stand in their slot all the while, so the same batch is computed again and none is lost or doubled.
    """

    def __init__(self, backend: Backend, route: Route, batch_size: int) -> None:
        self._backend = backend
        self._route = route
        self._work = route.whole
        self.at_once = batch_size
        self.recoveries = 0

    @property
    def in_strips(self) -> bool:
        return self._work is not self._route.whole

    def __call__(self, rows: Tensor, out: Tensor, flags: Tensor) -> None:
        while (reason := self._attempt(rows, out, flags)) is not None:
            self._backend.release_memory()
            self._step_down(reason)

    def _attempt(self, rows: Tensor, out: Tensor, flags: Tensor) -> str | None:
        try:
            for start in range(0, len(rows), self.at_once):
                part = slice(start, start + self.at_once)
                self._backend.run("compute", self._work, (rows[part],), (out[part], flags[part]))
        except torch.OutOfMemoryError as error:
            # Only its words leave: the exception holds every tensor of the frames it came through (pytorch#18853).
            return str(error)
        return None

    def _step_down(self, reason: str) -> None:
        if self.at_once > 1:
            self.at_once = (self.at_once + 1) // 2
            what = f"{self.at_once} frame(s) at once"
        elif self._route.strips is not None and not self.in_strips:
            self._work = self._route.strips
            what = "strips of one frame"
        else:
            raise DeviceError(
                f"{self._backend.name}: one frame does not fit the memory that is free ({reason}); free some, or use --device cpu"
            )
        self.recoveries += 1
        log.warning("%s: out of memory; going on with %s", self._backend.name, what)


class Pipeline:
    """Slots, streams and events for one geometry and batch size.

    `fill` may be called from any one thread, `launch` and `redo` only from the thread that made the pipeline, `bad_rows` and `rows`
    from any one thread. Whoever passes a slot or job on to another thread does so through a channel, never twice.
    """

    def __init__(self, backend: Backend, geometry: Geometry, steps: Steps, batch_size: int) -> None:
        self.backend = backend
        self.geometry = geometry
        self.batch_size = batch_size
        self.fast = Recovering(backend, steps.fast, batch_size)
        self.exact = Recovering(backend, steps.exact, 1) if steps.exact else None
        came, goes = (torch_dtype(fmt.dtype) for fmt in (geometry.source, geometry.target))
        shape_in, shape_out = (batch_size, geometry.source.samples), (batch_size, geometry.target.samples)
        keep = shape_in if self.exact else (0, 0)
        self.inputs = [InputSlot.make(backend, shape_in, came) for _ in range(INPUTS)]
        self.outputs = [HostOutput.make(backend, shape_out, goes, backend.on_device(keep, came)) for _ in range(HOST_OUTPUTS)]
        self._device_outputs = cycle([DeviceOutput.make(backend, shape_out, goes) for _ in range(DEVICE_OUTPUTS)])

    @property
    def recoveries(self) -> int:
        """How often memory ran out and the work went on."""
        return self.fast.recoveries + (self.exact.recoveries if self.exact else 0)

    def fill(self, slot: InputSlot, frames: Sequence[Planes]) -> None:
        """Pack frames into a slot; the last is repeated to fill the batch, since every computation has one shape."""
        self.hold_host("E1", slot.uploaded)
        rows = self.backend.host_view(slot.pinned, write=True)
        pack_rows(self.geometry.source, frames, rows)
        rows[len(frames) :] = rows[len(frames) - 1]

    def launch(self, job: Job) -> None:
        """Put a batch on the streams. The input slot may be filled again after this."""
        slot, host, device = job.source, job.host, next(self._device_outputs)
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
        host, device = job.host, next(self._device_outputs)
        self.hold_stream("E4", device.drained, "compute")
        parts = [slice(i, i + 1) for i in bad]
        for part in parts:
            self.exact(host.kept[part], device.rows[part], device.flags[part])
        self._download(device, host, parts)

    def bad_rows(self, job: Job) -> list[int]:
        """Wait for a job's download; which of its frames came out with RGB that is not finite."""
        self.hold_host("E6", job.host.downloaded)
        if self.exact is None:
            return []
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
