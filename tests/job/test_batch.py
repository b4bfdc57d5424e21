"""Batches: which files, what names, one summary; a failure costs one file. Events: one JSON line for each thing that happens."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video.cli import main
from a2n_video.errors import DecodeError, InputError, OptionError, OutputError, UnknownModelError, WeightsError
from a2n_video.io.rgb import read_rgb
from a2n_video.job.batch import DEFAULT_PATTERN, BatchItem, Outcome, batch_exit_code, collect, run_batch, summary
from a2n_video.job.directory import JobDirectory
from a2n_video.job.planning.plan import prepare
from a2n_video.job.planning.space import check_space, needed_bytes
from a2n_video.net.catalog import find_model
from a2n_video.options import JobOptions
from tests.made import decoded, make_source

OPTIONS = JobOptions()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("batch") / "a.mkv", pts=range(12))


@pytest.fixture
def folder(clip: Path, tmp_path: Path) -> Path:
    """Two good videos, one in a folder below; a broken one; things that are no videos."""
    root = tmp_path / "in"
    (root / "below").mkdir(parents=True)
    (root / "old.mkv.a2n").mkdir()
    for name in ("a.mkv", "below/b.MKV", "old.mkv.a2n/result.mkv", ".hidden.mkv"):
        shutil.copy(clip, root / name)
    (root / "c.mp4").write_bytes(b"no video at all")
    (root / "notes.txt").write_text("x")
    return root


def names(items: list[BatchItem], root: Path) -> list[tuple[str, str]]:
    return [(str(item.source.relative_to(root)), str(item.dest)) for item in items]


def test_collect(folder: Path) -> None:
    found = collect([folder], Path("out"), "{stem}_x{scale}{suffix}", OPTIONS)
    assert names(found, folder) == [("a.mkv", "out/a_x2.mkv"), ("below/b.MKV", "out/below/b_x2.MKV"), ("c.mp4", "out/c_x2.mp4")]


def test_videos_of_cameras_recorders_and_broadcast_are_taken_from_a_folder(tmp_path: Path) -> None:
    taken = ["a.m2t", "b.GXF", "c.vro", "d.m2p", "e.mk3d", "f.ismv", "g.trp", "h.tod", "i.h264"]
    for name in taken:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "film.ogg").write_bytes(b"OggS" + bytes(24) + b"\x80theora")
    (tmp_path / "camera.MOD").write_bytes(b"\0\0\1\xba")
    (tmp_path / "song.ogg").write_bytes(b"OggS" + bytes(24) + b"\x01vorbis")
    (tmp_path / "tracker.mod").write_bytes(b"M.K.")
    found = collect([tmp_path], Path("out"), DEFAULT_PATTERN, OPTIONS)
    assert [item.source.name for item in found] == sorted([*taken, "film.ogg", "camera.MOD"])


def test_results_are_no_sources(folder: Path) -> None:
    shutil.copytree(folder / "below", folder / "results")
    assert len(collect([folder], folder / "results", "{stem}{suffix}", OPTIONS)) == 3


def test_a_second_run_into_the_same_folder_finds_the_same_sources(folder: Path) -> None:
    pattern = "{stem}_x{scale}{suffix}"
    first = collect([folder], folder, pattern, OPTIONS)
    for item in first:
        shutil.copy(item.source, item.dest)
    assert collect([folder], folder, pattern, OPTIONS) == first
    named = collect([folder / "a_x2.mkv"], folder, pattern, OPTIONS)
    assert [item.dest.name for item in named] == ["a_x2_x2.mkv"]  # whoever names it means it


def test_results_may_go_to_a_folder_above(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    found = collect([Path(folder.name)], Path(), "{stem}_x{scale}{suffix}", OPTIONS)
    assert [str(item.dest) for item in found] == ["a_x2.mkv", "below/b_x2.MKV", "c_x2.mp4"]


def test_a_file_named_by_itself_and_by_its_folder_is_done_once(folder: Path) -> None:
    once = collect([folder], Path("out"), DEFAULT_PATTERN, OPTIONS)
    again = [folder, folder / "a.mkv", folder / "below", folder / "below" / ".." / "below" / "b.MKV"]
    assert collect(again, Path("out"), DEFAULT_PATTERN, OPTIONS) == once
    first, *_ = collect([folder / "below" / "b.MKV", folder], Path("out"), DEFAULT_PATTERN, OPTIONS)
    assert first.dest == Path("out/b_x2.MKV")  # where it was named first decides


def test_a_container_that_is_not_written_becomes_mkv(tmp_path: Path) -> None:
    assert collect([tmp_path / "x.wmv"], tmp_path, "{stem}{suffix}", OPTIONS)[0].dest.name == "x.mkv"


def named(pattern: str, name: str = "one.mp4", **changes: Any) -> str:
    return collect([Path(name)], Path("out"), pattern, OPTIONS.with_changes(**changes))[0].dest.name


@pytest.mark.parametrize(
    "size, name",
    [("720p", "one_720p.mp4"), ("fit:3840x2160", "one_fit-3840x2160.mp4"), (" 2560\u00d71440", "one_2560x1440.mp4")],
)
def test_with_a_size_results_are_named_after_it(size: str, name: str) -> None:
    assert named(DEFAULT_PATTERN, size=size) == name
    assert named("{size}{suffix}", size=size) == name.removeprefix("one_")


@pytest.mark.parametrize(
    "changes, name",
    [
        ({}, "one-a2n-video-2"),
        ({"scale": 3}, "one-a2n-3"),
        ({"model": "a2n-tiny"}, "one-a2n-tiny-2"),
        ({"model": "nearest", "scale": 4}, "one-nearest-4"),
        ({"engine": "nearest"}, "one-nearest-2"),
        ({"weights": str(find_model("a2n", 4).path), "scale": 4}, "one-a2n_x4-4"),
    ],
)
def test_names_say_what_runs(changes: dict[str, Any], name: str) -> None:
    assert named("{stem}-{model}-{scale}", **changes) == name
    assert named("{stem}-{model}", **({"size": "720p", "model": "a2n"} | changes)) == (f"one-{name[4:-2]}" if changes else "one-a2n")


@pytest.mark.parametrize(
    "pattern, changes, error, told",
    [
        ("{stem}{scale}", {"size": "720p"}, OptionError, "--name-pattern {stem}{scale}: .*write {size}"),
        ("{stem}{size}", {}, OptionError, "not given; write {scale}"),
        ("{stem}{model}", {"size": "720p"}, OptionError, "name one with --model"),
        ("{stem}", {"size": "../720p"}, OptionError, "--size ../720p"),
        ("{model}", {"model": "a2n-tiny", "scale": 4}, UnknownModelError, "not bundled for scale 4"),
        (DEFAULT_PATTERN, {"weights": str(find_model("a2n", 4).path)}, WeightsError, "give --scale 4"),
        (DEFAULT_PATTERN, {"weights": "gone.pt"}, WeightsError, "gone.pt: cannot be read"),
    ],
)
def test_names_that_would_not_be_true(pattern: str, changes: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        named(pattern, **changes)


@pytest.mark.parametrize(
    "name, result",
    [
        ("a.png", "a_x2.png"),
        ("a.TIF", "a_x2.TIF"),
        ("a.jpeg", "a_x2.jpeg"),
        ("a_%03d.png", "a_%03d_x2.mkv"),
        ("a.bmp", "a_x2.png"),
        ("a.WebP", "a_x2.png"),
    ],
)
def test_pictures_stay_pictures(name: str, result: str) -> None:
    assert named(DEFAULT_PATTERN, name) == result


@pytest.mark.parametrize("name", ["50%d.png", "50%d.bmp"])
def test_a_picture_does_not_become_many(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(OptionError, match="many pictures"):
        collect([tmp_path / name], tmp_path, DEFAULT_PATTERN, OPTIONS)


@pytest.mark.parametrize("suffix, codec, pix_fmt", [(".bmp", "bmp", "bgr24"), (".webp", "libwebp", "bgra")])
def test_pictures_of_a_kind_that_is_not_written_become_png(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 32, 24, pix_fmt, Fraction(1, 25)
    encoder.options = {"lossless": "1"} if codec == "libwebp" else {}
    frame = av.VideoFrame.from_ndarray(rgb).reformat(format=pix_fmt)
    frame.pts = 0
    source = tmp_path / f"a{suffix}"
    source.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
    assert main(["-q", str(source), "--output-dir", str(tmp_path / "out"), "--model", "nearest"]) == 0
    (result,) = read_rgb(tmp_path / "out" / "a_x2.png")
    np.testing.assert_array_equal(result, rgb.repeat(2, 0).repeat(2, 1))


def test_a_batch_of_pictures(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-q", str(clip), str(tmp_path / "%d.png"), "--model", "nearest", "--frames", "2"]) == 0
    arguments = [str(tmp_path / "1.png"), str(tmp_path / "2.png"), "--output-dir", str(tmp_path / "out"), "--model", "nearest"]
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1_x2.png", "2_x2.png"]
    assert [len(decoded(tmp_path / "out" / name)) for name in ("1_x2.png", "2_x2.png")] == [1, 1]
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().err.startswith("2 files: 2 skipped")


@pytest.mark.parametrize(
    "pattern", ["{oops}", "{stem", "", "../{stem}{suffix}", "a/{stem}", "{scale:03d}", "{stem:{oops}}", "{}", "{stem.parent}"]
)
def test_patterns_that_make_no_name(folder: Path, pattern: str) -> None:
    with pytest.raises(OptionError, match="--name-pattern"):
        collect([folder], Path("out"), pattern, OPTIONS)


def test_two_sources_with_one_result_are_told(folder: Path) -> None:
    with pytest.raises(OptionError, match="would both become"):
        collect([folder], Path("out"), "same.mkv", JobOptions())
        collect([folder / "a.mkv", folder / "c.mp4"], Path("out"), "same.mkv", OPTIONS)


def test_a_folder_without_videos_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video"):
        collect([tmp_path], tmp_path, "{stem}{suffix}", OPTIONS)


def test_of_a_folder_of_pictures_it_is_told_how_pictures_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    assert main([str(tmp_path / "in"), "--output-dir", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert "of folders the videos are taken" in told and "a_%05d.png" in told
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "a_%05d.png" in capsys.readouterr().out.partition("many files:")[2]


def test_batch_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder), "--output-dir", str(tmp_path / "out"), "--model", "nearest", "--preset", "ultrafast", "-q"]
    assert main(arguments) == 8
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "3 files: 2 done, 1 failed"
    assert told[1].startswith(f"failed   {folder / 'c.mp4'}: not a video file")  # its name once
    results = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert results == [Path("a_x2.mkv"), Path("below/b_x2.MKV")]
    assert all(len(decoded(tmp_path / "out" / path)) == 12 for path in results)
    before = (tmp_path / "out/a_x2.mkv").stat().st_mtime_ns
    assert main(arguments) == 8
    assert capsys.readouterr().err.startswith("3 files: 2 skipped, 1 failed")
    assert (tmp_path / "out/a_x2.mkv").stat().st_mtime_ns == before
    (folder / "c.mp4").unlink()
    assert main([*arguments, "--overwrite"]) == 0
    assert capsys.readouterr().err == ""  # quiet: only what went wrong
    assert (tmp_path / "out/a_x2.mkv").stat().st_mtime_ns > before


def test_a_dry_run_of_a_batch_makes_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.mp4").unlink()
    assert main([str(folder), "--output-dir", str(tmp_path / "out" / "deep"), "--model", "nearest", "--dry-run"]) == 0
    assert capsys.readouterr().err == "2 files: 2 planned\n"
    assert not (tmp_path / "out").exists()


def test_an_unfinished_result_is_not_skipped(tmp_path: Path) -> None:
    item = BatchItem(source=tmp_path / "a", dest=tmp_path / "b")
    item.dest.write_bytes(b"")
    (tmp_path / "b.a2n").mkdir()
    (tmp_path / "b.a2n" / "journal.jsonl").write_text("hours of work")
    assert [o.fate for o in run_batch([item], overwrite=False, one=lambda item: 0)] == ["done"]


@pytest.mark.parametrize(("left", "stays"), [([], False), (["lock"], False), (["lock", "journal.jsonl"], False), (["notes"], True)])
def test_a_folder_without_a_journal_makes_no_result_unfinished(left: list[str], stays: bool, tmp_path: Path) -> None:
    """A run was stopped, or could not go on, while it tidied up."""
    item = BatchItem(source=tmp_path / "a", dest=tmp_path / "b")
    item.dest.write_bytes(b"")
    (tmp_path / "b.a2n").mkdir()
    for name in left:
        (tmp_path / "b.a2n" / name).touch()
    for planning in (True, False):
        assert (tmp_path / "b.a2n").exists()
        assert [o.fate for o in run_batch([item], overwrite=False, one=lambda item: 0, planning=planning)] == ["skipped"]
    assert (tmp_path / "b.a2n").exists() == stays
    with JobDirectory(item.dest):  # another run's
        assert [o.fate for o in run_batch([item], overwrite=False, one=lambda item: 0)] == ["skipped"]
        assert (tmp_path / "b.a2n" / "lock").exists()


@pytest.mark.parametrize("other", [None, "link", "symlink"])
def test_a_source_is_not_skipped_as_its_own_result(
    other: str | None, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.mkv"
    shutil.copy(clip, source)
    results = tmp_path if other is None else tmp_path / "out"
    results.mkdir(exist_ok=True)
    if other == "link":
        os.link(source, results / "a.mkv")
    elif other == "symlink":
        (results / "a.mkv").symlink_to(source)
    arguments = [str(source), "--output-dir", str(results), "--name-pattern", "{stem}{suffix}", "--model", "nearest"]
    assert main(arguments) == main([*arguments, "--overwrite"]) == 5
    assert capsys.readouterr().err.count("output and input are the same file") == 2
    assert source.read_bytes() == clip.read_bytes()


def test_any_error_costs_one_file_and_a_stop_ends_all(tmp_path: Path) -> None:
    items = [BatchItem(source=tmp_path / name, dest=tmp_path / f"{name}.out") for name in "abcd"]
    errors = {"a": MemoryError("all gone"), "c": DecodeError("not a video")}

    def one(item: BatchItem) -> int:
        if error := errors.get(item.source.name):
            raise error
        return 4 if item.source.name == "d" else 0

    outcomes = run_batch(items, overwrite=False, one=one)
    assert [o.fate for o in outcomes] == ["failed", "done", "failed", "damaged"]
    assert batch_exit_code(outcomes) == 8
    assert summary(outcomes).splitlines()[0] == "4 files: 1 done, 1 damaged, 2 failed"

    def stopped(item: BatchItem) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(items, overwrite=False, one=stopped)


def test_exit_codes(tmp_path: Path) -> None:
    item = BatchItem(source=tmp_path, dest=tmp_path)
    failed = Outcome(item=item, fate="failed", error=DecodeError("x"))
    damaged, done = Outcome(item=item, fate="damaged"), Outcome(item=item, fate="done")
    assert [batch_exit_code(o) for o in ([done], [done, damaged], [failed], [failed, done])] == [0, 4, 3, 8]


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_events(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    arguments = [
        str(clip),
        str(tmp_path / "out.mkv"),
        "--model",
        "nearest",
        "--segment-frames",
        "5",
        "--json",
        "--log-file",
        str(log),
        "-q",
    ]
    assert main(arguments) == 0
    told = capsys.readouterr()
    found = events(told.out)
    assert told.err == ""
    assert log.read_text() == told.out
    assert [e["event"] for e in found if e["event"] != "progress"] == ["plan", "segment", "segment", "segment", "verified"]
    assert {"time", "source"} <= set.intersection(*(set(e) for e in found))
    plan, segment, verified = found[0], next(e for e in found if e["event"] == "segment"), found[-1]
    assert (plan["frames"], plan["width"], plan["height"], plan["codec"]) == (12, 128, 96, "libx264")
    assert (segment["number"], segment["frames"]) == (0, 5)
    assert (verified["frames"], verified["exit_code"], verified["dest"]) == (12, 0, str(tmp_path / "out.mkv"))
    assert [e["frames"] for e in found if e["event"] == "progress"][-1] == 12
    assert main(arguments) == 5
    [error] = events(capsys.readouterr().out)
    assert (error["event"], error["kind"], error["exit_code"]) == ("error", "OutputExistsError", 5)
    assert log.read_text().count("\n") == len(found) + 1


def test_too_little_room_is_told_before_the_first_frame(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(clip, tmp_path / "out.mkv", OPTIONS.with_changes(model="nearest", codec="ffv1"))
    assert needed_bytes(plan) == 2 * 12 * 128 * 96 * 3 // 8
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed_bytes(plan) - 1))
    with pytest.raises(OutputError, match=r"needs about 111 kB and the disk has 111 kB left; make room"):
        check_space(plan, tmp_path)
    (tmp_path / "written").write_bytes(b"x")  # what is there already need not be written again
    check_space(plan, tmp_path)


def test_batch_options_need_a_folder(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(clip), "out.mkv", "--name-pattern", "{stem}{suffix}"]) == 2
    assert "--output-dir" in capsys.readouterr().err
