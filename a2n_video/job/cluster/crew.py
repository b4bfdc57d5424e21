"""The actors of one job on Ray: joining, refusing, working, dying, leaving. Ray itself is handed in."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from a2n_video.errors import A2NVideoError, DeviceError, OutputError
from a2n_video.job.cluster.worker import Joined, Made, SegmentWorker, Setup, Tally
from a2n_video.job.segments import Stretch

_log = logging.getLogger(__name__)

_STRIKES: Final = 3  # failures in a row after which a worker is left out
_RETURN_S: Final = 600.0  # a worker that was lost may take so long to come back
_NAMED: Final = 3  # refusals told in an error


class Crew:
    """One job's workers, by number. One that dies is made anew by Ray, on whatever machine is left, and joins again.

    `members` may work; others are still starting, or were left out for a reason that is logged. Used from the driver's thread.
    """

    def __init__(self, ray: Any, places: Sequence[Mapping[str, float]], worker: type[SegmentWorker], setup: Setup) -> None:
        self._ray = ray
        self.members: dict[int, str] = {}  # hosts
        self._last_error: A2NVideoError | None = None
        self._refused: list[str] = []
        self._strikes: dict[int, int] = {}
        self._tasks: dict[Any, int] = {}
        self._tally = ray.remote(Tally).options(num_cpus=0).remote()
        self._counting: Any = None
        self._under_way: Mapping[int, tuple[int, int]] = {}
        self._setup = ray.put(setup)  # kept here: an actor that is made anew takes it again
        remote = ray.remote(worker)
        self._actors = {
            number: remote.options(max_restarts=-1, **place).remote(number, self._setup, self._tally) for number, place in enumerate(places)
        }
        self._joining: dict[Any, int] = {actor.join.remote(): number for number, actor in self._actors.items()}
        self._absent: dict[int, float] = {}  # restarting workers: when they were lost

    def idle(self, busy: Collection[int]) -> list[int]:
        """Members that have nothing to do."""
        return [number for number in self.members if number not in busy]

    @property
    def strength(self) -> int:
        """How many members there are or may come to be: those that start, or come back, are counted."""
        return len(self._actors)

    def start(self, worker: int, stretch: Stretch, source: bytes | None) -> None:
        """Hand a segment to an idle member."""
        self._tasks[self._actors[worker].make.remote(stretch, source)] = worker

    def wait(self, seconds: float) -> list[tuple[int, Made | A2NVideoError]]:
        """What has come back: workers with what they made, or why one failed, was lost or hung. Returns at the first, or in time.

        DeviceError that names the reasons where no worker is left.
        """
        back: list[tuple[int, Made | A2NVideoError]] = []
        for reference in self._ready(seconds):
            if (number := self._joining.pop(reference, None)) is not None:
                self._join(number, reference)
            else:
                back.append((worker := self._tasks.pop(reference), self._result(reference, worker)))
        if not self.members and not self._joining and not self._absent:
            raise self._last_error or DeviceError("no worker can take part: " + "; ".join(self._refused[:_NAMED]))
        return back

    def _ready(self, seconds: float) -> list[Any]:
        """References that are done, once there is one or the time is over."""
        asked = set(self._joining.values())
        self._joining |= {self._actors[number].join.remote(): number for number in self._absent if number not in asked}
        waited_for = [*self._tasks, *self._joining]
        ready, _ = self._ray.wait(waited_for, timeout=seconds)
        if len(ready) < len(waited_for):
            ready, _ = self._ray.wait(waited_for, num_returns=len(waited_for), timeout=0)
        return ready  # type: ignore[no-any-return]

    def _join(self, number: int, reference: Any) -> None:
        try:
            joined: Joined = self._ray.get(reference)
        except self._ray.exceptions.ActorUnavailableError as error:  # still restarting
            since = self._absent.setdefault(number, time.monotonic())
            if time.monotonic() - since > _RETURN_S:
                self._leave_out(number, f"it did not come back: {_line(error)}")
            return
        except self._ray.exceptions.RayError as error:
            self._last_error = DeviceError(f"{self._name(number)} cannot be started: {_line(error)}")
            self._leave_out(number, str(self._last_error))
            return
        self._absent.pop(number, None)
        if joined.refusal is None:
            self.members[number] = joined.host
            _log.info("worker %d on %s: ready after %.1f s", number, joined.host, joined.seconds)
        else:
            self._refused.append(f"worker {number} on {joined.host}: {joined.refusal}")
            self._leave_out(number, joined.refusal)

    def _result(self, reference: Any, worker: int) -> Made | A2NVideoError:
        """What a finished task made, or why it failed or its worker died: that costs the segment a retry, not the job."""
        try:
            made: Made = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            return self._strike(worker, cause if isinstance(cause, A2NVideoError) else OutputError(f"{self._name(worker)}: {cause!r}"))
        except self._ray.exceptions.RayError as error:
            return self._strike(worker, DeviceError(f"{self._name(worker)} was lost: {_line(error)}"))
        self._strikes.pop(worker, None)
        return made

    def _strike(self, worker: int, error: A2NVideoError) -> A2NVideoError:
        """Count a failure, which is returned. A worker that lost its process joins again first: it may be on another machine now."""
        self._last_error = error
        self._strikes[worker] = self._strikes.get(worker, 0) + 1
        told = str(error)
        _log.warning("%s failed (%d in a row): %s", self._name(worker), self._strikes[worker], told)
        if self._strikes[worker] >= _STRIKES:
            self._leave_out(worker, f"it failed {_STRIKES} times in a row: {told}")
        elif isinstance(error, DeviceError):
            self.members.pop(worker, None)
            self._absent[worker] = time.monotonic()
        return error

    def _name(self, worker: int) -> str:
        return f"worker {worker} on {self.members.get(worker, 'its machine')}"

    def _leave_out(self, worker: int, why: str) -> None:
        _log.warning("%s takes no part: %s", self._name(worker), why)
        self.members.pop(worker, None)
        self._absent.pop(worker, None)
        if (actor := self._actors.pop(worker, None)) is not None:
            self._ray.kill(actor)

    def restart(self, worker: int) -> None:
        """End the process of a worker that hangs; its task comes back as lost."""
        _log.warning("%s hangs; it is started again", self._name(worker))
        self._ray.kill(self._actors[worker], no_restart=False)

    def under_way(self) -> Mapping[int, tuple[int, int]]:
        """(segment, frames) by worker as last heard; never waits."""
        if self._counting is None:
            self._counting = self._tally.under_way.remote()
        elif self._ray.wait([self._counting], timeout=0)[0]:
            try:
                self._under_way = self._ray.get(self._counting)
            except self._ray.exceptions.RayError:  # its machine is gone: frames are then counted by segments
                self._under_way = {}
            self._counting = None
        return self._under_way

    def dismiss(self) -> None:
        """End every worker."""
        for actor in [*self._actors.values(), self._tally]:
            self._ray.kill(actor)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
