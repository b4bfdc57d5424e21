"""What the comparison measures, with frames paired by time, and what its page is made of."""

from __future__ import annotations

import csv
import json
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from a2n_video import probe, upscale_video
from a2n_video.errors import InputError, OptionError
from a2n_video.tools import compare as compare_module
from a2n_video.tools.compare import COLUMNS, CompareOptions, cast_of, compare, main, names_of, report
from a2n_video.tools.footage import Footage
from a2n_video.tools.images import to_image
from a2n_video.tools.measuring import in_step, mean_of
from a2n_video.tools.metrics import BEST_DB, luma
from a2n_video.tools.vmaf import ffmpeg_with_vmaf, vmaf
from tests.made import frames, make_source

LARGE, SMALL = (128, 96), (64, 48)


def made(path: Path, pts: object = range(12), size: tuple[int, int] = LARGE, codec: str = "ffv1") -> Path:
    return make_source(path, pts=pts, size=size, codec=codec, audio=())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    made(folder / "reference.mkv")
    made(folder / "same.mkv")
    made(folder / "lossy.mp4", codec="libx264")
    made(folder / "small.mkv", size=SMALL)
    return folder


def write(path: Path, pictures: dict[int, int]) -> Path:
    """A lossless file with a picture's number for each pts, in 25ths of a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *LARGE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for pts, number in pictures.items():
            for frame in frames([pts], Fraction(1, 25), LARGE, first=number):
                output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_likeness_to_a_reference(folder: Path) -> None:
    comparison, notes = compare(
        CompareOptions(base=folder / "reference.mkv", results=(folder / "same.mkv", folder / "lossy.mp4"), vmaf=False)
    )
    assert comparison.frames == 12
    assert not comparison.unmatched
    assert mean_of(comparison.rows, "same", "psnr_db") == BEST_DB
    assert mean_of(comparison.rows, "same", "ssim") == pytest.approx(1)
    assert mean_of(comparison.rows, "same", "flicker") == pytest.approx(0)
    lossy = mean_of(comparison.rows, "lossy", "psnr_db")
    assert lossy is not None
    assert 20 < lossy < 60
    assert [still.frame for still in comparison.stills][:4] == [1, 4, 7, 10]
    assert list(comparison.stills[0].pictures) == ["reference", "same", "lossy"]
    assert notes == []


def test_likeness_to_a_source(folder: Path) -> None:
    comparison, _ = compare(CompareOptions(base=folder / "small.mkv", results=(folder / "same.mkv",)))
    assert comparison.cast.versions == ["bicubic", "same"]
    assert mean_of(comparison.rows, "same", "psnr_db") is None
    kept = mean_of(comparison.rows, "bicubic", "kept_db")
    assert kept is not None
    assert kept > 30
    assert mean_of(comparison.rows, "bicubic", "flicker") == pytest.approx(0, abs=0.15)
    assert comparison.stills[0].pictures["source"].shape == (48, 64, 3)


def test_flicker_is_the_change_less_the_bases(folder: Path, tmp_path: Path) -> None:
    """A result that stands still is calmer than its reference by all of the reference's change."""
    still = write(tmp_path / "still.mkv", dict.fromkeys(range(12), 0))
    comparison, _ = compare(CompareOptions(base=folder / "reference.mkv", results=(still,), vmaf=False))
    y = [
        luma(torch.from_numpy(to_image(shot.rgb)).permute(2, 0, 1)[None].float()) for shot in Footage.open(folder / "reference.mkv").shots()
    ]
    changes = [(b - a).abs().mean().item() for a, b in pairwise(y)]
    assert min(changes) > 1
    assert [row.flicker for row in comparison.rows] == [None, *(pytest.approx(-change, abs=1e-4) for change in changes)]


def test_frames_are_paired_by_time(folder: Path, tmp_path: Path) -> None:
    """Frames 3 and 4 are missing from the result: nothing shifts, they are counted."""
    holes = write(tmp_path / "holes.mkv", {n: n for n in range(12) if n not in (3, 4)})
    comparison, notes = compare(CompareOptions(base=folder / "reference.mkv", results=(holes,), vmaf=False))
    assert (comparison.frames, comparison.unmatched) == (10, 2)
    assert mean_of(comparison.rows, "holes", "psnr_db") == BEST_DB
    assert "2 frames of the reference" in notes[0]


def test_a_result_of_a_later_start(folder: Path, tmp_path: Path) -> None:
    cut = write(tmp_path / "cut.mkv", {n: n + 6 for n in range(5)})
    comparison, _ = compare(CompareOptions(base=folder / "reference.mkv", results=(cut,), start=Fraction(6, 25), vmaf=False))
    assert comparison.frames == 5
    assert mean_of(comparison.rows, "cut", "psnr_db") == BEST_DB


def test_bicubic_of_a_later_start_is_made_of_the_same_frames(folder: Path, tmp_path: Path) -> None:
    """The small video is uncut, as the reference is."""
    cut = write(tmp_path / "cut.mkv", {n: n + 6 for n in range(5)})
    files: dict[str, Any] = {"base": folder / "reference.mkv", "source": folder / "small.mkv", "vmaf": False}
    whole, _ = compare(CompareOptions(**files, results=(folder / "same.mkv",)))
    later, _ = compare(CompareOptions(**files, results=(cut,), start=Fraction(6, 25)))
    wanted = [row.psnr_db for row in whole.rows if row.version == "bicubic"]
    assert [row.psnr_db for row in later.rows if row.version == "bicubic"] == wanted[6:11]
    assert later.frames == 5


def test_frames_without_a_pair_are_told_on_the_terminal_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = write(tmp_path / "cut.mkv", {n: n + 6 for n in range(5)})
    assert main([str(folder / "reference.mkv"), str(cut), "-o", str(tmp_path / "out.html"), "--no-vmaf"]) == 0
    told = capsys.readouterr().out
    assert "note: 7 frames of the reference have no frame at their time" in told
    assert "say the same --start here" in told


@pytest.mark.parametrize("start", [Fraction(1, 2), Fraction(13, 25)])
def test_a_start_is_taken_as_a_job_takes_it(start: Fraction, tmp_path: Path) -> None:
    """Between frames 12 and 13, and on 13: both begin with 13, for PSNR and for VMAF; sound that begins first moves nothing."""
    source = make_source(tmp_path / "source.mkv", pts=range(3, 28), codec="ffv1", size=LARGE)
    upscale_video(source, tmp_path / "small.mkv", model="nearest", start=start, frames=8, codec="ffv1")
    written = probe(tmp_path / "small.mkv")
    assert (written.width, Footage.open(tmp_path / "small.mkv").time_map.frames) == (2 * LARGE[0], 8)
    comparison, _ = compare(CompareOptions(base=source, results=(tmp_path / "small.mkv",), start=start, frames=8))
    kept = mean_of(comparison.rows, "small", "kept_db")
    assert kept is not None
    assert kept > 55  # a frame off: 20
    assert comparison.frames == 8
    cut = write(tmp_path / "cut.mkv", {n: n + 13 for n in range(8)})
    comparison, notes = compare(CompareOptions(base=source, results=(cut,), start=start, frames=8))
    assert mean_of(comparison.rows, "cut", "psnr_db") == BEST_DB
    if ffmpeg_with_vmaf() is not None:
        whole, _ = compare(CompareOptions(base=cut, results=(write(tmp_path / "same.mkv", {n: n + 13 for n in range(8)}),)))
        assert mean_of(comparison.rows, "cut", "vmaf") == pytest.approx(mean_of(whole.rows, "same", "vmaf"), abs=0.5)
    assert notes == ["measured: 8 of about 25 frames"]


def test_a_start_past_the_last_frame_is_told(folder: Path) -> None:
    options = CompareOptions(base=folder / "reference.mkv", results=(folder / "same.mkv",), start=Fraction(23, 50))
    with pytest.raises(OptionError, match=r"no frame comes at or after 0\.460 s, the video lasts 0\.480 s"):
        compare(options)


def test_videos_too_small_to_measure_are_named(tmp_path: Path) -> None:
    small = made(tmp_path / "small.mkv", pts=range(3), size=(16, 10))
    with pytest.raises(InputError, match=r"small\.mkv: 16x10 is too small to measure, 11 pixels"):
        compare(CompareOptions(base=small, results=(small,), vmaf=False))


def test_the_slider_shows_what_is_shown_then(folder: Path) -> None:
    """Between two frames the first, after the last frame's time that one."""
    at = (Fraction(3, 50), Fraction(5, 25), Fraction(47, 100))
    comparison, _ = compare(CompareOptions(base=folder / "small.mkv", results=(folder / "same.mkv",), at=at))
    assert [still.frame for still in comparison.stills] == [1, 5, 11]


@pytest.mark.parametrize(
    ("at", "frames", "length"), [(Fraction(100), 300, "0.480"), (Fraction(48, 100), 300, "0.480"), (Fraction(1, 4), 6, "0.240")]
)
def test_a_time_past_the_end_is_told(at: Fraction, frames: int, length: str, folder: Path) -> None:
    options = CompareOptions(base=folder / "small.mkv", results=(folder / "same.mkv",), at=(at,), frames=frames)
    with pytest.raises(OptionError, match=f"--at .*: what is compared lasts {length} s"):
        compare(options)


@pytest.mark.parametrize("quality", ["5", "49", "101"])
def test_a_quality_out_of_range_is_told(quality: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.html"
    assert main([str(folder / "small.mkv"), str(folder / "same.mkv"), "-o", str(out), "--quality", quality]) == 2
    assert capsys.readouterr().err == f"{compare_module.PROG}: --quality {quality}: from 50 to 100, which is PNG\n"
    assert not out.exists()


def test_in_step_gives_times_from_the_start(folder: Path) -> None:
    base, other = Footage.open(folder / "reference.mkv"), Footage.open(folder / "same.mkv")
    times = [(shot.time, found[0].time if found[0] else None) for shot, found in in_step(base, [other], None, 3)]
    assert times == [(Fraction(n, 25), Fraction(n, 25)) for n in range(3)]


def test_the_page_holds_everything_and_fetches_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "job.txt").write_text("verified: 12 frames <b>bold</b>")
    options = CompareOptions(
        base=folder / "reference.mkv",
        results=(folder / "lossy.mp4",),
        source=folder / "small.mkv",
        jobs=(tmp_path / "job.txt",),
        vmaf=False,
    )
    report(options, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    assert not re.findall(r"""(?:src|href|url|action)\s*[=(]\s*["']?(?!data:)[a-z]+:""", text)
    links = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert links <= {"http://www.w3.org/2000/svg"}  # a name of a namespace, never fetched
    assert "<b>bold" not in text
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    assert data["versions"] == ["bicubic", "lossy"]
    assert data["jobs"] == [["job.txt", "verified: 12 frames <b>bold</b>"]]
    assert [measure["name"] for measure in data["measures"]] == ["PSNR", "SSIM", "Flicker"]
    assert len(data["times"]) == len(data["measures"][0]["values"]["lossy"]) == 12
    pictures = data["stills"][0]["pictures"]
    assert sorted(pictures) == ["bicubic", "lossy", "reference"]
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in pictures.values())
    rows = rows_of(tmp_path / "out.csv")
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert len(rows) == 24
    assert rows[0]["flicker"] == ""
    assert float(rows[3]["psnr_db"]) > 20


@pytest.mark.skipif(ffmpeg_with_vmaf() is None, reason="no ffmpeg with libvmaf here (imageio-ffmpeg brings one)")
def test_vmaf_knows_the_better_one(folder: Path) -> None:
    same = vmaf(folder / "reference.mkv", folder / "same.mkv", 12)
    lossy = vmaf(folder / "reference.mkv", folder / "lossy.mp4", 12)
    assert same is not None
    assert lossy is not None
    assert len(same) == len(lossy) == 12
    assert np.mean(same) > np.mean(lossy)


def test_no_vmaf_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "vmaf", lambda *_: None)
    _, notes = compare(CompareOptions(base=folder / "reference.mkv", results=(folder / "lossy.mp4",)))
    assert any(note.startswith("VMAF left out") for note in notes)


def test_what_cannot_be_compared(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="these differ: same 128x96, small 64x48"):
        cast_of(CompareOptions(base=folder / "reference.mkv", results=(folder / "same.mkv", folder / "small.mkv")))
    with pytest.raises(OptionError, match="neither the results' size nor smaller"):
        cast_of(CompareOptions(base=folder / "reference.mkv", results=(folder / "small.mkv",)))
    with pytest.raises(OptionError, match="a source already"):
        cast_of(CompareOptions(base=folder / "small.mkv", results=(folder / "same.mkv",), source=folder / "small.mkv"))
    assert main([str(tmp_path / "none.mp4"), str(folder / "same.mkv"), "-o", str(tmp_path / "out.html")]) == 3
    with pytest.raises(InputError):
        compare_module.read_job(tmp_path / "none.txt")


def test_names_differ() -> None:
    assert names_of([Path("a/x.mp4"), Path("b/x.mkv"), Path("source.mp4")]) == ["x", "x (2)", "source (3)"]
