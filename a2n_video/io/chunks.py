"""What picture files are called, and what they say in their own bytes and FFmpeg does not tell: looked up part by part, without
reading the picture.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice, takewhile
from pathlib import Path
from typing import BinaryIO, Final, Literal

from a2n_video.media.colorspec import MATRICES

READABLE: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# FFmpeg's demuxers for pictures, each by what its files begin with, and how many bytes tell them all apart.
_DEMUXERS: Final = (
    ("jpeg_pipe", re.compile(rb"\xff\xd8\xff")),
    ("png_pipe", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("bmp_pipe", re.compile(rb"BM")),
    ("webp_pipe", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("tiff_pipe", re.compile(rb"II\*\0|MM\0\*")),
    ("gif", re.compile(rb"GIF8")),
)
HEAD: Final = 12
_MOST: Final = 100_000  # parts that are looked at, of whatever file
_PROFILE, _EXIF = "ICC colour profile", "EXIF data"
# By what each kind of file calls them; tags of a TIFF are numbers.
_NAMES: Final[dict[bytes | int, str]] = {
    **dict.fromkeys((b"iCCP", b"ICC_PROFILE", b"ICCP", 34675), _PROFILE),
    **dict.fromkeys((b"eXIf", b"Exif", b"EXIF", 34665), _EXIF),
}
_SUBFILE, _NO_PAGE = 254, 1 | 4  # a TIFF's tag for pages that are another's thumbnail, or another's mask
_COMPRESSION, _JPEG, _DNG = 259, (6, 7), 50706
_COEFFICIENTS, _REFERENCES = 529, 532  # of a TIFF's YCbCr: of red, green and blue in luma; the codes of black and white
_BT601: Final = 5
_SHORT: Final = (b"\3\0", b"\0\3")  # the type of numbers of two bytes
_PAGE: Final = b"page"

# The name of a part, and the number that it begins with where it is one.
_Part = tuple[bytes | int, int]


def demuxer_of(head: bytes) -> str | None:
    """The demuxer for a picture file that begins so, None for what is none."""
    return next((name for name, begin in _DEMUXERS if begin.match(head)), None)


def beside(path: Path) -> tuple[str, ...]:
    """What a picture file holds beside its picture, in words: a colour profile, EXIF data. Nothing of any other file."""
    found = {_NAMES[name]: None for name, _ in _parts(path) if name in _NAMES}
    return tuple(found)


def animated_frames(path: Path) -> int:
    """How many frames an animated PNG says that it has, 0 for any other file."""
    before_the_picture = takewhile(lambda part: part[0] != b"IDAT", _parts(path, "png_pipe"))
    return next((number for name, number in before_the_picture if name == b"acTL"), 0)


def pages(path: Path) -> int:
    """How many pages a TIFF has, thumbnails and masks left out, 0 for any other file."""
    parts = list(_parts(path, "tiff_pipe"))
    return sum(name == _PAGE for name, _ in parts) - sum(name == _SUBFILE and bool(kind & _NO_PAGE) for name, kind in parts)


def is_jpeg_in_tiff(path: Path) -> bool:
    """Whether a TIFF's first page is compressed as JPEG, of which FFmpeg makes a black picture without a word. False for any other file.

    DNG is left to FFmpeg, which knows its kind of JPEG.
    """
    tags = _first_page(_parts(path, "tiff_pipe"))
    return tags.get(_COMPRESSION) in _JPEG and _DNG not in tags


def ycbcr_in_tiff(data: bytes) -> tuple[int, bool]:
    """The matrix, by H.273, of the YCbCr in a TIFF's bytes, and whether its range is full: BT.601, full, unless its tags say other.

    TIFF 6.0, section 21: FFmpeg, which reads neither tag, writes limited range, and one of them.
    """
    file = BytesIO(data)
    tags = _first_page(islice(_tiff(file), _MOST))

    def first_of(tag: int, usual: float) -> float:
        above, below = struct.unpack("<2I" if data[:2] == b"II" else ">2I", _at(file, tags.get(tag, 0), 8).ljust(8, b"\0"))
        return above / below if tag in tags and below else usual

    red = first_of(_COEFFICIENTS, MATRICES[_BT601][0])
    matrix = min((_BT601, *MATRICES), key=lambda number: abs(MATRICES[number][0] - red))
    return matrix, first_of(_REFERENCES, 0) < 1


def _first_page(parts: Iterator[_Part]) -> dict[bytes | int, int]:
    """The tags of a TIFF's first page, which is the one that is taken."""
    return dict(takewhile(lambda part: part[0] != _PAGE, islice(parts, 1, None)))


def _parts(path: Path, only: str | None = None) -> Iterator[_Part]:
    """The parts of a picture file of a kind that is known here, or of that kind `only`, as far as they can be read."""
    with suppress(OSError), path.open("rb") as file:
        kind = demuxer_of(file.read(HEAD))
        if kind in _READERS and only in (None, kind):
            yield from islice(_READERS[kind](file), _MOST)


def _png(file: BinaryIO) -> Iterator[_Part]:
    place = 8
    while len(head := _at(file, place, 12)) == 12:
        yield head[4:8], int.from_bytes(head[8:])
        place += 12 + int.from_bytes(head[:4])


def _jpeg(file: BinaryIO) -> Iterator[_Part]:
    """Its segments up to the picture; only the names of those of applications are told."""
    place = 2
    while len(head := _at(file, place, 18)) == 18 and head[0] == 0xFF and head[1] not in (0xDA, 0xD9):
        yield head[4:].split(b"\0")[0] if head[1] & 0xF0 == 0xE0 else b"", 0
        place += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4])


def _webp(file: BinaryIO) -> Iterator[_Part]:
    place = 12
    while len(head := _at(file, place, 8)) == 8:
        yield head[:4], 0
        size = int.from_bytes(head[4:], "little")
        place += 8 + size + size % 2


def _tiff(file: BinaryIO) -> Iterator[_Part]:
    """Its pages, each with its tags after it."""
    head = _at(file, 0, 8)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    place, seen = int.from_bytes(head[4:], order), {0}
    while place not in seen and len(number := _at(file, place, 2)) == 2:
        seen.add(place)
        yield _PAGE, 0
        size = 12 * int.from_bytes(number, order)
        entries = _at(file, place + 2, size + 4)
        for tag in (entries[start : start + 12] for start in range(0, size, 12)):
            yield int.from_bytes(tag[:2], order), int.from_bytes(tag[8 : 10 if tag[2:4] in _SHORT else 12], order)
        place = int.from_bytes(entries[size:], order)


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


_READERS: Final = {"png_pipe": _png, "jpeg_pipe": _jpeg, "webp_pipe": _webp, "tiff_pipe": _tiff}
