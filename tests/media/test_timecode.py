"""Timecodes: what QuickTime's track can say is what its muxer gives back, and what it cannot is kept as text or named as lost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.errors import OptionError
from a2n_video.job.planning.plan import prepare
from a2n_video.job.run import upscale_video
from a2n_video.media.tags import tag_of
from a2n_video.media.timecode import Counting, can_say, counted_on
from a2n_video.options import JobOptions
from tests.clips import picture

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)
RATES = [FILM, Fraction(25), NTSC, Fraction(30), Fraction(60000, 1001), Fraction(15), Fraction(29, 2), Fraction(20, 3), Fraction(100)]
RATES += [Fraction(10), Fraction(90), Fraction(120)]
TIMECODES = ["01:00:00:00", "01:00:00;00", "01:01:00;00", "01:01:00;04", "01:10:00;00", "01:00:00.02", "23:59:59:11", "30:00:00:10"]
TIMECODES += ["01:60:00:00", "01:00:00:24", "01:00:00:29", "01:00:00:59", "01:00:00:9", "01:00:00:119", "10:59:59:25", "soon"]


def made(path: Path, timecode: str, rate: Fraction, *, of_file: bool, count: int = 1) -> Path:
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        (output if of_file else stream).metadata["timecode"] = timecode
        for number in range(count):
            frame = picture(number)
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def timecodes(path: Path) -> tuple[str | None, str | None]:
    """The file's, and that of its video."""
    with av.open(str(path)) as container:
        of_file, of_video = (tag_of(tags, "timecode") for tags in (container.metadata, container.streams.video[0].metadata))
        return of_file, of_video


@pytest.mark.parametrize("rate", RATES)
def test_a_track_says_what_it_is_thought_to_say(rate: Fraction, tmp_path: Path) -> None:
    for timecode in TIMECODES:
        found = timecodes(made(tmp_path / "out.mov", timecode, rate, of_file=False))[1]
        assert can_say(timecode, rate) == (found == timecode), (timecode, found)


def test_frames_at_no_rate_are_not_counted() -> None:
    assert not can_say("01:00:00:00", None)


@pytest.mark.parametrize(
    ("timecode", "rate", "deinterlace"),
    [
        ("01:00:00;00", NTSC, "ivtc"),
        ("01:00:00:29", NTSC, "ivtc"),
        ("01:00:00;00", Fraction(25), "off"),
        ("10:59:59:25", Fraction(25), "off"),
    ],
)
def test_what_the_rate_cannot_say_is_text_or_named_as_lost(timecode: str, rate: Fraction, deinterlace: str, tmp_path: Path) -> None:
    """Matroska says any timecode of a file. MP4 would have made another of it, or none, and the job ended there."""
    source, result = made(tmp_path / "in.mkv", timecode, rate, of_file=True, count=10), tmp_path / "out.mp4"
    options = {"model": "nearest", "preset": "ultrafast", "deinterlace": deinterlace, "keep_all": True}
    upscale_video(source, result, **options)
    assert timecodes(result) == (timecode, None)
    source = made(tmp_path / "of_stream.mkv", timecode, rate, of_file=False, count=10)
    with pytest.raises(OptionError, match=f"timecode of video 1 .*cannot count {timecode}"):
        upscale_video(source, tmp_path / "lost.mp4", **options)
    upscale_video(source, tmp_path / "lost.mp4", **{**options, "keep_all": False})
    assert timecodes(tmp_path / "lost.mp4") == (None, None)


def test_a_track_is_kept_where_the_rate_says_it_and_named_where_not(tmp_path: Path) -> None:
    source = made(tmp_path / "in.mov", "01:00:00;00", NTSC, of_file=False, count=10)
    options = {"model": "nearest", "preset": "ultrafast"}
    upscale_video(source, tmp_path / "kept.mov", keep_all=True, **options)
    assert timecodes(tmp_path / "kept.mov")[1] == "01:00:00;00"
    plan = prepare(source, tmp_path / "film.mov", JobOptions().with_changes(deinterlace="ivtc", **options))
    assert [(fate.what, fate.reason) for fate in plan.streams.losses] == [
        ("timecode track", "mov cannot count 01:00:00;00 at 23.976 frames a second")
    ]
    upscale_video(source, tmp_path / "film.mov", deinterlace="ivtc", **options)
    assert timecodes(tmp_path / "film.mov") == (None, None)


@pytest.mark.parametrize(
    ("timecode", "rate", "factor", "frames", "told"),
    [
        ("10:00:00:00", Fraction(25), 1, 10, "10:00:00:10"),
        ("23:59:59:20", Fraction(25), 2, 0, "23:59:59:40"),
        ("23:59:59:20", Fraction(25), 1, 6, "00:00:00:01"),
        ("00:00:59;29", NTSC, 1, 1, "00:01:00;02"),
        ("00:09:59;29", NTSC, 1, 1, "00:10:00;00"),
        ("00:00:59;28", NTSC, 2, 4, "00:01:00;04"),
        ("23:59:59;29", NTSC, 1, 1, "00:00:00;00"),
        ("01:00:00:20", NTSC, Fraction(4, 5), 0, "01:00:00:16"),
        ("01:00:00:29", NTSC, Fraction(4, 5), 0, None),
        ("01:00:00;00", NTSC, Fraction(4, 5), 0, None),
        ("00:01:00;00", NTSC, 1, 1, None),
        ("01:00:00:25", Fraction(25), 1, 1, None),
        ("soon", Fraction(25), 1, 1, None),
        ("01:00:00:00", None, 1, 1, None),
    ],
)
def test_a_timecode_counts_on(timecode: str, rate: Fraction | None, factor: Fraction | int, frames: int, told: str | None) -> None:
    skipped = frames / (rate * factor) if rate else Fraction(frames)
    assert counted_on(timecode, Counting(rate=rate, factor=Fraction(factor), skipped=skipped)) == told


def test_counting_by_drop_frames_takes_every_number_once() -> None:
    numbers = [counted_on("00:00:00;00", Counting(rate=NTSC, skipped=n / NTSC)) for n in range(17981, 17990)]
    assert numbers == ["00:09:59;29", *(f"00:10:00;{n:02}" for n in range(8))]


@pytest.mark.parametrize("container", ["mov", "mkv", "nut"])
@pytest.mark.parametrize("of_file", [True, False])
def test_a_cut_has_the_timecode_of_its_first_frame(of_file: bool, container: str, tmp_path: Path) -> None:
    source, result = made(tmp_path / "in.mov", "10:00:00:00", Fraction(25), of_file=of_file, count=20), tmp_path / f"out.{container}"
    options = {"model": "nearest", "preset": "ultrafast", "keep_all": True}
    upscale_video(source, result, start=Fraction(2, 5), **options)
    assert set(timecodes(result)) - {None} == {"10:00:00:10"}
    upscale_video(
        made(tmp_path / "late.mov", "23:59:59:20", Fraction(25), of_file=of_file, count=20),
        result,
        deinterlace="field",
        overwrite=True,
        **options,
    )
    assert set(timecodes(result)) - {None} == {"23:59:59:40"}


@pytest.mark.parametrize("of_file", [True, False])
def test_a_timecode_that_cannot_be_counted_on_is_named_as_lost(of_file: bool, tmp_path: Path) -> None:
    source, result = made(tmp_path / "in.mkv", "soon", Fraction(25), of_file=of_file, count=20), tmp_path / "out.mkv"
    options = {"model": "nearest", "preset": "ultrafast"}
    upscale_video(source, result, keep_all=True, **options)
    assert set(timecodes(result)) - {None} == {"soon"}
    with pytest.raises(OptionError, match=r"timecode of .*cannot be counted on from soon"):
        upscale_video(source, result, start=Fraction(2, 5), keep_all=True, overwrite=True, **options)
    upscale_video(source, result, start=Fraction(2, 5), overwrite=True, **options)
    assert timecodes(result) == (None, None)
