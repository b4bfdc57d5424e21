"""One pass over a file's packets, without decoding: when every stream runs, and every packet of the video."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer

from a2n_video.io.probe import fraction
from a2n_video.io.source import open_source
from a2n_video.io.whole import complaints
from a2n_video.media.index import LEAD_IN, PacketTime, RunTracker, ScanResult, StreamTimes
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.timemap import told

_TS_DISCONT: Final = 0x0200  # AVFMT_TS_DISCONT: the format's clocks may jump
# QuickTime counts samples, so its clock cannot restart; edits are FFmpeg's affair, and its decode times then need not rise.
_ONE_CLOCK: Final = frozenset({"mov"})
# AVI stores no presentation times: FFmpeg's are the packets in file order.
_WITHOUT_PTS: Final = frozenset({"avi"})

_NO_EDITS: Final = "the source's edit list shows no frame at all; it is left aside, and what the file holds is taken"


def scan(path: Path | str, info: VideoInfo, *, fps: Fraction | None = None, lead_in: Fraction = LEAD_IN) -> ScanResult:
    """Demux the whole file once. A damaged file is scanned as far as it goes, and `error` says what was wrong with it.

    `fps` is the rate to believe where the file has no times; `lead_in` how far (seconds) audio may begin before zero in the result.
    """
    with open_source(path, ignore_edits=info.ignore_edits) as container:
        names = set(container.format.name.split(","))
        leaps = bool(container.format.flags & _TS_DISCONT)
        bases = {stream.index: fraction(stream.time_base) or info.time_base for stream in container.streams}
        kinds = {stream.index: stream.type for stream in container.streams}
        trackers = {index: RunTracker(base, leaps=leaps, restarts=not names & _ONE_CLOCK) for index, base in bases.items()}
        packets: dict[int, list[PacketTime]] = {
            stream.index: [] for stream in info.streams if stream.kind == "video" and not stream.is_cover
        }
        packets[info.video_index] = []
        error: str | None = None
        with complaints(container) as passed_over:
            try:
                _read(container, info.video, trackers, packets)
            except av.FFmpegError as caught:
                error = str(caught)
    if passed_over and error is None:
        error = f"damaged: {passed_over[0]} ({len(passed_over)} such places)"
    streams = {
        index: StreamTimes(
            index=index,
            kind=kinds[index],
            time_base=bases[index],
            packets=tracker.packets,
            runs=tracker.runs(),
            hidden_start=tracker.hidden_start,
            shown_start=tracker.shown_start,
        )
        for index, tracker in trackers.items()
    }
    return ScanResult(
        video_index=info.video_index,
        time_base=bases[info.video_index],
        rate=info.frame_rate,
        packets=tuple(packets[info.video_index]),
        streams=streams,
        other_videos={index: tuple(found) for index, found in packets.items() if index != info.video_index},
        pts_trusted=not names & _WITHOUT_PTS,
        any_origin=leaps,
        fps=fps,
        lead_in=lead_in,
        notes=(_NO_EDITS,) if info.ignore_edits else (),
        error=error,
    )


def _read(container: InputContainer, video: StreamInfo, trackers: dict[int, RunTracker], packets: dict[int, list[PacketTime]]) -> None:
    position: int | None = None
    shows = _SHOWS.get(video.codec)
    for packet in container.demux():
        if not packet.size:
            continue
        # A packet cut by a parser out of a larger one has no place of its own: it lies where the last one lay.
        position = packet.pos if packet.pos is not None else position
        index, duration = packet.stream_index, packet.duration or 0
        pts, dts = told(packet.pts), told(packet.dts)
        if index != video.index:
            trackers[index].add(pts, dts, duration, position, hidden=packet.is_discard)
            if index in packets:
                packets[index].append(PacketTime(pts, dts, duration, packet.is_keyframe, packet.pos, packet.is_discard))
            continue
        hidden = packet.is_discard or (shows is not None and not shows(memoryview(packet)))
        if not hidden:
            trackers[index].add(pts, dts, duration, position)
        packets[index].append(PacketTime(pts, dts, duration, packet.is_keyframe, position, hidden))


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
