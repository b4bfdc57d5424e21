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
    job = RemuxJob(final=plan.final, segments=tuple(segments), time_base=plan.encoder.time_base, frame_rate=plan.encoder.frame_rate)
    with stops.deferred(), OutFile(result) as file:
        made = remux(job, file, converted_streams(plan.final), stops.check)
        digest, size = file.finish(), file.size
    expected = expect(plan, encoded_times(segments, plan.encoder.time_base), encoded)
    report = verify(replace(expected, refused=made.refused, moved=made.moved, undecoded=made.undecoded), result)
    refused, moved = (sum(map(len, places.values())) for places in (made.refused, made.moved))
    undecoded = sum(made.undecoded.values())
    return Finished(verified=report.line, sha256=digest, size=size, refused=refused, moved=moved, undecoded=undecoded)
