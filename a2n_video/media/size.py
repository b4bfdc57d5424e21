"""--size: what people ask for, as a picture size and the network's factor that gets there. Pure arithmetic on exact fractions."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from a2n_video.errors import OptionError

_REQUEST: Final = re.compile(r"(?:(\d{2,5})p|(fit:)?(\d{1,5})[x\u00d7](\d{1,5}))", re.IGNORECASE)
_QUARTER_TURN: Final = 90


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """Stored pixels of a picture, and their shape (sample aspect ratio)."""

    width: int
    height: int
    sar: Fraction = Fraction(1)

    @property
    def display_aspect(self) -> Fraction:
        """Width by height as it is shown, before any rotation."""
        return Fraction(self.width, self.height) * self.sar


@dataclass(frozen=True, kw_only=True)
class SizeRequest:
    """`lines`: the shorter shown side has `height` pixels. `exact`: width x height. `fit`: the largest picture inside that box."""

    kind: Literal["lines", "exact", "fit"]
    width: int
    height: int


def parse_size(text: str) -> SizeRequest:
    """1440p, 2560x1440 or fit:3840x2160; anything else, or a side of nothing, is an OptionError."""
    match = _REQUEST.fullmatch(text.strip())
    if match is None or 0 in (int(side) for side in (match[1], match[3], match[4]) if side):
        raise OptionError(f"--size {text}: write a number of lines (1440p), a size (2560x1440) or a box to fit into (fit:3840x2160)")
    if match[1]:
        return SizeRequest(kind="lines", width=0, height=int(match[1]))
    return SizeRequest(kind="fit" if match[2] else "exact", width=int(match[3]), height=int(match[4]))


def target_size(request: SizeRequest, source: PictureSize, rotation: float = 0.0) -> PictureSize:
    """The stored size that a request means for a source; what is shown keeps its shape.

    `lines` and `fit` give square pixels and even sides. `exact` gives just that size and the pixel shape it then needs. A request speaks of
    the picture as shown: with a rotation by a quarter turn its sides are swapped for the stored one.
    """
    turned = round(rotation) % 180 == _QUARTER_TURN
    aspect = source.display_aspect
    if request.kind == "lines":
        shown = (request.height * aspect, Fraction(request.height)) if aspect >= 1 else (Fraction(request.height), request.height / aspect)
        return PictureSize(width=_even(shown[0]), height=_even(shown[1]))
    width, height = (request.height, request.width) if turned else (request.width, request.height)
    if request.kind == "fit":
        factor = min(Fraction(width) / aspect, Fraction(height))
        return PictureSize(width=_even(min(factor * aspect, Fraction(width)), width), height=_even(factor, height))
    sar = aspect * height / width
    # A pixel shape that moves no pixel by a whole one is rounding, such as 1366x768's.
    square = abs(sar - 1) * max(width, height) < 1
    return PictureSize(width=width, height=height, sar=Fraction(1) if square else sar.limit_denominator(1 << 15))


def network_scale(available: Collection[int], source: PictureSize, target: PictureSize) -> int:
    """The smallest factor there is with which nothing is left to enlarge, else the largest there is."""
    enough = [s for s in available if s * source.width >= target.width and s * source.height >= target.height]
    return min(enough) if enough else max(available)


def aligned(width: int, height: int, log2_chroma_w: int, log2_chroma_h: int) -> tuple[int, int]:
    """The size with sides rounded up to whole chroma samples."""
    step_w, step_h = 1 << log2_chroma_w, 1 << log2_chroma_h
    return -(-width // step_w) * step_w, -(-height // step_h) * step_h


def _even(side: Fraction, most: int | None = None) -> int:
    """The nearest even number, at least 2 and at most `most`."""
    even = max(2, 2 * round(side / 2))
    return even if most is None or even <= most else max(2, most - most % 2)
