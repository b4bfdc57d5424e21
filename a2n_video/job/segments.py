"""Write a video as segments that are each whole on the disk and known to the journal, and find those that still stand later."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from a2n_video.errors import EncodeError
from a2n_video.io.backends import open_writer
from a2n_video.io.mux.joining import header_sha256, scan_segment
from a2n_video.io.outfile import OutFile, rename, sha256_of
from a2n_video.io.reader import Damage
from a2n_video.io.writer import EncoderSettings
from a2n_video.job.journal import Journal, SegmentRecord

if TYPE_CHECKING:
    import av

_WORK_S: Final = 120
_SHORTEST, _LONGEST = 24, 300

DamageWithin = Callable[[int | None, int | None], Damage]


def segment_length(seconds_per_frame: float) -> int:
    """Frames of a segment: about two minutes of work, 24 to 300."""
    return bounded_length(int(_WORK_S / max(seconds_per_frame, 1e-6)))


def bounded_length(frames: int) -> int:
    """The nearest number of frames a segment may have, 24 to 300."""
    return max(_SHORTEST, min(_LONGEST, frames))


def no_damage(start_pts: int | None, end_pts: int | None) -> Damage:
    """The damage of a source that has none."""
    return Damage()


class SegmentedWriter:
    """Frames into segments, rolling over to a new file at each mark; used from one thread.

    Segment n holds the frames with marks[n-1] <= pts < marks[n]. A segment is encoded and muxed on its own (closed GOPs, absolute pts),
    fsynced, renamed and entered in the journal before the next begins. `damage_within(start_pts, end_pts)` tells what went wrong in a
    stretch. `close` ends the last segment at `end_number` (exclusive), `abort` drops the open one: a short file would look whole.
    """

    def __init__(
        self,
        folder: Path,
        settings: EncoderSettings,
        marks: Sequence[int],
        journal: Journal,
        *,
        first_number: int = 0,
        end_number: int | None = None,
        damage_within: DamageWithin = no_damage,
    ) -> None:
        self.folder, self.settings, self.marks, self.journal = folder, settings, marks, journal
        self.frames = 0
        self._number = first_number
        self._end_number = end_number
        self._damage_within = damage_within
        self._open: _OpenSegment | None = None

    def write(self, frame: av.VideoFrame) -> None:
        """Encode a frame into the segment its pts belongs to; pts rise. EncodeError or OutputError where that fails."""
        assert frame.pts is not None
        wanted = (self.settings.width, self.settings.height, self.settings.pix_fmt)
        if (came := (frame.width, frame.height, frame.format.name)) != wanted:  # FFmpeg would scale it without a word
            raise EncodeError(f"a frame of {came} came where {wanted} are encoded (pts {frame.pts}); please report this")
        self._reach(bisect_right(self.marks, frame.pts))
        if self._open is None:
            self._open = _OpenSegment(self.folder / f"{self._number:06d}.{self.settings.container}", self.settings)
        self._open.write(frame)
        self.frames += 1

    def set_marks(self, marks: Sequence[int]) -> None:
        """Settle the marks after the first frames, all of which must lie before the first mark; nothing was entered until then."""
        self.marks = marks
        self._end_number = None

    def _reach(self, number: int) -> None:
        """End every segment before `number`."""
        while self._number < number:
            self._end_segment()
            self._number += 1

    def _end_segment(self) -> None:
        start, end = bounds(self.marks, self._number)
        met = self._damage_within(start, end)
        values = {"errors": met.errors, "repeated": met.repeated, "first_error": met.first}
        record = SegmentRecord(number=self._number, start_pts=start, frames=0, **values)  # type: ignore[arg-type]
        if self._open is not None:
            record = self._open.finish(record)
            self._open = None
            self._check_alike(record)
        self.journal.add_segment(record)

    def _check_alike(self, record: SegmentRecord) -> None:
        """EncodeError for a segment that cannot be joined to those before it, now and not at the end of the job."""
        if (other := unlike(record, self.journal.segments.values())) is not None:
            raise EncodeError(
                f"{self.folder / record.file}: its decoder header differs from {other}'s, they cannot be joined: another build of the "
                "encoder made that one; run again with that build, or with --restart"
            )

    def close(self) -> None:
        """End the open segment and, as nothing more comes, all that were to follow it."""
        self._reach(len(self.marks) + 1 if self._end_number is None else self._end_number)

    def abort(self) -> None:
        """Drop the open segment; finished ones stand."""
        if self._open is not None:
            self._open.abort()
            self._open = None

    def disown(self) -> None:
        """Give up the open segment from another thread, where the writer's own does not come back: what that still does reaches nothing."""
        if (segment := self._open) is not None:
            segment.file.disown()
            segment.writer.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        self.abort()


class _OpenSegment:
    """One segment under its working name."""

    def __init__(self, path: Path, settings: EncoderSettings) -> None:
        self.path = path
        self.frames = 0
        self.first_pts: int | None = None
        self.last_pts: int | None = None
        self.file = OutFile(path.with_suffix(".part"), "segment")
        try:
            with self.file.muxing():
                self.writer = open_writer(self.file, settings)  # type: ignore[arg-type]
        except BaseException:
            self.file.discard()
            raise

    def write(self, frame: av.VideoFrame) -> None:
        try:
            with self.file.muxing():
                self.writer.write(frame)
        except EncodeError:
            self.file.check()  # a full disk is what it is, not an encoder that refuses
            raise
        self.frames += 1
        self.first_pts = frame.pts if self.first_pts is None else self.first_pts
        self.last_pts = frame.pts

    def finish(self, record: SegmentRecord) -> SegmentRecord:
        """Close, fsync and rename; the record of what is now on the disk."""
        try:
            with self.file.muxing():
                self.writer.close()
            digest = self.file.finish()
        except BaseException as error:
            self.abort()
            if isinstance(error, EncodeError):
                self.file.check()
            raise
        rename(self.file.path, self.path, "segment")
        values = {"frames": self.frames, "first_pts": self.first_pts, "last_pts": self.last_pts, "header": header_sha256(self.path)}
        return SegmentRecord(
            **{**vars(record), **values, "file": self.path.name, "size": self.file.size, "sha256": digest},
        )

    def abort(self) -> None:
        self.writer.abort()
        self.file.discard()


def bounds(marks: Sequence[int], number: int) -> tuple[int | None, int | None]:
    """[start, end) of a segment in settled pts; None where it is open."""
    return (marks[number - 1] if number else None), (marks[number] if number < len(marks) else None)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive segments that are still to be made, and the settled pts they lie between (None: the very start, the very end)."""

    first_number: int
    end_number: int
    start_pts: int | None
    end_pts: int | None


def missing_stretches(marks: Sequence[int], standing: Mapping[int, SegmentRecord]) -> list[Stretch]:
    """What is to be made, in order."""
    missing = [number for number in range(len(marks) + 1) if number not in standing]
    stretches: list[Stretch] = []
    for number in missing:
        start, end = bounds(marks, number)
        if stretches and stretches[-1].end_number == number:
            last = stretches.pop()
            number, start = last.first_number, last.start_pts
            stretches.append(Stretch(first_number=number, end_number=last.end_number + 1, start_pts=start, end_pts=end))
        else:
            stretches.append(Stretch(first_number=number, end_number=number + 1, start_pts=start, end_pts=end))
    return stretches


def standing_segments(folder: Path, segments: Mapping[int, SegmentRecord], time_base: Fraction) -> dict[int, SegmentRecord]:
    """The recorded segments that are what the journal says: there, with its size, sha256, frames and times."""
    return {number: record for number, record in segments.items() if stands(folder, record, time_base)}


def stands(folder: Path, record: SegmentRecord, time_base: Fraction) -> bool:
    """Whether one recorded segment is whole."""
    if not record.frames:
        return True
    path = folder / record.file
    try:
        if path.stat().st_size != record.size or sha256_of(path) != record.sha256:
            return False
        scan = scan_segment(path, time_base)
    except (OSError, EncodeError):
        return False
    return len(scan.pts) == record.frames and scan.has(0, record.first_pts) and scan.has(-1, record.last_pts)


def unlike(record: SegmentRecord, others: Iterable[SegmentRecord]) -> str | None:
    """The file of one of the others whose decoder header is another than this one's, None where all can be joined."""
    return next((other.file for other in others if record.header and other.header and other.header != record.header), None)


def segment_files(folder: Path, segments: Mapping[int, SegmentRecord]) -> tuple[Path, ...]:
    """The files to join, in order."""
    return tuple(folder / segments[number].file for number in sorted(segments) if segments[number].frames)
