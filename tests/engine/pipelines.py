"""Small pipelines for the tests: frames that can be told apart, and computations that leave them as they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from a2n_video.engine.pipeline import Steps
from a2n_video.engine.protocol import Engine, Geometry, Rows
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes

GRAY16 = PlaneFormat(width=3, height=2, family="gray", depth=16)
GEOMETRY = Geometry(source=GRAY16, color=ColorSpec().settled(GRAY16), scale=1)
OVERFLOWS = 500  # frames of this number and above are "not finite" to `identity`
Batches = list[list[list[Rows]]]


def frame(number: int) -> list[Rows]:
    """One frame's planes, all of its samples its number."""
    return [np.full((GRAY16.height, GRAY16.width), number, np.uint16)]


def batches(sizes: Sequence[int], first: int = 1) -> Batches:
    """Batches of numbered frames, the first of them `first`."""
    starts = np.cumsum([first, *sizes[:-1]])
    return [[frame(int(start) + i) for i in range(size)] for start, size in zip(starts, sizes, strict=True)]


def numbers(rows: Rows) -> list[int]:
    """Which frames these rows are; a row that is not one frame is told by its samples."""
    assert all((row == row[0]).all() for row in rows), rows
    return [int(row[0]) for row in rows]


def identity(rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
    out.copy_(rows)
    flags.copy_(rows[:, 0].to(torch.int32) >= OVERFLOWS)


def exact_identity(rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
    """Tells that it was asked by adding 1000."""
    out.copy_((rows.to(torch.int32) + 1000).to(torch.uint16))
    flags.zero_()


PLAIN = Steps(fast=identity)
CHECKED = Steps(fast=identity, exact=exact_identity)


def run(engine: Engine, batches: Iterable[Sequence[Planes]], in_flight: int = 3) -> Iterator[Rows]:
    """Rows for every batch, in order, with at most `in_flight` batches between submit and the caller."""
    pending: deque[Future[Rows]] = deque()
    for batch in batches:
        pending.append(engine.submit(batch))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
