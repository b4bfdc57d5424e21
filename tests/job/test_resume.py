"""What a job that goes on takes from its journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from a2n_video.errors import JobConflictError
from a2n_video.job.directory import JobDirectory
from a2n_video.job.journal import Journal
from a2n_video.job.planning.plan import JobPlan, prepare
from a2n_video.job.resume import job_record, resumed
from a2n_video.options import JobOptions
from tests.made import make_source


def chosen(plan: JobPlan, **changes: Any) -> JobPlan:
    return replace(plan, execution=replace(plan.execution, **changes))


def test_a_job_goes_on_with_the_engine_it_began_with(tmp_path: Path) -> None:
    """Less memory may be free by then, or a driver without a card has left the choice to its workers."""
    source, dest = make_source(tmp_path / "in.mkv", pts=range(4)), tmp_path / "out.mkv"
    plan = prepare(source, dest, JobOptions().with_changes(model="a2n-tiny", device="cpu"))
    with JobDirectory(dest) as folder, Journal.open(folder.journal) as journal:
        journal.begin(job_record(chosen(plan, engine="accelerator", device="cuda", dtype="float16")))
        now = chosen(plan, engine="native", dtype="float32")
        assert resumed(now, folder, journal)[0].execution.device == "cuda"
        with pytest.raises(JobConflictError, match="weights have changed"):
            resumed(chosen(now, weights_sha256="others"), folder, journal)
        folder.remove()


def test_a_job_of_a_build_that_knew_no_muxer_goes_on(tmp_path: Path) -> None:
    source, dest = make_source(tmp_path / "in.mkv", pts=range(4)), tmp_path / "out.mkv"
    plan = prepare(source, dest, JobOptions().with_changes(model="nearest"))
    record = job_record(plan)
    older = replace(record, encoder={name: value for name, value in record.encoder.items() if name != "muxer"})
    assert not record.differences(older)
