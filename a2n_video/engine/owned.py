"""Whose an engine with threads of its own is: it ends with its owner and before the interpreter, and stays behind where a process forks."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from itertools import chain
from threading import Thread, current_thread
from typing import Final, Protocol
from weakref import WeakKeyDictionary, finalize

from a2n_video.engine.protocol import Engine, EngineStats, Geometry, Rows
from a2n_video.errors import DeviceError
from a2n_video.media.planes import Planes

_PATIENCE_S: Final = 60.0  # for what the engines have begun; a device that hangs must not hold the process for ever
LEFT_BEHIND: Final = (
    "this process was forked off another one, in which the engine's threads stayed, with the frames that it had; begin the iteration here"
)


class Threaded(Engine, Protocol):
    """An engine that is held by threads of its own: it must be told to end."""

    def stop(self) -> None:
        """Have the threads end after what they have begun; waits for nothing. Any thread may call it: garbage is collected in any."""


class OwnedEngine:
    """A threaded engine in the hands of one owner: it stops when this object is collected.

    In a process that was forked off, `submit` is a DeviceError and `close` does nothing.
    """

    def __init__(self, engine: Threaded) -> None:
        self.geometry: Geometry = engine.geometry
        self.batch_size: int = engine.batch_size
        self._engine = engine
        self._process = os.getpid()
        finalize(self, _let_go, engine, self._process).atexit = False  # the end of the interpreter waits for the threads as well

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        """See `Engine.submit`."""
        if self.left_behind:
            raise DeviceError(LEFT_BEHIND)
        return self._engine.submit(frames)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        if not self.left_behind:
            self._engine.close()

    @property
    def left_behind(self) -> bool:
        """Whether the threads are in another process, which this one was forked off."""
        return self._process != os.getpid()


def left_behind(engine: Engine) -> bool:
    """Whether an engine has threads and they are in another process; locks that they held are never given back here."""
    return isinstance(engine, OwnedEngine) and engine.left_behind


def waited_for(threads: Sequence[Thread]) -> bool:
    """Wait for an engine's threads to end. False, and no wait, in one of them: garbage that closes an engine is collected in any thread."""
    if current_thread() in threads:
        return False
    for thread in threads:
        thread.join()
    return True


def ends_at_exit(engine: Threaded, threads: Sequence[Thread]) -> None:
    """Stop the engine when the interpreter ends, and wait for its threads a while; before they start."""
    _running[engine] = os.getpid(), threads
    _register_exit()


# The process of each, and its threads, which hold it as long as they run.
_running: WeakKeyDictionary[Threaded, tuple[int, Sequence[Thread]]] = WeakKeyDictionary()


@cache
def _register_exit() -> None:
    # Now, and not on import: whatever the engines run on has been imported by then, and what was registered last goes first.
    atexit.register(_end_all)


def _end_all() -> None:
    """A thread that comes out of torch or OpenVINO into an interpreter that has ended takes the process along (SIGABRT)."""
    until = time.monotonic() + _PATIENCE_S
    ours = [(engine, threads) for engine, (process, threads) in list(_running.items()) if process == os.getpid()]
    for engine, _ in ours:
        engine.stop()
    for thread in chain.from_iterable(threads for _, threads in ours):
        if thread.is_alive():
            thread.join(max(0.0, until - time.monotonic()))


def _let_go(engine: Threaded, process: int) -> None:
    if process == os.getpid():
        engine.stop()
