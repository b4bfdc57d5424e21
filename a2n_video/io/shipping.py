"""Cut out of a source what one segment needs, to send it to a machine that does not see the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.packet import Packet

from a2n_video.io.reader import PREROLL_S
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.index import TimeMap
from a2n_video.media.info import VideoInfo

# Muxers that keep the source's time base exactly. Matroska also keeps the alpha that VP8 and VP9 carry beside the picture.
_KEEPERS: Final = {"matroska": "matroska"}
_EXACT: Final = "nut"


def cut_source(path: Path, info: VideoInfo, source_map: TimeMap, start_pts: int | None, end_pts: int | None) -> bytes:
    """The packets from which every frame with start_pts <= settled pts < end_pts can be decoded, as a small file; None is open.

    Times stay the source's own, so that the whole file's TimeMap holds for it. Where a source cannot be cut safely (no usable times,
    clocks that restart, a codec no exact container holds), its bytes come whole.
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
    with open_source(path) as source:
        stream = video_stream(source, path)
        if start_pts is not None:
            preroll = int(PREROLL_S / source_map.time_base)
            first = source_map.raw_pts(source_map.keyframe_before(start_pts - preroll))
            source.seek(first, stream=stream, backward=True)
        last = None if end_pts is None else source_map.raw_pts(end_pts)
        with av.open(buffer, "w", format=muxer, container_options={"avoid_negative_ts": "disabled"}) as output:
            target: Any = output.add_stream_from_template(stream, opaque=True)
            target.time_base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            target.metadata.update(stream.metadata)
            for packet in _until(source.demux(stream), last):
                packet.stream = target
                output.mux(packet)
    return buffer.getvalue()


def _until(packets: Iterator[Packet[Any]], last: int | None) -> Iterator[Packet[Any]]:
    """Packets in decode order up to the first whose dts is at `last`: none after it can be shown before."""
    for packet in packets:
        if not packet.size:
            continue
        if packet.dts is None:
            raise ValueError("packets without decode times cannot be cut")
        if last is not None and packet.dts >= last:
            return
        yield packet
