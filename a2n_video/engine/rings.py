"""The slots that go round in the accelerator pipeline, and the six orderings that keep them whole.

                     2 input slots             2 device outputs         3 host outputs
    frames --pack--> pinned --upload--> device --compute--> device --download--> pinned --copy--> rows
                 E1         E2       E3         E4       E5           E6

E1  the packing thread waits until a slot's last upload has left its pinned rows
E2  the upload stream waits until the last computation has read a slot's device rows
E3  the compute stream waits for the upload
E4  the compute stream waits until the last download has left a device output
E5  the download stream waits for the computation
E6  the collecting thread waits for the download; only when it has copied the rows out is the host output free again

There are fewer input slots and device outputs than host outputs on purpose: with equal rings a free host output would
imply E1, E2 and E4, and no test could tell whether they are there.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from a2n_video.engine.backend import Backend, Event
from a2n_video.engine.protocol import Rows

Edge = Literal["E1", "E2", "E3", "E4", "E5", "E6"]
INPUTS: Final = 2
DEVICE_OUTPUTS: Final = 2
HOST_OUTPUTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class InputSlot:
    """A batch on its way in: (batch, source samples) on the host and on the device."""

    pinned: Tensor
    device: Tensor
    uploaded: Event
    consumed: Event

    @classmethod
    def make(cls, backend: Backend, shape: tuple[int, int], dtype: torch.dtype) -> InputSlot:
        return cls(
            pinned=backend.pinned(shape, dtype),
            device=backend.on_device(shape, dtype),
            uploaded=backend.event(),
            consumed=backend.event(),
        )


@dataclass(frozen=True, kw_only=True)
class DeviceOutput:
    """A computed batch: (batch, target samples), and a flag a frame, 1 where its RGB was not finite."""

    rows: Tensor
    flags: Tensor
    computed: Event
    drained: Event

    @classmethod
    def make(cls, backend: Backend, shape: tuple[int, int], dtype: torch.dtype) -> DeviceOutput:
        return cls(
            rows=backend.on_device(shape, dtype),
            flags=backend.on_device(shape[:1], torch.uint8),
            computed=backend.event(),
            drained=backend.event(),
        )


@dataclass(frozen=True, kw_only=True)
class HostOutput:
    """A downloaded batch and its flags. `kept` is the batch's input on the device, for a second computation in fp32."""

    rows: Tensor
    flags: Tensor
    kept: Tensor
    downloaded: Event

    @classmethod
    def make(cls, backend: Backend, shape: tuple[int, int], dtype: torch.dtype, kept: Tensor) -> HostOutput:
        return cls(
            rows=backend.pinned(shape, dtype),
            flags=backend.pinned(shape[:1], torch.uint8),
            kept=kept,
            downloaded=backend.event(),
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One batch on its way: `count` frames, the first of them number `first` of all, in the slots lent to it."""

    first: int
    count: int
    source: InputSlot
    host: HostOutput
    future: Future[Rows]

    def __str__(self) -> str:
        last = self.first + self.count - 1
        return f"frame {self.first}" if self.count == 1 else f"frames {self.first} to {last}"
