"""An engine whose whole work is done by one thread of its own: packed rows go in by a short queue, futures come out in order.

One thread, always the same, because each thread that calls torch grows an OpenMP team of its own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from a2n_video.engine.protocol import EngineStats, Geometry, Rows, pack_rows
from a2n_video.media.planes import Planes

_IN_FLIGHT = 2  # batches packed or in work; more only holds memory


class Compute(Protocol):
    """What the thread runs; made, called and dropped on it."""

    def __call__(self, rows: Rows) -> Rows:
        """Rows of the source's format -> new rows of the target's."""

    def recoveries(self) -> int:
        """How often it ran out of memory and went on."""


class WorkerEngine:
    """An `Engine` around a `Compute`, which `open_compute` makes on the engine's thread.

    The constructor waits for that and raises what it raises. `submit` packs in the caller's thread and waits while two batches
    are under way. Frames that do not fit the geometry are a ValueError of `submit` and leave the engine as it was; what fails
    later ends the engine: that future and every later one has the error. `close` drops what has not been started.
    """

    def __init__(self, geometry: Geometry, batch_size: int, open_compute: Callable[[], Compute]) -> None:
        self.geometry = geometry
        self.batch_size = batch_size
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._jobs: queue.SimpleQueue[tuple[Rows, Future[Rows]] | None] = queue.SimpleQueue()
        self._stats = EngineStats()
        self._error: BaseException | None = None
        self._closed = False
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(open_compute, ready), name="a2n-engine", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._closed = True
            self._jobs.put(None)
            raise

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        """See `Engine.submit`."""
        if not 1 <= len(frames) <= self.batch_size:
            raise ValueError(f"{len(frames)} frames came, a batch is 1 to {self.batch_size}")
        if self._closed:
            raise RuntimeError("the engine is closed")
        rows = pack_rows(self.geometry.source, frames)
        self._slots.acquire()
        future: Future[Rows] = Future()
        self._jobs.put((rows, future))
        return future

    def flush(self) -> None:
        """Nothing waits for company: each batch is started as it comes."""

    def stats(self) -> EngineStats:
        return self._stats

    def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _work(self, open_compute: Callable[[], Compute], ready: Future[None]) -> None:
        try:
            compute = open_compute()
        except BaseException as error:  # noqa: BLE001  handed on whole to the constructor
            ready.set_exception(error)
            return
        ready.set_result(None)
        while (job := self._jobs.get()) is not None:
            rows, future = job
            if self._closed:
                future.cancel()
            else:
                self._serve(compute, rows, future)
            self._slots.release()
            del job, rows, future  # an idle engine holds nobody's frames

    def _serve(self, compute: Compute, rows: Rows, future: Future[Rows]) -> None:
        started = time.perf_counter()
        try:
            if self._error is not None:
                raise self._error
            result = compute(rows)
        except BaseException as error:  # noqa: BLE001  handed on whole by this future and every later one
            self._error = error
            future.set_exception(error)
            return
        s = self._stats
        busy = s.busy_s + time.perf_counter() - started
        self._stats = replace(s, frames=s.frames + len(rows), batches=s.batches + 1, oom_recoveries=compute.recoveries(), busy_s=busy)
        future.set_result(result)
