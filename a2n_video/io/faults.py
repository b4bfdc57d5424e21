"""Named points on the way of every output byte, where tests strike. In production nothing listens and a point costs one comparison.

Points are "<role>.<step>.<before|after>": roles are `segment`, `result` and `journal`, steps `write`, `fsync`, `rename` and `append`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Hook = Callable[[str], None]

_hook: Hook | None = None


def reach(point: str) -> None:
    """Tell the hook, if there is one, that this point is reached; what the hook raises is raised here."""
    if _hook is not None:
        _hook(point)


@contextmanager
def listening(hook: Hook) -> Iterator[None]:
    """Have `hook` called at every point, in whatever thread reaches it, until the block ends."""
    global _hook
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before
