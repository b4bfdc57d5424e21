"""One job on several workers: whatever they do (die, doubled, damaged, late results), the result is that of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video import upscale_video
from a2n_video.cli import main
from a2n_video.errors import DecodeError, DeviceError, IncompleteSourceError, OptionError, OutputError
from a2n_video.job.cluster.worker import Made, SegmentWorker, Setup
from a2n_video.job.journal import Journal
from a2n_video.job.planning.plan import JobPlan, prepare
from a2n_video.job.run import run
from a2n_video.job.segments import Stretch
from a2n_video.options import ClusterOptions, JobOptions
from tests.conftest import ROOT
from tests.made import decoded, make_source
from tests.sleeper import Sleeper, loopback_cluster

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

from a2n_video.job.cluster import distributed  # noqa: E402
from a2n_video.job.cluster.distributed import DistributedMaker, places_for_workers  # noqa: E402

SEGMENTS, LENGTH = 40, 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Four nodes; workers do not see the tests' modules, so their classes travel by value."""
    with loopback_cluster() as local:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield local


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

    def make(self, stretch: Stretch, source: bytes | None) -> Made:
        number, plan = stretch.first_number, self._plan
        if number % 5 == 2 and self._first(plan, "killed", number):
            os.kill(os.getpid(), signal.SIGKILL)
        made = super().make(stretch, source)
        if number % 20 == 3 and self._first(plan, "damaged", number):
            self._damage(plan, made)
        if number % 20 == 4 and self._first(plan, "late", number):
            time.sleep(2)
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
    """A driver that has every tenth segment made by two workers, and gets each of those results twice."""

    doubled = 0

    def collect(self, crew: Any, on_progress: Any) -> None:
        for number in range(1, SEGMENTS, 10):
            self._board._waiting.insert(self._board._waiting.index(number), number)
        super().collect(crew, on_progress)

    def _received(self, number: int, worker: int, made: Made, crew: Any) -> None:
        super()._received(number, worker, made, crew)
        if number % 10 == 1:
            super()._received(number, worker, made, crew)
            Doubling.doubled += 1


def chaotic(plan: JobPlan, folder: Any, journal: Any, stops: Any) -> DistributedMaker:
    return Doubling(plan, folder, journal, stops, worker=Chaos)


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
    assert Doubling.doubled >= SEGMENTS // 10
    assert seen[-1] == SEGMENTS * LENGTH
    assert not (tmp_path / "out.mkv.a2n").exists()


@pytest.mark.parametrize("changes", [{}, {"sandbox": True, "segment_frames": 10 * LENGTH}], ids=["plain", "sandbox"])
def test_shipped_parts_make_the_same(
    cluster: Any, source: Path, expected: list[tuple[int, Fraction, str]], tmp_path: Path, changes: dict[str, Any]
) -> None:
    result = upscale_video(source, tmp_path / "out.mkv", settings(ship=True, **changes))
    assert result.frames == SEGMENTS * LENGTH
    assert decoded(tmp_path / "out.mkv") == expected


def test_a_source_that_crashes_its_demuxer_costs_the_driver_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts to be shipped are cut out in a child process too."""
    plan = prepare(source, tmp_path / "out.mkv", settings(ship=True, sandbox=True))
    end = plan.time_map.times[LENGTH]
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(distributed.part_of_source(plan, None, end))
    assert decoded(cut)[:LENGTH] == decoded(source)[:LENGTH]
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\nfrom a2n_video.io.mux import shipping\nshipping._until = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DecodeError, match="SIGSEGV"):
        distributed.part_of_source(plan, None, end)


class Stranger(SegmentWorker):
    """A worker with another version of av."""

    def _versions(self) -> dict[str, str]:
        return {**super()._versions(), "av": "1.2.3"}


class OneStranger(SegmentWorker):
    """Workers of which the first has other weights."""

    def differences(self) -> list[str]:
        return ["weights abc there, def here (SHA-256)"] if self._number == 0 else super().differences()


class Patient(DistributedMaker):
    """A driver that begins only once every worker has answered."""

    def collect(self, crew: Any, on_progress: Any) -> None:
        while crew._joining:
            crew.wait(0.1)
        super().collect(crew, on_progress)


def with_worker(worker: type[SegmentWorker], maker: type[DistributedMaker] = Patient) -> Any:
    return lambda *arguments: maker(*arguments, worker=worker)


def test_workers_that_differ_are_refused_by_name(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"av 1\.2\.3 there, \d+\.\d+\.\d+ here"):
        run(prepare(source, tmp_path / "out.mkv", settings()), make=with_worker(Stranger))


def test_one_worker_refused_leaves_the_work_to_the_others(
    cluster: Any, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(prepare(source, tmp_path / "out.mkv", settings(frames=20)), make=with_worker(OneStranger))
    assert result.frames == 20
    assert "worker 0 on" in caplog.text
    assert "weights abc there, def here" in caplog.text


class Blind(SegmentWorker):
    """A worker on a machine without the source's folder."""

    def __init__(self, number: int, setup: Setup, tally: Any) -> None:
        super().__init__(number, replace(setup, plan=replace(setup.plan, source=Path("/nowhere/in.mkv"))), tally)


def test_a_worker_that_does_not_see_the_files_says_so(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"in\.mkv is not seen there .*--ship"):
        run(prepare(source, tmp_path / "out.mkv", settings()), make=with_worker(Blind))


class Full(SegmentWorker):
    """Workers of which the first has a full disk."""

    def encoded(self, *arguments: Any) -> Any:
        if self._number == 0:
            raise OutputError("the disk is full")
        return super().encoded(*arguments)


class AllFull(SegmentWorker):
    """Workers whose disks are full."""

    def encoded(self, *arguments: Any) -> Any:
        raise OutputError("the disk is full")


def test_a_full_disk_costs_a_retry(
    cluster: Any, source: Path, expected: list[tuple[int, Fraction, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(prepare(source, tmp_path / "out.mkv", settings()), make=with_worker(Full))
    assert decoded(tmp_path / "out.mkv") == expected
    assert "failed 3 times in a row: the disk is full" in caplog.text


def test_an_error_that_stays_ends_the_job(cluster: Any, source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="disk is full"):
        run(prepare(source, tmp_path / "out.mkv", settings()), make=with_worker(AllFull))
    assert (tmp_path / "out.mkv.a2n" / "journal.jsonl").exists()


class Hanging(SegmentWorker):
    """A worker that never comes back from one segment, once."""

    def make(self, stretch: Stretch, source: bytes | None) -> Made:
        mark = self._plan.dest.parent / "hung"
        if stretch.first_number == 1 and not mark.exists():
            mark.touch()
            time.sleep(1000)
        return super().make(stretch, source)


def test_a_worker_that_hangs_is_started_again(cluster: Any, source: Path, tmp_path: Path) -> None:
    """Also where it is the only one, so that nobody can take its segment over."""
    options = settings(frames=20, lease_s=0.5, devices=("cpu",))
    assert run(prepare(source, tmp_path / "out.mkv", options), make=with_worker(Hanging)).frames == 20
    assert (tmp_path / "hung").exists()


def seconds_with(workers: int, source: Path, dest: Path, **changes: Any) -> float:
    """Seconds from the first segment handed out to the last one back: start-up and joining left out."""
    taken: list[float] = []

    class Timed(DistributedMaker):
        def collect(self, crew: Any, on_progress: Any) -> None:
            while len(crew.members) < workers:
                crew.wait(0.1)
            started = time.monotonic()
            super().collect(crew, on_progress)
            taken.append(time.monotonic() - started)

    options = settings(**{"segment_frames": None, "devices": ("cpu",) * workers, **changes})
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
    """The real tiny network, one core each: bit for bit."""
    clip = ROOT / "examples" / "clip.mp4"
    options = JobOptions().with_changes(model="a2n-tiny", device="cpu", codec="ffv1", frames=48, segment_frames=6, threads=1)
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    upscale_video(clip, one, options)
    rates: dict[int, float] = {}
    maker = distributed.maker_telling(rates.update)
    run(prepare(clip, two, options.with_changes(devices=("cpu", "cpu"))), make=lambda *arguments: maker(*arguments, worker=SegmentWorker))
    assert set(rates) == {0, 1}, "both workers had segments"
    assert decoded(one) == decoded(two)


def test_workers_of_another_kind_settle_the_engine(cluster: Any, tmp_path: Path) -> None:
    """A driver with a card whose workers have none: one of them chooses engine and arithmetic for all."""
    options = JobOptions().with_changes(model="a2n-tiny", codec="ffv1", frames=6, segment_frames=3, devices=("cpu", "cpu"))
    plan = prepare(ROOT / "examples" / "clip.mp4", tmp_path / "out.mkv", options.with_changes(ray=True))
    carded = replace(plan, execution=replace(plan.execution, engine="accelerator", device="cuda:1", dtype="float16"))
    assert run(carded).frames == 6


def test_workers_find_files_that_are_named_from_here(cluster: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's working directory is that in which Ray was started."""
    weights = ROOT / "a2n_video" / "net" / "data" / "a2n-tiny_x2.safetensors"
    for path in (source, weights):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    options = settings(model="auto", weights=weights.name, device="cpu", frames=2 * LENGTH, devices=("cpu",))
    assert run(prepare(Path(source.name), Path("out.mkv"), options)).frames == 2 * LENGTH


def test_marks_by_speed_are_kept(cluster: Any, source: Path, expected: list[tuple[int, Fraction, str]], tmp_path: Path) -> None:
    """A new job is cut by what its workers do; a run that goes on with another number of workers obeys the journal's marks."""

    def stop(frames: int) -> None:
        if frames >= SEGMENTS * LENGTH // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(prepare(source, tmp_path / "out.mkv", settings(segment_frames=None)), stop)
    with Journal.open(tmp_path / "out.mkv.a2n" / "journal.jsonl") as journal:
        assert journal.job is not None
        marks, before = journal.job.marks, set(journal.segments)
    after: list[int] = []
    options = settings(segment_frames=None, devices=("cpu",))
    result = run(prepare(source, tmp_path / "out.mkv", options), on_segment=lambda record: after.append(record.number))
    assert before
    assert sorted([*before, *after]) == list(range(len(marks) + 1))
    assert result.frames == SEGMENTS * LENGTH
    assert result.resumed_frames > 0
    assert decoded(tmp_path / "out.mkv") == expected


@pytest.fixture(scope="module")
def damaged(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with every 13th picture overwritten."""
    path = tmp_path_factory.mktemp("damaged") / "in.mkv"
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for payload in packets[7::13]:
        place = data.find(payload)
        data[place + 6 : place + len(payload)] = b"\xff" * (len(payload) - 6)
    path.write_bytes(bytes(data))
    return path


def test_damage_is_counted_over_all_workers(cluster: Any, damaged: Path, tmp_path: Path) -> None:
    """Errors, stand-ins and the first place are those of one process, and so is the bound on errors."""
    one = upscale_video(damaged, tmp_path / "one.mkv", settings(), ray=False)
    assert one.damage.errors > SEGMENTS // 4, "the case needs errors in several segments"
    many = upscale_video(damaged, tmp_path / "many.mkv", settings())
    assert many.damage == one.damage
    assert many.exit_code == 4
    # What FFmpeg paints where a picture is damaged depends on its threads, from run to run; its time does not.
    times = [[(pts, base) for pts, base, _ in decoded(tmp_path / name)] for name in ("one.mkv", "many.mkv")]
    assert times[0] == times[1]
    bound = one.damage.errors - 1
    for changes in ({"max_errors": bound}, {"fail_on_damage": True}):
        with pytest.raises(IncompleteSourceError, match=r"decode errors, the first at packet") as refused:
            upscale_video(damaged, tmp_path / "refused.mkv", settings(restart=True, **changes))
        assert f"max_errors {one.damage.errors}" in str(refused.value) or changes != {"max_errors": bound}


def test_progress_and_events_of_several_workers(cluster: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each segment is told once, frames never fall, and each worker's speed stands beside them."""
    words = ["--json", "-q", str(source), str(tmp_path / "out.mkv"), "--ray", "--model", "nearest", "--codec", "ffv1"]
    assert main([*words, "--segment-frames", str(LENGTH)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("plan", "verified")
    assert sorted(event["number"] for event in events if event["event"] == "segment") == list(range(SEGMENTS))
    assert sum(event["frames"] for event in events if event["event"] == "segment") == SEGMENTS * LENGTH
    progress = [event for event in events if event["event"] == "progress"]
    frames = [event["frames"] for event in progress]
    assert frames == sorted(frames)
    assert frames[-1] == progress[-1]["of"] == SEGMENTS * LENGTH
    assert set(progress[-1]["workers"]) <= {"0", "1", "2", "3"}
    assert all(fps > 0 for fps in progress[-1]["workers"].values())


DRIVER = """
import sys
from tests.job.cluster.test_distributed import settings
from a2n_video import upscale_video
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
    cards = places_for_workers({"CPU": 2.0}, ClusterOptions(devices=("cuda:0", "cuda:1")))
    assert cards == [{"num_cpus": 1, "num_gpus": 1}] * 2
    assert places_for_workers({"CPU": 2.0}, ClusterOptions(devices=("cpu",))) == [{"num_cpus": 1, "num_gpus": 0}]
    with pytest.raises(OptionError, match="one kind"):
        places_for_workers({"CPU": 2.0}, ClusterOptions(devices=("cuda:0", "cpu")))


LISTENERS = """
import os
from pathlib import Path
from a2n_video.job.cluster.distributed import connected
from a2n_video.options import ClusterOptions
connected(ClusterOptions(ray=True))
family, parents = {os.getpid()}, {}
for stat in Path("/proc").glob("[0-9]*/stat"):
    parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
while more := {pid for pid, parent in parents.items() if parent in family} - family:
    family |= more
held = {os.readlink(fd) for pid in family for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
            print(fields[1].partition(":")[0])
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's tables of sockets")
def test_a_cluster_of_this_machine_listens_on_loopback_only() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    told = subprocess.run([sys.executable, "-c", LISTENERS], capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    addresses = set(told.stdout.split())
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "a2n_video", "-q", "--model", "nearest", "--codec", "ffv1", *map(str, words)]


def test_no_cluster_at_the_address_is_said_at_once(tmp_path: Path) -> None:
    words = command(ROOT / "examples" / "clip.mp4", tmp_path / "out.mkv", "--ray-address", "127.0.0.1:1")
    told = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert told.returncode == 6, told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert "no Ray cluster at 127.0.0.1:1" in told.stderr


def test_a_stop_is_in_order_under_ray_too(cluster: Any, source: Path, tmp_path: Path) -> None:
    """Ray's own handler of SIGTERM would end the process with another code."""
    words = command(source, tmp_path / "out.mkv", "--json", "--segment-frames", LENGTH, "--ray-address", cluster.address)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as driver:
        assert driver.stdout is not None
        assert driver.stderr is not None
        next(line for line in driver.stdout if json.loads(line)["event"] == "segment")
        driver.terminate()
        assert json.loads(driver.stdout.read().splitlines()[-1])["exit_code"] == 143
        assert "the same command goes on" in driver.stderr.read()
    assert driver.returncode == 143
    assert not (tmp_path / "out.mkv").exists()


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code = main(["-q", str(ROOT / "examples" / "clip.mp4"), str(tmp_path / "out.mkv"), "--model", "nearest", "--ray"])
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "pip install 'a2n-video[ray]'" in lines[0]
    assert list(tmp_path.iterdir()) == []
