"""The pipeline: decode, upscale, encode into segments, from wherever the job stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from a2n_video.errors import IncompleteSourceError
from a2n_video.io.fitting import fitted
from a2n_video.io.reader import Damage, VideoReader
from a2n_video.io.sandbox import SandboxedReader
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.plan import JobPlan
from a2n_video.job.prefetch import prefetch
from a2n_video.job.resume import job_record
from a2n_video.job.segments import SegmentedWriter, Stretch, missing_stretches, segment_length
from a2n_video.job.stops import Stops
from a2n_video.upscaler import Upscaler

if TYPE_CHECKING:
    import av

Progress = Callable[[int], None]  # frames encoded so far, those of earlier runs included

_DEPTH = 4
_FRAMES_TO_MEASURE = 24


class SegmentMaker:
    """Makes the segments of a job that do not stand yet; one object for one run, used from one thread.

    A signal stops it at the next frame. The journal begins once the length of segments is settled: at once where it
    is given, else after 24 frames, by their speed.
    """

    def __init__(self, plan: JobPlan, folder: Path, journal: Journal, stops: Stops) -> None:
        self.plan, self.folder, self.journal, self.stops = plan, folder, journal, stops
        self.damage: list[Damage] = []
        self.frames = 0
        self._pace = _Pace()

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None:
        """Encode every missing segment. Errors of the source, the engine, the encoder or the disk leave the finished ones standing."""
        self.frames = sum(record.frames for record in standing.values())
        if self.journal.job is None and self.plan.options.execution.segment_frames is not None:
            self._begin(self.plan.options.execution.segment_frames)
        marks = self.journal.job.marks if self.journal.job is not None else ()
        stretches = missing_stretches(marks, standing)
        if not stretches:
            return
        with upscaler_of(self.plan) as upscaler:
            for stretch in stretches:
                with self.stops.deferred():
                    self.make_stretch(stretch, marks, upscaler, on_progress)

    def make_stretch(self, stretch: Stretch, marks: Sequence[int], upscaler: Upscaler, on_progress: Progress | None) -> None:
        """Encode consecutive segments in one go."""
        plan = self.plan
        make_reader = SandboxedReader if plan.options.execution.sandbox else VideoReader
        with make_reader(
            plan.source,
            info=plan.info,
            time_map=plan.time_map,
            source_map=plan.source_map,
            deinterlace=plan.interlace.mode,
            start_pts=stretch.start_pts,
        ) as reader:
            self.damage.append(reader.damage)
            decoded = prefetch(_until(iter(reader), stretch.end_pts), _DEPTH, "decode")
            upscaled = prefetch(fitted(upscaler.upscale_frames(decoded), plan.fit), _DEPTH, "upscale", self.stops.check)
            with (
                closing(decoded),  # type: ignore[type-var]  # an engine that failed has left it running
                closing(upscaled),  # type: ignore[type-var]
                SegmentedWriter(
                    self.folder,
                    plan.encoder,
                    marks,
                    self.journal,
                    first_number=stretch.first_number,
                    end_number=stretch.end_number,
                    errors_between=reader.damage.between,
                ) as writer,
            ):
                for frame in upscaled:
                    self.stops.check()
                    self._check_errors()
                    writer.write(frame)
                    self.frames += 1
                    if self.journal.job is None and self._pace.measured():
                        writer.set_marks(self._begin(segment_length(self._pace.seconds_per_frame), after=frame.pts))
                    if on_progress is not None:
                        on_progress(self.frames)
                self._check_errors()
                if self.journal.job is None:
                    writer.set_marks(self._begin(0))  # fewer frames than it takes to measure are one segment

    def _check_errors(self) -> None:
        check_errors(self.plan, sum(damage.errors for damage in self.damage), self.damage)

    def _begin(self, segment_frames: int, after: int | None = None) -> tuple[int, ...]:
        """Enter the job in the journal with its marks: every so many frames (0: none), above the pts that were written already."""
        execution = replace(self.plan.execution, segment_frames=segment_frames)
        self.plan = replace(self.plan, execution=execution)
        marks = tuple(mark for mark in self.plan.time_map.marks(segment_frames) if after is None or mark > after)
        self.journal.begin(replace(job_record(self.plan), marks=marks))
        return marks


def check_errors(plan: JobPlan, found: int, damage: Sequence[Damage]) -> None:
    """IncompleteSourceError once there are more errors than the job may bear; `damage` says where the first one was."""
    execution = plan.options.execution
    bearable = 0 if execution.fail_on_damage else execution.max_errors
    if bearable is not None and found > bearable:
        first = next((known.first for known in damage if known.first), "a place that an earlier run met")
        raise IncompleteSourceError(
            f"{plan.source}: damaged: {found} decode errors, the first at {first}; "
            f"allow them with --max-errors {found} or more, or leave out --fail-on-damage"
        )


def upscaler_of(plan: JobPlan) -> Upscaler:
    """The upscaler a plan asks for; the caller closes it."""
    model = replace(plan.options.model, scale=plan.geometry.scale)
    return Upscaler.from_options(model, plan.execution, plan.geometry.layout)


class _Pace:
    """How long a frame takes, the first left out: it waits for the engine to start."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def measured(self) -> bool:
        """Count a frame; True once enough have come."""
        self._times.append(time.monotonic())
        return len(self._times) >= _FRAMES_TO_MEASURE

    @property
    def seconds_per_frame(self) -> float:
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1)


def _until(frames: Iterator[av.VideoFrame], end_pts: int | None) -> Iterator[av.VideoFrame]:
    return frames if end_pts is None else takewhile(lambda frame: frame.pts is not None and frame.pts < end_pts, frames)
