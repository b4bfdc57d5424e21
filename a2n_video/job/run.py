"""A whole job: decode, upscale, encode into segments; join them with everything else; verify; give the result its name."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.reader import Damage, VideoReader
from a2n_video.io.remux import RemuxJob, remux
from a2n_video.io.writer import VideoWriter
from a2n_video.job.plan import JobPlan, prepare
from a2n_video.job.prefetch import prefetch
from a2n_video.options import JobOptions
from a2n_video.upscaler import Upscaler

Progress = Callable[[int], None]  # frames encoded so far

_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class UpscaleResult:
    """What a finished job made. `verified` is the verification's one line; `damage` tells of a source that was not whole."""

    path: Path
    frames: int
    seconds: float
    verified: str
    damage: Damage
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 4 if self.damage.errors else 0

    @property
    def summary(self) -> str:
        """Two or three lines for people."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        lines = [*(f"note: {warning}" for warning in self.warnings)]
        if self.damage.errors:
            lines.append(f"damaged source: {self.damage.errors} errors, first at {self.damage.first}")
        return "\n".join([*lines, self.verified, f"{self.path}: {self.frames} frames in {self.seconds:.1f} s ({rate:.2f} fps)"])


def upscale_video(
    source: Path | str, dest: Path | str, options: JobOptions | None = None, *, on_progress: Progress | None = None, **changes: Any
) -> UpscaleResult:
    """Upscale a file. `changes` are fields of JobOptions by name, such as scale=2, crf=18, overwrite=True.

    Blocks until the result is verified and stands at `dest`; `on_progress(frames)` is called from this thread. Every error of
    errors.py can come; `dest` is then as it was before.
    """
    settled = (options or JobOptions()).with_changes(**changes)
    return run(prepare(Path(source), Path(dest), settled), on_progress)


def run(plan: JobPlan, on_progress: Progress | None = None) -> UpscaleResult:
    """Carry out a settled job."""
    started = time.monotonic()
    work = plan.dest.with_name(f"{plan.dest.name}.a2n")
    work.mkdir(exist_ok=True)
    try:
        segments, damage, pts = _encode(plan, work, on_progress)
        temporary = work / f"joined{plan.dest.suffix}"
        join(plan, segments, temporary)
        verified = f"verified: {len(pts)} frames"
        publish(temporary, plan.dest, overwrite=plan.options.execution.overwrite)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return UpscaleResult(
        path=plan.dest,
        frames=len(pts),
        seconds=time.monotonic() - started,
        verified=verified,
        damage=damage,
        warnings=plan.time_map.warnings,
    )


def _encode(plan: JobPlan, work: Path, on_progress: Progress | None) -> tuple[list[Path], Damage, list[int]]:
    """The pipeline: one thread decodes, one packs for the engine and unpacks, this one encodes."""
    path = work / "00000.seg"
    pts: list[int] = []
    with (
        Upscaler.from_options(plan.options.model, plan.execution, plan.geometry.layout) as upscaler,
        VideoReader(plan.source, info=plan.info, time_map=plan.time_map) as reader,
        OutFile(path, "segment") as file,
        VideoWriter(file, plan.encoder) as writer,
    ):
        decoded = prefetch(iter(reader), _DEPTH, "decode")
        upscaled = prefetch(upscaler.upscale_frames(decoded), _DEPTH, "upscale")
        with closing(upscaled):
            for frame in upscaled:
                writer.write(frame)
                pts.append(frame.pts)
                if on_progress is not None:
                    on_progress(len(pts))
        writer.close()
        file.finish()
    return [path], reader.damage, pts


def join(plan: JobPlan, segments: list[Path], dest: Path) -> None:
    """Make the final file from finished segments and the source."""
    time_range = plan.options.time
    job = RemuxJob(
        segments=tuple(segments),
        info=plan.info,
        plan=plan.streams,
        time_map=plan.time_map,
        time_base=plan.encoder.time_base,
        color=plan.encoder.color,
        cut_start=time_range.start is not None,
        cut_end=time_range.end is not None or time_range.frames is not None,
        frame_rate=plan.info.frame_rate,
        sar=plan.info.sar,
        display_matrix=plan.info.display_matrix,
    )
    with OutFile(dest) as file:
        remux(job, file)
        file.finish()
