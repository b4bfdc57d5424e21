"""The ffmpeg binary as encoder: the same frames at the same times as PyAV's encoders give, and no hang whatever the binary does."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from a2n_video.errors import EncodeError, JobConflictError, OptionError
from a2n_video.io import ffmpeg_writer
from a2n_video.io.backends import open_writer
from a2n_video.io.mux.joining import scan_segment, segment_container
from a2n_video.io.outfile import OutFile
from a2n_video.io.probe import probe
from a2n_video.io.writer import EncoderSettings
from a2n_video.job.run import upscale_video
from tests.made import decoded, frames, make_source, settings

try:
    BINARY = ffmpeg_writer.binary()
except ImportError:
    pytest.skip("no ffmpeg binary", allow_module_level=True)

BASE = Fraction(1, 90000)
VFR = [7 + 3600 * n + 137 * (n % 3) for n in range(20)]


def encode(path: Path, wanted: EncoderSettings, times: Sequence[int] = VFR) -> None:
    with OutFile(path, "segment") as file, open_writer(file, wanted) as writer:  # type: ignore[arg-type]
        for frame in frames(times, wanted.time_base, pix_fmt=wanted.pix_fmt):
            writer.write(frame)
        writer.close()
        file.finish()


@pytest.mark.parametrize("codec", ["ffv1", "libx264", "libx265"])
def test_same_frames_and_times_as_pyav(codec: str, tmp_path: Path) -> None:
    lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=error"}}.get(codec, {})
    wanted = settings(codec, BASE, options=lossless)
    encode(tmp_path / "a.nut", wanted)
    encode(tmp_path / "b.nut", replace(wanted, backend="ffmpeg"))
    assert decoded(tmp_path / "a.nut") == decoded(tmp_path / "b.nut")
    assert [round(pts * base / BASE) for pts, base, _ in decoded(tmp_path / "b.nut")] == VFR


MOV_PTS = {BASE: [100_003 + time for time in VFR], Fraction(1, 30000): [1001 * n for n in range(7, 15)]}


@pytest.mark.parametrize("base", MOV_PTS)
@pytest.mark.parametrize(("codec", "pix_fmt"), [("prores_ks", "yuv422p10le"), ("cfhd", "yuv422p10le"), ("qtrle", "rgb24")])
def test_a_segment_in_mov_keeps_where_it_begins(codec: str, pix_fmt: str, base: Fraction, tmp_path: Path) -> None:
    wanted = settings(codec, base, segment_container(codec), pix_fmt=pix_fmt, closed_gop=False, backend="ffmpeg")
    assert wanted.container == "mov"
    encode(tmp_path / "a.mov", wanted, times=MOV_PTS[base])
    assert list(scan_segment(tmp_path / "a.mov", base).pts) == MOV_PTS[base]


def test_a_picture_that_begins_after_its_sound_stays_there(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mkv", pts=range(20, 32), audio=("pcm_s16le",))
    for segment_frames, name in ((5, "many"), (300, "one")):
        dest = tmp_path / f"{name}.mov"
        result = upscale_video(source, dest, model="nearest", codec="prores_ks", encoder_backend="ffmpeg", segment_frames=segment_frames)
        assert result.verified.startswith("verified: 12 frames")
        assert [pts * base for pts, base, _ in decoded(dest)] == [Fraction(n, 25) for n in range(20, 32)]


def test_tags_and_shape_arrive(tmp_path: Path) -> None:
    wanted = settings("libx264", BASE, backend="ffmpeg", sar=Fraction(32, 27))
    encode(tmp_path / "a.nut", wanted)
    info = probe(tmp_path / "a.nut")
    assert (info.color.matrix, info.color.primaries, info.color.transfer, info.color.full_range) == (1, 1, 1, False)
    assert info.sar == Fraction(32, 27)


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.timeout(60)
def test_a_binary_that_dies_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = script(tmp_path, "head -c 20000 > /dev/null; echo the device is gone >&2; exit 3")
    monkeypatch.setattr(ffmpeg_writer, "binary", lambda: dying)
    with pytest.raises(EncodeError, match=r"exit 3.*the device is gone"):
        encode(tmp_path / "a.nut", settings("libx264", BASE, backend="ffmpeg"))


@pytest.mark.timeout(60)
def test_a_binary_that_fails_at_the_end_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = script(tmp_path, "cat > /dev/null; echo no last frame >&2; exit 1")
    monkeypatch.setattr(ffmpeg_writer, "binary", lambda: failing)
    with pytest.raises(EncodeError, match="no last frame"):
        encode(tmp_path / "a.nut", settings("libx264", BASE, backend="ffmpeg"))


@pytest.mark.timeout(60)
def test_a_binary_that_talks_much_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talking = script(tmp_path, f'yes "a long line of complaint" | head -c 3000000 >&2\nexec {BINARY} "$@"')
    monkeypatch.setattr(ffmpeg_writer, "binary", lambda: talking)
    encode(tmp_path / "a.nut", settings("ffv1", BASE, backend="ffmpeg"))
    assert len(decoded(tmp_path / "a.nut")) == 20


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with (
        full.open("wb", buffering=0) as file,
        pytest.raises(EncodeError, match="No space"),
        open_writer(file, settings("ffv1", BASE, backend="ffmpeg")) as writer,
    ):
        for frame in frames(VFR * 1, BASE):
            writer.write(frame)


def test_a_whole_job(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mkv", pts=range(12))
    result = upscale_video(source, tmp_path / "out.mp4", model="nearest", encoder_backend="ffmpeg", segment_frames=5, preset="ultrafast")
    assert result.verified.startswith("verified: 12 frames")


def test_a_job_goes_on_with_the_same_build_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a segment are the binary's, and those of two builds may not even join."""
    source, dest = make_source(tmp_path / "in.mkv", pts=range(12), audio=()), tmp_path / "out.mp4"
    settled = {"model": "nearest", "encoder_backend": "ffmpeg", "segment_frames": 5, "preset": "ultrafast", "deinterlace": "off"}

    def stop(frames: int) -> None:
        if frames > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(source, dest, on_progress=stop, **settled)
    built = ffmpeg_writer.version()
    other = script(tmp_path, f'[ "$2" = -version ] && echo "ffmpeg version 0.1 Copyright (c)" && exit\nexec {BINARY} "$@"')
    with monkeypatch.context() as patch:
        patch.setattr(ffmpeg_writer, "binary", lambda: other)
        with pytest.raises(JobConflictError, match=f"version of ffmpeg: 0.1 now, {re.escape(built)} then"):
            upscale_video(source, dest, **settled)
    assert upscale_video(source, dest, **settled).resumed_frames == 5


def test_refusals_come_before_the_first_frame(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mkv", pts=range(3))
    for options, words in (
        ({"codec": "no_such"}, "no such encoder"),
        ({"codec": "libx264", "encoder_options": {"no_such": "1"}}, "no_such"),
        ({"codec": "libx264", "preset": "no_such"}, "no_such"),
    ):
        with pytest.raises(OptionError, match=words):
            upscale_video(source, tmp_path / "out.mkv", model="nearest", encoder_backend="ffmpeg", **options)
