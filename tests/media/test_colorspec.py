"""The rule for open tags, and the matrices that are refused rather than guessed over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.cli import main
from a2n_video.errors import UnsupportedFormatError
from a2n_video.media.colorspec import UNTAKEN, YCGCO, ColorSpec
from a2n_video.media.planes import PlaneFormat

SD = PlaneFormat(width=720, height=480, family="yuv", depth=8, log2_chroma_w=1, log2_chroma_h=1)
GRAY = PlaneFormat(width=720, height=480, family="gray", depth=8)


@pytest.mark.parametrize("reserved", [2, 3, 99])
def test_what_says_nothing_is_settled_by_size(reserved: int) -> None:
    assert ColorSpec(matrix=reserved).settled(SD) == ColorSpec(matrix=6, full_range=False, primaries=6, transfer=6)


@pytest.mark.parametrize("matrix", UNTAKEN)
def test_a_matrix_that_is_not_taken_is_an_error_and_never_another_one(matrix: int) -> None:
    with pytest.raises(UnsupportedFormatError, match=rf"matrix {re.escape(UNTAKEN[matrix])} \({matrix}\) is not taken; convert"):
        ColorSpec(matrix=matrix, primaries=9, transfer=16).settled(SD)
    assert ColorSpec(matrix=matrix).settled(GRAY).matrix == 6  # it speaks of chroma, and there is none


def test_gray_gets_no_primaries_that_it_does_not_have() -> None:
    assert ColorSpec().settled(GRAY) == ColorSpec(matrix=6, full_range=False)
    assert ColorSpec(primaries=9, transfer=16).settled(GRAY) == ColorSpec(matrix=6, full_range=False, primaries=9, transfer=16)


def tagged(path: Path, matrix: int) -> Path:
    """Three frames of one colour, lossless, 4:4:4."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
        for pts in range(3):
            frame = av.VideoFrame(64, 64, "yuv444p")
            for plane, value in zip(frame.planes, (100, 90, 170), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts = pts
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_ycgco_stays_ycgco_through_a_job(tmp_path: Path) -> None:
    source, dest = tagged(tmp_path / "in.mkv", YCGCO), tmp_path / "out.mkv"
    assert main([str(source), str(dest), "--model", "nearest", "--codec", "ffv1"]) == 0
    with av.open(str(dest)) as result:
        frame = next(result.decode(video=0))
    assert frame.colorspace == YCGCO
    assert [int(frame.to_ndarray()[p, 5, 5]) for p in range(3)] == [100, 90, 170]


@pytest.mark.parametrize("matrix", [10, 14])
def test_a_file_of_another_matrix_ends_with_exit_3(tmp_path: Path, capsys: Any, matrix: int) -> None:
    source = tagged(tmp_path / "in.mkv", matrix)
    assert main([str(source), str(tmp_path / "out.mkv"), "--model", "nearest"]) == 3
    assert f"({matrix}) is not taken" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv"]
