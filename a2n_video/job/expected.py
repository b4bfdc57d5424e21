"""What a finished result must be: what the run read, planned and encoded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from a2n_video.io.joining import scan_segment
from a2n_video.job.plan import JobPlan
from a2n_video.media.final import FinalFile
from a2n_video.media.index import placed


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


@dataclass
class Placing:
    """Where a source packet belongs on the result's clock, and whether it belongs to the result at all."""

    final: FinalFile

    def __call__(self, time: Fraction, position: int | None, duration: Fraction, index: int) -> Fraction | None:
        stream = self.final.info.streams[index]
        if stream.is_cover:
            return time
        span = placed(self.final.time_map, time, duration, position, stretches=stream.kind == "subtitle")
        return None if span is None else span[0]
