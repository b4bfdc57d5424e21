"""Frames after the network, brought to the one size, layout and colour that the encoder was opened for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av

from a2n_video.engine.linear import edge_repeated, refit
from a2n_video.frames import VideoFrameAdapter, color_of_frame, frame_planes, rearranged, tag_frame
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.pixfmt import pix_fmt_of
from a2n_video.media.planes import PlaneFormat, Samples

_ADAPTER = VideoFrameAdapter()
_SEEN: Final = Fraction(1, 50)  # how much wider or narrower somebody sees


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What every frame must be for the encoder. `warnings` of a run say which frames came otherwise."""

    target: PlaneFormat
    color: ColorSpec  # settled
    pix_fmt: str  # FFmpeg's name of `target`, or of a format that it folds into


def fitted(frames: Iterator[av.VideoFrame], fit: Fit) -> Iterator[av.VideoFrame]:
    """The frames, each as `fit` says, in order and with their times.

    What fits already passes as it is. A size short by less than a chroma sample gets its last row and column again; any other size
    is resampled in linear light; another layout, matrix or range is converted by way of RGB.
    """
    for frame in frames:
        made = _folded(_fitted(frame, fit), fit)
        made.duration = 0  # the settled times say how long it is shown; a decoder's word may be on another clock
        yield made


def _fitted(frame: av.VideoFrame, fit: Fit) -> av.VideoFrame:
    fmt, color = _ADAPTER.describe(frame)
    if _same_codes(fmt, color, fit.color):
        if fmt == fit.target:
            return frame
        if _short_of(fmt, fit.target):
            return _wrapped(edge_repeated(frame_planes(frame, fmt), fit.target), frame, fit)
    return _wrapped(refit(frame_planes(frame, fmt), fmt, color, fit.target, fit.color), frame, fit)


def _folded(frame: av.VideoFrame, fit: Fit) -> av.VideoFrame:
    """The frame in the encoder's own arrangement of the same samples."""
    if frame.format.name.removesuffix("le") == fit.pix_fmt.removesuffix("le"):
        return frame
    folded = rearranged(frame, fit.pix_fmt)
    tag_frame(folded, fit.color)
    return folded


def _same_codes(fmt: PlaneFormat, color: ColorSpec, wanted: ColorSpec) -> bool:
    """Whether the same codes mean the same colours."""
    matrix = fmt.family != "yuv" or color.matrix == wanted.matrix
    return matrix and color.full_range == wanted.full_range and (not fmt.log2_chroma_w or color.siting == wanted.siting)


def _short_of(fmt: PlaneFormat, target: PlaneFormat) -> bool:
    """Whether only the part of a last chroma sample is missing."""
    wide, high = (1 << target.log2_chroma_w), (1 << target.log2_chroma_h)
    layouts = [(f.family, f.depth, f.floating, f.log2_chroma_w, f.log2_chroma_h, f.alpha) for f in (fmt, target)]
    return layouts[0] == layouts[1] and 0 <= target.width - fmt.width < wide and 0 <= target.height - fmt.height < high


def _wrapped(row: Samples, source: av.VideoFrame, fit: Fit) -> av.VideoFrame:
    frame = av.VideoFrame(fit.target.width, fit.target.height, pix_fmt_of(fit.target))
    for target, plane in zip(frame_planes(frame, fit.target), fit.target.unpack(row), strict=True):
        target[...] = plane
    tag_frame(frame, fit.color)
    frame.pts, frame.time_base = source.pts, source.time_base
    return frame


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """What of a frame should stay from the first one to the last."""

    size: tuple[int, int]
    pix_fmt: str
    matrix: int
    full_range: bool
    sar: Fraction

    @property
    def shape(self) -> Fraction:
        """Of the picture as it is shown."""
        return self.sar * self.size[0] / self.size[1]

    def changes_to(self, other: _Picture) -> list[str]:
        """Each difference that somebody sees, in words."""
        pairs = list(zip(self._words(), other._words(), strict=True))
        return [f"{a} became {b}" for a, b in (pairs[:-1] if self.shown_like(other) else pairs) if a != b]

    def _words(self) -> Iterator[str]:
        yield "{}x{}".format(*self.size)
        yield self.pix_fmt
        yield f"matrix {self.matrix}"
        yield "full range" if self.full_range else "limited range"
        yield f"{self.shape.numerator}:{self.shape.denominator}"

    def shown_like(self, other: _Picture) -> bool:
        return abs(other.shape / self.shape - 1) < _SEEN


def changes_of(
    frames: Iterator[av.VideoFrame], notes: list[str], sar_at: Callable[[int], Fraction] = lambda pts: Fraction(1)
) -> Iterator[av.VideoFrame]:
    """The source's frames as they are; each change of size, format, colour or shape on the way is put in words into `notes`.

    `sar_at`: the shape of pixels at a frame's pts.
    """
    first: _Picture | None = None
    last: _Picture | None = None
    for frame in frames:
        found = _picture_of(frame, sar_at(frame.pts or 0))
        first = first or found
        changes = "; ".join(last.changes_to(found)) if last is not None else ""
        if changes:
            at = f"{float(frame.pts * frame.time_base):.3f} s" if frame.pts is not None and frame.time_base else "some time"
            shown = "squeezed" if found.shape > first.shape else "stretched"
            shape = "" if found.shown_like(first) else f", and is shown {shown} from here on"
            notes.append(f"at {at} the source changed ({changes}); everything is brought to the first picture's size and format{shape}")
        last = found
        yield frame


def _picture_of(frame: av.VideoFrame, sar: Fraction) -> _Picture:
    tags = color_of_frame(frame)
    size = frame.width, frame.height
    return _Picture(size=size, pix_fmt=frame.format.name, matrix=tags.matrix, full_range=bool(tags.full_range), sar=sar)
