"""The accelerator engine: the pipeline of pipeline.py on two threads of its own, so that copies, computation and packing overlap.

    caller's thread   submit: take a free input slot, E1, pack, take a free host output, hand both on
    launching thread  owns the device: everything that is put on a stream, warm-up and recovery included
    collecting thread E6, copy the rows out, complete the future, free the host output

The caller packs because it holds the frames; all torch work stays on one thread, since each thread that calls torch grows
compute threads and library handles of its own. At most as many batches as there are host outputs lie between `submit` and
a completed future.

The orderings are shown on a simulated device (tests/engine/test_schedules.py). The tests marked `cuda` have passed on one card, an H200
(README.md has its speeds), but for the slow one, which has not been run; TorchBackend on XPU and ROCm, and several cards, are unseen.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from a2n_video.engine.backend import Backend, TorchBackend
from a2n_video.engine.channel import Channel, Hub, Stopped
from a2n_video.engine.network_step import Layout, exact_step, network_step, time_layouts
from a2n_video.engine.owned import ends_at_exit, waited_for
from a2n_video.engine.pipeline import Pipeline, Steps
from a2n_video.engine.protocol import NOT_FINITE, EngineStats, Geometry, Rows
from a2n_video.engine.rings import HostOutput, InputSlot, Job
from a2n_video.errors import A2NVideoError, DeviceError
from a2n_video.media.planes import Planes
from a2n_video.net.model import A2N
from a2n_video.options import ExecutionPlan


@dataclass(frozen=True, kw_only=True)
class _Redo:
    """Asks the launching thread to compute some rows of a job again in fp32."""

    job: Job
    bad: Sequence[int]


class _Drain:
    """Asks the launching thread to pass the end on to the collecting one; more `_Redo` may still come back."""


class AcceleratorEngine:
    """An `Engine` (see protocol.py) over a `Pipeline`, which `open_pipeline` makes on the engine's launching thread.

    The constructor waits for that and raises what it raises. `submit` waits while every input slot or host output is taken,
    and never for other frames: each batch is started at once. Frames that do not fit the
    geometry are a ValueError of `submit` and leave the engine as it was; anything else that fails ends the engine.
    """

    channel_type = Channel

    def __init__(self, geometry: Geometry, batch_size: int, open_pipeline: Callable[[], Pipeline]) -> None:
        self.geometry = geometry
        self.batch_size = batch_size
        self._hub = Hub()
        self._free_inputs: Channel[InputSlot] = self.channel_type(self._hub)
        self._free_outputs: Channel[HostOutput] = self.channel_type(self._hub)
        self._inbox: Channel[Job | _Redo | _Drain | None] = self.channel_type(self._hub)
        self._launched: Channel[Job | None] = self.channel_type(self._hub)
        self._redone: Channel[Job] = self.channel_type(self._hub)
        self._opened: Channel[Pipeline] = self.channel_type(self._hub)
        self._ledger = _Ledger()
        self._submitted = 0
        stages = {"launch": partial(self._launch, open_pipeline), "collect": self._collect}
        self._threads = [threading.Thread(target=self._stage, args=item, name=f"a2n-{item[0]}", daemon=True) for item in stages.items()]
        ends_at_exit(self, self._threads)
        for thread in self._threads:
            thread.start()
        self._pipeline: Pipeline | None = self._wait_for_pipeline()

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        if not 1 <= len(frames) <= self.batch_size:
            raise ValueError(f"{len(frames)} frames came, a batch is 1 to {self.batch_size}")
        if self._pipeline is None:
            raise RuntimeError("the engine is closed")
        try:
            return self._post(self._pipeline, frames)
        except Stopped:
            return self._ledger.failed_future()

    def stats(self) -> EngineStats:
        return self._ledger.stats()

    def stop(self) -> None:
        """See `Threaded.stop`."""
        self._pipeline = None
        self._inbox.put(_Drain())

    def close(self) -> None:
        self.stop()
        if waited_for(self._threads):
            self._fail(DeviceError("the engine was closed"))

    def _wait_for_pipeline(self) -> Pipeline:
        try:
            return self._opened.take()
        except Stopped:
            for thread in self._threads:
                thread.join()
            raise self._ledger.error or DeviceError("the engine did not start") from None
        except BaseException:
            self.stop()  # nobody gets the engine of a constructor that was interrupted
            raise

    def _post(self, pipeline: Pipeline, frames: Sequence[Planes]) -> Future[Rows]:
        slot = self._free_inputs.take()
        first = self._submitted
        try:
            pipeline.fill(slot, frames)
        except ValueError:
            self._free_inputs.put(slot)
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets it whole from its future, as the other threads' errors
            self._fail(_described("packing", error))
            raise Stopped from None
        host = self._free_outputs.take()
        job = Job(first=first, count=len(frames), source=slot, host=host, future=self._ledger.promise())
        self._submitted += len(frames)
        self._inbox.put(job)
        return job.future

    def _stage(self, name: str, stage: Callable[[], None]) -> None:
        try:
            stage()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - a thread hands its error on whole, to every future
            self._fail(_described(name, error))

    def _launch(self, open_pipeline: Callable[[], Pipeline]) -> None:
        with torch.inference_mode():
            pipeline = open_pipeline()
            try:
                self._announce(pipeline)
                while (message := self._inbox.take()) is not None:
                    self._handle(pipeline, message)
            finally:
                # Work still under way must not outlive the buffers it uses; what made it fail is already known.
                with contextlib.suppress(Exception):
                    pipeline.backend.synchronize()

    def _announce(self, pipeline: Pipeline) -> None:
        for slot in pipeline.inputs:
            self._free_inputs.put(slot)
        for host in pipeline.outputs:
            self._free_outputs.put(host)
        for _ in ("collecting thread", "constructor"):
            self._opened.put(pipeline)

    def _handle(self, pipeline: Pipeline, message: Job | _Redo | _Drain) -> None:
        match message:
            case Job():
                with _naming("computing", message):
                    pipeline.launch(message)
                self._ledger.recoveries = pipeline.recoveries
                self._free_inputs.put(message.source)
                self._launched.put(message)
            case _Redo():
                with _naming("computing in fp32", message.job):
                    pipeline.redo(message.job, message.bad)
                self._redone.put(message.job)
            case _Drain():
                self._launched.put(None)

    def _collect(self) -> None:
        pipeline = self._opened.take()
        while (job := self._launched.take()) is not None:
            with _naming("collecting", job):
                bad = pipeline.bad_rows(job)
                if bad:
                    self._inbox.put(_Redo(job=job, bad=bad))
                    pipeline.bad_rows(self._redone.take())
                if pipeline.flagged(job):
                    raise DeviceError(NOT_FINITE)
                rows = pipeline.rows(job)
            self._free_outputs.put(job.host)
            self._ledger.complete(job, rows, redone=len(bad))
        self._inbox.put(None)

    def _fail(self, error: BaseException) -> None:
        self._ledger.fail(error)
        self._hub.stop()


@contextlib.contextmanager
def _naming(what: str, job: Job) -> Iterator[None]:
    """Errors from inside say what was done with which frames."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        raise _described(f"{what} {job}", error) from error


def _described(what: str, error: BaseException) -> BaseException:
    if isinstance(error, A2NVideoError):
        return error
    described = DeviceError(f"{what} failed: {error}; start again to go on where the job stopped, or with --device cpu")
    described.__cause__ = error
    return described


def open_accelerator_engine(model: A2N, geometry: Geometry, plan: ExecutionPlan, *, guard_syncs: bool = False) -> AcceleratorEngine:
    """An engine for a loaded model as the plan says; `guard_syncs` is for tests (see `TorchBackend`)."""
    backend = TorchBackend(torch.device(plan.device))

    def open_guarded() -> Pipeline:
        pipeline = open_pipeline(backend, model, geometry, plan)
        backend.guard_syncs = guard_syncs
        return pipeline

    return AcceleratorEngine(geometry, plan.batch_size, open_guarded)


def open_pipeline(backend: Backend, model: A2N, geometry: Geometry, plan: ExecutionPlan) -> Pipeline:
    """A warm pipeline for a loaded model as the plan says, for the calling thread to launch on."""
    backend.bind()
    fast = network_step(model, geometry, plan, backend.device)
    exact = exact_step(model, geometry, plan, backend.device)
    pipeline = Pipeline(backend, geometry, Steps(fast=fast, exact=exact), plan.batch_size, plan.strip_rows)
    backend.synchronize()  # weights and tables came by the default stream
    pipeline.warm_up()
    if plan.cuda_graph:
        pipeline.use_graph()
    return pipeline


def fastest_layout(model: A2N, geometry: Geometry, plan: ExecutionPlan) -> Layout:
    """The layout to put into a plan for an accelerator, timed there; on a thread of its own, whose streams end with it."""

    def timed() -> Layout:
        backend = TorchBackend(torch.device(plan.device))
        backend.bind()
        with torch.inference_mode():
            layout = time_layouts(model, geometry, plan, backend)
        backend.release_memory()  # torch keeps freed memory for the stream it was used on, and this one ends here
        return layout

    with ThreadPoolExecutor(1, thread_name_prefix="a2n-layout") as pool:
        return pool.submit(timed).result()


class _Ledger:
    """Futures that are owed, what was counted, and the error that ended it; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: deque[Future[Rows]] = deque()
        self._frames = self._batches = self._redone = 0
        self._busy_s = 0.0
        self._busy_since = 0.0
        self.recoveries = 0
        self.error: BaseException | None = None

    def promise(self) -> Future[Rows]:
        """A future that nobody can cancel: its batch is on its way."""
        future: Future[Rows] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self.error is not None:
                raise Stopped
            if not self._owed:
                self._busy_since = time.monotonic()
            self._owed.append(future)
        return future

    def complete(self, job: Job, rows: Rows, redone: int) -> None:
        with self._lock:
            if self.error is not None:
                return
            self._owed.popleft()
            self._frames += job.count
            self._batches += 1
            self._redone += redone
            if not self._owed:
                self._busy_s += time.monotonic() - self._busy_since
        job.future.set_result(rows)

    def fail(self, error: BaseException) -> None:
        """Give the first error to every future that is owed."""
        with self._lock:
            self.error = self.error or error
            owed, self._owed = self._owed, deque()
        for future in owed:
            future.set_exception(self.error)

    def failed_future(self) -> Future[Rows]:
        future: Future[Rows] = Future()
        future.set_exception(self.error or DeviceError("the engine stopped"))
        return future

    def stats(self) -> EngineStats:
        with self._lock:
            since = time.monotonic() - self._busy_since if self._owed else 0.0
            return EngineStats(
                frames=self._frames,
                batches=self._batches,
                redone_fp32=self._redone,
                oom_recoveries=self.recoveries,
                busy_s=self._busy_s + since,
            )
