"""What becomes of failures when several workers fail at once or one after the other; Ray is a stand-in that does what it is told."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from a2n_video.errors import DecodeError, DeviceError
from a2n_video.io.reader import Damage
from a2n_video.job.cluster import distributed
from a2n_video.job.cluster.crew import Crew
from a2n_video.job.cluster.distributed import DistributedMaker
from a2n_video.job.cluster.worker import Joined, Made, SegmentWorker
from a2n_video.job.directory import JobDirectory
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.planning.plan import prepare
from a2n_video.job.segments import Stretch
from a2n_video.job.stages import left_behind
from a2n_video.job.stops import Stops, Terminated
from a2n_video.options import JobOptions
from tests.made import make_source

LENGTH, SEGMENTS = 10, 3


class RayError(Exception):
    pass


class TaskError(RayError):
    """What a task raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class UnavailableError(RayError):
    """Its process is not there yet."""


class Reference:
    """To an answer, which is raised where it is an exception."""

    def __init__(self, answer: object) -> None:
        self.answer = answer


class StandIn:
    """Ray with actors that answer at once: what `given` holds next for (worker, segment), else the segment; `away` fails so many joins."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=TaskError, ActorUnavailableError=UnavailableError)

    def __init__(self, given: dict[tuple[int, int], list[Exception]], away: dict[int, int] | None = None) -> None:
        self.given, self.away, self.asked = given, away or {}, list[tuple[int, int]]()

    def remote(self, kind: type) -> Any:
        make: Callable[..., Any] = self._actor if issubclass(kind, SegmentWorker) else self._tally
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))

    def _tally(self) -> Any:
        return SimpleNamespace(under_way=SimpleNamespace(remote=lambda: Reference({})))

    def _actor(self, worker: int, setup: object, tally: object) -> Any:
        def make(stretch: Stretch, source: bytes | None) -> object:
            self.asked.append((worker, stretch.first_number))
            left = self.given.get((worker, stretch.first_number))
            return Reference(left.pop(0) if left else made(stretch.first_number))

        def join() -> object:
            if self.asked and self.away.get(worker, 0) > 0:
                self.away[worker] -= 1
                return Reference(UnavailableError("restarting"))
            return Reference(Joined(host="here", refusal=None))

        return SimpleNamespace(make=SimpleNamespace(remote=make), join=SimpleNamespace(remote=join))

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2}

    def put(self, value: object) -> object:
        return value

    def wait(self, references: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        if isinstance(reference.answer, Exception):
            raise reference.answer
        return reference.answer

    def kill(self, actor: object, **_: object) -> None:
        pass


def made(number: int) -> Made:
    start = number * LENGTH
    record = SegmentRecord(number=number, start_pts=start or None, frames=LENGTH, first_pts=start, last_pts=start + LENGTH - 1)
    return Made(record=record, seconds=1.0, frame_s=0.1, damage=Damage())


def crew_of(ray: StandIn, workers: int = 2) -> Crew:
    setup: Any = None
    crew = Crew(ray, [{"num_cpus": 1}] * workers, SegmentWorker, setup)
    crew.wait(0)
    return crew


def broken() -> Exception:
    return TaskError(DecodeError("the source: a packet is broken"))


def died() -> Exception:
    return RayError("the worker died")


def test_tasks_that_fail_at_once_have_each_their_own_error() -> None:
    crew = crew_of(StandIn({(0, 0): [broken()], (1, 1): [died()]}))
    for worker in (0, 1):
        crew.start(worker, Stretch(first_number=worker, end_number=worker + 1, start_pts=None, end_pts=None), None)
    back = dict(crew.wait(0))
    assert isinstance(back[0], DecodeError) and "a packet is broken" in str(back[0])
    assert isinstance(back[1], DeviceError) and "the worker died" in str(back[1])


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DistributedMaker]:
    """The product's driver, whose job of three segments has begun."""
    monkeypatch.setattr(distributed, "connected", lambda options: None)
    monkeypatch.setattr(distributed, "stands", lambda *_: True)
    source = make_source(tmp_path / "in.mkv", pts=range(LENGTH * SEGMENTS), time_base=Fraction(1, 25))
    plan = prepare(source, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec="ffv1", ray=True))
    with JobDirectory(plan.dest) as folder, Journal.open(folder.journal) as journal:
        maker = DistributedMaker(plan, folder, journal, Stops())
        maker._enter((LENGTH, 2 * LENGTH))
        maker._board.want(range(SEGMENTS))
        yield maker


# In each a worker dies and a worker meets an error of the source, once, at the same segment.
ONCE = {
    "the other one": StandIn({(0, 0): [died()], (1, 0): [broken()]}),
    "the other one, the dead one still away": StandIn({(0, 0): [died()], (1, 0): [broken()]}, away={0: 4}),
    "before the other dies": StandIn({(0, 0): [broken()], (1, 0): [died()]}),
    "the same, twice": StandIn({(0, 0): [broken(), broken()], (1, 0): [died()]}),
}


@pytest.mark.parametrize("case", ONCE)
def test_one_workers_error_of_the_source_is_not_believed(driver: DistributedMaker, case: str) -> None:
    driver.collect(crew_of(ONCE[case]), None)
    assert sorted(driver.journal.segments) == [0, 1, 2]


def test_an_error_of_the_source_that_two_workers_meet_is_believed(driver: DistributedMaker) -> None:
    ray = StandIn({(0, 0): [broken()], (1, 0): [broken()]})
    with pytest.raises(DecodeError, match="a packet is broken"):
        driver.collect(crew_of(ray), None)
    assert ray.asked.count((0, 0)) == ray.asked.count((1, 0)) == 1


def test_the_only_worker_is_believed_at_once(driver: DistributedMaker) -> None:
    ray = StandIn({(0, 0): [broken()]})
    with pytest.raises(DecodeError):
        driver.collect(crew_of(ray, workers=1), None)
    assert ray.asked == [(0, 0)]


def test_a_worker_that_stays_away_does_not_keep_the_job_from_its_end(driver: DistributedMaker) -> None:
    ray = StandIn({(0, 0): [died()], (1, 0): [broken() for _ in range(9)]}, away={0: 1000})
    with pytest.raises(DecodeError):
        driver.collect(crew_of(ray), None)
    assert ray.asked.count((1, 0)) == 3


@pytest.mark.parametrize("what", ["stands", "part_of_source"])
def test_a_stop_does_not_wait_while_the_driver_reads(driver: DistributedMaker, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that came back, or the source of which a part is shipped: both may be large, and their disk slow."""
    free, asked = threading.Event(), threading.Event()

    def slow(*_: object) -> bool:
        if not asked.is_set():
            asked.set()
            signal.raise_signal(signal.SIGTERM)
        return free.wait(6)

    monkeypatch.setattr(distributed, what, slow)
    driver._ray, driver.options = StandIn({}), replace(driver.options, ship=what == "part_of_source")
    began = time.monotonic()
    with pytest.raises(Terminated), driver.stops:
        driver.make({}, None)
    assert time.monotonic() - began < 4
    free.set()
    while left_behind():
        time.sleep(0.01)
