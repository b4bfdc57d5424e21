"""Frames of a file, in presentation order, in native planes, on settled time."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from a2n_video.frames import native_frame
from a2n_video.io.decoding import decoding, fed
from a2n_video.io.filters import copied_frame, deinterlaced
from a2n_video.io.fitting import changes_of
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.seeking import packets_from_keyframe
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.colorspec import UNSPECIFIED, UNTAKEN
from a2n_video.media.index import TimeMap
from a2n_video.media.info import VideoInfo
from a2n_video.media.interlace import InterlacePlan, Mode
from a2n_video.media.timemap import told

PREROLL_S = 10
_BACKWARD: Final = "the source's times step back: a frame that says an earlier time than the one before it comes right after that"


@dataclass
class Damage:
    """What went wrong while decoding: for each error the settled pts it lies at; `first` tells of the first one; `repeated_at`: the
    settled pts of frames that stood in for lost ones. What lies before `since` is preroll: its errors are only counted, in `before`.

    The reader's thread writes, any thread may read.
    """

    at: list[int] = field(default_factory=list)
    first: str | None = None
    since: int | None = None
    repeated_at: list[int] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)  # of size, format, colour or the course of time on the way, in words: no errors
    before: int = 0

    @property
    def errors(self) -> int:
        return len(self.at)

    @property
    def repeated(self) -> int:
        return len(self.repeated_at)

    @property
    def met(self) -> int:
        """All errors, those of the preroll too."""
        return len(self.at) + self.before

    def add(self, pts: int, where: str, error: object) -> None:
        if self._preroll(pts):
            self.before += 1
            return
        self.at.append(pts)
        if self.first is None:
            self.first = f"{where}: {error}"

    def stood_in(self, pts: int) -> None:
        """A frame stands in for a lost one."""
        if not self._preroll(pts):
            self.repeated_at.append(pts)

    def forget(self) -> None:
        """Begin anew: what was met so far will be met again."""
        self.at.clear()
        self.repeated_at.clear()
        self.first, self.before = None, 0

    def _preroll(self, pts: int) -> bool:
        return self.since is not None and pts < self.since

    def between(self, start_pts: int | None, end_pts: int | None) -> int:
        """How many errors lie in [start, end); None means open."""
        return len(self.within(start_pts, end_pts).at)

    def within(self, start_pts: int | None, end_pts: int | None) -> Damage:
        """What lies in [start, end); None means open. `first` stays where that error lies inside, the `changes` on the way all stay."""

        def inside(pts: int) -> bool:
            return (start_pts is None or pts >= start_pts) and (end_pts is None or pts < end_pts)

        places = list(self.at)
        first = self.first if places and inside(places[0]) else None
        at, repeated_at = (list(filter(inside, found)) for found in (places, list(self.repeated_at)))
        return Damage(at=at, first=first, repeated_at=repeated_at, changes=list(self.changes))


@dataclass(frozen=True, kw_only=True)
class SourceClock:
    """How the clock of the frames that come lies to the source's own: `factor` ticks for one of the source, `moved` by --start."""

    factor: int
    moved: int

    @classmethod
    def of(cls, time_map: TimeMap, source_map: TimeMap) -> SourceClock:
        """From the map of the frames that come and the source's."""
        factor = int(source_map.time_base / time_map.time_base)
        return cls(factor=factor, moved=time_map.shift_pts - factor * source_map.shift_pts)

    def settled(self, source_pts: int) -> int:
        """A source frame's pts on the clock of the frames that come."""
        return source_pts * self.factor + self.moved

    def source(self, pts: int) -> int:
        """The pts on the source's clock at or right before a settled one."""
        return (pts - self.moved) // self.factor


class VideoReader:
    """An iterable over one file's video: av.VideoFrame in native planes, pts settled (`time_map.time_base` units, strictly rising).

    Gives the frames of the map's window, from `start_pts` (settled) on where given: a resumed job or a worker starts there. At most
    `frames` come. The file is opened in the thread that iterates, which must be the same from first frame to last; close (or leave
    the `with`) once that thread has ended. Broken packets are counted in `damage`.

    Frames are deinterlaced as `deinterlace` says, a plan or only its mode; `time_map` is then that of the frames that come, and
    `source_map` the source's own, on the same clock but for the tick and a shift (--start).
    """

    def __init__(
        self,
        source: Path | str,
        *,
        info: VideoInfo | None = None,
        time_map: TimeMap | None = None,
        source_map: TimeMap | None = None,
        deinterlace: InterlacePlan | Mode = "off",
        start_pts: int | None = None,
        frames: int | None = None,
    ) -> None:
        self.source = Path(source)
        self.info = info or probe(source)
        self.time_map = time_map or scan(self.source, self.info).time_map
        self._begins_part = start_pts is None and self.time_map.begin_pts is not None
        self.damage = Damage(since=self.time_map.begin_pts if start_pts is None else start_pts)
        self._interlace = deinterlace if isinstance(deinterlace, InterlacePlan) else InterlacePlan(mode=deinterlace)
        self._source_map = source_map or self.time_map
        self._to = SourceClock.of(self.time_map, self._source_map)
        self._first_pts = max(start_pts if start_pts is not None else self.time_map.first_pts, self.time_map.first_pts)
        self._frames = frames
        self._container: InputContainer | None = None
        self._last_pts: int | None = None  # of the last decoded frame, on the source's clock
        self._errors_before_last = 0
        self._at = self.time_map.origin_pts  # where on the settled clock decoding is: the last frame's pts
        self._sar = Fraction(1)  # of the last decoded frame
        self._sars: list[tuple[int, Fraction]] = []  # each with the settled pts from which on it is so
        self._untaken = UNSPECIFIED  # the last frame's matrix, where it was one that is not taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    @property
    def position(self) -> object:
        """Changes with every frame decoded, those left out too, and every error; for any thread."""
        return self._at, self.damage.met

    def wake(self) -> None:
        """Nothing makes a decoder of this process come back; see `SandboxedReader.wake`."""

    def __iter__(self) -> Iterator[av.VideoFrame]:
        limit = self.time_map.limit_pts  # no limit where nothing cuts: more frames may come than the index saw packets
        frames = changes_of(self._from_first_pts(), self.damage.changes, self._sar_at)
        if limit is not None:
            frames = itertools.takewhile(lambda frame: _pts(frame) < limit, frames)
        return itertools.islice(frames, self._frames)

    def _from_first_pts(self) -> Iterator[av.VideoFrame]:
        """Frames from the first wanted one on: by a seek where that is shorter, and safe."""
        first = self._first_pts
        if self.time_map.seekable and (first - self.time_map.origin_pts) * self.time_map.time_base > 2 * PREROLL_S:
            frames = self._made(self._open(first))
            # A seek can land late (TS, AVI): unless a frame before the first wanted one came, decode from the start.
            head = next(frames, None)
            if head is not None and _pts(head) < first:
                yield from (frame for frame in itertools.chain([head], frames) if _pts(frame) >= first)
                return
            self.close()
            self.damage.forget()  # what was met on the way is met again
            self._sars.clear()
            self._at = self.time_map.origin_pts
        yield from (frame for frame in self._made(self._open()) if _pts(frame) >= first)

    def _open(self, seek_to: int | None = None) -> Iterator[av.VideoFrame]:
        self._container = open_source(self.source, ignore_edits=self.info.ignore_edits)
        stream = video_stream(self._container, self.source)
        if seek_to is None:
            packets: Iterator[Packet[VideoStream]] | None = self._container.demux(stream)
        else:
            source = self._source_map
            begin = self._to.source(seek_to) - int(PREROLL_S / source.time_base)
            self._at = self._to.settled(source.keyframe_before(begin))
            packets = packets_from_keyframe(self._container, stream, source, begin)
        if packets is None:  # everything before is decoded too
            self.close()
            self._at = self.time_map.origin_pts
            return self._open()
        return itertools.chain(self._decoded(stream, packets), self._end_anew())

    def _end_anew(self) -> Iterator[av.VideoFrame]:
        """The frames after the last one that came, where the index knows of more: decoded once more, by one thread.

        With several, FFmpeg 9 can lose the frames it still holds at the end of the file, with a broken packet's error, and say nothing.
        """
        source, last = self._source_map, self._last_pts
        if last is None or last >= source.last_pts or not source.seekable:
            return
        known = self.damage.met > self._errors_before_last
        with open_source(self.source, ignore_edits=self.info.ignore_edits) as container:
            stream = video_stream(container, self.source)
            packets = packets_from_keyframe(container, stream, source, last)
            if packets is None:  # a damaged index: what lies behind the last frame is lost
                self.damage.add(self._at, "looking for the end", "no keyframe can be found")
                return
            for frame in self._decoded(stream, packets, threads=1, count_errors=not known):
                if frame.pts is not None and frame.pts > source.raw_pts(last):
                    yield frame

    def _decoded(
        self, stream: VideoStream, packets: Iterator[Packet[VideoStream]], *, threads: int = 0, count_errors: bool = True
    ) -> Iterator[av.VideoFrame]:
        latest: int | None = None  # pts of all packets so far: with threads, an error can be that of an earlier one

        def note(where: str, error: av.FFmpegError) -> None:
            if count_errors:
                self.damage.add(self._bears_on(latest), where, error.strerror)

        with decoding(stream, threads, self.info.said) as decoder:
            for packet in fed(_readable(packets, note)):
                pts = None if packet is None else told(packet.pts)
                latest = pts if latest is None or (pts is not None and pts > latest) else latest
                try:
                    for frame in decoder.decode(packet):
                        self._sar = decoder.sar
                        yield frame
                except MemoryError:  # FFmpeg's is one of its errors too, but says nothing about the packet
                    raise
                except av.FFmpegError as error:
                    note(f"packet at pts {pts}", error)

    def _bears_on(self, raw_pts: int | None) -> int:
        """The settled pts that an error is put at: where decoding is, or the beginning of a part whose frames it can still show in.

        It can from the keyframe on that the part's first frame needs. Where nobody knows the keyframes, it is near if a preroll would
        have it.
        """
        source = self._source_map
        if not self._begins_part or self._at >= self._first_pts:
            return self._at
        if raw_pts is None or not source.seekable:
            near = (self._first_pts - self._at) * self.time_map.time_base <= PREROLL_S
        else:
            near = raw_pts >= source.raw_pts(source.keyframe_before(self._to.source(self._first_pts)))
        return self._first_pts if near else self._at

    def _made(self, decoded: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """The frames of `time_map`, made from decoded ones."""
        for frame in deinterlaced(self._settled(decoded), self._interlace, self._source_map):
            if frame.pts is not None and self._to.moved:
                frame.pts += self._to.moved  # fields count in the map's half ticks already
            yield frame

    def _settled(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Frames on the source's settled clock; once there was an error, the last good one stands in at every time that lost its own."""
        clock = self._source_map.clock()
        last: av.VideoFrame | None = None
        last_pts = 0  # the frame's own is moved once it has been handed on
        for raw in frames:
            frame = native_frame(raw)
            frame.pts = pts = clock.settle(raw.pts, raw.dts)
            frame.time_base = self._source_map.time_base
            self._at = self._to.settled(pts)
            self._last_pts, self._errors_before_last = pts, self.damage.met
            if clock.backward and self._at >= self._first_pts and _BACKWARD not in self.damage.changes:
                self.damage.changes.append(_BACKWARD)
            self._take_matrix(frame)
            if not self._sars or self._sars[-1][1] != self._sar:
                self._sars.append((self._at, self._sar))
            if raw.is_corrupt:
                self.damage.add(self._bears_on(told(raw.pts)), f"frame at pts {raw.pts}", "decoded with errors")
            if last is not None:
                yield from self._stand_ins(last, last_pts, pts)
            yield frame
            last, last_pts = frame, pts
        if last is not None:
            yield from self._stand_ins(last, last_pts, self._source_map.end_pts)

    def _sar_at(self, pts: int) -> Fraction:
        """The shape of the pixels of the frame at a settled pts; by then it can be another's that is decoded."""
        return self._sars[max(0, bisect_right(self._sars, pts, key=itemgetter(0)) - 1)][1]

    def _take_matrix(self, frame: av.VideoFrame) -> None:
        """Have a frame whose matrix cannot be computed with read as the stream is.

        A stream of such frames is refused when its job is planned; in its middle they are a damaged header's, and no end of the job.
        """
        matrix = int(frame.colorspace)
        if matrix not in UNTAKEN or self.info.color.matrix in UNTAKEN or self.info.planes.family != "yuv":
            self._untaken = UNSPECIFIED
            return
        if matrix != self._untaken:
            self._untaken = matrix
            self.damage.add(self._at, "colour", f"the matrix {UNTAKEN[matrix]} ({matrix}) is not taken; read as before it")
        frame.colorspace = self.info.color.matrix

    def _stand_ins(self, last: av.VideoFrame, last_pts: int, end_pts: int) -> Iterator[av.VideoFrame]:
        if not self.damage.met:
            return
        times = self._source_map.times
        for pts in times[bisect_right(times, last_pts) : bisect_left(times, end_pts)]:
            self.damage.stood_in(self._to.settled(pts))
            yield repeated_frame(last, pts)


def _readable(packets: Iterator[Packet[VideoStream]], note: Callable[[str, av.FFmpegError], None]) -> Iterator[Packet[VideoStream]]:
    """Packets up to the first that cannot be read: of a packet too large for any memory (a damaged table names such) FFmpeg says so."""
    try:
        yield from packets
    except av.FFmpegError as error:
        note("reading packets", error)


def _pts(frame: av.VideoFrame) -> int:
    assert frame.pts is not None
    return frame.pts


def repeated_frame(frame: av.VideoFrame, pts: int) -> av.VideoFrame:
    """A copy of a native frame at another time, interlaced where the frame is."""
    copy = copied_frame(frame)
    copy.pts = pts
    return copy
