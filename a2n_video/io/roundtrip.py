"""Frames through a real encoder and back, in memory: what a video file does to them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import av
import numpy as np
import torch
from av.video.stream import VideoStream

from a2n_video.engine.color import planes_to_rgb, rgb_to_planes
from a2n_video.engine.protocol import Rows, pack_rows
from a2n_video.errors import EncodeError
from a2n_video.frames import frame_planes, rearranged
from a2n_video.io.backends import repeatable
from a2n_video.io.rgb import Image, to_bytes
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.pixfmt import plane_format
from a2n_video.media.planes import PlaneFormat

PIX_FMT = "yuv420p"
BT709 = ColorSpec(matrix=1, full_range=False, primaries=1, transfer=1, chroma_location=1)
TICK = Fraction(1, 25)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """An encoder and its options, as FFmpeg names them."""

    codec: str
    options: dict[str, str] = field(default_factory=dict)


def through_codec(images: Sequence[Image], encoding: Encoding | None, color: ColorSpec = BT709) -> list[Image]:
    """Equally large RGB images to 4:2:0, through an encoder (None: none), and back; as many out as in, in order.

    One thread encodes, so equal input gives equal output. EncodeError if the encoder refuses or loses a frame.
    """
    height, width, _ = images[0].shape
    fmt = plane_format(PIX_FMT, width, height)
    assert fmt is not None
    rgb = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    rows = rgb_to_planes(rgb, fmt, color)
    if encoding is not None:
        rows = torch.from_numpy(decode(encode(rows.numpy(), fmt, encoding), fmt))
    if len(rows) != len(images):
        raise EncodeError(f"{encoding}: {len(rows)} frames came back for {len(images)}")
    return list(to_bytes(planes_to_rgb(rows, fmt, color)))


def encode(rows: Rows, fmt: PlaneFormat, encoding: Encoding) -> bytes:
    """Frames' planes as flat rows -> a Matroska file in memory."""
    target = io.BytesIO()
    options = repeatable(encoding.codec, encoding.options)
    try:
        with av.open(target, "w", format="matroska") as container:
            stream = cast("VideoStream", container.add_stream(encoding.codec, rate=25, options=options))
            stream.width, stream.height, stream.pix_fmt = fmt.width, fmt.height, PIX_FMT
            stream.codec_context.thread_count = 1
            stream.codec_context.time_base = TICK
            for index, row in enumerate(rows):
                frame = av.VideoFrame(fmt.width, fmt.height, PIX_FMT)
                for plane, samples in zip(frame_planes(frame, fmt), fmt.unpack(row), strict=True):
                    plane[:] = samples
                frame.pts, frame.time_base = index, TICK
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        raise EncodeError(f"{encoding.codec} {encoding.options} refused {fmt.width}x{fmt.height}: {error}") from error
    return target.getvalue()


def decode(data: bytes, fmt: PlaneFormat) -> Rows:
    """Every frame of such a file, in the order shown, as flat rows."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = [f if f.format.name == PIX_FMT else rearranged(f, PIX_FMT) for f in container.decode(video=0)]
        return pack_rows(fmt, [frame_planes(frame, fmt) for frame in frames])
