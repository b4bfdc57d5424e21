"""What the first frame and the container say of a video besides its picture. (Its colours and fields: tests/io/test_decoding.py.)"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from a2n_video.errors import OptionError
from a2n_video.io.probe import probe
from a2n_video.job.planning.plan import prepare
from a2n_video.options import JobOptions
from tests.clips import MS, Clip, write_clip
from tests.made import box, with_box

CAPTIONS = b"\xb5\x00\x31GA94\x03\xc1\xff\xfc\x94\x20\xff"  # a T.35 message of one pair of CEA-608 (ATSC A/53, part 4)


def captioned(path: Path) -> Path:
    """H.264 with closed captions before its first picture."""
    data = write_clip(path.with_name("plain.h264"), Clip(times=[40 * n * MS for n in range(3)])).read_bytes()
    before = data.index(b"\0\0\1\x65")
    path.write_bytes(data[:before] + b"\0\0\1\x06\x04" + bytes([len(CAPTIONS)]) + CAPTIONS + b"\x80" + data[before:])
    return path


def spherical(path: Path) -> Path:
    """A picture that is the whole sphere (Spherical Video V2)."""
    plain = write_clip(path.with_name("plain.mp4"), Clip(times=[40 * n * MS for n in range(3)]))
    projection = box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20)))
    return with_box(plain, path, box(b"sv3d", box(b"svhd", bytes(4) + b"a2n\0") + projection))


def stereo(path: Path, kind: int) -> Path:
    plain = write_clip(path.with_name("plain.mp4"), Clip(times=[40 * n * MS for n in range(3)]))
    return with_box(plain, path, box(b"st3d", struct.pack(">IB", 0, kind)))


@pytest.mark.parametrize("what", ["closed captions", "spherical", "stereo 3D"])
def test_what_is_said_of_a_picture_and_not_kept_is_named(what: str, tmp_path: Path) -> None:
    if what == "closed captions":
        source = captioned(tmp_path / "in.h264")
    else:
        source = spherical(tmp_path / "in.mp4") if what == "spherical" else stereo(tmp_path / "in.mp4", 2)
    options = JobOptions().with_changes(model="nearest")
    (lost,) = prepare(source, tmp_path / "out.mkv", options).streams.losses
    assert lost.what.startswith(what)
    with pytest.raises(OptionError, match=what):
        prepare(source, tmp_path / "out.mkv", options.with_changes(keep_all=True))


def test_a_picture_that_says_it_is_flat_loses_nothing(tmp_path: Path) -> None:
    assert probe(stereo(tmp_path / "in.mp4", 0)).beside == ()
