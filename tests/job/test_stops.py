"""SIGINT and SIGTERM: the open segment is dropped, what to do next is said, and the same command goes on.

The complete form, 25 of each signal: `pytest -m slow tests/job/test_stops.py`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from a2n_video.errors import INTERRUPTED, TERMINATED
from a2n_video.job.directory import job_path
from a2n_video.job.stops import Stops, Terminated, exit_code_of_stop
from tests.job import child
from tests.made import decoded, make_source

CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
FRAMES = 200
STOPS_WITHIN_S = 2.5  # two seconds, and a frame on a busy machine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(
        tmp_path_factory.mktemp("stops") / "in.mkv", pts=range(0, 40 * FRAMES, 40), time_base=Fraction(1, 1000), size=(160, 96)
    )


def arguments(source: Path, dest: Path) -> list[str | Path]:
    return [source, dest, "--model", "nearest", "--segment-frames", "24", "--preset", "slow"]


@pytest.fixture(scope="module")
def unbroken(source: Path) -> list[tuple[int, Fraction, str]]:
    dest = source.with_name("unbroken.mkv")
    assert child.run(*arguments(source, dest)).returncode == 0
    return decoded(dest)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a run has got so far (or has ended)."""
    until = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)


def stop(source: Path, dest: Path, number: signal.Signals, delay: float) -> tuple[int, str, float]:
    process = child.start(*arguments(source, dest))
    wait_for(job_path(dest), process)
    time.sleep(delay)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    return process.returncode, err, time.monotonic() - sent


def check_stop(source: Path, dest: Path, number: signal.Signals, delay: float, unbroken: list[tuple[int, Fraction, str]]) -> bool:
    """Whether the signal came in time to stop anything."""
    code, err, took = stop(source, dest, number, delay)
    if "verified:" in err:  # too late: the job was done, at most the interpreter was still ending
        assert decoded(dest) == unbroken
        return False
    assert code == CODES[number], err
    assert took < STOPS_WITHIN_S
    assert err.strip().splitlines()[-1].startswith("a2n-video: stopped; the same command goes on")
    assert "Traceback" not in err
    assert not dest.exists()
    assert not list(job_path(dest).glob("*.part"))
    done = child.run(*arguments(source, dest))
    assert done.returncode == 0, done.stderr
    assert decoded(dest) == unbroken
    return True


@pytest.mark.parametrize("number", CODES)
def test_signals_stop_in_order(source: Path, tmp_path: Path, number: signal.Signals, unbroken: list[tuple[int, Fraction, str]]) -> None:
    rng = random.Random(int(number))
    stopped = [check_stop(source, tmp_path / f"{n}.mkv", number, rng.uniform(0, 0.5), unbroken) for n in range(3)]
    assert any(stopped)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", CODES)
def test_signals_stop_in_order_25_times(
    source: Path, tmp_path: Path, number: signal.Signals, unbroken: list[tuple[int, Fraction, str]]
) -> None:
    rng = random.Random(int(number) + 100)
    stopped = [check_stop(source, tmp_path / f"{n}.mkv", number, rng.uniform(0, 0.8), unbroken) for n in range(25)]
    assert sum(stopped) > 10


@pytest.mark.parametrize("number", CODES)
def test_a_stop_while_the_model_loads_does_not_wait_for_it(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = child.start(*arguments(source, tmp_path / "out.mkv"), mode="load", point=tmp_path / "loading")
    wait_for(tmp_path / "loading", process)
    time.sleep(0.3)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < STOPS_WITHIN_S
    assert process.returncode == CODES[number], err


def test_no_resume_keeps_nothing(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out.mkv"
    process = child.start(*arguments(source, dest), "--no-resume")
    wait_for(job_path(dest) / "journal.jsonl", process)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "stopped; the same command begins anew" in str(err)
    assert list(tmp_path.iterdir()) == []


def test_the_second_signal_is_at_once(tmp_path: Path) -> None:
    code = """
import time
from a2n_video.job.stops import Stops
with Stops():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("first", flush=True)
        time.sleep(60)
"""
    for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=child.ROOT)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "first\n"
        process.send_signal(second)
        assert process.wait(5) == CODES[second]
        process.stdout.close()


def test_a_stop_that_was_lost_in_a_callback_is_raised_at_the_next_frame() -> None:
    before = signal.getsignal(signal.SIGTERM)  # another library's, where one was used in this process
    with Stops() as stops:
        stops.check()
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Terminated) as caught:
            stops.check()
        assert exit_code_of_stop(caught.value) == TERMINATED
    assert signal.getsignal(signal.SIGTERM) == before
