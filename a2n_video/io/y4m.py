"""YUV4MPEG2, the pipe format of encoders: a header, then raw frames; 8 to 16 bits, gray and YUV, one frame rate, no sound.

Words as FFmpeg and x264 read and write them: C420p10, C444p16, Cmono12, XCOLORRANGE=LIMITED.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final

import av
import numpy as np

from a2n_video.errors import DecodeError, EncodeError, OutputError
from a2n_video.frames import frame_planes, tag_frame
from a2n_video.io.writer import FrameWriter
from a2n_video.media.colorspec import CHROMA_SITING, ColorSpec
from a2n_video.media.pixfmt import pix_fmt_of
from a2n_video.media.planes import PlaneFormat

MAGIC: Final = b"YUV4MPEG2"
_LONGEST_LINE: Final = 4096
_COLOR: Final = re.compile(r"(?:(420|422|444|411|440)(jpeg|mpeg2|paldv)?|(mono))(?:p?(9|10|12|14|16))?")
_CHROMA: Final = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "411": (2, 0), "440": (0, 1)}
_SITING: Final = {"jpeg": 2, "mpeg2": 1, "paldv": 3, None: 0}
# What can be written; the source's depth and chroma choose among them.
PIX_FMTS: Final = tuple(
    f"{name}{depth}" for name in ("gray", "yuv420p", "yuv422p", "yuv444p") for depth in ("", "9le", "10le", "12le", "14le", "16le")
)


@dataclass(frozen=True, kw_only=True)
class Y4mHeader:
    """What a stream's first line says."""

    fmt: PlaneFormat
    rate: Fraction
    sar: Fraction
    color: ColorSpec
    interlaced: bool = False


def read_header(stream: BinaryIO) -> Y4mHeader:
    """The first line; DecodeError where it is none, or names planes that are not taken."""
    line = stream.readline(_LONGEST_LINE)
    words = line.decode("ascii", "replace").split()
    if not words or words[0] != MAGIC.decode():
        raise DecodeError("the pipe does not begin with YUV4MPEG2; give y4m, or nut or mkv whole")
    values = {word[0]: word[1:] for word in words[1:] if word[0] != "X"}
    extra = dict(word[1:].split("=", 1) for word in words[1:] if word[0] == "X" and "=" in word)
    match = _COLOR.fullmatch(values.get("C", "420jpeg"))
    width, height = (int(side) if side.isdigit() else 0 for side in (values.get("W", ""), values.get("H", "")))
    if match is None or not width or not height:
        raise DecodeError(f"y4m of kind C{values.get('C')} {values.get('W')}x{values.get('H')} is not taken")
    across, down = _CHROMA[match[1]] if match[1] else (0, 0)
    fmt = PlaneFormat(
        width=width,
        height=height,
        family="gray" if match[3] else "yuv",
        depth=int(match[4] or 8),
        log2_chroma_w=across,
        log2_chroma_h=down,
    )
    full = {"FULL": True, "LIMITED": False}.get(extra.get("COLORRANGE", ""))
    color = ColorSpec(full_range=full, chroma_location=_SITING[match[2]])
    rate, sar = _ratio(values.get("F")) or Fraction(25), _ratio(values.get("A")) or Fraction(1)
    return Y4mHeader(fmt=fmt, rate=rate, sar=sar, color=color, interlaced=values.get("I", "p") not in ("p", "?"))


def read_frames(stream: BinaryIO, header: Y4mHeader) -> Iterator[av.VideoFrame]:
    """The frames, pts counting from 0 in 1/rate; a last one that is cut off is a DecodeError."""
    size = _frame_bytes(header)
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        data = stream.read(size) if line.startswith(b"FRAME") else b""
        if len(data) != size:
            raise DecodeError(f"the pipe ended inside frame {number}")
        frame = av.VideoFrame(header.fmt.width, header.fmt.height, pix_fmt_of(header.fmt))
        row = np.frombuffer(data, header.fmt.dtype)
        for target, plane in zip(frame_planes(frame, header.fmt), header.fmt.unpack(row), strict=True):
            target[...] = plane
        tag_frame(frame, header.color)
        frame.pts, frame.time_base = number, 1 / header.rate
        number += 1
        yield frame


def missing_bytes(file: BinaryIO, size: int) -> int:
    """How many bytes the last frame of a y4m file of `size` bytes lacks; 0 where it is whole, or cannot be read at all."""
    file.seek(0)
    try:
        frame = _frame_bytes(read_header(file))
    except DecodeError:
        return 0
    while file.readline(_LONGEST_LINE):
        if file.seek(frame, os.SEEK_CUR) >= size:
            break
    return max(0, file.tell() - size)


def _frame_bytes(header: Y4mHeader) -> int:
    return header.fmt.samples * header.fmt.dtype.itemsize


class Y4mWriter(FrameWriter):
    """Frames as y4m into a stream, which stays the caller's; `write` takes frames of `header.fmt` only."""

    def __init__(self, stream: BinaryIO, header: Y4mHeader) -> None:
        self.stream, self.header = stream, header
        self.frames = 0
        self._put(_first_line(header))

    def write(self, frame: av.VideoFrame) -> None:
        """One frame; EncodeError where nobody reads any more, or the disk is full."""
        planes = frame_planes(frame, self.header.fmt)
        self._put(b"FRAME\n" + b"".join(np.ascontiguousarray(plane).tobytes() for plane in planes))
        self.frames += 1

    def close(self) -> None:
        with told_of_pipe(f"frame {self.frames}"):
            self.stream.flush()

    def abort(self) -> None:
        """Nothing is held."""

    def kill(self) -> None:
        """Nothing: this process writes."""

    def _put(self, data: bytes) -> None:
        with told_of_pipe(f"frame {self.frames}"):
            self.stream.write(data)


@contextmanager
def told_of_pipe(what: str) -> Iterator[None]:
    """A pipe's errors as ours; a file of ours names its own."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise EncodeError(f"{what} could not be written to the pipe ({error.strerror})") from error


def _first_line(header: Y4mHeader) -> bytes:
    fmt = header.fmt
    chroma = next((name for name, factors in _CHROMA.items() if factors == (fmt.log2_chroma_w, fmt.log2_chroma_h)), "444")
    if fmt.family == "gray":
        kind = "mono" + ("" if fmt.depth == 8 else str(fmt.depth))
    elif fmt.depth > 8:
        kind = f"{chroma}p{fmt.depth} XYSCSS={chroma}P{fmt.depth}"
    else:
        kind = chroma + (_siting(header.color) if chroma == "420" else "")
    color_range = "FULL" if header.color.full_range else "LIMITED"
    words = (
        f"W{fmt.width} H{fmt.height} F{header.rate.numerator}:{header.rate.denominator} Ip A{header.sar.numerator}:{header.sar.denominator}"
    )
    return f"{MAGIC.decode()} {words} C{kind} XCOLORRANGE={color_range}\n".encode()


def _siting(color: ColorSpec) -> str:
    """The word for where chroma sits, or for the nearest place that has one; untagged chroma is written where the engine took it to be."""
    places = {name: CHROMA_SITING[place] for name, place in _SITING.items() if name}
    return min(places, key=lambda name: math.dist(places[name], color.siting))


def _ratio(text: str | None) -> Fraction | None:
    numerator, _, denominator = (text or "").partition(":")
    usable = numerator.isdigit() and denominator.isdigit() and int(numerator) and int(denominator)
    return Fraction(int(numerator), int(denominator)) if usable else None
