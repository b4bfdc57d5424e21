"""Whether what a file gives as presentation times are decode times, as some muxers write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer

from a2n_video.io.decoding import decoding, fed
from a2n_video.io.source import open_source
from a2n_video.media.index import PacketTime
from a2n_video.media.info import VideoInfo
from a2n_video.media.timemap import told

_LOOK_AT: Final = 40  # packets: those of a few groups between two pictures that none reorders


def says_decode_times(path: Path | str, info: VideoInfo, packets: Sequence[PacketTime]) -> bool:
    """Whether a video's packets rise in file order, as decode times do, and the frames that they give do not.

    So it is in MP4s that were made from AVI without decoding, and in some MXF and FLV. Only the first packets are decoded, and none where
    the codec reorders none.
    """
    times = [packet.pts for packet in packets if not packet.hidden]
    if not all(a is not None and b is not None and a < b for a, b in pairwise(times)):
        return False
    with open_source(path, ignore_edits=info.ignore_edits) as container, suppress(av.FFmpegError):
        stream: Any = container.streams[info.video_index]
        if stream.codec_context.has_b_frames:
            return any(b < a for a, b in pairwise(_shown_times(container, stream)))
    return False


def _shown_times(container: InputContainer, stream: Any) -> Iterator[int]:
    with decoding(stream) as decoder:
        for packet in fed(islice(container.demux(stream), _LOOK_AT)):
            with suppress(av.FFmpegError):  # the reader counts damage
                yield from (time for frame in decoder.decode(packet) if (time := told(frame.pts)) is not None)
