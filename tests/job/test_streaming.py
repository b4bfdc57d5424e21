"""Jobs that are one stream: damage is told, nothing good is replaced in vain, runs do not meet, no option is passed over."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import pytest

from a2n_video.cli import main
from a2n_video.errors import (
    DecodeError,
    EncodeError,
    IncompleteSourceError,
    InputError,
    JobConflictError,
    OptionError,
    OutputError,
    OutputExistsError,
    UnsupportedFormatError,
    exit_code,
)
from a2n_video.io.outfile import OutFile
from a2n_video.io.sequences import PictureWriter
from a2n_video.io.writer import VideoWriter
from a2n_video.io.y4m import Y4mHeader, Y4mWriter, read_frames, read_header
from a2n_video.job import encode, incoming, streaming
from a2n_video.job.directory import JobDirectory, job_path
from a2n_video.job.result import UpscaleResult
from a2n_video.job.run import upscale_stream, upscale_video
from a2n_video.job.stages import left_behind
from a2n_video.job.stops import Stops, Terminated
from a2n_video.options import JobOptions
from tests.job import child
from tests.made import make_source, with_broken_pictures
from tests.pipes import Pipes, y4m
from tests.test_picture import planes_in, planes_of, read, repeated, source
from tests.test_preservation import packet_size

FRAMES = 30
RATE = Fraction(25)
DESTS = ["out.y4m", "out_%03d.png"]


def upscale(path: Path | str, dest: Path | str, **changes: Any) -> UpscaleResult:
    return upscale_video(path, dest, model="nearest", **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("whole") / "whole.mkv", pts=range(FRAMES))


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    data = whole.read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: len(data) * 6 // 10])
    return path


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A file of the right size in which some pictures in the middle cannot be decoded."""
    return with_broken_pictures(whole, tmp_path / "broken.mkv", slice(10, 14))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frames_in(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in read_frames(file, read_header(file)))


@pytest.mark.parametrize("dest", DESTS)
def test_a_whole_source_is_no_damage(whole: Path, dest: str, tmp_path: Path) -> None:
    result = upscale(whole, tmp_path / dest)
    assert (result.exit_code, result.frames) == (0, FRAMES)


@pytest.mark.parametrize("dest", DESTS)
def test_a_source_cut_short_is_told(cut: Path, dest: str, tmp_path: Path) -> None:
    """As from file to file: the same words, the same code."""
    result, by_segments = upscale(cut, tmp_path / dest), upscale(cut, tmp_path / "out.mkv", preset="ultrafast")
    assert (result.exit_code, result.damage.cut_short) == (4, by_segments.damage.cut_short)
    assert "bytes are missing" in result.summary
    assert result.frames == by_segments.frames < FRAMES


def test_a_source_cut_short_onto_a_pipe_is_told(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch)
    assert upscale(cut, "-").exit_code == 4


def test_a_container_on_the_pipe_that_was_cut_short_is_told(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, cut.read_bytes())
    assert upscale("-", tmp_path / "out.y4m").exit_code == 4


def test_a_y4m_file_that_was_cut_short_is_told(tmp_path: Path) -> None:
    (tmp_path / "in.y4m").write_bytes(y4m("yuv420p", 5)[:-7])
    result = upscale(tmp_path / "in.y4m", tmp_path / "out.y4m")
    assert (result.exit_code, result.frames) == (4, 4)


@pytest.mark.parametrize("dest", DESTS)
def test_decode_errors_are_counted_and_every_frame_comes(broken: Path, dest: str, tmp_path: Path) -> None:
    result = upscale(broken, tmp_path / dest)
    assert (result.exit_code, result.frames) == (4, FRAMES)
    assert result.damage.errors and result.damage.first
    assert "decode errors" in result.summary
    counted = upscale(broken, tmp_path / "borne.y4m", max_errors=result.damage.errors)
    assert counted.damage == result.damage


@pytest.mark.parametrize("changes", [{"max_errors": 0}, {"fail_on_damage": True}])
def test_more_errors_than_borne_end_the_job(broken: Path, changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out.y4m").write_bytes(b"older")
    with pytest.raises(IncompleteSourceError, match="decode errors"):
        upscale(broken, tmp_path / "out.y4m", overwrite=True, **changes)
    assert (tmp_path / "out.y4m").read_bytes() == b"older"
    assert names(tmp_path) == ["broken.mkv", "out.y4m"]


@pytest.mark.parametrize("dest", DESTS)
def test_a_source_cut_short_is_refused_where_no_damage_is_borne(cut: Path, dest: str, tmp_path: Path) -> None:
    with pytest.raises(IncompleteSourceError, match="fail_on_damage"):
        upscale(cut, tmp_path / dest, fail_on_damage=True)
    assert names(tmp_path) == ["cut.mkv"]


def test_the_command_line_says_damage(cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(cut), str(tmp_path / "out.y4m"), "--model", "nearest"]) == 4
    assert "incomplete source" in capsys.readouterr().err


def pictures(folder: Path, count: int = 5, pattern: str = "in_%03d.png") -> Path:
    """Numbered pictures from 1 on."""
    made = source(folder / "made.mkv", "yuv420p", count=count)
    upscale(made, folder / pattern)
    made.unlink()
    return folder / pattern


def test_pictures_become_a_blu_ray_stream(tmp_path: Path) -> None:
    upscale(pictures(tmp_path), tmp_path / "out.m2ts", fps=25, preset="ultrafast")
    assert packet_size(tmp_path / "out.m2ts") == 192


def test_a_broken_picture_is_damage_and_its_neighbour_stands_in(tmp_path: Path) -> None:
    pattern = pictures(tmp_path)
    (tmp_path / "in_003.png").write_bytes((tmp_path / "in_003.png").read_bytes()[:300])
    result = upscale(pattern, tmp_path / "out_%03d.png")
    assert (result.exit_code, result.frames, result.damage.errors, result.damage.repeated) == (4, 5, 1, 1)
    assert (tmp_path / "out_003.png").read_bytes() == (tmp_path / "out_002.png").read_bytes()
    with pytest.raises(IncompleteSourceError, match=r"in_003\.png"):
        upscale(pattern, tmp_path / "out.y4m", max_errors=0)
    assert not (tmp_path / "out.y4m").exists()


@pytest.mark.parametrize("dest", ["good.mp4", "good.y4m", "good.png"])
def test_a_pipe_without_a_frame_replaces_nothing(dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / dest).write_bytes(b"good")
    Pipes(monkeypatch, y4m("yuv420p", 0))
    with pytest.raises(DecodeError, match="pipe") as caught:
        upscale("-", tmp_path / dest, overwrite=True)
    assert exit_code(caught.value) == 3
    assert (tmp_path / dest).read_bytes() == b"good"
    assert names(tmp_path) == [dest]


def test_a_part_behind_the_end_of_a_pipe_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p", 5))
    with pytest.raises(InputError, match="the part that was asked for"):
        upscale("-", tmp_path / "out.y4m", start=Fraction(10))
    assert not names(tmp_path)


@pytest.mark.parametrize("changes", [{"frames": 0}, {"frames": -1}, {"fps": Fraction(0)}, {"fps": Fraction(-5)}, {"batch_size": 0}])
def test_options_are_checked_as_for_files(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p", 5))
    with pytest.raises(OptionError):
        upscale("-", tmp_path / "out.y4m", **changes)
    with pytest.raises(OptionError):
        upscale(pictures(tmp_path), tmp_path / "out.mkv", **changes)


def test_a_rate_that_is_none_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("25/0", "0", "-5", "fast", "1/2/3"):
        assert main([str(tmp_path / "in_%03d.png"), str(tmp_path / "out.mkv"), f"--fps={wrong}"]) == 2
        assert "is no frame rate" in capsys.readouterr().err


def same_name(folder: Path) -> tuple[Path, Path]:
    return folder / "in_%03d.png", folder / "in_%03d.png"


def other_width(folder: Path) -> tuple[Path, Path]:
    for path in folder.glob("in_*.png"):
        path.rename(folder / path.name.replace("_00", "_"))
    return folder / "in_%d.png", folder / "in_%01d.png"


def linked_folder(folder: Path) -> tuple[Path, Path]:
    (folder / "link").symlink_to(folder, target_is_directory=True)
    return folder / "in_%03d.png", folder / "link" / "in_%03d.png"


def linked_picture(folder: Path) -> tuple[Path, Path]:
    (folder / "out_004.png").symlink_to(folder / "in_002.png")
    return folder / "in_%03d.png", folder / "out_%03d.png"


def second_name(folder: Path) -> tuple[Path, Path]:
    os.link(folder / "in_005.png", folder / "out_001.png")
    return folder / "in_%03d.png", folder / "out_%03d.png"


def one_picture(folder: Path) -> tuple[Path, Path]:
    return folder / "in_003.png", folder / "in_003.png"


def one_of_many(folder: Path) -> tuple[Path, Path]:
    return folder / "in_%03d.png", folder / "in_003.png"


def one_into_many(folder: Path) -> tuple[Path, Path]:
    return folder / "in_001.png", folder / "in_%03d.png"


def relative(folder: Path) -> tuple[Path, Path]:
    os.chdir(folder)
    return folder / "in_%03d.png", Path("in_%03d.png")


Ways = Callable[[Path], tuple[Path, Path]]
WAYS: list[Ways] = [
    same_name,
    other_width,
    linked_folder,
    linked_picture,
    second_name,
    one_picture,
    one_of_many,
    one_into_many,
    relative,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_pictures_are_not_written_over_their_source(way: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # put back afterwards
    pictures(tmp_path)
    path, dest = way(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if (tmp_path / name).is_file()}
    with pytest.raises(OutputError, match="same file") as caught:
        upscale(path, dest, overwrite=True)
    assert exit_code(caught.value) == 5
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if (tmp_path / name).is_file()} == before


def test_a_part_of_pictures_may_take_names_beside_them(tmp_path: Path) -> None:
    """Only what will be written counts."""
    pattern = pictures(tmp_path)
    (tmp_path / "out_009.png").write_bytes(b"not in the way")
    assert upscale(pattern, tmp_path / "out_%03d.png").frames == 5
    (tmp_path / "in_001.png").rename(tmp_path / "first.png")
    assert upscale(tmp_path / "in_002.png", tmp_path / "in_%03d.png").frames == 1


def test_a_picture_in_the_way_is_told_before_the_first_is_written(tmp_path: Path) -> None:
    pattern = pictures(tmp_path)
    (tmp_path / "out_004.png").write_bytes(b"older")
    with pytest.raises(OutputExistsError, match=r"out_004\.png"):
        upscale(pattern, tmp_path / "out_%03d.png")
    assert [name for name in names(tmp_path) if name.startswith("out")] == ["out_004.png"]
    with pytest.raises(OutputError, match="no folder"):
        upscale(pattern, tmp_path / "none" / "out_%03d.png")


def test_a_video_is_no_single_picture_and_the_older_one_stays(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"older")
    with pytest.raises(OutputError, match="%05d"):
        upscale(whole, tmp_path / "out.png", overwrite=True)
    assert (tmp_path / "out.png").read_bytes() == b"older"
    assert names(tmp_path) == ["out.png"]


def test_a_plan_refuses_many_frames_for_one_picture_as_the_job_does(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "nearest", "--dry-run"]
    for arguments in ([str(whole), str(tmp_path / "out.png")], [str(whole), "--output-dir", str(tmp_path), "--name-pattern", "{stem}.png"]):
        assert main([*arguments, *words]) == 5
        told = capsys.readouterr()
        assert "one picture holds one frame" in told.err
        assert "source" not in told.out
        assert main([*arguments, *words, "--frames", "1"]) == 0
        assert "source" in capsys.readouterr().out
    assert main([str(whole), str(tmp_path / "out.png"), "--model", "nearest"]) == 5
    assert "source" not in capsys.readouterr().err


PLACES = [("film.y4m", "film.y4m"), ("film_%02d.png", "film_01.png"), ("film.png", "film.png")]


@pytest.mark.parametrize(("dest", "first", "fails"), [*((*place, False) for place in PLACES), *((*place, True) for place in PLACES[:2])])
def test_nothing_of_the_users_is_touched_and_nothing_is_left(dest: str, first: str, fails: bool, broken: Path, tmp_path: Path) -> None:
    (tmp_path / f"{first}.part").write_bytes(b"precious")
    if fails:
        with pytest.raises(IncompleteSourceError):
            upscale(broken, tmp_path / dest, max_errors=0)
    else:
        upscale(broken, tmp_path / dest, frames=1)
    assert (tmp_path / f"{first}.part").read_bytes() == b"precious"
    assert set(names(tmp_path)) - {path.name for path in tmp_path.glob("film_*.png")} <= {"broken.mkv", f"{first}.part", first}


@pytest.mark.parametrize("dest", ["two.y4m", "two_%02d.png", "two.mkv"])
def test_a_second_run_on_the_same_output_is_refused(dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p", 8, (32, 24), RATE))
    other = source(tmp_path / "in.mkv", "yuv420p", count=3)
    refused: list[Exception] = []

    def second(frames: int) -> None:
        if frames != 4:
            return
        try:
            upscale(other, tmp_path / dest, scale=3, overwrite=True, preset=None if dest != "two.mkv" else "ultrafast")
        except JobConflictError as error:
            refused.append(error)

    result = upscale("-", tmp_path / dest, overwrite=True, on_progress=second)
    assert (result.frames, len(refused)) == (8, 1)
    assert exit_code(refused[0]) == 5
    assert not list(tmp_path.glob("*.a2n")) and not list(tmp_path.glob("*.part"))
    made = sorted(tmp_path.glob("two*"))
    found = [frame for path in made for frame in read(path)]
    assert len(found) == 8 and {frame.width for frame in found} == {64}


def test_a_stopped_job_of_segments_is_not_thrown_away(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest = tmp_path / "out.mkv"

    def stop(frames: int) -> None:
        if frames == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(whole, dest, preset="ultrafast", segment_frames=6, on_progress=stop)
    before = names(job_path(dest))
    Pipes(monkeypatch, y4m("yuv420p", 3))
    with pytest.raises(JobConflictError, match="restart"):
        upscale("-", dest, preset="ultrafast")
    assert names(job_path(dest)) == before
    Pipes(monkeypatch, y4m("yuv420p", 3))
    upscale("-", dest, preset="ultrafast", restart=True)
    assert names(tmp_path) == ["out.mkv"] and len(read(dest)) == 3


def test_a_container_on_the_pipe_keeps_nothing_when_it_is_stopped(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on a pipe is another file to the next run, which is not refused for that."""

    def stop(frames: int) -> None:
        if frames == 20:
            raise KeyboardInterrupt

    for progress, kept in ((stop, []), (None, ["out.mkv"])):
        Pipes(monkeypatch, whole.read_bytes())
        try:
            upscale("-", tmp_path / "out.mkv", preset="ultrafast", segment_frames=6, on_progress=progress)
        except KeyboardInterrupt:
            assert progress is not None
        assert names(tmp_path) == kept


def test_a_container_on_the_pipe_throws_no_stopped_job_away(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JobDirectory(tmp_path / "out.mkv") as folder:
        folder.journal.write_text("hours of work")
    Pipes(monkeypatch, whole.read_bytes())
    with pytest.raises(JobConflictError, match="restart"):
        upscale("-", tmp_path / "out.mkv", preset="ultrafast")
    assert folder.journal.read_text() == "hours of work"


@pytest.mark.parametrize("dest", ["out.y4m", "out_%d.png", "out.png"])
@pytest.mark.parametrize("mode", ["kill", "enospc"])
def test_the_same_command_after_a_kill_or_a_full_disk(dest: str, mode: str, whole: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [whole, tmp_path / dest, "--model", "nearest", "--frames", "1" if dest == "out.png" else "5", "--overwrite"]
    first = tmp_path / dest.replace("%d", "1")
    first.write_bytes(b"older")
    struck = child.run(*command, mode=mode, point="result.write.before", nth=1)
    if mode == "enospc":
        assert (struck.returncode, struck.stderr.count("the disk is full")) == (5, 1)
        assert names(tmp_path) == [first.name]
    assert first.read_bytes() == b"older"
    assert child.run(*command).returncode == 0
    assert not list(tmp_path.glob("*.a2n")) and first.read_bytes() != b"older"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JobDirectory(tmp_path / "out.y4m") as folder:
        folder.result.write_bytes(b"half")
    Pipes(monkeypatch, y4m("yuv420p", 3))
    upscale("-", tmp_path / "out.y4m")
    assert names(tmp_path) == ["out.y4m"]


def test_a_link_stays_and_what_it_points_to_is_replaced(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "film.y4m").write_bytes(b"older")
    (tmp_path / "link.y4m").symlink_to(tmp_path / "there" / "film.y4m")
    upscale(whole, tmp_path / "link.y4m", overwrite=True, frames=3)
    assert (tmp_path / "link.y4m").is_symlink() and frames_in(tmp_path / "there" / "film.y4m") == 3
    assert names(tmp_path / "there") == ["film.y4m"]


PART = {"start": Fraction(1, 2), "end": Fraction(4, 5)}
PARTS: list[tuple[dict[str, Any], range]] = [
    (PART, range(13, 20)),
    ({"start": Fraction(13, 25), "frames": 3}, range(13, 16)),
    (PART | {"frames": 100}, range(13, 20)),
    ({"end": Fraction(1, 10)}, range(3)),
    ({"frames": 4}, range(4)),
]


@pytest.mark.parametrize(("part", "taken"), PARTS)
def test_a_part_of_a_pipe(part: dict[str, Any], taken: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same frames as from the same stream in a file, from 0 on."""
    stream = y4m("gray", 30, rate=RATE)
    pipes = Pipes(monkeypatch, stream)
    assert upscale("-", "-", **part).frames == len(taken)
    data = io.BytesIO(pipes.out.getvalue())
    for number, frame in zip(taken, read_frames(data, read_header(data)), strict=True):
        assert (repeated(planes_of("gray", (18, 14), number)[0]) == planes_in(frame)[0]).all()
    (tmp_path / "in.y4m").write_bytes(stream)
    upscale(tmp_path / "in.y4m", tmp_path / "out.y4m", **part)
    assert frames_in(tmp_path / "out.y4m") == len(taken)


def test_a_part_of_a_pipe_into_a_video_begins_at_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p", 30, rate=RATE))
    upscale("-", tmp_path / "out.mkv", preset="ultrafast", **PART)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [frame.pts * frame.time_base for frame in container.decode(video=0)] == [Fraction(n, 25) for n in range(7)]


def test_a_part_of_pictures_keeps_their_numbers(tmp_path: Path) -> None:
    pattern = pictures(tmp_path, 10)
    upscale(pattern, tmp_path / "out_%d.png", start=Fraction(3, 10), end=Fraction(7, 10), fps=Fraction(10))
    assert [path.name for path in sorted(tmp_path.glob("out*"))] == ["out_4.png", "out_5.png", "out_6.png", "out_7.png"]
    for number in (4, 7):
        (large,), (small,) = read(tmp_path / f"out_{number}.png"), read(tmp_path / f"in_{number:03d}.png")
        assert (repeated(planes_in(small)[0]) == planes_in(large)[0]).all()


@pytest.mark.parametrize("part", [{"start": Fraction(20)}, {"end": Fraction(0)}, {"start": Fraction(1, 10), "end": Fraction(1, 10)}])
def test_a_part_without_a_frame_is_an_option_error(part: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="between start and end"):
        upscale(pictures(tmp_path), tmp_path / "out.mkv", **part)
    if "end" in part:
        Pipes(monkeypatch, y4m("yuv420p"))
        with pytest.raises(OptionError, match="between start and end"):
            upscale("-", tmp_path / "out.mkv", **part)


@pytest.mark.parametrize("wanted", ["frame", "field", "ivtc"])
def test_woven_frames_are_refused_where_they_cannot_be_unwoven(wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p").replace(b" Ip ", b" It "))
    with pytest.raises(OptionError, match=f"deinterlace {wanted}: a y4m pipe"):
        upscale("-", tmp_path / "out.y4m", deinterlace=wanted)
    with pytest.raises(OptionError, match=f"deinterlace {wanted}: pictures"):
        upscale(pictures(tmp_path), tmp_path / "out.y4m", deinterlace=wanted)


def test_an_interlaced_pipe_is_taken_where_one_insists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = y4m("yuv420p").replace(b" Ip ", b" It ")
    Pipes(monkeypatch, stream)
    with pytest.raises(OptionError, match="deinterlace off"):
        upscale("-", tmp_path / "out.y4m")
    Pipes(monkeypatch, stream)
    assert upscale("-", tmp_path / "out.y4m", deinterlace="off").frames == 3


def test_pixels_of_a_pipe_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p"))
    with pytest.raises(UnsupportedFormatError, match=r"18x14 .*max_pixels"):
        upscale("-", tmp_path / "out.y4m", max_pixels=18 * 14 - 1)
    Pipes(monkeypatch, y4m("yuv420p"))
    assert upscale("-", tmp_path / "out.y4m", max_pixels=18 * 14).frames == 3


@pytest.mark.parametrize("changes", [{"sandbox": True}, {"ray": True}])
def test_what_works_on_segments_is_refused(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pipes(monkeypatch, y4m("yuv420p"))
    with pytest.raises(OptionError, match=rf"^{next(iter(changes))} "):
        upscale("-", tmp_path / "out.y4m", **changes)


def test_a_rate_beside_a_pipes_own_is_left_aside_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Pipes(monkeypatch, y4m("yuv420p"))
    assert main(["-", str(tmp_path / "out.y4m"), "--model", "nearest", "--fps", "50", "--dry-run"]) == 0
    assert "--fps is left aside" in capsys.readouterr().out


def test_numbers_come_from_the_pattern(tmp_path: Path) -> None:
    pattern = pictures(tmp_path, 3, "shot2_%05d.png")
    upscale(pattern, tmp_path / "big_%05d.png")
    assert [path.name for path in sorted(tmp_path.glob("big*"))] == [f"big_{number:05d}.png" for number in (1, 2, 3)]


def test_a_change_of_size_among_pictures_is_told(tmp_path: Path) -> None:
    pattern = pictures(tmp_path, 3)
    upscale(tmp_path / "in_003.png", tmp_path / "in_%d.png", overwrite=True)
    (tmp_path / "in_1.png").rename(tmp_path / "in_004.png")
    result = upscale(pattern, tmp_path / "out.y4m")
    assert (result.frames, result.exit_code) == (4, 0)
    assert "64x48 became 128x96" in result.summary


@pytest.mark.parametrize(("stage", "code"), [("decode", 3), ("engine", 6)])
def test_a_stage_that_hangs_ends_the_job_where_that_was_asked_for(stage: str, code: int, whole: Path, tmp_path: Path) -> None:
    ended = child.run(
        whole, tmp_path / "out.y4m", "--model", "nearest", "-q", "--stall-timeout", "1", mode="hang", point=stage, nth=5, timeout=60
    )
    assert ended.returncode == code and "hung" in ended.stderr
    assert not names(tmp_path)


# Who takes the frames, at what call, on the way to which result.
SINKS = {
    "encoder": (VideoWriter, "write", "out.mkv"),
    "encoder's drain": (VideoWriter, "close", "out.mkv"),
    "y4m": (Y4mWriter, "write", "out.y4m"),
    "pictures": (PictureWriter, "write", "out_%03d.png"),
}
DISK = (OutFile, "finish", "out.y4m")


class Held:
    """A call that does not come back in its thread until it is let go, or the patience of the tests ends; `first` is called in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: type, name: str, first: Callable[[], None] = lambda: None) -> None:
        self.plain, self.first = getattr(place, name), first
        self.free, self.ended = threading.Event(), threading.Event()
        monkeypatch.setattr(place, name, lambda *given: self(*given))

    def __call__(self, *given: Any) -> Any:
        self.first()
        self.free.wait(6)
        try:
            return self.plain(*given)
        finally:
            self.ended.set()

    def let_go(self) -> None:
        self.free.set()
        self.ended.wait(5)
        while left_behind():
            time.sleep(0.01)


@pytest.fixture
def five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Numbered pictures in a folder of their own; what an encoder is tried on before is no part of the job."""
    monkeypatch.setattr("a2n_video.job.planning.picture.rehearse", lambda *_: None)
    (tmp_path / "in").mkdir()
    return pictures(tmp_path / "in")


@pytest.mark.parametrize("case", SINKS)
def test_a_sink_that_hangs_ends_the_job(case: str, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for --stall-timeout; what hung comes back afterwards, and nothing comes of it."""
    monkeypatch.setattr(encode, "_STALL_S", 0.3)
    monkeypatch.setattr(encode, "_STALL_S_PER_PIXEL", 0.0)
    place, name, dest = SINKS[case]
    held, began = Held(monkeypatch, place, name), time.monotonic()
    with pytest.raises(EncodeError, match="the encoder hung"):
        upscale(five, tmp_path / dest)
    assert time.monotonic() - began < 4
    held.let_go()
    assert names(tmp_path) == ["in"]


@pytest.mark.parametrize("case", [*SINKS, "disk"])
def test_a_stop_does_not_wait_for_a_sink(case: str, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an encoder is drained of the many frames that it looked ahead at."""
    place, name, dest = {**SINKS, "disk": DISK}[case]
    held = Held(monkeypatch, place, name, lambda: signal.raise_signal(signal.SIGTERM))
    options = JobOptions().with_changes(model="nearest")
    began = time.monotonic()
    with pytest.raises(Terminated), Stops() as stops:
        upscale_stream(five, tmp_path / dest, options, stops=stops)
    assert time.monotonic() - began < 4
    held.let_go()
    assert names(tmp_path) == ["in"]


def test_a_pipe_or_a_disk_that_takes_its_time_is_no_stage_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for --stall-timeout."""
    monkeypatch.setattr(encode, "_STALL_S", 0.3)
    monkeypatch.setattr(encode, "_STALL_S_PER_PIXEL", 0.0)
    Pipes(monkeypatch, y4m("yuv420p", 3, (16, 16), Fraction(25)))
    finish = OutFile.finish

    def late(stream: BinaryIO, header: Y4mHeader) -> Iterator[av.VideoFrame]:
        time.sleep(0.8)
        yield from read_frames(stream, header)

    def slow(file: OutFile) -> str:
        time.sleep(0.8)
        return finish(file)

    monkeypatch.setattr(incoming, "read_frames", late)
    monkeypatch.setattr(OutFile, "finish", slow)
    assert upscale("-", tmp_path / "out.y4m").frames == 3


def test_skipping_to_the_start_is_no_hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame every 20 ms; the first one wanted comes after half a second."""
    pipes = Pipes(monkeypatch, y4m("yuv420p", 40, (16, 16), Fraction(25)))

    def slow(stream: BinaryIO, header: Y4mHeader) -> Iterator[av.VideoFrame]:
        for frame in read_frames(stream, header):
            time.sleep(0.02)
            yield frame

    monkeypatch.setattr("a2n_video.job.incoming.read_frames", slow)
    result = upscale("-", tmp_path / "out.y4m", start=Fraction(1), stall_timeout=0.3)
    assert result.frames == 15 and not pipes.out.getvalue()


class _Full:
    """A pipe whose reader has gone."""

    def write(self, data: bytes) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self) -> None:
        """Nothing is held back."""


def test_a_reader_that_goes_is_one_line_for_containers_too(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "stdout", _Full)
    with pytest.raises(EncodeError, match="the result could not be written to the pipe"):
        upscale(whole, "-", pipe_format="nut", preset="ultrafast")


@pytest.mark.parametrize("given", [b"", b"no video at all"])
def test_errors_call_a_pipe_what_the_user_did(
    given: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes in ([], ["--dry-run"]):
        Pipes(monkeypatch, given)
        log = tmp_path / f"log{len(changes)}"
        assert main(["-", str(tmp_path / "out.mkv"), "--log-file", str(log), *changes]) == 3
        assert capsys.readouterr().err.startswith("a2n-video: -: ")
        assert json.loads(log.read_text().splitlines()[-1])["message"].startswith("-: ")


def test_the_plan_calls_a_pipe_what_the_user_did(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for dest, words in ((str(tmp_path / "out.mkv"), []), (str(tmp_path / "out.y4m"), []), ("-", ["--pipe-format", "nut"])):
        Pipes(monkeypatch, whole.read_bytes())
        assert main(["-", dest, "--model", "nearest", "--dry-run", *words]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[0].startswith("source   -: h264")
        assert told[1].startswith(f"result   {dest}: ")
        Pipes(monkeypatch, whole.read_bytes())
        assert main(["-", dest, "--model", "nearest", "--dry-run", "--json", *words]) == 0
        event = json.loads(capsys.readouterr().out)
        assert (event["source"], event["dest"]) == ("-", dest)


def test_there_must_be_a_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="stdin is closed"):
        upscale("-", tmp_path / "out.mkv")


def test_a_full_temporary_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Pipes(monkeypatch, b"anything but y4m")
    monkeypatch.setattr(streaming.shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match="TMPDIR"):
        upscale("-", tmp_path / "out.mkv")
