"""Frames through FFmpeg's filters, in their own format: where a filter lacks it FFmpeg would convert, so it gets planes one by one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, Final

import av
import numpy as np
from av.filter import Graph

from a2n_video.errors import UnsupportedFormatError
from a2n_video.frames import color_of_frame, frame_planes, tag_frame, unexplained
from a2n_video.media.pixfmt import pix_fmt_of, plane_format
from a2n_video.media.planes import PlaneFormat, Samples

Frames = Iterator[av.VideoFrame]
Filters = tuple[tuple[str, str], ...]  # names and arguments

_TRIED: Final = (64, 48)


def kind_of(frame: av.VideoFrame) -> tuple[int, int, str]:
    """What a chain of filters is made for: a frame of another kind needs another one."""
    return frame.width, frame.height, frame.format.name


def format_of(frame: av.VideoFrame) -> PlaneFormat:
    """The planes of a frame that is native already."""
    fmt = plane_format(frame.format.name, frame.width, frame.height)
    if fmt is None:
        raise UnsupportedFormatError(f"pixel format {frame.format.name} has no planes of its own to be filtered")
    return fmt


def alone_through(name: str, arguments: str, frame: av.VideoFrame) -> av.VideoFrame:
    """What a filter that needs no neighbours and computes no colours gives for a frame.

    The frame itself stays as it is, tags and all, even for a moment: other threads may be reading it already.
    """
    graph = _graph(frame, ((name, arguments),))
    graph.push(frame)
    (made,) = _ready(graph)
    made.pts, made.time_base = frame.pts, frame.time_base
    tag_frame(made, color_of_frame(frame))
    return made


def field_mark(frame: av.VideoFrame) -> str:
    """What a frame is marked as, as setfield says it: prog, tff or bff. PyAV tells of interlace, but not which field is first."""
    if not frame.interlaced_frame:
        return "prog"
    graph = _graph(frame, (("select", "eq(interlace_type,TOPFIRST)"),))
    graph.push(frame)
    return "tff" if any(_ready(graph)) else "bff"


def made_frame(pix_fmt: str, planes: Sequence[Samples], like: av.VideoFrame) -> av.VideoFrame:
    """A frame of these planes at the time of another, of the first plane's size."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for target, plane in zip(frame_planes(frame, format_of(frame)), planes, strict=True):
        target[...] = plane
    frame.pts, frame.time_base = like.pts, like.time_base
    return frame


def filtered(frames: Frames, filters: Filters, per_frame: int = 1) -> Frames:
    """Native frames through filters that give `per_frame` for each, in order; a new chain for each new size or format.

    Every frame gets the time and the tags of its own (filters have clocks of their own and drop some tags) and keeps its format.
    """
    for (_, _, pix_fmt), same in itertools.groupby(frames, key=kind_of):
        waiting: deque[av.VideoFrame] = deque()
        given = 0
        way = through if keeps_format(filters, pix_fmt) else _by_planes
        for out in way(_noted(same, waiting), filters):
            source = waiting[0]
            given += 1
            if given == per_frame:
                waiting.popleft()
                given = 0
            if out.format.name != pix_fmt:
                raise UnsupportedFormatError(f"FFmpeg's {filters[0][0]} made {out.format.name} of {pix_fmt}; try --deinterlace off")
            out.pts, out.time_base = source.pts, source.time_base
            tag_frame(out, color_of_frame(source))
            yield out


@cache
def keeps_format(filters: Filters, pix_fmt: str) -> bool:
    """Whether this FFmpeg's filters take a format; else it converts for them, levels, depth, alpha and all, and says nothing."""
    frame = av.VideoFrame(*_TRIED, pix_fmt)
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return all(out.format.name == pix_fmt for out in through(iter([frame]), filters))


def _noted(frames: Frames, waiting: deque[av.VideoFrame]) -> Frames:
    for frame in frames:
        waiting.append(frame)
        yield frame


def _by_planes(frames: Frames, filters: Filters) -> Frames:
    """Each plane by itself as gray, of 16 bits where it is deeper than 8: what exceeds its own depth is cut, as a filter of it would."""
    first = next(frames)
    fmt = format_of(first)
    ways = itertools.tee(_taken_apart(itertools.chain([first], frames)), len(fmt.planes))
    for carried in zip(*(through(_one_plane(way, number), filters) for number, way in enumerate(ways)), strict=True):
        planes = [np.minimum(frame_planes(one, format_of(one))[0], (1 << fmt.depth) - 1) for one in carried]
        yield made_frame(first.format.name, planes, carried[0])


def _taken_apart(frames: Frames) -> Iterator[tuple[str, list[av.VideoFrame]]]:
    """Of each frame its mark, and its planes as gray frames."""
    for frame in frames:
        fmt = format_of(frame)
        gray = PlaneFormat(width=1, height=1, family="gray", depth=8 * fmt.dtype.itemsize)
        yield field_mark(frame), [made_frame(pix_fmt_of(gray), [plane], frame) for plane in frame_planes(frame, fmt)]


def _one_plane(parts: Iterator[tuple[str, list[av.VideoFrame]]], number: int) -> Frames:
    for mark, planes in parts:
        yield alone_through("setfield", mark, planes[number])


def through(frames: Frames, filters: Filters) -> Frames:
    """What filters make of frames of one kind, in whatever format that is."""
    graph: Graph | None = None
    for frame in frames:
        graph = graph or _graph(frame, filters)
        with unexplained(frame):
            graph.push(frame)
        yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.pull()  # type: ignore[misc]
        except (av.BlockingIOError, av.EOFError):
            return


def _graph(frame: av.VideoFrame, filters: Filters) -> Graph:
    graph = Graph()
    graph.threads = 1
    base = frame.time_base or Fraction(1, 1000)
    last: Any = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(base.numerator, base.denominator)
    )
    for name, arguments in filters:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
