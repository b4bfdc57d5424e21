"""Numbered pictures as a video and a video as numbered pictures; single pictures are sequences of one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import av

from a2n_video.errors import DecodeError, EncodeError, IncompleteSourceError, InputError, OutputError, OutputExistsError
from a2n_video.frames import native_frame
from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.probe import check_stream, first_frame
from a2n_video.io.reader import Damage, repeated_frame
from a2n_video.io.source import READABLE, open_source, video_stream

_NUMBER: Final = re.compile(r"%0?(\d*)d")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # no stuffed byte, no restart, no filling
# The encoder for each kind of picture, and the formats it is given: those that keep every bit and that others read.
WRITABLE: Final = MappingProxyType(
    {
        **dict.fromkeys((".png",), ("png", ("gray", "gray16be", "rgb24", "rgba", "rgb48be", "rgba64be"))),
        **dict.fromkeys((".tif", ".tiff"), ("tiff", ("gray", "gray16le", "rgb24", "rgba", "rgb48le", "rgba64le"))),
        **dict.fromkeys((".jpg", ".jpeg"), ("mjpeg", ("yuv420p", "yuv422p", "yuv444p"))),
    }
)


def is_numbered(path: Path) -> bool:
    """Whether a name stands for many pictures (frame_%05d.png). A file of just that name, such as 50%d.png, is itself."""
    return bool(_NUMBER.search(path.name)) and path.suffix.lower() in WRITABLE and not path.exists()


def is_picture(path: Path) -> bool:
    """Whether a name is that of a picture file, or of many."""
    return path.suffix.lower() in READABLE


def makes_pictures(dest: Path) -> bool:
    """Whether a result of that name is a picture file, or many: fewer kinds are written than are read."""
    return dest.suffix.lower() in WRITABLE


def standing_files(pattern: Path) -> dict[int, Path]:
    """The pictures of a pattern that there are, by number, rising."""
    match = _NUMBER.search(pattern.name)
    assert match is not None
    name = re.compile(re.escape(pattern.name[: match.start()]) + r"(\d+)" + re.escape(pattern.name[match.end() :]))
    files = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    found = {int(hit[1]): file for file in files if (hit := name.fullmatch(file.name)) and file.name == _name(pattern, int(hit[1]))}
    return dict(sorted(found.items()))


def numbered_files(pattern: Path) -> dict[int, Path]:
    """The same for pictures to be read: InputError where there is none, or a number in between is missing."""
    found = standing_files(pattern)
    if not found:
        raise InputError(f"{pattern}: there are no such pictures")
    numbers = list(found)
    missing = next((n for n, m in zip(range(numbers[0], numbers[-1]), numbers, strict=False) if n != m), None)
    if missing is not None:
        raise InputError(f"{pattern}: number {missing} is missing between {numbers[0]} and {numbers[-1]}")
    return found


def numbered_name(pattern: Path, number: int) -> Path:
    """The picture of that number; a name without a place for one is itself."""
    return pattern.with_name(_name(pattern, number)) if is_numbered(pattern) else pattern


def check_holds(dest: Path, frames: int) -> None:
    """OutputError for several frames where the result's name is that of one picture."""
    if frames > 1 and makes_pictures(dest) and not is_numbered(dest):
        raise OutputError(f"{dest}: one picture holds one frame; write a number into the name (out_%05d.png) or add --frames 1")


def read_pictures(files: Sequence[Path], rate: Fraction, max_pixels: int, damage: Damage) -> Iterator[av.VideoFrame]:
    """One frame for each file, in native planes, pts counting from 0 in 1/rate; errors name the file.

    The last good one stands in for a picture that cannot be decoded, which `damage` is told; DecodeError or IncompleteSourceError for
    the first one.
    """
    last: av.VideoFrame | None = None
    for number, path in enumerate(files):
        try:
            frame, wrong = _read_picture(path, max_pixels)
        except (DecodeError, IncompleteSourceError):
            if last is None:
                raise
            frame, wrong = repeated_frame(last, number), "cannot be decoded"
            damage.repeated_at.append(number)
        if wrong is not None:
            damage.add(number, path.name, wrong)
        frame.pts, frame.time_base = number, 1 / rate
        last = frame
        yield frame


def _read_picture(path: Path, max_pixels: int) -> tuple[av.VideoFrame, str | None]:
    """A picture, and what is wrong with it where something is."""
    with open_source(path) as container:
        stream = video_stream(container, path)
        check_stream(stream, path, max_pixels)
        raw = first_frame(container, stream, path)
    if raw.is_corrupt:
        return native_frame(raw), "decoded with errors"
    return native_frame(raw), None if _is_whole(path) else "the file is cut short"


def _is_whole(path: Path) -> bool:
    """Whether a JPEG has its end, without which decoders paint the rest gray and say nothing; other pictures' decoders do say it."""
    with path.open("rb") as file:
        data = file.read(len(_JPEG_START))
        if data != _JPEG_START:
            return True
        data += file.read()
    place = len(_JPEG_START)
    while marker := _JPEG_MARKER.search(data, place):
        if marker[0] == _JPEG_END:
            return True
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])  # a segment, with a thumbnail's end perhaps
    return False


class PictureWriter:
    """Frames as picture files, each whole on the disk before the next; a name without a number takes one frame. `options`: the encoder's.

    Each is made in `folder`, on the same file system, and moved to its place, a single one by `close`. OutputExistsError, unless
    `overwrite`, before any older picture is touched; OutputError for a second frame where one was meant.
    """

    def __init__(
        self,
        pattern: Path,
        pix_fmt: str,
        first: int = 1,
        *,
        folder: Path,
        options: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.pattern, self.pix_fmt, self.first, self.folder, self.overwrite = pattern, pix_fmt, first, folder, overwrite
        self.options = dict(options or {})
        self.codec = WRITABLE[pattern.suffix.lower()][0]
        self.frames = 0
        self._many = is_numbered(pattern)
        self._file: OutFile | None = None
        self._made: tuple[Path, Path] | None = None  # a picture and its place
        self._disowned = False

    def write(self, frame: av.VideoFrame) -> None:
        check_holds(self.pattern, self.frames + 1)
        path = self.pattern.with_name(_name(self.pattern, self.first + self.frames)) if self._many else self.pattern
        if path.exists() and not self.overwrite:
            raise OutputExistsError(f"{path}: exists already; add --overwrite to replace it")
        made = self.folder / path.name
        with OutFile(made) as file:
            self._file = file
            for packet in self._encoded(frame, path):
                file.write(packet)
            file.finish()
        self._made = made, path
        self.frames += 1
        if self._many:
            self.close()

    def close(self) -> None:
        """Put the last picture in place, if it is not there yet."""
        if self._made is not None and not self._disowned:
            publish(*self._made, overwrite=self.overwrite)
            self._made = None

    def disown(self) -> None:
        """Give up from another thread, where the one that writes does not come back: the picture it is at gets no place."""
        self._disowned = True
        if self._file is not None:
            self._file.disown()

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
