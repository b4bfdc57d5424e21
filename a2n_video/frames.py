"""Adapters: av.VideoFrame, HWC arrays and CHW tensors <-> native planes. A frame goes out as the kind it came in.

The engine never learns what a frame was. A frame is copied and noted when it comes, since callers with frames in a loop like to fill
the same one again before a batch is full; on the way out a new one is made from one flat row. av and torch are imported only once such
a frame has come.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from a2n_video.errors import UnsupportedFormatError
from a2n_video.media.colorspec import RGB_MATRIX, UNSPECIFIED, ColorSpec
from a2n_video.media.pixfmt import FOLDED, encodable, native_pix_fmt, pix_fmt_of, plane_format
from a2n_video.media.planes import PlaneFormat, Planes, Samples

if TYPE_CHECKING:
    import av
    import torch

FrameT = TypeVar("FrameT", "av.VideoFrame", npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[Any], "torch.Tensor")

_FULL_RGB = ColorSpec(matrix=RGB_MATRIX, full_range=True)
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_EVEN_WIDTHS = frozenset({"p010le", "p016le"})  # FFmpeg loses the last column of chroma where it folds an odd width into these


class Adapter(Protocol):
    """One kind of frame: `describe` its planes and colour, copy its `planes`, `wrap` a result's row as the same kind.

    `note` is what `wrap` needs to know of the source, which may be another picture by then.
    """

    def describe(self, frame: Any) -> tuple[PlaneFormat, ColorSpec]: ...

    def planes(self, frame: Any) -> Planes: ...

    def note(self, frame: Any) -> Any: ...

    def wrap(self, row: Samples, fmt: PlaneFormat, note: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class VideoFrameNote:
    """What rides along with a frame: its pixel format, the colour tags of its result, its time."""

    pix_fmt: str
    color: ColorSpec
    pts: int | None
    duration: int
    time_base: Fraction | None


class VideoFrameAdapter:
    """av.VideoFrame in native planes (see `native_frame`), or in a format that they unfold from and fold into (rgb24, nv12).

    pts, duration, time_base and colour tags ride along. Packed RGB is full range, whatever its tag says.
    """

    def describe(self, frame: av.VideoFrame) -> tuple[PlaneFormat, ColorSpec]:
        fmt = encodable(frame.format.name, frame.width, frame.height)
        if fmt is None or (frame.width % 2 and frame.format.name in _EVEN_WIDTHS):
            other = native_pix_fmt(frame.format.name) or "a planar one of 8 to 16 bit integers, such as yuv420p or gbrp16le"
            raise UnsupportedFormatError(
                f"a frame of {frame.width}x{frame.height} in pixel format {frame.format.name} is not taken; reformat it to {other}"
            )
        color = color_of_frame(frame)
        if fmt.family == "rgb" and frame.format.name in FOLDED:
            color = replace(color, full_range=True)  # FFmpeg makes it so, and lets the range of the YUV that it was made of stand
        # An untagged frame is settled by its size, here where that is still the source's.
        return fmt, color.settled(fmt)

    def planes(self, frame: av.VideoFrame) -> Planes:
        fmt, _ = self.describe(frame)
        native = native_frame(frame)
        views = frame_planes(native, fmt)
        return [plane.copy() for plane in views] if native is frame else views

    def note(self, frame: av.VideoFrame) -> VideoFrameNote:
        fmt, settled = self.describe(frame)
        # Of RGB nothing is guessed; its tags are for whoever makes YUV of it, and would go by others to another matrix and range.
        color = color_of_frame(frame) if fmt.family == "rgb" else settled
        time_base = fraction(frame.time_base)
        return VideoFrameNote(pix_fmt=frame.format.name, color=color, pts=frame.pts, duration=frame.duration, time_base=time_base)

    def wrap(self, row: Samples, fmt: PlaneFormat, note: VideoFrameNote) -> av.VideoFrame:
        import av

        frame = av.VideoFrame(fmt.width, fmt.height, pix_fmt_of(fmt))
        for target, plane in zip(frame_planes(frame, fmt), fmt.unpack(row), strict=True):
            target[...] = plane
        _tell(frame, note.pts, note.time_base, note.color)
        frame.duration = note.duration
        packed = plane_format(note.pix_fmt, 2, 2) is None and native_pix_fmt(note.pix_fmt) == frame.format.name
        return rearranged(frame, note.pix_fmt) if packed else frame


class ArrayAdapter:
    """HWC arrays of RGB, uint8 or uint16 (all 16 bits used)."""

    def describe(self, frame: npt.NDArray[Any]) -> tuple[PlaneFormat, ColorSpec]:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"an array of shape {frame.shape} and type {frame.dtype} came; taken are (height, width, 3) of uint8 or uint16"
            )
        height, width, _ = frame.shape
        return PlaneFormat(width=width, height=height, family="rgb", depth=8 * frame.dtype.itemsize), _FULL_RGB

    def planes(self, frame: npt.NDArray[Any]) -> Planes:
        return [frame[:, :, channel].copy() for channel in range(3)]

    def note(self, frame: npt.NDArray[Any]) -> None:
        return None

    def wrap(self, row: Samples, fmt: PlaneFormat, note: None) -> npt.NDArray[Any]:
        return np.ascontiguousarray(np.stack(fmt.unpack(row), axis=2))


class TensorAdapter:
    """CHW tensors of RGB: uint8, or float16/float32/bfloat16 in 0..1; the result has the dtype and device of the source.

    A float result is held within 0..1: networks overshoot at edges, and whoever makes codes of that wraps black to white.
    """

    def describe(self, frame: torch.Tensor) -> tuple[PlaneFormat, ColorSpec]:
        import torch

        floating = frame.dtype in (torch.float32, torch.float16, torch.bfloat16)
        if frame.ndim != 3 or frame.shape[0] != 3 or not (floating or frame.dtype == torch.uint8):
            raise ValueError(
                f"a tensor of shape {tuple(frame.shape)} and type {frame.dtype} came; taken are (3, h, w) of uint8 or float in 0..1"
            )
        _, height, width = frame.shape
        return PlaneFormat(width=width, height=height, family="rgb", depth=32 if floating else 8, floating=floating), _FULL_RGB

    def planes(self, frame: torch.Tensor) -> Planes:
        import torch

        dtype = torch.uint8 if frame.dtype == torch.uint8 else torch.float32
        return list(frame.detach().to("cpu", dtype, copy=True).numpy())

    def note(self, frame: torch.Tensor) -> tuple[torch.device, torch.dtype]:
        return frame.device, frame.dtype

    def wrap(self, row: Samples, fmt: PlaneFormat, note: tuple[torch.device, torch.dtype]) -> torch.Tensor:
        import torch

        stacked = torch.from_numpy(np.array(row)).reshape(3, fmt.height, fmt.width)
        return (stacked.clamp_(0, 1) if fmt.floating else stacked).to(*note)


def adapter_of(frame: object) -> Adapter:
    """The adapter for a frame's kind; a kind that is not taken is a TypeError that names the three that are."""
    if isinstance(frame, np.ndarray):
        return ArrayAdapter()
    for module, name, adapter in (("torch", "Tensor", TensorAdapter), ("av", "VideoFrame", VideoFrameAdapter)):
        # A frame of a library that was never imported cannot have come.
        if module in sys.modules and isinstance(frame, getattr(sys.modules[module], name)):
            return adapter()
    raise TypeError(f"a {type(frame).__name__} came; frames are HWC numpy arrays, CHW torch tensors or av.VideoFrame")


def is_interlaced(frame: object) -> bool:
    """Whether a frame of any kind says that two fields are woven in it; of arrays and tensors nobody knows."""
    return bool(getattr(frame, "interlaced_frame", False))


def frame_planes(frame: av.VideoFrame, fmt: PlaneFormat) -> list[Samples]:
    """Views of a frame's planes in our order (R G B, not FFmpeg's G B R), writable where the frame is."""
    order = (2, 0, 1, 3) if fmt.family == "rgb" else (0, 1, 2, 3)
    views = []
    for shape, index in zip(fmt.planes, order, strict=False):
        plane = frame.planes[index]
        rows = np.frombuffer(plane, fmt.dtype)[: shape.height * (plane.line_size // fmt.dtype.itemsize)]
        views.append(rows.reshape(shape.height, -1)[:, : shape.width])
    return views


def native_frame(frame: av.VideoFrame, pix_fmt: str | None = None) -> av.VideoFrame:
    """The frame in native planes: itself where it has them, else unfolded by FFmpeg, which only moves bytes for these formats.

    `pix_fmt` asks for one native format (a decoder that changes its mind mid-stream). UnsupportedFormatError where there is none.
    """
    wanted = pix_fmt or native_pix_fmt(frame.format.name)
    if wanted is None:
        raise UnsupportedFormatError(f"pixel format {frame.format.name} cannot be read as planes")
    if wanted != frame.format.name:
        return rearranged(frame, wanted)
    return _from_the_top(frame) if frame.planes[0].line_size < 0 else frame


def _from_the_top(frame: av.VideoFrame) -> av.VideoFrame:
    """A copy with rows that follow each other in memory: FFmpeg's vflip leaves the samples and counts the lines backwards."""
    import av

    try:
        made = av.VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)
    except ValueError as error:
        raise UnsupportedFormatError(f"a frame in {frame.format.name} whose lines are counted backwards (vflip) is not taken") from error
    _tell(made, frame.pts, fraction(frame.time_base), color_of_frame(frame))
    return made


def rearranged(frame: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """The same samples in another of FFmpeg's formats, with their time and tags; for formats that fold and unfold without loss.

    In one thread: FFmpeg 9's conversion loses a row of chroma now and then (P010 and its kin) where several threads share a frame.
    """
    with unexplained(frame):
        made = frame.reformat(format=pix_fmt, threads=1)
    _tell(made, frame.pts, fraction(frame.time_base), color_of_frame(frame))
    return made


def _tell(frame: av.VideoFrame, pts: int | None, time_base: Fraction | None, color: ColorSpec) -> None:
    """Give a new frame its time, as far as there is one, and its tags."""
    if pts is not None:
        frame.pts = pts
    if time_base is not None:
        frame.time_base = time_base
    tag_frame(frame, color)


def fraction(value: Any) -> Fraction | None:
    """A PyAV rational as a Fraction, None where unset: PyAV's is falsy then, and would divide by zero later."""
    return Fraction(value.numerator, value.denominator) if value and value.denominator else None


def color_of_frame(frame: av.VideoFrame) -> ColorSpec:
    """A frame's own colour tags, not yet settled; yuvj formats are full range whatever the tag says."""
    full = True if frame.format.name.startswith("yuvj") else {1: False, _FULL_RANGE: True}.get(int(frame.color_range))
    return ColorSpec(
        matrix=int(frame.colorspace),
        full_range=full,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        chroma_location=int(frame.chroma_location),
    )


@contextmanager
def unexplained(frame: av.VideoFrame) -> Iterator[None]:
    """The frame without what its colours mean, for the while: FFmpeg refuses to touch a meaning that its scaler cannot compute with."""
    matrix, primaries, transfer = int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
    frame.colorspace = frame.color_primaries = frame.color_trc = UNSPECIFIED
    try:
        yield
    finally:
        frame.colorspace, frame.color_primaries, frame.color_trc = matrix, primaries, transfer


def tag_frame(frame: av.VideoFrame, color: ColorSpec) -> None:
    """Write colour tags onto a frame."""
    frame.colorspace = color.matrix
    frame.color_range = 0 if color.full_range is None else 1 + color.full_range
    frame.color_primaries = color.primaries
    frame.color_trc = color.transfer
    frame.chroma_location = color.chroma_location
