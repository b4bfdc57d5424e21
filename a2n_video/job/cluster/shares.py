"""How a job is cut for several workers, by what they were measured to do, and who is to take which segment next. Pure values."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Final

_WORK_S: Final = 120  # of the slowest worker: what a death can cost
_SHORTEST, _PROBE = 8, 24
_ROUNDS: Final = 4  # of short first segments a file must have, at least
_OVERHEAD_SHARE: Final = 4  # a segment's work is at least so many times what it costs beside it
_LEASE_FACTOR: Final = 4  # times the median segment, before another worker is set on it too
_LEASE_LEAST_S: Final = 60.0
_LEASE_FIRST_S: Final = 1800.0  # while no segment has come back yet
_REMEMBERED: Final = 100  # durations, of which the median is taken
_HANGS: Final = 3  # leases after which a worker counts as hung


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one worker was measured to do: frames a second, and the seconds a segment costs beside its frames."""

    fps: float
    overhead_s: float = 0.0


def probe_frames(frames: int, workers: int) -> int:
    """Frames of each worker's first segment, by which it is measured: 24, fewer where the file is short."""
    return max(_SHORTEST, min(_PROBE, frames // (_ROUNDS * workers)))


def lengths(frames: int, paces: Sequence[Pace], longest: int | None = None) -> Iterator[int]:
    """Frames of the segments that `frames` more are cut into, so that workers of these paces end together whoever takes which.

    They come in rounds of equal ones, each round half of what is left (Hummel, Schonberg, Flynn 1992, "Factoring"); a round has as many
    as there would be workers if all were as slow as the slowest, which so never holds more than its share of the rest. At most two
    minutes of the slowest worker's work and `longest`, at least four times a segment's overhead, and 8 frames.
    """
    slowest = min(pace.fps for pace in paces)
    workers = max(1, round(sum(pace.fps for pace in paces) / slowest))
    most = max(_SHORTEST, int(_WORK_S * slowest))
    most = most if longest is None else min(most, longest)
    worth = ceil(_OVERHEAD_SHARE * median(pace.overhead_s for pace in paces) * slowest)
    least = min(most, max(_SHORTEST, worth))
    while (length := min(most, frames // (2 * workers))) >= least:
        yield from [length] * workers
        frames -= length * workers
    if frames > 0:
        count = max(1, min(workers, frames // least), ceil(frames / most))
        yield from (frames // count + (i < frames % count) for i in range(count))


def cut(times: Sequence[int], first: Sequence[int], parts: Iterable[int]) -> tuple[int, ...]:
    """Marks: `first`, the settled ones, then at the ends of `parts` (frames each, from the last of `first` on)."""
    place = times.index(first[-1]) if first else 0
    marks = list(first)
    for part in parts:
        place += part
        if place < len(times):
            marks.append(times[place])
    return tuple(marks)


@dataclass
class Task:
    """A segment under way at one worker."""

    number: int
    since: float


@dataclass(frozen=True)
class Failure:
    """A lost attempt at a segment: whose, and whether an error of the source was met, not one of the worker, its machine or its disk."""

    worker: int
    of_source: bool


@dataclass
class Board:
    """Which segments are wanted, who works on what, and who failed at what. Times are those of `clock`.

    A segment goes first to workers that have not failed at it: a machine that fails fast would else take every retry.
    """

    lease_s: float | None = None  # None: by what segments take
    clock: Callable[[], float] = time.monotonic
    wanted: set[int] = field(default_factory=set)
    under_way: dict[int, Task] = field(default_factory=dict)  # by worker
    failures: dict[int, list[Failure]] = field(default_factory=dict)  # by segment
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _waiting: deque[int] = field(default_factory=deque)

    def want(self, numbers: Iterable[int]) -> None:
        """Add segments, to be made in this order; one named twice is made twice."""
        for number in numbers:
            self._waiting.append(number)
            self.wanted.add(number)

    def take(self, worker: int, crew: Collection[int]) -> int | None:
        """The segment an idle worker shall make now, entered as under way; None: nothing for it. `crew`: all workers there are."""
        while self._waiting and self._waiting[0] not in self.wanted:
            self._waiting.popleft()
        number = next((n for n in self._waiting if n in self.wanted and self._may(worker, n, crew)), None)
        if number is not None:
            self._waiting.remove(number)
        elif (number := self._overdue(worker)) is None:
            return None
        self.under_way[worker] = Task(number, self.clock())
        return number

    def _may(self, worker: int, number: int, crew: Collection[int]) -> bool:
        failed = self._failed_at(number)
        return worker not in failed or not any(other not in failed for other in crew if other not in self.hung())

    def _overdue(self, worker: int) -> int | None:
        """A segment that one worker alone has held for longer than its lease."""
        lease, held = self.lease, [task.number for task in self.under_way.values()]
        for task in self.under_way.values():
            late, lonely = self.clock() - task.since > lease, held.count(task.number) == 1
            if late and lonely and task.number in self.wanted and worker not in self._failed_at(task.number):
                return task.number
        return None

    def _failed_at(self, number: int) -> set[int]:
        return {failure.worker for failure in self.failures.get(number, ())}

    @property
    def lease(self) -> float:
        """Seconds a worker may hold a segment before another is set on it too."""
        if self.lease_s is not None:
            return self.lease_s
        return max(_LEASE_LEAST_S, _LEASE_FACTOR * median(self.durations)) if self.durations else _LEASE_FIRST_S

    def hung(self) -> list[int]:
        """Workers that have held a segment for three leases."""
        longest = _HANGS * self.lease
        return [worker for worker, task in self.under_way.items() if self.clock() - task.since > longest]

    def returned(self, worker: int) -> int:
        """A worker has come back, with or without its segment, whose number this is."""
        return self.under_way.pop(worker).number

    def done(self, number: int, seconds: float) -> None:
        """A segment stands."""
        self.wanted.discard(number)
        self.durations.append(seconds)

    def failed(self, number: int, worker: int, *, of_source: bool = False) -> list[Failure]:
        """An attempt was lost; the segment waits again, before all others. All failures at it so far, this one last."""
        failures = self.failures.setdefault(number, [])
        failures.append(Failure(worker, of_source))
        if number in self.wanted and number not in self._waiting:
            self._waiting.appendleft(number)
        return failures
