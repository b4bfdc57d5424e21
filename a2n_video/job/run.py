"""A whole job: decode, upscale, encode into segments; join them with everything else; verify; give the result its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from a2n_video.errors import IncompleteSourceError, JobConflictError
from a2n_video.io.outfile import publish
from a2n_video.io.reader import Damage
from a2n_video.io.sandbox import MOVED_BYTES, MOVED_TIMES, Limits, limited
from a2n_video.job.directory import JobDirectory, result_stands
from a2n_video.job.encode import Progress, SegmentMaker
from a2n_video.job.finish import Finished, finish
from a2n_video.job.journal import Journal, ResultRecord, SegmentRecord
from a2n_video.job.plan import JobPlan, prepare
from a2n_video.job.resume import resumed
from a2n_video.job.segments import segment_files
from a2n_video.job.space import check_space
from a2n_video.job.stops import Stops
from a2n_video.options import Execution, JobOptions, refuse_scale_beside_size

_STANDS: Final = Finished(verified="verified before: the last run was stopped once the result was in place")


class Maker(Protocol):
    """Makes a job's missing segments: here or elsewhere. `damage` is what its own readers met."""

    @property
    def damage(self) -> Sequence[Damage]: ...

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None: ...


MakerFactory = Callable[[JobPlan, JobDirectory, Journal, Stops], Maker]


@dataclass(frozen=True, kw_only=True)
class DamageReport:
    """What was wrong with the source: decode errors, frames that stood in for lost ones in this run, the first error, a file cut short,
    packets of copied streams that were too damaged to be copied, or whose times were, and of converted ones that cannot be decoded.
    """

    errors: int = 0
    repeated: int = 0
    first: str | None = None
    cut_short: str | None = None
    refused: int = 0
    moved: int = 0
    undecoded: int = 0

    def __bool__(self) -> bool:
        return bool(self.errors or self.cut_short or self.refused or self.moved or self.undecoded)

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
        if self.moved:
            found.append(f"damaged source: {self.moved} packets of copied streams come later than they say, for they step back in time")
        if self.undecoded:
            found.append(f"damaged source: {self.undecoded} packets of converted streams cannot be decoded; there is a gap in their place")
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

    refuse_scale_beside_size(changes)
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
        stands = result_stands(plan.dest)  # and its segments may be gone: the last run was stopped while it tidied up
        if not stands:
            maker.make(standing, on_progress)
        damage = _damage(plan, maker, journal)
        if not any(record.frames for record in journal.segments.values()):
            folder.remove()
            raise IncompleteSourceError(
                f"{plan.source}: damaged: no frame of the part that was asked for can be decoded; nothing was written"
            )
        done = _STANDS if stands else _finish(plan, folder, journal, stops)
        damage = replace(damage, refused=done.refused, moved=done.moved, undecoded=done.undecoded)
        frames = sum(record.frames for record in journal.segments.values())
        folder.remove()
    return UpscaleResult(
        path=plan.dest,
        frames=frames,
        seconds=time.monotonic() - started,
        verified=done.verified,
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


def _finish(plan: JobPlan, folder: JobDirectory, journal: Journal, stops: Stops) -> Finished:
    """Join, verify and put in place; in a child process where the source is not trusted, for that demuxes it once more."""
    records = journal.segments.values()
    given = plan, segment_files(folder.path, journal.segments), sum(record.frames for record in records), folder.result
    if plan.options.execution.sandbox:
        limits = Limits(moved_bytes=MOVED_BYTES + MOVED_TIMES * sum(record.size for record in records))
        done = limited(limits, finish, plan.source, *given)
    else:
        done = finish(plan.source, *given, stops)
    journal.add_result(ResultRecord(size=done.size, sha256=done.sha256))
    publish(folder.result, plan.dest, overwrite=plan.options.execution.overwrite)
    return done
