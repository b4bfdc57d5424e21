"""Whether a job goes on or begins: what is compared with the journal, and what is taken from it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from a2n_video.io import backends
from a2n_video.job.directory import JobDirectory
from a2n_video.job.journal import JobRecord, Journal, SegmentRecord
from a2n_video.job.planning.plan import JobPlan
from a2n_video.job.segments import standing_segments
from a2n_video.options import EncoderBackend, ExecutionPlan, JobOptions

# Whose version can change the bytes of a segment; an engine's library only where that engine runs.
_LIBRARIES: Final = {"torch": ("torch",), "accelerator": ("torch",), "openvino": ("openvino",)}
_MOST_ENCODER_THREADS: Final = 16


def job_record(plan: JobPlan, engine: str | None = None) -> JobRecord:
    """What this job is, for the journal; `marks` are entered once the length of segments is settled.

    `engine` is the one that an earlier run has settled, where that is not the plan's.
    """
    return JobRecord(
        input=plan.identity,
        options=compared_options(plan.options),
        versions=_versions(plan.encoder.backend, engine or plan.execution.engine),
        weights_sha256=plan.execution.weights_sha256,
        plan=plan.execution.as_json(),
        encoder=json.loads(json.dumps(asdict(plan.encoder), default=str)),
        time_map=plan.time_map.as_json(),
    )


def compared_options(options: JobOptions) -> dict[str, Any]:
    """The options that make another job where they differ: all but those that say how a run behaves."""
    return {part: values for part, values in options.as_json().items() if part not in ("execution", "cluster")}


def _versions(backend: EncoderBackend, engine: str) -> dict[str, str]:
    binary = backends.version(backend)
    found = {} if binary is None else {"ffmpeg": binary}
    for name in ("a2n-video", "av", *_LIBRARIES.get(engine, ())):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return found


def with_threads(plan: JobPlan) -> JobPlan:
    """The plan with the encoder's threads settled: x264 and x265 make other bytes with other counts."""
    if plan.options.cluster.ray:
        # Workers differ in what they have; what a worker is given does not.
        threads = plan.options.cluster.cpus_per_worker
        return replace(plan, encoder=replace(plan.encoder, threads=threads), execution=replace(plan.execution, threads=threads))
    threads = plan.encoder.threads or min(os.cpu_count() or 1, _MOST_ENCODER_THREADS)
    return replace(plan, encoder=replace(plan.encoder, threads=threads))


def resumed(plan: JobPlan, folder: JobDirectory, journal: Journal) -> tuple[JobPlan, dict[int, SegmentRecord]]:
    """The plan to go on with, and the segments that stand; the journal's if it has this job, else as given and none.

    JobConflictError that names the difference where the journal is another job's.
    """
    if journal.job is None:
        folder.clear_segments()
        return with_threads(plan), {}
    journal.check_same(job_record(plan, journal.job.plan.get("engine")))
    settled = replace(
        plan,
        execution=ExecutionPlan(**journal.job.plan),
        encoder=replace(plan.encoder, threads=journal.job.encoder["threads"]),
    )
    return settled, standing_segments(folder.path, journal.segments, settled.encoder.time_base)
