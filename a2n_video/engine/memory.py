"""Frames of any size in any memory: strips of rows that go through the network in step, and what to do when memory runs out.

A2N is not local: each block's gates come from a mean over the whole frame, so tiles with gates of their own differ from the whole.
Here every block is finished on all strips before the next begins. The sums for the next block's gates are taken while a
strip is at hand; one map of features of the frame is kept, overwritten in place. The result is the whole frame's.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from a2n_video.net.fuse import Borders, FusedA2N, FusedBlock, accumulator, widened

_LOG = logging.getLogger(__name__)
MIN_STRIP_ROWS = 8  # more than any halo, so that a strip's neighbours always hold all of it
_BLOCK_HALO = 2


def strips_of(height: int, strip_rows: int) -> list[tuple[int, int]]:
    """Rows [a, b) of strips of about `strip_rows` rows (0: one strip), as even as can be, none below `MIN_STRIP_ROWS` but a whole frame."""
    rows = max(strip_rows, MIN_STRIP_ROWS) if strip_rows else height
    count = max(1, min(-(-height // rows), height // MIN_STRIP_ROWS))
    edges = [round(i * height / count) for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def in_strips(net: FusedA2N, x: Tensor, strip_rows: int) -> Tensor:
    """`net(x)` computed strip by strip: (N, 3, H, W) -> (N, 3, scale*H, scale*W) in the dtype of `x`.

    Equal to the whole frame's result up to the order in which the gates' means are summed.
    """
    strips = strips_of(x.shape[2], strip_rows)
    if len(strips) == 1:
        return net(x)  # type: ignore[no-any-return]
    scale = net.config.scale
    out = torch.empty((x.shape[0], 3, x.shape[2] * scale, x.shape[3] * scale), dtype=x.dtype, device=x.device)
    for frame, target in zip(torch.split(x, 1), torch.split(out, 1), strict=True):
        _frame_in_strips(net, frame, strips, target)
    return out


def _frame_in_strips(net: FusedA2N, x: Tensor, strips: list[tuple[int, int]], out: Tensor) -> None:
    features, mean = _first_features(net, x, strips)
    blocks: list[FusedBlock] = list(net.blocks)  # type: ignore[arg-type]
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        mean = _block_in_strips(block, after, features, mean, strips)
    scale = net.config.scale
    for a, b in strips:
        out[:, :, a * scale : b * scale] = _tail(net, x, features, (a, b))


def _window(x: Tensor, strip: tuple[int, int], halo: int) -> tuple[Tensor, Borders]:
    """A strip's rows with `halo` more on each side that is no border."""
    (a, b), height = strip, x.shape[2]
    return x[:, :, max(a - halo, 0) : min(b + halo, height)], Borders(a == 0, b == height)


def _first_features(net: FusedA2N, x: Tensor, strips: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The first convolution's map of the whole frame, and the mean that the first block's gates need."""
    weight = net.conv_first.weight
    shape = (1, weight.shape[0], x.shape[2], x.shape[3])
    features = torch.empty(shape, dtype=weight.dtype, device=x.device, memory_format=torch.channels_last)
    total = torch.zeros(shape[:2], dtype=accumulator(weight.dtype), device=x.device)
    for a, b in strips:
        rows, borders = _window(x, (a, b), 1)
        strip = net.conv_first(rows.to(weight.dtype, memory_format=torch.channels_last), borders)
        features[:, :, a:b] = strip
        total += _row_sums(net.blocks[0], strip)  # type: ignore[arg-type]
    return features, total / (x.shape[2] * x.shape[3])


def _row_sums(block: FusedBlock, strip: Tensor) -> Tensor:
    return block.inner(strip).sum(dim=(2, 3), dtype=accumulator(strip.dtype))


def _block_in_strips(block: FusedBlock, after: FusedBlock | None, features: Tensor, mean: Tensor, strips: list[tuple[int, int]]) -> Tensor:
    """One block over all strips, in place; returns the mean for the block `after` it."""
    gates = block.gates(mean)
    total = torch.zeros_like(mean)
    for (a, b), inner in zip(strips, _inner_windows(block, features, strips), strict=True):
        borders = Borders(a == 0, b == features.shape[2])
        strip = block.mix(features[:, :, a:b], inner, gates, borders)
        features[:, :, a:b] = strip
        if after is not None:
            total += _row_sums(after, strip)
    return total / (features.shape[2] * features.shape[3])


def _inner_windows(block: FusedBlock, features: Tensor, strips: list[tuple[int, int]]) -> Iterator[Tensor]:
    """Each strip's inner map with its halo. Rows above a strip have been overwritten by then: theirs are kept from the strip before."""
    height, kept, done = features.shape[2], None, 0
    for _, b in strips:
        end = min(b + _BLOCK_HALO, height)
        inner = block.inner(features[:, :, done:end])
        done = end
        window = inner if kept is None else torch.cat([kept, inner], dim=2)
        kept = window[:, :, -2 * _BLOCK_HALO :].clone(memory_format=torch.channels_last)
        yield window


def _tail(net: FusedA2N, x: Tensor, features: Tensor, strip: tuple[int, int]) -> Tensor:
    """The strip's part of the result: trunk convolution, head and skip. The first features are computed again, not kept."""
    halo = net.head_halo + 1
    rows, borders = _window(features, strip, halo)
    near, _ = _window(x, strip, halo)
    first = net.conv_first(near.to(rows.dtype, memory_format=torch.channels_last), borders)
    residual = net.head(first + net.trunk_conv(rows, borders), borders)
    shown, _ = _window(x, strip, 1)
    skip = net.skip(widened(shown))
    top, bottom = (0 if border else net.config.scale for border in (borders.top, borders.bottom))
    return (residual + skip[:, :, top : skip.shape[2] - bottom]).to(x.dtype)


@dataclass
class Recovery:
    """Runs batches, and when memory runs out goes on with half the batch, then with strips, then with half of those.

    What worked is kept for the next batch. Nothing is lost: the same rows are tried again. Said once in the log.
    """

    batch_size: int
    strip_rows: int
    height: int
    count: int = 0

    def run(self, part: Callable[[Tensor, int], Tensor], rows: Tensor) -> Tensor:
        """`part(rows, strip_rows)` on all rows, in as many parts as memory asks for; raises MemoryError when nothing helps."""
        while True:
            step = min(self.batch_size, len(rows))
            done, reason = _attempt(part, rows, step, self.strip_rows)
            if done is not None:
                return done
            self._step_down(step, reason)  # out of the except clause, whose exception holds the tensors

    def _step_down(self, step: int, reason: str) -> None:
        rows = self.strip_rows or self.height
        if step > 1:
            self.batch_size = step // 2
        elif rows // 2 >= MIN_STRIP_ROWS:
            self.strip_rows = rows // 2
        else:
            raise MemoryError(f"not enough memory for a strip of {rows} rows: {reason}")
        if not self.count:
            _LOG.warning("out of memory; going on with %d frames at a time, %s", self.batch_size, _named(self.strip_rows))
        self.count += 1


def _attempt(part: Callable[[Tensor, int], Tensor], rows: Tensor, step: int, strip_rows: int) -> tuple[Tensor | None, str]:
    """The result, or None and why memory ran out."""
    try:
        parts = [part(piece, strip_rows) for piece in torch.split(rows, step)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), ""
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None, str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python means that memory ran out: the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _named(strip_rows: int) -> str:
    return f"in strips of {strip_rows} rows" if strip_rows else "whole"
