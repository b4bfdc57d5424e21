"""8-bit RGB images: made from tensors, sized for square pixels, encoded as PNG with nothing but zlib, or as JPEG."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from types import ModuleType
from typing import Final

import numpy as np
from torch import Tensor

from a2n_video.errors import MissingDependencyError
from a2n_video.io.rgb import Image, to_bytes

JPEG_SUFFIXES: Final = (".jpg", ".jpeg")
JPEG_QUALITY: Final = 92


def to_image(rgb: Tensor) -> Image:
    """RGB (1, 3, H, W) in 0..1 -> 8 bits, rounded and held within the range."""
    image: Image = to_bytes(rgb.detach().cpu())[0]
    return image


def display_size(width: int, height: int, sar: Fraction) -> tuple[int, int]:
    """(width, height) in square pixels: the short axis is stretched, none is shrunk."""
    return (round(width * sar), height) if sar >= 1 else (width, round(height / sar))


def png_bytes(image: Image) -> bytes:
    """An 8-bit RGB PNG. Each row is stored as differences to its left neighbours (PNG's filter 1)."""
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 1
    rows[:, 1:4] = image[:, 0]
    rows[:, 4:] = np.diff(image, axis=1).reshape(height, -1)  # wraps around, as the filter wants

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def jpeg_bytes(image: Image, quality: int = JPEG_QUALITY) -> bytes:
    """A JPEG without chroma subsampling. MissingDependencyError without Pillow."""
    buffer = io.BytesIO()
    pillow().fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def encoded(image: Image, suffix: str) -> bytes:
    """JPEG where the extension is JPEG's, else PNG."""
    return jpeg_bytes(image) if suffix.lower() in JPEG_SUFFIXES else png_bytes(image)


def pillow() -> ModuleType:
    """Pillow's Image, which writes JPEG; ask for it before long work. MissingDependencyError where it is not installed."""
    try:
        from PIL import Image as found
    except ImportError as error:
        raise MissingDependencyError(
            "JPEG needs Pillow, which is not installed; get it with: pip install 'a2n-video[plots]', or ask for PNG"
        ) from error
    return found
