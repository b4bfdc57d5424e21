"""What is done to decoded frames before the network: deinterlacing with FFmpeg's filters; and the look that tells if it is needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from a2n_video.frames import color_of_frame, frame_planes, tag_frame
from a2n_video.io.decoding import decoding, fed
from a2n_video.io.graphs import (
    Filters,
    Frames,
    alone_through,
    field_mark,
    filtered,
    format_of,
    keeps_format,
    kind_of,
    made_frame,
    through,
)
from a2n_video.io.source import open_source, video_stream
from a2n_video.media.info import VideoInfo
from a2n_video.media.interlace import CYCLE, FieldOrder, InterlaceFindings, InterlacePlan, Mode, cycle_times, film_clock, next_time
from a2n_video.media.pixfmt import pix_fmt_of
from a2n_video.media.timemap import TimeMap

_LOOK_AT: Final = 40
_TALLEST: Final = 1152
# Codecs that have no interlaced form.
_PROGRESSIVE: Final = frozenset({"vp8", "vp9", "av1", "gif", "webp", "apng", "png", "tiff", "bmp"})
_FIELDMATCH: Final = ("fieldmatch", "order=auto:combmatch=full:mode=pc_n")
_FLAGGED: Final = ("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
_BWDIF: Final[dict[Mode, Filters]] = {
    "flagged": (_FLAGGED,),
    "all": (("bwdif", "mode=send_frame:parity=auto:deint=all"),),
    "field": (("bwdif", "mode=send_field:parity=auto:deint=all"),),
}


def deinterlaced(frames: Frames, plan: InterlacePlan, source: TimeMap) -> Frames:
    """Frames with whole pictures, on the clock of `result_map` (before it is cut). Runs in the reader's thread.

    `frames` are native, their pts settled by `source`. As many come out as went in; "field" gives two for one, "ivtc" four for five.
    "flagged" passes everything on untouched until the first frame that its decoder calls interlaced.
    """
    if plan.mode == "off":
        return frames
    if plan.mode == "flagged":
        return _from_first_flagged(frames)
    frames = _marked(frames, plan.order)
    if plan.mode == "field":
        return _fields(filtered(frames, _BWDIF["field"], per_frame=2), source)
    if plan.mode == "ivtc":
        return _decimated(filtered(_matched(frames), (_FLAGGED,)), source)
    return filtered(frames, _BWDIF[plan.mode])


def _from_first_flagged(frames: Frames) -> Frames:
    """The first such frame comes out as if the filter had been there all along: the same wherever in the file decoding began.

    So the filter is given two frames whose output nobody needs: one that is interlaced, since it does its first one by itself, without
    its neighbours; and the one before, as a copy, since that is others' by now.
    """
    before: av.VideoFrame | None = None
    for frame in frames:
        if frame.interlaced_frame:
            lead = [] if before is None else [frame, alone_through("null", "", before)]
            yield from itertools.islice(filtered(itertools.chain(lead, [frame], frames), _BWDIF["flagged"]), len(lead), None)
            return
        yield frame
        before = frame


def _marked(frames: Frames, order: FieldOrder) -> Frames:
    """Frames that all say which of their fields comes first: those without a mark get `order`."""
    for frame in frames:
        yield frame if order == "auto" or frame.interlaced_frame else alone_through("setfield", order, frame)


def copied_frame(frame: av.VideoFrame) -> av.VideoFrame:
    """A copy of a frame with all that is known of it: PyAV lets nobody set what says that it is interlaced, FFmpeg's filters keep it."""
    return alone_through("copy", "", frame)


def _matched(frames: Frames) -> Frames:
    """Frames of which each has fields that go together, its own or a neighbour's; those still woven are marked as interlaced."""
    for (_, _, pix_fmt), same in itertools.groupby(frames, key=kind_of):
        if keeps_format((_FIELDMATCH,), pix_fmt):
            yield from filtered(same, (_FIELDMATCH,))
        else:
            yield from _matched_by_copies(same)


def _matched_by_copies(frames: Frames) -> Frames:
    """fieldmatch chooses among copies of 8 bits, whose fields tell which frame they are of; the frames' own lines are woven."""
    known: dict[int, av.VideoFrame] = {}

    def copies() -> Frames:
        for number, frame in enumerate(frames):
            known[number] = frame
            yield alone_through("setfield", field_mark(frame), _numbered_copy(frame, number))

    for number, chosen in enumerate(through(copies(), (_FIELDMATCH,))):
        near = {other % 3: known[other] for other in (number - 1, number, number + 1) if other in known}
        top, bottom = (near[int(line[0]) % 4] for line in _luma(chosen)[:2])
        whole = known[number] if top is bottom is known[number] else _woven(top, bottom, known[number])
        yield alone_through("setfield", field_mark(chosen), whole)
        known.pop(number - 1, None)


def _numbered_copy(frame: av.VideoFrame, number: int) -> av.VideoFrame:
    """An 8-bit copy, of RGB as if it were YUV, that has its number (by three) in the last two bits where each field begins.

    fieldmatch looks at no column so near the edge, and for combs at much larger differences.
    """
    fmt = format_of(frame)
    planes = [(plane >> (fmt.depth - 8)).astype(np.uint8) for plane in frame_planes(frame, fmt)]
    luma, chroma = planes[0], planes[1:3]
    luma[:2, 0] = luma[:2, 0] & 0xFC | number % 3
    if fmt.family == "gray":
        chroma = [np.full((-(-fmt.height // 2), -(-fmt.width // 2)), 128, np.uint8)] * 2
    pix_fmt = "yuv420p" if fmt.family == "gray" else pix_fmt_of(replace(fmt, family="yuv", depth=8, alpha=False))
    if pix_fmt == "yuv440p":  # which fieldmatch does not take
        pix_fmt, chroma = "yuv420p", [plane[:, ::2] for plane in chroma]
    return made_frame(pix_fmt, [luma, *chroma], frame)


def _woven(top: av.VideoFrame, bottom: av.VideoFrame, like: av.VideoFrame) -> av.VideoFrame:
    """The even lines of one frame and the odd ones of another, told as a third."""
    planes = [plane.copy() for plane in frame_planes(top, format_of(top))]
    for plane, other in zip(planes, frame_planes(bottom, format_of(bottom)), strict=True):
        plane[1::2] = other[1::2]
    made = made_frame(like.format.name, planes, like)
    tag_frame(made, color_of_frame(like))
    return made


def _fields(frames: Frames, source: TimeMap) -> Frames:
    """Pairs of frames with one time: the first in its place, the second half-way to the next; in half ticks."""
    for number, frame in enumerate(frames):
        assert frame.pts is not None
        frame.pts = frame.pts + next_time(source, frame.pts) if number % 2 else 2 * frame.pts
        frame.time_base = source.time_base / 2
        yield frame


def _decimated(frames: Frames, source: TimeMap) -> Frames:
    """Of every five frames (as the map counts them) the one most like the frame before it is left out; the rest share its time.

    On the clock that says it, `film_clock`.
    """
    exact = film_clock(source)
    ticks = int(source.time_base / exact.time_base)
    place = {time: number for number, time in enumerate(source.times)}
    previous: av.VideoFrame | None = None
    for number, group in itertools.groupby(frames, key=lambda frame: place.get(frame.pts or 0, -1) // CYCLE):
        cycle = list(group)
        before = [previous, *cycle[:-1]]
        previous = cycle[-1]
        for frame in cycle:
            frame.pts, frame.time_base = ticks * (frame.pts or 0), exact.time_base
        if number >= 0 and len(cycle) == CYCLE:
            changes = [_change(a, b) for a, b in zip(before, cycle, strict=True)]
            cycle.pop(changes.index(min(changes)))
            for frame, time in zip(cycle, cycle_times(exact, number * CYCLE), strict=True):
                frame.pts = time
        yield from cycle


def _change(before: av.VideoFrame | None, frame: av.VideoFrame) -> float:
    """How much the most changed 16x16 block of luma changed: small things that move count as much as large ones."""
    if before is None or (before.width, before.height) != (frame.width, frame.height):
        return float("inf")
    a, b = (_luma(f).astype(np.int32) for f in (before, frame))
    difference = np.abs(a - b)
    height, width = (side - side % 16 for side in difference.shape)
    if not height or not width:
        return float(difference.sum())
    return float(difference[:height, :width].reshape(height // 16, 16, width // 16, 16).sum(axis=(1, 3)).max())


def _luma(frame: av.VideoFrame) -> np.ndarray[Any, Any]:
    dtype = np.uint8 if frame.format.components[0].bits <= 8 else np.uint16
    plane = frame.planes[0]
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]


def look_for_interlace(path: Path, info: VideoInfo, frames: int = _LOOK_AT) -> InterlaceFindings:
    """Decode the first frames and see what they are; nothing is decoded where a codec or a height has no interlaced form.

    But where the first frame is called interlaced, as a container can call PNG.
    """
    if not info.interlaced and (info.video.codec in _PROGRESSIVE or info.height > _TALLEST):
        return InterlaceFindings()
    with open_source(path, ignore_edits=info.ignore_edits) as container:
        decoded = itertools.islice(_quietly_decoded(container, path), frames)
        flags: list[bool] = []
        seen = [(_seen(out, "multiple"), _seen(out, "repeated"), _combed(out)) for out in _idet(decoded, flags.append)]
    return InterlaceFindings(
        frames=len(flags),
        flagged=sum(flags),
        looks="".join(look for look, _, _ in seen),
        repeats="".join(repeated for _, repeated, _ in seen),
        combed=sum(combed for _, _, combed in seen),
    )


def _quietly_decoded(container: Any, path: Path) -> Frames:
    stream = video_stream(container, path)
    with decoding(stream) as decoder, suppress(av.FFmpegError):
        for packet in fed(container.demux(stream)):
            with suppress(av.FFmpegError):  # the reader counts damage; here only whole frames are looked at
                yield from decoder.decode(packet)


def _idet(frames: Frames, note_flag: Callable[[bool], None]) -> Frames:
    def noted() -> Frames:
        for number, frame in enumerate(frames):
            note_flag(bool(frame.interlaced_frame))
            frame.pts, frame.time_base = number, Fraction(1, 25)
            yield frame

    first = next(itertools.groupby(noted(), key=kind_of), None)
    return iter(()) if first is None else through(first[1], (("format", "gray"), ("idet", "")))


def _seen(frame: av.VideoFrame, what: str) -> str:
    return str(frame.metadata.get(f"lavfi.idet.{what}.current_frame", "u"))[0]


def _combed(frame: av.VideoFrame) -> bool:
    """Whether in some places neighbouring lines differ much more than every second line does: two moments woven into one picture."""
    luma = _luma(frame).astype(np.int32)
    height, width = (side - 2 - (side - 2) % 16 for side in luma.shape)
    if height < 16 or width < 16:
        return False
    near, far = (np.abs(luma[:height, :width] - luma[lines : height + lines, :width]) for lines in (1, 2))
    near, far = (x.reshape(height // 16, 16, width // 16, 16).mean(axis=(1, 3)) for x in (near, far))
    return bool(np.mean((near > 1.5 * far) & (near > 8)) > 0.005)
