"""What of a picture is not as planned: each field alone is told, and what says nothing means what players take for granted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.differences import picture_differences
from a2n_video.media.final import FinalFile
from a2n_video.media.index import PacketTime, build_time_map
from a2n_video.media.info import VideoInfo
from a2n_video.media.pixfmt import plane_format
from a2n_video.media.streams import StreamFate, StreamPlan

SD = ColorSpec(matrix=6, full_range=False, primaries=6, transfer=6)
TURNED = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def found(pix_fmt: str = "yuv420p", color: ColorSpec = SD, **changes: Any) -> VideoInfo:
    planes = plane_format(pix_fmt, 64, 48)
    assert planes is not None
    values: dict[str, Any] = {
        "path": Path("result.mkv"),
        "container": "matroska,webm",
        "size_bytes": 1,
        "duration": None,
        "metadata": {},
        "chapters": (),
        "streams": (),
        "video_index": 0,
        "pix_fmt": pix_fmt,
        "planes": planes,
        "color": color,
        "frame_rate": Fraction(25),
        "time_base": Fraction(1, 1000),
        "sar": Fraction(1),
        "rotation": 0.0,
        "display_matrix": None,
        "interlaced": False,
        "hdr": None,
        "dynamic_hdr": (),
        "alpha": planes.alpha,
    }
    return VideoInfo(**values | changes)


def wanted(pix_fmt: str = "yuv420p", color: ColorSpec = SD, *lost: str, **changes: Any) -> FinalFile:
    fates = tuple(StreamFate(what=kind, kind=kind, fate="dropped") for kind in lost)
    times = build_time_map([PacketTime(0, 0)], Fraction(1, 25), None)
    plan = StreamPlan(container="mkv", fates=fates)
    return FinalFile(info=found(), plan=plan, time_map=times, width=64, height=48, color=color, pix_fmt=pix_fmt, **changes)


@pytest.mark.parametrize(
    ("want", "got", "told"),
    [
        (wanted(), found(), []),
        (wanted(), found("yuv422p"), ["pixel format is yuv422p, not yuv420p"]),
        (wanted(), found(color=replace(SD, full_range=True)), ["range is True, not False"]),
        (wanted(), found(color=replace(SD, full_range=None)), []),
        (wanted(), found(color=replace(SD, matrix=5)), ["matrix is 5, not 6"]),
        (wanted(tagged=False), found(color=ColorSpec()), []),
        (wanted(sar=Fraction(4, 3)), found(), ["sample aspect ratio is 1, not 4/3"]),
        (wanted(sar=Fraction(4, 3)), found(sar=Fraction(133, 100)), []),
        (wanted(display_matrix=TURNED), found(), ["display matrix is None, not (0, 65536, -65536, 0)"]),
        (wanted("yuv420p", SD, "rotation", display_matrix=TURNED), found(), []),
    ],
)
def test_each_difference_is_told(want: FinalFile, got: VideoInfo, told: list[str]) -> None:
    assert list(picture_differences(want, got)) == told


RGB = ColorSpec(matrix=0, full_range=True)


def test_rgb_that_does_not_say_its_range_is_full() -> None:
    assert list(picture_differences(wanted("gbrp", RGB), found("gbrp", replace(RGB, full_range=None)))) == []
    assert list(picture_differences(wanted("gbrp", RGB), found("gbrp", replace(RGB, full_range=False)))) == ["range is False, not True"]


def test_gray_has_no_chroma_that_a_matrix_speaks_of() -> None:
    assert list(picture_differences(wanted("gray"), found("gray", replace(SD, matrix=0)))) == []
    assert list(picture_differences(wanted("gray"), found("gray", replace(SD, transfer=0)))) == ["transfer is 0, not 6"]
