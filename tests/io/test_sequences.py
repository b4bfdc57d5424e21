"""Pipes, numbered pictures and single pictures: every bit kept, numbers kept, and names that only look like patterns."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from a2n_video.cli import main
from a2n_video.errors import (
    DecodeError,
    IncompleteSourceError,
    InputError,
    OptionError,
    OutputError,
    OutputExistsError,
    UnsupportedFormatError,
)
from a2n_video.io.chunks import READABLE
from a2n_video.io.faults import listening
from a2n_video.io.reader import Damage
from a2n_video.io.rgb import read_rgb
from a2n_video.io.sequences import WRITABLE, PictureWriter, is_numbered, numbered_files, read_pictures
from a2n_video.io.y4m import read_frames, read_header
from a2n_video.job.planning.report import Plan
from a2n_video.job.run import upscale_video
from a2n_video.job.streaming import plan_stream
from a2n_video.media.colorspec import ColorSpec
from a2n_video.options import JobOptions
from tests.clips import Clip, Sound, write_clip
from tests.made import make_source
from tests.pipes import Pipes, y4m
from tests.test_picture import frame_of, planes_in, planes_of, read, repeated, source


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le", "gray16le"])
def test_pipe_to_pipe(pix_fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipes = Pipes(monkeypatch, y4m(pix_fmt))
    result = upscale_video("-", "-", model="nearest")
    assert result.frames == 3
    data = io.BytesIO(pipes.out.getvalue())
    header = read_header(data)
    assert (header.fmt.width, header.fmt.height, header.rate, header.sar) == (36, 28, Fraction(24000, 1001), Fraction(32, 27))
    for number, frame in enumerate(read_frames(data, header)):
        luma = planes_of(pix_fmt, (18, 14), number)[0]
        assert np.abs(repeated(luma).astype(int) - planes_in(frame)[0]).max() <= 1


@pytest.mark.parametrize("form", ["nut", "mkv"])
def test_a_container_on_the_pipe_keeps_its_sound(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_source(tmp_path / f"in.{form}", pts=range(8), audio=("flac",))
    pipes = Pipes(monkeypatch, made.read_bytes())
    result = upscale_video("-", "-", model="nearest", pipe_format=form, preset="ultrafast")
    assert result.verified.startswith("verified: 8 frames, 1 audio")
    with av.open(io.BytesIO(pipes.out.getvalue())) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(1 for _ in container.decode(video=0)) == 8


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_pipe_into_a_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p", 10))
    upscale_video("-", tmp_path / f"out.{suffix}", model="nearest", preset="ultrafast")
    assert len(read(tmp_path / f"out.{suffix}")) == 10
    assert [path.name for path in tmp_path.iterdir()] == [f"out.{suffix}"]


def test_a_pipe_that_breaks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p", 10)[:-9])
    with pytest.raises(DecodeError):
        upscale_video("-", tmp_path / "out.mkv", model="nearest")
    assert not list(tmp_path.iterdir())


def test_a_file_onto_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipes = Pipes(monkeypatch)
    upscale_video(source(tmp_path / "in.mkv", "yuv420p10le", count=4), "-", model="nearest", frames=3)
    data = io.BytesIO(pipes.out.getvalue())
    header = read_header(data)
    assert header.fmt.depth == 10
    assert len(list(read_frames(data, header))) == 3


DEEP = ColorSpec(matrix=0, full_range=True)


def workplace(folder: Path) -> Path:
    """Where pictures are made before they come into `folder`."""
    (folder / "made").mkdir()
    return folder / "made"


@pytest.mark.parametrize(
    ("suffix", "pix_fmt"), [("png", "gbrp16le"), ("png", "gbrap16le"), ("tif", "gbrp16le"), ("tiff", "gbrp"), ("png", "gray16le")]
)
def test_pictures_in_and_out_keep_every_bit(suffix: str, pix_fmt: str, tmp_path: Path) -> None:
    folds = {"gbrp16le": "rgb48be", "gbrap16le": "rgba64be", "gbrp": "rgb24", "gray16le": "gray16be"}
    fold = folds[pix_fmt] if suffix == "png" else folds[pix_fmt].replace("be", "le")
    writer = PictureWriter(tmp_path / f"in_%03d.{suffix}", fold, first=7, folder=workplace(tmp_path))
    for number in range(3):
        frame = frame_of(pix_fmt, planes_of(pix_fmt, (20, 10), number), DEEP)
        writer.write(frame.reformat(format=fold) if fold != pix_fmt else frame)
    result = upscale_video(tmp_path / f"in_%03d.{suffix}", tmp_path / "out_%04d.png", model="nearest")
    assert result.frames == 3
    assert sorted(path.name for path in tmp_path.glob("out*")) == [f"out_{n:04d}.png" for n in (7, 8, 9)]
    for number in range(3):
        (frame,) = read(tmp_path / f"out_{number + 7:04d}.png")
        assert frame.format.name == pix_fmt
        for a, b in zip(planes_of(pix_fmt, (20, 10), number), planes_in(frame), strict=True):
            assert np.array_equal(repeated(a), b)


def plan_of(path: Path, dest: Path, **changes: Any) -> Plan:
    return plan_stream(path, dest, JobOptions().with_changes(model="nearest", **changes))


@pytest.mark.parametrize("pix_fmt", ["rgba", "rgba64be"])
def test_the_plan_tells_alpha_as_the_kind_of_picture_holds_it(pix_fmt: str, tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path / "a.png", pix_fmt, folder=workplace(tmp_path))
    writer.write(frame_of("gbrap", planes_of("gbrap", (9, 7)), DEEP).reformat(format=pix_fmt))
    writer.close()
    for dest in ("b.png", "b.tif", "b_%d.png"):
        plan = plan_of(tmp_path / "a.png", tmp_path / dest, keep_all=True)
        assert (plan.info.alpha, plan.streams.losses) == (True, ())
    plan = plan_of(tmp_path / "a.png", tmp_path / "b.jpg")
    assert [fate.reason for fate in plan.streams.losses if fate.kind == "alpha"] == ["a JPEG has none; .png and .tif do"]
    plan = plan_of(tmp_path / "a.png", tmp_path / "b.png", pix_fmt="rgb24")
    assert [fate.reason for fate in plan.streams.losses if fate.kind == "alpha"] == ["rgb24 has none"]
    with pytest.raises(OptionError, match=r"alpha \(a JPEG has none"):
        plan_of(tmp_path / "a.png", tmp_path / "b.jpg", keep_all=True)


def test_a_video_as_pictures_and_back(tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuv420p", count=4)
    upscale_video(made, tmp_path / "p_%d.png", model="nearest", frames=3)
    assert sorted(path.name for path in tmp_path.glob("p_*")) == ["p_1.png", "p_2.png", "p_3.png"]
    upscale_video(tmp_path / "p_%d.png", tmp_path / "out.mkv", model="nearest", fps=Fraction(12))
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].average_rate == 12
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_one_picture(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path / "a.png", "rgb24", folder=workplace(tmp_path))
    writer.write(frame_of("gbrp", planes_of("gbrp", (9, 7)), DEEP).reformat(format="rgb24"))
    writer.close()
    upscale_video(tmp_path / "a.png", tmp_path / "b.png", model="nearest", scale=3)
    assert (read(tmp_path / "b.png")[0].width, read(tmp_path / "b.png")[0].height) == (27, 21)
    with pytest.raises(OutputExistsError):
        upscale_video(tmp_path / "a.png", tmp_path / "b.png", model="nearest")
    with pytest.raises(OutputError, match="%05d"):
        upscale_video(source(tmp_path / "in.mkv", "yuv420p"), tmp_path / "c.png", model="nearest")


def test_names_that_only_look_like_patterns(tmp_path: Path) -> None:
    assert not is_numbered(tmp_path / "50%_off.mkv")
    assert not is_numbered(tmp_path / "100%d.mkv")
    (tmp_path / "a%d.png").write_bytes(b"x")
    assert not is_numbered(tmp_path / "a%d.png")
    assert is_numbered(tmp_path / "50%_%04d.png")


def test_missing_numbers_are_told(tmp_path: Path) -> None:
    for number in (3, 4, 6):
        (tmp_path / f"f{number:02d}.png").write_bytes(b"x")
    with pytest.raises(InputError, match="number 5"):
        numbered_files(tmp_path / "f%02d.png")
    with pytest.raises(InputError, match="no such"):
        numbered_files(tmp_path / "g%02d.png")


def test_what_a_pipe_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p"))
    with pytest.raises(OptionError, match="clock"):
        upscale_video("-", "-", model="nearest", pipe_format="mkv")


def uneven_source(path: Path) -> Path:
    return write_clip(
        path, Clip(times=[Fraction(n * n, 50) for n in range(6)], options={"bf": "0", "preset": "ultrafast"}, sounds=(Sound(),))
    )


@pytest.mark.parametrize(("dest", "holder"), [("out.y4m", "y4m"), ("out_%03d.png", "a picture file")])
def test_streamed_jobs_have_a_plan(dest: str, holder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is lost is told, uneven times too, with nothing written; --keep-all refuses it."""
    path, target = uneven_source(tmp_path / "in.mkv"), str(tmp_path / dest)
    assert main([str(path), target, "--model", "nearest", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"dropped  audio 1 (aac) ({holder} does not hold aac" in told
    assert f"dropped  variable frame times ({holder} holds one rate" in told
    assert main([str(path), target, "--model", "nearest", "--keep-all"]) == 2
    assert "variable frame times" in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == ["in.mkv"]


def test_streamed_jobs_tell_their_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = uneven_source(tmp_path / "in.mkv")
    assert main([str(path), str(tmp_path / "out.y4m"), "--model", "nearest", "--json", "-q"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == ["plan", "verified"]
    assert events[-1]["notes"] == [] and events[-1]["exit_code"] == 0
    assert events[0]["frames"] == 6 and events[0]["width"] == 128
    assert {fate["what"] for fate in events[0]["streams"] if fate["kind"] == "time"} == {"variable frame times"}


def test_a_pipe_with_the_picture_takes_no_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log, pipes = uneven_source(tmp_path / "in.mkv"), tmp_path / "log", Pipes(monkeypatch)
    assert main([str(path), "-", "--model", "nearest", "--json"]) == 2
    assert "--log-file" in capsys.readouterr().err
    assert main([str(path), "-", "--model", "nearest", "-q", "--log-file", str(log)]) == 0
    assert json.loads(log.read_text().partition("\n")[0])["event"] == "plan"
    assert pipes.out.getvalue().startswith(b"YUV4MPEG2")


def test_options_that_plain_pictures_have_no_use_for_are_refused(tmp_path: Path) -> None:
    path = uneven_source(tmp_path / "in.mkv")
    for changes, told in (({"codec": "libx264"}, "codec libx264"), ({"crf": 20}, "crf")):
        with pytest.raises(OptionError, match=told):
            upscale_video(path, tmp_path / "out.y4m", model="nearest", **changes)


def test_jpeg_pictures_have_a_quality(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mkv", Clip(times=[Fraction(0)], codec="mjpeg"))
    for crf in (2, 31):
        upscale_video(path, tmp_path / f"{crf}.jpg", model="nearest", crf=crf)
    assert (tmp_path / "2.jpg").read_bytes() != (tmp_path / "31.jpg").read_bytes()


def test_numbers_are_those_of_the_pattern_alone(tmp_path: Path) -> None:
    for name in ("shot2_00009.png", "shot2_00010.png", "shot2_9.png", "shot3_00011.png", "shot2_00012.png.part"):
        (tmp_path / name).write_bytes(b"x")
    assert {number: path.name for number, path in numbered_files(tmp_path / "shot2_%05d.png").items()} == {
        9: "shot2_00009.png",
        10: "shot2_00010.png",
    }


def one_picture(folder: Path, *, overwrite: bool = True) -> PictureWriter:
    return PictureWriter(folder / "a.png", "rgb24", folder=workplace(folder), overwrite=overwrite)


def test_a_second_frame_for_one_picture_leaves_the_older_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"older")
    writer, frame = one_picture(tmp_path), frame_of("gbrp", planes_of("gbrp", (9, 7)), DEEP).reformat(format="rgb24")
    writer.write(frame)
    with pytest.raises(OutputError, match="%05d"):
        writer.write(frame)
    assert (tmp_path / "a.png").read_bytes() == b"older"


def test_what_is_written_can_be_read() -> None:
    assert set(WRITABLE) < READABLE


def test_a_picture_that_was_given_up_gets_no_place(tmp_path: Path) -> None:
    """By another thread, once it lies beside its place or while its file is written."""
    frame = frame_of("gbrp", planes_of("gbrp", (9, 7)), DEEP).reformat(format="rgb24")
    (tmp_path / "a.png").write_bytes(b"older")
    writer = one_picture(tmp_path)
    writer.write(frame)
    writer.disown()
    writer.close()
    with listening(lambda point: writer.disown() if point == "result.write.after" else None), pytest.raises(OutputError, match="given up"):
        writer.frames = 0
        writer.write(frame)
    writer.close()
    assert (tmp_path / "a.png").read_bytes() == b"older"
    assert not list((tmp_path / "made").iterdir())


def jpegs(folder: Path, count: int = 3) -> list[Path]:
    """Numbered JPEGs, a thumbnail's whole picture in the head of each."""
    made = write_clip(folder / "in.mkv", Clip(times=[Fraction(n, 25) for n in range(count)], codec="mjpeg"))
    upscale_video(made, folder / "j_%02d.jpg", model="nearest")
    paths = [folder / f"j_{number:02d}.jpg" for number in range(1, count + 1)]
    for path in paths:
        data = path.read_bytes()
        thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2) + data
        path.write_bytes(data[:2] + thumbnail + data[2:] + b"more that comes after the end")
    return paths


def pictures(paths: list[Path], damage: Damage, max_pixels: int = 10**6) -> list[av.VideoFrame]:
    return list(read_pictures(paths, Fraction(25), max_pixels, damage))


def test_jpegs_are_read_and_known_to_be_whole(tmp_path: Path) -> None:
    damage = Damage()
    assert len(pictures(jpegs(tmp_path), damage)) == 3
    assert not damage.errors


def test_a_name_does_not_make_a_jpeg(tmp_path: Path) -> None:
    upscale_video(source(tmp_path / "in.mkv", "yuv420p", count=1), tmp_path / "p.png", model="nearest")
    (tmp_path / "p.png").rename(tmp_path / "p.jpg")
    assert len(pictures([tmp_path / "p.jpg"], Damage())) == 1


def test_a_jpeg_that_was_cut_off_is_told_though_its_decoder_says_nothing(tmp_path: Path) -> None:
    paths, damage = jpegs(tmp_path), Damage()
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: data.rindex(b"\xff\xd9")])
    assert len(pictures(paths, damage)) == 3
    assert (damage.at, damage.first, damage.repeated_at) == ([1], "j_02.jpg: the file is cut short", [])


@pytest.mark.parametrize("broken", [b"", b"no picture at all", None])
def test_the_last_good_picture_stands_in_for_one_that_cannot_be_decoded(broken: bytes | None, tmp_path: Path) -> None:
    upscale_video(source(tmp_path / "in.mkv", "yuv420p", count=4), tmp_path / "p_%d.png", model="nearest")
    paths, damage = [tmp_path / f"p_{number}.png" for number in range(1, 5)], Damage()
    for path in paths[1:3]:
        path.write_bytes(path.read_bytes()[:200] if broken is None else broken)
    frames = pictures(paths, damage)
    assert [frame.pts for frame in frames] == [0, 1, 2, 3]
    assert (damage.at, damage.repeated_at, damage.first) == ([1, 2], [1, 2], "p_2.png: cannot be decoded")
    for number in (1, 2):
        for a, b in zip(planes_in(frames[0]), planes_in(frames[number]), strict=True):
            assert np.array_equal(a, b)
    with pytest.raises((DecodeError, IncompleteSourceError), match=r"p_2\.png"):
        pictures(paths[1:], Damage())


def test_a_missing_picture_is_no_damage(tmp_path: Path) -> None:
    upscale_video(source(tmp_path / "in.mkv", "yuv420p", count=2), tmp_path / "p_%d.png", model="nearest")
    with pytest.raises(InputError, match="no such file"):
        pictures([tmp_path / "p_1.png", tmp_path / "p_3.png"], Damage())


def test_pixels_of_every_picture_count(tmp_path: Path) -> None:
    upscale_video(source(tmp_path / "in.mkv", "yuv420p", count=2), tmp_path / "p_%d.png", model="nearest")
    upscale_video(tmp_path / "p_2.png", tmp_path / "p_3.png", model="nearest")
    paths = [tmp_path / f"p_{number}.png" for number in (1, 2, 3)]
    with pytest.raises(UnsupportedFormatError, match=r"p_3\.png: 128x96 .*--max-pixels"):
        pictures(paths, Damage(), 64 * 48)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("to", ["png", "tif"])
def test_gray_pictures_are_full_range(suffix: str, to: str, tmp_path: Path) -> None:
    """Their decoders do not say so; read as video's range, black and white would be crushed."""
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None], 48, axis=0)
    source, dest = tmp_path / f"in.{suffix}", tmp_path / f"out.{to}"
    Image.fromarray(ramp).save(source, quality=100)
    assert upscale_video(source, dest, model="nearest").exit_code == 0
    error = np.abs(np.asarray(Image.open(dest), np.int16)[::2, ::2] - ramp).max()
    assert error <= (1 if suffix == "jpg" else 0)
    read = next(read_rgb(source))[..., 0].astype(np.int16)
    assert np.abs(read - ramp).max() <= 1


def test_a_png_with_a_colour_profile_crashes_nothing(tmp_path: Path) -> None:
    """In a process of its own: PyAV would free the profile's name twice."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (64, 48)).save(tmp_path / "in.png", icc_profile=profile)
    command = [sys.executable, "-m", "a2n_video.cli", "in.png", "out.png", "--model", "nearest", "-q"]
    assert subprocess.run(command, cwd=tmp_path, timeout=120).returncode == 0


@pytest.mark.parametrize("dest", ["b.png", "b.mkv"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_colour_profile_and_exif_are_named_as_lost(suffix: str, dest: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    given: Any
    for name, given in (("plain", {}), ("both", {"exif": exif.tobytes(), "icc_profile": profile}), ("profile", {"icc_profile": profile})):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{name}.{suffix}", **given)
    plan = plan_of(tmp_path / f"both.{suffix}", tmp_path / dest)
    assert {fate.what for fate in plan.streams.losses if fate.kind == "beside"} == {"ICC colour profile", "EXIF data"}
    plan = plan_of(tmp_path / f"profile.{suffix}", tmp_path / dest)
    assert [fate.what for fate in plan.streams.losses if fate.kind == "beside"] == ["ICC colour profile"]
    with pytest.raises(OptionError, match="ICC colour profile"):
        plan_of(tmp_path / f"profile.{suffix}", tmp_path / dest, keep_all=True)
    assert not [fate for fate in plan_of(tmp_path / f"plain.{suffix}", tmp_path / dest).streams.losses if fate.kind == "beside"]
