"""One job on several workers: whatever they do (die, doubled, damaged, late results), the result is that of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video import upscale_video
from a2n_video.cli import main
from a2n_video.job.journal import JobRecord, SegmentRecord
from a2n_video.job.plan import JobPlan, prepare
from a2n_video.job.run import run
from a2n_video.options import ClusterOptions, JobOptions
from tests.conftest import ROOT
from tests.made import decoded, make_source

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

from a2n_video.job import distributed  # noqa: E402
from a2n_video.job.distributed import DistributedMaker, Made, SegmentWorker, places_for_workers  # noqa: E402

NODES = 4
SEGMENTS, LENGTH = 40, 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Four nodes on loopback, as four machines would be, each with one core."""
    from ray.cluster_utils import Cluster

    local = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(NODES - 1):
        local.add_node(num_cpus=1)
    ray.init(address=local.address, log_to_driver=False)
    # Workers do not see the tests' modules: their classes travel by value.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield local
    ray.shutdown()
    local.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "in.mkv"
    times = [40 * number + (number % 3) for number in range(SEGMENTS * LENGTH)]
    return make_source(path, pts=times, time_base=Fraction(1, 1000))


def settings(**changes: Any) -> JobOptions:
    return JobOptions().with_changes(**{"model": "nearest", "codec": "ffv1", "segment_frames": LENGTH, "ray": True, **changes})


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, Fraction, str]]:
    dest = tmp_path_factory.mktemp("one") / "out.mkv"
    upscale_video(source, dest, settings(), ray=False)
    return decoded(dest)


class Chaos(SegmentWorker):
    """A worker that misbehaves once for each number it is told to; marks beside the output keep it at once."""

    def make(self, plan: JobPlan, job: JobRecord, tally: Any, number: int, source: bytes | None) -> Made:
        if number % 5 == 2 and self._first(plan, "killed", number):
            os.kill(os.getpid(), signal.SIGKILL)
        made = super().make(plan, job, tally, number, source)
        if number % 20 == 3 and self._first(plan, "damaged", number):
            self._damage(plan, made)
        if number % 20 == 4 and self._first(plan, "late", number):
            time.sleep(3)
        return made

    def _first(self, plan: JobPlan, what: str, number: int) -> bool:
        mark = plan.dest.parent / f"{what}-{number}"
        if mark.exists():
            return False
        mark.touch()
        return True

    def _damage(self, plan: JobPlan, made: Made) -> None:
        path = plan.dest.parent / f"{plan.dest.name}.a2n" / made.record.file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))


class Doubling(DistributedMaker):
    """A driver that gets every tenth result twice."""

    def collect(self, crew: Any, missing: list[int], report: Any) -> None:
        super().collect(crew, [n for number in missing for n in ([number] * 2 if number % 10 == 1 else [number])], report)


def chaotic(plan: JobPlan, folder: Any, journal: Any, stops: Any) -> DistributedMaker:
    return Doubling(plan, folder, journal, stops, Chaos)


def test_killed_doubled_damaged_and_late_results_change_nothing(
    cluster: Any, source: Path, expected: list[tuple[int, Fraction, str]], tmp_path: Path
) -> None:
    seen: list[int] = []
    result = run(prepare(source, tmp_path / "out.mkv", settings(lease_s=1.0)), seen.append, make=chaotic)
    assert result.frames == SEGMENTS * LENGTH
    assert decoded(tmp_path / "out.mkv") == expected
    marks = [path.name for path in tmp_path.iterdir()]
    assert sum(name.startswith("killed") for name in marks) == SEGMENTS // 5
    assert sum(name.startswith("damaged") for name in marks) == SEGMENTS // 20
    assert sum(name.startswith("late") for name in marks) == SEGMENTS // 20
    assert seen[-1] == SEGMENTS * LENGTH
    assert not (tmp_path / "out.mkv.a2n").exists()


def test_shipped_parts_make_the_same(cluster: Any, source: Path, expected: list[tuple[int, Fraction, str]], tmp_path: Path) -> None:
    result = distributed.upscale_video(source, tmp_path / "out.mkv", settings(ship=True))
    assert result.frames == SEGMENTS * LENGTH
    assert decoded(tmp_path / "out.mkv") == expected


class Stranger(SegmentWorker):
    """A worker with another version of av."""

    def refusal(self, plan: JobPlan, job: JobRecord) -> str | None:
        versions = {**job.versions, "av": "1.2.3"}
        return super().refusal(plan, JobRecord(**{**vars(job), "versions": versions}))


def test_workers_that_differ_are_refused_by_name(cluster: Any, source: Path, tmp_path: Path) -> None:
    def strangers(*arguments: Any) -> DistributedMaker:
        return DistributedMaker(*arguments, worker=Stranger)

    with pytest.raises(distributed.DeviceError, match=r"version of av: 1\.2\.3"):
        run(prepare(source, tmp_path / "out.mkv", settings()), make=strangers)


class Broken(SegmentWorker):
    """A worker whose disk is full."""

    def encoded(self, *arguments: Any) -> SegmentRecord:
        raise distributed.OutputError("the disk is full")


def test_an_error_that_stays_ends_the_job(cluster: Any, source: Path, tmp_path: Path) -> None:
    def broken(*arguments: Any) -> DistributedMaker:
        return DistributedMaker(*arguments, worker=Broken)

    with pytest.raises(distributed.OutputError, match="disk is full"):
        run(prepare(source, tmp_path / "out.mkv", settings()), make=broken)


class Sleeper(SegmentWorker):
    """A network that takes 50 ms a frame, and nothing of the processor."""

    def encoded(self, plan: JobPlan, job: JobRecord, number: int, folder: Path, on_progress: Any) -> SegmentRecord:
        time.sleep(0.05 * LENGTH_OF_SLEEP)
        return super().encoded(plan, job, number, folder, on_progress)


LENGTH_OF_SLEEP = 20


def seconds_with(workers: int, source: Path, dest: Path) -> float:
    """Seconds from the first segment handed out to the last one back: start-up and joining left out."""
    taken: list[float] = []

    class Timed(DistributedMaker):
        def collect(self, crew: Any, missing: list[int], report: Any) -> None:
            crew._actors = dict(list(crew._actors.items())[:workers])
            started = time.monotonic()
            super().collect(crew, missing, report)
            taken.append(time.monotonic() - started)

    options = settings(segment_frames=LENGTH_OF_SLEEP)
    run(prepare(source, dest, options), make=lambda *arguments: Timed(*arguments, worker=Sleeper))
    return taken[0]


@pytest.mark.slow
def test_more_workers_are_faster(cluster: Any, tmp_path: Path) -> None:
    """400 frames of 50 ms: two workers at least 1.9 times, four at least 3.6 times as fast as one."""
    source = make_source(tmp_path / "in.mkv", pts=[40 * n for n in range(400)], time_base=Fraction(1, 1000))
    seconds = {workers: seconds_with(workers, source, tmp_path / f"{workers}.mkv") for workers in (1, 2, 4)}
    print({workers: seconds[1] / value for workers, value in seconds.items()}, seconds)
    assert seconds[1] / seconds[2] >= 1.9
    assert seconds[1] / seconds[4] >= 3.6


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(cluster: Any, tmp_path: Path) -> None:
    """The real network, one core each: bit for bit."""
    clip = ROOT / "examples" / "clip.mp4"
    options = JobOptions().with_changes(model="a2n", device="cpu", engine="torch", codec="ffv1", frames=12, segment_frames=4, threads=1)
    upscale_video(clip, tmp_path / "one.mkv", options)
    distributed.upscale_video(clip, tmp_path / "two.mkv", options)
    assert decoded(tmp_path / "one.mkv") == decoded(tmp_path / "two.mkv")


DRIVER = """
import sys
from tests.job.test_distributed import settings
from a2n_video.job.distributed import upscale_video
upscale_video(sys.argv[1], sys.argv[2], settings(ray_address=sys.argv[3]), on_progress=lambda frames: print(frames, flush=True))
"""


def test_the_driver_killed_goes_on(cluster: Any, source: Path, expected: list[tuple[int, Fraction, str]], tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(source), str(tmp_path / "out.mkv"), cluster.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if int(line) >= 60:
                driver.kill()
                break
    assert not (tmp_path / "out.mkv").exists()
    result = run(prepare(source, tmp_path / "out.mkv", settings()))
    assert result.resumed_frames >= 20
    assert decoded(tmp_path / "out.mkv") == expected


def test_places() -> None:
    assert places_for_workers({"CPU": 8.0}, ClusterOptions(cpus_per_worker=4)) == [{"num_cpus": 4}] * 2
    assert places_for_workers({"CPU": 8.0, "GPU": 2.0}, ClusterOptions()) == [{"num_cpus": 1, "num_gpus": 1}] * 2
    assert places_for_workers({"CPU": 2.0}, ClusterOptions(devices=("cuda:0", "cuda:1", "cpu")))[1:] == [
        {"num_cpus": 1, "num_gpus": 1},
        {"num_cpus": 1, "num_gpus": 0},
    ]


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code = main(["-q", str(ROOT / "examples" / "clip.mp4"), str(tmp_path / "out.mkv"), "--model", "nearest", "--ray"])
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "pip install 'a2n-video[ray]'" in lines[0]
    assert list(tmp_path.iterdir()) == []
