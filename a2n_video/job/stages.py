"""The threads that a job's stages run in: what each is at, how long it may stay there, and what becomes of one that never comes back.

Nothing ends a thread that is inside foreign code. One that gives nothing for too long, or does not come back soon after a stop, is left
behind: the error is raised where the job waits, and nobody touches what that thread holds, since two threads in one container crash.
Its process had better end soon: `left_behind` tells the command line to end at once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from a2n_video.errors import A2NVideoError, DecodeError, DeviceError, EncodeError, OutputError, VerificationError
from a2n_video.job.stops import Stops

_POLL_S: Final = 0.1
_LET_GO_S: Final = 1.5  # of the two seconds a stop may take
_END: Final = object()
# What each stage is to people, and what it means that it hangs.
_STAGES: Final[dict[str, tuple[str, type[A2NVideoError]]]] = {
    "decode": ("decoder", DecodeError),
    "upscale": ("engine", DeviceError),
    "encode": ("encoder", EncodeError),
    "join": ("joining", OutputError),
    "verify": ("verification", VerificationError),
}
_BY_FRAMES: Final = frozenset({"decode", "upscale", "encode"})  # the steps of the others are all they do

_own = threading.local()
_left: list[threading.Thread] = []


def left_behind() -> bool:
    """Whether a thread that was given up still runs: the process must then not wait for its threads when it ends."""
    return any(thread.is_alive() for thread in _left)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a stage may take for one step: `least_s` seconds, or `times` its longest step so far if that is more; 0 is for ever."""

    least_s: float = 0.0
    times: int = 20

    @classmethod
    def asked(cls, seconds: float | None) -> Self | None:
        """What a user asked for: just that long, whatever the steps before took."""
        return None if seconds is None else cls(least_s=seconds, times=1)

    def limit_s(self, longest_s: float) -> float:
        return max(self.least_s, self.times * longest_s) if self.least_s else float("inf")


class Stage:
    """One thread under watch. Its own thread begins and ends steps, any other asks how long the present one has lasted.

    `position` is any value that changes while a long step goes on, such as a reader that decodes its way to a distant frame.
    """

    def __init__(self, name: str, position: Callable[[], object] | None = None) -> None:
        self.name = name
        self.made = 0  # items or answers: a step can be a part of one, between waits for another stage
        self.longest_s = 0.0
        self._since: float | None = None
        self._position = position or (lambda: None)
        self._seen: object = None
        self._moved = 0.0

    def begin(self) -> None:
        self._since = time.monotonic()

    def end(self) -> None:
        if self._since is not None:
            self.longest_s = max(self.longest_s, time.monotonic() - self._since)
            self._since = None

    def silent_s(self) -> float:
        """Seconds since the present step began or last moved; 0 between steps, and while it waits for another stage."""
        since = self._since
        if since is None:
            return 0.0
        if (position := self._position()) != self._seen:
            self._seen, self._moved = position, time.monotonic()
        return time.monotonic() - max(since, self._moved)


class Stages:
    """The stages of one run, made and closed by one thread, in which errors, stops and hangs are raised.

    `what` is the source, for messages. `close` (or leaving the `with`) ends every thread after its present step; one that is overdue by
    then is left behind: after a stop or a hang those that need longer than a moment, else those that hang.
    """

    def __init__(self, what: object = "", stops: Stops | None = None, patience: Patience | None = None) -> None:
        self._what, self._stops, self._patience = what, stops or Stops(), patience or Patience()
        self._threads: list[_Thread] = []
        self._until = float("inf")

    def prefetch[T](
        self,
        source: Iterator[T],
        depth: int,
        name: str,
        *,
        position: Callable[[], object] | None = None,
        wake: Callable[[], None] | None = None,
    ) -> Prefetch[T]:
        """The items of `source`, in order, made in one other thread at most `depth` ahead of whoever takes them.

        An error in `source` is raised there, in its place. `wake` makes the thread come back from a step; called when it is to end.
        """
        made = Prefetch(self, Stage(name, position), source, depth, wake)
        self._threads.append(made)
        return made

    def calls(self, name: str, *, position: Callable[[int], object] | None = None) -> Calls:
        """A thread for calls that may hang. `position` is asked with the thread's number in the system (see `Stage`)."""
        made: Calls = Calls(self, Stage(name, None if position is None else lambda: position(made.native_id)))
        self._threads.append(made)
        return made

    def check(self) -> None:
        """Raise a stop that came, or the error of the first stage that hangs."""
        try:
            self._stops.check()
            for thread in self._threads:
                if self.hangs(thread.stage):
                    raise self._error(thread.stage)
        except BaseException:
            self._let_go_soon()
            raise

    def _let_go_soon(self) -> None:
        self._until = min(self._until, time.monotonic() + _LET_GO_S)

    def give_way(self) -> None:
        """For a stage's own thread, between its parts: end it where nobody waits for it any more."""
        if self._until != float("inf"):
            raise _StoppedError

    def hangs(self, stage: Stage) -> bool:
        return stage.silent_s() > self._patience.limit_s(stage.longest_s)

    def overdue(self, stage: Stage) -> bool:
        """Whether a thread that was told to end has had its time."""
        return time.monotonic() > self._until or self.hangs(stage)

    def _error(self, stage: Stage) -> A2NVideoError:
        word, error = _STAGES[stage.name]
        limit = self._patience.limit_s(stage.longest_s)
        where = ""
        if stage.name in _BY_FRAMES:
            where = f" after {stage.made} frames" if stage.made else " before its first frame"
        return error(
            f"{self._what}: the {word} hung: nothing came of it for {limit:.0f} s{where}; "
            "with --stall-timeout SECONDS the same command waits longer"
        )

    def let_go(self, function: Callable[[], None], name: str) -> None:
        """Call what may wait for a thread of its own, such as an engine's `close`, and leave it behind where that is overdue."""
        calls = self.calls(name)
        calls.last(function)
        calls.raise_failure()

    def close(self) -> None:
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):  # one that no `check` raised: a program's own, where nobody entered `Stops`
            self._let_go_soon()
        self.close()


class _Thread:
    """A thread of a stage: started once there is work, ended by `stop`, left behind by `join` where it is overdue."""

    def __init__(self, stages: Stages, stage: Stage) -> None:
        self.stage = stage
        self._stages = stages
        self._stopped, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=stage.name, daemon=True)

    @property
    def native_id(self) -> int:
        """The thread's number in the system, once it runs."""
        return self._thread.native_id or 0

    @property
    def over(self) -> bool:
        """Whether nothing of this stage runs: its thread has ended, or never began."""
        return self._thread.ident is None or self._ended.is_set()

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def join(self) -> None:
        # An interrupt can come out of start() itself, once the thread runs: then it is waited for as well.
        while not self.over and not self._ended.wait(_POLL_S):
            if self._stages.overdue(self.stage):
                _left.append(self._thread)
                return

    def _run(self) -> None:
        _own.stage = self.stage
        try:
            self._work()
        finally:
            self.stage.end()
            self._ended.set()

    def _work(self) -> None:
        raise NotImplementedError


class Prefetch[T](_Thread, Iterator[T]):
    """See `Stages.prefetch`."""

    def __init__(self, stages: Stages, stage: Stage, source: Iterator[T], depth: int, wake: Callable[[], None] | None) -> None:
        super().__init__(stages, stage)
        self._source, self._wake = source, wake
        self._items: queue.Queue[object] = queue.Queue(depth)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._start()
        waiting: Stage | None = getattr(_own, "stage", None)
        if waiting is not None:
            waiting.end()
        item = self._next(check=waiting is None)
        if waiting is not None:
            waiting.begin()
        if item is _END:
            self._items.put(_END)  # for whoever asks again
            raise StopIteration
        if isinstance(item, _Failure):
            raise item.error
        return item  # type: ignore[return-value]

    def _next(self, *, check: bool) -> object:
        while True:
            if check:
                self._stages.check()
            try:
                return self._items.get(timeout=_POLL_S)
            except queue.Empty:
                if self._stopped.is_set():
                    raise _StoppedError from None

    def stop(self) -> None:
        super().stop()
        if self._wake is not None:
            self._wake()

    def close(self) -> None:
        """End the thread after its present step; from any thread."""
        self.stop()
        self.join()

    def _work(self) -> None:
        last: object = _END
        try:
            self.stage.begin()
            for item in self._source:
                self.stage.end()
                self.stage.made += 1
                if not self._put(item):
                    break
                self.stage.begin()
        except BaseException as error:  # noqa: BLE001 - handed whole to the consumer's thread
            last = _Failure(error)
        try:
            self.stage.begin()
            if hasattr(self._source, "close"):
                self._source.close()
        except BaseException as error:  # noqa: BLE001 - likewise
            last = _Failure(error)
        self.stage.end()
        self._put(last)

    def _put(self, item: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False


class Calls(_Thread):
    """Calls made one after the other in one thread of their own while the caller waits, and leaves it at a stop or a hang."""

    def __init__(self, stages: Stages, stage: Stage) -> None:
        super().__init__(stages, stage)
        self._asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__[**P, T](self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `function` returns or raises."""
        self._start()
        self._asked.put(lambda: function(*arguments, **named))
        while True:
            self._stages.check()
            try:
                answer = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(answer, _Failure):
                raise answer.error
            return answer  # type: ignore[no-any-return]

    def last(self, function: Callable[[], Any]) -> bool:
        """Have `function` called after whatever is under way, and end; False where the thread is overdue, and left behind."""
        self._start()
        self._asked.put(function)
        self.stop()
        self.join()
        return self.over

    def raise_failure(self) -> None:
        """Raise what the last call raised."""
        while not self._answers.empty():
            if isinstance(answer := self._answers.get(), _Failure):
                raise answer.error

    def stop(self) -> None:
        if not self._stopped.is_set():
            super().stop()
            self._asked.put(None)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            self.stage.begin()
            try:
                self._answers.put(asked())
                self.stage.made += 1
            except BaseException as error:  # noqa: BLE001 - handed whole to the caller's thread
                self._answers.put(_Failure(error))
            self.stage.end()


class _StoppedError(BaseException):
    """The stage that gives items was ended while its neighbour waited. No `except Exception` takes it: nobody waits for a result."""


class _Failure:
    """An error on its way from one thread to the other."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
