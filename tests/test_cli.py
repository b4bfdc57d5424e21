"""What the command line says, and with which exit code, beside the jobs themselves."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from a2n_video import cli
from a2n_video.errors import INTERRUPTED
from tests.made import make_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "in.mkv", pts=range(6))


def test_a_traceback_changes_no_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path / "none.mkv"), str(tmp_path / "out.mkv")]
    assert cli.main(command) == 3
    plain = capsys.readouterr().err
    assert plain.count("\n") == 1
    assert cli.main([*command, "-v"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told and told.endswith(plain)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.mkv", "out.mkv"], "the same command goes on from here"),
        (["in.mkv", "--output-dir", "out"], "the same command goes on from here"),
        (["in.mkv", "out.mkv", "--no-resume"], "the same command begins anew"),
        (["in.mkv", "out.y4m"], "the same command begins anew"),
        (["in.mkv", "--preview", "look.png"], "the same command begins anew"),
    ],
)
def test_a_stop_says_what_the_same_command_will_do(
    arguments: Sequence[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    make_source(tmp_path / "in.mkv", pts=range(2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_dispatch", stopped)
    assert cli.main(arguments) == INTERRUPTED
    assert capsys.readouterr().err == f"a2n-video: stopped; {words}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--scale", "2"], ["--json"], ["--preview", "p.png"], ["--output-dir", "d"], ["in.mkv"], ["in.mkv", "out.mkv", "third.mkv"]],
)
def test_the_wrong_number_of_files_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("a2n-video: ") and told.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run([sys.executable, "-m", "a2n_video.cli", "--list-models"], stdout=gone, stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "a2n_video.cli", "--list-models"], stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 5
    assert done.stderr == b"a2n-video: -: what was asked for cannot be written to stdout: No space left on device\n"


def test_options_may_stand_between_the_files(source: Path, tmp_path: Path) -> None:
    assert cli.main([str(source), "--model", "nearest", "-q", str(tmp_path / "out.mkv"), "--preset", "ultrafast"]) == 0
    assert (tmp_path / "out.mkv").exists()


def test_what_cannot_be_parsed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--frames", "0"],
        ["--stall-timeout", "-5"],
        ["--segment-frames", "none"],
        ["--max-errors", "-1"],
        ["--devices", ","],
        ["--no-such"],
    ):
        assert cli.main(["in.mkv", "out.mkv", *arguments]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and arguments[0] in told and "--help" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.mkv", "out.mkv", "--at", "3"], "--preview"),
        (["in.mkv", "out.mkv", "--at", "0"], "--preview"),
        (["in.mkv", "out.mkv", "--models", "a2n"], "--preview"),
        (["in.mkv", "out.mkv", "--name-pattern", "{stem}"], "--output-dir"),
        (["in.mkv", "out.mkv", "--ship"], "--ray"),
        (["in.mkv", "out.mkv", "--cpus-per-worker", "2"], "--ray"),
        (["in.mkv", "out.mkv", "--pipe-format", "nut"], "on a pipe"),
        (["in.mkv", "--preview", "p.png", "--dry-run"], "--dry-run"),
        (["in.mkv", "--preview", "p.png", "--log-file", "log"], "--log-file"),
    ],
)
def test_an_option_that_would_do_nothing_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_log_is_never_written_into_the_source_or_the_result(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source.read_bytes()
    monkeypatch.chdir(tmp_path)
    for log in (source, tmp_path / "out.mkv", Path("in.mkv")):
        assert cli.main([str(source), str(tmp_path / "out.mkv"), "--model", "nearest", "--log-file", str(log)]) == 2
    assert source.read_bytes() == before and not (tmp_path / "out.mkv").exists()


def test_a_job_is_not_lost_for_a_log_that_is_full(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = [str(source), str(tmp_path / "out.mkv"), "--model", "nearest", "-q", "--log-file", "/dev/full"]
    assert cli.main(command) == 0
    assert caplog.text.count("takes no more events") == 1


def test_a_reader_of_events_that_goes_costs_nothing(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out.mkv"
    job = subprocess.Popen(
        [sys.executable, "-m", "a2n_video.cli", str(source), str(dest), "--model", "nearest", "--json", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    job.stdout.close()
    _, err = job.communicate(timeout=60)
    assert job.returncode == 0 and dest.exists() and "Traceback" not in err


@contextmanager
def nobody_listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stderr is a pipe whose reader has gone; flushed at the end, as the interpreter does."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        yield


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["in.mkv", "out.mkv"], 0),
        (["in.mkv", "copy.mkv", "none.mkv", "--output-dir", "."], 8),
        (["none.mkv", "out.mkv", "-v"], 3),
        (["in.mkv", "out.mkv", "--no-such"], 2),
    ],
)
def test_a_job_is_not_lost_because_nobody_listens(
    arguments: list[str], code: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(source, "copy.mkv")
    with nobody_listening(monkeypatch):
        assert cli.main([*arguments, "--model", "nearest"]) == code
    made = {0: {"out.mkv"}, 8: {"in_x2.mkv", "copy_x2.mkv"}}.get(code, set())
    assert {path.name for path in tmp_path.iterdir()} == {"in.mkv", "copy.mkv", *made}


def test_the_bar_goes_on_where_nobody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_listening(monkeypatch), cli._Bar(3, show=True) as bar:
        for frames in range(4):
            bar.update(frames)
        assert bar._bar.n == 3


def test_without_a_stderr_nothing_is_said_on_stdout(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main([str(source), "-", "--model", "nearest"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"YUV4MPEG2")
    assert cli.main([str(source), str(tmp_path / "out.mkv"), "--model", "nearest"]) == 0
    assert cli.main([str(source), str(tmp_path / "out.mkv"), "--model", "nearest", "-v"]) == 5
    assert capfdbinary.readouterr().out == b""


def test_without_a_stdout_events_go_to_the_log_alone(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    log = tmp_path / "log"
    assert cli.main([str(source), str(tmp_path / "out.mkv"), "--model", "nearest", "--json", "--log-file", str(log)]) == 0
    assert '"verified"' in log.read_text()


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = """
import os, sys
from a2n_video.cli import main
main(["--no-such"])
os.write(os.open(sys.argv[1], os.O_RDWR), b"ours")
os.write(2, b"a library's")
"""
    (tmp_path / "file").touch()
    command = ["sh", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, code, str(tmp_path / "file")]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert (tmp_path / "file").read_bytes() == b"ours"


def test_a_name_that_is_no_text_is_told_on_a_strict_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    try:
        source = make_source(tmp_path / os.fsdecode(b"in\xff.mkv"), pts=range(2))
    except OSError:
        pytest.skip("names are text here")
    assert cli.main([str(source), str(tmp_path / "out.mkv"), "--model", "nearest", "--dry-run"]) == 0
    out.flush()
    assert b"in\\udcff.mkv: h264" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_the_bar_counts_the_pace_of_this_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100.0, 0.5)
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    monkeypatch.setattr(cli.time, "time", lambda: next(clock))
    with cli._Bar(75, show=True) as bar:
        for frames in range(41, 60):
            bar.update(frames)
        shown = bar._bar.format_dict
    assert shown["initial"] == 41 and shown["n"] == 59
    assert (shown["n"] - shown["initial"]) / shown["elapsed"] < 3
