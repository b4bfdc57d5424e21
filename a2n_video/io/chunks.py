"""What a picture file says in its own bytes and FFmpeg does not tell: looked up part by part, without reading the picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

PNG: Final = b"\x89PNG\r\n\x1a\n"
_MOST: Final = 10_000  # parts that are looked at, of whatever file


def animated_frames(path: Path) -> int:
    """How many frames an animated PNG says that it has, 0 for any other file."""
    with path.open("rb") as file:
        return next((number for name, number in _parts(file) if name == b"acTL"), 0)


def _parts(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The parts of a file by name, each with the number that it begins with."""
    yield from islice(_png(file), _MOST) if _at(file, 0, len(PNG)) == PNG else ()


def _png(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    place = len(PNG)
    while len(head := _at(file, place, 12)) == 12:
        yield head[4:8], int.from_bytes(head[8:])
        place += 12 + int.from_bytes(head[:4])


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
