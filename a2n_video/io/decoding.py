"""How a source's packets become frames: which decoder, with how many threads, and what it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import av
from av.packet import Packet
from av.video.stream import VideoStream

from a2n_video.io.chunks import ycbcr_in_tiff
from a2n_video.media.colorspec import UNSPECIFIED

_FULL_RANGE_GRAY: Final = frozenset({"mjpeg", "jpegls", "jpeg2000", "tiff", "bmp"})
_GRAY: Final = ("gray", "ya", "mono")
_FULL, _LIMITED = av.video.reformatter.ColorRange.JPEG, av.video.reformatter.ColorRange.MPEG


def fed[P: Packet[Any]](packets: Iterable[P]) -> Iterator[P | None]:
    """What a decoder is given for packets in file order: those that hold something, then None, at which it gives the frames it still holds.

    An empty one in mid-stream would end it there, and all that follows would be an error: captures have such where a frame was dropped.
    """
    yield from (packet for packet in packets if packet.size)
    yield None


def frames_of(decoder: av.VideoCodecContext, packet: Packet[Any] | None) -> Iterator[av.VideoFrame]:
    """What a decoder gives for a packet, or for None; gray of JPEG and TIFF is marked as the full range that it is and they do not say.

    YCbCr of a TIFF is marked as its tags say. FFmpeg says a curve of gray TIFFs (2.2), which those do not: it is taken back.
    """
    name = decoder.codec.canonical_name
    for frame in decoder.decode(packet):
        if name in _FULL_RANGE_GRAY and frame.format.name.startswith(_GRAY):
            frame.color_range = frame.color_range or _FULL
            frame.color_trc = UNSPECIFIED if name == "tiff" else frame.color_trc
        elif name == "tiff" and frame.format.name.startswith("yuv"):
            frame.colorspace, full = ycbcr_in_tiff(b"" if packet is None else bytes(packet))
            frame.color_range = _FULL if full else _LIMITED
        yield frame


def open_decoder(stream: VideoStream, threads: int = 0) -> av.VideoCodecContext:
    """The stream's decoder, with as many threads as asked (0: FFmpeg's choice).

    VP8 and VP9 marked alpha_mode=1 are read by libvpx: FFmpeg's own decoders drop their alpha without a word.
    """
    context: Any = stream.codec_context
    library = {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(context.codec.canonical_name)
    metadata = {key.lower(): value for key, value in stream.metadata.items()}
    if library is not None and metadata.get("alpha_mode") == "1":
        context = av.VideoCodecContext.create(library, "r")
        context.extradata = stream.codec_context.extradata
        for tag in ("colorspace", "color_primaries", "color_trc", "color_range"):  # the container's, for what the bitstream leaves open
            setattr(context, tag, getattr(stream.codec_context, tag))
    context.thread_type = "SLICE" if context.codec.canonical_name == "tiff" else "AUTO"  # a frame comes with its packet, which says more
    context.thread_count = threads
    return context  # type: ignore[no-any-return]


@contextlib.contextmanager
def decoding(stream: VideoStream, threads: int = 0) -> Iterator[av.VideoCodecContext]:
    """`open_decoder`, whose threads are idle when the block ends.

    A decoder is freed by whoever holds the GIL, and waits for its threads: one with a message for Python's log would wait for the GIL.
    """
    decoder = open_decoder(stream, threads)
    try:
        yield decoder
    finally:
        decoder.flush_buffers()  # without the GIL
