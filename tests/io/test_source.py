"""The one place that opens sources: which of a file's videos is the one to upscale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.errors import DecodeError
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from tests.clips import SIZE, picture

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
