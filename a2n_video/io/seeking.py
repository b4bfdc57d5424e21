"""Begin in the middle of a file, at a keyframe from which everything after it can be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from a2n_video.media.index import TimeMap

# Seconds before the keyframe, tried in turn.
_EARLIER_S: Final = (0, 1, 4, 16)


def packets_from_keyframe(
    container: InputContainer, stream: VideoStream, source_map: TimeMap, settled: int
) -> Iterator[Packet[VideoStream]] | None:
    """The video's packets from a keyframe at or before a settled pts on, None where no seek leads to one. Of a `seekable` source only.

    The container is newly opened; after None it stands anywhere. FFmpeg seeks by decode time in transport streams, and takes every packet
    for a keyframe there: asked for a keyframe's pts, it comes to a packet after it.
    """
    keyframe = source_map.keyframe_before(settled)
    if not source_map.keyframes or keyframe <= source_map.keyframes[0]:
        return container.demux(stream)
    wanted = source_map.raw_pts(keyframe)
    for seconds in _EARLIER_S:
        try:
            container.seek(wanted - int(seconds / source_map.time_base), stream=stream, backward=True)
            packets = container.demux(stream)
            first = next((packet for packet in packets if packet.is_keyframe and packet.size), None)
        except av.FFmpegError:  # a damaged index, or nothing there that can be read
            return None
        if first is not None and first.pts is not None and first.pts <= wanted:
            return chain([first], packets)
    return None
