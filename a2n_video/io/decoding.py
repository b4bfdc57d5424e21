"""How a source's packets become frames: which decoder, with how many threads, and what it is given."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, Literal

import av
from av.codec.context import Flags
from av.packet import Packet
from av.video.stream import VideoStream

from a2n_video.frames import color_of_frame, fraction, native_frame, tag_frame
from a2n_video.io.chunks import ycbcr_in_tiff
from a2n_video.io.graphs import alone_through, keeps_format
from a2n_video.media.colorspec import UNSPECIFIED, ColorSpec
from a2n_video.media.info import Said

_FULL_RANGE_GRAY: Final = frozenset({"mjpeg", "jpegls", "jpeg2000", "tiff", "bmp"})
_GRAY: Final = ("gray", "ya", "mono")
_SIDE: Final = 16
_CROP: Final = (("crop", "w=16:h=16:x=2:y=2:exact=1"),)  # for trying a format
# Codecs whose frames may not say that two fields are woven in them where their container does.
_UNMARKED: Final = frozenset({"mjpeg", "jpeg2000", "cfhd", "png", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "aic", "qtrle", "tiff"})
_IN_PASSES: Final = frozenset({"png", "apng"})  # whose frames say "interlaced" of a file that is stored in seven passes (Adam7)
# By AVFieldOrder: of two letters the first is the field that is shown first (QuickTime's "first line early" is TB).
_ORDERS: Final[dict[int, Literal["tff", "bff"]]] = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}


def fed[P: Packet[Any]](packets: Iterable[P]) -> Iterator[P | None]:
    """What a decoder is given for packets in file order: those that hold something, then None, at which it gives the frames it still holds.

    An empty one in mid-stream would end it there, and all that follows would be an error: captures have such where a frame was dropped.
    """
    yield from (packet for packet in packets if packet.size)
    yield None


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A stream's decoder, whose frames are told what the container says of their colours and fields, where they say nothing themselves.

    What it says not to show is cut off.
    """

    context: av.VideoCodecContext
    codec: str
    said: Said

    def decode(self, packet: Packet[Any] | None) -> Iterator[av.VideoFrame]:
        """What it gives for a packet, or for None."""
        for frame in self.context.decode(packet):
            own = _own_color(frame, self.codec)
            color = _of_still(own.or_else(self.said.color), frame, packet, self.codec)
            if color != own:
                tag_frame(frame, color)
            yield self._marked(_shown(frame, self.said))

    def _marked(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame, as interlaced as it or its container says."""
        order = self.said.order if self.codec in _UNMARKED else None
        mark = order or ("prog" if frame.interlaced_frame else None)
        woven = frame.interlaced_frame and self.codec not in _IN_PASSES
        return frame if woven or mark is None else alone_through("setfield", mark, frame)

    @property
    def sar(self) -> Fraction:
        """The shape of the pixels of the frame that came last, which PyAV's frames do not say; 1 where nothing says it."""
        return fraction(self.context.sample_aspect_ratio) or Fraction(1)


def _of_still(color: ColorSpec, frame: av.VideoFrame, packet: Packet[Any] | None, codec: str) -> ColorSpec:
    """Gray of JPEG and TIFF is the full range that it is and they do not say; YCbCr of a TIFF is as its tags say.

    FFmpeg says a curve of gray TIFFs (2.2), which those do not: it is taken back.
    """
    if codec in _FULL_RANGE_GRAY and frame.format.name.startswith(_GRAY):
        transfer = UNSPECIFIED if codec == "tiff" else color.transfer
        return replace(color, full_range=True if color.full_range is None else color.full_range, transfer=transfer)
    if codec == "tiff" and frame.format.name.startswith("yuv"):
        matrix, full = ycbcr_in_tiff(b"" if packet is None else bytes(packet))
        return replace(color, matrix=matrix, full_range=full)
    return color


def _own_color(frame: av.VideoFrame, codec: str) -> ColorSpec:
    """What a frame says itself. FFmpeg calls one of HEVC limited that says nothing; one that describes its colours says its range too."""
    color = color_of_frame(frame)
    described = {color.matrix, color.primaries, color.transfer} != {UNSPECIFIED}
    return color if described or codec != "hevc" else replace(color, full_range=color.full_range or None)


def _shown(frame: av.VideoFrame, said: Said) -> av.VideoFrame:
    """What of a frame is to be shown; all of it where nothing would be left."""
    if not any(said.hidden):
        return frame
    top, bottom, left, right = said.cut(_SIDE // frame.format.chroma_width(_SIDE), _SIDE // frame.format.chroma_height(_SIDE))
    width, height = frame.width - left - right, frame.height - top - bottom
    if width <= 0 or height <= 0:
        return frame
    if not keeps_format(_CROP, frame.format.name):
        frame = native_frame(frame)
    return alone_through("crop", f"w={width}:h={height}:x={left}:y={top}:exact=1", frame)


def said_of(stream: VideoStream) -> Said:
    """What a container says of its video; of a stream that was not decoded yet: that puts what the video's headers say in its place."""
    context: Any = stream.codec_context
    color = ColorSpec(
        matrix=int(context.colorspace),
        full_range={1: False, 2: True}.get(int(context.color_range)),
        primaries=int(context.color_primaries),
        transfer=int(context.color_trc),
        chroma_location=int(context.chroma_sample_location),
    )
    top, bottom, left, right = struct.unpack("4I", context.coded_side_data.get("frame_cropping") or bytes(16))
    some = top + bottom < context.height and left + right < context.width
    return Said(color=color, order=_ORDERS.get(int(context.field_order)), hidden=(top, bottom, left, right) if some else (0, 0, 0, 0))


def open_decoder(stream: VideoStream, threads: int = 0, said: Said | None = None) -> Decoder:
    """The stream's decoder, with as many threads as asked (0: FFmpeg's choice). `said` stands for what the container says.

    VP8 and VP9 marked alpha_mode=1 are read by libvpx: FFmpeg's own decoders drop their alpha without a word.
    """
    context: Any = stream.codec_context
    codec, said = context.codec.canonical_name, said_of(stream) if said is None else said
    library = {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(codec)
    metadata = {key.lower(): value for key, value in stream.metadata.items()}
    if library is not None and metadata.get("alpha_mode") == "1":
        context = av.VideoCodecContext.create(library, "r")
        context.extradata = stream.codec_context.extradata
    context.flags |= Flags.unaligned.value  # else columns stay at the left that the video itself hides, where memory lies better so
    context.thread_type = "SLICE" if codec == "tiff" else "AUTO"  # a frame comes with its packet, which says more
    context.thread_count = threads
    return Decoder(context=context, codec=codec, said=said)


@contextlib.contextmanager
def decoding(stream: VideoStream, threads: int = 0, said: Said | None = None) -> Iterator[Decoder]:
    """`open_decoder`, whose threads are idle when the block ends.

    A decoder is freed by whoever holds the GIL, and waits for its threads: one with a message for Python's log would wait for the GIL.
    """
    decoder = open_decoder(stream, threads, said)
    try:
        yield decoder
    finally:
        decoder.context.flush_buffers()  # without the GIL
