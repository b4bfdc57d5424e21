"""A thread is one wrapper: `prefetch(iterator, depth)` runs the iterator in a thread of its own, at most `depth` items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final

_END: Final = object()
_POLL_S: Final = 0.1


def prefetch[T](source: Iterator[T], depth: int, name: str = "prefetch", check: Callable[[], None] | None = None) -> Iterator[T]:
    """The items of `source`, in order, made in one other thread at most `depth` ahead of the caller.

    An error in `source` is raised here, in its place. Closing this generator (or an error in the caller) stops the thread after the
    item it is at, closes `source` in that thread, and waits for it. `check` is called while the caller waits, and may raise.
    """
    items: queue.Queue[object] = queue.Queue(depth)
    stop, ended = threading.Event(), threading.Event()

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
            ended.set()

    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
        while (item := _next(items, check)) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        # An interrupt can come out of start() itself, once the thread runs: then it is waited for as well.
        while not ended.wait(_POLL_S) and thread.ident is not None:
            continue


def _next(items: queue.Queue[object], check: Callable[[], None] | None) -> object:
    while True:
        if check is not None:
            check()
        try:
            return items.get(timeout=_POLL_S)
        except queue.Empty:
            continue


class _Failure:
    """An error on its way from one thread to the other."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
