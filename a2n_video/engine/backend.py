"""What the accelerator pipeline asks of a device: three streams, events, buffers. One real answer (torch), one simulated (tests).

Only generic torch.Stream and torch.Event appear here. Waiting for a torch.cuda event on a generic stream, or the other way
round, can drop the wait without a word (pytorch#173792, #189017), so neither kind of the other family may come near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from a2n_video.engine.protocol import Rows
from a2n_video.errors import DeviceError

StreamName = Literal["upload", "compute", "download"]
STREAMS: Final[tuple[StreamName, ...]] = get_args(StreamName)
Work = Callable[..., object]  # called as work(*reads, *writes)
Tensors = tuple[Tensor, ...]


class Event(Protocol):
    """A point in a stream. Waiting for one that was never recorded waits for nothing."""

    def record(self, stream: StreamName) -> None: ...

    def block(self, stream: StreamName) -> None:
        """What is put on `stream` from now on starts after the point last recorded."""

    def synchronize(self) -> None:
        """Hold the calling thread until the point last recorded is reached; any thread may call it."""


class Backend(Protocol):
    """A device with an upload, a compute and a download stream.

    One thread, that which called `bind`, puts work on the streams; other threads may only wait for events and view host
    buffers. Buffers belong to whoever asked for them.
    """

    name: str
    device: torch.device

    def bind(self) -> None:
        """Make this device the calling thread's, before anything else is asked."""

    def event(self) -> Event: ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A page-locked host buffer with undefined content."""

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A device buffer with undefined content."""

    def host_view(self, buffer: Tensor, *, write: bool) -> Rows:
        """A pinned buffer's memory, for the calling thread to read or to write before it passes the buffer on."""

    def run(self, stream: StreamName, work: Work, reads: Tensors, writes: Tensors) -> None:
        """Put `work(*reads, *writes)` on a stream; it touches no buffer but those.

        Running out of memory shows here, as torch.OutOfMemoryError; other failures may show at any later call.
        """

    def synchronize(self) -> None:
        """Wait for everything on the device."""

    def release_memory(self) -> None:
        """Wait for everything and give unused device memory back."""


def copy_all(*tensors: Tensor) -> None:
    """Copy the first half of the tensors to the second; between pinned memory and the device this does not hold the host."""
    half = len(tensors) // 2
    for source, target in zip(tensors[:half], tensors[half:], strict=True):
        target.copy_(source, non_blocking=True)


class _TorchEvent:
    def __init__(self, streams: dict[StreamName, torch.Stream], device: torch.device) -> None:
        self._streams = streams
        self._event = torch.Event(device=device)

    def record(self, stream: StreamName) -> None:
        self._event.record(self._streams[stream])

    def block(self, stream: StreamName) -> None:
        self._event.wait(self._streams[stream])

    def synchronize(self) -> None:
        self._event.synchronize()


class TorchBackend:
    """CUDA and ROCm ("cuda"), and XPU, by torch's generic calls. `guard_syncs` makes a hidden synchronisation in the
    compute stream an error; torch keeps that setting for the whole process, so it is for tests and start-up checks."""

    def __init__(self, device: torch.device) -> None:
        if device.type not in ("cuda", "xpu"):
            raise DeviceError(f"the accelerator engine runs on cuda and xpu devices, not on {device}; use the torch or openvino engine")
        self.device = device
        self.name = str(device)
        self.guard_syncs = False
        self._streams: dict[StreamName, torch.Stream] = {}

    def bind(self) -> None:
        if self.device.index is not None:
            torch.accelerator.set_device_index(self.device.index)
        self._streams.update({name: torch.Stream(device=self.device) for name in STREAMS})

    def event(self) -> Event:
        return _TorchEvent(self._streams, self.device)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def on_device(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def host_view(self, buffer: Tensor, *, write: bool) -> Rows:
        return buffer.numpy()

    def run(self, stream: StreamName, work: Work, reads: Tensors, writes: Tensors) -> None:
        # The stream stays current afterwards: the thread is the engine's own and names a stream with every call.
        torch.accelerator.set_stream(self._streams[stream])
        with self._guarded() if stream == "compute" else nullcontext():
            work(*reads, *writes)

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self.device)

    def release_memory(self) -> None:
        self.synchronize()
        torch.get_device_module(self.device).empty_cache()

    def _guarded(self) -> AbstractContextManager[None]:
        return syncs_are_errors() if self.guard_syncs and self.device.type == "cuda" else nullcontext()


@contextmanager
def syncs_are_errors() -> Iterator[None]:
    """Inside, CUDA operations that would wait for the device raise instead (torch.cuda.set_sync_debug_mode; process-wide)."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def torch_dtype(dtype: np.dtype[np.generic]) -> torch.dtype:
    """torch's name for a numpy sample type."""
    found = getattr(torch, dtype.name)
    assert isinstance(found, torch.dtype)
    return found
