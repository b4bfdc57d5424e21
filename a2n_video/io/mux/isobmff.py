"""Static HDR metadata in an MP4 or QuickTime header, which FFmpeg's muxer cannot be told through PyAV.

The boxes mdcv and clli (ISO/IEC 14496-12, 12.1.6 and 12.1.7) go into the video's sample entry. The header lies behind all media data, as
FFmpeg writes it, so that it may grow without anything else moving.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from a2n_video.errors import EncodeError
from a2n_video.io.mux.matroska import Seekable
from a2n_video.media.hdr import CHROMATICITY, LUMINANCE, has_light, has_mastering
from a2n_video.media.info import HdrMetadata

_PATH: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_STSD_HEADER: Final = 16  # of a full box, and the number of entries
_ENTRY_HEADER: Final = 86  # of a visual sample entry: what comes before its boxes
_TRACK_ID_AT: Final = {0: 20, 1: 28}  # in a track header, by its version


def set_hdr(file: Seekable, track: int, hdr: HdrMetadata) -> None:
    """Give the video with that track ID in a finished file its boxes. EncodeError where the header is not as FFmpeg lays it out."""
    start, moov = _moov(file)
    boxes = hdr_boxes(hdr)
    for chain in _entries(moov):
        if _track_id(moov, chain[1]) == track:
            grown = bytearray(moov)
            for place in chain:
                struct.pack_into(">I", grown, place, struct.unpack_from(">I", moov, place)[0] + len(boxes))
            at = chain[-1] + _ENTRY_HEADER
            file.seek(start)
            file.write(bytes(grown[:at]) + boxes + bytes(grown[at:]))
            return
    raise EncodeError("the MP4 header does not have the result's video: there is no place for its HDR10 metadata; choose mkv")


def hdr_boxes(hdr: HdrMetadata) -> bytes:
    """The boxes for what is known: mdcv counts green, blue, red and white in 0.00002, luminances in 0.0001 cd/m2."""
    boxes = b""
    if has_mastering(hdr):
        points = [_counts(point, CHROMATICITY) for point in (hdr.green, hdr.blue, hdr.red, hdr.white) if point is not None]
        light = [_counts((value,), LUMINANCE)[0] for value in (hdr.max_luminance, hdr.min_luminance) if value is not None]
        boxes += struct.pack(">I4s8H2I", 32, b"mdcv", *(count for point in points for count in point), *light)
    if hdr.max_content is not None and has_light(hdr):
        boxes += struct.pack(">I4s2H", 12, b"clli", hdr.max_content, hdr.max_average or 0)
    return boxes


def _counts(values: tuple[Fraction, ...], unit: Fraction) -> list[int]:
    return [round(value / unit) for value in values]


def _moov(file: Seekable) -> tuple[int, bytes]:
    """Where the header begins, and the header; it must be the last box."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            break
        size, name = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            size = struct.unpack_from(">Q", head, 8)[0]
        if size < 8:
            break
        if name == b"moov":
            file.seek(place)
            moov = file.read(size)
            if len(moov) == size and not file.read(1):
                return place, moov
            break
        place += size
    raise EncodeError("the MP4 header is not behind the media data: there is no place for the HDR10 metadata; choose mkv")


def _entries(moov: bytes) -> Iterator[list[int]]:
    """Every sample entry of every track, as the places of all boxes around it, its own last."""

    def inside(place: int, depth: int, chain: list[int]) -> Iterator[list[int]]:
        for child, size, name in _children(moov, place, _STSD_HEADER if depth == len(_PATH) else 8):
            if depth == len(_PATH):
                if size >= _ENTRY_HEADER:
                    yield [*chain, child]
            elif name == _PATH[depth]:
                yield from inside(child, depth + 1, [*chain, child])

    yield from inside(0, 1, [0])


def _track_id(moov: bytes, track: int) -> int | None:
    """The ID in the header of the track whose box begins there."""
    for place, size, name in _children(moov, track, 8):
        at = _TRACK_ID_AT.get(moov[place + 8], size) if name == b"tkhd" else size
        if at + 4 <= size:
            return int.from_bytes(moov[place + at : place + at + 4])
    return None


def _children(moov: bytes, place: int, header: int) -> Iterator[tuple[int, int, bytes]]:
    """The boxes in the one at `place`, behind so many bytes: where each begins, its size, its name."""
    end = place + struct.unpack_from(">I", moov, place)[0]
    child = place + header
    while child + 8 <= end:
        size, name = struct.unpack_from(">I4s", moov, child)
        if size < 8:
            return
        yield child, size, name
        child += size
