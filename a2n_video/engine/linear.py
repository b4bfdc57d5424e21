"""Pictures brought to another size, layout or colour after the network: resampled in linear light, in numpy, without torch.

Shrinking what is coded with a curve darkens fine detail; so samples become light first. Kernel: Keys' cubic (a = -0.5), stretched
when shrinking, edges repeated; its overshoot stays where the range has room.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from a2n_video.engine.numpy_color import planes_to_rgb, rgb_to_planes
from a2n_video.media.chroma import cubic
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes, Samples

Floats = npt.NDArray[np.float32]
_BLOCK: Final = 32  # outputs a product: larger multiplies more zeros
_REACH: Final = 2.0
_SEEN: Final = 2.0**-10  # of alpha: what divides by less may become any colour


@dataclass(frozen=True)
class Power:
    """A display's curve between signal and light. Odd about zero and without an end: YUV codes reach R, G and B of -1.2 to 2.3."""

    exponent: float

    def light(self, signal: Floats) -> Floats:
        return np.copysign(np.abs(signal) ** self.exponent, signal)

    def signal(self, light: Floats) -> Floats:
        return np.copysign(np.abs(light) ** (1 / self.exponent), light)


@dataclass(frozen=True)
class Srgb:
    """The same of IEC 61966-2-1, which is straight in black."""

    def light(self, signal: Floats) -> Floats:
        x = np.abs(signal)
        return np.copysign(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4), signal)

    def signal(self, light: Floats) -> Floats:
        x = np.abs(light)
        return np.copysign(np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055), light)


# By H.273 transfer number: displays' curves (ITU-R BT.1886: 2.4), not cameras'. PQ and HLG are left coded: their light spans
# 1 : 10,000 and more, where a sharp kernel draws black rings around every highlight; 8 is linear already.
_DISPLAY: Final = Power(2.4)
CURVES: Final[dict[int, Power | Srgb | None]] = {4: Power(2.2), 5: Power(2.8), 8: None, 13: Srgb(), 16: None, 17: Power(2.6), 18: None}


@lru_cache(maxsize=16)
def _blocks(n_in: int, n_out: int) -> tuple[tuple[int, int, int, Floats], ...]:
    """(first output, first input, last input + 1, weights (outputs, inputs)) for every block of outputs."""
    stretch = max(1.0, n_in / n_out)
    blocks = []
    for first in range(0, n_out, _BLOCK):
        centres = (np.arange(first, min(first + _BLOCK, n_out)) + 0.5) * n_in / n_out - 0.5
        taps = np.arange(int(np.floor(centres[0] - _REACH * stretch)), int(np.ceil(centres[-1] + _REACH * stretch)) + 1)
        weights = cubic((centres[:, None] - taps) / stretch)
        weights /= weights.sum(axis=1, keepdims=True)
        held = np.clip(taps, 0, n_in - 1)
        low, high = int(held[0]), int(held[-1]) + 1
        folded = np.zeros((len(centres), high - low))
        np.add.at(folded.T, held - low, weights.T)
        blocks.append((first, low, high, folded.astype(np.float32)))
    return tuple(blocks)


def resampled(x: Floats, height: int, width: int) -> Floats:
    """(C, H, W) resampled to (C, height, width), edges repeated."""
    out = np.empty((len(x), height, width), np.float32)
    # Plane by plane: numpy hands two-dimensional products to BLAS whatever their strides, stacked ones only if they lie together.
    for plane, target in zip(x, out, strict=True):
        tall = plane
        if height != plane.shape[0]:
            tall = np.concatenate([weights @ plane[low:high] for _, low, high, weights in _blocks(plane.shape[0], height)])
        if width == plane.shape[1]:
            target[...] = tall
            continue
        for first, low, high, weights in _blocks(plane.shape[1], width):
            target[:, first : first + len(weights)] = tall[:, low:high] @ weights.T
    return out


def resampled_in_light(rgb: Floats, height: int, width: int, transfer: int, alpha: Floats | None = None) -> Floats:
    """The same of R'G'B' whose light is what is resampled; `transfer` is H.273's number of its curve.

    With `alpha` (1, H, W) pixels count for as much as is seen of them, so that no hidden colour comes into the edge of a cut-out.
    """
    curve = CURVES.get(transfer, _DISPLAY)
    light = rgb if curve is None else curve.light(rgb)
    made = resampled(light, height, width)
    if alpha is not None:
        weight = resampled(alpha, height, width)
        made = np.where(weight > _SEEN, resampled(light * alpha, height, width) / np.maximum(weight, _SEEN), made)
    return made if curve is None else curve.signal(made)


def refit(planes: Planes, fmt: PlaneFormat, color: ColorSpec, target: PlaneFormat, target_color: ColorSpec) -> Samples:
    """A picture's planes as a flat row of another size, layout or colour; both colours settled.

    The matrix, the range and the siting change; primaries and transfer do not (no tone mapping): those of `color` are kept as they are.
    """
    rgb = planes_to_rgb(planes, fmt, color)
    alpha = _alpha(planes, fmt)
    opaque = alpha is None or bool(alpha.min() >= 1)
    if (fmt.height, fmt.width) != (target.height, target.width):
        rgb = resampled_in_light(rgb, target.height, target.width, color.transfer, None if opaque else alpha)
        alpha = None if alpha is None else resampled(alpha, target.height, target.width)
    row = np.empty(target.samples, target.dtype)
    rgb_to_planes(rgb, target, target_color, row)
    if target.alpha:
        highest = (1 << target.depth) - 1
        target.unpack(row)[-1][...] = highest if alpha is None else np.clip(alpha[0] * highest + 0.5, 0, highest)
    return row


def edge_repeated(planes: Planes, target: PlaneFormat) -> Samples:
    """Planes with their last row and column repeated up to a slightly larger size of the same layout, as a flat row."""
    row: npt.NDArray[Any] = np.empty(target.samples, target.dtype)
    for plane, wanted in zip(planes, target.unpack(row), strict=True):
        height, width = plane.shape
        wanted[...] = np.pad(plane, ((0, wanted.shape[0] - height), (0, wanted.shape[1] - width)), mode="edge")
    return row


def _alpha(planes: Planes, fmt: PlaneFormat) -> Floats | None:
    return planes[-1][None].astype(np.float32) * np.float32(1 / ((1 << fmt.depth) - 1)) if fmt.alpha else None
