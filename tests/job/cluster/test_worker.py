"""A worker that is sent a part of the source makes what one makes that sees all of it, whatever is done to frames and to time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video.io.mux.shipping import needed_of_source
from a2n_video.job.cluster.distributed import part_of_source
from a2n_video.job.cluster.worker import SegmentWorker, Setup
from a2n_video.job.directory import JobDirectory
from a2n_video.job.planning.plan import JobPlan, prepare
from a2n_video.job.resume import job_record, with_threads
from a2n_video.job.segments import Stretch, bounds
from a2n_video.options import JobOptions
from tests.made import make_source

FRAMES = 640  # 25.6 seconds: with --start of one second, a reader seeks to the last segment


class NoTally:
    """Hears how far a worker is."""

    class add:
        @staticmethod
        def remote(*_: Any) -> None: ...


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shipped") / "in.mkv"
    # Without B-frames, whose decoding order would send the next frame along.
    return make_source(path, pts=[40 * number for number in range(FRAMES)], time_base=Fraction(1, 1000), codec="mpeg4", audio=())


def settled(source: Path, dest: Path, segment_frames: int, changes: dict[str, Any]) -> JobPlan:
    options = JobOptions().with_changes(model="nearest", codec="ffv1", segment_frames=segment_frames, **changes)
    plan = with_threads(prepare(source, dest, options))
    return replace(plan, execution=replace(plan.execution, segment_frames=segment_frames))


def made(plan: JobPlan, marks: tuple[int, ...], number: int, *, ship: bool) -> tuple[Any, ...]:
    start, end = bounds(marks, number)
    worker = SegmentWorker(0, Setup(plan=plan, job=replace(job_record(plan), marks=marks), ship=ship), NoTally)
    stretch = Stretch(first_number=number, end_number=number + 1, start_pts=start, end_pts=end)
    record = worker.make(stretch, part_of_source(plan, start, end) if ship else None).record
    return record.frames, record.first_pts, record.last_pts, record.sha256


@pytest.mark.parametrize("start", [None, Fraction(1)], ids=["whole", "start"])
@pytest.mark.parametrize("mode", ["off", "frame", "field", "ivtc", "auto"])
def test_a_shipped_part_makes_the_same_segment(source: Path, tmp_path: Path, mode: str, start: Fraction | None) -> None:
    """Byte for byte: filters look at frames beyond the segment's last, fields halve the tick, --start moves the clock."""
    length = 467 if mode == "field" else 233  # odd: between the two fields of a frame, within a cycle
    plan = settled(source, tmp_path / "out.mkv", length, {"deinterlace": mode, "start": start})
    marks = plan.time_map.marks(length)
    with JobDirectory(plan.dest):
        for number in range(len(marks) + 1):
            whole = made(plan, marks, number, ship=False)
            due = plan.time_map.times_of(*bounds(marks, number))
            assert whole[:3] == (len(due), due[0], due[-1]), "else it would be decoded anew, to see whether it is right"
            assert made(plan, marks, number, ship=True) == whole


def test_a_worker_with_another_ffmpeg_takes_no_part(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = settled(source, tmp_path / "out.mkv", 300, {})
    plan = replace(plan, encoder=replace(plan.encoder, backend="ffmpeg"))
    monkeypatch.setattr("a2n_video.io.ffmpeg_writer.version", lambda: "8.0")
    worker = SegmentWorker(0, Setup(plan=plan, job=job_record(plan), ship=True), NoTally)
    assert worker.differences() == []
    monkeypatch.setattr("a2n_video.io.ffmpeg_writer.version", lambda: "7.1")
    assert worker.differences() == ["ffmpeg 7.1 there, 8.0 here"]


def test_no_more_is_shipped_than_a_segment_needs(source: Path, tmp_path: Path) -> None:
    """Neither what lies before --start (but for the preroll), nor what lies after --frames."""
    plan = settled(source, tmp_path / "out.mkv", 5, {"deinterlace": "off", "start": Fraction(15), "frames": 10})
    assert needed_of_source(plan.time_map, plan.source_map, "off", None, None) == (15000, 15400)
    assert needed_of_source(plan.time_map, plan.source_map, "all", 200, None) == (15200, 15480)
    assert len(part_of_source(plan, None, None)) < 0.7 * source.stat().st_size


def test_fields_count_in_half_ticks(source: Path, tmp_path: Path) -> None:
    plan = settled(source, tmp_path / "out.mkv", 5, {"deinterlace": "field"})
    times = plan.time_map.times
    # From the second field of frame 2 to the first field of frame 5, which needs frame 5, and two to look at.
    assert needed_of_source(plan.time_map, plan.source_map, "field", times[5], times[11]) == (100, 40 * 8)
    assert needed_of_source(plan.time_map, plan.source_map, "field", times[-2], None) == (40 * (FRAMES - 1), None)
