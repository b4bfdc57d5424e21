"""The main road on real files: twice the size, every frame once, time, sound, tags and depth as they were; bad input in one line."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video import VideoReader, probe, upscale_video
from a2n_video.cli import main
from a2n_video.errors import IncompleteSourceError
from a2n_video.net.catalog import available_models, resolve_model
from tests.conftest import ROOT, SHARED
from tests.made import make_source

CLIP = ROOT / "examples" / "clip.mp4"
FRAMES = 8
# What the clips' own table calls for: no video, or nothing that opens; damaged from the first frame on.
UNUSABLE = {
    "androidx__sample_audio_only.mp4": 3,
    "androidx__sample_malformed_free_box.mp4": 3,
    "empty.mp4": 3,
    "text_named.mp4": 3,
    "androidx__invalid-bitstream.webm": 4,
}
# What it calls for of the whole clip: damaged somewhere, but for the rest of it.
CODES = {**UNUSABLE, "androidx__sample_with_invalid_nalu.mp4": 4, "decord__corrupted.mp4": 4}
LONG = {"androidx__long_1080p_lowbitrate.mp4": 240}
CLIPS = sorted(path.name for path in (SHARED / "clips").glob("*") if path.suffix != ".md") if SHARED.is_dir() else []


def decoded(path: Path, count: int | None = None) -> list[av.VideoFrame]:
    """Frames of the video that the product itself takes for the main one, in native planes."""
    with VideoReader(path, frames=count) as reader:
        return list(reader)


def largest(path: Path) -> list[av.VideoFrame]:
    """Frames of the largest video in a file: the upscaled one, where other videos were copied beside it."""
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda video: video.codec_context.width)
        if probe(path).alpha:
            return decoded(path)
        return list(container.decode(stream))


def seconds(frames: list[av.VideoFrame]) -> list[Fraction]:
    return [frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator) for frame in frames]


def luma(frame: av.VideoFrame, halve: bool = False) -> np.ndarray:
    """The first plane in 0..1, averaged over 2x2 where asked."""
    depth = frame.format.components[0].bits
    plane = frame.planes[0]
    dtype = np.uint8 if depth == 8 else np.uint16
    rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].astype(float) / (2**depth - 1)
    if not halve:
        return rows
    rows = rows[: rows.shape[0] // 2 * 2, : rows.shape[1] // 2 * 2]
    return (rows[::2, ::2] + rows[1::2, ::2] + rows[::2, 1::2] + rows[1::2, 1::2]) / 4


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.mean((a - b) ** 2), 1e-10)))


def audio_payloads(path: Path) -> list[list[str]]:
    """Hashes of every audio packet, track by track."""
    tracks: dict[int, list[str]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux(*container.streams.audio) if container.streams.audio else ():
            if packet.size:
                tracks.setdefault(packet.stream_index, []).append(hashlib.sha1(bytes(packet)).hexdigest())
    return list(tracks.values())


@pytest.mark.skipif(not CLIPS, reason="reference clips are missing")
@pytest.mark.parametrize("name", [name for name in CLIPS if name not in UNUSABLE])
def test_every_clip_comes_out_twice_the_size(name: str, shared: Path, tmp_path: Path) -> None:
    source = shared / "clips" / name
    dest = tmp_path / ("out.mkv" if source.suffix == ".mkv" else "out.mp4" if source.suffix != ".webm" else "out.webm")
    options: dict[str, Any] = {"codec": "libsvtav1", "preset": "10"} if dest.suffix == ".webm" and not probe(source).alpha else {}
    if dest.suffix != ".webm":
        options["preset"] = "ultrafast"
    result = upscale_video(
        source, dest, model="nearest", frames=FRAMES, crf=8 if dest.suffix != ".webm" else 12, deinterlace="off", **options
    )
    given, got = decoded(source, FRAMES), largest(dest)
    assert result.frames == len(given) == len(got)
    assert (got[0].width, got[0].height) == (2 * given[0].width, 2 * given[0].height)
    times, made = seconds(given), seconds(got)
    tolerance = Fraction(1, 2000) if dest.suffix in (".mkv", ".webm") else Fraction(1, 100_000)
    for before, after in zip(times, made, strict=True):
        assert abs((after - made[0]) - (before - times[0])) <= tolerance
    info, new = probe(source), probe(dest)
    planned = info.color.settled(info.planes)
    assert (new.color.matrix, new.color.full_range, new.color.primaries, new.color.transfer) == (
        planned.matrix,
        planned.full_range,
        planned.primaries,
        planned.transfer,
    )
    assert new.planes.depth == info.planes.depth
    assert new.sar == info.sar
    assert abs(new.rotation) == abs(info.rotation)
    for before, after in zip(given, got, strict=True):
        assert psnr(luma(before)[: after.height // 2, : after.width // 2], luma(after, halve=True)) >= 30
    for before, after in zip(audio_payloads(source), audio_payloads(dest), strict=True):
        assert after == before[: len(after)]
        assert after or not before


@pytest.mark.skipif(not CLIPS, reason="reference clips are missing")
@pytest.mark.parametrize("name", sorted(UNUSABLE))
def test_what_cannot_be_used_is_told_before_any_output(name: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(shared / "clips" / name), str(tmp_path / "out.mkv"), "--model", "nearest"])
    assert code == UNUSABLE[name]
    assert_one_line(capsys.readouterr().err, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS, reason="reference clips are missing")
@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_to_its_end(name: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole clip, by the command line: verified with exit 0, or the code that its row of the table calls for, and why."""
    source = shared / "clips" / name
    dest = tmp_path / f"out{source.suffix if source.suffix in ('.mkv', '.webm') else '.mp4'}"
    frames = ["--frames", str(LONG[name])] if name in LONG else []
    speed = ["--codec", "libsvtav1"] if dest.suffix == ".webm" and "transparent" not in name else []
    speed += ["--preset", {".webm": "10" if speed else "8"}.get(dest.suffix, "ultrafast")]
    code = main([str(source), str(dest), "--model", "nearest", *frames, *speed])
    told = capsys.readouterr().err
    print(f"{name}: exit {code}: {told.splitlines()[-1]}")
    assert code == CODES.get(name, 0), told
    assert dest.exists() == (name not in UNUSABLE)
    assert ("verified: " in told) == dest.exists()
    assert ("damaged" in told) == (code == 4)
    assert [path.name for path in tmp_path.iterdir()] == [dest.name] * dest.exists()


def assert_one_line(text: str, *told: str) -> None:
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("a2n-video: ")
    assert "Traceback" not in text
    for word in told:
        assert word in lines[0]


class Pickle:
    """A pickle that would leave a mark if it were run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def playground(tmp_path: Path) -> Path:
    """A folder with everything that goes wrong in it."""
    shutil.copy(CLIP, tmp_path / "in.mp4")
    (tmp_path / "old.mp4").write_bytes(b"an old result")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to("in.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "in.mp4")
    with av.open(str(tmp_path / "audio.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    (tmp_path / "run.pt").write_bytes(pickle.dumps({"conv_first.weight": Pickle(tmp_path / "mark")}))
    weights = ROOT / "a2n_video" / "net" / "data" / "a2n_x2.safetensors"
    (tmp_path / "short.safetensors").write_bytes(weights.read_bytes()[:20000])
    shutil.copy(weights, tmp_path / "x2.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ("none.mp4 out.mp4", 3, "no such file"),
        ("folder.mp4 out.mp4", 3, "folder"),
        ("empty.mp4 out.mp4", 3, "empty"),
        ("text.mp4 out.mp4", 3, "text.mp4"),
        ("audio.mp4 out.mp4", 3, "no video"),
        ("in.mp4 in.mp4", 5, "same file"),
        ("in.mp4 in.mp4 --overwrite", 5, "same file"),
        ("in.mp4 link.mp4 --overwrite", 5, "same file"),
        ("in.mp4 hard.mp4 --overwrite", 5, "same file"),
        ("in.mp4 old.mp4", 5, "--overwrite"),
        ("in.mp4 folder.mp4", 5, "folder"),
        ("in.mp4 nowhere/out.mp4", 5, "folder"),
        ("in.mp4 out.xyz", 2, ".xyz"),
        ("in.mp4 out", 2, "extension"),
        ("in.mp4 out.mp4 --codec libx299", 2, "libx299"),
        ("in.mp4 out.webm --codec libx264", 2, "webm"),
        ("in.mp4 out.mp4 --scale 5", 2, "5"),
        ("in.mp4 out.mp4 --size 1440p --scale 3", 2, "leave out --scale 3"),
        ("in.mp4 out.mp4 -e crv=18", 2, "crv"),
        ("in.mp4 out.mp4 --preset quick", 2, "quick"),
        ("in.mp4 out.mp4 --crf 99", 2, "0 (best) to 51"),
        ("in.mp4 out.mp4 --pix-fmt yuv999p", 2, "yuv999p"),
        ("in.mp4 out.mp4 --frames 0", 2, "--frames"),
        ("in.mp4", 2, "input and an output"),
        ("in.mp4 out.mp4 --model a9n", 2, "a9n"),
        ("in.mp4 out.mp4 --weights none.safetensors", 6, "none.safetensors"),
        ("in.mp4 out.mp4 --weights short.safetensors", 6, "short.safetensors"),
        ("in.mp4 out.mp4 --weights x2.safetensors --scale 4", 6, "x2.safetensors"),
        ("in.mp4 out.mp4 --weights run.pt", 6, "run.pt"),
        ("in.mp4 out.mp4 --device cuda:7", 6, "cuda:7"),
    ],
)
def test_bad_use_is_one_line_and_a_code(
    arguments: str, code: int, told: str, playground: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(playground)
    before = {path: path.read_bytes() for path in playground.iterdir() if path.is_file()}
    words = arguments.split()
    if "--weights" not in words and "--model" not in words and "--device" not in words:
        words += ["--model", "nearest"]
    assert main(["-q", *words]) == code
    assert_one_line(capfd.readouterr().err, told)
    assert {path: path.read_bytes() for path in playground.iterdir() if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, to become somebody without rights")
def test_no_permission(playground: Path) -> None:
    """As an unprivileged user: an input that may not be read, a folder that may not be written."""
    playground.chmod(0o755)
    for parent in playground.parents[:3]:
        parent.chmod(0o755)
    (playground / "in.mp4").chmod(0o600)
    (playground / "open.mp4").write_bytes(CLIP.read_bytes())
    code = (
        "import os, sys\n"
        "import a2n_video.job.run, a2n_video.engine.nearest\n"
        "from a2n_video.cli import main\n"
        f"os.chdir({str(playground)!r})\n"
        "os.setuid(65534)\n"
        "sys.exit(main(['-q', sys.argv[1], sys.argv[2], '--model', 'nearest']))\n"
    )
    for source, dest, expected in (("in.mp4", "out.mp4", 3), ("open.mp4", "out.mp4", 5)):
        done = subprocess.run([sys.executable, "-c", code, source, dest], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == expected, done.stderr
        assert_one_line(done.stderr, "permission")


def test_cut_by_frames_cuts_the_sound_too(tmp_path: Path) -> None:
    result = upscale_video(CLIP, tmp_path / "out.mp4", model="nearest", frames=25, preset="ultrafast")
    assert result.frames == 25
    assert result.verified.startswith("verified: 25 frames")
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = container.streams.audio[0]
        length = sound.duration * Fraction(sound.time_base.numerator, sound.time_base.denominator)
    assert Fraction(96, 100) <= length <= Fraction(106, 100)


def test_encoder_options_reach_the_encoder(tmp_path: Path) -> None:
    sizes = []
    for crf in (10, 40):
        upscale_video(CLIP, tmp_path / f"{crf}.mkv", model="nearest", frames=10, crf=crf, encoder_options={"tune": "grain"})
        sizes.append((tmp_path / f"{crf}.mkv").stat().st_size)
    assert sizes[0] > 3 * sizes[1]
    upscale_video(CLIP, tmp_path / "deep.mkv", model="nearest", frames=4, codec="libx265", pix_fmt="yuv420p10le", preset="ultrafast")
    assert probe(tmp_path / "deep.mkv").pix_fmt == "yuv420p10le"


def test_an_odd_extension_in_capitals(tmp_path: Path) -> None:
    upscale_video(CLIP, tmp_path / "OUT.MP4", model="nearest", frames=3, preset="ultrafast")
    assert len(decoded(tmp_path / "OUT.MP4")) == 3


def test_models_are_listed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(available_models()) and not any("Model(" in line for line in lines)
    taken = [line.split()[:2] for line in lines if line.endswith(", what auto takes")]
    assert sorted(taken) == sorted([resolve_model("auto", scale), f"x{scale}"] for scale in (2, 3, 4))


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(CLIP), str(tmp_path / "out.mp4"), "--model", "nearest", "--dry-run"]) == 0
    assert "640x360" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_cut_is_finished_and_told(tmp_path: Path) -> None:
    whole = make_source(tmp_path / "whole.mkv", pts=[40 * n for n in range(60)], time_base=Fraction(1, 1000))
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    result = upscale_video(tmp_path / "cut.mkv", tmp_path / "out.mkv", model="nearest", preset="ultrafast")
    assert 5 < result.frames < 60
    assert result.exit_code == 4
    with pytest.raises(IncompleteSourceError):
        upscale_video(tmp_path / "cut.mkv", tmp_path / "out2.mkv", model="nearest", fail_on_damage=True)


MEMORY = """
import resource, sys, os
from a2n_video import upscale_video

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

seen = {}
def progress(frames):
    if frames in marks:
        seen[frames] = resident()

marks = [int(sys.argv[3]), int(sys.argv[4])]
upscale_video(sys.argv[1], sys.argv[2], model="nearest", preset="ultrafast", on_progress=progress)
print(seen[marks[1]] - seen[marks[0]])
"""


def grown(tmp_path: Path, count: int, size: tuple[int, int], first: int) -> int:
    source = make_source(tmp_path / "long.mp4", pts=range(count), size=size)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(source), str(tmp_path / "out.mp4"), str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_memory_is_flat(tmp_path: Path) -> None:
    assert grown(tmp_path, 700, (96, 64), 350) < 10e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_memory_is_flat_over_2000_frames(tmp_path: Path) -> None:
    assert grown(tmp_path, 2000, (320, 180), 500) < 10e6
