"""Whole jobs. From file to file: decode, upscale, encode into segments; join these with everything else; verify; put in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from a2n_video.errors import IncompleteSourceError, JobConflictError, OptionError, OutputError, named_as_in_python
from a2n_video.io.outfile import publish
from a2n_video.io.reader import Damage
from a2n_video.io.sandbox import MOVED_BYTES, MOVED_TIMES, Limits, bytes_moved, limited, memory_for
from a2n_video.job.cluster.distributed import DistributedMaker
from a2n_video.job.directory import JobDirectory, result_stands
from a2n_video.job.encode import Progress, SegmentMaker, check_whole, damage_report, earlier_damage
from a2n_video.job.finish import Finished, Watch, finish
from a2n_video.job.journal import Journal, ResultRecord, SegmentRecord
from a2n_video.job.planning.plan import JobPlan, prepare
from a2n_video.job.planning.report import Plan
from a2n_video.job.planning.space import check_space
from a2n_video.job.recount import check_complete
from a2n_video.job.result import UpscaleResult
from a2n_video.job.resume import resumed
from a2n_video.job.segments import segment_files
from a2n_video.job.stages import Patience, Stages
from a2n_video.job.stops import Stops
from a2n_video.job.streaming import PIPE, is_streamed, piped, settled, stream
from a2n_video.options import Execution, JobOptions, refuse_scale_beside_size

_FINISH_STALL_S: Final = 1800.0  # a slow disk may take long to take what lay in memory
_STANDS: Final = "verified before: the last run was stopped once the result was in place"


class Maker(Protocol):
    """Makes a job's missing segments: here or elsewhere. `damage` is what its own readers met."""

    @property
    def damage(self) -> Sequence[Damage]: ...

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None: ...


MakerFactory = Callable[[JobPlan, JobDirectory, Journal, Stops], Maker]


@named_as_in_python()
def upscale_video(
    source: Path | str, dest: Path | str, options: JobOptions | None = None, *, on_progress: Progress | None = None, **changes: Any
) -> UpscaleResult:
    """Upscale a file. `changes` are fields of JobOptions by name, such as scale=2, crf=18, overwrite=True.

    Blocks until the result is verified and stands at `dest`; `on_progress(frames)` is called from this thread. Every error of
    errors.py can come; `dest` is then as it was before, and the same call goes on where this one stopped.
    """
    refuse_scale_beside_size(changes)
    if not isinstance(options, JobOptions | None):
        raise OptionError(f"{options!r} is no JobOptions; single options are given by name, such as crf=18")
    if "\0" in str(dest):
        raise OutputError(f"{str(dest)!r}: cannot be written (a path may not hold a null byte)")
    wanted = (options or JobOptions()).with_changes(**changes)
    if is_streamed(Path(source), Path(dest)):
        return upscale_stream(Path(source), Path(dest), wanted, on_progress)
    return run(prepare(Path(source), Path(dest), wanted), on_progress)


def upscale_stream(
    source: Path,
    dest: Path,
    options: JobOptions,
    on_progress: Progress | None = None,
    stops: Stops | None = None,
    on_plan: Callable[[Plan], None] = lambda plan: None,
) -> UpscaleResult:
    """Carry out a job from or to a pipe or pictures, until `stops` says so. `-` is stdin or stdout, which carry nothing else then.

    `on_plan` is told the plan before the first frame. nut and mkv on a pipe take the whole road, by way of a temporary file.
    """
    stops = stops or Stops()
    with ExitStack() as stack:
        plan = settled(source, dest, options, stack)
        on_plan(plan)
        if not isinstance(plan, JobPlan):
            return stream(plan, stack, on_progress, stops)
        result = run(plan, on_progress, stops)
        return piped(result, stops) if dest == PIPE else result


def run(
    plan: JobPlan,
    on_progress: Progress | None = None,
    stops: Stops | None = None,
    make: MakerFactory | None = None,
    on_segment: Callable[[SegmentRecord], None] | None = None,
) -> UpscaleResult:
    """Carry out a settled job, or what is left of it, until it is done or `stops` says so. `make`: who makes the segments.

    `on_progress(frames)` and `on_segment(record)` are called from this thread, the latter once a segment is on the disk and in the
    journal; where an error or a stop ends the job, the last segments are told before it is raised.
    """
    stops = stops or Stops()
    started = time.monotonic()
    with _job_directory(plan) as folder, Journal.open(folder.journal) as journal:
        plan, standing = resumed(plan, folder, journal)
        check_whole(plan)
        check_space(plan, folder.path)
        # Whether a segment was made of the source that the job began with is asked once it is entered, not after days.
        journal.on_entered, journal.on_segment = plan.check_source, on_segment
        maker = (make or _maker(plan))(plan, folder, journal, stops)
        stands = result_stands(plan.dest)  # and its segments may be gone: the last run was stopped while it tidied up
        if not stands:
            try:
                maker.make(standing, on_progress)
            finally:
                journal.tell()
        met = earlier_damage(record for _, record in sorted(journal.segments.items()))
        damage = damage_report(plan, sum(known.errors for known in met), met)
        frames = sum(record.frames for record in journal.segments.values())
        done = None
        if frames:
            done = _stood(journal.result) if stands else _finish(plan, folder, journal, stops)
        journal.close()  # over NFS an open file stays, and its folder
        folder.remove()
    if done is None:
        raise IncompleteSourceError(f"{plan.source}: damaged: no frame of the part that was asked for can be decoded; nothing was written")
    return UpscaleResult(
        path=plan.dest,
        frames=frames,
        seconds=time.monotonic() - started,
        verified=done.verified,
        damage=replace(damage, refused=done.refused, moved=done.moved, undecoded=done.undecoded),
        resumed_frames=frames if stands else sum(record.frames for record in standing.values()),
        warnings=(*plan.time_map.warnings, *dict.fromkeys(change for known in maker.damage for change in known.changes)),
    )


def _stood(result: ResultRecord | None) -> Finished:
    """What an earlier run has finished, and only not tidied up."""
    assert result is not None
    return Finished(verified=_STANDS, refused=result.refused, moved=result.moved, undecoded=result.undecoded)


def _maker(plan: JobPlan) -> MakerFactory:
    """Who makes the segments: this process, or Ray's workers."""
    if plan.options.cluster.ray:
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


@contextmanager
def _watched(plan: JobPlan, stops: Stops, most_bytes: int) -> Iterator[tuple[Watch, Callable[[], None]]]:
    """What calls the stages of the end in threads of their own, and what these call between packets.

    They may be silent while they read or write, but not beyond `most_bytes`: a demuxer can go round in circles.
    """
    patience = Patience.asked(plan.options.execution.stall_timeout) or Patience(least_s=_FINISH_STALL_S)

    def position(thread: int) -> object:
        moved = bytes_moved(f"self/task/{thread}")
        return object() if moved is None else min(moved, most_bytes)  # where the system does not say, nothing counts as hung

    def watch[**P, T](stage: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return stages.calls(stage, position=position)(function, *arguments, **named)

    with stops.deferred(), Stages(plan.source, stops, patience) as stages:
        yield watch, stages.give_way


def _finish(plan: JobPlan, folder: JobDirectory, journal: Journal, stops: Stops) -> Finished:
    """Count once more, join, verify and put in place; in a child process where the source is not trusted: that demuxes it again.

    InputError, and nothing put in place, where the source is another file by now.
    """
    check_complete(plan, journal.job.marks if journal.job is not None else (), journal.segments)
    plan.check_source()
    records = journal.segments.values()
    given = plan, segment_files(folder.path, journal.segments), sum(record.frames for record in records), folder.result
    moved_bytes = MOVED_BYTES + MOVED_TIMES * sum(record.size for record in records)
    if plan.options.execution.sandbox:
        memory_bytes = memory_for(plan.encoder.width * plan.encoder.height, threads=1)  # its first frame is looked at
        done = limited(Limits(moved_bytes=moved_bytes, memory_bytes=memory_bytes), finish, plan.source, *given)
    else:
        with _watched(plan, stops, moved_bytes + MOVED_TIMES * plan.info.size_bytes) as (watch, check):
            done = finish(plan.source, *given, watch=watch, check=check)
    plan.check_source()  # what was copied from it was read just now
    journal.add_result(ResultRecord(size=done.size, sha256=done.sha256, refused=done.refused, moved=done.moved, undecoded=done.undecoded))
    publish(folder.result, plan.dest, overwrite=plan.options.execution.overwrite)
    return done
