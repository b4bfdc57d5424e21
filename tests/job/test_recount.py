"""Segments that hold other frames than the source gives are found out, and sources whose packets are not frames are let alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video import upscale_video
from a2n_video.errors import OutputError, VerificationError, exit_code
from a2n_video.io.reader import Damage
from a2n_video.job import recount
from a2n_video.job.cluster.distributed import DistributedMaker
from a2n_video.job.cluster.worker import Made
from a2n_video.job.directory import JobDirectory
from a2n_video.job.encode import SegmentMaker
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.planning.plan import JobPlan, prepare
from a2n_video.job.recount import Recount, check_complete
from a2n_video.job.run import run
from a2n_video.job.stops import Stops
from a2n_video.options import JobOptions
from tests.made import make_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("recount") / "in.mkv", pts=[40 * n for n in range(30)], time_base=Fraction(1, 1000))


def options(**changes: Any) -> JobOptions:
    return JobOptions().with_changes(**{"model": "nearest", "codec": "ffv1", "segment_frames": 10, **changes})


def plan_of(source: Path, dest: Path, **changes: Any) -> JobPlan:
    return prepare(source, dest, options(**changes))


def record(number: int, frames: int, **changes: Any) -> SegmentRecord:
    first, last = (400 * number, 400 * number + 40 * (frames - 1)) if frames else (None, None)
    return SegmentRecord(number=number, start_pts=400 * number, frames=frames, first_pts=first, last_pts=last, **changes)


class Losing(SegmentMaker):
    """A maker that enters its second segment as one in which no frame came."""

    def make(self, *arguments: Any) -> None:
        super().make(*arguments)
        self.journal.add_segment(SegmentRecord(number=1, start_pts=400, frames=0))


class Skipping(SegmentMaker):
    """A maker that never enters its second segment."""

    def make(self, *arguments: Any) -> None:
        super().make(*arguments)
        del self.journal.segments[1]


@pytest.mark.parametrize(
    ("maker", "error", "words", "code"),
    [
        (Losing, VerificationError, "segment 1 holds 0 frames where the source gives 10", 7),
        (Skipping, OutputError, "segment 1 of 3 was not made", 5),
    ],
)
def test_a_job_that_lost_a_segment_ends_in_an_error(
    source: Path, tmp_path: Path, maker: type[SegmentMaker], error: type[Exception], words: str, code: int
) -> None:
    with pytest.raises(error, match=words) as caught:
        run(plan_of(source, tmp_path / "out.mkv"), make=lambda plan, folder, *more: maker(plan, folder.path, *more))
    assert exit_code(caught.value) == code
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ({"first_pts": 440}, "0.440 to 0.760"),
        ({"last_pts": 759}, "0.400 to 0.759"),
        ({"first_pts": 440, "last_pts": 800}, "0.440 to 0.800"),
    ],
)
def test_as_many_frames_at_other_times_are_found_out(changes: dict[str, int], made: str, source: Path, tmp_path: Path) -> None:
    """As a part of a transport stream gave them, which began too late for the cycle that ivtc looks at."""
    plan = plan_of(source, tmp_path / "out.mkv")
    off = replace(record(1, 10), **changes)
    due = "where the source gives 10 frames from 0.400 to 0.760 s"
    assert Recount(plan).fault(off, 400, 800) == f"holds 10 frames from {made} s {due}"
    with pytest.raises(VerificationError, match="segment 1 holds 10 frames from"):
        check_complete(plan, (400, 800), {0: record(0, 10), 1: off, 2: record(2, 10)})


def test_times_that_are_only_counted_raise_no_doubt(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(source, tmp_path / "out.mkv")
    monkeypatch.setattr(recount, "limited", None)
    counted = replace(plan, time_map=replace(plan.time_map, pts_trusted=False))
    assert Recount(counted).fault(replace(record(1, 10), first_pts=440), 400, 800) is None


def test_what_decode_errors_explain_is_let_alone(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source, tmp_path / "out.mkv")
    check_complete(plan, (400, 800), {0: record(0, 10), 1: record(1, 0, errors=3), 2: record(2, 10)})


def test_a_source_whose_packets_are_not_all_frames_is_believed_after_a_few_looks(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with two packets a frame: the index then counts twice as many."""
    plan = plan_of(source, tmp_path / "out.mkv")
    times = plan.time_map.times
    doubled = replace(plan, time_map=replace(plan.time_map, times=tuple(sorted([*times, *(time + 20 for time in times)]))))
    asked: list[int | None] = []
    found = Recount._found

    def asking(self: Recount, start_pts: int | None, end_pts: int | None) -> Any:
        asked.append(start_pts)
        return found(self, start_pts, end_pts)

    monkeypatch.setattr(Recount, "_found", asking)
    recounted = Recount(doubled)
    assert [recounted.fault(record(number % 3, 10), 400 * (number % 3), 400 * (number % 3) + 400) for number in range(6)] == [None] * 6
    assert asked == [0, 400, 800]
    assert Recount(doubled).fault(record(1, 9), 400, 800) == "holds 9 frames where the source gives 10"
    check_complete(doubled, (400, 800), {number: record(number, 10) for number in range(3)})


def test_an_ordinary_job_decodes_nothing_anew(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "limited", None)
    assert upscale_video(source, tmp_path / "out.mkv", options()).frames == 30


class NoRay(DistributedMaker):
    """A driver without workers; what it would send is looked at."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._marks = (400, 800)
        self.failures: list[str] = []

    def _lost(self, number: int, worker: int, crew: Any, error: Any = None) -> None:
        self.failures.append(str(error))


@pytest.fixture
def driver(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NoRay]:
    monkeypatch.setattr("a2n_video.job.cluster.distributed.connected", lambda options: None)
    plan = plan_of(source, tmp_path / "out.mkv", ship=True, ray=True)
    with JobDirectory(plan.dest) as folder, Journal.open(folder.journal) as journal:
        yield NoRay(plan, folder, journal, Stops())


def test_a_driver_refuses_a_shipped_segment_that_lacks_frames(driver: NoRay, source: Path) -> None:
    """It is made again from the whole source, and what that gives is taken."""
    driver._board.want([1])
    nobody: Any = None
    assert len(driver._shipped(1) or b"") < source.stat().st_size
    empty = Made(record=record(1, 0), seconds=1.0, frame_s=None, damage=Damage())
    driver._received(1, 7, empty, nobody)
    assert driver.failures == [f"{driver.plan.dest}: segment 1 holds 0 frames where the source gives 10 (worker 7)"]
    assert 1 in driver._board.wanted
    assert driver._shipped(1) == source.read_bytes()
    driver._received(1, 7, empty, nobody)
    assert 1 not in driver._board.wanted


def test_a_driver_refuses_a_segment_that_cannot_be_joined(driver: NoRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker makes it again; not told, all would be made before the join refuses."""
    monkeypatch.setattr("a2n_video.job.cluster.distributed.stands", lambda *_: True)
    driver._board.want([1])
    driver.journal.segments[0] = replace(record(0, 10), file="first.nut", header="a")
    odd = Made(record=replace(record(1, 10), header="b"), seconds=1.0, frame_s=None, damage=Damage())
    nobody: Any = None
    driver._received(1, 7, odd, nobody)
    told = "segment 1 has another decoder header than first.nut: its worker has another build of the encoder (worker 7)"
    assert driver.failures == [f"{driver.plan.dest}: {told}"] and 1 in driver._board.wanted
