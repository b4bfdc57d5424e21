"""What the plan accepts comes back as planned: encoders and containers tried before the work, and held to it by whole jobs.

The complete form, all encoders with all containers and sources: `pytest -m slow tests/io/mux/test_rehearsal.py`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video.errors import OptionError
from a2n_video.frames import frame_planes, native_frame, tag_frame
from a2n_video.io.decoding import open_decoder
from a2n_video.io.mux import rehearsal
from a2n_video.io.mux.joining import segment_container
from a2n_video.io.mux.rehearsal import rehearse
from a2n_video.io.probe import probe
from a2n_video.io.writer import EncoderSettings
from a2n_video.job.planning.plan import prepare
from a2n_video.job.run import upscale_video
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.encoders import encoder, encoder_options
from a2n_video.media.pixfmt import pix_fmt_of, plane_format
from a2n_video.media.streams import Container
from a2n_video.options import EncodeOptions, JobOptions
from tests.made import settings

SD = ColorSpec(matrix=6, full_range=False, primaries=6, transfer=6)
FULL = ColorSpec(matrix=1, full_range=True, primaries=1, transfer=1)
PQ = ColorSpec(matrix=9, full_range=False, primaries=9, transfer=16)
RGB = ColorSpec(matrix=0, full_range=True, primaries=1, transfer=13)
SOURCES = {
    "420": ("yuv420p", SD),
    "full": ("yuv420p", FULL),
    "422-10": ("yuv422p10le", SD),
    "pq": ("yuv420p10le", PQ),
    "444": ("yuv444p", SD),
    "440": ("yuv440p", SD),
    "410": ("yuv410p", SD),
    "gray": ("gray", SD),
    "gray10": ("gray10le", SD),
    "gray16": ("gray16le", SD),
    "rgb": ("gbrp", RGB),
    "alpha": ("yuva420p", SD),
    "alpha444": ("yuva444p", SD),
}
FEW = {"full", "gray", "rgb", "alpha444"}
CONTAINERS: tuple[Container, ...] = ("mkv", "mp4", "mov", "webm", "ts", "avi", "nut")
QUICKEST: dict[str, dict[str, Any]] = {
    "libx264": {"preset": "ultrafast"},
    "libx264rgb": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast"},
    "libsvtav1": {"preset": "12"},
    "libvpx-vp9": {"preset": "8"},
    "libvpx": {"preset": "8"},
}
KNOWN = ["libx264", "libx264rgb", "libx265", "libsvtav1", "libvpx-vp9", "libvpx", "prores_ks", "ffv1", "mpeg4", "mpeg2video", "mjpeg"]
OTHERS = ["png", "dnxhd", "cfhd", "qtrle", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "h263", "flv", "wmv2", "msmpeg4", "snow", "dvvideo"]
OTHERS += ["jpeg2000", "vc2", "magicyuv", "prores", "mpeg1video", "gif", "apng"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: make(folder / f"{name}.mkv", *known) for name, known in SOURCES.items()}


def make(path: Path, pix_fmt: str, color: ColorSpec, count: int = 4) -> Path:
    """A file of noise (plain frames make a transport stream too short to be known) in FFV1, which keeps it and has no tag for alpha."""
    random = np.random.default_rng(0)
    coded = {"gbrp": "bgr0"}.get(pix_fmt, pix_fmt)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 66, 66, coded
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = color.matrix, color.primaries, color.transfer
        context.color_range = 1 + bool(color.full_range)
        for number in range(count):
            frame = av.VideoFrame(66, 66, pix_fmt)
            fmt = plane_format(pix_fmt, 66, 66)
            assert fmt is not None
            low, high = 16 << (fmt.depth - 8), 235 << (fmt.depth - 8)
            for plane in frame_planes(frame, fmt):
                plane[...] = random.integers(low, high, plane.shape)
            tag_frame(frame, color)
            frame = frame if coded == pix_fmt else frame.reformat(format=coded)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def carried_out(source: Path, dest: Path, codec: str | None) -> bool:
    """Whether a job is accepted; what is accepted is verified, or this raises."""
    options = JobOptions().with_changes(model="nearest", codec=codec, **QUICKEST.get(codec or "", {}))
    try:
        prepare(source, dest, options)
    except OptionError:
        return False
    return upscale_video(source, dest, options).verified.startswith("verified: 4 frames")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", [source if source in FEW else pytest.param(source, marks=pytest.mark.slow) for source in SOURCES])
def test_defaults_take_every_source(name: str, container: Container, sources: dict[str, Path], tmp_path: Path) -> None:
    assert carried_out(sources[name], tmp_path / f"out.{container}", None)


# Each was accepted, and refused when all was done: what it is to be now.
ONCE_REFUSED_LAST = [
    ("gray", "libx264", "mkv", True),
    ("gray", "libx264", "mp4", True),
    ("gray", "libx264", "ts", True),
    ("gray10", "libx264", "mkv", True),
    ("gray16", "libx264", "mp4", True),
    ("gray10", "png", "mp4", True),
    ("gray16", "png", "nut", True),
    ("gray", "qtrle", "mov", True),
    ("rgb", "ffv1", "avi", True),
    ("rgb", "ffv1", "nut", True),
    ("rgb", "qtrle", "mov", True),
    ("alpha", "qtrle", "mov", True),
    ("420", "libvpx", "webm", True),
    ("full", "libvpx", "mkv", True),
    ("alpha", "libvpx", "webm", True),
    ("alpha", "libvpx-vp9", "webm", True),
    ("alpha", "libvpx-vp9", "mkv", True),
    ("alpha444", "libvpx-vp9", "webm", True),
    ("full", "prores_ks", "mov", True),
    ("full", "prores_ks", "mkv", True),
    ("full", "mpeg4", "mov", True),
    ("full", "mpeg4", "mp4", True),
    ("420", "mpeg4", "ts", False),
    ("420", "huffyuv", "avi", True),
    ("full", "ffvhuff", "nut", True),
    ("420", "snow", "avi", True),
    ("444", "jpeg2000", "nut", True),
    ("full", "jpeg2000", "mov", True),
    ("420", "utvideo", "avi", True),
    ("420", "utvideo", "mkv", True),
    ("420", "utvideo", "nut", True),
    ("rgb", "utvideo", "avi", True),
    ("422-10", "v210", "avi", True),
    ("422-10", "v210", "mkv", True),
    ("420", "v210", "mkv", True),
    ("420", "rawvideo", "mkv", False),
    ("420", "vc2", "mkv", False),
    ("420", "prores", "mov", False),
    ("440", "libvpx-vp9", "mp4", False),
]


@pytest.mark.parametrize(("source", "codec", "container", "taken"), ONCE_REFUSED_LAST)
def test_what_the_plan_accepts_is_verified(
    source: str, codec: str, container: Container, taken: bool, sources: dict[str, Path], tmp_path: Path
) -> None:
    assert carried_out(sources[source], tmp_path / f"out.{container}", codec) == taken


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("codec", [*KNOWN, *OTHERS])
def test_what_the_plan_accepts_is_verified_everywhere(codec: str, sources: dict[str, Path], tmp_path: Path) -> None:
    if codec not in av.codecs_available:
        pytest.skip("not in this FFmpeg")
    taken = {name for name in sources for container in CONTAINERS if carried_out(sources[name], tmp_path / f"{name}.{container}", codec)}
    assert taken or codec in OTHERS


def planes(path: Path) -> list[np.ndarray[Any, Any]]:
    with av.open(str(path)) as container:
        decoder = open_decoder(container.streams.video[0])
        frames = [frame for packet in container.demux(video=0) for frame in decoder.decode(packet if packet.size else None)]
    frame = native_frame(frames[0])
    fmt = plane_format(frame.format.name, frame.width, frame.height)
    assert fmt is not None
    return [np.array(plane) for plane in frame_planes(frame, fmt)]


def test_gray_without_a_gray_encoder_gets_neutral_chroma_and_the_plan_says_so(sources: dict[str, Path], tmp_path: Path) -> None:
    options = JobOptions().with_changes(model="nearest", codec="libx264", crf=0, keep_all=True)
    plan = prepare(sources["gray"], tmp_path / "out.mp4", options)
    assert any("gray is written as yuv420p with neutral chroma" in note for note in plan.notes)
    upscale_video(sources["gray"], tmp_path / "out.mp4", options)
    luma, *chroma = planes(tmp_path / "out.mp4")
    assert np.array_equal(luma, planes(sources["gray"])[0].repeat(2, 0).repeat(2, 1))
    assert all((plane == 128).all() for plane in chroma)


@pytest.mark.parametrize("source", ["alpha", "alpha444"])
@pytest.mark.parametrize("container", ["webm", "mkv"])
def test_alpha_is_read_again_with_its_colours(source: str, container: str, sources: dict[str, Path], tmp_path: Path) -> None:
    """From a source that has no tag for it: the result's own is not the source's."""
    upscale_video(sources[source], tmp_path / f"out.{container}", model="nearest", codec="libvpx-vp9", preset="8")
    info = probe(tmp_path / f"out.{container}")
    assert info.alpha
    assert (info.color.matrix, info.color.primaries, info.color.transfer) == (6, 6, 6)
    again = tmp_path / f"again.{container}"
    upscale_video(tmp_path / f"out.{container}", again, model="nearest", codec="libvpx-vp9", preset="8", pix_fmt="yuv420p")
    assert not probe(again).alpha  # nor does the source's tag come along where alpha is left behind


def sizes_tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Fills with the sizes of the frames that are encoded."""
    seen: list[tuple[int, int]] = []
    made = rehearsal._noise

    def noise(wanted: EncoderSettings, time: int) -> av.VideoFrame:
        seen.append((wanted.width, wanted.height))
        return made(wanted, time)

    monkeypatch.setattr(rehearsal, "_noise", noise)
    return seen


def test_a_rehearsal_is_quick_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sizes_tried(monkeypatch)
    for codec in ("libx264", "libx265", "libsvtav1"):
        wanted = settings(codec, Fraction(1, 90000), size=(3840, 2160), options=encoder_options(codec, EncodeOptions()), threads=0)
        started = time.perf_counter()
        rehearse(wanted, "mkv")
        assert time.perf_counter() - started < 5  # a tenth of a second, on a machine that has nothing else to do
    assert set(seen) == {(256, 128)}


def test_a_size_that_an_encoder_does_not_take_small_is_tried_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sizes_tried(monkeypatch)
    wanted = settings("h263", Fraction(1, 25), size=(352, 288), closed_gop=False)
    rehearse(replace(wanted, color=ColorSpec(matrix=2, full_range=False), sar=Fraction(12, 11)), "avi")
    assert seen[-1] == (352, 288)


# Sizes and pixel shapes of which 256x128 says what is true of it alone, or what is near enough at that width.
SHAPES: list[tuple[str, Container, tuple[int, int], Fraction, str]] = [
    ("mpeg2video", "ts", (1408, 928), Fraction(8, 9), "29/33"),  # a cropped DVD: 256x128 would be 16:9
    ("mpeg4", "avi", (1920, 1080), Fraction(1001, 1000), "1"),
]


@pytest.mark.parametrize(("codec", "container", "size", "sar", "found"), SHAPES)
def test_pixel_shapes_are_tried_as_the_whole_picture_has_them(
    codec: str, container: Container, size: tuple[int, int], sar: Fraction, found: str
) -> None:
    options, color = encoder_options(codec, EncodeOptions()), ColorSpec(matrix=2, full_range=False)
    wanted = settings(codec, Fraction(1, 25), size=size, sar=sar, color=color, options=options)
    with pytest.raises(OptionError, match=f"sample aspect ratio is {found}, not {sar}"):
        rehearse(wanted, container)
    rehearse(wanted, "mkv")
    rehearse(replace(wanted, width=1440, height=960, sar=Fraction(8, 9)), container)


def test_segments_that_lose_their_time_are_found_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rehearsal._encode
    monkeypatch.setattr(rehearsal, "_encode", lambda path, wanted, times: made(path, wanted, [time - times[0] for time in times]))
    with pytest.raises(OptionError, match=r"frames for 0\.120 0\.160 0\.200 s came back for 0\.000"):
        rehearse(settings("prores_ks", Fraction(1, 25), segment_container("prores_ks")), "mov")


def test_no_room_to_try_in_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rehearsal, "TemporaryDirectory", full)
    rehearse(settings("utvideo", Fraction(1, 25)), "avi")


def test_the_formats_an_encoder_lists_and_does_not_keep_are_in_the_table() -> None:
    """Every format that an encoder of ours lists is refused by the table, or by the encoder, or comes back."""
    for codec in ("libx264", "libx265", "libvpx-vp9", "ffv1", "prores_ks", "libsvtav1"):
        for fmt in av.Codec(codec, "w").video_formats or ():
            native = plane_format(fmt.name, 64, 64)
            if native is None or fmt.name in encoder(codec).refused or fmt.name.startswith("yuvj"):
                continue
            assert pix_fmt_of(native) == fmt.name
            color = RGB if native.family == "rgb" else SD
            box = segment_container(codec, alpha=native.alpha)
            wanted = settings(codec, Fraction(1, 25), box, (64, 64), pix_fmt=fmt.name, color=color, closed_gop=encoder(codec).gops)
            rehearse(wanted, "mkv")
