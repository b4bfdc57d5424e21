"""What goes to stdout arrives whole, whatever kind of stream that is, and nobody has to read for a stop to take effect."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from a2n_video.errors import INTERRUPTED, TERMINATED, EncodeError, OutputError
from a2n_video.io.y4m import told_of_pipe
from a2n_video.job.outgoing import Outgoing
from a2n_video.job.run import upscale_video
from a2n_video.job.stages import Patience, Stages, left_behind
from a2n_video.job.stops import Stops
from tests.job import child
from tests.made import make_source

FRAMES = 120
Y4M_BYTES = FRAMES * (320 * 192 * 3 // 2 + len("FRAME\n"))  # and the header


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("out") / "in.mkv", pts=range(FRAMES), size=(160, 96))


class _Sipping(io.BytesIO):
    """Takes a few bytes at a time, as a raw stream may when a signal comes."""

    def write(self, data: object) -> int:
        return super().write(bytes(memoryview(data)[:7]))  # type: ignore[arg-type]


def test_what_a_stream_does_not_take_at_once_is_written_again() -> None:
    stream = _Sipping()
    with Stages() as stages:
        assert Outgoing(stream, stages).write(bytes(range(200))) == 200  # type: ignore[arg-type]
    assert stream.getvalue() == bytes(range(200))


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    data, got = os.urandom(1 << 20), bytearray()

    def slowly() -> None:
        while chunk := os.read(read, 1 << 15):
            got.extend(chunk)
            time.sleep(0.001)

    reader = threading.Thread(target=slowly)
    reader.start()
    with Stages() as stages, os.fdopen(write, "wb", buffering=0) as stream:
        Outgoing(stream, stages).write(data)
    reader.join()
    os.close(read)
    assert got == data


def test_a_reader_that_pauses_is_no_stage_that_hangs() -> None:
    class Paused(io.BytesIO):
        def write(self, data: object) -> int:
            time.sleep(0.5)
            return super().write(data)  # type: ignore[arg-type]

    with Stages(patience=Patience.asked(0.1)) as stages:
        assert Outgoing(Paused(), stages).write(b"frame") == 5  # type: ignore[arg-type]


def test_a_stop_goes_before_what_it_did_to_the_reader() -> None:
    """Ctrl-C goes to every program of a pipeline: that the reader ended is no error then."""

    class Gone(io.RawIOBase):
        stopped = False

        def write(self, data: object) -> int:
            if self.stopped:
                os.kill(os.getpid(), signal.SIGINT)
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    stream = Gone()
    with Stops() as stops, Stages("in", stops) as stages:
        with pytest.raises(EncodeError), told_of_pipe("frame 1"):
            Outgoing(stream, stages).write(b"frame")
        stream.stopped = True
        with pytest.raises(KeyboardInterrupt), stops.deferred(), told_of_pipe("frame 2"):
            Outgoing(stream, stages).write(b"frame")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own answer to Ctrl-C, also where whoever started the tests has the signal ignored, as a shell does in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_stop_of_a_programs_own_leaves_the_write_behind() -> None:
    read, write = os.pipe()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with os.fdopen(write, "wb", buffering=0) as stream:
        with pytest.raises(KeyboardInterrupt), Stages() as stages:
            Outgoing(stream, stages).write(bytes(1 << 20))
        assert time.monotonic() - began < 2.5 and left_behind()
        os.close(read)  # which ends the thread
        while left_behind():
            time.sleep(0.01)


def test_there_must_be_a_stdout(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="stdout is closed"):
        upscale_video(source, "-", model="nearest", pipe_format="nut")


def run(source: Path, *more: str, stdout: int, limit: int | None = None) -> subprocess.Popen[bytes]:
    """The command line as containers have it: Python's own streams are not buffered."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = child.command(source, "-", "--model", "nearest", "-q", *more)
    environment = os.environ | {"PYTHONPATH": str(child.ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, preexec_fn=limited)


def test_a_result_cut_off_in_its_last_frame_is_no_success(source: Path, tmp_path: Path) -> None:
    with (tmp_path / "out.y4m").open("wb") as file:
        job = run(source, stdout=file.fileno(), limit=Y4M_BYTES - 1000)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 5 and b"could not be written" in told
    assert (tmp_path / "out.y4m").stat().st_size == Y4M_BYTES - 1000


def wait_until_full(pipe: int) -> None:
    """Until the bytes in a pipe stay as many as they are."""
    held, until = 0, time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.1)
        before, held = held, int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
        if held and held == before:
            return


@pytest.mark.skipif(sys.platform != "linux", reason="how full a pipe is")
@pytest.mark.parametrize(
    ("more", "number", "code"),
    [([], signal.SIGINT, INTERRUPTED), (["--pipe-format", "nut", "--codec", "ffv1"], signal.SIGTERM, TERMINATED)],
)
def test_a_stop_takes_effect_while_nobody_reads(source: Path, more: list[str], number: int, code: int) -> None:
    job = run(source, *more, stdout=subprocess.PIPE)
    assert job.stdout is not None
    wait_until_full(job.stdout.fileno())
    job.send_signal(number)
    sent = time.monotonic()
    try:
        assert job.wait(30) == code
        assert time.monotonic() - sent < 2.5
    finally:
        job.kill()
        job.communicate()
