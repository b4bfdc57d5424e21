"""One pass over a file's packets, without decoding: when every stream runs, and every packet of the video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer
from av.packet import Packet

from a2n_video.frames import fraction
from a2n_video.io.order import says_decode_times
from a2n_video.io.positions import Positions
from a2n_video.io.source import open_source
from a2n_video.io.whole import complaints
from a2n_video.media.h264 import FieldPairs
from a2n_video.media.index import LEAD_IN, PacketTime, RunTracker, ScanResult, StreamTimes, hide_head
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.samples import CourseTracker, RawSound
from a2n_video.media.timemap import told

_TS_DISCONT: Final = 0x0200  # AVFMT_TS_DISCONT: the format's clocks may jump
# QuickTime counts samples, so its clock cannot restart; edits are FFmpeg's affair, and its decode times then need not rise.
_ONE_CLOCK: Final = frozenset({"mov"})
# AVI stores no presentation times: FFmpeg's are the packets in file order.
_WITHOUT_PTS: Final = frozenset({"avi"})
_FRAME_SIZES: Final = {"ac3": 1536}  # samples a packet, where FFmpeg does not say
_NO_EDITS: Final = "the source's edit list shows no frame at all; it is left aside, and what the file holds is taken"
_DECODE_TIMES: Final = "the source says when its frames are decoded, not when they are shown: they are given these times in turn"


def scan(path: Path | str, info: VideoInfo, *, fps: Fraction | None = None, lead_in: Fraction = LEAD_IN) -> ScanResult:
    """Demux the whole file once. A damaged file is scanned as far as it goes, and `error` says what was wrong with it.

    `fps` is the rate to believe where the file has no times; `lead_in` how far (seconds) audio may begin before zero in the result.
    """
    with open_source(path, ignore_edits=info.ignore_edits) as container:
        names = set(container.format.name.split(","))
        leaps = bool(container.format.flags & _TS_DISCONT)
        bases = {stream.index: fraction(stream.time_base) or info.time_base for stream in container.streams}
        kinds = {stream.index: stream.type for stream in container.streams}
        runs = {index: RunTracker(base, leaps=leaps, restarts=not names & _ONE_CLOCK) for index, base in bases.items()}
        courses = {s.index: _course(s, _frame_size(container.streams[s.index])) for s in info.streams if s.kind == "audio"}
        trackers = {index: _Tracker(tracker, courses.get(index)) for index, tracker in runs.items()}
        packets, error = _demuxed(container, info, trackers)
    pts_trusted = not names & _WITHOUT_PTS
    video = hide_head(packets.pop(info.video_index), info.first_pts if pts_trusted else None)
    decode_times = pts_trusted and says_decode_times(path, info, video)
    if decode_times:  # what FFmpeg makes of them as decode times goes back and forth
        video = [packet._replace(dts=packet.pts) for packet in video]
    for packet in video:
        if not packet.hidden:
            runs[info.video_index].add(packet.pts, packet.dts, packet.duration, packet.position)
    return ScanResult(
        video_index=info.video_index,
        time_base=bases[info.video_index],
        rate=info.frame_rate,
        packets=tuple(video),
        streams={index: tracker.times(index, kinds[index], bases[index]) for index, tracker in trackers.items()},
        other_videos={index: tuple(found) for index, found in packets.items()},
        pts_trusted=pts_trusted,
        decode_times=decode_times,
        any_origin=leaps,
        ends_by_dts=bool(names & _ONE_CLOCK),
        fps=fps,
        lead_in=lead_in,
        notes=tuple(note for note, due in ((_NO_EDITS, info.ignore_edits), (_DECODE_TIMES, decode_times)) if due),
        error=error,
    )


@dataclass(frozen=True)
class _Tracker:
    """Is told a stream's packets in file order: what they make of its runs and, of sound, its course."""

    runs: RunTracker
    course: CourseTracker | None

    def add(self, packet: Packet[Any], position: int | None) -> None:
        pts, dts, duration = told(packet.pts), told(packet.dts), packet.duration or 0
        self.runs.add(pts, dts, duration, position, hidden=packet.is_discard)
        if self.course is not None and not packet.is_discard:
            self.course.add(dts if pts is None else pts, duration, packet.size, position)

    def times(self, index: int, kind: str, time_base: Fraction) -> StreamTimes:
        runs = self.runs
        return StreamTimes(
            index=index,
            kind=kind,
            time_base=time_base,
            packets=runs.packets,
            runs=runs.runs(),
            hidden_start=runs.hidden_start,
            shown_start=runs.shown_start,
            pieced=runs.pieced,
            course=None if self.course is None else self.course.course(),
        )


def _frame_size(stream: Any) -> int:
    return getattr(stream.codec_context, "frame_size", 0)


def _course(stream: StreamInfo, frame_size: int) -> CourseTracker:
    raw = RawSound.of(stream.codec, stream.channels, stream.sample_rate)
    size = frame_size or _FRAME_SIZES.get(stream.codec, 0)
    return CourseTracker(stream.time_base, stream.sample_rate, raw=raw, frame_size=size)


def _demuxed(
    container: InputContainer, info: VideoInfo, trackers: Mapping[int, _Tracker]
) -> tuple[dict[int, list[PacketTime]], str | None]:
    """The packets of every video in file order, and what is wrong with the file. `trackers` are told those of all other streams."""
    packets: dict[int, list[PacketTime]] = {stream.index: [] for stream in info.streams if stream.kind == "video" and not stream.is_cover}
    packets[info.video_index] = []
    with complaints(container) as passed_over:
        try:
            _read(container, info.video, trackers, packets)
        except av.FFmpegError as caught:
            return packets, str(caught)
    return packets, f"damaged: {passed_over[0]} ({len(passed_over)} such places)" if passed_over else None


def _read(container: InputContainer, video: StreamInfo, trackers: Mapping[int, _Tracker], packets: dict[int, list[PacketTime]]) -> None:
    positions = Positions()
    shows, second_field = _SHOWS.get(video.codec), _second_fields(container, video)
    for packet in container.demux():
        if not packet.size:
            continue
        index, duration, position = packet.stream_index, packet.duration or 0, positions.of(packet)
        pts, dts = told(packet.pts), told(packet.dts)
        if index != video.index:
            trackers[index].add(packet, position)
            if index in packets:
                packets[index].append(PacketTime(pts, dts, duration, packet.is_keyframe, position, packet.is_discard))
            continue
        hidden = packet.is_discard or (shows is not None and not shows(memoryview(packet)))
        if second_field(packet):
            hidden = True
            packets[index][-1:] = [first._replace(duration=first.duration + duration) for first in packets[index][-1:]]
        packets[index].append(PacketTime(pts, dts, duration, packet.is_keyframe, position, hidden))


def _second_fields(container: InputContainer, video: StreamInfo) -> Callable[[Packet[Any]], bool]:
    """Whether a packet holds only the second field of the frame that the packet before it began (H.264, as 1080i is broadcast)."""
    if video.codec != "h264":
        return lambda packet: False
    pairs = FieldPairs(bytes(container.streams[video.index].codec_context.extradata or b""))
    if not pairs.possible:
        return lambda packet: False
    return lambda packet: not pairs.begins_frame(bytes(packet))


def _vp8_shows(data: memoryview) -> bool:
    """The show_frame bit of a VP8 frame tag (RFC 6386, 9.1)."""
    return bool(data[0] & 0x10)


def _vp9_shows(data: memoryview) -> bool:
    """Whether a VP9 packet shows a frame: a superframe does (its last byte is a marker), else the uncompressed header's bit says."""
    if data[-1] & 0xE0 == 0xC0:
        return True
    bits = data[0] << 8 | (data[1] if len(data) > 1 else 0)
    profile = (bits >> 13 & 1) | (bits >> 12 & 1) << 1
    after = bits << (5 if profile == 3 else 4)
    shows_existing, show_frame = after >> 15 & 1, after >> 13 & 1
    return bool(shows_existing or show_frame)


_SHOWS: Final[dict[str, Callable[[memoryview], bool]]] = {"vp8": _vp8_shows, "vp9": _vp9_shows}
