"""Settle everything a job needs before its first frame: what is read, what is written, what becomes of the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from a2n_video.engine.protocol import Geometry
from a2n_video.engine.select import check_numbers, resolve_plan
from a2n_video.errors import InputError, OptionError, OutputError, OutputExistsError, UnsupportedFormatError
from a2n_video.io.filters import look_for_interlace
from a2n_video.io.fitting import Fit
from a2n_video.io.mux.audio import sounds_made_anew
from a2n_video.io.mux.copying import sound_starts
from a2n_video.io.mux.trial import unwritable_streams
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.sandbox import sandboxed
from a2n_video.io.whole import cut_short
from a2n_video.io.writer import EncoderSettings
from a2n_video.job.directory import result_stands
from a2n_video.job.journal import InputIdentity
from a2n_video.job.planning.picture import PicturePlan, pix_fmts_of_checked, settle_picture
from a2n_video.media.containers import HOLDS
from a2n_video.media.cuts import with_cut_videos
from a2n_video.media.encoders import says_color
from a2n_video.media.final import FinalFile
from a2n_video.media.gaps import with_gaps
from a2n_video.media.hdr import given_hdr
from a2n_video.media.index import LEAD_IN, ScanResult, TimeMap
from a2n_video.media.info import HdrMetadata, VideoInfo
from a2n_video.media.interlace import InterlacePlan, plan_interlace, result_map
from a2n_video.media.steady import time_fates
from a2n_video.media.streams import Container, StreamFate, StreamPlan, container_of, plan_streams
from a2n_video.media.timecode import Counting, with_counted_on, with_timecode, without_uncounted
from a2n_video.options import Execution, ExecutionPlan, JobOptions, TimeRange

# Inductor takes a minute or two for the network; at tens of frames a second that is a few thousand frames.
_FRAMES_TO_COMPILE: Final = 5000
_LEAST: Final = (
    ("time", "frames", 1),
    ("execution", "segment_frames", 0),  # one segment
    ("execution", "max_errors", 0),
    ("execution", "max_pixels", 1),
    ("execution", "stall_timeout", 0),  # for ever
    ("cluster", "cpus_per_worker", 1),
)


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One job, settled: nothing in it is chosen again later, by a resumed run or by a worker.

    `time_map` is that of the result's frames, cut to what --start, --end and --frames ask for; `source_map` that of the source's.
    """

    source: Path
    identity: InputIdentity  # of the source, taken before it was looked through
    dest: Path
    options: JobOptions
    info: VideoInfo
    time_map: TimeMap
    source_map: TimeMap
    interlace: InterlacePlan
    streams: StreamPlan
    picture: PicturePlan
    execution: ExecutionPlan
    encoder: EncoderSettings
    cut_short: str | None = None  # how the source ends before its time, where it does

    @property
    def geometry(self) -> Geometry:
        """What the engine is built for."""
        return self.picture.geometry

    @property
    def fit(self) -> Fit:
        """What every frame is brought to after the engine."""
        return self.picture.fit

    @property
    def final(self) -> FinalFile:
        """What the finished file is to be beside its frames."""
        encoder = self.encoder
        return FinalFile(
            info=self.info,
            plan=self.streams,
            time_map=self.time_map,
            width=encoder.width,
            height=encoder.height,
            color=encoder.color,
            tagged=says_color(encoder.codec, self.streams.container),
            pix_fmt=encoder.pix_fmt,
            sar=encoder.sar,
            display_matrix=self.picture.display_matrix,
            hdr=self.hdr,
        )

    @property
    def hdr(self) -> HdrMetadata | None:
        """The static HDR10 metadata that the result says."""
        said = self.options.encode.encoder_options
        return given_hdr(self.encoder.codec, self.info.hdr, said, boxed=HOLDS[self.streams.container].hdr)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know beyond the fates of streams."""
        return tuple(note for note in (self.interlace.note, *self.picture.notes) if note)

    @property
    def frames(self) -> int:
        """How many frames are expected: an estimate, since packets are not frames."""
        return self.time_map.frames

    @property
    def seconds(self) -> Fraction:
        """How long the part of the video is that is taken."""
        start, end = self.time_map.window
        return end - start

    def check_source(self) -> None:
        """InputError where the source is no longer the file that this was settled from: its sound would not belong to the picture.

        A new time of change alone is let pass: backups and `touch` make one. (A stopped job is stricter: nobody looked meanwhile.)
        """
        if not self.identity.fits(self.source) and not identity_of(self.source).same_content(self.identity):
            raise InputError(f"{self.source}: it was changed or replaced while this job ran; run it again with --restart")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What had to be done to the source's time."""
        return self.time_map.warnings


def prepare(source: Path, dest: Path, options: JobOptions) -> JobPlan:
    """Look at the source and settle the job; nothing is written. Whatever cannot work is an error here, not at hour five."""
    container = container_of(dest)
    dest = dest.resolve() if dest.is_symlink() else dest  # the link stays, what it points to is replaced
    check_options(options)
    look: Any = sandboxed if options.execution.sandbox else _here
    info = look(probe, source, options.execution.max_pixels)
    identity = identity_of(source)
    check_paths(source, dest, overwrite=options.execution.overwrite or _only_to_tidy_up(dest, options.execution))
    scanned = look(scan, source, info, fps=options.fidelity.fps, lead_in=_lead_in(container))
    interlace = plan_interlace(options.fidelity.deinterlace, look(look_for_interlace, source, info), info.height)
    part = _part(options.time, scanned, interlace, container)
    frame_rate = None if scanned.frame_rate is None else scanned.frame_rate * interlace.rate_factor
    picture = settle_picture(info, part.time_base, frame_rate, container, options)
    seen, info = info, with_counted_on(info, _counting(scanned, interlace, part))
    streams = plan_streams(info, container, options.fidelity, scanned.empty).plus(*picture.fates)
    streams = without_uncounted(seen, info, streams)
    streams = _fitting(with_timecode(info, streams, picture.encoder.frame_rate), scanned, info, part, look)
    if options.fidelity.keep_all:
        streams.refuse_losses()
    _check_clock(source, part, container)
    return JobPlan(
        source=source,
        identity=identity,
        dest=dest,
        options=options,
        info=info,
        time_map=part,
        source_map=scanned.time_map,
        interlace=interlace,
        streams=streams,
        picture=picture,
        execution=settle_execution(options, picture.geometry, part.frames),
        encoder=picture.encoder,
        cut_short=cut_short(source) or scanned.error,
    )


def _lead_in(container: Container) -> Fraction:
    """How far sound may begin before zero in the result, in seconds."""
    return LEAD_IN if HOLDS[container].lead_in or HOLDS[container].steady else Fraction(0)


def _part(time: TimeRange, scanned: ScanResult, interlace: InterlacePlan, container: Container) -> TimeMap:
    """The time of the result's frames, cut to what is asked for."""
    whole = replace(result_map(interlace, scanned.time_map), trimmed=() if HOLDS[container].lead_in else scanned.trimmed)
    return whole.cut(start=time.start, end=time.end, frames=time.frames)


def _counting(scanned: ScanResult, interlace: InterlacePlan, part: TimeMap) -> Counting:
    """How the result's frames are counted on from the source's."""
    first, origin = ((times.first_pts - times.shift_pts) * times.time_base for times in (part, scanned.time_map))
    return Counting(rate=scanned.frame_rate, factor=interlace.rate_factor, skipped=first - origin)


def _fitting(streams: StreamPlan, scanned: ScanResult, info: VideoInfo, part: TimeMap, look: Any) -> StreamPlan:
    """The plan of the part that is taken, with what its cuts cost and without what the container refuses, by trying it."""
    streams = with_cut_videos(info, streams, part, scanned)
    unwritable = look(unwritable_streams, info.path, info, streams, part)
    streams = _with_trials(streams, unwritable, look(sounds_made_anew, info.path, info, streams))
    streams = with_gaps(info, streams, part, scanned.streams)
    starts = look(sound_starts, info.path, info, streams, part) if HOLDS[streams.container].steady else {}
    return streams.plus(*time_fates(info, streams, part, starts))


def identity_of(source: Path) -> InputIdentity:
    """Which file this is now; InputError where it cannot be read."""
    try:
        return InputIdentity.of(source)
    except OSError as error:
        raise InputError(f"{source}: cannot be read any more ({error.strerror})") from error


def settle_execution(options: JobOptions, geometry: Geometry, frames: int) -> ExecutionPlan:
    """The engine and how it runs; compiled where a job on an accelerator is long enough to earn the compilation back."""
    execution = resolve_plan(replace(options.model, scale=geometry.scale), geometry)
    if options.model.compile == "auto" and execution.engine == "accelerator":
        return replace(execution, compile=frames >= _FRAMES_TO_COMPILE)
    return execution


def _with_trials(streams: StreamPlan, unwritable: Mapping[int, str], anew: Mapping[int, tuple[str, str] | None]) -> StreamPlan:
    """The plan without streams that no muxer or decoder can begin with, and with the layouts of sound that change."""
    damaged = "its header is damaged or empty: no sample rate or layout can be found in it"
    refused = {index: damaged for index, layouts in anew.items() if layouts is None} | dict(unwritable)

    def settled(fate: StreamFate) -> StreamFate:
        if fate.index in refused:
            return replace(fate, fate="dropped", reason=refused[fate.index])
        before, after = (anew.get(fate.index) if fate.index is not None else None) or ("", "")
        return replace(fate, reason=f"{fate.reason}; {before} becomes {after}") if before != after else fate

    return replace(streams, fates=tuple(map(settled, streams.fates)))


def _check_clock(source: Path, time_map: TimeMap, container: Container) -> None:
    """Refuse frames that follow each other faster than Matroska's milliseconds, as those of a damaged header do."""
    if container not in ("mkv", "webm"):
        return
    milliseconds = [round(time * time_map.time_base * 1000) for time in time_map.times]
    if (number := next((n for n, (a, b) in enumerate(pairwise(milliseconds), 1) if a == b), None)) is not None:
        raise UnsupportedFormatError(
            f"{source}: frame {number} comes less than a millisecond after the one before it, which {container} cannot say; "
            "write mp4, mov or nut, or repair the source if it is no slow motion"
        )


def check_paths(source: Path, dest: Path, *, overwrite: bool) -> None:
    """Refuse an output that is the input (by any name), that exists without `overwrite`, or that cannot be written."""
    if dest.is_dir():
        raise OutputError(f"{dest}: this is a folder; give the output a file name")
    if dest.exists() and not dest.is_file():
        raise OutputError(f"{dest}: this is a device or pipe, not a file; a result is put in place whole, under a file's name")
    if dest.exists() and source.exists() and source.samefile(dest):
        raise OutputError(f"{dest}: output and input are the same file; choose another name")
    if dest.exists() and not overwrite:
        raise OutputExistsError(f"{dest}: exists already; add --overwrite to replace it")
    folder = dest.parent
    if not folder.is_dir():
        raise OutputError(f"{dest}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{dest}: no permission to write in {folder}")


def _here[**P, T](function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    return function(*arguments, **named)


def _only_to_tidy_up(dest: Path, execution: Execution) -> bool:
    """Whether the output is this very job's, put in place by a run that was stopped before it had tidied up."""
    return execution.resume and not execution.restart and result_stands(dest)


def check_options(options: JobOptions) -> None:
    """OptionError for what no job can do, whatever its source is."""
    check_numbers(options.model)
    for part, name, least in _LEAST:
        value = getattr(getattr(options, part), name)
        if value is not None and not value >= least:  # so that no number is too small as well
            raise OptionError(f"--{name.replace('_', '-')} {value}: at least {least}")
    if options.fidelity.fps is not None and options.fidelity.fps <= 0:
        raise OptionError(f"--fps {options.fidelity.fps}: more than 0")
    if options.encode.codec is not None:
        pix_fmts_of_checked(options.encode.codec, options.encode.encoder_backend)
