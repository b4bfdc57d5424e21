"""SIGINT and SIGTERM: the first one stops the job in order, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

from a2n_video.errors import INTERRUPTED, TERMINATED

_CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Terminated(KeyboardInterrupt):
    """SIGTERM came; a kin of KeyboardInterrupt, so that no `except Exception` takes it."""


class Stops:
    """While open, a signal raises KeyboardInterrupt or Terminated in the main thread; a second one ends the process on the spot.

    Where other threads run, or FFmpeg calls back into Python and would lose the exception, the work is `deferred`: the signal is kept
    and raised by `check`, which such work calls at least every frame and while it waits. Outside the main thread, or never entered,
    this does nothing.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._before: dict[int, Any] = {}
        self._deferred = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _CODES}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(_CODES[signal.Signals(number)])
        self._signal = number
        if not self._deferred:
            self.check()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block in which a signal only raises where `check` is called, and at its end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    def check(self) -> None:
        """Raise what the first signal asked for, if one came."""
        if self._signal is not None:
            raise Terminated if self._signal == signal.SIGTERM else KeyboardInterrupt


def exit_code_of_stop(error: KeyboardInterrupt) -> int:
    """130 or 143."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
