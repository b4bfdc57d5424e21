"""What people are shown before a job starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2n_video.errors import WeightsError
from a2n_video.job.planning.plan import prepare
from a2n_video.job.planning.report import describe
from a2n_video.net.catalog import find_model
from a2n_video.options import JobOptions
from tests.made import make_source

WEIGHTS = str(find_model("a2n", 4).path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("report") / "a.mkv", pts=range(4))


def network(clip: Path, **changes: object) -> str:
    plan = prepare(clip, clip.with_name("out.mkv"), JobOptions().with_changes(device="cpu", **changes))
    (line,) = [line for line in describe(plan).splitlines() if line.startswith("network ")]
    return line


def test_the_network_is_named(clip: Path) -> None:
    assert network(clip).startswith("network  a2n-video x2 on cpu (")
    assert network(clip, weights=WEIGHTS, scale=4).startswith(f"network  {WEIGHTS} x4 on cpu (")
    assert network(clip, weights=WEIGHTS, scale=4, size="64x48").startswith(f"network  {WEIGHTS} x4 on cpu (")


def test_no_plan_with_weights_that_the_run_refuses(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "im.png").write_bytes(b"\x89PNG\r\n")
    for weights, scale in ((WEIGHTS, 3), (str(tmp_path / "im.png"), 2)):
        with pytest.raises(WeightsError, match=weights):
            prepare(clip, tmp_path / "out.mkv", JobOptions().with_changes(weights=weights, scale=scale))
