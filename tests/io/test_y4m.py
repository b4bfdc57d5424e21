"""y4m: read as written, by FFmpeg too; headers that cannot be, streams that break off."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from a2n_video.errors import DecodeError, OutputError
from a2n_video.frames import native_frame
from a2n_video.io.outfile import OutFile
from a2n_video.io.whole import cut_short
from a2n_video.io.y4m import PIX_FMTS, Y4mHeader, Y4mWriter, read_frames, read_header
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.pixfmt import plane_format
from tests.pipes import LIMITED, y4m
from tests.test_picture import planes_in, planes_of


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_y4m_reads_what_it_wrote(pix_fmt: str) -> None:
    data = io.BytesIO(y4m(pix_fmt))
    header = read_header(data)
    assert (header.rate, header.sar, header.color.full_range) == (Fraction(24000, 1001), Fraction(32, 27), False)
    for number, frame in enumerate(read_frames(data, header)):
        assert frame.format.name == pix_fmt
        assert frame.pts == number
        for a, b in zip(planes_of(pix_fmt, (18, 14), number), planes_in(frame), strict=True):
            assert np.array_equal(a, b)
    assert number == 2


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p", "yuv422p10le", "yuv444p12le", "yuv444p16le"])
def test_ffmpeg_reads_it_alike(pix_fmt: str) -> None:
    with av.open(io.BytesIO(y4m(pix_fmt)), format="yuv4mpegpipe") as container:
        frames = [native_frame(frame) for frame in container.decode(video=0)]
    assert [frame.format.name for frame in frames] == [pix_fmt] * 3
    for a, b in zip(planes_of(pix_fmt, (18, 14), 1), planes_in(frames[1]), strict=True):
        assert np.array_equal(a, b)


def test_y4m_that_breaks_off_is_an_error() -> None:
    data = io.BytesIO(y4m("yuv420p")[:-5])
    with pytest.raises(DecodeError, match="frame 2"):
        list(read_frames(data, read_header(data)))
    with pytest.raises(DecodeError):
        read_header(io.BytesIO(b"RIFF...\n"))


@pytest.mark.parametrize("line", ["W0 H10 F25:1", "W10 H0", "W-2 H10", "H10", "W10 H10 C411p99", ""])
def test_planes_that_cannot_be_are_refused(line: str) -> None:
    with pytest.raises(DecodeError, match="not taken"):
        read_header(io.BytesIO(f"YUV4MPEG2 {line}\nFRAME\n".encode()))


@pytest.mark.parametrize(
    ("place", "word"), [(0, "420mpeg2"), (1, "420mpeg2"), (2, "420jpeg"), (3, "420paldv"), (4, "420jpeg"), (5, "420mpeg2")]
)
def test_chroma_is_said_to_sit_where_the_engine_took_it_to_be(place: int, word: str) -> None:
    """Untagged chroma is left for the engine; what y4m has no word for is nearest to the one written."""
    fmt, out = plane_format("yuv420p", 18, 14), io.BytesIO()
    assert fmt is not None
    Y4mWriter(out, Y4mHeader(fmt=fmt, rate=Fraction(25), sar=Fraction(1), color=ColorSpec(full_range=False, chroma_location=place)))
    assert f" C{word} " in out.getvalue().decode()
    out.seek(0)
    if place < 4:
        assert read_header(out).color.siting == ColorSpec(chroma_location=place).siting


@pytest.mark.parametrize("lost", [1, 5, 18 * 14, 18 * 14 * 3 // 2, 18 * 14 * 3 // 2 + 3])
def test_a_file_that_was_cut_off_is_known_by_its_last_frame(lost: int, tmp_path: Path) -> None:
    whole, path = y4m("yuv420p"), tmp_path / "in.y4m"
    path.write_bytes(whole)
    assert cut_short(path) is None
    path.write_bytes(whole[:-lost])
    told = cut_short(path)
    assert told is not None and told.endswith("bytes are missing")
    path.write_bytes(whole[: -18 * 14 * 3 // 2 - len(b"FRAME\n")])  # a whole frame less: nothing tells
    assert cut_short(path) is None


class FullDisk(OutFile):
    def _write_all(self, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_no_broken_pipe(tmp_path: Path) -> None:
    fmt = plane_format("yuv420p", 18, 14)
    assert fmt is not None
    with FullDisk(tmp_path / "out.y4m") as file, pytest.raises(OutputError, match="the disk is full"):
        Y4mWriter(file, Y4mHeader(fmt=fmt, rate=Fraction(25), sar=Fraction(1), color=LIMITED))  # type: ignore[arg-type]
