"""What a run does, as JSON lines for other programs: --json on stdout, --log-file in a file.

Each line is an object with `event` (its kind), `time` (seconds since 1970) and `source`; further fields by kind, as the functions below
name them. Kinds and fields are stable: new ones may come, none goes or changes its meaning.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

from a2n_video.errors import exit_code
from a2n_video.job.journal import SegmentRecord
from a2n_video.job.planning.report import Plan
from a2n_video.job.result import UpscaleResult
from a2n_video.job.talk import silence

_LOG = logging.getLogger(__name__)
_PROGRESS_EVERY_S: Final = 1.0


class Events:
    """Writes the events of one file's job to any number of text streams, each line flushed. Used from one thread.

    A stream that takes no more is taken out of `streams`, which several files may share, and that is logged: a job is not lost for it.
    """

    def __init__(self, source: Path, streams: list[TextIO]) -> None:
        self._source = str(source)
        self._streams = streams
        self._frames: int | None = None
        self._next_progress = 0.0
        self._rates: Mapping[int, float] = {}

    def plan(self, plan: Plan, dest: Path | None = None) -> None:
        """`dest`, `frames` (expected), `seconds` (of video), `codec`, `width`, `height`, `pix_fmt`, `execution`, `streams` (fates).

        `frames` and `seconds` are null where a pipe does not say. `dest` is its name to people, where that is not the plan's own.
        """
        encoder = plan.encoder
        self._frames = plan.frames
        self._write(
            "plan",
            dest=str(dest or plan.dest),
            frames=plan.frames,
            seconds=None if plan.seconds is None else float(plan.seconds),
            codec=encoder.codec,
            width=encoder.width,
            height=encoder.height,
            pix_fmt=encoder.pix_fmt,
            execution=plan.execution.as_json(),
            streams=[asdict(fate) for fate in plan.streams.fates],
        )

    def rates(self, by_worker: Mapping[int, float]) -> None:
        """Keep the frames a second of each of several workers for the next `progress`."""
        self._rates = by_worker

    def progress(self, frames: int) -> None:
        """`frames` (encoded so far), `of` (expected), with several workers `workers` (frames a second by number); at most once a
        second, and for the last frame.
        """
        now = time.monotonic()
        if now >= self._next_progress or frames == self._frames:
            self._next_progress = now + _PROGRESS_EVERY_S
            workers = {"workers": {str(worker): round(rate, 3) for worker, rate in self._rates.items()}} if self._rates else {}
            self._write("progress", frames=frames, of=self._frames, **workers)

    def segment(self, record: SegmentRecord) -> None:
        """A segment is on the disk: `number`, `frames`, `first_pts`, `last_pts`, `size`, `sha256`, `errors`."""
        values = asdict(record)
        self._write("segment", **{name: values[name] for name in ("number", "frames", "first_pts", "last_pts", "size", "sha256", "errors")})

    def verified(self, result: UpscaleResult) -> None:
        """The result is in place: `dest`, `frames`, `resumed_frames`, `elapsed` (seconds), `verified` (words), `notes` (of changes on the
        way and of what time needed), `damage`, `exit_code`.
        """
        self._write(
            "verified",
            dest=str(result.path),
            frames=result.frames,
            resumed_frames=result.resumed_frames,
            elapsed=result.seconds,
            verified=result.verified,
            notes=list(result.warnings),
            damage=asdict(result.damage),
            exit_code=result.exit_code,
        )

    def skipped(self, dest: Path) -> None:
        """A batch leaves a file out whose result is there: `dest`."""
        self._write("skipped", dest=str(dest))

    def error(self, error: BaseException, code: int | None = None) -> None:
        """`kind` (the class), `message`, `exit_code`, and `trace` for what is no error of ours."""
        code = exit_code(error) if code is None else code
        trace = {"trace": "".join(traceback.format_exception(error))} if code == 1 else {}
        self._write("error", kind=type(error).__name__, message=str(error), exit_code=code, **trace)

    def _write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": time.time(), "source": self._source, **values}, default=str)
        for stream in list(self._streams):
            try:
                stream.write(f"{line}\n")
                stream.flush()
            except OSError as error:
                self._streams.remove(stream)
                silence(stream)
                _LOG.warning("%s takes no more events (%s); the job goes on", stream.name, error.strerror)
