"""Where chroma samples sit, as filter taps: the tables that both colour converters (torch's and numpy's) are made of.

Keys' cubic convolution (a = -0.5) in both directions, stretched when shrinking. The phase follows from the siting, so luma and
chroma of a picture stay together whatever the source says about where its chroma lies. Pure values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from a2n_video.media.colorspec import MATRICES, RGB_MATRIX, YCGCO, ColorSpec
from a2n_video.media.planes import PlaneFormat

Table = npt.NDArray[np.float32]
BLOCK: Final = 16  # chroma samples a product; larger multiplies more zeros, smaller copies more overlap


@dataclass(frozen=True)
class BlockFilter:
    """A resampling filter as one small matrix for `BLOCK` chroma samples.

    `matrix` (n_in, n_out) takes the inputs from `first` before the block's own to `last` after them; inputs of the next block
    start `step` further. Columns sum to 1.
    """

    matrix: Table
    first: int
    last: int
    step: int


def cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE ASSP 29, 1981)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _block(centres: npt.NDArray[np.float64], stretch: float, step: int) -> BlockFilter:
    """The filter whose outputs lie at `centres`, in input samples from the block's first."""
    reach = 2 * stretch
    first = -int(np.floor(centres.min() - reach + 1))
    last = int(np.ceil(centres.max() + reach - 1)) - (step - 1)
    first, last = max(first, 0), max(last, 0)
    taps = np.arange(-first, step + last)
    weights = cubic((centres[None, :] - taps[:, None]) / stretch)
    weights /= weights.sum(axis=0)
    return BlockFilter(weights.astype(np.float32), first, last, step)


@lru_cache(maxsize=32)
def enlarging(factor: int, siting: float) -> BlockFilter:
    """Chroma to luma positions; `siting` is the chroma sample's place for a halved axis (0 first luma sample, 0.5 centre)."""
    place = siting * (factor - 1)
    return _block((np.arange(BLOCK * factor) - place) / factor, 1.0, BLOCK)


@lru_cache(maxsize=32)
def shrinking(factor: int, siting: float) -> BlockFilter:
    """Luma positions to chroma: the other way of `enlarging`, low-passed."""
    place = siting * (factor - 1)
    return _block((np.arange(BLOCK) * factor + place).astype(np.float64), float(factor), BLOCK * factor)


@dataclass(frozen=True)
class CodeRange:
    """An integer (or float) sample is code = value * gain + zero, then held within 0..`highest` (None: floats are not)."""

    gain: float
    zero: float
    highest: int | None


def code_range(fmt: PlaneFormat, color: ColorSpec, *, chroma: bool = False) -> CodeRange:
    """How a format's samples stand for 0..1 (chroma: -0.5..0.5): ITU-R BT.2100-2, table 9; YCgCo's all as R, G and B (ITU-T H.273)."""
    if fmt.floating:
        return CodeRange(1.0, 0.0, None)
    highest = (1 << fmt.depth) - 1
    shift = 1 << (fmt.depth - 8)
    if chroma:
        limited = (219.0 if color.matrix == YCGCO else 224.0) * shift
        return CodeRange(float(highest) if color.full_range else limited, 128.0 * shift, highest)
    return CodeRange(float(highest), 0.0, highest) if color.full_range else CodeRange(219.0 * shift, 16.0 * shift, highest)


def rgb_to_yuv(fmt: PlaneFormat, color: ColorSpec) -> npt.NDArray[np.float64]:
    """The (3, 3) matrix from R'G'B' to Y'CbCr (ITU-T H.273, equations 38 to 40) or, for its value 8, YCgCo; the identity for RGB."""
    if fmt.family == "rgb" or (color.matrix == RGB_MATRIX and fmt.family != "gray"):
        return np.eye(3)
    if color.matrix == YCGCO:
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]])
    kr, kb = MATRICES[color.matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    return np.stack([luma, (np.array([0, 0, 1]) - luma) / (2 * (1 - kb)), (np.array([1, 0, 0]) - luma) / (2 * (1 - kr))])


@dataclass(frozen=True)
class CodeMatrices:
    """Code values <-> RGB in 0..1 for a format: rgb = decode @ codes + decode_bias; codes = encode @ rgb + encode_bias.

    (3, 3) and (3,) for three planes; gray decodes with (3, 1) and encodes with (1, 3).
    """

    decode: npt.NDArray[np.float64]
    decode_bias: npt.NDArray[np.float64]
    encode: npt.NDArray[np.float64]
    encode_bias: npt.NDArray[np.float64]


@lru_cache(maxsize=64)
def code_matrices(fmt: PlaneFormat, color: ColorSpec) -> CodeMatrices:
    """The range and the matrix in one; `color` must be settled."""
    luma = code_range(fmt, color)
    chroma = luma if fmt.family != "yuv" else code_range(fmt, color, chroma=True)
    gain = np.array([luma.gain, chroma.gain, chroma.gain])
    zero = np.array([luma.zero, chroma.zero, chroma.zero])
    to_yuv = rgb_to_yuv(fmt, color)
    encode, decode = gain[:, None] * to_yuv, np.linalg.inv(to_yuv) / gain[None, :]
    if fmt.family == "gray":
        return CodeMatrices(np.full((3, 1), 1 / luma.gain), np.full(3, -luma.zero / luma.gain), encode[:1], zero[:1])
    return CodeMatrices(decode, -decode @ zero, encode, zero)
