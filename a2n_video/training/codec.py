"""Through a real encoder and back, in memory: the leaf of the trainer that knows av."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Y (H, W) and the two chroma planes (H/2, W/2), 8 bit."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """An encoder and its options, as FFmpeg names them."""

    codec: str
    options: dict[str, str] = field(default_factory=dict)


def planes_to_frame(planes: Planes) -> av.VideoFrame:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, "yuv420p")
    for source, target in zip(planes, frame.planes, strict=True):
        rows = np.frombuffer(target, np.uint8).reshape(target.height, target.line_size)  # a view of the frame's own memory
        rows[:, : target.width] = source
    return frame


def frame_to_planes(frame: av.VideoFrame) -> Planes:
    if frame.format.name != "yuv420p":
        frame = frame.reformat(format="yuv420p")
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        planes.append(rows[:, : plane.width].copy())
    return planes[0], planes[1], planes[2]


def encode(frames: Sequence[Planes], encoding: Encoding) -> bytes:
    """Encode equally large frames into a Matroska file in memory, with one thread, so that equal input gives equal output."""
    target = io.BytesIO()
    height, width = frames[0][0].shape
    with av.open(target, "w", format="matroska") as container:
        stream = container.add_stream(encoding.codec, rate=25, options=dict(encoding.options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = Fraction(1, 25)
        for index, planes in enumerate(frames):
            frame = planes_to_frame(planes)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def decode(data: bytes) -> list[Planes]:
    """Every frame of the file, in the order shown."""
    with av.open(io.BytesIO(data)) as container:
        return [frame_to_planes(frame) for frame in container.decode(video=0)]


def through_codec(frames: Sequence[Planes], encoding: Encoding) -> list[Planes]:
    """The same frames after encoding and decoding; as many out as in, or a ValueError."""
    result = decode(encode(frames, encoding))
    if len(result) != len(frames):
        raise ValueError(f"{encoding.codec} gave {len(result)} frames for {len(frames)}")
    return result
