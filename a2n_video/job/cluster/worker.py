"""What runs on a device elsewhere: one segment at a time, by the journal's plan. Pickled by Ray, which it does not import itself."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import a2n_video
from a2n_video.errors import A2NVideoError
from a2n_video.io.outfile import rename
from a2n_video.io.reader import Damage
from a2n_video.job.directory import JobDirectory
from a2n_video.job.encode import Progress, SegmentMaker, upscaler_of
from a2n_video.job.journal import InputIdentity, JobRecord, Journal, SegmentRecord
from a2n_video.job.planning.plan import JobPlan
from a2n_video.job.resume import job_record
from a2n_video.job.segments import Stretch
from a2n_video.job.stops import Stops
from a2n_video.net.catalog import find_model, weights_sha256
from a2n_video.upscaler import Upscaler

WORKER_FOLDER: Final = "worker-"  # what the folders of attempts begin with, in the job's own folder
_REPORT_EVERY_S: Final = 0.5
_DIGITS: Final = 12


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is made for: the settled job, the code's version at the driver, and whether files travel through Ray."""

    plan: JobPlan
    job: JobRecord
    ship: bool
    version: str = a2n_video.__version__


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A worker's answer when it starts: where it runs, why it must not work (None: it may), how long the network took to load."""

    host: str
    refusal: str | None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """A segment as its worker left it: in the job's folder under `record.file`, or in `data` where results are shipped.

    `seconds` is all that the worker spent on it, `frame_s` what a frame took between the first and the last (None for fewer than two).
    """

    record: SegmentRecord
    seconds: float
    frame_s: float | None
    damage: Damage
    data: bytes | None = None


class Tally:
    """How many frames of its present segment each worker has done; an actor of its own, so that it answers while workers work."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[int, int]] = {}

    def add(self, worker: int, segment: int, frames: int) -> None:
        self._under_way[worker] = segment, frames

    def under_way(self) -> Mapping[int, tuple[int, int]]:
        """(segment, frames) by worker."""
        return dict(self._under_way)


class SegmentWorker:
    """An actor: the model loaded once, one segment at a time. Stateless between segments: whatever it needs comes with `setup`."""

    def __init__(self, number: int, setup: Setup, tally: Any) -> None:
        self._number, self._setup, self._tally = number, setup, tally
        # The driver counts errors over all segments; one worker sees only its own.
        execution = replace(setup.plan.options.execution, max_errors=None, fail_on_damage=False)
        self._plan = on_own_device(replace(setup.plan, options=replace(setup.plan.options, execution=execution)))
        self._upscaler: Upscaler | None = None

    def join(self) -> Joined:
        """Compare versions and weights with the driver's, look for the files, and load the network."""
        started = time.monotonic()
        try:
            differences = self.differences()
            if not differences:
                self._ready_upscaler().engine(self._plan.geometry)
        except A2NVideoError as error:
            differences = [str(error)]
        return Joined(host=socket.gethostname(), refusal="; ".join(differences) or None, seconds=time.monotonic() - started)

    def differences(self) -> list[str]:
        """What is otherwise here than at the driver, each in words: "torch 2.6 there, 2.8 here" (here is the driver)."""
        setup, here = self._setup, self._versions()
        there = {"a2n-video": setup.version, **setup.job.versions}
        found = [f"{name} {here.get(name, 'none')} there, {version} here" for name, version in there.items() if here.get(name) != version]
        if (digest := self._weights_sha256()) != setup.plan.execution.weights_sha256:
            wanted = setup.plan.execution.weights_sha256
            found.append(f"weights {(digest or 'none')[:_DIGITS]} there, {(wanted or 'none')[:_DIGITS]} here (SHA-256)")
        return found if setup.ship else found + self._unseen()

    def _versions(self) -> dict[str, str]:
        return {"a2n-video": a2n_video.__version__, **job_record(self._plan).versions}

    def _weights_sha256(self) -> str | None:
        execution = self._plan.execution
        if execution.weights_sha256 is None:
            return None
        return weights_sha256(execution.weights or str(find_model(execution.model, self._plan.geometry.scale).path))

    def _unseen(self) -> list[str]:
        """Why files cannot be shared with the driver, where they cannot."""
        plan = self._plan
        try:
            if InputIdentity.of(plan.source) != self._setup.job.input:
                return [f"{plan.source} is another file there"]
        except OSError as error:
            return [f"{plan.source} is not seen there ({error.strerror}); share its folder, or ship the parts (--ship)"]
        if not JobDirectory(plan.dest).path.is_dir():
            return [f"{plan.dest.parent} is another folder there; share it, or ship the results (--ship)"]
        return []

    def make(self, stretch: Stretch, source: bytes | None) -> Made:
        """Make the one segment of `stretch`; `source` holds the part of the input it needs, where that is shipped."""
        started = time.monotonic()
        with self._folder() as folder:
            plan = self._plan
            if source is not None:
                path = folder / "source"
                path.write_bytes(source)
                plan = replace(plan, source=path)
            times = _Times(self._report, stretch.first_number)
            record, damage = self.encoded(plan, stretch, folder, times)
            record, data = self._handed_over(record, folder)
        seconds = time.monotonic() - started
        return Made(record=record, seconds=seconds, frame_s=times.frame_s, damage=damage, data=data)

    def encoded(self, plan: JobPlan, stretch: Stretch, folder: Path, on_progress: Progress) -> tuple[SegmentRecord, Damage]:
        """The segment, made in `folder`, and what its reader met."""
        marks = tuple(mark for mark in (stretch.start_pts, stretch.end_pts) if mark is not None)
        number = int(stretch.start_pts is not None)
        journal = _InMemory(folder / "none", self._setup.job)
        maker = SegmentMaker(plan, folder, journal, Stops())
        own = replace(stretch, first_number=number, end_number=number + 1)
        maker.make_stretch(own, marks, self._ready_upscaler(), on_progress)
        return replace(journal.segments[number], number=stretch.first_number), maker.damage[0]

    def upscaler(self, plan: JobPlan) -> Upscaler:
        """The network, opened; called once."""
        return upscaler_of(plan)

    def _ready_upscaler(self) -> Upscaler:
        if self._upscaler is None:
            self._upscaler = self.upscaler(self._plan)
        return self._upscaler

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder of this attempt's own: on this machine where results are shipped, else beside the job's segments."""
        parent = None if self._setup.ship else JobDirectory(self._plan.dest).path
        folder = Path(tempfile.mkdtemp(prefix=f"{WORKER_FOLDER}{uuid.uuid4().hex[:8]}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _report(self, segment: int, frames: int) -> None:
        self._tally.add.remote(self._number, segment, frames)

    def _handed_over(self, record: SegmentRecord, folder: Path) -> tuple[SegmentRecord, bytes | None]:
        if not record.frames:
            return record, None
        path = folder / record.file
        named = replace(record, file=content_name(record))
        if self._setup.ship:
            return named, path.read_bytes()
        rename(path, folder.parent / named.file, "segment")
        return named, None


class _InMemory(Journal):
    """A journal that only remembers what is entered: a worker's, for one segment."""

    def add_segment(self, segment: SegmentRecord) -> None:
        self.segments[segment.number] = segment


class _Times:
    """Takes a maker's progress: tells it on now and then, and keeps what a frame takes."""

    def __init__(self, report: Any, segment: int) -> None:
        self._report, self._segment = report, segment
        self._first = self._last = self._told = 0.0
        self._frames = 0

    def __call__(self, frames: int) -> None:
        self._last = time.monotonic()
        self._first = self._first or self._last
        self._frames = frames
        if self._last - self._told >= _REPORT_EVERY_S:
            self._told = self._last
            self._report(self._segment, frames)

    @property
    def frame_s(self) -> float | None:
        return (self._last - self._first) / (self._frames - 1) if self._frames > 1 else None


def content_name(record: SegmentRecord) -> str:
    """A segment's file name: two attempts that made the same bytes name the same file."""
    return f"{record.number:06d}-{record.sha256[:16]}{Path(record.file).suffix}"


def on_own_device(plan: JobPlan) -> JobPlan:
    """The plan with its accelerator called by kind alone: Ray shows a worker only the one card it is given."""
    kind = plan.execution.device.partition(":")[0]
    return replace(plan, execution=replace(plan.execution, device=kind))
