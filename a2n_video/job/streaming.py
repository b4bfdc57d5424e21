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
from a2n_video.io.fitting import fitted
from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.io.sequences import PICTURES, PictureWriter, is_numbered, is_picture, numbered_files, read_pictures
from a2n_video.io.writer import FORMAT_NAMES, EncoderSettings
from a2n_video.io.y4m import MAGIC, PIX_FMTS, Y4mHeader, Y4mWriter, read_frames, read_header
from a2n_video.job.encode import Progress, frames_until
from a2n_video.job.picture import PicturePlan, picture_for, settle_picture
from a2n_video.job.plan import JobPlan, check_paths, prepare
from a2n_video.job.report import Plan
from a2n_video.job.result import UpscaleResult
from a2n_video.job.stages import Stages
from a2n_video.job.stops import Stops
from a2n_video.media.index import TimeMap
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.interlace import plan_interlace, result_map
from a2n_video.media.steady import off_rate
from a2n_video.media.streams import Container, StreamFate, StreamPlan, container_of, plan_streams
from a2n_video.options import ExecutionPlan, JobOptions
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
    """A source to be read once: what it is, its frames, their clock, and the number of the first where it has one.

    `times` are those of its frames, None where the pipe or the pictures have none but their rate; `count` how many come, if known.
    """

    info: VideoInfo
    frames: Iterator[av.VideoFrame]
    rate: Fraction
    time_base: Fraction
    first: int = 1
    times: TimeMap | None = None
    count: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StreamedPlan:
    """A job that is one stream, settled: see `report.Plan`."""

    source: _Stream
    dest: Path
    options: JobOptions
    picture: PicturePlan
    streams: StreamPlan
    execution: ExecutionPlan

    @property
    def info(self) -> VideoInfo:
        return self.source.info

    @property
    def encoder(self) -> EncoderSettings:
        return self.picture.encoder

    @property
    def geometry(self) -> Geometry:
        return self.picture.geometry

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.source.notes, *self.picture.notes)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.source.times.warnings if self.source.times is not None else ()

    @property
    def frames(self) -> int | None:
        return self.source.count

    @property
    def seconds(self) -> Fraction | None:
        return None if self.source.count is None else self.source.count / self.source.rate


def is_streamed(source: Path, dest: Path) -> bool:
    """Whether a job is one of these."""
    return PIPE in (source, dest) or is_numbered(source) or is_picture(dest) or dest.suffix.lower() == ".y4m"


def plan_stream(source: Path, dest: Path, options: JobOptions) -> Plan:
    """What such a job would do; of a pipe the header is read, or all of it where it is not y4m."""
    with ExitStack() as stack:
        return settled(source, dest, options, stack)


def stream(plan: StreamedPlan, stack: ExitStack, on_progress: Progress | None, stops: Stops) -> UpscaleResult:
    """Carry out such a job; `stack` is what it was settled with."""
    started = time.monotonic()
    with stops.deferred():
        frames = _upscaled_into(plan, stack, on_progress, stops)
    unread = " (a pipe cannot be read again to verify it)" if plan.dest == PIPE else ""
    return UpscaleResult(path=plan.dest, frames=frames, seconds=time.monotonic() - started, verified=f"{frames} frames written{unread}")


def settled(source: Path, dest: Path, options: JobOptions, stack: ExitStack) -> JobPlan | StreamedPlan:
    """The job as one of these, or from file to file where that is what it comes to; `stack` holds the files between."""
    if source == PIPE and not _peeked(stdin()).startswith(MAGIC):
        source = _spooled(stack)
    if dest == PIPE and options.encode.pipe_format != "y4m":
        if source == PIPE or is_numbered(source):
            raise OptionError("--pipe-format nut and mkv need a source with a clock of its own: a file, or nut or mkv on the pipe")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a2n-video-")))
        return prepare(source, folder / f"out.{options.encode.pipe_format}", options)
    if source != PIPE and not is_streamed(source, dest):
        return prepare(source, dest, options)
    return _planned(_opened(source, options), dest, options)


def _planned(stream: _Stream, dest: Path, options: JobOptions) -> StreamedPlan:
    """What becomes of the picture and of everything else; OptionError for what cannot be, and for losses with --keep-all."""
    raw = is_raw(dest)
    if dest != PIPE and not is_picture(dest):
        check_paths(stream.info.path, dest, overwrite=options.execution.overwrite)
    if raw and options.encode.codec is not None:
        raise OptionError(f"--codec {options.encode.codec}: {dest} takes plain pictures, which no video encoder makes; leave it out")
    container: Container = "y4m" if raw else container_of(dest)
    if raw:
        codec, formats = PICTURES[dest.suffix.lower()] if is_picture(dest) else ("wrapped_avframe", PIX_FMTS)
        picture = picture_for(stream.info, codec, formats, container, options, time_base=stream.time_base, frame_rate=stream.rate)
    else:
        picture = settle_picture(stream.info, stream.time_base, stream.rate, container, options)
        picture = replace(picture, encoder=replace(picture.encoder, container=FORMAT_NAMES.get(container, container)))
    streams = plan_streams(stream.info, container, replace(options.fidelity, keep_all=False))
    streams = streams.plus(*picture.fates, *_lost_times(stream, raw))
    if is_picture(dest):
        fates = (replace(fate, reason=fate.reason.replace("y4m", "a picture file")) for fate in streams.fates)
        streams = replace(streams, fates=tuple(fates))
    if options.fidelity.keep_all:
        streams.refuse_losses()
    model = replace(options.model, scale=picture.geometry.scale)
    execution = resolve_plan(model, picture.geometry)
    return StreamedPlan(source=stream, dest=dest, options=options, picture=picture, streams=streams, execution=execution)


def is_raw(dest: Path) -> bool:
    """Whether a result is plain pictures, one after the other, at one rate: y4m, or picture files."""
    return dest == PIPE or is_picture(dest) or dest.suffix.lower() == ".y4m"


def _lost_times(stream: _Stream, raw: bool) -> Iterator[StreamFate]:
    late = off_rate(stream.times) if raw and stream.times is not None else None
    if late is not None:
        reason = f"y4m holds one rate, {stream.rate} a second here, and frame {late} is off it; nut and mkv hold any"
        yield StreamFate(what="variable frame times", kind="time", fate="dropped", reason=reason)


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


def piped(result: UpscaleResult) -> UpscaleResult:
    """The finished file into stdout."""
    with result.path.open("rb") as file:
        shutil.copyfileobj(file, stdout(), 1 << 20)
    stdout().flush()
    return replace(result, path=PIPE)


def _opened(source: Path, options: JobOptions) -> _Stream:
    if source == PIPE:
        return _y4m_stream(stdin(), options)
    if options.execution.sandbox:
        raise OptionError("--sandbox guards jobs from file to file; leave it out, or write a video file first")
    if is_numbered(source) or is_picture(source):
        files = numbered_files(source) if is_numbered(source) else [source]
        rate = options.fidelity.fps or _RATE
        info = replace(probe(files[0], options.execution.max_pixels), path=source, frame_rate=rate, time_base=1 / rate)
        digits = [c for c in files[0].stem.split(".")[-1] if c.isdigit()]
        first = int("".join(digits) or 1) if is_numbered(source) else 1
        frames = islice(read_pictures(files, rate), options.time.frames)
        count = len(files) if options.time.frames is None else min(len(files), options.time.frames)
        return _Stream(info=info, frames=frames, rate=rate, time_base=1 / rate, first=first, count=count)
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
    notes = (interlace.note,) if interlace.note else ()
    return _Stream(
        info=info,
        frames=frames_until(reader),
        rate=rate,
        time_base=time_map.time_base,
        times=time_map,
        count=time_map.frames,
        notes=notes,
    )


def _upscaled_into(plan: StreamedPlan, stack: ExitStack, on_progress: Progress | None, stops: Stops) -> int:
    """The pipeline, from the stream into whatever the plan says; the number of frames."""
    stream, fit, options = plan.source, plan.picture.fit, plan.options
    sink, finish = _sink(plan, stack)
    model = replace(options.model, scale=plan.geometry.scale)
    upscaler = Upscaler.from_options(model, plan.execution, plan.geometry.layout)
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


def _sink(plan: StreamedPlan, stack: ExitStack) -> tuple[_Sink, _Placed]:
    """Who takes the frames, and a file that still has to get its name."""
    dest, picture, overwrite = plan.dest, plan.picture, plan.options.execution.overwrite
    if is_picture(dest):
        options = picture.encoder.options
        return PictureWriter(dest, picture.encoder.pix_fmt, plan.source.first, options=options, overwrite=overwrite), None
    header = Y4mHeader(fmt=picture.fit.target, rate=plan.source.rate, sar=picture.encoder.sar, color=picture.fit.color)
    if dest == PIPE:
        return Y4mWriter(stdout(), header), None
    file = _partial(dest.with_name(f"{dest.name}.part"), stack)
    if is_raw(dest):
        return Y4mWriter(cast(BinaryIO, file), header), (file, dest)
    return cast(_Sink, open_writer(cast(BinaryIO, file), picture.encoder)), (file, dest)
