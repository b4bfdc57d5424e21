"""Whether a file is all there, by what its own structure says: FFmpeg reads a file that was cut off to its end without an error."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import av.logging
from av.container import InputContainer, OutputContainer

from a2n_video.io import y4m

_EBML_SEGMENT: Final = 0x18538067
_TS_PACKETS: Final = (188, 192, 204)  # plain, with time codes (m2ts), with error correction
_TS_SYNC: Final = 0x47


def cut_short(path: Path) -> str | None:
    """How a file ends before its own structure does, as words for people; None where it is whole or its format does not say.

    Knows MP4 and MOV (boxes), Matroska and WebM (the segment's size), AVI and WAV (RIFF chunks), MPEG-TS (whole packets), y4m (frames).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
        for matches, missing in _FORMATS:
            if matches(head):
                lost = missing(file, size)
                return f"the file is cut short: {lost} bytes are missing" if lost > 0 else None
    return None


class _Logs:
    """FFmpeg's messages, handed to Python as long as somebody listens; then the level is what it was before the first.

    No longer than that: a decoder's thread that has something to say waits for the GIL, and whoever frees that decoder holds it.
    Repeated ones are not held back: PyAV would tell them with the next other one, which may be of another file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._level: int | None = None
        self._skips = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._listeners:
                self._level, self._skips = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_level(av.logging.ERROR)
                av.logging.set_skip_repeated(False)
            self._listeners += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._listeners -= 1
            if not self._listeners:
                av.logging.set_level(self._level)
                av.logging.set_skip_repeated(self._skips)


_logs: Final = _Logs()


@contextmanager
def complaints(container: InputContainer | OutputContainer) -> Iterator[list[str]]:
    """What a demuxer only logs while it passes over damage, and a muxer when it refuses, in this thread; filled when the block ends."""
    found: list[str] = []
    with _logs, av.logging.Capture() as logs:
        yield found
    found += [text.strip() for _, name, text in logs if name == container.format.name]


def _mp4_missing(file: BinaryIO, size: int) -> int:
    start = 0
    while start + 8 <= size:
        file.seek(start)
        header = file.read(16)
        length = struct.unpack(">I", header[:4])[0]
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8:  # 0: up to the end of the file
            return 0
        start += length
    if start >= size:
        return start - size
    file.seek(start)
    return 8 - (size - start) if any(file.read(8)) else 0  # zeros behind the last box are padding


def _matroska_missing(file: BinaryIO, size: int) -> int:
    """EBML: an id and a length in front of each element (RFC 8794, 5 and 6); all ones means unknown length."""
    end = 0
    while end <= size:  # a damaged length can lie beyond what a file can be asked for
        file.seek(end)
        name, _ = _vint(file, keep_marker=True)
        length, unknown = _vint(file, keep_marker=False)
        if name is None or length is None or unknown:
            return 0
        end = file.tell() + length
        if name == _EBML_SEGMENT:
            break
    return max(0, end - size)


def _vint(file: BinaryIO, *, keep_marker: bool) -> tuple[int | None, bool]:
    first = file.read(1)
    if not first or not first[0]:
        return None, False
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    if len(rest) < more:
        return None, False
    value = int.from_bytes(first + rest)
    marker = 1 << (7 * (more + 1))
    return (value if keep_marker else value - marker), value == 2 * marker - 1


def _riff_missing(file: BinaryIO, size: int) -> int:
    start = 0
    while start + 12 <= size:  # OpenDML files are several RIFF chunks in a row
        file.seek(start)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or length == 0xFFFFFFFF:
            return 0
        start += 8 + length + length % 2
    return max(0, start - size - 1)  # the last pad byte is often left out


def _ts_missing(file: BinaryIO, size: int) -> int:
    file.seek(0)
    head = file.read(1024)
    packet = ts_packet_size(head)
    return -size % packet if packet else 0


def ts_packet_size(head: bytes) -> int | None:
    """How long a transport stream's packets are, by a file's first kilobyte; None for any other file."""
    return next((packet for packet in _TS_PACKETS if _is_ts_of(head, packet)), None)


def _is_ts_of(head: bytes, packet: int) -> bool:
    start = 4 if packet == 192 else 0
    places = range(start, len(head), packet)
    return len(places) > 2 and all(head[place] == _TS_SYNC for place in places)


_Check = tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], int]]
_FORMATS: Final[tuple[_Check, ...]] = (
    (lambda head: head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"), _mp4_missing),
    (lambda head: head[:4] == b"\x1a\x45\xdf\xa3", _matroska_missing),
    (lambda head: head[:4] == b"RIFF", _riff_missing),
    (lambda head: head.startswith(y4m.MAGIC), y4m.missing_bytes),
    (lambda head: ts_packet_size(head) is not None, _ts_missing),
)
