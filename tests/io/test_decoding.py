"""What frames are told by their container, since their own headers leave it open."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video import upscale_video
from a2n_video.frames import color_of_frame
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.io.sandbox import SandboxedReader
from a2n_video.job.planning.plan import prepare
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.info import Said
from a2n_video.options import JobOptions
from tests.clips import QUICK
from tests.made import box, picture, with_box
from tests.test_picture import planes_in

PQ = (9, 9, 16)
X265 = {"preset": "ultrafast", "x265-params": "log-level=error:info=0:pools=1"}


def boxed(path: Path, codec: str, said: tuple[int, int, int], *, full: bool = False, **options: str) -> Path:
    """A video whose encoder was told nothing of its colours, in a container that names matrix, primaries and transfer (and a range)."""
    plain = path.with_name("encoded.mkv")
    with av.open(str(plain), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv422p10le" if codec == "prores_ks" else "yuv420p"
        for number in range(3):
            frame = picture(number, pix_fmt=stream.pix_fmt)
            frame.pts, frame.time_base, frame.colorspace, frame.color_range = number, Fraction(1, 25), 2, 0
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(str(plain)) as given, av.open(str(path), "w") as output:
        target: Any = output.add_stream_from_template(given.streams.video[0], opaque=True)
        context = target.codec_context
        context.colorspace, context.color_primaries, context.color_trc = said
        context.color_range = 2 if full else context.color_range
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = target
                output.mux(packet)
    return path


def tags(color: ColorSpec) -> tuple[int, int, int]:
    return color.matrix, color.primaries, color.transfer


@pytest.mark.parametrize(
    ("codec", "name", "options"),
    [
        ("libx265", "in.mkv", X265),
        ("libx265", "in.mov", X265),
        ("prores_ks", "in.mov", {}),
        ("libvpx-vp9", "in.mp4", QUICK["libvpx-vp9"]["encoder_options"]),
    ],
)
def test_colours_that_only_the_container_names(codec: str, name: str, options: dict[str, str], tmp_path: Path) -> None:
    source = boxed(tmp_path / name, codec, PQ, **options)
    info = probe(source)
    assert tags(info.color) == PQ and not info.color.full_range
    for kind in (VideoReader, SandboxedReader):
        with kind(source) as reader:
            assert [tags(color_of_frame(frame)) for frame in reader] == 3 * [PQ]


def test_a_result_is_tagged_as_its_source_s_container_says(tmp_path: Path) -> None:
    result = upscale_video(boxed(tmp_path / "in.mkv", "libx265", PQ, **X265), tmp_path / "out.mkv", model="nearest", codec="ffv1")
    assert result.exit_code == 0
    assert tags(probe(result.path).color) == PQ


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"preset": "ultrafast", "x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709:range=tv"}),
        ("libx265", X265 | {"x265-params": X265["x265-params"] + ":colormatrix=bt709:colorprim=bt709:transfer=bt709:range=limited"}),
    ],
)
def test_what_a_frame_says_itself_stays(codec: str, options: dict[str, str], tmp_path: Path) -> None:
    color = probe(boxed(tmp_path / "in.mp4", codec, PQ, full=True, **options)).color
    assert (*tags(color), color.full_range) == (1, 1, 1, False)


def test_a_full_range_that_only_the_container_names(tmp_path: Path) -> None:
    """FFmpeg calls HEVC that says nothing limited."""
    assert probe(boxed(tmp_path / "in.mp4", "libx265", (1, 1, 1), full=True, **X265)).color.full_range


def apertured(path: Path, size: tuple[int, int], off: Fraction) -> Path:
    """64x48 in QuickTime, of which a clean aperture shows a part, `off` its middle; `off` in halves."""
    numbers = [number for side in size for number in (side, 1)] + 2 * [off.numerator, off.denominator]
    plain = boxed(path.with_name("plain.mov"), "prores_ks", (1, 1, 1))
    return with_box(plain, path, box(b"clap", struct.pack(">8i", *numbers)))


@pytest.mark.parametrize(
    ("size", "off", "hidden", "left"),
    [
        ((48, 32), Fraction(0), (8, 8, 8, 8), 8),
        ((57, 41), Fraction(1, 2), (4, 3, 4, 3), 4),
        ((57, 41), Fraction(-1, 2), (3, 4, 3, 4), 2),  # a column that shares its chroma with one that is shown stays
    ],
)
def test_what_the_container_hides_is_cut_off(
    size: tuple[int, int], off: Fraction, hidden: tuple[int, int, int, int], left: int, tmp_path: Path
) -> None:
    source = apertured(tmp_path / "in.mov", size, off)
    info = probe(source)
    width, height = size[0] + hidden[2] - left, size[1]
    assert (info.width, info.height, info.said.hidden) == (width, height, hidden)
    with av.open(str(source)) as container:
        whole = [planes_in(frame) for frame in container.decode(video=0)]
    for kind in (VideoReader, SandboxedReader):
        with kind(source) as reader:
            shown = [planes_in(frame) for frame in reader]
        assert len(shown) == len(whole) == 3
        for before, after in zip(whole, shown, strict=True):
            for step, a, b in zip((1, 2, 2), before, after, strict=True):
                assert np.array_equal(a[hidden[0] :][:height, left // step :][:, : -(-width // step)], b)


@pytest.mark.parametrize(("order", "rows", "top"), [(None, 1, 59), (None, 2, 58), ("tff", 1, 58), ("bff", 2, 56)])
def test_the_same_field_comes_first_once_rows_are_cut_off(order: Any, rows: int, top: int) -> None:
    assert Said(order=order, hidden=(59, 3, 0, 0)).cut(1, rows) == (top, 3, 0, 0)


def test_what_the_video_itself_hides_is_cut_off(tmp_path: Path) -> None:
    """At the left too, where FFmpeg would leave some columns for memory's sake."""
    plain = boxed(tmp_path / "plain.mp4", "libx264", (1, 1, 1), preset="ultrafast", qp="0")
    hidden = {"preset": "ultrafast", "qp": "0", "x264-params": "crop-rect=6,4,10,2"}
    source = boxed(tmp_path / "in.mp4", "libx264", (1, 1, 1), **hidden)
    info = probe(source)
    assert (info.width, info.height) == (48, 42)
    with VideoReader(plain) as before, VideoReader(source) as after:
        for a, b in zip(before, after, strict=True):
            assert np.array_equal(planes_in(a)[0][4:-2, 6:-10], planes_in(b)[0])


def test_the_plan_tells_of_what_is_cut_off(tmp_path: Path) -> None:
    source = apertured(tmp_path / "in.mov", (57, 41), Fraction(1, 2))
    result = upscale_video(source, tmp_path / "out.mkv", model="nearest", codec="ffv1", keep_all=True)
    assert result.exit_code == 0
    info = probe(result.path)
    assert (info.width, info.height, info.said.hidden) == (114, 82, (0, 0, 0, 0))
    notes = prepare(source, tmp_path / "other.mkv", JobOptions().with_changes(model="nearest")).notes
    told = (
        "cropped to 57x41, the part that the container says to show (not 4 rows at the top, 3 rows at the bottom, 4 columns at the left, "
    )
    assert told + "3 columns at the right)" in notes
