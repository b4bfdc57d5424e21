"""Jobs that are one stream from end to end: y4m in or out of a pipe, numbered pictures, single pictures. No segments, no journal.

nut and mkv on a pipe go by way of a temporary file and the whole road, so that sound, subtitles and chapters come along.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from a2n_video.engine.select import resolve_plan
from a2n_video.errors import OptionError
from a2n_video.io.backends import open_writer
from a2n_video.io.filters import look_for_interlace
from a2n_video.io.fitting import Fit, fitted
from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.io.sequences import PICTURES, PictureWriter, is_numbered, is_picture, numbered_files, read_pictures
from a2n_video.io.writer import FORMAT_NAMES
from a2n_video.io.y4m import MAGIC, PIX_FMTS, Y4mHeader, Y4mWriter, read_frames, read_header
from a2n_video.job.encode import Progress, frames_until
from a2n_video.job.picture import settle_fit, settle_picture
from a2n_video.job.plan import check_paths, prepare
from a2n_video.job.run import UpscaleResult, run
from a2n_video.job.stages import Stages
from a2n_video.job.stops import Stops
from a2n_video.media.encoders import encoded_pix_fmt
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.interlace import plan_interlace, result_map
from a2n_video.media.streams import container_of
from a2n_video.options import JobOptions
from a2n_video.upscaler import Upscaler

if TYPE_CHECKING:
    import av

    from a2n_video.engine.protocol import Geometry

PIPE: Final = Path("-")
_RATE: Final = Fraction(25)
_DEPTH: Final = 4


class _Sink(Protocol):
    def write(self, frame: av.VideoFrame) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """A source to be read once: what it is, its frames, their clock, and the number of the first where it has one."""

    info: VideoInfo
    frames: Iterator[av.VideoFrame]
    rate: Fraction
    time_base: Fraction
    first: int = 1


def is_streamed(source: Path, dest: Path) -> bool:
    """Whether a job is one of these."""
    return PIPE in (source, dest) or is_numbered(source) or is_picture(dest) or dest.suffix.lower() == ".y4m"


def upscale_stream(
    source: Path, dest: Path, options: JobOptions, on_progress: Progress | None = None, stops: Stops | None = None
) -> UpscaleResult:
    """Carry out a job from or to a pipe or pictures, until `stops` says so. `-` is stdin or stdout, which carry nothing else then."""
    started = time.monotonic()
    stops = stops or Stops()
    with ExitStack() as stack:
        if source == PIPE:
            head = _peeked(stdin())
            if not head.startswith(MAGIC):
                source = _spooled(stack)
        if dest == PIPE and options.encode.pipe_format != "y4m":
            return _through_file(source, options, on_progress, stops)
        if source != PIPE and not is_streamed(source, dest):
            return run(prepare(source, dest, options), on_progress, stops)
        stream = _opened(source, options)
        with stops.deferred():
            frames = _upscaled_into(stream, dest, options, stack, on_progress, stops)
    unread = " (a pipe cannot be read again to verify it)" if dest == PIPE else ""
    return UpscaleResult(path=dest, frames=frames, seconds=time.monotonic() - started, verified=f"{frames} frames written{unread}")


def stdin() -> io.BufferedReader:
    return cast(io.BufferedReader, sys.stdin.buffer)


def stdout() -> BinaryIO:
    return sys.stdout.buffer


def _peeked(stream: io.BufferedReader) -> bytes:
    return stream.peek(len(MAGIC))[: len(MAGIC)]


def _spooled(stack: ExitStack) -> Path:
    """Stdin whole in a temporary file, which its demuxer can search."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a2n-video-")))
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(stdin(), file, 1 << 20)
    return path


def _through_file(source: Path, options: JobOptions, on_progress: Progress | None, stops: Stops) -> UpscaleResult:
    if source == PIPE or is_numbered(source):
        raise OptionError("--pipe-format nut and mkv need a source with a clock of its own: a file, or nut or mkv on the pipe")
    with tempfile.TemporaryDirectory(prefix="a2n-video-") as folder:
        dest = Path(folder) / f"out.{options.encode.pipe_format}"
        result = run(prepare(source, dest, options), on_progress, stops)
        with dest.open("rb") as file:
            shutil.copyfileobj(file, stdout(), 1 << 20)
        stdout().flush()
    return replace(result, path=PIPE)


def _opened(source: Path, options: JobOptions) -> _Stream:
    if source == PIPE:
        return _y4m_stream(stdin(), options)
    if is_numbered(source) or is_picture(source):
        files = numbered_files(source) if is_numbered(source) else [source]
        rate = options.fidelity.fps or _RATE
        info = replace(probe(files[0], options.execution.max_pixels), path=source, frame_rate=rate, time_base=1 / rate)
        digits = [c for c in files[0].stem.split(".")[-1] if c.isdigit()]
        first = int("".join(digits) or 1) if is_numbered(source) else 1
        frames = islice(read_pictures(files, rate), options.time.frames)
        return _Stream(info=info, frames=frames, rate=rate, time_base=1 / rate, first=first)
    return _file_stream(source, options)


def _y4m_stream(stream: io.BufferedReader, options: JobOptions) -> _Stream:
    header = read_header(stream)
    base = 1 / header.rate
    info = VideoInfo(
        path=PIPE,
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
    if header.interlaced and options.fidelity.deinterlace == "auto":
        raise OptionError("the pipe says that it is interlaced; deinterlace it before, or insist with --deinterlace off")
    frames = islice(read_frames(stream, header), options.time.frames)
    return _Stream(info=info, frames=frames, rate=header.rate, time_base=base)


def _file_stream(source: Path, options: JobOptions) -> _Stream:
    info = probe(source, options.execution.max_pixels)
    source_map = scan(source, info, fps=options.fidelity.fps).time_map
    found = look_for_interlace(source, info)
    interlace = plan_interlace(options.fidelity.deinterlace, found, info.height)
    time_map = result_map(interlace, source_map).cut(start=options.time.start, end=options.time.end, frames=options.time.frames)
    reader = VideoReader(source, info=info, time_map=time_map, source_map=source_map, deinterlace=interlace.mode)
    rate = (info.frame_rate or _RATE) * {"field": Fraction(2), "ivtc": Fraction(4, 5)}.get(interlace.mode, Fraction(1))
    return _Stream(info=info, frames=frames_until(reader), rate=rate, time_base=time_map.time_base)


def _upscaled_into(stream: _Stream, dest: Path, options: JobOptions, stack: ExitStack, on_progress: Progress | None, stops: Stops) -> int:
    """The pipeline, from the stream into whatever `dest` is; the number of frames."""
    geometry, fit, sink, finish = _sink(stream, dest, options, stack)
    model = replace(options.model, scale=geometry.scale)
    upscaler = Upscaler.from_options(model, resolve_plan(model, geometry), geometry.layout)
    count = 0
    with Stages(stream.info.path, stops) as stages:
        stack.callback(stages.let_go, upscaler.close, "upscale")
        decoded = stages.prefetch(stream.frames, _DEPTH, "decode")
        for count, frame in enumerate(stages.prefetch(fitted(upscaler.upscale_frames(decoded), fit), _DEPTH, "upscale"), 1):
            sink.write(frame)
            if on_progress is not None:
                on_progress(count)
    sink.close()
    if finish is not None:
        file, final = finish
        file.finish()
        publish(file.path, final, overwrite=options.execution.overwrite)
    return count


def _partial(path: Path, stack: ExitStack) -> OutFile:
    """A file that is gone again unless it is given its name."""
    stack.callback(path.unlink, missing_ok=True)
    return stack.enter_context(OutFile(path))


_Placed = tuple[OutFile, Path] | None


def _sink(stream: _Stream, dest: Path, options: JobOptions, stack: ExitStack) -> tuple[Geometry, Fit, _Sink, _Placed]:
    """Where frames go: the engine's geometry, what frames must be, who takes them, and a file that still has to get its name."""
    info = stream.info
    if is_picture(dest):
        codec, formats = PICTURES[dest.suffix.lower()]
        pix_fmt = encoded_pix_fmt(codec, info.planes, formats, options.encode.pix_fmt)
        geometry, fit, _ = settle_fit(info, codec, pix_fmt, options)
        return geometry, fit, PictureWriter(dest, pix_fmt, stream.first, overwrite=options.execution.overwrite), None
    if dest != PIPE:
        check_paths(stream.info.path, dest, overwrite=options.execution.overwrite)
    partial = dest.with_name(f"{dest.name}.part")
    if dest == PIPE or dest.suffix.lower() == ".y4m":
        pix_fmt = encoded_pix_fmt("wrapped_avframe", info.planes, PIX_FMTS, options.encode.pix_fmt)
        geometry, fit, size = settle_fit(info, "wrapped_avframe", pix_fmt, options)
        header = Y4mHeader(fmt=fit.target, rate=stream.rate, sar=size.sar, color=fit.color)
        if dest == PIPE:
            return geometry, fit, Y4mWriter(stdout(), header), None
        file = _partial(partial, stack)
        return geometry, fit, Y4mWriter(cast(BinaryIO, file), header), (file, dest)
    container = container_of(dest)
    picture = settle_picture(info, stream.time_base, stream.rate, container, options)
    file = _partial(partial, stack)
    settings = replace(picture.encoder, container=FORMAT_NAMES.get(container, container))
    return picture.geometry, picture.fit, cast(_Sink, open_writer(cast(BinaryIO, file), settings)), (file, dest)
