"""Cut out of a source what one segment needs, to send it to a machine that does not see the file."""

from __future__ import annotations

import contextlib
import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

import av
from av.packet import Packet
from av.video.stream import VideoStream

from a2n_video.io.reader import PREROLL_S, SourceClock
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.index import TimeMap
from a2n_video.media.info import VideoInfo
from a2n_video.media.interlace import CYCLE, Mode

# Matroska keeps the alpha that VP8 and VP9 carry beside the picture, and milliseconds; nut keeps ticks as they are counted, but makes
# the tick of its own where it is longer than 1/48000 s. So it is told a short one: only the counts matter, the TimeMap has the tick.
_KEEPERS: Final = {"matroska": "matroska"}
_EXACT: Final = "nut"
_SHORT_TICK: Final = Fraction(1, 90_000)
# Frames of the source that are looked at after the last one of a segment: a filter that weaves asks for the next one, of whose packets
# one may show nothing; fieldmatch and bwdif one each, for the whole cycle of which one frame is left out.
_AHEAD: Final[dict[Mode, int]] = {"off": 0, "ivtc": CYCLE + 2}
_AHEAD_WOVEN: Final = 2


def needed_of_source(
    time_map: TimeMap, source_map: TimeMap, mode: Mode, start_pts: int | None, end_pts: int | None
) -> tuple[int | None, int | None]:
    """[start, end) on the source's clock that make the frames with start_pts <= settled pts < end_pts on the result's; None is open.

    What --start, --end and --frames cut off is not needed, but for the frames that are looked at ahead; `cut_source` adds the preroll.
    """
    clock = SourceClock.of(time_map, source_map)
    start = start_pts if start_pts is not None or time_map.begin_pts is None else time_map.first_pts
    end = time_map.limit_pts if end_pts is None else end_pts
    return None if start is None else clock.source(start), None if end is None else _ahead(source_map, clock, mode, end)


def _ahead(source_map: TimeMap, clock: SourceClock, mode: Mode, end_pts: int) -> int | None:
    """Where on the source's clock the frames end that those before `end_pts` are made from; None: with the file."""
    end = clock.source(end_pts + clock.factor - 1)  # rounded up: a second field lies between two frames of the source
    place = bisect_left(source_map.times, end) + _AHEAD.get(mode, _AHEAD_WOVEN)
    return source_map.times[place] if place < source_map.frames else None


def cut_source(path: Path, info: VideoInfo, source_map: TimeMap, start_pts: int | None, end_pts: int | None) -> bytes:
    """The packets from which every frame with start_pts <= settled pts < end_pts can be decoded, as a small file; None is open.

    All on the source's own clock (`needed_of_source`). Times are the source's own counts of ticks, so that the whole file's TimeMap holds
    for it. Where a source cannot be cut safely (no usable times, clocks that restart, a codec or a tick that no container keeps), its
    bytes come whole.
    """
    if source_map.seekable and (start_pts is not None or end_pts is not None):
        try:
            return _cut(path, info, source_map, start_pts, end_pts)
        except (av.FFmpegError, ValueError):
            pass
    return path.read_bytes()


def _cut(path: Path, info: VideoInfo, source_map: TimeMap, start_pts: int | None, end_pts: int | None) -> bytes:
    buffer = io.BytesIO()
    muxer = next((name for part, name in _KEEPERS.items() if part in info.container), _EXACT)
    with contextlib.ExitStack() as opened:
        stream, packets = _begun(path, info, _targets(source_map, start_pts), opened)
        last = None if end_pts is None else source_map.raw_pts(end_pts)
        with av.open(buffer, "w", format=muxer, container_options={"avoid_negative_ts": "disabled"}) as output:
            target: Any = output.add_stream_from_template(stream, opaque=True)
            tick = _SHORT_TICK if muxer == _EXACT else Fraction(stream.time_base.numerator, stream.time_base.denominator)
            target.time_base = tick
            target.metadata.update(stream.metadata)
            counts = []
            for packet in _until(packets, last):
                packet.stream, packet.time_base = target, tick
                counts.append(packet.pts)
                output.mux(packet)
    if _pts(buffer) != counts:
        raise ValueError("the cut does not keep the source's ticks")
    return buffer.getvalue()


def _begun(
    path: Path, info: VideoInfo, targets: Sequence[tuple[int, int]], opened: contextlib.ExitStack
) -> tuple[VideoStream, Iterator[Packet[Any]]]:
    """The video with its packets from a keyframe on that a seek to the first of the `targets` finds, else from the file's beginning on.

    TS seeks by decode time, and where frames are reordered lands behind the keyframe that is asked for: then the one before that is.
    """
    for target, first in (*targets, (None, 0)):
        source = opened.enter_context(open_source(path, ignore_edits=info.ignore_edits))
        stream = video_stream(source, path)
        if target is not None:
            source.seek(target, stream=stream, backward=True)
        packets = source.demux(stream)
        head = [] if target is None else _to_keyframe(packets, first)
        if target is None or (head and head[-1].is_keyframe and head[-1].pts is not None and head[-1].pts <= first):
            break
    return stream, chain(head, packets)


def _targets(source_map: TimeMap, start_pts: int | None) -> list[tuple[int, int]]:
    """Raw pts to seek to, and of the keyframe to be found by that, a preroll before `start_pts`; none for the beginning."""
    if start_pts is None or not source_map.keyframes:
        return []
    wanted = source_map.keyframe_before(start_pts - int(PREROLL_S / source_map.time_base))
    if wanted <= source_map.keyframes[0]:
        return []
    first = source_map.raw_pts(wanted)
    return [(first, first), (source_map.raw_pts(source_map.keyframe_before(wanted - 1)), first)]


def _to_keyframe(packets: Iterator[Packet[Any]], first: int) -> list[Packet[Any]]:
    """The packets up to the next keyframe, or to one that is decoded after `first`."""
    head: list[Packet[Any]] = []
    for packet in packets:
        head.append(packet)
        if packet.is_keyframe or (packet.dts is not None and packet.dts > first):
            break
    return head


def _pts(file: io.BytesIO) -> list[int | None]:
    """The pts of a cut's packets, as whoever receives it will read them."""
    file.seek(0)
    with av.open(file, "r") as cut:
        return [packet.pts for packet in cut.demux(video=0) if packet.size]


def _until(packets: Iterator[Packet[Any]], last: int | None) -> Iterator[Packet[Any]]:
    """Packets in decode order up to the first whose dts is at `last`: none after it can be shown before."""
    for packet in _with_dts(packets):
        assert packet.dts is not None
        if last is not None and packet.dts >= last:
            return
        yield packet


def _with_dts(packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    """Packets with decode times; the first ones of Matroska have none where frames are reordered, and get ticks just before the next."""
    head: list[Packet[Any]] = []
    known = False
    for packet in packets:
        if not packet.size:
            continue
        if packet.dts is None:
            if known:
                raise ValueError("packets without decode times cannot be cut")
            head.append(packet)
            continue
        for place, early in enumerate(head):
            early.dts = packet.dts - len(head) + place
        yield from head
        head, known = [], True
        yield packet
    if head:
        raise ValueError("packets without decode times cannot be cut")
