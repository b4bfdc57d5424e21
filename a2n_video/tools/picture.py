"""Frames of a file as RGB with their times, for tools that look at pictures; and PNG out, with nothing but zlib."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2n_video.engine.color import planes_to_rgb
from a2n_video.errors import OptionError, OutputError, OutputExistsError
from a2n_video.frames import VideoFrameAdapter
from a2n_video.io.packets import scan
from a2n_video.io.pictures import PICTURES, read_rgb
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.media.index import TimeMap
from a2n_video.media.info import VideoInfo

if TYPE_CHECKING:
    import av

Image = NDArray[np.uint8]
"""RGB, (H, W, 3)."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One frame: its place in what was read, its time in seconds from the file's first frame, RGB (1, 3, H, W) in 0..1, unclamped."""

    number: int
    time: Fraction
    rgb: Tensor


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A video that was looked into."""

    path: Path
    info: VideoInfo
    time_map: TimeMap

    @classmethod
    def open(cls, path: Path | str) -> Footage:
        """Probe and index a file. InputError and its kin where it is not one that can be used."""
        path = Path(path)
        info = probe(path)
        return cls(path=path, info=info, time_map=scan(path, info).time_map)

    @property
    def seconds(self) -> Fraction:
        first, end = self.time_map.window
        return end - first

    def frames(self, start: Fraction | None = None, frames: int | None = None) -> Iterator[av.VideoFrame]:
        """Decoded frames from the one shown at `start` seconds on; at most `frames`."""
        first = None if start is None else self._pts_at(start)
        with VideoReader(self.path, info=self.info, time_map=self.time_map, start_pts=first, frames=frames) as reader:
            yield from reader

    def shots(self, start: Fraction | None = None, frames: int | None = None) -> Iterator[Shot]:
        """The same as RGB with times."""
        for number, frame in enumerate(self.frames(start, frames)):
            yield Shot(number=number, time=self.time_of(frame), rgb=rgb_of(frame))

    def shot(self, at: Fraction = Fraction(0)) -> Shot:
        """The frame that is shown at `at` seconds."""
        return next(self.shots(at, 1))

    def time_of(self, frame: av.VideoFrame) -> Fraction:
        """Seconds from the file's first frame; the reader has given every frame a pts."""
        return ((frame.pts or 0) - self.time_map.first_pts) * self.time_map.time_base

    def _pts_at(self, at: Fraction) -> int:
        """Settled pts of the frame shown at a time, which begins at or before it."""
        if not 0 <= at < max(self.seconds, Fraction(1, 1000)):
            raise OptionError(f"{self.path}: there is no frame at {float(at):.3f} s, the video lasts {float(self.seconds):.3f} s")
        times = self.time_map.times
        wanted = self.time_map.first_pts + at / self.time_map.time_base
        return times[max(0, bisect_right(times, wanted) - 1)]


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def shot_of(path: Path, at: Fraction | None = None) -> Shot:
    """A picture, or the frame of a video that is shown at `at` seconds (None: in its middle)."""
    if is_picture(path):
        image = next(read_rgb(path))
        return Shot(number=0, time=Fraction(0), rgb=torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    footage = Footage.open(path)
    return footage.shot(footage.seconds / 2 if at is None else at)


def rgb_of(frame: av.VideoFrame) -> Tensor:
    """A frame in native planes as RGB, (1, 3, H, W) float32 in 0..1, unclamped; as stored: HDR stays in its own curve."""
    adapter = VideoFrameAdapter()
    fmt, color = adapter.describe(frame)
    row = np.empty(fmt.samples, fmt.dtype)
    fmt.pack(adapter.planes(frame), row)
    return planes_to_rgb(torch.from_numpy(row)[None], fmt, color)


def to_image(rgb: Tensor) -> Image:
    """RGB (1, 3, H, W) in 0..1 -> 8 bits, rounded and held within the range."""
    return (255 * rgb[0].detach().cpu()).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def display_size(width: int, height: int, sar: Fraction) -> tuple[int, int]:
    """(width, height) in square pixels: the short axis is stretched, none is shrunk."""
    return (round(width * sar), height) if sar >= 1 else (width, round(height / sar))


def png_bytes(image: Image) -> bytes:
    """An 8-bit RGB PNG. Each row is stored as differences to its left neighbours (PNG's filter 1)."""
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 1
    rows[:, 1:4] = image[:, 0]
    rows[:, 4:] = np.diff(image, axis=1).reshape(height, -1)  # wraps around, as the filter wants

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def write_file(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write a small result whole. OutputExistsError without `overwrite`, OutputError where the disk or a permission says no."""
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; add --overwrite to replace it")
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def write_rows(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A CSV: a line of column names, then one line a row; floats with six significant digits, None empty."""
    lines = [",".join(columns)]
    lines += [",".join("" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    write_file(path, ("\n".join(lines) + "\n").encode())
