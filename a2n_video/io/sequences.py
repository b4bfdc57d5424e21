"""Numbered pictures as a video and a video as numbered pictures; single pictures are sequences of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import av

from a2n_video.errors import EncodeError, InputError, OutputError, OutputExistsError
from a2n_video.frames import native_frame
from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.probe import first_frame
from a2n_video.io.source import open_source, video_stream

_NUMBER: Final = re.compile(r"%0?(\d*)d")
# The encoder for each kind of picture, and the formats it is given: those that keep every bit and that others read.
PICTURES: Final = MappingProxyType(
    {
        **dict.fromkeys((".png",), ("png", ("gray", "gray16be", "rgb24", "rgba", "rgb48be", "rgba64be"))),
        **dict.fromkeys((".tif", ".tiff"), ("tiff", ("gray", "gray16le", "rgb24", "rgba", "rgb48le", "rgba64le"))),
        **dict.fromkeys((".jpg", ".jpeg"), ("mjpeg", ("yuv420p", "yuv422p", "yuv444p"))),
    }
)


def is_numbered(path: Path) -> bool:
    """Whether a name stands for many pictures (frame_%05d.png). A file of just that name, such as 50%d.png, is itself."""
    return bool(_NUMBER.search(path.name)) and path.suffix.lower() in PICTURES and not path.exists()


def is_picture(path: Path) -> bool:
    """Whether a name is that of a picture file, or of many."""
    return path.suffix.lower() in PICTURES


def numbered_files(pattern: Path) -> list[Path]:
    """The pictures of a pattern, by number. InputError where there is none, or a number in between is missing."""
    match = _NUMBER.search(pattern.name)
    assert match is not None
    name = re.compile(re.escape(pattern.name[: match.start()]) + r"(\d+)" + re.escape(pattern.name[match.end() :]))
    files = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    found = {int(hit[1]): file for file in files if (hit := name.fullmatch(file.name)) and file.name == _name(pattern, int(hit[1]))}
    if not found:
        raise InputError(f"{pattern}: there are no such pictures")
    numbers = sorted(found)
    missing = next((n for n, m in zip(range(numbers[0], numbers[-1]), numbers, strict=False) if n != m), None)
    if missing is not None:
        raise InputError(f"{pattern}: number {missing} is missing between {numbers[0]} and {numbers[-1]}")
    return [found[number] for number in numbers]


def read_pictures(files: Sequence[Path], rate: Fraction) -> Iterator[av.VideoFrame]:
    """One frame for each file, in native planes, pts counting from 0 in 1/rate; errors name the file."""
    for number, path in enumerate(files):
        with open_source(path) as container:
            frame = native_frame(first_frame(container, video_stream(container, path), path))
        frame.pts, frame.time_base = number, 1 / rate
        yield frame


class PictureWriter:
    """Frames as picture files, each whole on the disk before the next; a name without a number takes one frame. `options`: the encoder's.

    OutputExistsError, unless `overwrite`, before any older picture is touched; OutputError for a second frame where one was meant.
    """

    def __init__(
        self, pattern: Path, pix_fmt: str, first: int = 1, *, options: Mapping[str, str] | None = None, overwrite: bool = False
    ) -> None:
        self.pattern, self.pix_fmt, self.first, self.overwrite = pattern, pix_fmt, first, overwrite
        self.options = dict(options or {})
        self.codec = PICTURES[pattern.suffix.lower()][0]
        self.frames = 0
        self._many = is_numbered(pattern)

    def write(self, frame: av.VideoFrame) -> None:
        if self.frames and not self._many:
            raise OutputError(f"{self.pattern}: one picture holds one frame; write a number into the name (out_%05d.png) or add --frames 1")
        path = self.pattern.with_name(_name(self.pattern, self.first + self.frames)) if self._many else self.pattern
        if path.exists() and not self.overwrite:
            raise OutputExistsError(f"{path}: exists already; add --overwrite to replace it")
        partial = path.with_name(f"{path.name}.part")
        with OutFile(partial) as file:
            for packet in self._encoded(frame, path):
                file.write(packet)
            file.finish()
        publish(partial, path, overwrite=self.overwrite)
        self.frames += 1

    def close(self) -> None:
        """Every picture is on the disk already."""

    def _encoded(self, frame: av.VideoFrame, path: Path) -> list[bytes]:
        context: Any = av.CodecContext.create(self.codec, "w")
        context.width, context.height, context.pix_fmt = frame.width, frame.height, self.pix_fmt
        context.time_base = Fraction(1, 25)
        context.color_range = 2
        context.options = dict(self.options)
        frame.pts, frame.pict_type = 0, 0
        try:
            return [bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]]
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"{path}: the picture could not be encoded: {error}") from error


def _name(pattern: Path, number: int) -> str:
    """A pattern's name with its number; the rest of the name is left alone, other percent signs too."""
    return _NUMBER.sub(lambda match: f"{number:0{int(match[1] or 1)}d}", pattern.name, count=1)
