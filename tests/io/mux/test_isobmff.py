"""HDR10 boxes in MP4 and QuickTime headers: as FFmpeg's own demuxer reads them, with everything else in its place."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from a2n_video import upscale_video
from a2n_video.errors import EncodeError
from a2n_video.io.mux.isobmff import hdr_boxes, set_hdr
from a2n_video.io.probe import hdr_metadata
from a2n_video.media.info import HdrMetadata
from tests.clips import Clip, Sound, read_frames, read_stream, write_clip
from tests.media.test_hdr import P3
from tests.survival import ITEMS

TIMES = [Fraction(n, 25) for n in range(6)]


def boxed(path: Path) -> HdrMetadata | None:
    """What the boxes say, the video stream's own words left aside."""
    with av.open(str(path)) as container:
        return hdr_metadata({}, {str(kind): bytes(data) for kind, data in container.streams.video[0].codec_context.coded_side_data.items()})


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("hdr", [P3, HdrMetadata(max_content=1000, max_average=400), replace(P3, max_content=None, max_average=None)])
def test_boxes_are_read_back_and_nothing_moves(hdr: HdrMetadata, suffix: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{suffix}", Clip(times=TIMES, sounds=(Sound(),)))
    frames, sound = read_frames(path), read_stream(path, "audio")
    with path.open("r+b") as file:
        set_hdr(file, 1, hdr)
    assert boxed(path) == hdr
    assert (read_frames(path), read_stream(path, "audio")) == (frames, sound)


def test_a_header_without_that_video_is_an_error_and_stays(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.mp4", Clip(times=TIMES)).read_bytes()
    for given in (data, b"", data[:-1], data + b"more"):
        file = io.BytesIO(given)
        with pytest.raises(EncodeError, match="choose mkv"):
            set_hdr(file, 3, P3)
        assert file.getvalue() == given


def test_what_is_not_known_whole_has_no_box() -> None:
    assert hdr_boxes(replace(P3, white=None, max_content=None)) == b""
    assert hdr_boxes(replace(P3, max_luminance=Fraction(10**7), max_content=70000)) == b""
    assert len(hdr_boxes(P3)) == 44


@pytest.mark.parametrize(("codec", "suffix"), [("prores_ks", "mov"), ("libvpx-vp9", "mp4"), ("libx265", "mp4")])
def test_any_codec_keeps_hdr10_where_the_container_holds_it(codec: str, suffix: str, tmp_path: Path) -> None:
    source, result = tmp_path / "in.mkv", tmp_path / f"out.{suffix}"
    ITEMS["hdr10"].make(source)
    preset = {"libx265": "ultrafast", "libvpx-vp9": "8"}.get(codec)
    upscale_video(source, result, model="nearest", threads=1, codec=codec, preset=preset, pix_fmt=None)
    found = boxed(result)
    assert found is not None and (found.max_content, found.max_luminance) == (1000, 1000)
