"""The layout of a frame's samples: which planes, how large, how deep. Pure values, neither av nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Family = Literal["yuv", "gray", "rgb"]
Samples = npt.NDArray[Any]
Planes = Sequence[Samples]  # one (H, W) array a plane, rows may be strided; order Y U V, Y, or R G B; alpha last


@dataclass(frozen=True)
class PlaneShape:
    """One plane inside a flat frame: `height` rows of `width` samples, starting at sample `offset`."""

    height: int
    width: int
    offset: int

    @property
    def samples(self) -> int:
        return self.height * self.width


@dataclass(frozen=True, kw_only=True)
class PlaneFormat:
    """Size, family and depth of native planes.

    Integer samples of 8 bits lie in uint8, of 9 to 16 in uint16, in the low bits (FFmpeg's yuv420p10le, not P010).
    `floating` samples are float32 (depth 32) or float16 (depth 16): RGB, gray, luma and alpha in 0..1, chroma -0.5..0.5.
    Chroma planes are ceil(width / 2**log2_chroma_w) wide, as FFmpeg has them.
    """

    width: int
    height: int
    family: Family
    depth: int = 8
    floating: bool = False
    log2_chroma_w: int = 0
    log2_chroma_h: int = 0
    alpha: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a frame of {self.width}x{self.height} has no pixels")
        if self.depth not in ((16, 32) if self.floating else range(8, 17)):
            raise ValueError(f"no {'float' if self.floating else 'integer'} samples of {self.depth} bits")
        if self.family != "yuv" and (self.log2_chroma_w or self.log2_chroma_h):
            raise ValueError(f"{self.family} has no subsampled chroma")

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.floating:
            return np.dtype(np.float32 if self.depth == 32 else np.float16)
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)

    @property
    def planes(self) -> tuple[PlaneShape, ...]:
        """The planes in the order they lie in a flat frame, without padding."""
        luma = (self.height, self.width)
        chroma = (-(-self.height >> self.log2_chroma_h), -(-self.width >> self.log2_chroma_w))
        sizes = {"gray": [luma], "rgb": [luma] * 3, "yuv": [luma, chroma, chroma]}[self.family] + [luma] * self.alpha
        shapes, offset = [], 0
        for height, width in sizes:
            shapes.append(PlaneShape(height, width, offset))
            offset += height * width
        return tuple(shapes)

    @property
    def samples(self) -> int:
        """Samples of one frame, all planes."""
        return sum(plane.samples for plane in self.planes)

    def scaled(self, scale: int) -> PlaneFormat:
        """The same layout at `scale` times the size."""
        return replace(self, width=self.width * scale, height=self.height * scale)

    def pack(self, planes: Planes, row: Samples) -> None:
        """Copy one frame's planes into a flat row of `samples` samples; a plane of another shape is a ValueError."""
        shapes = self.planes
        if len(planes) != len(shapes):
            raise ValueError(f"{len(planes)} planes came, {len(shapes)} make a frame")
        for shape, plane in zip(shapes, planes, strict=True):
            if plane.shape != (shape.height, shape.width) or plane.dtype != self.dtype:
                raise ValueError(f"a plane is {plane.shape} {plane.dtype}, not {(shape.height, shape.width)} {self.dtype}")
            row[shape.offset : shape.offset + shape.samples].reshape(plane.shape)[...] = plane

    def unpack(self, row: Samples) -> tuple[Samples, ...]:
        """Views of a flat row's planes, each (H, W); nothing is copied."""
        return tuple(row[s.offset : s.offset + s.samples].reshape(s.height, s.width) for s in self.planes)
