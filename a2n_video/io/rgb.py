"""Pictures and video frames as RGB arrays: for measuring and for training, where a whole job would be too much."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2n_video.engine.color import planes_to_rgb
from a2n_video.engine.protocol import pack_rows
from a2n_video.errors import DecodeError
from a2n_video.frames import VideoFrameAdapter, native_frame, rearranged
from a2n_video.io.decoding import decoding, fed
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.pixfmt import native_pix_fmt

Image = NDArray[np.uint8]
"""RGB, (H, W, 3), 8 bit."""


def read_rgb(path: Path) -> Iterator[Image]:
    """Frames of a video, or the one of a picture, in presentation order, through our own conversion.

    InputError where the file cannot be opened, DecodeError where it breaks or holds no picture.
    """
    count = 0
    try:
        with open_source(path) as container:
            stream = video_stream(container, path)
            with decoding(stream) as decoder:
                for frame in (frame for packet in fed(container.demux(stream)) for frame in decoder.decode(packet)):
                    yield frame_to_rgb(frame)
                    count += 1
    except av.FFmpegError as error:
        raise DecodeError(f"{path}: frame {count} cannot be decoded: {error.strerror}") from error
    if not count:
        raise DecodeError(f"{path}: there is no picture in this file")


def count_frames(path: Path, most: int) -> int:
    """How many frames a file holds, told by its packets; `most` where there are more. InputError where it cannot be opened or read."""
    try:
        with open_source(path) as container:
            packets = container.demux(video_stream(container, path))
            return sum(1 for _ in islice((packet for packet in packets if packet.size), most))
    except av.FFmpegError as error:
        raise DecodeError(f"{path}: cannot be read: {error.strerror}") from error


def frame_to_rgb(frame: av.VideoFrame) -> Image:
    """A frame of any format as 8-bit RGB; what has no native planes (palettes) is unfolded by FFmpeg first."""
    native = native_frame(frame if native_pix_fmt(frame.format.name) else rearranged(frame, "rgb24"))
    image: Image = to_bytes(rgb_of(native))[0]
    return image


def rgb_of(frame: av.VideoFrame) -> Tensor:
    """A frame in native planes as RGB, (1, 3, H, W) float32 in 0..1, unclamped; as stored: HDR stays in its own curve."""
    adapter = VideoFrameAdapter()
    fmt, color = adapter.describe(frame)
    return planes_to_rgb(torch.from_numpy(pack_rows(fmt, [adapter.planes(frame)])), fmt, color)


def to_bytes(rgb: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in 0..1 -> (N, H, W, 3), rounded."""
    codes = (255 * rgb).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return cast("NDArray[np.uint8]", codes.numpy())
