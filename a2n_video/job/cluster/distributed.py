"""One job's segments on several devices or machines, through Ray. The only user of ray.

The driver owns journal, joining, sound and verification; workers are stateless actors that make one segment at a time by the journal's
ExecutionPlan. Placing actors, restarting them and moving objects is Ray's; what stands here is which segment is still wanted. A result
counts once it is what its record says (size, sha256, frames, times): the first such one wins, whoever made it, however late.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from a2n_video.errors import A2NVideoError, DeviceError, InputError, MissingDependencyError, OptionError, OutputError
from a2n_video.io.mux.shipping import cut_source, needed_of_source
from a2n_video.io.outfile import OutFile, rename
from a2n_video.io.reader import Damage
from a2n_video.io.sandbox import sandboxed
from a2n_video.job.cluster.crew import Crew
from a2n_video.job.cluster.shares import Board, Pace, cut, lengths, probe_frames
from a2n_video.job.cluster.worker import WORKER_FOLDER, Made, SegmentWorker, Setup
from a2n_video.job.directory import JobDirectory
from a2n_video.job.encode import Progress, check_errors, earlier_damage
from a2n_video.job.journal import Journal, SegmentRecord
from a2n_video.job.planning.plan import JobPlan, settle_execution
from a2n_video.job.recount import Recount
from a2n_video.job.resume import job_record
from a2n_video.job.segments import Stretch, bounded_length, bounds, missing_stretches, stands, unlike
from a2n_video.job.stages import Stages
from a2n_video.job.stops import Stops
from a2n_video.options import ClusterOptions, ExecutionPlan

_log = logging.getLogger(__name__)

Rates = Mapping[int, float]  # frames a second by worker, as its last segment took

_POLL_S: Final = 0.2
_ATTEMPTS: Final = 5
_BLAMED: Final = 2  # workers that must meet an error of the source before it is believed
_PATIENCE, _PATIENCE_S = 3, 10.0  # times the first measurement, and at least so long, the others are waited for
_KNOCK_S: Final = 10.0
_LOOPBACK: Final = "127.0.0.1"
# Ray's own switch for "this machine only": read when ray is imported, it makes every port of a local cluster a port on loopback.
_LOOPBACK_SWITCH: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class DistributedMaker:
    """Makes the missing segments of a job on Ray's workers; the counterpart of `SegmentMaker`, for the driver's thread.

    A new job's segments are cut by measured speed unless their length is given: every worker makes a short one first, and the journal
    begins with all marks once these are back. `on_rates` hears of every worker's speed whenever a segment has come.
    """

    def __init__(
        self,
        plan: JobPlan,
        folder: JobDirectory,
        journal: Journal,
        stops: Stops,
        *,
        worker: type[SegmentWorker] = SegmentWorker,
        on_rates: Callable[[Rates], None] | None = None,
    ) -> None:
        self.plan, self.folder, self.journal, self.stops = plan, folder, journal, stops
        self.options = plan.options.cluster
        self._worker, self._on_rates = worker, on_rates
        self._ray = connected(self.options)
        self._board = Board(lease_s=self.options.lease_s)
        self._marks: tuple[int, ...] = ()
        self._early: list[SegmentRecord] = []  # made before the marks were settled
        self._paces: dict[int, Pace] = {}
        self._rates: dict[int, float] = {}
        self._damage: dict[int, Damage] = {}
        self._recount = Recount(plan)
        self._whole: set[int] = set()  # segments that a part of the source did not make: whole ones are shipped for them
        self._frames = self._errors = self._told = 0
        self._settle_by: float | None = None
        self._restarted: set[int] = set()
        self._stages = Stages(plan.source, stops)
        self._apart = self._stages.calls("check")  # a large file is read there while this thread waits for a stop

    @property
    def damage(self) -> Sequence[Damage]:
        """What the workers' readers met, in the order of segments."""
        return [self._damage[number] for number in sorted(self._damage)]

    def make(self, standing: Mapping[int, SegmentRecord], on_progress: Progress | None) -> None:
        """Make every missing segment; an error of the source, the encoder or the disk that survives its retries is raised here."""
        places = places_for_workers(self._ray.cluster_resources(), self.options)
        self._frames = self._told = sum(record.frames for record in standing.values())
        earlier = earlier_damage(record for _, record in sorted(standing.items()))
        self._errors = sum(known.errors for known in earlier)
        check_errors(self.plan, self._errors, earlier)
        self._sweep()
        self._begin(places)
        if not self._board.wanted and not self._missing(standing):
            return
        self._board.want(self._missing(standing))
        job = self.journal.job or job_record(self.plan)
        crew = Crew(self._ray, places, self._worker, Setup(plan=_from_anywhere(self.plan), job=job, ship=self.options.ship))
        try:
            # Ray makes a KeyboardInterrupt of whatever a signal raises inside it.
            with self.stops.deferred(), self._stages:
                self.collect(crew, on_progress)
        finally:
            crew.dismiss()

    def _sweep(self) -> None:
        """Remove what workers of a killed run left of their attempts; should one still live, its result is not wanted any more."""
        for path in self.folder.path.glob(f"{WORKER_FOLDER}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _missing(self, standing: Mapping[int, SegmentRecord]) -> list[int]:
        if self.journal.job is None:
            return list(range(len(self._marks)))  # what follows the last provisional mark is cut later
        stretches = missing_stretches(self._marks, standing)
        return [number for stretch in stretches for number in range(stretch.first_number, stretch.end_number)]

    def _begin(self, places: Sequence[Mapping[str, float]]) -> None:
        """The journal's marks where it has this job; those of a given length; else provisional ones, by which workers are measured."""
        if self.journal.job is not None:
            self._marks = self.journal.job.marks
            return
        self.plan = replace(self.plan, execution=self._settled_execution(places))
        wanted = self.plan.options.execution.segment_frames
        times, workers = self.plan.time_map.times, len(places)
        probe = probe_frames(len(times), workers)
        if wanted is not None or len(times) <= workers * probe:
            self._enter(self.plan.time_map.marks(probe if wanted is None else wanted))
        else:
            self._marks = times[probe : workers * probe + 1 : probe]

    def _settled_execution(self, places: Sequence[Mapping[str, float]]) -> ExecutionPlan:
        """The driver's choice of engine, unless workers have another kind of device: then one of them makes the choice."""
        execution, on_cards = self.plan.execution, bool(places[0].get("num_gpus"))
        if execution.weights_sha256 is None or on_cards == (execution.device != "cpu"):
            return execution
        options = _from_anywhere(self.plan).options.with_changes(device=None if on_cards else "cpu")
        task = self._ray.remote(settle_execution).options(**places[0])
        settled: ExecutionPlan = self._ray.get(task.remote(options, self.plan.geometry, self.plan.frames))
        return replace(settled, threads=execution.threads, weights=execution.weights)

    def _enter(self, marks: tuple[int, ...]) -> None:
        """Enter the job with its marks, and what was made before they were settled."""
        self._marks = marks
        places = [*(self.plan.time_map.count(None, mark) for mark in marks), self.plan.frames]
        longest = max(end - start for start, end in zip([0, *places], places, strict=False))
        self.plan = replace(self.plan, execution=replace(self.plan.execution, segment_frames=longest))
        self.journal.begin(replace(job_record(self.plan), marks=marks))
        for record in self._early:
            self.journal.add_segment(record)

    def collect(self, crew: Crew, on_progress: Progress | None) -> None:
        """Hand out segments to idle workers until each has come back whole once."""
        while self._board.wanted or self.journal.job is None:
            self.stops.check()
            self._hand_out(crew)
            back = [(worker, self._board.returned(worker), made) for worker, made in crew.wait(_POLL_S)]
            self._restarted -= {worker for worker, _, _ in back}
            for worker, number, made in back:
                if isinstance(made, A2NVideoError):
                    self._lost(number, worker, crew, made)
            self._hand_out(crew)  # before results are checked: no worker waits for that
            for worker, number, made in back:
                if isinstance(made, Made):
                    self._received(number, worker, made, crew)
            self.journal.tell()
            if self.journal.job is None and self._measured():
                self._settle(crew)
            for worker in set(self._board.hung()) - self._restarted:
                self._restarted.add(worker)
                crew.restart(worker)
            self._tell(crew, on_progress)

    def _stretch(self, number: int) -> Stretch:
        start, end = bounds(self._marks, number)
        return Stretch(first_number=number, end_number=number + 1, start_pts=start, end_pts=end)

    def _hand_out(self, crew: Crew) -> None:
        for worker in crew.idle(self._board.under_way):
            if (number := self._board.take(worker, crew.members)) is not None:
                crew.start(worker, self._stretch(number), self._shipped(number))

    def _received(self, number: int, worker: int, made: Made, crew: Crew) -> None:
        """Enter a segment that came back whole and is still wanted; one that did not costs an attempt."""
        if number not in self._board.wanted:
            return
        if (fault := self._fault(made, number)) is None:
            self._take(made, number)
            self._board.done(number, made.seconds)
            self._measure(worker, made)
        else:
            self._lost(number, worker, crew, OutputError(f"{self.plan.dest}: segment {number} {fault} (worker {worker})"))

    def _lost(self, number: int, worker: int, crew: Crew, error: A2NVideoError) -> None:
        """Count an attempt. The error is raised once there were too many, or one of the source was met by another worker as well."""
        if number not in self._board.wanted:
            return
        of_source = isinstance(error, InputError)
        failures = self._board.failed(number, worker, of_source=of_source)
        blaming = {failure.worker for failure in failures if failure.of_source}
        # A worker that is away for now counts as another: were it not, one error would be believed while it starts again.
        believed = of_source and len(blaming) >= min(_BLAMED, crew.strength)
        if believed or len(failures) >= _ATTEMPTS:
            raise error

    def _fault(self, made: Made, number: int) -> str | None:
        """Why a result cannot be taken, in words; None where it is whole."""
        record = made.record
        if made.data is not None:
            self._store(record, made.data)
        if record.number != number or not self._apart(stands, self.folder.path, record, self.plan.encoder.time_base):
            return "came back damaged"
        if (other := unlike(record, [*self._early, *self.journal.segments.values()])) is not None:
            return f"has another decoder header than {other}: its worker has another build of the encoder"
        if not self.options.ship or number in self._whole:
            return None
        if (fault := self._apart(self._recount.fault, record, *bounds(self._marks, number))) is not None:
            self._whole.add(number)
        return fault

    def _take(self, made: Made, number: int) -> None:
        """Enter a result; its decode errors are counted with those of all others."""
        record = made.record
        if self.journal.job is None:
            self._early.append(record)
        else:
            self.journal.add_segment(record)
        self._frames += record.frames
        self._errors += record.errors
        # What lies before the segment, another worker tells; so it is with changes that were told already.
        damage = made.damage.within(*bounds(self._marks, number))
        known = {change for other in self._damage.values() for change in other.changes}
        self._damage[number] = replace(damage, changes=[change for change in damage.changes if change not in known])
        check_errors(self.plan, self._errors, self.damage)

    def _store(self, record: SegmentRecord, data: bytes) -> None:
        with OutFile(self.folder.path / f"{record.file}.part", "segment") as file:
            file.write(data)
            file.finish()
        rename(file.path, self.folder.path / record.file, "segment")

    def _measure(self, worker: int, made: Made) -> None:
        frames, frame_s = made.record.frames, made.frame_s
        if frame_s:
            self._paces[worker] = Pace(fps=1 / frame_s, overhead_s=max(0.0, made.seconds - frames * frame_s))
        if frames:
            self._rates[worker] = frames / made.seconds
        if self._settle_by is None:
            self._settle_by = time.monotonic() + max(_PATIENCE_S, _PATIENCE * made.seconds)

    def _measured(self) -> bool:
        """Whether every worker's first segment is back, or those that are not were waited for long enough."""
        return not self._board.wanted or (self._settle_by is not None and time.monotonic() > self._settle_by)

    def _settle(self, crew: Crew) -> None:
        """Cut what follows the first segments by the speed of the workers there are; one not yet measured counts as the slowest."""
        paces = list(self._paces.values()) or [Pace(fps=1.0)]
        slowest = min(paces, key=lambda pace: pace.fps)
        paces += [slowest] * (len(crew.members) - len(paces))
        left = self.plan.frames - self.plan.time_map.count(None, self._marks[-1])
        longest = bounded_length(left) if self.options.ship else None  # what is shipped lies in memory
        first = len(self._marks)
        self._enter(cut(self.plan.time_map.times, self._marks, lengths(left, paces, longest)))
        self._board.want(range(first, len(self._marks) + 1))
        _log.info("%d segments, up to %d frames each", len(self._marks) + 1, self.plan.execution.segment_frames)

    def _tell(self, crew: Crew, on_progress: Progress | None) -> None:
        """Frames done, those of segments under way included, never fewer than before; and the workers' speeds."""
        under_way: dict[int, int] = {}
        for segment, frames in crew.under_way().values():
            if segment in self._board.wanted:
                under_way[segment] = max(frames, under_way.get(segment, 0))
        done = max(self._told, min(self._frames + sum(under_way.values()), max(self.plan.frames, self._frames)))
        if self._on_rates is not None:
            self._on_rates({worker: rate for worker, rate in self._rates.items() if worker in crew.members})
        if on_progress is not None and done > self._told:
            on_progress(done)
        self._told = done

    def _shipped(self, number: int) -> bytes | None:
        if not self.options.ship:
            return None
        if number in self._whole:
            return self._apart(self.plan.source.read_bytes)
        return self._apart(part_of_source, self.plan, *bounds(self._marks, number))


def part_of_source(plan: JobPlan, start_pts: int | None, end_pts: int | None) -> bytes:
    """What a worker needs of the source for a segment; cut out in a child process where the source is not trusted."""
    given = plan.info, plan.source_map, *needed_of_source(plan.time_map, plan.source_map, plan.interlace.mode, start_pts, end_pts)
    return sandboxed(cut_source, plan.source, *given) if plan.options.execution.sandbox else cut_source(plan.source, *given)


def places_for_workers(resources: Mapping[str, float], options: ClusterOptions) -> list[dict[str, float]]:
    """Ray's resource demands, one for each worker: the devices named, else one a GPU, else so many cores each.

    OptionError for devices of different kinds: their segments would not be alike.
    """
    cores = options.cpus_per_worker
    if options.devices:
        kinds = {device.partition(":")[0] for device in options.devices}
        if len(kinds) > 1:
            raise OptionError(f"--devices {','.join(options.devices)}: name devices of one kind, so that all segments are made alike")
        return [{"num_cpus": cores, "num_gpus": 0 if kinds == {"cpu"} else 1} for _ in options.devices]
    if resources.get("GPU", 0) >= 1:
        return [{"num_cpus": cores, "num_gpus": 1}] * int(resources["GPU"])
    return [{"num_cpus": cores}] * max(1, int(resources.get("CPU", 1)) // cores)


def _from_anywhere(plan: JobPlan) -> JobPlan:
    """The plan with absolute paths: a worker's working directory is that in which Ray was started."""
    weights = None if plan.execution.weights is None else str(Path(plan.execution.weights).absolute())
    return replace(
        plan,
        source=plan.source.absolute(),
        dest=plan.dest.absolute(),
        info=replace(plan.info, path=plan.info.path.absolute()),
        options=plan.options.with_changes(weights=weights),
        execution=replace(plan.execution, weights=weights),
    )


def connected(options: ClusterOptions) -> Any:
    """Ray, connected: to the cluster at the address given (or in RAY_ADDRESS), else to one on this machine, bound to loopback.

    MissingDependencyError where Ray is not installed, DeviceError where there is no cluster at the address.
    """
    address = options.ray_address or os.environ.get("RAY_ADDRESS")
    if address is None and "ray" not in sys.modules:
        os.environ.setdefault(_LOOPBACK_SWITCH, "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("Ray is not installed; pip install 'a2n-video[ray]', or leave out --ray") from error
    if ray.is_initialized():
        return ray
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "num_gpus": _cards_shown(options.devices)}
    try:
        _knock(address)
        with _own_signals():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, ValueError, RuntimeError) as error:
        raise DeviceError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    if not address and ray.get_runtime_context().gcs_address.rpartition(":")[0] != _LOOPBACK:
        _log.warning("ray was imported before this job: the ports of its local cluster are open beyond loopback")
    return ray


def _knock(address: str | None) -> None:
    """OSError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """A block after which signals are handled as before: Ray puts a handler of its own on SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _cards_shown(devices: Sequence[str]) -> int | None:
    """Show this process, and so a local Ray, only the CUDA devices named; how many they are, None where none is named by number."""
    numbers = [int(device.partition(":")[2]) for device in devices if device.startswith("cuda:")]
    if not numbers:
        return None
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seen[n] if n < len(seen) and seen[n] else str(n) for n in numbers)
    return len(numbers)


def maker_telling(on_rates: Callable[[Rates], None]) -> Callable[..., DistributedMaker]:
    """The maker of a job's segments for `run`, which tells `on_rates` the workers' speeds."""
    return partial(DistributedMaker, on_rates=on_rates)
