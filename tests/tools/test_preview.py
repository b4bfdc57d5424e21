"""The preview's panels hold what a job would give, at the right place, aspect and time."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from a2n_video import cli
from a2n_video.engine.resize import resize
from a2n_video.errors import OptionError, OutputExistsError
from a2n_video.io.rgb import frame_to_rgb
from a2n_video.job.run import upscale_video
from a2n_video.options import JobOptions
from a2n_video.tools import plots
from a2n_video.tools import preview as preview_module
from a2n_video.tools.footage import Footage
from a2n_video.tools.images import display_size, png_bytes, to_image
from a2n_video.tools.preview import GAP, LABEL, Crop, PreviewOptions, most_detail, preview, settle
from tests.made import make_source
from tests.tools.test_footage import turned

NEAREST = JobOptions().with_changes(model="nearest", scale=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(
        tmp_path_factory.mktemp("preview") / "in.mkv", pts=range(0, 500, 10), time_base=Fraction(1, 250), codec="ffv1", audio=()
    )


def picture(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def panels(path: Path, width: int) -> list[np.ndarray]:
    whole = picture(path)[LABEL:]
    return [whole[:, left : left + width] for left in range(0, whole.shape[1], width + GAP)]


def test_png_comes_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (13, 7, 3), np.uint8)
    decoded = next(av.open(io.BytesIO(png_bytes(image))).decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(decoded, image)


def test_what_no_sandbox_guards_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--sandbox"):
        preview(source, tmp_path / "out.png", PreviewOptions(job=NEAREST.with_changes(sandbox=True)))


def test_panels_hold_source_bicubic_and_result(source: Path, tmp_path: Path) -> None:
    wanted = PreviewOptions(job=NEAREST, at=Fraction(1), crop=Crop.parse("20x12+30+8"))
    made = preview(source, tmp_path / "out.png", wanted)
    assert made.labels == ("source (nearest)", "bicubic", "nearest x2")
    assert made.time == 1
    rgb = Footage.open(source).shot(Fraction(1)).rgb[..., 8:20, 30:50]
    near, cubic, ours = (panel[::10, ::10] for panel in panels(tmp_path / "out.png", 400))  # 40 pixels, each a square of 10
    np.testing.assert_array_equal(near, to_image(rgb).repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(cubic, to_image(resize(rgb, 24, 40)))
    # The stand-in repeats chroma samples as they lie, so edges of colour may differ; luma is the same.
    assert np.abs(ours.astype(int).mean(axis=2) - near.mean(axis=2)).mean() < 6


@pytest.mark.parametrize("size", ["88x66", "40x30", "128x96"])
def test_another_size_is_what_the_job_makes(size: str, source: Path, tmp_path: Path) -> None:
    job = NEAREST.with_changes(size=size, codec="ffv1", frames=1)
    upscale_video(source, tmp_path / "job.mkv", options=job)
    with av.open(str(tmp_path / "job.mkv")) as container:
        wanted = frame_to_rgb(next(container.decode(video=0)))
    preview(source, tmp_path / "out.png", PreviewOptions(job=job, at=Fraction(0), crop=Crop.parse("32x24+16+8")))
    height, width = wanted.shape[0] // 2, wanted.shape[1] // 2
    zoom = 400 // width
    *_, ours = (panel[::zoom, ::zoom] for panel in panels(tmp_path / "out.png", zoom * width))
    left, top = round(16 / 64 * wanted.shape[1]), round(8 / 48 * wanted.shape[0])
    np.testing.assert_array_equal(ours, wanted[top : top + height, left : left + width])


def test_a_part_stays_within_a_smaller_picture() -> None:
    corner = preview_module.Window(left=62, top=47, width=2, height=1).within((64, 48), (10, 6))
    assert corner == preview_module.Window(left=9, top=5, width=1, height=1)


def test_the_network_sees_the_whole_frame(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    original = preview_module.enlarged

    def spy(frame: Any, footage: Footage, wanted: PreviewOptions) -> Any:
        seen.append((frame.width, frame.height))
        return original(frame, footage, wanted)

    monkeypatch.setattr(preview_module, "enlarged", spy)
    preview(source, tmp_path / "out.png", PreviewOptions(job=NEAREST, crop=Crop.parse("8x8")))
    assert seen == [(64, 48)]


@pytest.mark.parametrize(("at", "number"), [(Fraction(0), 0), (Fraction(39, 1000), 0), (Fraction(1, 25), 1), (Fraction(199, 100), 49)])
def test_the_frame_shown_at_a_time(source: Path, at: Fraction, number: int) -> None:
    assert Footage.open(source).shot(at).time == Fraction(number, 25)


@pytest.mark.parametrize("at", [Fraction(2), Fraction(-1), Fraction(500)])
def test_no_frame_beyond_the_end(source: Path, at: Fraction) -> None:
    with pytest.raises(OptionError, match=r"the video lasts 2\.000 s"):
        Footage.open(source).shot(at)


@pytest.mark.parametrize(
    ("sar", "size"),
    [(Fraction(1), (100, 80)), (Fraction(64, 45), (142, 80)), (Fraction(8, 9), (100, 90)), (Fraction(32, 27), (119, 80))],
)
def test_display_sizes_only_stretch(sar: Fraction, size: tuple[int, int]) -> None:
    assert display_size(100, 80, sar) == size


def test_the_default_crop_is_where_the_detail_is() -> None:
    rgb = torch.zeros(1, 3, 300, 480)
    rgb[..., 160:240, 320:440] = torch.rand(1, 3, 80, 120)
    assert most_detail(rgb, Crop(width=120, height=80)) == (320, 160)
    assert settle(None, torch.rand(1, 3, 48, 64)).width == 64


@pytest.mark.parametrize("text", ["0x5", "00x10", "12", "12x", "axb", "12x8+1", "12x8-1-1"])
def test_crops_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="write WxH"):
        Crop.parse(text)


def test_a_crop_outside_the_frame(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not fit into the frame, which is 64x48"):
        preview(source, tmp_path / "out.png", PreviewOptions(job=NEAREST, crop=Crop.parse("20x12+50+8")))
    assert not (tmp_path / "out.png").exists()


def test_an_existing_file_stays(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        preview(source, tmp_path / "out.png", PreviewOptions(job=NEAREST))
    assert (tmp_path / "out.png").read_bytes() == b"mine"


def test_without_matplotlib_there_are_no_names(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "words", lambda *_: None)
    made = preview(source, tmp_path / "out.png", PreviewOptions(job=NEAREST, crop=Crop.parse("20x12")))
    assert "pip install 'a2n-video[plots]'" in made.summary
    assert picture(tmp_path / "out.png").shape == (240, 3 * 400 + 2 * GAP, 3)


def test_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.png"
    given = [str(source), "--preview", str(out), "--at", "0:00:01", "--crop", "16x16", "--scale", "3", "--models", "nearest,nearest"]
    assert cli.main(given) == 0
    assert "source (nearest) | bicubic | nearest x3" in capsys.readouterr().out
    assert out.exists()
    assert cli.main([str(source), "b.mp4", "--preview", str(out)]) == 2
    assert "one input" in capsys.readouterr().err
    assert cli.main([str(source), "--preview", str(out), "--crop", "nonsense"]) == 2


def test_turned_and_anamorphic_video_stands_upright(tmp_path: Path) -> None:
    """64x48 pixels of 16:11, turned by a quarter: 48 pixels wide and 64 * 16/11 high, the source's first column at the bottom or top."""
    path = turned(tmp_path / "in.mov", 90, Fraction(16, 11))
    preview(path, tmp_path / "out.png", PreviewOptions(job=NEAREST, at=Fraction(0), crop=Crop.parse("64x48")))
    width, height = 2 * 48, round(2 * 64 * 16 / 11)
    near, cubic, ours = panels(tmp_path / "out.png", 400 // width * width)
    zoom = 400 // width
    assert near.shape == cubic.shape == ours.shape == (zoom * height, zoom * width, 3)
    footage = Footage.open(path)
    stretched = np.rot90(to_image(resize(footage.shot(Fraction(0)).rgb, 96, height)), round(footage.info.rotation / 90))
    np.testing.assert_array_equal(cubic[::zoom, ::zoom], stretched)


def test_a_target_size_is_shown_as_the_job_makes_it(source: Path, tmp_path: Path) -> None:
    job = JobOptions().with_changes(model="nearest", size="fit:160x120")
    made = preview(source, tmp_path / "out.png", PreviewOptions(job=job, crop=Crop.parse("64x48")))
    assert made.labels[-1] == "nearest x3"
    assert picture(tmp_path / "out.png").shape[0] == LABEL + 2 * 120


def test_a_jpeg_is_one(source: Path, tmp_path: Path) -> None:
    preview(source, tmp_path / "out.jpg", PreviewOptions(job=NEAREST))
    assert (tmp_path / "out.jpg").read_bytes().startswith(b"\xff\xd8")
    with pytest.raises(OptionError, match=r"\.png"):
        preview(source, tmp_path / "out.gif", PreviewOptions(job=NEAREST))
