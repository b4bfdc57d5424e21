"""Finished segments as one run of video packets: joined without re-encoding, every pts exact, dts made anew.

Each segment is a closed file of one encoder's video: closed GOPs and absolute pts, so that any may follow any. Their own dts do not fit
together (an encoder starts each file below its first pts); dts[n] = sorted(pts)[n - depth] does, where depth is the deepest reordering.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from a2n_video.errors import EncodeError

# Codecs that nut has no tag for: mov keeps their time bases exact as well.
_NOT_IN_NUT: Final = frozenset({"prores_ks", "prores", "prores_aw", "dnxhd", "cfhd", "qtrle", "rpza"})


def segment_container(codec: str, *, alpha: bool = False) -> str:
    """FFmpeg's muxer for segments of an encoder: nut, which keeps exact time bases, mov where nut has no tag for the codec.

    VP8 and VP9 carry alpha beside the picture, which only Matroska stores; it rounds to 1 ms, as the final WebM or MKV does.
    """
    if codec in _NOT_IN_NUT:
        return "mov"
    return "matroska" if alpha and codec.startswith("libvpx") else "nut"


@dataclass(frozen=True, kw_only=True)
class SegmentScan:
    """What a segment holds: every pts in presentation order (units of `time_base`), the depth of its reordering, its decoder header.

    `tick` is that of its container: where no whole number of ticks makes a unit, times are rounded to it.
    """

    path: Path
    time_base: Fraction
    tick: Fraction
    pts: array[int]
    depth: int
    header: bytes

    def has(self, place: int, pts: int | None) -> bool:
        """Whether the frame at a place has this pts, as exactly as the container can say it."""
        allowed = 0 if (self.time_base / self.tick).denominator == 1 else self.tick / self.time_base
        return pts is not None and abs(self.pts[place] - pts) <= allowed


def open_segment(path: Path) -> tuple[InputContainer, VideoStream]:
    """A segment opened for demuxing; the caller closes it. EncodeError where it is no segment."""
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file", "format_whitelist": "nut,mov,matroska,webm"})
        return container, container.streams.video[0]
    except (av.FFmpegError, IndexError) as error:
        raise EncodeError(f"{path}: not a segment that can be read ({error}); run again with --restart") from error


def header_sha256(path: Path) -> str:
    """A segment's decoder header, by its digest; only those of one header can be joined. EncodeError where it is no segment."""
    container, stream = open_segment(path)
    with container:
        return sha256(stream.codec_context.extradata or b"").hexdigest()


def scan_segment(path: Path, time_base: Fraction) -> SegmentScan:
    """Read every packet's pts, in units of `time_base`. EncodeError where it is damaged or its times do not fit `time_base`."""
    container, stream = open_segment(path)
    with container:
        decoded = array("q", (_ticks(packet, time_base) for packet in video_packets(container, stream)))
        header = bytes(stream.codec_context.extradata or b"")
        tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
    pts = array("q", sorted(decoded))
    if any(a == b for a, b in pairwise(pts)):
        raise EncodeError(f"{path}: two frames at the same time; run again with --restart")
    depth = max((n - bisect_right(pts, time) + 1 for n, time in enumerate(decoded)), default=0)
    return SegmentScan(path=path, time_base=time_base, tick=tick, pts=pts, depth=depth, header=header)


def video_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """A segment's packets in decoding order, without the empty one that ends a demux."""
    return (packet for packet in container.demux(stream) if packet.size and packet.pts is not None)


def check_joinable(scans: Sequence[SegmentScan]) -> None:
    """EncodeError unless the segments have one decoder header and follow each other in time."""
    for before, after in pairwise(scans):
        if before.header != after.header:
            raise EncodeError(
                f"{after.path}: its decoder header differs from {before.path.name}'s, they cannot be joined; run again with --restart"
            )
        if before.pts and after.pts and after.pts[0] <= before.pts[-1]:
            raise EncodeError(f"{after.path}: begins before {before.path.name} ends; run again with --restart")


@dataclass(frozen=True, kw_only=True)
class _Order:
    """The decode times of joined packets, from all pts (`times`), the deepest reordering, and where the last frame ends.

    By decoding a track lasts `end` - `lead` - the first dts: what MP4 and QuickTime tell. The first frames' dts lie so close before
    the first pts that the last packet has time left.
    """

    times: array[int]
    depth: int
    end: int

    @property
    def step(self) -> int:
        """From one dts before the first pts to the next."""
        first = self.times[1] - self.times[0] if len(self.times) > 1 else 1
        return max(1, min(first, (self.end - self.times[-1 - self.depth]) // (self.depth + 1)))

    def dts(self, number: int) -> int:
        """Of the packet that is decoded as the `number`-th."""
        early = self.depth - number
        return self.times[-early] if early <= 0 else self.times[0] - early * self.step

    def close(self, packet: Packet[VideoStream]) -> None:
        """Give the packet decoded last the times by which a track ends when its last frame does, and no frame lies beyond."""
        assert packet.pts is not None and packet.dts is not None
        lead = self.depth * self.step
        packet.dts = max(packet.dts, packet.pts - lead)
        packet.duration = max(1, self.end - lead - packet.dts)


def joined_packets(
    scans: Sequence[SegmentScan], last_duration: int | None = None, *, ends_by_dts: bool = False
) -> Iterator[Packet[VideoStream]]:
    """All packets in decoding order, pts, dts and duration in the scans' time base; the last frame lasts `last_duration` where given.

    `ends_by_dts`: the container's track ends with the packet decoded last, which then gets what is left, and not its own duration.
    Memory: eight bytes a frame. One segment is open at a time, until the iterator goes on to the next.
    """
    check_joinable(scans)
    times = array("q", (time for scan in scans for time in scan.pts))
    last = last_duration or (times[-1] - times[-2] if len(times) > 1 else 0)
    order = _Order(times=times, depth=max((scan.depth for scan in scans), default=0), end=times[-1] + last if times else 0)
    number = 0
    for scan in scans:
        container, stream = open_segment(scan.path)
        with container:
            for packet in video_packets(container, stream):
                pts = _ticks(packet, scan.time_base)
                packet.time_base = scan.time_base
                packet.pts, packet.dts = pts, order.dts(number)
                packet.duration = _duration(order, pts)
                number += 1
                if ends_by_dts and number == len(times):
                    order.close(packet)
                yield packet
    if number != len(times):
        raise EncodeError(f"the segments held {len(times)} frames and now give {number}: something else writes to {scans[0].path.parent}")


def _duration(order: _Order, pts: int) -> int:
    after = bisect_right(order.times, pts)
    return (order.times[after] if after < len(order.times) else order.end) - pts


def _ticks(packet: Packet[VideoStream], time_base: Fraction) -> int:
    """A packet's pts in another time base: exact for nut and mov, the nearest for Matroska's milliseconds."""
    assert packet.pts is not None
    return round(packet.pts * Fraction(packet.time_base.numerator, packet.time_base.denominator) / time_base)
