"""The end of a job: segments and everything else in the source become the final file, which is then held against both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from a2n_video.io.mux.convert import converted_streams
from a2n_video.io.mux.remux import RemuxJob, RemuxResult, remux
from a2n_video.io.outfile import OutFile
from a2n_video.job.expected import encoded_times, expect
from a2n_video.job.planning.plan import JobPlan
from a2n_video.job.verify import VerifyReport, verify


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


class Watch(Protocol):
    """Calls a function that may hang, under the name of its stage."""

    def __call__[**P, T](self, stage: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T: ...


def unwatched[**P, T](stage: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls it here."""
    return function(*arguments, **named)


def finish(
    source: Path,
    plan: JobPlan,
    segments: Sequence[Path],
    encoded: int,
    result: Path,
    *,
    watch: Watch = unwatched,
    check: Callable[[], None] = lambda: None,
) -> Finished:
    """Make `result`, fsynced, and verify it; `encoded` frames went into the segments.

    It reads the plan's source with FFmpeg; that comes first so that this may run in a sandbox. `check` is called once a packet and may
    raise to stop. OutputError or EncodeError where it cannot be written, VerificationError where it is not right.
    """
    made, digest, size = watch("join", _joined, plan, segments, result, check)
    report = watch("verify", _verified, plan, segments, encoded, made, result)
    refused, moved = (sum(map(len, places.values())) for places in (made.refused, made.moved))
    undecoded = sum(made.undecoded.values())
    return Finished(verified=report.line, sha256=digest, size=size, refused=refused, moved=moved, undecoded=undecoded)


def _joined(plan: JobPlan, segments: Sequence[Path], result: Path, check: Callable[[], None]) -> tuple[RemuxResult, str, int]:
    """Segments and the rest of the source in one file, its sha256 and its size."""
    check()
    job = RemuxJob(final=plan.final, segments=tuple(segments), time_base=plan.encoder.time_base, frame_rate=plan.encoder.frame_rate)
    result.unlink(missing_ok=True)  # a thread that hung in an earlier run of this process may still hold that one
    with OutFile(result) as file:
        made = remux(job, file, converted_streams(plan.final), check)
        return made, file.finish(), file.size


def _verified(plan: JobPlan, segments: Sequence[Path], encoded: int, made: RemuxResult, result: Path) -> VerifyReport:
    expected = expect(plan, encoded_times(segments, plan.encoder.time_base), encoded)
    return verify(replace(expected, refused=made.refused, moved=made.moved, undecoded=made.undecoded), result)
