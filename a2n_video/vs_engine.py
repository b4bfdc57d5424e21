"""The Python side of the VapourSynth filter: plane addresses in, plane addresses out, through the product's own engines.

The native filter (vs_plugin/) calls `open_filter` once for each `core.a2n.Upscale` and then `submit` and `finish` of what it gets,
from its worker threads, one at a time. Nothing here imports vapoursynth, and nothing writes to stdout: under vspipe that is the video.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol, cast, get_args
from weakref import WeakSet

import numpy as np

from a2n_video.engine.protocol import Engine, Geometry, Rows
from a2n_video.engine.select import open_engine, resolve_plan
from a2n_video.errors import MissingDependencyError, OptionError, named_as_in_python
from a2n_video.media.colorspec import RGB_MATRIX, UNSPECIFIED, ColorSpec
from a2n_video.media.planes import Family, PlaneFormat, Planes, Samples
from a2n_video.options import Dtype, ModelOptions

log = logging.getLogger(__name__)

# A2NFrame in vs_plugin/a2n.h, all int64: five colour tags, the five that the result gets, then three plane addresses and three strides
# in bytes of the source, and the same of the target.
COLOR_TAGS: Final = 5
MAX_PLANES: Final = 3
TAGS: Final = Struct(f"={COLOR_TAGS}q")
PLANES: Final = Struct(f"={2 * MAX_PLANES}q")
_ANSWER: Final = TAGS.size  # where in a frame each of the other three begins
_SOURCE: Final = _ANSWER + TAGS.size
_TARGET: Final = _SOURCE + PLANES.size
_FRAME_BYTES: Final = _TARGET + PLANES.size
UNSET: Final = -1
_FAMILIES: Final[dict[int, Family]] = {1: "gray", 2: "rgb", 3: "yuv"}
# A clip can change its tags on the way (spliced sources); more engines than these are not kept.
_ENGINES_KEPT: Final = 2
_VIEWS_KEPT: Final = 256
_REMEDY: Final = "If vapoursynth-mlrt-ov brought another OpenVINO into this core, see vs_plugin/README.md for how both get along"


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
            dtype=cast(Dtype, dtype),
            batch_size=self.batch_size or None,
        )


class _Shown(NamedTuple):
    """What a combination of colour tags means: the tags that the result gets (packed), and the engine's colour and a key for it."""

    answer: bytes
    color: ColorSpec
    key: tuple[int, ...]


class _Table(Protocol):
    """A2NFrames of the native side, as bytes in place."""

    def __getitem__(self, part: slice) -> bytes: ...

    def __setitem__(self, part: slice, value: bytes) -> None: ...


@dataclass(eq=False)
class _Slot:
    """An engine and the last batch it was given, until that was taken."""

    engine: Engine
    last: Future[Rows] | None = None

    def close(self) -> None:
        """End the engine once its batches are done: somebody still waits for them."""
        if self.last is not None:
            wait([self.last])
        self.engine.close()


@dataclass(slots=True)
class _Part:
    """Frames of one group that went to one engine together: where they stand in the table, and their rows."""

    slot: _Slot
    places: list[int]
    rows: Future[Rows] | None

    def take(self) -> Rows:
        """The rows, once; nothing is kept of them."""
        rows, self.rows = self.rows, None
        if self.slot.last is rows:
            self.slot.last = None
        assert rows is not None
        return rows.result()


@dataclass(slots=True)
class Ticket:
    """A group on its way: the table that describes its frames, its parts, and the nanoseconds that packing took."""

    table: _Table
    parts: list[_Part]
    packing_ns: int = 0


class _Memory:
    """Views of frames in VapourSynth's memory, for one plane format; valid as long as the native side holds the frame.

    VapourSynth uses its buffers again, and making a view takes longer than finding one: views are kept, by A2NPlanes as it lies in memory.
    """

    def __init__(self, fmt: PlaneFormat) -> None:
        self._dtype = fmt.dtype
        self._shapes = [(plane.height, plane.width) for plane in fmt.planes]
        self._spans = [slice(plane.offset, plane.offset + plane.samples) for plane in fmt.planes]
        self._kept: dict[bytes, Planes] = {}

    def planes(self, where: bytes) -> Planes:
        """Planes from their addresses and strides."""
        planes = self._kept.get(where)
        if planes is None:
            if len(self._kept) >= _VIEWS_KEPT:
                self._kept.clear()
            planes = self._kept[where] = self._views(PLANES.unpack(where))
        return planes

    def write(self, row: Samples, planes: Planes) -> None:
        """Copy one flat frame to its planes."""
        for span, shape, plane in zip(self._spans, self._shapes, planes, strict=True):
            plane[...] = row[span].reshape(shape)

    def _views(self, where: Sequence[int]) -> Planes:
        item = self._dtype.itemsize
        views = []
        for shape, address, stride in zip(self._shapes, where[:MAX_PLANES], where[MAX_PLANES:], strict=False):
            memory = _bytes_type(stride * (shape[0] - 1) + shape[1] * item).from_address(address)
            views.append(np.ndarray(shape, self._dtype, memory, 0, (stride, item)))
        return views


class Filter:
    """What stands behind one `core.a2n.Upscale`: the plan, and an engine for each colour that the clip shows.

    Called from one thread at a time, any thread, and never by two frames at once: `submit` and `finish` in the same order.
    """

    def __init__(self, fmt: PlaneFormat, options: ModelOptions) -> None:
        self.fmt = fmt
        self.scale = options.scale
        color = engine_color(fmt, ColorSpec().settled(fmt))
        self._plan = resolve_plan(options, self._geometry(color))
        self._slots: OrderedDict[tuple[int, ...], _Slot] = OrderedDict()
        self._shown: dict[bytes, _Shown] = {}
        self._tables: dict[int, _Table] = {}  # the native side has a few and keeps them as long as the filter
        self._source, self._target = _Memory(fmt), _Memory(self._geometry(color).target)
        self._open_first(options, TAGS.pack(*[UNSET] * COLOR_TAGS))
        self.batch_size = self._plan.batch_size

    def submit(self, frames: int, count: int) -> Ticket:
        """Start `count` frames, 1 to batch_size, described at the address `frames` (A2NFrame).

        The source planes are read before this returns. The tags of the results are filled in: nothing is left open but of gray.
        """
        table = self._tables.get(frames)
        if table is None:
            memory = _bytes_type(self.batch_size * _FRAME_BYTES).from_address(frames)
            table = self._tables[frames] = cast(_Table, memory)
        places: dict[_Slot, list[int]] = {}
        for at in range(0, count * _FRAME_BYTES, _FRAME_BYTES):
            tags = table[at : at + _ANSWER]
            if tags != self._tags:
                self._turn_to(tags)
            table[at + _ANSWER : at + _SOURCE] = self._answer
            places.setdefault(self._current, []).append(at)
        return self._send(table, places)

    @named_as_in_python()
    def finish(self, ticket: Ticket) -> int:
        """Wait for a group and write its results to its target planes; the nanoseconds that went to packing, the engine and unpacking.

        What the engine raised is raised here; that engine is closed, and the next group gets a new one.
        """
        start = time.perf_counter_ns()
        for part in ticket.parts:
            try:
                rows = part.take()
            except BaseException:
                self._discard(part.slot)
                raise
            for row, at in zip(rows, part.places, strict=True):
                self._target.write(row, self._target.planes(ticket.table[at + _TARGET : at + _FRAME_BYTES]))
            del row, rows  # the engine's memory goes back here, not when somebody lets go of the ticket
        return ticket.packing_ns + time.perf_counter_ns() - start

    def __call__(self, frames: int, count: int) -> int:
        """`submit` and `finish` in one call from the native side."""
        return self.finish(self.submit(frames, count))

    def close(self) -> None:
        """End the engines and their threads; idempotent."""
        while self._slots:
            self._slots.popitem()[1].close()

    def _open_first(self, options: ModelOptions, tags: bytes) -> None:
        """Open an engine now, so that missing weights are told when the script is read."""
        try:
            self._turn_to(tags)
        except MissingDependencyError as error:
            # find_spec sees OpenVINO, but another plugin of this core (vapoursynth-mlrt-ov) has loaded a library of the same name.
            if options.engine != "auto" or self._plan.engine != "openvino" or options.dtype == "int8":
                raise
            reason = str(error.__cause__ or error).partition("\n")[0]
            log.warning("a2n.Upscale: OpenVINO cannot be loaded (%s); going on with torch, which is slower. %s", reason, _REMEDY)
            self._plan = resolve_plan(replace(options, engine="torch"), self._geometry(self._meaning(tags).color))
            self._turn_to(tags)

    def _send(self, table: _Table, places: dict[_Slot, list[int]]) -> Ticket:
        start = time.perf_counter_ns()
        ticket = Ticket(table, [])
        for slot, ats in places.items():
            slot.last = slot.engine.submit([self._source.planes(table[at + _SOURCE : at + _TARGET]) for at in ats])
            ticket.parts.append(_Part(slot, ats, slot.last))
        while len(self._slots) > _ENGINES_KEPT:
            self._discard(next(iter(self._slots.values())))
        ticket.packing_ns = time.perf_counter_ns() - start
        return ticket

    def _turn_to(self, tags: bytes) -> None:
        """Have the answer and the engine for these tags at hand: the next frame's are mostly the same."""
        shown = self._meaning(tags)
        self._current = self._slot(shown)
        self._tags, self._answer = tags, shown.answer

    def _meaning(self, tags: bytes) -> _Shown:
        shown = self._shown.get(tags)
        if shown is None:
            said = TAGS.unpack(tags)
            gray, color = self.fmt.family == "gray", color_of(said)
            if gray and color.matrix == RGB_MATRIX:  # a plane of RGB
                color = replace(color, full_range=color.full_range is not False)
            color = color.settled(self.fmt)
            used = engine_color(self.fmt, color)
            # Gray may be a plane of anything, and joined with the others again: it gets no tag that it had not.
            answer = tags if gray else TAGS.pack(*tags_of(color, self.fmt))
            key = (used.matrix, used.full_range is True, used.chroma_location)
            shown = self._shown[tags] = _Shown(answer, used, key)
        return shown

    def _geometry(self, color: ColorSpec) -> Geometry:
        return Geometry(source=self.fmt, color=color, scale=self.scale)

    def _slot(self, shown: _Shown) -> _Slot:
        slot = self._slots.get(shown.key)
        if slot is None:
            slot = self._slots[shown.key] = _Slot(open_engine(self._plan, self._geometry(shown.color)))
        if len(self._slots) > 1:
            self._slots.move_to_end(shown.key)
        return slot

    def _discard(self, slot: _Slot) -> None:
        self._tags = b""  # none: whatever comes next is looked up again
        for key in [key for key, kept in self._slots.items() if kept is slot]:
            del self._slots[key]
        slot.close()


@named_as_in_python()
def open_filter(clip: Sequence[int], request: Sequence[Any], gate: int) -> Filter:
    """A new filter for a clip; `gate` is the address of the native function that ends all calls into Python.

    Raises what the engine raises for options, weights or devices that cannot be used (see errors.py).
    """
    opened = Filter(ClipFormat(*clip).plane_format(), Request(*request).options())
    _open_filters.add(opened)
    _register_exit(gate)
    return opened


def filter_state() -> str:
    """Whether the native filter lies beside this Python's VapourSynth, and if not, why: one line."""
    spec = find_spec("vapoursynth")
    if spec is None or not spec.submodule_search_locations:
        return "VapourSynth is not installed"
    folder = Path(spec.submodule_search_locations[0]) / "plugins" / "a2n"
    if any(folder.glob("liba2n.*")):
        return "core.a2n is installed"
    note = folder / "MISSING.txt"
    return note.read_text().partition("\n")[0] if note.exists() else "core.a2n is missing: it is built where pip install finds a C compiler"


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


@cache
def _bytes_type(count: int) -> type[ctypes.Array[ctypes.c_char]]:
    # ctypes takes 20 us to make an array type that nobody has kept.
    return ctypes.c_char * count


_open_filters: WeakSet[Filter] = WeakSet()


def _register_exit(gate: int) -> None:
    # Again with each filter: what was registered last goes first, and the filter may have been the first with an engine that has an end.
    atexit.unregister(_leaving(gate))
    atexit.register(_leaving(gate))


@cache
def _leaving(gate: int) -> Callable[[], None]:
    return partial(_leave, gate)


def _leave(gate: int) -> None:
    """Before the interpreter ends: let the frames in Python come out, let no more in, then end the engines.

    A worker that waits for the GIL of an ending interpreter never returns, and VapourSynth waits for it. (vspipe does not end its
    interpreter; there the filters are closed one by one.)
    """
    ctypes.CFUNCTYPE(None)(gate)()
    for opened in list(_open_filters):
        with suppress(Exception):
            opened.close()
