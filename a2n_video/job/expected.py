"""What a finished result must be: what the run read, planned and encoded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from a2n_video.io.mux.joining import scan_segment
from a2n_video.job.planning.plan import JobPlan
from a2n_video.media.final import FinalFile
from a2n_video.media.index import Window, placed
from a2n_video.media.tags import tag_of


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the result must be: what the run planned (`final`) and encoded. Everything else is read anew from the source and the result.

    `times` are the settled pts of all frames in units of `final.time_map.time_base`, `encoded` their number as the encoder was given
    them. `left`: a result that is not right stays where it is, and is not removed with its folder.
    """

    final: FinalFile
    times: Sequence[int]
    encoded: int
    left: bool = True
    refused: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # damaged packets that no container takes, by stream and place
    moved: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # damaged times, which no container takes, likewise
    undecoded: Mapping[int, int] = field(default_factory=dict)  # packets of converted streams that could not be decoded, by stream


def encoded_times(segments: Sequence[Path], time_base: Fraction) -> array[int]:
    """The pts of all frames in finished segments, in units of `time_base`, in order."""
    return array("q", (time for path in segments for time in scan_segment(path, time_base).pts))


def expect(plan: JobPlan, times: Sequence[int], encoded: int | None = None) -> Expected:
    """What a job's result must be: `times` are the settled pts of its segments' frames, `encoded` how many the encoder was given."""
    # A job into a pipe has its folder in one that is removed with it.
    left = plan.options.execution.resume and plan.options.encode.pipe_format == "y4m"
    return Expected(final=plan.final, times=times, encoded=len(times) if encoded is None else encoded, left=left)


class Placing:
    """Where a source packet belongs on the result's clock, and whether it belongs to the result at all; for one reading of the source."""

    def __init__(self, final: FinalFile) -> None:
        self._streams = final.info.streams
        self._window = Window(final.time_map)
        self._time_map = final.time_map
        self._anew = frozenset(fate.index for fate in final.plan.fates if fate.kind == "audio" and fate.fate == "converted")

    def __call__(
        self, time: Fraction, position: int | None, duration: Fraction, index: int, keyframe: bool, hidden: bool
    ) -> Fraction | None:
        stream = self._streams[index]
        if stream.is_cover:
            return time
        if index in self._anew:  # it is cut to the sample: a packet across a cut belongs to the result too, and keeps its time here
            span = None if hidden else placed(self._time_map, time, duration, position, stretches=True)
            return None if span is None else self._time_map.seconds_of(time, position)
        span = self._window.place(stream, time, duration, position, keyframe=keyframe, hidden=hidden)
        return None if span is None else span[0]


def due_chapters(final: FinalFile) -> list[tuple[Fraction, str]]:
    """When each chapter of the result begins, and its name: counted from the source, not by what writes them (`media.chapters`)."""
    times, due = final.time_map, []
    for chapter in final.info.chapters:
        start, end = (time + times.epochs[0].offset + times.shift for time in (chapter.start, chapter.end))
        over = times.begin is not None and end <= times.begin and start < times.begin
        if over or start > end or (times.limit is not None and start >= times.limit):
            continue
        due.append((start if times.begin is None else max(start, times.begin), tag_of(chapter.metadata, "title") or ""))
    return sorted(due, key=lambda chapter: chapter[0])
