"""The programs of a transport stream, as its own tables name them (ISO/IEC 13818-1, 2.4.4; ETSI EN 300 468): PyAV does not tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from a2n_video.io.whole import ts_packet_size

_TELLING: Final = 1024  # bytes by which a transport stream is known
_HEAD: Final = 2_000_000  # tables come again several times a second
_PAT, _SDT = 0, 0x11
_PROGRAMS, _STREAMS, _SERVICES = 0, 2, 0x42  # tables
_SERVICE: Final = 0x48  # the descriptor of its name
_CRC: Final = 4
_PAYLOAD: Final = 184


def programs(path: Path) -> tuple[str, ...]:
    """The programs that a transport stream holds streams of, by their services' names, else numbers; nothing for any other file.

    One of which the table of its streams does not come is not in the file: a recorder leaves the list of all in.
    """
    numbers: dict[int, int] = {}  # by the pid of their table
    names: dict[int, str] = {}
    there: set[int] = set()
    for pid, section in _sections(path):
        if pid == _PAT and section[0] == _PROGRAMS:
            entries = (section[place : place + 4] for place in range(8, _end(section), 4))
            numbers |= {int.from_bytes(e[2:]) & 0x1FFF: number for e in entries if len(e) == 4 and (number := int.from_bytes(e[:2]))}
        elif pid == _SDT and section[0] == _SERVICES:
            names |= dict(_services(section))
        elif pid in numbers and section[0] == _STREAMS:
            there.add(pid)
    return tuple(names.get(number) or str(number) for pid, number in numbers.items() if pid in there)


def _end(section: bytes) -> int:
    """Where a section's entries end, as far as it lies in the packet that it begins in."""
    return min(3 + (int.from_bytes(section[1:3]) & 0xFFF) - _CRC, len(section))


def _sections(path: Path) -> Iterator[tuple[int, bytes]]:
    """The beginning of each section that begins a packet's payload, with its pid."""
    with suppress(OSError):
        with path.open("rb") as file:
            head = file.read(_TELLING)
            size = ts_packet_size(head)
            if size is None:
                return
            data = head + file.read(_HEAD - len(head))
        for place in range(4 if size == 192 else 0, len(data) - 187, size):
            packet = data[place : place + 188]
            start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
            if packet[1] & 0x40 and packet[3] & 0x10 and start < _PAYLOAD:
                section = packet[start + 1 + packet[start] :]
                if len(section) > 8:
                    yield int.from_bytes(packet[1:3]) & 0x1FFF, section


def _services(section: bytes) -> Iterator[tuple[int, str]]:
    """Service numbers with their names."""
    place, end = 11, _end(section)
    while place + 5 <= end:
        number, length = int.from_bytes(section[place : place + 2]), int.from_bytes(section[place + 3 : place + 5]) & 0xFFF
        at, place = place + 5, place + 5 + length
        while at + 4 < min(place, end):
            if section[at] == _SERVICE:
                provider = section[at + 3]
                name = section[at + 5 + provider : at + 5 + provider + section[at + 4 + provider]] if at + 4 + provider < end else b""
                yield number, _text(name)
            at += 2 + section[at + 1]


def _text(name: bytes) -> str:
    """A name without what says its alphabet; of those not in UTF-8 letters beyond ASCII may be others."""
    coded = name.decode("utf-8" if name[:1] == b"\x15" else "latin-1", "replace")
    return "".join(letter for letter in coded if letter.isprintable())
