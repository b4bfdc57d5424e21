"""SIGINT and SIGTERM: the first one stops the job in order, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self

from a2n_video.errors import INTERRUPTED, TERMINATED

_CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Terminated(KeyboardInterrupt):
    """SIGTERM came; a kin of KeyboardInterrupt, so that no `except Exception` takes it."""


class Stops:
    """While open, signals raise KeyboardInterrupt or Terminated in the main thread; a second one ends the process on the spot.

    An exception raised while FFmpeg calls back into Python is lost, so the first signal is also kept: `check` raises it again, and a
    job asks once a frame. Outside the main thread this does nothing, as Python gives signals to the main thread only.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

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
        self.check()

    def check(self) -> None:
        """Raise what the first signal asked for, if one came."""
        if self._signal is not None:
            raise Terminated if self._signal == signal.SIGTERM else KeyboardInterrupt


def exit_code_of_stop(error: KeyboardInterrupt) -> int:
    """130 or 143."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
