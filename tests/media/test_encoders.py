"""Pixel formats and encoders: every table entry is true of this FFmpeg, and nothing is lost where it need not be."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
import pytest

from a2n_video.errors import OptionError
from a2n_video.frames import frame_planes, rearranged
from a2n_video.io.writer import check_encoder, pix_fmts_of
from a2n_video.media.encoders import DEFAULT_CODECS, ENCODERS, default_codec, encoded_pix_fmt, encoder, encoder_options
from a2n_video.media.pixfmt import FOLDED, UNFOLDED, closest, encodable, native_pix_fmt, pix_fmt_of, plane_format
from a2n_video.media.planes import PlaneFormat
from a2n_video.options import EncodeOptions
from tests.conftest import ROOT
from tests.made import settings

SIZE = (12, 8)
NATIVE = [name for name in sorted(av.video.format.names) if plane_format(name, 2, 2)]


@pytest.mark.parametrize("pix_fmt", NATIVE)
def test_native_planes_are_ffmpegs(pix_fmt: str) -> None:
    fmt = plane_format(pix_fmt, 13, 9)
    assert fmt is not None
    frame = av.VideoFrame(13, 9, pix_fmt)
    views = frame_planes(frame, fmt)
    assert [view.shape for view in views] == [(shape.height, shape.width) for shape in fmt.planes]
    assert {component.bits for component in frame.format.components} == {fmt.depth}
    assert pix_fmt_of(fmt) == pix_fmt.replace("yuvj", "yuv")


@pytest.mark.parametrize("pix_fmt", sorted(FOLDED))
def test_folding_and_unfolding_keep_every_bit(pix_fmt: str) -> None:
    native = UNFOLDED[pix_fmt]
    fmt = plane_format(native, *SIZE)
    assert fmt is not None
    rng = np.random.default_rng(5)
    before = av.VideoFrame(*SIZE, native)
    for plane in frame_planes(before, fmt):
        plane[...] = rng.integers(0, 1 << fmt.depth, plane.shape)
    after = rearranged(rearranged(before, pix_fmt), native)
    for a, b in zip(frame_planes(before, fmt), frame_planes(after, fmt), strict=True):
        assert np.array_equal(a, b)


def test_formats_are_rearranged_in_one_thread_and_nowhere_else() -> None:
    """With several, FFmpeg 9 loses a row of chroma in some one of a thousand P010 frames: too seldom for a test to wait for."""
    threads = []

    class Frame:
        def __init__(self) -> None:
            self.made = av.VideoFrame(2, 2, "yuv420p")

        def reformat(self, **asked: Any) -> av.VideoFrame:
            threads.append(asked["threads"])
            return self.made

        def __getattr__(self, name: str) -> Any:
            return getattr(self.made, name)

    rearranged(Frame(), "nv12")  # type: ignore[arg-type]
    assert threads == [1]
    callers = [path for path in (ROOT / "a2n_video").rglob("*.py") if re.search(r"\.reformat\(", path.read_text())]
    assert [path.name for path in callers] == ["frames.py"]


def test_big_endian_formats_are_their_little_endian_ones() -> None:
    assert native_pix_fmt("yuv420p10be") == "yuv420p10le"
    assert native_pix_fmt("gbrp16be") == "gbrp16le"
    assert native_pix_fmt("xyz12le") is None


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("yuv420p10le", ("yuv420p", "yuv420p10le", "yuv444p10le"), "yuv420p10le"),
        ("yuv420p10le", ("yuv420p", "yuv422p10le"), "yuv422p10le"),
        ("yuv444p", ("yuv420p", "yuv422p", "yuv444p10le"), "yuv444p10le"),
        ("yuv420p12le", ("yuv420p", "yuv420p10le"), "yuv420p10le"),
        ("yuva420p", ("yuv420p", "yuva420p"), "yuva420p"),
        ("yuva420p", ("yuv420p", "yuv444p"), "yuv420p"),
        ("yuva444p10le", ("yuv420p", "yuva420p", "yuv444p10le"), "yuva420p"),
        ("gray", ("yuv420p", "yuv444p"), "yuv420p"),
        ("gbrp", ("yuv420p", "bgr0"), "bgr0"),
        ("gbrp", ("yuv420p", "yuv444p"), "yuv444p"),
        ("gbrap16le", ("rgb24", "rgba", "rgb48be", "rgba64be"), "rgba64be"),
        ("yuv420p10le", ("yuv420p", "nv12", "p010le", "yuv444p16le"), "p010le"),
    ],
)
def test_the_closest_format(wanted: str, offered: tuple[str, ...], chosen: str) -> None:
    fmt = plane_format(wanted, *SIZE)
    assert fmt is not None
    assert closest(fmt, offered) == chosen


def test_default_encoders_are_there_and_hold_what_they_are_for() -> None:
    plain = PlaneFormat(width=64, height=48, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
    for container in DEFAULT_CODECS:
        if container == "y4m":
            continue
        for depth in (8, 10):
            fmt = PlaneFormat(width=64, height=48, family="yuv", depth=depth, log2_chroma_w=1, log2_chroma_h=1)
            codec = default_codec(container, fmt)
            chosen = encodable(encoded_pix_fmt(codec, fmt, pix_fmts_of(codec), None), 64, 48)
            assert chosen is not None
            assert chosen.depth == depth
        assert default_codec(container, plain) == DEFAULT_CODECS[container][0]


def test_a_small_deep_picture_gets_an_encoder_that_is_safe() -> None:
    deep = PlaneFormat(width=32, height=24, family="yuv", depth=10, log2_chroma_w=1, log2_chroma_h=1)
    assert default_codec("mkv", deep, (64, 48)) == "libx264"
    assert default_codec("mkv", deep, (64, 64)) == "libx265"


def test_options() -> None:
    assert encoder_options("libx264", EncodeOptions()) == {"crf": "16", "preset": "medium"}
    x265 = encoder_options("libx265", EncodeOptions(crf=20, encoder_options={"x265-params": "aq-mode=3"}))
    assert x265["x265-params"].endswith(":aq-mode=3")
    assert "info=0" in x265["x265-params"]
    assert (
        encoded_pix_fmt("libvpx-vp9", PlaneFormat(width=2, height=2, family="yuv", alpha=True), ("yuva444p", "yuva420p"), None)
        == "yuva420p"
    )
    with pytest.raises(OptionError, match=r"it writes yuv420p$"):
        encoded_pix_fmt("libx264", PlaneFormat(width=2, height=2, family="gray"), ("yuv420p", "gray"), "gray")
    assert encoded_pix_fmt("qtrle", PlaneFormat(width=2, height=2, family="rgb", alpha=True), ("rgb24", "rgb555be", "argb"), None) == "argb"
    with pytest.raises(OptionError, match=r"it writes rgb24 argb$"):
        encoded_pix_fmt("qtrle", PlaneFormat(width=2, height=2, family="rgb"), ("rgb24", "rgb555be", "argb"), "rgb555be")
    with pytest.raises(OptionError, match="--crf"):
        encoder_options("ffv1", EncodeOptions(crf=3))
    with pytest.raises(OptionError, match="yuv420p"):
        encoded_pix_fmt("libx264", PlaneFormat(width=2, height=2, family="gray"), ("yuv420p",), "gbrp")


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "mjpeg"])
def test_ffmpegs_own_encoders_have_one_quantiser(codec: str) -> None:
    options = encoder_options(codec, EncodeOptions(crf=5))
    assert (options["qmin"], options["qmax"]) == ("5", "5")
    assert encoder_options(codec, EncodeOptions())["qmax"] == "2"


@pytest.mark.parametrize("codec", sorted(name for name, known in ENCODERS.items() if known.crfs[0] > -math.inf and name != "libaom-av1"))
def test_qualities_and_speeds_end_where_the_encoder_says(codec: str) -> None:
    known = encoder(codec)
    for crf in known.crfs:
        for preset in (known.presets[:1] + known.presets[-1:]) or (None,):
            options = encoder_options(codec, EncodeOptions(crf=crf, preset=preset))
            check_encoder(settings(codec, Fraction(1, 25), options=options, pix_fmt=pix_fmts_of(codec)[0], closed_gop=known.gops))
    best, worst = known.crfs
    for crf in (best - 1, worst + 0.5):
        with pytest.raises(OptionError, match=rf"--crf {crf:g}: {codec} takes {best:g} \(best\) to {worst:g}"):
            encoder_options(codec, EncodeOptions(crf=crf))
    if known.presets:
        with pytest.raises(OptionError, match=f"--preset 17: {codec} has"):
            encoder_options(codec, EncodeOptions(preset="17"))


@pytest.mark.parametrize("pix_fmt", ["uyvy422", "yuyv422", "nv12"])
def test_rearranging_keeps_the_field_order(pix_fmt: str) -> None:
    """A frame called interlaced is deinterlaced later, whatever its arrangement was."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=12, height=8, format=pix_fmt, time_base=Fraction(1, 25))
    setfield, sink = graph.add("setfield", "tff"), graph.add("buffersink")
    source.link_to(setfield)
    setfield.link_to(sink)
    graph.configure()
    frame = av.VideoFrame(12, 8, pix_fmt)
    frame.pts, frame.time_base = 3, Fraction(1, 25)
    graph.push(frame)
    native = rearranged(graph.pull(), UNFOLDED[pix_fmt])  # type: ignore[arg-type]
    assert native.interlaced_frame and native.pts == 3
