"""A backend without a device, to try a pipeline on, and the serial reference of others."""

from __future__ import annotations

import torch
from torch import Tensor

from a2n_video.engine.backend import Event, StreamName, Tensors, Work
from a2n_video.engine.protocol import Rows


class HostBackend:
    """A `Backend` without a device: work runs where it is put."""

    name = "host"
    device = torch.device("cpu")

    def bind(self) -> None: ...

    def event(self) -> Event:
        return _HostEvent()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    on_device = pinned

    def host_view(self, buffer: Tensor, *, write: bool) -> Rows:
        return buffer.numpy()

    def run(self, stream: StreamName, work: Work, reads: Tensors, writes: Tensors) -> None:
        work(*reads, *writes)

    def synchronize(self) -> None: ...

    def release_memory(self) -> None: ...


class _HostEvent:
    def record(self, stream: StreamName) -> None: ...

    def block(self, stream: StreamName) -> None: ...

    def synchronize(self) -> None: ...
