"""The pipeline: decode, upscale, encode into segments, from wherever the job stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from a2n_video.errors import DecodeError, IncompleteSourceError
from a2n_video.io.fitting import fitted
from a2n_video.io.reader import Damage, VideoReader
from a2n_video.io.sandbox import SandboxedReader
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.planning.plan import JobPlan
from a2n_video.job.planning.report import Plan
from a2n_video.job.result import DamageReport
from a2n_video.job.resume import job_record
from a2n_video.job.segments import SegmentedWriter, Stretch, missing_stretches, segment_length
from a2n_video.job.stages import Patience, Stages
from a2n_video.job.stops import Stops
from a2n_video.upscaler import Upscaler

if TYPE_CHECKING:
    import av

Progress = Callable[[int], None]  # frames encoded so far, those of earlier runs included

_DEPTH = 4
_FRAMES_TO_MEASURE = 24
# A stage that gives nothing for so long, and for 20 times its own slowest step, hangs. An encoder's last step drains all the frames
# it looked ahead at, the engine's first one loads and may compile.
_STALL_S = 600.0
_STALL_S_PER_PIXEL = 1e-4


class SegmentMaker:
    """Makes the segments of a job that do not stand yet; one object for one run, used from one thread.

    A signal stops it at once, a stage that hangs ends it (stages.py). The journal begins once the length of segments is settled: at
    once where it is given, else after 24 frames, by their speed.
    """

    def __init__(self, plan: JobPlan, folder: Path, journal: Journal, stops: Stops) -> None:
        self.plan, self.folder, self.journal, self.stops = plan, folder, journal, stops
        self.frames = 0
        self._met: list[tuple[Stretch, Damage]] = []  # by this run's readers, their prerolls included
        self._earlier: list[SegmentRecord] = []  # made by earlier runs
        self._checked = -1
        self._pace = _Pace()
        self._stages = Stages(plan.source, stops, patience_of(plan))

    @property
    def damage(self) -> Sequence[Damage]:
        """What this run's readers met in what they were to make."""
        return [damage.within(stretch.start_pts, stretch.end_pts) for stretch, damage in self._met]

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None:
        """Encode every missing segment. Errors of the source, the engine, the encoder or the disk leave the finished ones standing."""
        self.frames = sum(record.frames for record in standing.values())
        self._earlier = [standing[number] for number in sorted(standing)]
        self._check_errors()
        if self.journal.job is None and self.plan.options.execution.segment_frames is not None:
            self._begin(self.plan.options.execution.segment_frames)
        marks = self.journal.job.marks if self.journal.job is not None else ()
        stretches = missing_stretches(marks, standing)
        if not stretches:
            return
        upscaler = upscaler_of(self.plan)
        try:
            for stretch in stretches:
                with self.stops.deferred():
                    self.make_stretch(stretch, marks, upscaler, on_progress)
        finally:
            self._stages.let_go(upscaler.close, "upscale")

    def make_stretch(self, stretch: Stretch, marks: Sequence[int], upscaler: Upscaler, on_progress: Progress | None) -> None:
        """Encode consecutive segments in one go."""
        plan, reader = self.plan, self._reader(stretch)
        self._met.append((stretch, reader.damage))
        decoded = self._stages.prefetch(
            frames_until(reader, stretch.end_pts), _DEPTH, "decode", position=lambda: reader.position, wake=reader.wake
        )
        upscaled = self._stages.prefetch(fitted(upscaler.upscale_frames(decoded), plan.fit), _DEPTH, "upscale")
        writer = SegmentedWriter(
            self.folder,
            plan.encoder,
            marks,
            self.journal,
            first_number=stretch.first_number,
            end_number=stretch.end_number,
            damage_within=reader.damage.within,
        )
        try:
            self._write_all(upscaled, writer, on_progress)
        finally:
            decoded.stop()
            upscaled.stop()
            self._stages.close()

    def _reader(self, stretch: Stretch) -> VideoReader | SandboxedReader:
        plan = self.plan
        make = SandboxedReader if plan.options.execution.sandbox else VideoReader
        return make(
            plan.source,
            info=plan.info,
            time_map=plan.time_map,
            source_map=plan.source_map,
            deinterlace=plan.interlace,
            start_pts=stretch.start_pts,
        )

    def _write_all(self, frames: Iterable[av.VideoFrame], writer: SegmentedWriter, on_progress: Progress | None) -> None:
        """Everything into segments, whose encoder works in a thread of its own while this one waits: it can be left where it hangs."""
        encode = self._stages.calls("encode")
        try:
            for frame in frames:
                self._check_errors()
                encode(writer.write, frame)
                self.journal.tell()
                self.frames += 1
                if self.journal.job is None and self._pace.measured():
                    writer.set_marks(self._begin(segment_length(self._pace.seconds_per_frame), after=frame.pts))
                if on_progress is not None:
                    on_progress(self.frames)
            self._check_errors()
            if self.journal.job is None:
                writer.set_marks(self._begin(0))  # fewer frames than it takes to measure are one segment
            encode(writer.close)
            self.journal.tell()
        except BaseException:
            if not encode.last(writer.abort):
                writer.disown()
            raise

    def _check_errors(self) -> None:
        """Once a frame: they are counted only where more were met."""
        if (met := sum(damage.errors for _, damage in self._met)) == self._checked:
            return
        self._checked = met
        damage = [*earlier_damage(self._earlier), *self.damage]
        check_errors(self.plan, sum(known.errors for known in damage), damage)

    def _begin(self, segment_frames: int, after: int | None = None) -> tuple[int, ...]:
        """Enter the job in the journal with its marks: every so many frames (0: none), above the pts that were written already."""
        execution = replace(self.plan.execution, segment_frames=segment_frames)
        self.plan = replace(self.plan, execution=execution)
        marks = tuple(mark for mark in self.plan.time_map.marks(segment_frames) if after is None or mark > after)
        self.journal.begin(replace(job_record(self.plan), marks=marks))
        return marks


def check_whole(plan: Plan) -> None:
    """IncompleteSourceError for a source that ends before its time where no damage is to be borne."""
    if plan.cut_short and plan.options.execution.fail_on_damage:
        raise IncompleteSourceError(f"{plan.source}: {plan.cut_short}; leave out --fail-on-damage to make what can be made")


def earlier_damage(records: Iterable[SegmentRecord]) -> list[Damage]:
    """What is recorded of segments, in order; for each error only the time its segment begins at is known."""
    return [
        Damage(at=[record.first_pts or 0] * record.errors, first=record.first_error, repeated_at=[record.first_pts or 0] * record.repeated)
        for record in records
        if record.errors or record.repeated
    ]


def damage_report(plan: Plan, errors: int, damage: Sequence[Damage]) -> DamageReport:
    """What was wrong with the source: `errors` in all, and what its readers met."""
    return DamageReport(
        errors=errors,
        repeated=sum(met.repeated for met in damage),
        first=next((met.first for met in damage if met.first), None),
        cut_short=plan.cut_short,
    )


def check_errors(plan: Plan, found: int, damage: Sequence[Damage]) -> None:
    """IncompleteSourceError once there are more errors than the job may bear; `damage` says where the first one was."""
    execution = plan.options.execution
    bearable = 0 if execution.fail_on_damage else execution.max_errors
    if bearable is not None and found > bearable:
        first = next((known.first for known in damage if known.first), "a place that an earlier run met")
        raise IncompleteSourceError(
            f"{plan.source}: damaged: {found} decode errors, the first at {first}; "
            f"allow them with --max-errors {found} or more, or leave out --fail-on-damage"
        )


def upscaler_of(plan: Plan) -> Upscaler:
    """The upscaler a plan asks for; the caller closes it."""
    model = replace(plan.options.model, scale=plan.geometry.scale)
    return Upscaler.from_options(model, plan.execution, plan.geometry.layout)


def patience_of(plan: Plan) -> Patience:
    """How long a stage may take: as the user says, else generous, and more so for larger pictures."""
    least_s = _STALL_S + _STALL_S_PER_PIXEL * plan.encoder.width * plan.encoder.height
    return Patience.asked(plan.options.execution.stall_timeout) or Patience(least_s=least_s)


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


def frames_until(reader: VideoReader | SandboxedReader, end_pts: int | None = None) -> Iterator[av.VideoFrame]:
    """The frames before `end_pts`. The thread that takes them opens and closes the reader: no other may be in its container.

    DecodeError where there is not memory enough for the decoder.
    """
    with reader:
        try:
            for frame in reader:
                if end_pts is not None and frame.pts is not None and frame.pts >= end_pts:
                    return
                yield frame
        except MemoryError as error:
            raise DecodeError(f"{reader.source}: its decoder wanted more memory than there is") from error
