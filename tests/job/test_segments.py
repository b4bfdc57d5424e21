"""Segments: rolled over at marks, whole on the disk before they are entered, found again or redone."""

from __future__ import annotations

import dataclasses
import errno
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2n_video.errors import EncodeError, OutputError
from a2n_video.io.faults import listening
from a2n_video.io.mux.joining import open_segment, scan_segment, video_packets
from a2n_video.io.reader import Damage
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.segments import SegmentedWriter, Stretch, missing_stretches, segment_files, segment_length, standing_segments
from tests.made import decoded, frames
from tests.made import settings as encoder

BASE = Fraction(1, 1000)


def raw_times(path: Path) -> list[tuple[int, int]]:
    """(pts, dts) of a segment's packets as they are in the file, in milliseconds."""
    container, stream = open_segment(path)
    with container:
        ms = Fraction(stream.time_base.numerator, stream.time_base.denominator) * 1000
        return [(int(p.pts * ms), int(p.dts * ms)) for p in video_packets(container, stream) if p.dts is not None]  # type: ignore[operator]


PTS = [40 * n for n in range(25)]
MARKS = (200, 400, 800)  # segments of 5, 5, 10 and 5 frames


def write(folder: Path, pts: list[int] = PTS, *, journal: Journal, **changes: int) -> None:
    with SegmentedWriter(folder, encoder("libx264", BASE), MARKS, journal, **changes) as writer:  # type: ignore[arg-type]
        for frame in frames(pts, BASE, first=pts[0] // 40):
            writer.write(frame)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Journal]:
    journal = Journal.open(tmp_path / "j")
    write(tmp_path, journal=journal)
    return tmp_path, journal


def test_frames_go_where_the_marks_say(made: tuple[Path, Journal]) -> None:
    folder, journal = made
    assert [(s.frames, s.start_pts, s.first_pts, s.last_pts) for s in journal.segments.values()] == [
        (5, None, 0, 160),
        (5, 200, 200, 360),
        (10, 400, 400, 760),
        (5, 800, 800, 960),
    ]
    files = segment_files(folder, journal.segments)
    assert [pts * base for file in files for pts, base, _ in decoded(file)] == [time * BASE for time in PTS]
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_segments_of_an_encoder_that_counts_frames_stand(codec: str, tmp_path: Path) -> None:
    """They were recorded by those counts, and made anew by every resumed run."""
    with Journal.open(tmp_path / "j") as journal:
        with SegmentedWriter(tmp_path, encoder(codec, BASE), MARKS, journal) as writer:
            for frame in frames(PTS, BASE):
                writer.write(frame)
        assert [(s.first_pts, s.last_pts) for s in journal.segments.values()] == [(0, 160), (200, 360), (400, 760), (800, 960)]
        assert len(standing_segments(tmp_path, journal.segments, BASE)) == 4


def test_a_stretch_without_frames_is_entered_without_a_file(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        write(tmp_path, PTS[:3] + PTS[22:], journal=journal)
        assert [s.frames for s in journal.segments.values()] == [3, 0, 0, 3]
        assert len(segment_files(tmp_path, journal.segments)) == 2
        assert len(standing_segments(tmp_path, journal.segments, BASE)) == 4


def test_an_error_drops_the_open_segment_and_no_other(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        with pytest.raises(KeyboardInterrupt), SegmentedWriter(tmp_path, encoder("libx264", BASE), MARKS, journal) as writer:
            for frame in frames(PTS[:8], BASE):
                writer.write(frame)
            raise KeyboardInterrupt
        assert list(journal.segments) == [0]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.nut", "j"]


def damage(path: Path, how: str, place: int) -> None:
    data = bytearray(path.read_bytes())
    place %= len(data)
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:place])
    elif how == "longer":
        path.write_bytes(data + b"\0")
    else:
        data[place] ^= 1 + place % 255
        path.write_bytes(data)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 3), how=st.sampled_from(["delete", "cut", "change", "longer"]), place=st.integers(0, 1 << 20))
def test_whatever_happens_to_a_segment_is_found_and_redone(made: tuple[Path, Journal], number: int, how: str, place: int) -> None:
    folder, journal = made
    path = folder / journal.segments[number].file
    whole = path.read_bytes()
    before = decoded(path)
    damage(path, how, place)
    standing = standing_segments(folder, journal.segments, BASE)
    assert sorted(standing) == [n for n in range(4) if n != number]
    [stretch] = missing_stretches(MARKS, standing)
    assert (stretch.first_number, stretch.end_number) == (number, number + 1)
    pts = [t for t in PTS if (stretch.start_pts or 0) <= t < (stretch.end_pts or 10**9)]
    write(folder, pts, journal=journal, first_number=stretch.first_number, end_number=stretch.end_number)
    assert decoded(path) == before
    assert path.read_bytes() == whole
    assert len(standing_segments(folder, journal.segments, BASE)) == 4


def test_a_segment_with_other_frames_is_redone(made: tuple[Path, Journal]) -> None:
    folder, journal = made
    for changes in ({"frames": 4}, {"first_pts": 1}, {"last_pts": 999}):
        record = dataclasses.replace(journal.segments[1], **changes)  # type: ignore[arg-type]
        assert standing_segments(folder, {1: record}, BASE) == {}


def test_missing_stretches() -> None:
    def stretches(*standing: int) -> list[tuple[int, int, int | None, int | None]]:
        found = missing_stretches(MARKS, {n: SegmentRecord(number=n, start_pts=None, frames=0) for n in standing})
        return [(s.first_number, s.end_number, s.start_pts, s.end_pts) for s in found]

    assert stretches() == [(0, 4, None, None)]
    assert stretches(0, 1) == [(2, 4, 400, None)]
    assert stretches(1, 3) == [(0, 1, None, 200), (2, 3, 400, 800)]
    assert stretches(0, 1, 2, 3) == []
    assert missing_stretches((), {}) == [Stretch(first_number=0, end_number=1, start_pts=None, end_pts=None)]


@pytest.mark.parametrize(
    "point", ["segment.write.before", "segment.fsync.before", "segment.close.after", "segment.rename.before", "journal.append.before"]
)
def test_a_full_disk_costs_the_open_segment_only(tmp_path: Path, point: str) -> None:
    with Journal.open(tmp_path / "j") as journal:
        write(tmp_path, PTS[:5], journal=journal, end_number=1)
        first = (tmp_path / "000000.nut").read_bytes()

        def strike(reached: str) -> None:
            if reached == point:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with listening(strike), pytest.raises(OutputError, match="disk is full") as caught:
            write(tmp_path, PTS[5:], journal=journal, first_number=1)
        assert caught.value.errno == errno.ENOSPC
        assert (tmp_path / "000000.nut").read_bytes() == first
        assert not list(tmp_path.glob("*.part")) or point == "segment.rename.before"
        assert list(journal.segments) == [0]
        write(tmp_path, PTS[5:], journal=journal, first_number=1)
        assert len(standing_segments(tmp_path, journal.segments, BASE)) == 4


def test_an_encoder_that_refuses_is_an_encode_error(tmp_path: Path) -> None:
    wrong = dataclasses.replace(encoder("libx264", BASE), options={"preset": "none such"})
    with Journal.open(tmp_path / "j") as journal:
        with pytest.raises(EncodeError), SegmentedWriter(tmp_path, wrong, MARKS, journal) as writer:
            for frame in frames(PTS, BASE):
                writer.write(frame)
        assert journal.segments == {}
    assert [p.name for p in tmp_path.iterdir()] == ["j"]


def test_another_encoders_segment_is_told_when_it_is_entered(tmp_path: Path) -> None:
    """It could not be joined: not told, the job would find that out at its end."""
    other = dataclasses.replace(encoder("libx264", BASE), options={"preset": "veryfast", "level": "5.2"})
    with Journal.open(tmp_path / "j") as journal:
        write(tmp_path, PTS[:5], journal=journal, end_number=1)

        def go_on() -> None:
            with SegmentedWriter(tmp_path, other, MARKS, journal, first_number=1) as writer:
                for frame in frames(PTS[5:], BASE, first=5):
                    writer.write(frame)

        with pytest.raises(EncodeError, match=r"000001\.nut: its decoder header differs from 000000\.nut's"):
            go_on()
        assert list(journal.segments) == [0]
        journal.segments[0] = dataclasses.replace(journal.segments[0], header="")  # of a journal that does not know it
        go_on()
        assert list(journal.segments) == [0, 1, 2, 3]


def test_errors_are_counted_where_their_frames_lie(tmp_path: Path) -> None:
    met = Damage(at=[0, 200, 240, 799], first="packet at pts 0: broken", repeated_at=[240, 280])
    with Journal.open(tmp_path / "j") as journal:
        with SegmentedWriter(tmp_path, encoder("ffv1", BASE), MARKS, journal, damage_within=met.within) as writer:
            for frame in frames(PTS, BASE):
                writer.write(frame)
        assert [s.errors for s in journal.segments.values()] == [1, 2, 1, 0]
        assert [s.repeated for s in journal.segments.values()] == [0, 2, 0, 0]
        assert [s.first_error for s in journal.segments.values()] == ["packet at pts 0: broken", None, None, None]


def test_the_first_error_is_told_without_the_preroll() -> None:
    met = Damage(since=400)
    for pts in (120, 360, 440, 840):
        met.add(pts, f"packet at pts {pts}", "broken")
    assert met.first == "packet at pts 440: broken"
    assert met.within(400, 800) == Damage(at=[440], first="packet at pts 440: broken")
    assert met.within(800, None) == Damage(at=[840])
    assert (met.within(None, 400), met.errors, met.met) == (Damage(), 2, 4)
    met.forget()
    assert met == Damage(since=400)


@pytest.mark.parametrize(("container", "exact"), [("matroska", False), ("nut", True)])
def test_times_stand_as_exactly_as_the_container_says_them(tmp_path: Path, container: str, exact: bool) -> None:
    """Alpha needs Matroska, which rounds to a millisecond: thirty ticks of an NTSC clock."""
    base, pts = Fraction(1, 30_000), [1001 * n for n in range(25)]
    with Journal.open(tmp_path / "j") as journal:
        with SegmentedWriter(tmp_path, encoder("libvpx-vp9", base, container), pts[5::5], journal) as writer:
            for frame in frames(pts, base):
                writer.write(frame)
        assert sorted(standing_segments(tmp_path, journal.segments, base)) == [0, 1, 2, 3, 4]
        for moved, stand in ((1, not exact), (60, False)):
            record = dataclasses.replace(journal.segments[1], first_pts=pts[5] + moved)
            assert bool(standing_segments(tmp_path, {1: record}, base)) == stand


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libsvtav1", "libvpx-vp9", "ffv1"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_segments(tmp_path: Path, codec: str, count: int) -> None:
    """x265 gives one or two frames dts out of unset memory, which a muxer refuses or not."""
    marks = tuple(PTS[count::count])
    for attempt in range(3):
        with Journal.open(tmp_path / f"{attempt}") as journal, SegmentedWriter(tmp_path, encoder(codec, BASE), marks, journal) as writer:
            for frame in frames(PTS[:6], BASE):
                writer.write(frame)
        files = segment_files(tmp_path, journal.segments)
        scans = [scan_segment(path, BASE) for path in files]
        assert [time for scan in scans for time in scan.pts] == PTS[:6]
        assert all(0 <= pts - dts <= 400 for path in files for pts, dts in raw_times(path))


def test_length_of_a_segment() -> None:
    assert [segment_length(s) for s in (0.0, 0.1, 1.0, 2.0, 100.0)] == [300, 300, 120, 60, 24]
