"""The displayed shape in a Matroska header: found again by FFmpeg, everything else in its place, checksums true."""

from __future__ import annotations

import io
import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest

from a2n_video.errors import EncodeError
from a2n_video.io.mux.matroska import display_size, set_pixel_shape
from tests.clips import Clip, Sound, read_frames, read_stream, write_clip

TIMES = [Fraction(n, 25) for n in range(8)]


@pytest.mark.parametrize(
    ("sar", "size"),
    [
        (Fraction(2), (128, 48)),
        (Fraction(32, 27), (76, 48)),
        (Fraction(3, 4), (48, 48)),
        (Fraction(16, 15), (64, 45)),
        (Fraction(8, 9), (64, 54)),
    ],
)
def test_the_shape_is_read_back_and_nothing_else_changed(sar: Fraction, size: tuple[int, int], tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", Clip(times=TIMES, codec="ffv1", sounds=(Sound(codec="ac3"),)))
    before, frames, sound = path.read_bytes(), read_frames(path), read_stream(path, "audio")
    assert display_size(64, 48, sar) == size
    with path.open("r+b") as file:
        set_pixel_shape(file, 1, size)
    with av.open(str(path)) as container:
        assert Fraction(container.streams.video[0].sample_aspect_ratio) == Fraction(size[0] * 48, size[1] * 64)
    assert path.stat().st_size == len(before)
    assert (read_frames(path), read_stream(path, "audio")) == (frames, sound)
    assert checksums(path.read_bytes()) == checksums(before) > 0


def test_a_seek_finds_its_place_afterwards(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", Clip(times=TIMES, codec="mjpeg"))
    with path.open("r+b") as file:
        set_pixel_shape(file, 1, (128, 48))
    with av.open(str(path)) as container:
        container.seek(200, stream=container.streams.video[0])
        assert next(container.decode(video=0)).pts == 200


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", Clip(times=TIMES))
    with pytest.raises(EncodeError, match="Matroska"):
        set_pixel_shape(io.BytesIO(path.read_bytes()), 1, (128, 48))


def checksums(data: bytes) -> int:
    """How many top-level elements begin with a checksum, each checked: a small reader of its own."""

    def number(place: int, marker: bool) -> tuple[int, int]:
        length = 9 - data[place].bit_length()
        value = int.from_bytes(data[place : place + length])
        return (value if marker else value & ((1 << 7 * length) - 1)), place + length

    place, found = data.index(b"\x18\x53\x80\x67") + 12, 0
    while place < len(data):
        _, after = number(place, True)
        size, start = number(after, False)
        if data[start : start + 2] == b"\xbf\x84":
            assert int.from_bytes(data[start + 2 : start + 6], "little") == zlib.crc32(data[start + 6 : start + size])
            found += 1
        place = start + size
    return found
