"""What a finished result must be: what the run read, planned and encoded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from a2n_video.io.joining import scan_segment
from a2n_video.job.plan import JobPlan
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.index import TimeMap
from a2n_video.media.info import HdrMetadata, VideoInfo
from a2n_video.media.streams import StreamPlan


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the result must be: what the run read, planned and encoded. Everything else is read anew from the source and the result.

    `times` are the settled pts of all frames in units of `time_map.time_base`, `encoded` their number as the encoder was given them.
    `time_map` is cut to the job's window, and `cut_start` and `cut_end` say where that bounds the copied streams. `color`, `sar`,
    `display_matrix` and `hdr` are those of the result; None for `pix_fmt` leaves the format open.
    """

    info: VideoInfo
    plan: StreamPlan
    time_map: TimeMap
    times: Sequence[int]
    encoded: int
    width: int
    height: int
    color: ColorSpec
    pix_fmt: str | None = None
    sar: Fraction = Fraction(1)
    display_matrix: tuple[int, ...] | None = None
    hdr: HdrMetadata | None = None
    cut_start: bool = False
    cut_end: bool = False
    refused: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # damaged packets that no container takes, by stream and place
    moved: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # damaged times, which no container takes, likewise
    undecoded: Mapping[int, int] = field(default_factory=dict)  # packets of converted streams that could not be decoded, by stream

    @property
    def start(self) -> Fraction | None:
        return self.time_map.window[0] if self.cut_start else None

    @property
    def end(self) -> Fraction | None:
        return self.time_map.limit if self.cut_end else None


def encoded_times(segments: Sequence[Path], time_base: Fraction) -> array[int]:
    """The pts of all frames in finished segments, in units of `time_base`, in order."""
    return array("q", (time for path in segments for time in scan_segment(path, time_base).pts))


def expect(plan: JobPlan, times: Sequence[int], encoded: int | None = None) -> Expected:
    """What a job's result must be: `times` are the settled pts of its segments' frames, `encoded` how many the encoder was given."""
    wanted = plan.options.time
    return Expected(
        info=plan.info,
        plan=plan.streams,
        time_map=plan.time_map,
        times=times,
        encoded=len(times) if encoded is None else encoded,
        width=plan.encoder.width,
        height=plan.encoder.height,
        color=plan.encoder.color,
        pix_fmt=plan.encoder.pix_fmt,
        sar=plan.encoder.sar,
        display_matrix=plan.picture.display_matrix,
        hdr=plan.hdr,
        cut_start=wanted.start is not None,
        cut_end=wanted.end is not None or wanted.frames is not None,
    )


@dataclass
class Placing:
    """Where a source packet belongs on the result's clock, and whether it belongs to the result at all."""

    expected: Expected

    def __call__(self, time: Fraction, position: int | None, duration: Fraction, index: int) -> Fraction | None:
        stream = self.expected.info.streams[index]
        if stream.is_cover:
            return time
        settled = self.expected.time_map.seconds_of(time, position)
        start, end = self.expected.start, self.expected.end
        if end is not None and settled >= end:
            return None
        if start is not None and settled < start:
            reaches = stream.kind == "subtitle" and settled + duration > start
            return start if reaches else None
        return settled
