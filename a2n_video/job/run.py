"""A whole job: decode, upscale, encode into segments; join them with everything else; verify; give the result its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from a2n_video.errors import IncompleteSourceError, JobConflictError
from a2n_video.io.convert import converted_streams
from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.reader import Damage
from a2n_video.io.remux import RemuxJob, remux
from a2n_video.job.directory import JobDirectory, result_stands
from a2n_video.job.encode import Progress, SegmentMaker
from a2n_video.job.journal import Journal, ResultRecord, SegmentRecord
from a2n_video.job.plan import JobPlan, prepare
from a2n_video.job.resume import resumed
from a2n_video.job.segments import segment_files
from a2n_video.job.space import check_space
from a2n_video.job.stops import Stops
from a2n_video.job.verify import encoded_times, expect, verify
from a2n_video.options import Execution, JobOptions


class Maker(Protocol):
    """Makes a job's missing segments: here or elsewhere. `damage` is what its own readers met."""

    @property
    def damage(self) -> Sequence[Damage]: ...

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None: ...


MakerFactory = Callable[[JobPlan, JobDirectory, Journal, Stops], Maker]


@dataclass(frozen=True, kw_only=True)
class DamageReport:
    """What was wrong with the source: decode errors, frames that stood in for lost ones in this run, the first error, a file cut short,
    and packets of copied streams that were too damaged to be copied.
    """

    errors: int = 0
    repeated: int = 0
    first: str | None = None
    cut_short: str | None = None
    refused: int = 0

    def __bool__(self) -> bool:
        return bool(self.errors or self.cut_short or self.refused)

    @property
    def lines(self) -> list[str]:
        """For people."""
        found = []
        if self.errors:
            where = f", the first at {self.first}" if self.first else ""
            found.append(f"damaged source: {self.errors} decode errors{where}; {self.repeated} frames repeated in place of lost ones")
        if self.cut_short:
            found.append(f"incomplete source: {self.cut_short}")
        if self.refused:
            found.append(f"damaged source: {self.refused} packets of copied streams are left out, which no container takes")
        return found


@dataclass(frozen=True, kw_only=True)
class UpscaleResult:
    """What a finished job made. `verified` is the verification's one line; `damage` tells of a source that was not whole.

    `resumed_frames` were encoded by earlier runs of the same job.
    """

    path: Path
    frames: int
    seconds: float
    verified: str
    damage: DamageReport = field(default_factory=DamageReport)
    resumed_frames: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 4 if self.damage else 0

    @property
    def summary(self) -> str:
        """Two or three lines for people."""
        made = self.frames - self.resumed_frames
        rate = made / self.seconds if self.seconds else 0.0
        earlier = f", {self.resumed_frames} of them by earlier runs" if self.resumed_frames else ""
        lines = [*(f"note: {warning}" for warning in self.warnings), *self.damage.lines, self.verified]
        return "\n".join([*lines, f"{self.path}: {self.frames} frames{earlier} in {self.seconds:.1f} s ({rate:.2f} fps)"])


def upscale_video(
    source: Path | str, dest: Path | str, options: JobOptions | None = None, *, on_progress: Progress | None = None, **changes: Any
) -> UpscaleResult:
    """Upscale a file. `changes` are fields of JobOptions by name, such as scale=2, crf=18, overwrite=True.

    Blocks until the result is verified and stands at `dest`; `on_progress(frames)` is called from this thread. Every error of
    errors.py can come; `dest` is then as it was before, and the same call goes on where this one stopped.
    """
    from a2n_video.job.streaming import is_streamed, upscale_stream  # which takes jobs back that are none of its own

    settled = (options or JobOptions()).with_changes(**changes)
    if is_streamed(Path(source), Path(dest)):
        return upscale_stream(Path(source), Path(dest), settled, on_progress)
    return run(prepare(Path(source), Path(dest), settled), on_progress)


def run(
    plan: JobPlan,
    on_progress: Progress | None = None,
    stops: Stops | None = None,
    make: MakerFactory | None = None,
    on_segment: Callable[[SegmentRecord], None] | None = None,
) -> UpscaleResult:
    """Carry out a settled job, or what is left of it, until it is done or `stops` says so. `make`: who makes the segments.

    `on_progress(frames)` and `on_segment(record)` are called from this thread.
    """
    stops = stops or Stops()
    started = time.monotonic()
    with _job_directory(plan) as folder, Journal.open(folder.journal) as journal:
        plan, standing = resumed(plan, folder, journal)
        _check_whole(plan)
        check_space(plan, folder.path)
        journal.on_segment = on_segment
        maker = (make or _maker(plan))(plan, folder, journal, stops)
        maker.make(standing, on_progress)
        damage = _damage(plan, maker, journal)
        if not any(record.frames for record in journal.segments.values()):
            folder.remove()
            raise IncompleteSourceError(
                f"{plan.source}: damaged: no frame of the part that was asked for can be decoded; nothing was written"
            )
        verified, refused = _finish(plan, folder, journal, stops)
        damage = replace(damage, refused=refused)
        frames = sum(record.frames for record in journal.segments.values())
        folder.remove()
    return UpscaleResult(
        path=plan.dest,
        frames=frames,
        seconds=time.monotonic() - started,
        verified=verified,
        damage=damage,
        resumed_frames=sum(record.frames for record in standing.values()),
        warnings=(*plan.time_map.warnings, *(change for damage in maker.damage for change in damage.changes)),
    )


def _maker(plan: JobPlan) -> MakerFactory:
    """Who makes the segments: this process, or Ray's workers."""
    if plan.options.cluster.ray:
        from a2n_video.job.distributed import DistributedMaker

        return DistributedMaker
    return lambda plan, folder, journal, stops: SegmentMaker(plan, folder.path, journal, stops)


@contextmanager
def _job_directory(plan: JobPlan) -> Iterator[JobDirectory]:
    """The job's folder, locked; emptied first for --restart and --no-resume, and with --no-resume gone again whatever happens."""
    execution: Execution = plan.options.execution
    with JobDirectory(plan.dest) as folder:
        if execution.restart or not execution.resume:
            folder.clear()
        try:
            yield folder
        except JobConflictError:
            raise
        except BaseException:
            if not execution.resume or folder.is_empty:
                folder.remove()
            raise


def _check_whole(plan: JobPlan) -> None:
    if plan.cut_short and plan.options.execution.fail_on_damage:
        raise IncompleteSourceError(f"{plan.source}: {plan.cut_short}; leave out --fail-on-damage to make what can be made")


def _damage(plan: JobPlan, maker: Maker, journal: Journal) -> DamageReport:
    return DamageReport(
        errors=sum(record.errors for record in journal.segments.values()),
        repeated=sum(damage.repeated for damage in maker.damage),
        first=next((damage.first for damage in maker.damage if damage.first), None),
        cut_short=plan.cut_short,
    )


def _finish(plan: JobPlan, folder: JobDirectory, journal: Journal, stops: Stops) -> tuple[str, int]:
    """Join, verify and put in place; the verification's line, and how many damaged packets were left out of copied streams."""
    if result_stands(plan.dest):
        return "verified before: the last run was stopped once the result was in place", 0
    with stops.deferred():
        digest, size, refused = join(plan, folder, journal.segments, stops.check)
    times = encoded_times(segment_files(folder.path, journal.segments), plan.encoder.time_base)
    encoded = sum(record.frames for record in journal.segments.values())
    verified = verify(replace(expect(plan, times, encoded), refused=refused), folder.result).line
    journal.add_result(ResultRecord(size=size, sha256=digest))
    publish(folder.result, plan.dest, overwrite=plan.options.execution.overwrite)
    return verified, sum(map(len, refused.values()))


def join(
    plan: JobPlan, folder: JobDirectory, segments: dict[int, SegmentRecord], check: Callable[[], None]
) -> tuple[str, int, Mapping[int, tuple[int, ...]]]:
    """Make the final file from finished segments and the source, in the job's folder. `check` may raise to stop.

    Its sha256, its size, and the places of copied packets that are too damaged for the muxer, by stream.
    """
    time_range = plan.options.time
    job = RemuxJob(
        segments=segment_files(folder.path, segments),
        info=plan.info,
        plan=plan.streams,
        time_map=plan.time_map,
        time_base=plan.encoder.time_base,
        color=plan.encoder.color,
        cut_start=time_range.start is not None,
        cut_end=time_range.end is not None or time_range.frames is not None,
        frame_rate=plan.encoder.frame_rate,
        width=plan.encoder.width,
        height=plan.encoder.height,
        sar=plan.encoder.sar,
        display_matrix=plan.picture.display_matrix,
    )
    with OutFile(folder.result) as file:
        result = remux(job, file, converted_streams(plan.info, plan.streams, plan.time_map, job.start, job.end), check)
        return file.finish(), file.size, result.refused
