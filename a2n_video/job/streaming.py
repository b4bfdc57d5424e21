"""Jobs that are one stream from end to end: y4m in or out of a pipe, numbered pictures, single pictures. No segments, no journal.

nut and mkv on a pipe go by way of a temporary file and the whole road, so that sound, subtitles and chapters come along.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from a2n_video.errors import A2NVideoError, DecodeError, IncompleteSourceError, InputError, JobConflictError, OptionError
from a2n_video.io.backends import open_writer
from a2n_video.io.fitting import fitted
from a2n_video.io.outfile import OutFile, output_error
from a2n_video.io.sequences import WRITABLE, PictureWriter, check_holds, is_numbered, makes_pictures, numbered_name, standing_files
from a2n_video.io.writer import FORMAT_NAMES, EncoderSettings, FrameWriter
from a2n_video.io.y4m import MAGIC, PIX_FMTS, Y4mHeader, Y4mWriter, told_of_pipe
from a2n_video.job.directory import JobDirectory
from a2n_video.job.encode import Progress, check_errors, check_whole, damage_report, patience_of, upscaler_of
from a2n_video.job.incoming import Stream, stream_of, y4m_stream
from a2n_video.job.outgoing import Outgoing, stdout
from a2n_video.job.planning.picture import PicturePlan, picture_for, settle_picture
from a2n_video.job.planning.plan import JobPlan, check_options, check_paths, prepare, settle_execution
from a2n_video.job.planning.report import Plan
from a2n_video.job.result import UpscaleResult
from a2n_video.job.sinks import ResultFile, Sink
from a2n_video.job.stages import Stages
from a2n_video.job.stops import Stops
from a2n_video.media.containers import MUXER_OPTIONS
from a2n_video.media.info import VideoInfo
from a2n_video.media.steady import off_rate
from a2n_video.media.streams import Container, StreamFate, StreamPlan, container_of, plan_streams
from a2n_video.options import ExecutionPlan, JobOptions

if TYPE_CHECKING:
    from a2n_video.engine.protocol import Geometry

PIPE: Final = Path("-")
_DEPTH: Final = 4
_IN_WORDS: Final = {"mjpeg": "a JPEG", "tiff": "a TIFF"}


@dataclass(frozen=True, kw_only=True)
class StreamedPlan:
    """A job that is one stream, settled: see `report.Plan`."""

    stream: Stream
    dest: Path
    options: JobOptions
    picture: PicturePlan
    streams: StreamPlan
    execution: ExecutionPlan

    @property
    def info(self) -> VideoInfo:
        return self.stream.info

    @property
    def source(self) -> Path:
        return self.info.path

    @property
    def cut_short(self) -> str | None:
        return self.stream.cut_short

    @property
    def encoder(self) -> EncoderSettings:
        return self.picture.encoder

    @property
    def geometry(self) -> Geometry:
        return self.picture.geometry

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.stream.notes, *self.picture.notes)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.stream.times.warnings if self.stream.times is not None else ()

    @property
    def frames(self) -> int | None:
        return self.stream.count

    @property
    def seconds(self) -> Fraction | None:
        return None if self.stream.count is None else self.stream.count / self.stream.rate


def is_streamed(source: Path, dest: Path) -> bool:
    """Whether a job is one of these."""
    return PIPE in (source, dest) or is_numbered(source) or makes_pictures(dest) or dest.suffix.lower() == ".y4m"


def plan_stream(source: Path, dest: Path, options: JobOptions) -> Plan:
    """What such a job would do; of a pipe the header is read, or all of it where it is not y4m."""
    with ExitStack() as stack:
        return settled(source, dest, options, stack)


def stream(plan: StreamedPlan, stack: ExitStack, on_progress: Progress | None, stops: Stops) -> UpscaleResult:
    """Carry out such a job; `stack` is what it was settled with."""
    started = time.monotonic()
    check_whole(plan)
    with stops.deferred():
        frames = _upscaled_into(plan, stack, on_progress, stops)
    unread = " (a pipe cannot be read again to verify it)" if plan.dest == PIPE else ""
    met = plan.stream.damage
    return UpscaleResult(
        path=plan.dest,
        frames=frames,
        seconds=time.monotonic() - started,
        verified=f"{frames} frames written{unread}",
        damage=damage_report(plan, met.errors, [met]),
        warnings=(*plan.warnings, *met.changes),
    )


def settled(source: Path, dest: Path, options: JobOptions, stack: ExitStack) -> JobPlan | StreamedPlan:
    """The job as one of these, or from file to file where that is what it comes to; `stack` holds the files between."""
    check_options(options)
    if dest == PIPE:
        stdout()  # there is one: asked now, not when the result is ready
    if source == PIPE and not _peeked(stdin()).startswith(MAGIC):
        _check_unused(dest, options)
        # What is made of a pipe is kept by no run: the next one would find another file, of another time.
        source, options = _spooled(stack), options.with_changes(resume=False)
    if dest == PIPE and options.encode.pipe_format != "y4m":
        if source == PIPE or is_numbered(source):
            raise OptionError("--pipe-format nut and mkv need a source with a clock of its own: a file, or nut or mkv on the pipe")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a2n-video-")))
        place = stack.enter_context(_told_as_pipe(folder / f"out.{options.encode.pipe_format}"))
        return prepare(source, place, options.with_changes(resume=False))
    if source != PIPE and not is_streamed(source, dest):
        return prepare(source, dest, options)
    return _planned(_opened(source, options), dest, options)


def _planned(stream: Stream, dest: Path, options: JobOptions) -> StreamedPlan:
    """What becomes of the picture and of everything else; OptionError for what cannot be, and for losses with --keep-all."""
    raw = is_raw(dest)
    _check_places(stream, dest, overwrite=options.execution.overwrite)
    check_holds(dest, stream.count or 1)
    if raw and options.encode.codec is not None:
        raise OptionError(f"--codec {options.encode.codec}: {dest} takes plain pictures, which no video encoder makes; leave it out")
    container: Container = "y4m" if raw else container_of(dest)
    if raw:
        codec, formats = WRITABLE[dest.suffix.lower()] if makes_pictures(dest) else ("wrapped_avframe", PIX_FMTS)
        picture = picture_for(stream.info, codec, formats, container, options, time_base=stream.time_base, frame_rate=stream.rate)
    else:
        picture = settle_picture(stream.info, stream.time_base, stream.rate, container, options)
        muxer, told = FORMAT_NAMES.get(container, container), dict(MUXER_OPTIONS.get(container, {}))
        picture = replace(picture, encoder=replace(picture.encoder, container=muxer, muxer=told))
    streams = plan_streams(stream.info, container, replace(options.fidelity, keep_all=False))
    streams = streams.plus(*picture.fates, *_lost_times(stream, raw))
    if makes_pictures(dest):
        streams = replace(streams, fates=tuple(_fates_in_pictures(streams, picture)))
    if options.fidelity.keep_all:
        streams.refuse_losses("a picture file" if makes_pictures(dest) else "")
    execution = settle_execution(options, picture.geometry, stream.count or 0)
    return StreamedPlan(stream=stream, dest=dest, options=options, picture=picture, streams=streams, execution=execution)


def _fates_in_pictures(streams: StreamPlan, picture: PicturePlan) -> Iterator[StreamFate]:
    """What y4m loses is lost in picture files too, but for alpha and colour tags, which some kinds of them hold."""
    encoder = picture.encoder
    none = "a JPEG has none; .png and .tif do" if encoder.codec == "mjpeg" else f"{encoder.pix_fmt} has none"
    for fate in streams.fates:
        if fate.kind == "color":
            yield replace(fate, reason=f"{_IN_WORDS.get(encoder.codec, encoder.codec)} has no place for them; .png has")
        elif fate.kind != "alpha":
            yield replace(fate, reason=fate.reason.replace("y4m", "a picture file"))
        elif not picture.fit.target.alpha:
            yield replace(fate, reason=none)


def _check_places(stream: Stream, dest: Path, *, overwrite: bool) -> None:
    """Refuse, as for files, to write where it cannot be, over a result that stands, and over any of the source's own pictures."""
    if dest == PIPE:
        return
    own = {_file_at(path): path for path in stream.files}
    for place in _places(stream, dest):
        check_paths(own.get(_file_at(place), stream.info.path), place, overwrite=overwrite)


def _places(stream: Stream, dest: Path) -> list[Path]:
    """The files that will be written and stand already, or the first one; where nobody knows how many come, that one alone."""
    first = numbered_name(dest, stream.first)
    if first == dest or stream.count is None:
        return [first]
    numbers = range(stream.first, stream.first + stream.count)
    return [path for number, path in standing_files(dest).items() if number in numbers] or [first]


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file a name leads to, by whatever way; None where there is none."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def is_raw(dest: Path) -> bool:
    """Whether a result is plain pictures, one after the other, at one rate: y4m, or picture files."""
    return dest == PIPE or makes_pictures(dest) or dest.suffix.lower() == ".y4m"


def _lost_times(stream: Stream, raw: bool) -> Iterator[StreamFate]:
    late = off_rate(stream.times) if raw and stream.times is not None else None
    if late is not None:
        reason = f"y4m holds one rate, {stream.rate} a second here, and frame {late} is off it; nut and mkv hold any"
        yield StreamFate(what="variable frame times", kind="time", fate="dropped", reason=reason)


def stdin() -> io.BufferedReader:
    """Stdin; InputError where it is closed."""
    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:
        raise InputError("-: stdin is closed or gives no bytes; give it a program's output or a file")
    return cast(io.BufferedReader, buffer)


def _peeked(stream: io.BufferedReader) -> bytes:
    return stream.peek(len(MAGIC))[: len(MAGIC)]


def _spooled(stack: ExitStack) -> Path:
    """Stdin whole in a temporary file, which its demuxer can search."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="a2n-video-")))
    path = folder / "stdin"
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(stdin(), file, 1 << 20)
    except OSError as error:
        raise output_error(error, folder.parent, "what comes from the pipe cannot be kept here (TMPDIR names another folder)") from error
    return stack.enter_context(_told_as_pipe(path))


@contextmanager
def _told_as_pipe(path: Path) -> Iterator[Path]:
    """A file that a pipe goes by way of: errors call it what the user did."""
    try:
        yield path
    except A2NVideoError as error:
        error.args = tuple(part.replace(str(path), str(PIPE)) if isinstance(part, str) else part for part in error.args)
        raise


def piped(result: UpscaleResult, stops: Stops) -> UpscaleResult:
    """The finished file into stdout, until `stops` says so."""
    with stops.deferred(), Stages(PIPE, stops) as stages, result.path.open("rb") as file, told_of_pipe("the result"):
        shutil.copyfileobj(file, Outgoing(stdout(), stages), 1 << 20)
    return replace(result, path=PIPE)


def _opened(source: Path, options: JobOptions) -> Stream:
    if options.execution.sandbox:
        raise OptionError("--sandbox guards jobs from file to file; leave it out, or write a video file first")
    if options.cluster.ray:
        raise OptionError("--ray makes segments, which jobs from or to pipes and pictures do not have; leave it out")
    return y4m_stream(PIPE, stdin(), options) if source == PIPE else stream_of(source, options)


def _upscaled_into(plan: StreamedPlan, stack: ExitStack, on_progress: Progress | None, stops: Stops) -> int:
    """The pipeline, from the stream into whatever the plan says; the number of frames, of which there is one at least.

    The sink works in a thread of its own while this one waits, and can be left where it hangs.
    """
    stream, count = plan.stream, 0
    with Stages(plan.source, stops, patience_of(plan)) as stages:
        sink = _sink(plan, stack, stages)
        encode = _calls(sink, plan.dest, stack, stages)
        upscaler = upscaler_of(plan)
        stack.callback(stages.let_go, upscaler.close, "upscale")
        decoded = stages.prefetch(stream.frames, _DEPTH, "decode", position=stream.position)
        upscaled = stages.prefetch(fitted(upscaler.upscale_frames(decoded), plan.picture.fit), _DEPTH, "upscale")
        for count, frame in enumerate(upscaled, 1):
            check_errors(plan, stream.damage.errors, [stream.damage])
            encode(sink.write, frame)
            if on_progress is not None:
                on_progress(count)
        check_errors(plan, stream.damage.errors, [stream.damage])
        if not count:
            raise _no_frame(plan)
        encode(sink.close)
        stages.check()
        sink.put_in_place()
    return count


def _calls(sink: Sink, dest: Path, stack: ExitStack, stages: Stages) -> Callable[..., None]:
    """What calls a sink's functions: a thread, but for a pipe, whose sink has one of its own (see `Outgoing`)."""
    if dest == PIPE:
        return lambda function, *arguments: function(*arguments)
    encode = stages.calls("encode", position=lambda thread: sink.position())
    stack.callback(sink.let_go, encode, stages)
    return encode


def _no_frame(plan: StreamedPlan) -> InputError:
    if plan.source == PIPE:
        return DecodeError("the pipe ended before a frame of the part that was asked for came; look at what writes into it")
    return IncompleteSourceError(f"{plan.source}: damaged: no frame of the part that was asked for can be decoded; nothing was written")


def _target(dest: Path) -> Path:
    """Where a result comes to lie: a link stays, and what it points to is replaced. A link of a picture's name is replaced itself."""
    return dest.resolve() if dest.is_symlink() and not makes_pictures(dest) else dest


def _check_unused(dest: Path, options: JobOptions) -> None:
    """JobConflictError where a stopped job from file to file waits to go on with this output, unless it is to be thrown away."""
    folder = JobDirectory(_target(dest))
    if not folder.is_empty and options.execution.resume and not options.execution.restart:
        raise JobConflictError(
            f"{folder.path}: holds an unfinished job from file to file; finish that one, or give --restart to begin anew"
        )


def _workplace(dest: Path, options: JobOptions, stack: ExitStack) -> JobDirectory:
    """The job's folder, locked, empty, and gone again whatever happens."""
    folder = stack.enter_context(JobDirectory(_target(dest)))
    _check_unused(dest, options)
    stack.callback(folder.remove)
    folder.clear()
    return folder


def _sink(plan: StreamedPlan, stack: ExitStack, stages: Stages) -> Sink:
    """Who takes the frames; a file's place is looked at and locked now."""
    dest, picture, overwrite = plan.dest, plan.picture, plan.options.execution.overwrite
    header = Y4mHeader(fmt=picture.fit.target, rate=plan.stream.rate, sar=picture.encoder.sar, color=picture.fit.color)
    if dest == PIPE:
        pipe = Y4mWriter(cast(BinaryIO, Outgoing(stdout(), stages)), header)
        return Sink(write=pipe.write, close=pipe.close)
    folder = _workplace(dest, plan.options, stack)
    if makes_pictures(dest):
        settings, first = picture.encoder, plan.stream.first
        made = PictureWriter(dest, settings.pix_fmt, first, folder=folder.path, options=settings.options, overwrite=overwrite)
        return Sink(write=made.write, close=made.close, disown=made.disown)

    def opened(file: OutFile) -> FrameWriter:
        stream = cast(BinaryIO, file)
        return Y4mWriter(stream, header) if is_raw(dest) else open_writer(stream, picture.encoder)

    return ResultFile(folder.result, folder.dest, opened, overwrite=overwrite).sink
