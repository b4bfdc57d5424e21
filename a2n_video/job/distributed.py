"""One job's segments on several devices or machines, through Ray. The only user of ray.

The driver owns journal, joining, sound and verification; workers are stateless actors that make one segment at a time by the journal's
ExecutionPlan. Placing actors, restarting them and moving objects is Ray's; what stands here is which segment is still wanted. A result
counts once it is what its record says (size, sha256, frames, times): the first such one wins, whoever made it, however late.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from a2n_video.errors import A2NVideoError, DeviceError, InputError, MissingDependencyError, OutputError
from a2n_video.io.outfile import OutFile, rename
from a2n_video.io.shipping import cut_source
from a2n_video.job.directory import JobDirectory
from a2n_video.job.encode import Progress, SegmentMaker, upscaler_of
from a2n_video.job.journal import JobRecord, Journal, SegmentRecord
from a2n_video.job.plan import JobPlan
from a2n_video.job.resume import job_record
from a2n_video.job.segments import Stretch, bounded_length, bounds, missing_stretches, stands
from a2n_video.job.stops import Stops
from a2n_video.options import ClusterOptions, JobOptions
from a2n_video.upscaler import Upscaler

if TYPE_CHECKING:
    from a2n_video.job.run import UpscaleResult

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.2
_SEGMENTS_A_WORKER: Final = 4  # at least: so that the slowest one does not set the end
_ATTEMPTS: Final = 5
_LEASE_FACTOR: Final = 4  # times the median segment, before another worker is set on it too
_LEASE_LEAST_S: Final = 60.0
_REPORT_FRAMES: Final = 8


@dataclass(frozen=True, kw_only=True)
class Made:
    """A segment as its worker left it: in the job's folder under `record.file`, or in `data` where results are shipped."""

    record: SegmentRecord
    seconds: float
    data: bytes | None = None


class Tally:
    """Frames done by every worker, for one progress bar; an actor of its own, so that it answers while workers work."""

    def __init__(self) -> None:
        self._frames: dict[str, int] = {}

    def add(self, worker: str, frames: int) -> None:
        self._frames[worker] = self._frames.get(worker, 0) + frames

    def frames(self) -> dict[str, int]:
        return dict(self._frames)


class SegmentWorker:
    """An actor: the model loaded once, one segment at a time. Stateless between segments."""

    def __init__(self, name: str, ship: bool) -> None:
        self._name, self._ship = name, ship
        self._upscaler: Upscaler | None = None

    def refusal(self, plan: JobPlan, job: JobRecord) -> str | None:
        """What this worker has otherwise than the driver (versions, weights), None where it may work."""
        differences = job.differences(job_record(plan, identity=job.input))
        return f"worker {self._name}: {'; '.join(differences)}" if differences else None

    def make(self, plan: JobPlan, job: JobRecord, tally: Any, number: int, source: bytes | None) -> Made:
        """Make one segment; `source` holds the part of the input it needs, where that is shipped. `tally` hears of its frames."""
        started = time.monotonic()
        with self._folder(plan) as folder:
            if source is not None:
                path = folder / "source"
                path.write_bytes(source)
                plan = replace(plan, source=path)
            record = self.encoded(plan, job, number, folder, self._reporter(tally))
            made = self._handed_over(record, folder)
        return replace(made, seconds=time.monotonic() - started)

    @contextmanager
    def _folder(self, plan: JobPlan) -> Iterator[Path]:
        """A folder of this attempt's own: on this machine where results are shipped, else beside the job's segments."""
        parent = None if self._ship else JobDirectory(plan.dest).path
        folder = Path(tempfile.mkdtemp(prefix=f"worker-{uuid.uuid4().hex[:8]}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def encoded(self, plan: JobPlan, job: JobRecord, number: int, folder: Path, on_progress: Progress) -> SegmentRecord:
        """One segment, made in `folder`."""
        start, end = bounds(job.marks, number)
        journal = _InMemory(folder / "none", job)
        maker = SegmentMaker(plan, folder, journal, Stops())
        if self._upscaler is None:
            self._upscaler = upscaler_of(plan)
        stretch = Stretch(first_number=number, end_number=number + 1, start_pts=start, end_pts=end)
        maker.make_stretch(stretch, job.marks, self._upscaler, on_progress)
        return journal.segments[number]

    def _reporter(self, tally: Any) -> Progress:
        last = 0

        def report(frames: int) -> None:
            nonlocal last
            if frames - last >= _REPORT_FRAMES:
                tally.add.remote(self._name, frames - last)
                last = frames

        return report

    def _handed_over(self, record: SegmentRecord, folder: Path) -> Made:
        if not record.frames:
            return Made(record=record, seconds=0)
        path = folder / record.file
        if self._ship:
            return Made(record=record, seconds=0, data=path.read_bytes())
        # Named by content: two attempts that made the same bytes name the same file.
        named = replace(record, file=_content_name(record))
        rename(path, folder.parent / named.file, "segment")
        return Made(record=named, seconds=0)


class _InMemory(Journal):
    """A journal that only remembers what is entered: a worker's, for one segment."""

    def add_segment(self, segment: SegmentRecord) -> None:
        self.segments[segment.number] = segment


def _content_name(record: SegmentRecord) -> str:
    return f"{record.number:06d}-{record.sha256[:16]}{Path(record.file).suffix}"


@dataclass
class _Task:
    """A segment under way at one worker."""

    number: int
    worker: int
    since: float = field(default_factory=time.monotonic)


class DistributedMaker:
    """Makes the missing segments of a job on Ray's workers; the counterpart of `SegmentMaker`, for the driver's thread."""

    damage: tuple[Any, ...] = ()  # workers count errors into their records

    def __init__(
        self, plan: JobPlan, folder: JobDirectory, journal: Journal, stops: Stops, worker: type[SegmentWorker] = SegmentWorker
    ) -> None:
        self.plan, self.folder, self.journal, self.stops = plan, folder, journal, stops
        self.options = plan.options.cluster
        self._worker = worker
        self._ray = connected(self.options)
        self._durations: list[float] = []

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None:
        """Make every missing segment; an error of the source, the encoder or the disk that survives its retries is raised here."""
        places = places_for_workers(self._ray.cluster_resources(), self.options)
        if self.journal.job is None:
            self._begin(len(places))
        assert self.journal.job is not None
        stretches = missing_stretches(self.journal.job.marks, standing)
        missing = [number for stretch in stretches for number in range(stretch.first_number, stretch.end_number)]
        if not missing:
            return
        done = sum(record.frames for record in standing.values())
        crew = Crew(self._ray, places, self._worker, (self.plan, self.journal.job), ship=self.options.ship)
        try:
            crew.check()
            self.collect(crew, missing, lambda frames: on_progress(done + frames) if on_progress is not None else None)
        finally:
            crew.dismiss()

    def _begin(self, workers: int) -> None:
        """Enter the job: segments long enough to be worth a task, short enough that every worker gets several."""
        wanted = self.plan.options.execution.segment_frames
        length = wanted if wanted is not None else bounded_length(self.plan.frames // (_SEGMENTS_A_WORKER * workers))
        self.plan = replace(self.plan, execution=replace(self.plan.execution, segment_frames=length))
        self.journal.begin(replace(job_record(self.plan), marks=self.plan.time_map.marks(length)))

    def collect(self, crew: Crew, missing: list[int], report: Progress) -> None:
        """Hand out segments to idle workers until each has come back whole once."""
        waiting = list(reversed(missing))
        wanted = set(missing)
        attempts = dict.fromkeys(missing, 0)
        running: dict[Any, _Task] = {}
        started = time.monotonic()
        while wanted:
            self.stops.check()
            for worker in crew.idle({task.worker for task in running.values()}):
                chosen = waiting.pop() if waiting else self._overdue(running, wanted)
                if chosen is None:
                    break
                running[crew.start(worker, chosen, self._shipped(chosen))] = _Task(chosen, worker)
            ready, _ = self._ray.wait(list(running), timeout=_POLL_S)
            for reference in ready:
                task = running.pop(reference)
                if task.number in wanted and self._taken(crew.result(reference, task.worker), task):
                    wanted.discard(task.number)
                elif task.number in wanted and task.number not in waiting:
                    attempts[task.number] = self._counted(attempts[task.number], task.number, crew)
                    waiting.append(task.number)
            finished = sum(self.journal.segments[number].frames for number in set(missing) - wanted)
            report(max(finished, min(sum(crew.frames_by_worker().values()), self.plan.frames)))
        for name, frames in sorted(crew.frames_by_worker().items()):
            _log.info("worker %s: %d frames, %.2f fps", name, frames, frames / (time.monotonic() - started))

    def _taken(self, made: Made | None, task: _Task) -> bool:
        """Whether a result is whole and stands in the journal now."""
        if made is None:
            return False
        record = made.record
        if made.data is not None:
            record = self._stored(record, made.data)
        if record.number != task.number or not stands(self.folder.path, record, self.plan.encoder.time_base):
            return False
        self.journal.add_segment(record)
        self._durations.append(made.seconds)
        return True

    def _stored(self, record: SegmentRecord, data: bytes) -> SegmentRecord:
        named = replace(record, file=_content_name(record))
        with OutFile(self.folder.path / f"{named.file}.part", "segment") as file:
            file.write(data)
            file.finish()
        rename(file.path, self.folder.path / named.file, "segment")
        return named

    def _counted(self, attempts: int, number: int, crew: Crew) -> int:
        """One attempt more; the error is raised once there were too many, at once where another worker would meet it too."""
        if attempts + 1 >= _ATTEMPTS or isinstance(crew.last_error, InputError):
            raise crew.last_error or DeviceError(f"{self.plan.source}: segment {number} failed {_ATTEMPTS} times")
        return attempts + 1

    def _overdue(self, running: Mapping[Any, _Task], wanted: set[int]) -> int | None:
        """A segment whose worker holds it far longer than segments take, and that nobody else works on."""
        if not self._durations:
            return None
        usual = sorted(self._durations)[len(self._durations) // 2]
        lease = self.options.lease_s if self.options.lease_s is not None else max(_LEASE_LEAST_S, _LEASE_FACTOR * usual)
        held = [task.number for task in running.values()]
        late = [
            t.number for t in running.values() if t.number in wanted and held.count(t.number) == 1 and time.monotonic() - t.since > lease
        ]
        return late[0] if late else None

    def _shipped(self, number: int) -> bytes | None:
        if not self.options.ship:
            return None
        assert self.journal.job is not None
        start, end = bounds(self.journal.job.marks, number)
        return cut_source(self.plan.source, self.plan.info, self.plan.source_map, start, end)


def places_for_workers(resources: Mapping[str, float], options: ClusterOptions) -> list[dict[str, float]]:
    """Ray's resource demands, one for each worker: the devices named, else one a GPU, else so many cores each."""
    cores = options.cpus_per_worker
    if options.devices:
        return [{"num_cpus": cores, "num_gpus": 0 if device.startswith("cpu") else 1} for device in options.devices]
    if resources.get("GPU", 0) >= 1:
        return [{"num_cpus": cores, "num_gpus": 1}] * int(resources["GPU"])
    return [{"num_cpus": cores}] * max(1, int(resources.get("CPU", 1)) // cores)


class Crew:
    """The actors of one job. One that dies is made anew by Ray, on whatever machine is left."""

    def __init__(
        self,
        ray_module: Any,
        places: list[dict[str, float]],
        worker: type[SegmentWorker],
        job: tuple[JobPlan, JobRecord],
        *,
        ship: bool,
    ) -> None:
        self._ray = ray_module
        self.last_error: A2NVideoError | None = None
        self._job = [ray_module.put(part) for part in job]
        self._tally = ray_module.remote(Tally).options(num_cpus=0).remote()
        remote = ray_module.remote(worker)
        self._actors = {number: remote.options(max_restarts=-1, **place).remote(str(number), ship) for number, place in enumerate(places)}

    def check(self) -> None:
        """Leave out workers that differ from the driver; DeviceError that names the differences where none is left."""
        refused = {}
        for number, actor in self._actors.items():
            try:
                refused[number] = self._ray.get(actor.refusal.remote(*self._job))
            except self._ray.exceptions.RayError as error:
                refused[number] = f"worker {number}: {error}".splitlines()[0]
        self._actors = {number: actor for number, actor in self._actors.items() if refused[number] is None}
        if not self._actors:
            raise DeviceError("no worker can take part: " + "; ".join(str(told) for told in refused.values()))

    def idle(self, busy: set[int]) -> list[int]:
        return [number for number in self._actors if number not in busy]

    def start(self, worker: int, number: int, source: bytes | None) -> Any:
        return self._actors[worker].make.remote(*self._job, self._tally, number, source)

    def result(self, reference: Any, worker: int) -> Made | None:
        """What a finished task made, None where it failed or its worker died: that costs the segment a retry, not the job."""
        try:
            return self._ray.get(reference)  # type: ignore[no-any-return]
        except self._ray.exceptions.RayTaskError as error:
            self.last_error = error.cause if isinstance(error.cause, A2NVideoError) else OutputError(f"worker {worker}: {error.cause!r}")
        except self._ray.exceptions.RayError as error:
            self.last_error = DeviceError(f"worker {worker} was lost: {str(error).splitlines()[0]}")
        return None

    def frames_by_worker(self) -> dict[str, int]:
        """Frames done by every worker so far, those made twice included; empty while the count is late."""
        try:
            return self._ray.get(self._tally.frames.remote(), timeout=_POLL_S)  # type: ignore[no-any-return]
        except self._ray.exceptions.GetTimeoutError:
            return {}

    def dismiss(self) -> None:
        for actor in [*self._actors.values(), self._tally]:
            self._ray.kill(actor)


def connected(options: ClusterOptions) -> Any:
    """Ray, connected: to the cluster at the address given (or in RAY_ADDRESS), else to one on this machine, bound to loopback.

    MissingDependencyError where Ray is not installed, DeviceError where there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("Ray is not installed; pip install 'a2n-video[ray]', or leave out --ray") from error
    if not ray.is_initialized():
        try:
            local: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if options.ray_address is None else {}
            ray.init(address=options.ray_address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise DeviceError(f"no Ray cluster at {options.ray_address or 'this machine'}: {str(error).splitlines()[0]}") from error
    return ray


def upscale_video(
    source: Path | str, dest: Path | str, options: JobOptions | None = None, *, on_progress: Progress | None = None, **changes: Any
) -> UpscaleResult:
    """`a2n_video.upscale_video` with the segments made by Ray's workers; options of the cluster are fields too, such as ship=True."""
    from a2n_video.job.run import upscale_video as upscale

    return upscale(source, dest, options, on_progress=on_progress, **{"ray": True, **changes})
