"""The one place that opens sources: which of a file's videos is the one to upscale."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.errors import DecodeError
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.io.source import open_source
from tests.clips import SIZE, picture
from tests.made import animated

COVER = 0x400  # AV_DISPOSITION_ATTACHED_PIC


def with_cover(path: Path, size: tuple[int, int], *, video: bool = True) -> Path:
    """An MP4 with a cover larger than its video, as music shops make them (FFmpeg puts covers after the video)."""
    with av.open(str(path), "w") as output:
        cover: Any = output.add_stream("mjpeg", rate=25, options={"strict": "unofficial"})
        cover.width, cover.height, cover.pix_fmt = *size, "yuvj420p"
        cover.disposition = COVER
        stream: Any = output.add_stream("libx264", rate=25, options={"bf": "0", "preset": "ultrafast"}) if video else None
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        frame = picture(40, size, "yuvj420p")
        frame.pts = 0
        output.mux(cover.encode(frame))
        output.mux(cover.encode(None))
        for number in range(6 if video else 0):
            shown = picture(number)
            shown.pts = number
            output.mux(stream.encode(shown))
        if stream is not None:
            output.mux(stream.encode(None))
    return path


def test_a_larger_cover_is_not_the_video(tmp_path: Path) -> None:
    path = with_cover(tmp_path / "song.mp4", (640, 480))
    info = probe(path)
    assert [stream.is_cover for stream in info.streams] == [False, True]
    assert (info.video_index, info.width, info.height) == (0, *SIZE)
    assert scan(path, info).time_map.frames == 6
    with VideoReader(path) as reader:
        assert [(frame.width, frame.height) for frame in reader] == [SIZE] * 6


def test_a_file_with_nothing_but_a_cover_has_no_video(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="no video"):
        probe(with_cover(tmp_path / "only.mp4", (640, 480), video=False))


ENCODERS = {
    "png": ("png", "rgb24"),
    "bmp": ("bmp", "bgr24"),
    "webp": ("libwebp", "bgra"),
    "tif": ("tiff", "rgb24"),
    "jpg": ("mjpeg", "yuvj420p"),
}


def picture_file(path: Path, codec: str, pix_fmt: str) -> Path:
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = *SIZE, pix_fmt, Fraction(1, 25)
    frame = picture(7).reformat(format=pix_fmt)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


@pytest.mark.parametrize("suffix", ENCODERS)
@pytest.mark.parametrize("name", ["52%d", "52%05d", "a*b", "what?", "a{1,2}", "a[1]", "50%", "folder%d/a"])
def test_a_picture_is_no_pattern_whatever_its_name(name: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    info = probe(picture_file(tmp_path / f"{name}.{suffix}", *ENCODERS[suffix]))
    assert (info.width, info.height, info.video.codec) == (*SIZE, ENCODERS[suffix][0].removeprefix("lib"))


@pytest.mark.parametrize("name", ["a.png", "a%d.png"])
def test_an_animation_stays_one_whatever_its_name(name: str, tmp_path: Path) -> None:
    animated(tmp_path / name, 3)
    with open_source(tmp_path / name) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
