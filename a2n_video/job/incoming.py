"""The sources of jobs that are one stream, each read once: y4m from a pipe, pictures, and the video of a file without the rest of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from a2n_video.errors import OptionError
from a2n_video.io.chunks import animated_frames
from a2n_video.io.filters import look_for_interlace
from a2n_video.io.fitting import changes_of
from a2n_video.io.packets import scan
from a2n_video.io.probe import check_pixels, more, probe
from a2n_video.io.reader import Damage, VideoReader
from a2n_video.io.sequences import is_numbered, is_picture, numbered_files, read_pictures
from a2n_video.io.whole import cut_short
from a2n_video.io.y4m import Y4mHeader, read_frames, read_header
from a2n_video.job.encode import frames_until
from a2n_video.media.index import TimeMap
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.interlace import plan_interlace, result_map
from a2n_video.options import JobOptions, TimeRange

if TYPE_CHECKING:
    import av

_RATE: Final = Fraction(25)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A source to be read once: what it is, its frames, their clock, and the number of the first where it has one.

    `times` are those of its frames, None where the pipe or the pictures have none but their rate; `count` how many come, if known.
    `files` are all that belong to it. `damage` is what is met on the way, `cut_short` how it ends before its time, where that is seen
    before. `position` changes while a long step goes on (see `Stage`).
    """

    info: VideoInfo
    frames: Iterator[av.VideoFrame]
    rate: Fraction
    time_base: Fraction
    first: int = 1
    times: TimeMap | None = None
    count: int | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    damage: Damage = field(default_factory=Damage)
    cut_short: str | None = None
    position: Callable[[], object] | None = None


def stream_of(source: Path, options: JobOptions) -> Stream:
    """The video of a file, of numbered pictures or of one picture."""
    return _of_pictures(source, options) if is_numbered(source) or is_picture(source) else _of_file(source, options)


def y4m_stream(source: Path, pipe: io.BufferedReader, options: JobOptions) -> Stream:
    """Frames from a pipe, which is `source` to people; the header is read here."""
    header = read_header(pipe)
    _check_deinterlace(options, "a y4m pipe", interlaced=header.interlaced)
    check_pixels("the pipe", header.fmt.width, header.fmt.height, options.execution.max_pixels)
    read = _Counted(read_frames(pipe, header))
    frames = _counted_anew(islice(read, *_numbers(options.time, header.rate)))
    notes = () if options.fidelity.fps is None else (f"--fps is left aside: the pipe says {header.rate} frames a second",)
    # Whoever feeds the pipe may pause for as long as it likes, unless somebody said how long.
    position = object if options.execution.stall_timeout is None else lambda: read.count
    info = _info_of(header, source)
    return Stream(info=info, frames=frames, rate=header.rate, time_base=info.time_base, notes=notes, position=position)


def _info_of(header: Y4mHeader, source: Path) -> VideoInfo:
    """What is known of a y4m pipe before its first frame."""
    base = 1 / header.rate
    return VideoInfo(
        path=source,
        container="yuv4mpegpipe",
        size_bytes=0,
        duration=None,
        metadata={},
        chapters=(),
        streams=(StreamInfo(index=0, kind="video", codec="rawvideo", time_base=base),),
        video_index=0,
        pix_fmt="",
        planes=header.fmt,
        color=header.color,
        frame_rate=header.rate,
        time_base=base,
        sar=header.sar,
        interlaced=header.interlaced,
    )


def _of_pictures(source: Path, options: JobOptions) -> Stream:
    _check_deinterlace(options, "pictures")
    rate = options.fidelity.fps or _RATE
    files = numbered_files(source) if is_numbered(source) else {1: source}
    taken = dict(islice(files.items(), *_numbers(options.time, rate)))
    if not taken:
        raise OptionError(f"no frame lies between --start and --end: the pictures last {float(len(files) / rate):.3f} s")
    paths, damage, max_pixels = list(taken.values()), Damage(), options.execution.max_pixels
    info = probe(paths[0], max_pixels)
    animated = more(animated_frames(paths[0]), "frame")
    return Stream(
        info=replace(info, path=source, frame_rate=rate, time_base=1 / rate, unread=info.unread + animated),
        frames=changes_of(read_pictures(paths, rate, max_pixels, damage), damage.changes),
        rate=rate,
        time_base=1 / rate,
        first=min(taken),
        count=len(taken),
        notes=("an animated PNG is taken as a video where its name ends with .apng",) if animated else (),
        files=tuple(files.values()),
        damage=damage,
    )


def _of_file(source: Path, options: JobOptions) -> Stream:
    info = probe(source, options.execution.max_pixels)
    scanned = scan(source, info, fps=options.fidelity.fps)
    interlace = plan_interlace(options.fidelity.deinterlace, look_for_interlace(source, info), info.height)
    time_map = result_map(interlace, scanned.time_map).cut(start=options.time.start, end=options.time.end, frames=options.time.frames)
    reader = VideoReader(source, info=info, time_map=time_map, source_map=scanned.time_map, deinterlace=interlace)
    return Stream(
        info=info,
        frames=frames_until(reader),
        rate=(scanned.frame_rate or _RATE) * interlace.rate_factor,
        time_base=time_map.time_base,
        times=time_map,
        count=time_map.frames,
        notes=(interlace.note,) if interlace.note else (),
        files=(source,),
        damage=reader.damage,
        cut_short=cut_short(source) or scanned.error,
        position=lambda: reader.position,
    )


def _check_deinterlace(options: JobOptions, what: str, *, interlaced: bool = False) -> None:
    """OptionError for woven frames that nobody knows of, and for asking to unweave them: what order their fields have is not said."""
    wanted = options.fidelity.deinterlace
    if wanted in ("frame", "field", "ivtc"):
        raise OptionError(f"--deinterlace {wanted}: {what} cannot be deinterlaced here; do it before, or give a video file or a nut pipe")
    if interlaced and wanted == "auto":
        raise OptionError("the pipe says that it is interlaced; deinterlace it before, or insist with --deinterlace off")


def _numbers(time: TimeRange, rate: Fraction) -> tuple[int, int | None]:
    """Which frames are taken, counted from 0, the last one exclusive, where they come at one rate; OptionError for none."""
    first = max(0, ceil((time.start or 0) * rate))
    ends = [] if time.frames is None else [first + time.frames]
    ends += [] if time.end is None else [ceil(time.end * rate)]
    last = min(ends, default=None)
    if last is not None and last <= first:
        raise OptionError(f"no frame lies between --start and --end: frames come every {float(1 / rate):.3f} s")
    return first, last


@dataclass
class _Counted:
    """Frames, and how many came so far: where the first ones are skipped, nothing else tells that they come."""

    frames: Iterator[av.VideoFrame]
    count: int = 0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for frame in self.frames:
            self.count += 1
            yield frame


def _counted_anew(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The frames of a part, whose first one comes at 0."""
    for number, frame in enumerate(frames):
        frame.pts = number
        yield frame
