"""Whether finished segments hold what the source gives. The index only estimates that: where they differ, the source is decoded anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from a2n_video.errors import InputError, OutputError, VerificationError
from a2n_video.io.reader import VideoReader
from a2n_video.io.sandbox import Limits, limited, memory_for
from a2n_video.job.journal import SegmentRecord
from a2n_video.job.planning.plan import JobPlan
from a2n_video.job.segments import bounds

_ENOUGH: Final = 3  # stretches decoded anew that were right, after which packets are known not to be frames in this source


@dataclass(frozen=True, kw_only=True)
class Count:
    """The frames of a stretch: how many, and the settled pts of the first and the last."""

    frames: int
    first_pts: int | None = None
    last_pts: int | None = None

    @classmethod
    def of(cls, record: SegmentRecord) -> Count:
        return cls(frames=record.frames, first_pts=record.first_pts, last_pts=record.last_pts)

    def words(self, time_base: Fraction) -> str:
        """Such as `10 frames from 1.200 to 1.560 s`."""
        if self.first_pts is None or self.last_pts is None:
            return f"{self.frames} frames"
        return f"{self.frames} frames from {float(self.first_pts * time_base):.3f} to {float(self.last_pts * time_base):.3f} s"


class Recount:
    """Asks the source about segments whose frames differ from the index's packets in number or time, without decode errors to tell why.

    In a child process, for whoever asks must not hang there. The first few are asked about: where these are right, so is the rest.
    """

    def __init__(self, plan: JobPlan) -> None:
        self._plan = plan
        self._right = 0

    def unexplained(self, record: SegmentRecord, start_pts: int | None, end_pts: int | None) -> int:
        """By how many frames a segment differs from what the index has, 0 where its decode errors explain it.

        One that begins or ends at another time, where the source has times of its own, differs by one at least.
        """
        if record.errors:
            return 0
        due = self._plan.time_map.times_of(start_pts, end_pts)
        moved = self._plan.time_map.pts_trusted and bool(due) and (record.first_pts, record.last_pts) != (due[0], due[-1])
        return max(abs(record.frames - len(due)), int(moved))

    def fault(self, record: SegmentRecord, start_pts: int | None, end_pts: int | None) -> str | None:
        """What is wrong with a segment, in words; None where it is as the source is, or nothing can be told."""
        if self._right >= _ENOUGH or not self.unexplained(record, start_pts, end_pts):
            return None
        found = self._found(start_pts, end_pts)
        if found is None:
            return None
        if found == Count.of(record):
            self._right += 1
            return None
        made = Count.of(record)
        if made.frames == found.frames:
            base = self._plan.time_map.time_base
            return f"holds {made.words(base)} where the source gives {found.words(base)}"
        return f"holds {made.frames} frames where the source gives {found.frames}"

    def _found(self, start_pts: int | None, end_pts: int | None) -> Count | None:
        plan = self._plan
        arguments = {"info": plan.info, "time_map": plan.time_map, "source_map": plan.source_map, "deinterlace": plan.interlace}
        try:
            limits = Limits(memory_bytes=memory_for(plan.info.width * plan.info.height))
            return limited(limits, _counted, plan.source, arguments, start_pts, end_pts)
        except InputError:  # it was decoded once, so this says nothing about the segment
            return None


def _counted(source: Path, arguments: Mapping[str, Any], start_pts: int | None, end_pts: int | None) -> Count | None:
    """The frames in [start, end), None where there are decode errors."""
    frames, first, last = 0, None, None
    with VideoReader(source, start_pts=start_pts, **arguments) as reader:
        for frame in reader:
            if end_pts is not None and frame.pts is not None and frame.pts >= end_pts:
                break
            frames, first, last = frames + 1, frame.pts if first is None else first, frame.pts
        return None if reader.damage.between(start_pts, end_pts) else Count(frames=frames, first_pts=first, last_pts=last)


def check_complete(plan: JobPlan, marks: Sequence[int], segments: Mapping[int, SegmentRecord]) -> None:
    """All segments are there, and none lacks frames without decode errors: the result's times are taken from them, so nothing else tells.

    OutputError where one is not in the journal, VerificationError where the source gives other frames.
    """
    missing = [number for number in range(len(marks) + 1) if number not in segments]
    if missing:
        raise OutputError(f"{plan.dest}: segment {missing[0]} of {len(marks) + 1} was not made; run the same command again")
    recount = Recount(plan)
    doubted = sorted(segments.values(), key=lambda record: -recount.unexplained(record, *bounds(marks, record.number)))
    for record in doubted[:_ENOUGH]:
        if (fault := recount.fault(record, *bounds(marks, record.number))) is not None:
            raise VerificationError(f"{plan.dest}: segment {record.number} {fault}; nothing was put in place, run again with --restart")
