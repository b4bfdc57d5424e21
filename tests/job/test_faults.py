"""Whatever fails, wherever: the right exit code, nothing left running, the old output as it was, and the same command goes on.

The complete form of the full disk, 50 places with ENOSPC and 50 with EFBIG: `pytest -m slow tests/job/test_faults.py`.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from a2n_video.engine import nearest
from a2n_video.errors import A2NVideoError, DecodeError, DeviceError, EncodeError, OutputError, VerificationError, exit_code
from a2n_video.io import reader as reader_module
from a2n_video.io.faults import listening
from a2n_video.io.writer import VideoWriter
from a2n_video.job import encode, finish, run
from a2n_video.job.directory import job_path
from a2n_video.job.planning import picture
from a2n_video.job.result import UpscaleResult
from a2n_video.job.run import upscale_video
from a2n_video.job.segments import SegmentedWriter
from a2n_video.job.stages import left_behind
from tests.job import child
from tests.made import decoded, make_source

FRAMES = 36
OLD = b"the old output"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("faults") / "a.mkv", pts=range(FRAMES))


@pytest.fixture(scope="module")
def unbroken(clip: Path) -> list[Any]:
    upscale(clip, clip.with_name("unbroken.mkv"))
    return decoded(clip.with_name("unbroken.mkv"))


def upscale(source: Path, dest: Path, **changes: Any) -> UpscaleResult:
    return upscale_video(source, dest, model="nearest", preset="ultrafast", segment_frames=10, overwrite=True, **changes)


def stop_at(wanted: int, source: Path, dest: Path) -> None:
    """A run that is stopped after so many frames."""

    def stop(frames: int) -> None:
        if frames == wanted:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(source, dest, model="nearest", preset="ultrafast", segment_frames=10, on_progress=stop)


def command(source: Path, dest: Path, *more: str | Path) -> list[str | Path]:
    """The command line that does what `upscale` does."""
    return [source, dest, "--model", "nearest", "--preset", "ultrafast", "--segment-frames", "10", "--overwrite", *more]


class Nth:
    """Does something the nth time it is asked."""

    def __init__(self, nth: int, act: Callable[[], None] = lambda: None) -> None:
        self.left, self.act = nth, act

    def now(self) -> bool:
        """Whether this is the time."""
        self.left -= 1
        return self.left == 0

    def __call__(self) -> None:
        if self.now():
            self.act()


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


Strike = Callable[[pytest.MonkeyPatch, Callable[[], None]], None]


def before(place: Any, name: str) -> Strike:
    """Strikes whenever a function of the product is called, before it does anything."""

    def patched(monkeypatch: pytest.MonkeyPatch, strike: Callable[[], None]) -> None:
        plain = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *given: (strike(), plain(*given))[1])

    return patched


def strike_join(monkeypatch: pytest.MonkeyPatch, strike: Callable[[], None]) -> None:
    """Whenever a packet comes to the result's file."""
    plain = finish.remux

    def remux(job: Any, file: Any, converted: Any, check: Callable[[], None]) -> Any:
        return plain(job, file, converted, lambda: (strike(), check())[1])

    monkeypatch.setattr(finish, "remux", remux)


STAGES = {
    "decode": before(reader_module, "native_frame"),
    "engine": before(nearest.NearestEngine, "submit"),
    "encode": before(VideoWriter, "write"),
}
ENDS = {"join": strike_join, "verify": before(finish, "verify")}
HANGS = {"decode": DecodeError, "engine": DeviceError, "encode": EncodeError}
END_HANGS = {"join": (OutputError, "the joining hung"), "verify": (VerificationError, "the verification hung")}
FAULTS: dict[str, tuple[BaseException, int]] = {
    "memory": (MemoryError("out of memory"), 1),
    "bug": (ZeroDivisionError("a bug"), 1),
    "device": (DeviceError("the device fell off"), 6),
    "shape": (ValueError("a plane has another shape"), 1),
    "encoder": (EncodeError("refused"), 5),
    "stop": (KeyboardInterrupt(), 130),
}


@pytest.fixture(autouse=True)
def only_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails here is the work itself, not the few frames that the encoder is tried on before."""
    monkeypatch.setattr(picture, "rehearse", lambda *_: None)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = {thread.ident for thread in threading.enumerate()}
    yield
    until = time.monotonic() + 5
    while left := [t for t in threading.enumerate() if t.ident not in before and t.is_alive()]:
        assert time.monotonic() < until, left
        time.sleep(0.01)


# A decoder that finds no memory is told as what it is.
TOLD = {("memory", "decode"): (DecodeError,)}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", [1, FRAMES // 2, FRAMES])
def test_a_fault_at_any_stage(clip: Path, tmp_path: Path, unbroken: list[Any], stage: str, fault: str, nth: int) -> None:
    dest = tmp_path / "out.mkv"
    dest.write_bytes(OLD)
    error, code = FAULTS[fault]
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        STAGES[stage](patch, Nth(nth, raises(error)))
        with pytest.raises(*TOLD.get((fault, stage), (type(error),))) as caught:
            upscale(clip, dest)
    assert time.monotonic() - started < 5
    assert exit_code(caught.value) == (3 if (fault, stage) in TOLD else code)
    assert dest.read_bytes() == OLD
    assert not list(job_path(dest).glob("*.part"))
    result = upscale(clip, dest)
    assert result.resumed_frames == (nth - 1) // 10 * 10 if stage == "encode" else result.resumed_frames % 10 == 0
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("stage", HANGS)
@pytest.mark.parametrize("nth", [1, FRAMES // 2, FRAMES])
def test_a_hang_at_any_stage(clip: Path, tmp_path: Path, unbroken: list[Any], stage: str, nth: int) -> None:
    dest = tmp_path / "out.mkv"
    dest.write_bytes(OLD)
    released = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        STAGES[stage](patch, Nth(nth, lambda: released.wait(60) and None))
        started = time.monotonic()
        with pytest.raises(HANGS[stage], match=r"hung.*stall_timeout"):
            upscale(clip, dest, stall_timeout=0.7)
        assert time.monotonic() - started < 5
    assert left_behind()
    assert dest.read_bytes() == OLD
    assert not list(job_path(dest).glob("*.part"))
    released.set()  # what was left behind comes back while the next run works, and touches nothing of it
    upscale(clip, dest)
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("stage", ENDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_the_end(clip: Path, tmp_path: Path, unbroken: list[Any], stage: str, fault: str) -> None:
    dest = tmp_path / "out.mkv"
    dest.write_bytes(OLD)
    error, code = FAULTS[fault]
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        ENDS[stage](patch, Nth(1, raises(error)))
        with pytest.raises(type(error)) as caught:
            upscale(clip, dest)
    assert time.monotonic() - started < 5
    assert exit_code(caught.value) == code
    assert dest.read_bytes() == OLD
    again = upscale(clip, dest)
    assert again.resumed_frames == FRAMES
    assert "36 frames, all of them by earlier runs, in" in again.summary
    assert "fps" not in again.summary
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("stage", ENDS)
def test_a_hang_at_the_end(clip: Path, tmp_path: Path, unbroken: list[Any], stage: str) -> None:
    dest = tmp_path / "out.mkv"
    dest.write_bytes(OLD)
    released = threading.Event()
    error, words = END_HANGS[stage]
    with pytest.MonkeyPatch.context() as patch:
        ENDS[stage](patch, Nth(1, lambda: released.wait(60) and None))
        started = time.monotonic()
        with pytest.raises(error, match=rf"{words}: nothing came of it for 1 s; .*stall_timeout"):
            upscale(clip, dest, stall_timeout=0.7)
        assert time.monotonic() - started < 5
    assert left_behind()
    assert dest.read_bytes() == OLD
    released.set()  # as above
    assert upscale(clip, dest).resumed_frames == FRAMES
    assert decoded(dest) == unbroken


def test_what_hangs_while_it_writes_the_result_keeps_that_file_to_itself(clip: Path, tmp_path: Path, unbroken: list[Any]) -> None:
    dest = tmp_path / "out.mkv"
    result = job_path(dest) / "result.mkv"
    released, writes, files = threading.Event(), Nth(3, lambda: released.wait(60) and None), []

    def hang(point: str) -> None:
        if point == "result.write.before":
            writes()

    def look(point: str) -> None:
        if point == "result.fsync.before":
            files.append(result.stat().st_ino)

    with listening(hang), pytest.raises(OutputError, match="the joining hung"):
        upscale(clip, dest, stall_timeout=0.7)
    files.append(result.stat().st_ino)
    with listening(look):
        upscale(clip, dest)
    assert files[0] != files[1]
    released.set()
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("stage", ENDS)
def test_an_end_that_reads_on_is_not_hung_unless_it_goes_round_in_circles(
    clip: Path, tmp_path: Path, unbroken: list[Any], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def read_for(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            clip.read_bytes()
            time.sleep(0.05)

    with monkeypatch.context() as patch:
        ENDS[stage](patch, Nth(1, lambda: read_for(2)))
        upscale(clip, tmp_path / "out.mkv", stall_timeout=0.7)
    assert decoded(tmp_path / "out.mkv") == unbroken
    monkeypatch.setattr(run, "MOVED_BYTES", 10 * clip.stat().st_size)
    monkeypatch.setattr(run, "MOVED_TIMES", 0)
    ENDS[stage](monkeypatch, Nth(1, lambda: read_for(4)))
    with pytest.raises(END_HANGS[stage][0], match="hung"):
        upscale(clip, tmp_path / "out.mkv", stall_timeout=0.7)


def test_slow_is_not_hung(clip: Path, tmp_path: Path, unbroken: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience grows with what a stage takes by itself, and a stage that waits for another is not at fault."""
    monkeypatch.setattr(encode, "_STALL_S", 0.3)
    monkeypatch.setattr(encode, "_STALL_S_PER_PIXEL", 0.0)
    STAGES["encode"](monkeypatch, Nth(2, lambda: time.sleep(0.2)))
    STAGES["engine"](monkeypatch, Nth(2, lambda: time.sleep(0.2)))
    STAGES["encode"](monkeypatch, Nth(FRAMES // 2, lambda: time.sleep(1.0)))  # five times the longest so far
    upscale(clip, tmp_path / "out.mkv")
    assert decoded(tmp_path / "out.mkv") == unbroken


def test_a_long_way_to_the_first_frame_is_not_a_hang(
    clip: Path, tmp_path: Path, unbroken: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "out.mkv"
    stop_at(35, clip, dest)
    STAGES["decode"](monkeypatch, lambda: time.sleep(0.08))
    upscale(clip, dest, stall_timeout=1.0)  # 30 frames are decoded, in 2.4 s, before the first is wanted
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("stage", [*HANGS, *END_HANGS])
def test_a_hang_by_command_ends_the_process(clip: Path, tmp_path: Path, unbroken: list[Any], stage: str) -> None:
    dest = tmp_path / "out.mkv"
    arguments = command(clip, dest)
    nth, error = (1, END_HANGS[stage][0]) if stage in END_HANGS else (FRAMES // 2, HANGS[stage])
    done = child.run(*arguments, "--stall-timeout", "2", mode="hang", point=stage, nth=nth, timeout=30)
    assert done.returncode == exit_code(error()), done.stderr
    assert "hung" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert child.run(*arguments).returncode == 0
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ENDS)
def test_a_stop_while_the_end_hangs_does_not_wait_for_it(
    clip: Path, tmp_path: Path, unbroken: list[Any], stage: str, number: signal.Signals
) -> None:
    dest, told = tmp_path / "out.mkv", tmp_path / "told"
    arguments = command(clip, dest, "--log-file", told)
    process = child.start(*arguments, mode="hang", point=stage)
    until = time.monotonic() + 30
    while not (told.exists() and told.read_text().count('"segment"') == 4):
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 2.5, err
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], err
    assert child.run(*arguments).returncode == 0
    assert decoded(dest) == unbroken


@pytest.mark.parametrize("nth", [1, FRAMES // 2, FRAMES])
def test_values_that_are_no_numbers_are_never_written(
    clip: Path, tmp_path: Path, unbroken: list[Any], monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    plain, strike = nearest.planes_to_rgb, Nth(nth)

    def planes_to_rgb(*given: Any) -> Any:
        rgb = plain(*given)
        rgb[0, 1, 1] = np.nan if strike.now() else rgb[0, 1, 1]
        return rgb

    with monkeypatch.context() as patch:
        patch.setattr(nearest, "planes_to_rgb", planes_to_rgb)
        with pytest.raises(DeviceError, match="no numbers") as caught:
            upscale(clip, tmp_path / "out.mkv")
    assert exit_code(caught.value) == 6
    assert not (tmp_path / "out.mkv").exists()
    upscale(clip, tmp_path / "out.mkv")
    assert decoded(tmp_path / "out.mkv") == unbroken


def narrower(frame: Any) -> Any:
    return frame.reformat(width=frame.width - 8, height=frame.height)


def decode_smaller(patch: pytest.MonkeyPatch, strike: Nth) -> None:
    plain = reader_module.native_frame
    patch.setattr(reader_module, "native_frame", lambda *given: narrower(plain(*given)) if strike.now() else plain(*given))


def compute_smaller(patch: pytest.MonkeyPatch, strike: Nth) -> None:
    plain = nearest.NearestEngine._rows
    patch.setattr(nearest.NearestEngine, "_rows", lambda *given: plain(*given)[:, :-2] if strike.now() else plain(*given))


def encode_smaller(patch: pytest.MonkeyPatch, strike: Nth) -> None:
    plain = SegmentedWriter.write
    patch.setattr(SegmentedWriter, "write", lambda self, frame: plain(self, narrower(frame) if strike.now() else frame))


@pytest.mark.parametrize("nth", [2, FRAMES // 2, FRAMES])
@pytest.mark.parametrize(("smaller", "code"), [(compute_smaller, 6), (encode_smaller, 5)])
def test_another_shape_is_an_error_of_its_stage(clip: Path, tmp_path: Path, unbroken: list[Any], smaller: Any, code: int, nth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        smaller(patch, Nth(nth))
        with pytest.raises(A2NVideoError) as caught:
            upscale(clip, tmp_path / "out.mkv")
    assert exit_code(caught.value) == code
    assert not (tmp_path / "out.mkv").exists()
    upscale(clip, tmp_path / "out.mkv")
    assert decoded(tmp_path / "out.mkv") == unbroken


@pytest.mark.parametrize("nth", [2, FRAMES // 2, FRAMES])
def test_a_decoder_that_changes_the_size_is_told_and_fitted(clip: Path, tmp_path: Path, nth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        decode_smaller(patch, Nth(nth))
        result = upscale(clip, tmp_path / "out.mkv")
    assert len(decoded(tmp_path / "out.mkv")) == FRAMES
    assert any("56x48" in warning for warning in result.warnings)


def points(clip: Path, folder: Path) -> list[str]:
    found: list[str] = []
    with listening(found.append):
        upscale(clip, folder / "points.mkv")
    return found


def check_full_disk(clip: Path, dest: Path, unbroken: list[Any], step: tuple[str, int], code: int) -> None:
    dest.write_bytes(OLD)
    seen = 0

    def strike(point: str) -> None:
        nonlocal seen
        seen += point == step[0]
        if point == step[0] and seen >= step[1]:  # a full disk stays full
            raise OSError(code, os.strerror(code))

    with listening(strike), pytest.raises(OutputError) as caught:
        upscale(clip, dest)
    assert exit_code(caught.value) == 5
    assert caught.value.errno == code
    assert dest.read_bytes() == OLD
    upscale(clip, dest)
    assert decoded(dest) == unbroken


def steps(found: list[str], count: int) -> list[tuple[str, int]]:
    every = [(point, found[: place + 1].count(point)) for place, point in enumerate(found) if not point.endswith("rename.after")]
    return every[:: max(1, len(every) // count)][: count + 1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_anywhere(clip: Path, tmp_path: Path, unbroken: list[Any], code: int) -> None:
    for step in steps(points(clip, tmp_path), 8):
        check_full_disk(clip, tmp_path / "out.mkv", unbroken, step, code)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_at_fifty_places(clip: Path, tmp_path: Path, unbroken: list[Any], code: int) -> None:
    chosen = steps(points(clip, tmp_path), 50)
    assert len(chosen) >= 50
    for step in chosen:
        check_full_disk(clip, tmp_path / "out.mkv", unbroken, step, code)


def test_a_full_disk_by_command(clip: Path, tmp_path: Path, unbroken: list[Any]) -> None:
    dest = tmp_path / "out.mkv"
    dest.write_bytes(OLD)
    arguments = command(clip, dest)
    done = child.run(*arguments, mode="enospc", point="segment.write.before", nth=5)
    assert done.returncode == 5, done.stderr
    assert "the disk is full; make room and run the same command again" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert dest.read_bytes() == OLD
    done = child.run(*arguments)
    assert done.returncode == 0
    assert decoded(dest) == unbroken


def test_a_device_in_place_of_a_file_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "full.mkv").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="not a file"):
        upscale(clip, tmp_path / "full.mkv")


def test_a_link_stays_a_link(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/real.mkv").write_bytes(OLD)
    (tmp_path / "link.mkv").symlink_to("far/real.mkv")
    upscale(clip, tmp_path / "link.mkv")
    assert (tmp_path / "link.mkv").is_symlink()
    assert len(decoded(tmp_path / "far/real.mkv")) == FRAMES


def test_a_segment_that_changed_meanwhile_is_made_again(clip: Path, tmp_path: Path, unbroken: list[Any]) -> None:
    for number, damage in enumerate((lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-9]), lambda p: shutil.copy(clip, p))):
        dest = tmp_path / f"{number}.mkv"
        stop_at(35, clip, dest)
        damage(job_path(dest) / "000001.nut")
        result = upscale(clip, dest)
        assert result.resumed_frames == 20
        assert decoded(dest) == unbroken


def test_a_stop_while_tidying_up_costs_nothing(clip: Path, tmp_path: Path, unbroken: list[Any]) -> None:
    dest = tmp_path / "out.mkv"

    def strike(point: str) -> None:
        if point == "result.rename.after":
            raise KeyboardInterrupt

    with listening(strike), pytest.raises(KeyboardInterrupt):
        upscale(clip, dest)
    (job_path(dest) / "000001.nut").unlink()
    made = []
    result = upscale_video(clip, dest, model="nearest", preset="ultrafast", segment_frames=10, on_progress=made.append)
    assert (made, result.exit_code, result.frames) == ([], 0, FRAMES)
    assert decoded(dest) == unbroken
    assert not job_path(dest).exists()


def test_other_options_are_refused_and_restart_begins_anew(clip: Path, tmp_path: Path, unbroken: list[Any]) -> None:
    dest = tmp_path / "out.mkv"
    stop_at(25, clip, dest)
    with pytest.raises(OutputError, match=r"crf: 30 now, not given then"):
        upscale(clip, dest, crf=30.0)
    assert upscale(clip, dest, restart=True).resumed_frames == 0
    assert decoded(dest) == unbroken
