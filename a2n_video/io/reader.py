"""Frames of a file, in presentation order, in native planes, on settled time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from a2n_video.errors import DecodeError
from a2n_video.frames import native_frame
from a2n_video.io.packets import scan
from a2n_video.io.probe import open_decoder, probe
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.index import Clock, TimeMap
from a2n_video.media.info import VideoInfo

_PREROLL_S = 10


@dataclass
class Damage:
    """What went wrong while decoding, counted by the reader's thread; read it once the reader has ended."""

    errors: int = 0
    first: str | None = None  # where and what the first error was
    notes: list[str] = field(default_factory=list)

    def add(self, where: str, error: Exception) -> None:
        self.errors += 1
        self.first = self.first or f"{where}: {error}"


class VideoReader:
    """An iterable over one file's video: av.VideoFrame in native planes, every pts in `time_map.time_base` units and strictly rising.

    `start_pts` and `end_pts` (exclusive) are on the settled clock; `frames` stops after so many. It opens the file in the thread
    that iterates, which must be one and the same from first frame to last; close (or leave the `with`) after that thread has ended.
    Broken packets are counted in `damage`.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        info: VideoInfo | None = None,
        time_map: TimeMap | None = None,
        start_pts: int | None = None,
        end_pts: int | None = None,
        frames: int | None = None,
        threads: int = 0,
    ) -> None:
        self.source = Path(source)
        self.info = info or probe(source)
        self.time_map = time_map or scan(self.source, self.info).time_map
        self.damage = Damage()
        self._start_pts, self._end_pts, self._frames = start_pts, end_pts, frames
        self._threads = threads
        self._container: InputContainer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for count, frame in enumerate(self._from_start_pts()):
            if (self._frames is not None and count >= self._frames) or (self._end_pts is not None and frame.pts >= self._end_pts):  # type: ignore[operator]
                return
            yield frame

    def _from_start_pts(self) -> Iterator[av.VideoFrame]:
        start = self._start_pts
        if start is None:
            yield from self._settled(self._open())
            return
        # A seek can land late (TS, AVI) or decode wrongly at first: the frame before `start` must be seen, or all is decoded.
        seen_before = False
        for frame in self._settled(self._open(start)):
            seen_before = seen_before or frame.pts < start  # type: ignore[operator]
            if frame.pts >= start:  # type: ignore[operator]
                if not seen_before and start > self.time_map.first_pts:
                    break
                yield frame
        if not seen_before:
            self.close()
            yield from (frame for frame in self._settled(self._open()) if frame.pts >= start)  # type: ignore[operator]

    def _open(self, seek_to: int | None = None) -> Iterator[av.VideoFrame]:
        self._container = open_source(self.source)
        stream = video_stream(self._container, self.source)
        if seek_to is not None:
            offset = seek_to - self.time_map.shift_pts - int(_PREROLL_S / self.time_map.time_base)
            self._container.seek(offset, stream=stream, backward=True)
        return self._decoded(self._container, stream)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        decoder = open_decoder(stream, self._threads)
        try:
            for packet in container.demux(stream):
                try:
                    yield from decoder.decode(packet if packet.size else None)
                except av.FFmpegError as error:
                    self.damage.add(f"packet at pts {packet.pts}", error)
        except av.FFmpegError as error:
            self.damage.add("reading packets", error)

    def _settled(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        clock: Clock = self.time_map.clock()
        for raw in frames:
            frame = native_frame(raw)
            frame.pts = clock.settle(raw.pts, raw.dts)
            frame.time_base = self.time_map.time_base
            yield frame
        if clock.frames == 0 and self.damage.errors:
            raise DecodeError(f"{self.source}: no frame could be decoded ({self.damage.first})")
