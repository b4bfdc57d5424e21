"""A device that exists on paper: it runs stream operations late, in any order its streams and events allow, under a seed.

Three detectors at once. Vector clocks (one component for each stream and each host thread) find accesses that nothing orders,
whatever order the operations happened to run in. Late running turns such a race into wrong frames in many seeds. Poison makes
wrong frames visible: a buffer that will be written holds garbage from the moment the write is asked for.

Host threads count as ordered only where one hands something to the other through a `TracedChannel`.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from a2n_video.engine.backend import STREAMS, StreamName, Tensors, Work
from a2n_video.engine.channel import Channel, Hub
from a2n_video.engine.protocol import Rows

POISON = 0xFF


class VectorClock(Counter[str]):
    """Times known of other agents."""

    def update_from(self, other: VectorClock) -> None:
        for agent, time in other.items():
            self[agent] = max(self[agent], time)

    def copy(self) -> VectorClock:
        return VectorClock(self)


@dataclass
class _Operation:
    """Something on a stream: work, or a wait for a point (stream, number) of another."""

    work: Callable[[], None] | None = None
    after: tuple[StreamName, int] | None = None
    touches: tuple[int, ...] = ()


@dataclass
class _Shadow:
    """Who touched a buffer last, as (agent, its time)."""

    name: str
    memory: Tensor
    written: tuple[str, int] | None = None
    read: dict[str, int] = field(default_factory=dict)
    pending: int = 0


class SimulatedDevice:
    """A `Backend`. `races` says what nothing ordered; `refuse(work, reads)` makes a computation run out of memory;
    `inject[(stage, n)]` is raised at the n-th (from 0) upload, compute, download, pack or copy of this device."""

    name = "simulated"
    device = torch.device("cpu")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.eagerness = self.random.choice([0.0, 0.0, 0.2, 0.9])
        self.races: list[str] = []
        self.inject: dict[tuple[str, int], BaseException] = {}
        self.inject_late: dict[tuple[str, int], BaseException] = {}
        self.refuse: Callable[[Work, Tensors], bool] = lambda work, reads: False
        self.stalled = threading.Event()
        self.stalled.set()  # clear it to hold every thread that waits for an event
        self.calls: Counter[str] = Counter()
        self.released = 0
        self._clocks: dict[str, VectorClock] = {}
        self._queues: dict[StreamName, deque[_Operation]] = {name: deque() for name in STREAMS}
        self._issued: Counter[StreamName] = Counter()
        self._done: Counter[StreamName] = Counter()
        self._shadows: dict[int, _Shadow] = {}
        self._lock = threading.RLock()
        self._acting: str | None = None
        self._broken: BaseException | None = None

    # What the pipeline asks for.

    def bind(self) -> None: ...

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._buffer("pinned", shape, dtype)

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._buffer("device", shape, dtype)

    def host_view(self, buffer: Tensor, *, write: bool) -> Rows:
        with self._lock:
            self._count("pack" if write else "copy")
            self._check(self._agent(), (() if write else (buffer,)), ((buffer,) if write else ()))
            self._run_some()
            return buffer.numpy()

    def run(self, stream: StreamName, work: Work, reads: Tensors, writes: Tensors) -> None:
        with self._lock:
            late = self.inject_late.get((stream, self.calls[stream]))
            self._count(stream)
            if stream == "compute" and self.refuse(work, reads):
                raise torch.OutOfMemoryError("simulated")
            self._clock(stream).update_from(self._clock(self._agent()))
            self._check(stream, reads, writes)
            touched = tuple(filter(None, (self._key(t) for t in reads + writes)))
            self._poison(writes)
            for key in touched:
                self._shadows[key].pending += 1
            self._put(stream, _Operation(work=lambda: self._perform(work, reads, writes, late), touches=touched))
            self._run_some()

    def synchronize(self) -> None:
        with self._lock:
            for stream in STREAMS:
                self._run_until(stream, self._issued[stream])
                self._clock(self._agent()).update_from(self._clock(stream))

    def release_memory(self) -> None:
        self.released += 1
        self.synchronize()

    # What tests ask for.

    @contextmanager
    def acting(self, agent: str) -> Iterator[None]:
        """Count the calling thread as another host thread, for a driver that plays them all."""
        self._acting, before = agent, self._acting
        try:
            yield
        finally:
            self._acting = before

    def agent_clock(self) -> VectorClock:
        with self._lock:
            return self._clock(self._agent()).copy()

    def join_agent(self, clock: VectorClock) -> None:
        with self._lock:
            self._clock(self._agent()).update_from(clock)

    # Streams.

    def _put(self, stream: StreamName, operation: _Operation) -> None:
        self._queues[stream].append(operation)
        self._issued[stream] += 1

    def _perform(self, work: Work, reads: Tensors, writes: Tensors, late: BaseException | None) -> None:
        if late is not None:
            self._broken = late
        if self._broken is None:  # a broken device does nothing any more
            with torch.inference_mode():
                work(*reads, *writes)

    def _run_some(self) -> None:
        while self.random.random() < self.eagerness and self._run_one():
            pass

    def _run_until(self, stream: StreamName, number: int) -> None:
        while self._done[stream] < number:
            assert self._run_one(), f"deadlock: nothing can run, {stream} is at {self._done[stream]} of {number}"
        if self._broken is not None:
            raise self._broken

    def _run_one(self) -> bool:
        ready = [s for s in STREAMS if self._queues[s] and self._is_ready(self._queues[s][0])]
        if not ready:
            return False
        stream = self.random.choice(ready)
        operation = self._queues[stream].popleft()
        if operation.work is not None:
            operation.work()
        for key in operation.touches:
            self._shadows[key].pending -= 1
        self._done[stream] += 1
        return True

    def _is_ready(self, operation: _Operation) -> bool:
        return operation.after is None or self._done[operation.after[0]] >= operation.after[1]

    # Clocks and buffers.

    def _agent(self) -> str:
        return self._acting or threading.current_thread().name

    def _clock(self, agent: str) -> VectorClock:
        return self._clocks.setdefault(agent, VectorClock())

    def _count(self, stage: str) -> None:
        number = self.calls[stage]
        self.calls[stage] += 1
        if (error := self.inject.get((stage, number))) is not None:
            raise error

    def _buffer(self, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        buffer = torch.empty(shape, dtype=dtype)
        if (key := self._key(buffer)) is not None:
            buffer.view(torch.uint8).fill_(POISON)
            self._shadows[key] = _Shadow(f"{kind} buffer {len(self._shadows)} {tuple(shape)}", buffer)
        return buffer

    @staticmethod
    def _key(tensor: Tensor) -> int | None:
        return tensor.untyped_storage().data_ptr() or None

    def _poison(self, writes: Tensors) -> None:
        for tensor in writes:
            key = self._key(tensor)
            if key is not None and self._shadows[key].pending == 0:
                tensor.view(torch.uint8).fill_(POISON)

    def _check(self, agent: str, reads: Tensors, writes: Tensors) -> None:
        clock = self._clock(agent)
        clock[agent] += 1
        for tensor in reads + writes:
            if (key := self._key(tensor)) is not None:
                self._check_one(self._shadows[key], agent, clock, any(tensor is w for w in writes))

    def _check_one(self, shadow: _Shadow, agent: str, clock: VectorClock, writing: bool) -> None:
        earlier = [shadow.written] if shadow.written else []
        earlier += list(shadow.read.items()) if writing else []
        for other, time in earlier:
            if clock[other] < time:
                self.races.append(f"{agent} {'writes' if writing else 'reads'} {shadow.name}, unordered with {other}")
        if writing:
            shadow.written, shadow.read = (agent, clock[agent]), {}
        else:
            shadow.read[agent] = clock[agent]


class SimulatedEvent:
    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._point: tuple[StreamName, int] | None = None
        self._clock = VectorClock()

    def record(self, stream: StreamName) -> None:
        with self._device._lock:
            self._point = (stream, self._device._issued[stream])
            self._clock = self._device._clock(stream).copy()

    def block(self, stream: StreamName) -> None:
        with self._device._lock:
            if self._point is not None:
                self._device._put(stream, _Operation(after=self._point))
                self._device._clock(stream).update_from(self._clock)

    def synchronize(self) -> None:
        self._device.stalled.wait()
        with self._device._lock:
            if self._point is not None:
                self._device._run_until(*self._point)
                self._device._clock(self._device._agent()).update_from(self._clock)


class TracedChannel[T](Channel[T]):
    """A channel that tells a simulated device which host thread learned of what through it."""

    def __init__(self, hub: Hub, device: SimulatedDevice) -> None:
        super().__init__(hub)
        self._device = device
        self._known: deque[VectorClock] = deque()

    def put(self, item: T) -> None:
        with self._hub.changed:
            self._known.append(self._device.agent_clock())
            super().put(item)

    def take(self) -> T:
        with self._hub.changed:
            item = super().take()
            self._device.join_agent(self._known.popleft())
            return item
