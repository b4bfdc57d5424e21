"""Settle everything a job needs before its first frame: what is read, what is written, what becomes of the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from a2n_video.engine.protocol import Geometry
from a2n_video.engine.select import resolve_plan
from a2n_video.errors import OptionError, OutputError, OutputExistsError
from a2n_video.io.joining import segment_container
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.whole import cut_short
from a2n_video.io.writer import EncoderSettings, check_container, check_encoder, pix_fmts_of
from a2n_video.job.directory import result_stands
from a2n_video.media.encoders import default_codec, encoded_pix_fmt, encoder_options
from a2n_video.media.index import TimeMap
from a2n_video.media.info import VideoInfo
from a2n_video.media.pixfmt import plane_format
from a2n_video.media.streams import Container, StreamPlan, container_of, plan_streams
from a2n_video.options import Execution, ExecutionPlan, JobOptions


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One job, settled: nothing in it is chosen again later, by a resumed run or by a worker.

    `time_map` is cut to what --start, --end and --frames ask for.
    """

    source: Path
    dest: Path
    options: JobOptions
    info: VideoInfo
    time_map: TimeMap
    streams: StreamPlan
    geometry: Geometry
    execution: ExecutionPlan
    encoder: EncoderSettings
    cut_short: str | None = None  # how the source ends before its time, where it does

    @property
    def frames(self) -> int:
        """How many frames are expected: an estimate, since packets are not frames."""
        return self.time_map.frames


def prepare(source: Path, dest: Path, options: JobOptions) -> JobPlan:
    """Look at the source and settle the job; nothing is written. Whatever cannot work is an error here, not at hour five."""
    container = container_of(dest)
    _check_options(options)
    info = probe(source, options.execution.max_pixels)
    check_paths(source, dest, overwrite=options.execution.overwrite or _only_to_tidy_up(dest, options.execution))
    scanned = scan(source, info, fps=options.fidelity.fps)
    time_map = scanned.time_map
    encoder, geometry = _picture(info, time_map.time_base, container, options)
    return JobPlan(
        source=source,
        dest=dest,
        options=options,
        info=info,
        time_map=time_map.cut(start=options.time.start, end=options.time.end, frames=options.time.frames),
        streams=plan_streams(info, container, options.fidelity),
        geometry=geometry,
        execution=resolve_plan(options.model, geometry),
        encoder=encoder,
        cut_short=cut_short(source) or scanned.error,
    )


def check_paths(source: Path, dest: Path, *, overwrite: bool) -> None:
    """Refuse an output that is the input (by any name), that exists without `overwrite`, or that cannot be written."""
    if dest.is_dir():
        raise OutputError(f"{dest}: this is a folder; give the output a file name")
    if dest.exists() and source.exists() and source.samefile(dest):
        raise OutputError(f"{dest}: output and input are the same file; choose another name")
    if dest.exists() and not overwrite:
        raise OutputExistsError(f"{dest}: exists already; add --overwrite to replace it")
    folder = dest.parent
    if not folder.is_dir():
        raise OutputError(f"{dest}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{dest}: no permission to write in {folder}")


def _only_to_tidy_up(dest: Path, execution: Execution) -> bool:
    """Whether the output is this very job's, put in place by a run that was stopped before it had tidied up."""
    return execution.resume and not execution.restart and result_stands(dest)


def _check_options(options: JobOptions) -> None:
    if options.model.scale not in (1, 2, 3, 4):
        raise OptionError(f"--scale {options.model.scale}: the scale is 2, 3 or 4")
    if options.time.frames is not None and options.time.frames < 1:
        raise OptionError(f"--frames {options.time.frames}: at least 1")
    if options.encode.codec is not None:
        pix_fmts_of_checked(options.encode.codec)


def pix_fmts_of_checked(codec: str) -> tuple[str, ...]:
    """Pixel formats of an encoder; an OptionError for one that is not there."""
    try:
        return pix_fmts_of(codec)
    except ValueError as error:
        raise OptionError(
            f"--codec {codec}: no such encoder in this FFmpeg; common ones are libx264 libx265 libsvtav1 libvpx-vp9 ffv1 prores_ks"
        ) from error


def _picture(info: VideoInfo, time_base: Fraction, container: Container, options: JobOptions) -> tuple[EncoderSettings, Geometry]:
    codec = options.encode.codec or default_codec(container, info.planes)
    check_container(codec, container)
    pix_fmt = encoded_pix_fmt(codec, info.planes, pix_fmts_of_checked(codec), options.encode.pix_fmt)
    layout = plane_format(pix_fmt, info.width, info.height)
    geometry = Geometry(
        source=info.planes,
        color=info.color.settled(info.planes),
        scale=options.model.scale,
        layout=None if layout == info.planes else layout,
    )
    settings = EncoderSettings(
        container=segment_container(codec, alpha=geometry.target.alpha),
        codec=codec,
        width=geometry.target.width,
        height=geometry.target.height,
        pix_fmt=pix_fmt,
        time_base=time_base,
        frame_rate=info.frame_rate,
        color=geometry.color,
        sar=info.sar,
        options=encoder_options(codec, options.encode),
    )
    check_encoder(settings)
    return settings, geometry
