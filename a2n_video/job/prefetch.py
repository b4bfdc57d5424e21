"""A thread is one wrapper: `prefetch(iterator, depth)` runs the iterator in a thread of its own, at most `depth` items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Final

_END: Final = object()
_POLL_S: Final = 0.1


def prefetch[T](source: Iterator[T], depth: int, name: str = "prefetch") -> Iterator[T]:
    """The items of `source`, in order, made in one other thread at most `depth` ahead of the caller.

    An error in `source` is raised here, in its place. Closing this generator (or an error in the caller) stops the thread after the
    item it is at, closes `source` in that thread, and waits for it.
    """
    items: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                items.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        last: object = _END
        try:
            for item in source:
                if not put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - handed whole to the consumer's thread
            last = _Failure(error)
        finally:
            if hasattr(source, "close"):
                source.close()
        put(last)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


class _Failure:
    """An error on its way from one thread to the other."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
