"""What all plans have in common, and what people are shown of them before a job starts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Protocol

from a2n_video.engine.protocol import Geometry
from a2n_video.io.writer import EncoderSettings
from a2n_video.media.info import VideoInfo
from a2n_video.media.streams import StreamPlan
from a2n_video.options import ExecutionPlan, JobOptions


class Plan(Protocol):
    """What all plans tell: of jobs from file to file, and of those from or to pipes and pictures, whose length may not be known."""

    @property
    def source(self) -> Path: ...
    @property
    def dest(self) -> Path: ...
    @property
    def options(self) -> JobOptions: ...
    @property
    def info(self) -> VideoInfo: ...
    @property
    def encoder(self) -> EncoderSettings: ...
    @property
    def execution(self) -> ExecutionPlan: ...
    @property
    def geometry(self) -> Geometry: ...
    @property
    def streams(self) -> StreamPlan: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def seconds(self) -> Fraction | None: ...
    @property
    def cut_short(self) -> str | None: ...


def describe(plan: Plan, source: Path | None = None, dest: Path | None = None) -> str:
    """The plan as a few lines: what is read, what is written and with what, what becomes of every stream.

    `source` and `dest` are their names to people, where those are not the plan's own: a pipe can go by way of a file.
    """
    info, encoder, execution = plan.info, plan.encoder, plan.execution
    length = "" if plan.frames is None or plan.seconds is None else f", {plan.frames} frames, {float(plan.seconds):.3f} s"
    network = execution.weights or execution.model
    lines = [
        f"source   {source or info.path}: {info.video.codec} {info.width}x{info.height} {info.pix_fmt}{length}",
        f"result   {dest or plan.dest}: {encoder.codec} {encoder.width}x{encoder.height} {encoder.pix_fmt}{_options(encoder.options)}",
        f"network  {network} x{plan.geometry.scale} on {execution.device} ({execution.engine}, {execution.dtype}, "
        f"{execution.batch_size} at a time)",
    ]
    for fate in plan.streams.fates:
        to = f" to {fate.to}" if fate.to else ""
        reason = f" ({fate.reason})" if fate.reason else ""
        lines.append(f"{fate.fate:<8} {fate.what}{to}{reason}")
    lines.extend(f"note     {warning}" for warning in (*plan.notes, *plan.warnings))
    return "\n".join(lines)


def _options(options: dict[str, str]) -> str:
    return "".join(f" {key}={value}" for key, value in options.items() if not key.endswith("-params"))
