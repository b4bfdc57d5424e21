"""Frames come upright, at their right shape, spread evenly, made whole as in a job; whatever their format."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from a2n_video.cli import main
from a2n_video.errors import DecodeError
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.tools import footage as footage_module
from a2n_video.tools.footage import Footage, Shown, shot_of
from tests.made import make_source, picture

ONE = 65536
STORED = np.arange(6).reshape(2, 3)


def turned(path: Path, degrees: int, sar: Fraction = Fraction(1)) -> Path:
    """Three frames of 64x48 that are shown turned (counter-clockwise), with pixels of a shape."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.sample_aspect_ratio = sar
        stream.set_display_rotation(degrees)
        for number in range(3):
            frame = picture(number, pix_fmt="yuv444p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def written(path: Path, codec: str, pix_fmt: str, size: tuple[int, int]) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        frame = picture(5, *size, pix_fmt)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_turned_video_stands_upright(degrees: int, tmp_path: Path) -> None:
    path = turned(tmp_path / "in.mov", degrees)
    stored = np.asarray(footage_module.to_image(Footage.open(path).shot().rgb))
    np.testing.assert_array_equal(shot_of(path, Fraction(0)).image, np.rot90(stored, round(probe(path).rotation / 90)))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((ONE, 0, 0, ONE), STORED),
        ((-ONE, 0, 0, ONE), STORED[:, ::-1]),
        ((ONE, 0, 0, -ONE), STORED[::-1]),
        ((0, ONE, ONE, 0), STORED.T),
        ((0, ONE, -ONE, 0), np.rot90(STORED, -1)),
        ((0, -ONE, ONE, 0), np.rot90(STORED)),
        ((0, -ONE, -ONE, 0), np.rot90(STORED, 2).T),
    ],
)
def test_a_display_matrix_may_mirror_too(matrix: tuple[int, int, int, int], expected: np.ndarray, tmp_path: Path) -> None:
    """(a, b, c, d): a stored pixel at (p, q) is shown at (a p + c q, b p + d q)."""
    from dataclasses import replace

    a, b, c, d = matrix
    info = replace(probe(turned(tmp_path / "in.mov", 0)), display_matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    shown = Shown.of(info)
    np.testing.assert_array_equal(shown.upright(STORED), expected)
    left, top, width, height = shown.box((1, 1, 2, 1), (3, 2))
    np.testing.assert_array_equal(expected[top : top + height, left : left + width], shown.upright(STORED[1:2, 1:3]))


def test_pixels_keep_their_shape_when_turned(tmp_path: Path) -> None:
    sar = Fraction(16, 11)
    assert Footage.open(turned(tmp_path / "a.mov", 0, sar)).shown.aspect == pytest.approx(11 / 16)
    assert Footage.open(turned(tmp_path / "b.mov", 90, sar)).shown.aspect == pytest.approx(16 / 11)


@pytest.mark.parametrize(("count", "numbers"), [(1, [0]), (4, [0, 2, 5, 7]), (10, list(range(10))), (64, list(range(10)))])
def test_frames_are_spread_evenly(count: int, numbers: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    footage = Footage.open(make_source(tmp_path / "in.mkv", pts=range(10), codec="ffv1", audio=()))
    shots = list(footage.spread(count))
    assert [(shot.number, shot.time) for shot in shots] == [(number, Fraction(number, 25)) for number in numbers]
    monkeypatch.setattr(footage_module, "_FAR", Fraction(0))  # as in a long video: one seek a frame
    for near, far in zip(shots, footage.spread(count), strict=True):
        assert (near.number, near.time) == (far.number, far.time)
        np.testing.assert_array_equal(near.image, far.image)


def test_interlaced_frames_are_made_whole_as_in_a_job(shared: Path) -> None:
    clip = shared / "clips" / "interlace__bt601-525_480_telecined_hard.mkv"
    whole, woven = (footage.shot(Fraction(1, 2)) for footage in (Footage.open(clip), Footage.open(clip, "off")))
    assert whole.time == woven.time
    assert np.abs(whole.image.astype(int) - woven.image).mean() > 0.1
    fields = Footage.open(clip, "field")
    assert fields.time_map.frames == 2 * Footage.open(clip).time_map.frames


def test_a_frame_that_the_decoder_swallows_is_an_error_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_source(tmp_path / "in.mkv", pts=range(4), audio=())
    monkeypatch.setattr(VideoReader, "__iter__", lambda reader: iter(()))  # no frame where the index names one, and no error
    with pytest.raises(DecodeError, match=r"in.mkv: the frame at 0.120 s cannot be decoded"):
        shot_of(path, Fraction(3, 25))
    assert main([str(path), "--preview", str(tmp_path / "out.png"), "--at", "0.12", "--model", "nearest"]) == 3


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size"),
    [("ffv1", "gray", (33, 21)), ("ffv1", "gray10le", (33, 21)), ("ffv1", "yuv420p10le", (33, 21)), ("ffv1", "bgr0", (20, 14))],
)
def test_any_format_comes_as_rgb(codec: str, pix_fmt: str, size: tuple[int, int], tmp_path: Path) -> None:
    shot = shot_of(written(tmp_path / "in.mkv", codec, pix_fmt, size))
    expected = picture(5, *size, pix_fmt).to_ndarray(format="rgb24")
    assert shot.image.shape == expected.shape
    assert np.abs(shot.image.astype(int) - expected).mean() < (1 if pix_fmt == "bgr0" else 8)
    if pix_fmt.startswith("gray"):
        assert np.ptp(shot.image, axis=2).max() <= 1
