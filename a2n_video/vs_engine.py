"""The Python side of the VapourSynth filter: plane addresses in, plane addresses out, through the product's own engines.

The native filter (vs_plugin/) calls `open_filter` once for each `core.a2n.Upscale` and then `submit` and `finish` of what it gets,
from its worker threads, one at a time. Nothing here imports vapoursynth, and nothing writes to stdout: under vspipe that is the video.
"""

from __future__ import annotations

import atexit
import ctypes
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple, get_args
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from a2n_video.engine.protocol import Engine, Geometry, Rows
from a2n_video.engine.select import open_engine, resolve_plan
from a2n_video.errors import OptionError
from a2n_video.media.colorspec import UNSPECIFIED, ColorSpec
from a2n_video.media.planes import Family, PlaneFormat, Planes, PlaneShape, Samples
from a2n_video.options import Dtype, ExecutionPlan, ModelOptions

# A2NFrame in vs_plugin/a2n.h: five colour tags, three plane addresses, three strides in bytes, all int64.
COLOR_TAGS: Final = 5
MAX_PLANES: Final = 3
FRAME_FIELDS: Final = COLOR_TAGS + 2 * MAX_PLANES
UNSET: Final = -1
_FAMILIES: Final[dict[int, Family]] = {1: "gray", 2: "rgb", 3: "yuv"}
# A clip can change its tags on the way (spliced sources); more engines than these are not kept.
_ENGINES_KEPT: Final = 2

Table = npt.NDArray[np.int64]


class ClipFormat(NamedTuple):
    """A VSVideoFormat and the size, as the native side sends them."""

    family: int
    sample_type: int
    bits: int
    log2_chroma_w: int
    log2_chroma_h: int
    width: int
    height: int

    def plane_format(self) -> PlaneFormat:
        return PlaneFormat(
            width=self.width,
            height=self.height,
            family=_FAMILIES[self.family],
            depth=self.bits,
            floating=self.sample_type == 1,
            log2_chroma_w=self.log2_chroma_w,
            log2_chroma_h=self.log2_chroma_h,
        )


class Request(NamedTuple):
    """What the script asked for; None and 0 mean "not given"."""

    scale: int
    model: str | None
    weights: str | None
    device: str | None
    dtype: str | None
    batch_size: int
    num_streams: int

    def options(self) -> ModelOptions:
        dtype = self.dtype or "auto"
        if dtype not in get_args(Dtype):
            raise OptionError(f"no dtype {dtype!r}; there are: {', '.join(get_args(Dtype))}")
        return ModelOptions(
            model=self.model or "auto",
            weights=self.weights,
            scale=self.scale,
            device=self.device,
            dtype=dtype,
            batch_size=self.batch_size or None,
        )


@dataclass(frozen=True)
class _Part:
    """Frames of one group that went to one engine together, and where each result is to be written."""

    engine: Engine
    future: Future[Rows]
    targets: Sequence[Planes]


@dataclass(frozen=True)
class Ticket:
    """A group on its way."""

    parts: Sequence[_Part]
    submit_ns: int


class Filter:
    """What stands behind one `core.a2n.Upscale`: the plan, and an engine for each colour that the clip shows.

    Called from one thread at a time, any thread, and never by two frames at once: `submit` and `finish` in the same order.
    """

    def __init__(self, fmt: PlaneFormat, options: ModelOptions) -> None:
        self.fmt = fmt
        self.scale = options.scale
        color = engine_color(fmt, ColorSpec().settled(fmt))
        self._plan: ExecutionPlan = resolve_plan(options, self._geometry(color))
        self.batch_size = self._plan.batch_size
        self._engines: OrderedDict[ColorSpec, Engine] = OrderedDict()
        self._shapes = fmt.planes, self._geometry(color).target.planes
        self._engine(color)  # now, so that missing weights are told when the script is read

    def submit(self, sources: int, targets: int, count: int) -> Ticket:
        """Start `count` frames (1 to batch_size) described at `sources` towards the planes described at `targets`, addresses of A2NFrame arrays.

        The source planes are read before this returns. The colour tags of `targets` are filled in: what the frames turned out to be,
        nothing left open.
        """
        asked, answered = _table(sources, count), _table(targets, count)
        groups: dict[ColorSpec, list[int]] = {}
        for i, row in enumerate(asked[:, :COLOR_TAGS].tolist()):
            color = color_of(row).settled(self.fmt)
            answered[i, :COLOR_TAGS] = tags_of(color, self.fmt)
            groups.setdefault(engine_color(self.fmt, color), []).append(i)
        came, goes = asked[:, COLOR_TAGS:].tolist(), answered[:, COLOR_TAGS:].tolist()
        parts, spent = [], 0
        for color, members in groups.items():
            engine = self._engine(color)
            frames = [_planes(came[i], self._shapes[0], self.fmt.dtype) for i in members]
            results = [_planes(goes[i], self._shapes[1], self.fmt.dtype) for i in members]
            start = time.perf_counter_ns()
            future = engine.submit(frames)
            engine.flush()
            spent += time.perf_counter_ns() - start
            parts.append(_Part(engine, future, results))
        return Ticket(parts, spent)

    def finish(self, ticket: Ticket) -> int:
        """Wait for a group and write its results to its target planes; the nanoseconds that went to the engine.

        What the engine raised is raised here; that engine is closed, and the next group gets a new one.
        """
        spent = ticket.submit_ns
        for part in ticket.parts:
            start = time.perf_counter_ns()
            try:
                rows = part.future.result()
            except BaseException:
                self._discard(part.engine)
                raise
            spent += time.perf_counter_ns() - start
            self._write(rows, part.targets)
        return spent

    def close(self) -> None:
        """End the engines and their threads; idempotent."""
        while self._engines:
            self._engines.popitem()[1].close()

    def _geometry(self, color: ColorSpec) -> Geometry:
        return Geometry(source=self.fmt, color=color, scale=self.scale)

    def _engine(self, color: ColorSpec) -> Engine:
        if color not in self._engines:
            if len(self._engines) == _ENGINES_KEPT:
                self._engines.popitem(last=False)[1].close()
            self._engines[color] = open_engine(self._plan, self._geometry(color))
        self._engines.move_to_end(color)
        return self._engines[color]

    def _discard(self, engine: Engine) -> None:
        for color in [color for color, kept in self._engines.items() if kept is engine]:
            del self._engines[color]
        engine.close()

    def _write(self, rows: Rows, targets: Sequence[Planes]) -> None:
        for row, planes in zip(rows, targets, strict=True):
            for shape, plane in zip(self._shapes[1], planes, strict=True):
                plane[...] = row[shape.offset : shape.offset + shape.samples].reshape(plane.shape)


def open_filter(clip: Sequence[int], request: Sequence[Any], gate: int) -> Filter:
    """A new filter for a clip; `gate` is the address of the native function that ends all calls into Python.

    Raises what the engine raises for options, weights or devices that cannot be used (see errors.py).
    """
    opened = Filter(ClipFormat(*clip).plane_format(), Request(*request).options())
    _open_filters.add(opened)
    _register_exit(gate)
    return opened


def color_of(tags: Sequence[int]) -> ColorSpec:
    """VapourSynth's numbers (UNSET where a property is missing) as a ColorSpec; its chroma locations start at 0, FFmpeg's at 1."""
    matrix, full_range, primaries, transfer, chroma = tags
    return ColorSpec(
        matrix=UNSPECIFIED if matrix == UNSET else matrix,
        full_range=None if full_range == UNSET else bool(full_range),
        primaries=UNSPECIFIED if primaries == UNSET else primaries,
        transfer=UNSPECIFIED if transfer == UNSET else transfer,
        chroma_location=chroma + 1,
    )


def tags_of(color: ColorSpec, fmt: PlaneFormat) -> list[int]:
    """A settled ColorSpec as VapourSynth's numbers; UNSET for chroma locations where chroma is not subsampled."""
    subsampled = fmt.log2_chroma_w or fmt.log2_chroma_h
    chroma = max(color.chroma_location - 1, 0) if subsampled else UNSET
    return [color.matrix, int(bool(color.full_range)), color.primaries, color.transfer, chroma]


def engine_color(fmt: PlaneFormat, color: ColorSpec) -> ColorSpec:
    """What of a settled colour an engine's arithmetic depends on, so that equal arithmetic shares an engine.

    Primaries and transfer do not enter; 5 and 6 are one matrix; an unspecified chroma location is read as left.
    """
    subsampled = fmt.log2_chroma_w or fmt.log2_chroma_h
    chroma = max(color.chroma_location, 1) if subsampled else 0
    matrix = 5 if color.matrix == 6 else color.matrix
    return replace(color, matrix=matrix, primaries=UNSPECIFIED, transfer=UNSPECIFIED, chroma_location=chroma)


def _table(address: int, count: int) -> Table:
    memory = (ctypes.c_int64 * (FRAME_FIELDS * count)).from_address(address)
    return np.ndarray((count, FRAME_FIELDS), np.int64, memory)


def _planes(where: Sequence[int], shapes: Sequence[PlaneShape], dtype: np.dtype[Any]) -> tuple[Samples, ...]:
    """Views of a frame's planes; valid as long as the native side holds the frame."""
    return tuple(_plane(where[i], where[MAX_PLANES + i], shape, dtype) for i, shape in enumerate(shapes))


def _plane(address: int, stride: int, shape: PlaneShape, dtype: np.dtype[Any]) -> Samples:
    size = stride * (shape.height - 1) + shape.width * dtype.itemsize
    memory = (ctypes.c_char * size).from_address(address)
    return np.ndarray((shape.height, shape.width), dtype, memory, strides=(stride, dtype.itemsize))


_open_filters: WeakSet[Filter] = WeakSet()


@cache
def _register_exit(gate: int) -> None:
    atexit.register(_leave, gate)


def _leave(gate: int) -> None:
    """Before the interpreter ends: let the frames in Python come out, let no more in, then end the engines.

    A worker that waits for the GIL of an ending interpreter never returns, and VapourSynth waits for it. (vspipe does not end its
    interpreter; there the filters are closed one by one.)
    """
    ctypes.CFUNCTYPE(None)(gate)()
    for opened in list(_open_filters):
        with suppress(Exception):
            opened.close()
