"""Hand-over between the engine's threads: queues that one error ends all at once."""

from __future__ import annotations

import threading
from collections import deque


class Stopped(Exception):
    """The channels were stopped while, or before, something was taken; it never leaves the engine."""


class Hub:
    """What an engine's channels share: one lock, and whether they have stopped."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.stopped = False

    def stop(self) -> None:
        """Wake every thread that waits in `take`, now and from now on, with `Stopped`."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


class Channel[T]:
    """A queue in order, for any number of threads. Its length is bounded by the number of slots that go round, not by itself."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        with self._hub.changed:
            self._items.append(item)
            self._hub.changed.notify_all()

    def take(self) -> T:
        """The next item; waits for one. Raises `Stopped` once the hub has stopped, whatever is left in the queue."""
        with self._hub.changed:
            self._hub.changed.wait_for(lambda: self._items or self._hub.stopped)
            if self._hub.stopped:
                raise Stopped
            return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)
