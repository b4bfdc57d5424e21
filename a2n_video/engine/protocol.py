"""What every engine is: native planes in, native planes out, order kept. One contract test (tests/engine/test_contract.py) covers all.

Neither torch nor numpy beyond arrays is needed to use one, so that `nearest` runs where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes

Rows = npt.NDArray[Any]  # (n, format.samples): one flat frame a row, owned by whoever holds it

# Said where a picture comes out of a network that no picture is: better no result than black frames.
NOT_FINITE: Final = (
    "the network gave values that are no numbers: its weights or its device are at fault, or a source of floating samples holds such; "
    "try --dtype float32 or --device cpu"
)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What an engine is built for: the source's planes, their colour (settled), and the factor.

    `layout` is the result's layout where it is not the source's (another depth or subsampling asked for with --pix-fmt);
    its size is not looked at. Range, matrix and siting of the result are the source's.
    """

    source: PlaneFormat
    color: ColorSpec
    scale: int
    layout: PlaneFormat | None = None

    @property
    def target(self) -> PlaneFormat:
        """The result's planes: always read this, never `source.scaled`. RGB, which has no matrix, stays RGB in whatever layout."""
        layout = self.layout or self.source
        if self.source.family == "rgb":
            layout = replace(layout, family="rgb", log2_chroma_w=0, log2_chroma_h=0)
        return replace(layout, width=self.source.width * self.scale, height=self.source.height * self.scale)


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """What an engine counted: frames and batches done, frames redone in fp32, out-of-memory recoveries, busy seconds."""

    frames: int = 0
    batches: int = 0
    redone_fp32: int = 0
    oom_recoveries: int = 0
    busy_s: float = 0.0


class Engine(Protocol):
    """An upscaler of batches for one geometry.

    `submit` packs up to `batch_size` frames, starts them and returns at once, or waits while the engine's slots are full; it is
    called from one thread at a time. The future holds rows of the target format, copied out: the caller owns them. Futures finish in
    the order of submission. After an error every later future has that error.
    `close` waits for the engine's thread and is idempotent.
    """

    geometry: Geometry
    batch_size: int

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]: ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...


def pack_rows(fmt: PlaneFormat, frames: Sequence[Planes], rows: Rows | None = None) -> Rows:
    """Frames' planes as flat rows, into `rows` (at least as many) where given."""
    if rows is None:
        rows = np.empty((len(frames), fmt.samples), fmt.dtype)
    for planes, row in zip(frames, rows, strict=False):
        fmt.pack(planes, row)
    return rows
