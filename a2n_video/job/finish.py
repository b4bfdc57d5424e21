"""The end of a job: segments and everything else in the source become the final file, which is then held against both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from a2n_video.io.convert import converted_streams
from a2n_video.io.outfile import OutFile
from a2n_video.io.remux import RemuxJob, remux
from a2n_video.job.expected import encoded_times, expect
from a2n_video.job.plan import JobPlan
from a2n_video.job.stops import Stops
from a2n_video.job.verify import verify


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The verification's one line, the final file's sha256 and size, and how many damaged packets of other streams were
    left out (`refused`, `undecoded`) or moved.
    """

    verified: str
    sha256: str = ""
    size: int = 0
    refused: int = 0
    moved: int = 0
    undecoded: int = 0


def finish(source: Path, plan: JobPlan, segments: Sequence[Path], encoded: int, result: Path, stops: Stops | None = None) -> Finished:
    """Make `result`, fsynced, and verify it; `encoded` frames went into the segments.

    It reads the plan's source with FFmpeg; that comes first so that this may run in a sandbox.
    OutputError or EncodeError where it cannot be written, VerificationError where it is not right.
    """
    stops = stops or Stops()
    job = _remux_job(plan, tuple(segments))
    with stops.deferred(), OutFile(result) as file:
        made = remux(job, file, converted_streams(plan.info, plan.streams, plan.time_map, job.start, job.end), stops.check)
        digest, size = file.finish(), file.size
    expected = expect(plan, encoded_times(segments, plan.encoder.time_base), encoded)
    report = verify(replace(expected, refused=made.refused, moved=made.moved, undecoded=made.undecoded), result)
    refused, moved = (sum(map(len, places.values())) for places in (made.refused, made.moved))
    undecoded = sum(made.undecoded.values())
    return Finished(verified=report.line, sha256=digest, size=size, refused=refused, moved=moved, undecoded=undecoded)


def _remux_job(plan: JobPlan, segments: tuple[Path, ...]) -> RemuxJob:
    wanted = plan.options.time
    return RemuxJob(
        segments=segments,
        info=plan.info,
        plan=plan.streams,
        time_map=plan.time_map,
        time_base=plan.encoder.time_base,
        color=plan.encoder.color,
        cut_start=wanted.start is not None,
        cut_end=wanted.end is not None or wanted.frames is not None,
        frame_rate=plan.encoder.frame_rate,
        width=plan.encoder.width,
        height=plan.encoder.height,
        sar=plan.encoder.sar,
        display_matrix=plan.picture.display_matrix,
        hdr=plan.hdr,
    )
