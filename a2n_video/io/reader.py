"""Frames of a file, in presentation order, in native planes, on settled time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from a2n_video.frames import native_frame
from a2n_video.io.packets import scan
from a2n_video.io.probe import open_decoder, probe
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.index import TimeMap
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
    """An iterable over one file's video: av.VideoFrame in native planes, pts settled (`time_map.time_base` units, strictly rising).

    Gives the frames of the map's window, from `start_pts` (settled) on where given: a resumed job or a worker starts there. At most
    `frames` come. The file is opened in the thread that iterates, which must be the same from first frame to last; close (or leave
    the `with`) once that thread has ended. Broken packets are counted in `damage`.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        info: VideoInfo | None = None,
        time_map: TimeMap | None = None,
        start_pts: int | None = None,
        frames: int | None = None,
        threads: int = 0,
    ) -> None:
        self.source = Path(source)
        self.info = info or probe(source)
        self.time_map = time_map or scan(self.source, self.info).time_map
        self.damage = Damage()
        self._first_pts = max(start_pts if start_pts is not None else self.time_map.first_pts, self.time_map.first_pts)
        self._frames = frames
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
        frames = itertools.takewhile(lambda frame: frame.pts < self.time_map.end_pts, self._from_first_pts())
        return itertools.islice(frames, self._frames)

    def _from_first_pts(self) -> Iterator[av.VideoFrame]:
        """Frames from the first wanted one on: by a seek where that is shorter, and safe."""
        first = self._first_pts
        if self.time_map.seekable and first * self.time_map.time_base > 2 * _PREROLL_S:
            frames = self._settled(self._open(first))
            # A seek can land late (TS, AVI): unless a frame before the first wanted one came, decode from the start.
            head = next(frames, None)
            if head is not None and head.pts < first:
                yield from (frame for frame in itertools.chain([head], frames) if frame.pts >= first)
                return
            self.close()
        yield from (frame for frame in self._settled(self._open()) if frame.pts >= first)

    def _open(self, seek_to: int | None = None) -> Iterator[av.VideoFrame]:
        self._container = open_source(self.source)
        stream = video_stream(self._container, self.source)
        if seek_to is not None:
            preroll = int(_PREROLL_S / self.time_map.time_base)
            keyframe = self.time_map.keyframe_before(seek_to - preroll)
            self._container.seek(self.time_map.raw_pts(keyframe), stream=stream, backward=True)
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
        clock = self.time_map.clock()
        for raw in frames:
            frame = native_frame(raw)
            frame.pts = clock.settle(raw.pts, raw.dts)
            frame.time_base = self.time_map.time_base
            yield frame
