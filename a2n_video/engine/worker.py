"""An engine whose whole work is done by one thread of its own: packed rows go in by a short queue, futures come out in order.

One thread, always the same, because each thread that calls torch grows an OpenMP team of its own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from a2n_video.engine.owned import ends_at_exit, waited_for
from a2n_video.engine.protocol import EngineStats, Geometry, Rows, pack_rows
from a2n_video.media.planes import Planes

_IN_FLIGHT = 2  # batches packed or in work; more only holds memory


class Compute(Protocol):
    """What the thread runs; made, called and dropped on it."""

    def start(self, rows: Rows) -> Callable[[], Rows]:
        """Begin rows of the source's format; what is returned waits for them and gives new rows of the target's.

        A second batch may be started before the first is finished; they are finished in order.
        """

    def recoveries(self) -> int:
        """How often it ran out of memory and went on."""

    def close(self) -> None:
        """Called once, last, on the same thread: whatever was started has been finished."""


@dataclass(frozen=True)
class _Job:
    rows: Rows
    future: Future[Rows]


@dataclass(frozen=True)
class _Started:
    finish: Callable[[], Rows]
    future: Future[Rows]
    frames: int


class WorkerEngine:
    """An `Engine` around a `Compute`, which `open_compute` makes on the engine's thread.

    The constructor waits for that and raises what it raises. `submit` packs in the caller's thread and waits while two batches
    are under way. Frames that do not fit the geometry are a ValueError of `submit` and leave the engine as it was; what fails
    later ends the engine: that future and every later one has the error. `close` and `stop` drop what has not been started.
    """

    def __init__(self, geometry: Geometry, batch_size: int, open_compute: Callable[[], Compute]) -> None:
        self.geometry = geometry
        self.batch_size = batch_size
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stats = EngineStats()
        self._error: BaseException | None = None
        self._closed = False
        self._posting = threading.RLock()  # nothing is posted behind the end; again in one thread where garbage is collected in `stop`
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(open_compute, ready), name="a2n-engine", daemon=True)
        ends_at_exit(self, [self._thread])
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self.stop()  # nobody gets the engine of a constructor that was interrupted
            raise

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        """See `Engine.submit`."""
        if not 1 <= len(frames) <= self.batch_size:
            raise ValueError(f"{len(frames)} frames came, a batch is 1 to {self.batch_size}")
        rows = pack_rows(self.geometry.source, frames)
        self._slots.acquire()
        with self._posting:
            if self._closed:
                self._slots.release()
                raise RuntimeError("the engine is closed")
            job = _Job(rows, Future())
            self._jobs.put(job)
        return job.future

    def stats(self) -> EngineStats:
        return self._stats

    def stop(self) -> None:
        """See `Threaded.stop`."""
        with self._posting:
            self._closed = True
            self._jobs.put(None)

    def close(self) -> None:
        self.stop()
        waited_for([self._thread])

    def _work(self, open_compute: Callable[[], Compute], ready: Future[None]) -> None:
        try:
            compute = open_compute()
        except BaseException as error:  # noqa: BLE001  handed on whole to the constructor
            ready.set_exception(error)
            return
        ready.set_result(None)
        pending: _Started | None = None
        ended = False
        while not ended or pending is not None:
            started_s = time.perf_counter()
            job, ended = (None, True) if ended else self._next(wait=pending is None)
            next_pending = None if job is None else self._start(compute, job)
            if pending is not None:
                self._finish(compute, pending)
                self._stats = replace(self._stats, busy_s=self._stats.busy_s + time.perf_counter() - started_s)
            pending = next_pending
            del job, next_pending  # an idle engine holds nobody's frames
        compute.close()

    def _next(self, *, wait: bool) -> tuple[_Job | None, bool]:
        """The next batch, or None where there is none yet; and whether the end has come."""
        try:
            job = self._jobs.get(block=wait)
        except queue.Empty:
            return None, False
        return job, job is None

    def _start(self, compute: Compute, job: _Job) -> _Started | None:
        if self._closed:
            job.future.cancel()
            self._slots.release()
            return None
        try:
            if self._error is not None:
                raise self._error
            finish = compute.start(job.rows)
        except BaseException as error:  # noqa: BLE001  handed on whole by this future, in its turn
            finish = partial(_raise, error)
        return _Started(finish, job.future, len(job.rows))

    def _finish(self, compute: Compute, started: _Started) -> None:
        try:
            rows = started.finish()  # after an error too: what was started reads its input until it is waited for
            if self._error is not None:
                raise self._error
        except BaseException as error:  # noqa: BLE001  handed on whole by this future and every later one
            self._error = self._error or error
            started.future.set_exception(self._error)
        else:
            s = self._stats
            done = replace(s, frames=s.frames + started.frames, batches=s.batches + 1, oom_recoveries=compute.recoveries())
            self._stats = done
            started.future.set_result(rows)
        self._slots.release()


def _raise(error: BaseException) -> Rows:
    raise error
