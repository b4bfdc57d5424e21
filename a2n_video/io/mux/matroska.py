"""The displayed shape in a Matroska or WebM header, which FFmpeg's muxer cannot be told through PyAV.

Matroska holds no sample aspect ratio but the size to display at (DisplayWidth, DisplayHeight; RFC 9559, 5.1.4.1.28), and a player that
finds none shows square pixels. The elements go into the video's track; what lies before moves into the space that FFmpeg leaves free
behind its index of elements (SeekHead), so that everything after stays where it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from a2n_video.errors import EncodeError

_SEGMENT: Final = 0x18538067
_SEEK_HEAD, _SEEK, _SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AC
_VOID: Final = 0xEC
_CRC_HEADER: Final = b"\xbf\x84"
_TRACKS, _TRACK, _NUMBER, _VIDEO = 0x1654AE6B, 0xAE, 0xD7, 0xE0
_CLUSTER: Final = 0x1F43B675
_DISPLAY_WIDTH, _DISPLAY_HEIGHT = 0x54B0, 0x54BA
# FFmpeg enters the unit "unknown" where it has no aspect ratio.
_DISPLAY: Final = frozenset({_DISPLAY_WIDTH, _DISPLAY_HEIGHT, 0x54B2})
_HEADER_BYTES: Final = 1 << 20
_VOID_HEADER: Final = 9


class Seekable(Protocol):
    """What is needed of a file: reading, and writing in place."""

    def read(self, size: int, /) -> bytes: ...

    def write(self, data: bytes, /) -> int: ...

    def seek(self, offset: int, /) -> int: ...


@dataclass(frozen=True)
class _Element:
    """One EBML element in a buffer: `start` of its id, `data` of its payload, `end` behind it."""

    id: int
    start: int
    data: int
    end: int


def display_size(width: int, height: int, sar: Fraction) -> tuple[int, int]:
    """The size to display frames at: one side as it is, exact where the other comes out whole, else to the nearest pixel of width."""
    if (width * sar).denominator == 1:
        return int(width * sar), height
    if (height / sar).denominator == 1:
        return width, int(height / sar)
    return round(width * sar), height


def set_pixel_shape(file: Seekable, track: int, size: tuple[int, int]) -> None:
    """Give the video with that track number in a finished file its display size. EncodeError where the header has no room for it."""
    file.seek(0)
    header = file.read(_HEADER_BYTES)
    top = {element.id: element for element in _level_one(header)}
    if not {_SEEK_HEAD, _VOID, _TRACKS} <= top.keys():
        raise EncodeError("the Matroska header is not as FFmpeg lays it out: there is no place for the sample aspect ratio; choose mp4")
    void, tracks, seek_head = top[_VOID], top[_TRACKS], top[_SEEK_HEAD]
    grown = _with_display(header, tracks, track, size)
    by = len(grown) - (tracks.end - tracks.start)
    if not seek_head.end == void.start < tracks.start or void.end - void.start - by < _VOID_HEADER:
        raise EncodeError("the Matroska header has no room for the sample aspect ratio; choose mp4")
    origin = next(e.data for e in _elements(header, 0, len(header)) if e.id == _SEGMENT)
    moved = {tracks.start - origin, *(e.start - origin for e in _level_one(header) if void.end <= e.start < tracks.start)}
    file.seek(seek_head.start)
    file.write(_moved_seeks(header, seek_head, moved, by) + _void(void.end - void.start - by) + header[void.end : tracks.start] + grown)


def _with_display(header: bytes, tracks: _Element, track: int, size: tuple[int, int]) -> bytes:
    """The Tracks element with the display size, in pixels, in the Video of the track with that number."""
    videos = [(e, v) for e in _children(header, tracks) if e.id == _TRACK for v in _children(header, e) if v.id == _VIDEO]
    entry, place = next((e, v) for e, v in videos if _track_number(header, e) == track)
    more = b"".join(_element(id, value.to_bytes(4)) for id, value in zip((_DISPLAY_WIDTH, _DISPLAY_HEIGHT), size, strict=True))
    kept = b"".join(header[e.start : e.end] for e in _children(header, place) if e.id not in _DISPLAY)
    new_video = _element(_VIDEO, kept + more)
    new_entry = _element(_TRACK, header[entry.data : place.start] + new_video + header[place.end : entry.end])
    return _element(_TRACKS, _checked(header[tracks.data : entry.start] + new_entry + header[entry.end : tracks.end]))


def _checked(payload: bytes) -> bytes:
    """A payload with its checksum made anew where it begins with one: CRC-32 of all that follows, lowest byte first (RFC 8794, 11.3.1)."""
    if payload[:2] != _CRC_HEADER:
        return payload
    return _CRC_HEADER + zlib.crc32(payload[6:]).to_bytes(4, "little") + payload[6:]


def _track_number(header: bytes, entry: _Element) -> int | None:
    return next((int.from_bytes(header[e.data : e.end]) for e in _children(header, entry) if e.id == _NUMBER), None)


def _moved_seeks(header: bytes, seek_head: _Element, moved: set[int], by: int) -> bytes:
    """The SeekHead with the positions of what moves `by` bytes to the front; each number keeps its length."""
    result = bytearray(header[seek_head.start : seek_head.end])
    for seek in _children(header, seek_head):
        for field in _children(header, seek) if seek.id == _SEEK else ():
            position = int.from_bytes(header[field.data : field.end])
            if field.id == _SEEK_POSITION and position in moved:
                at = field.data - seek_head.start
                result[at : at + field.end - field.data] = (position - by).to_bytes(field.end - field.data)
    data = seek_head.data - seek_head.start
    return bytes(result[:data]) + _checked(bytes(result[data:]))


def _level_one(header: bytes) -> Iterator[_Element]:
    segment = next((e for e in _elements(header, 0, len(header)) if e.id == _SEGMENT), None)
    if segment is not None:
        for element in _elements(header, segment.data, len(header)):
            if element.id == _CLUSTER:
                return
            yield element


def _children(header: bytes, parent: _Element) -> Iterator[_Element]:
    return _elements(header, parent.data, parent.end)


def _elements(header: bytes, place: int, end: int) -> Iterator[_Element]:
    while place < end:
        id, at = _number(header, place, keep_marker=True)
        size, data = _number(header, at, keep_marker=False)
        yield _Element(id, place, data, data + size)
        place = data + size


def _number(header: bytes, place: int, *, keep_marker: bool) -> tuple[int, int]:
    """An EBML number and where it ends: its leading zero bits say how many bytes it has."""
    length = 9 - header[place].bit_length()
    value = int.from_bytes(header[place : place + length])
    return value if keep_marker else value & ((1 << 7 * length) - 1), place + length


def _element(id: int, data: bytes) -> bytes:
    """An element with its size in as few bytes as it takes; all ones are kept for unknown sizes."""
    length = next(n for n in range(1, 9) if len(data) < (1 << 7 * n) - 1)
    return id.to_bytes((id.bit_length() + 7) // 8) + (len(data) | 1 << 7 * length).to_bytes(length) + data


def _void(length: int) -> bytes:
    """Free space of so many bytes, its own header included."""
    return bytes([_VOID]) + (length - _VOID_HEADER | 1 << 56).to_bytes(8) + bytes(length - _VOID_HEADER)
