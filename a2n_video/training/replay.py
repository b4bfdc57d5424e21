"""A training step as one CUDA graph: launched one by one (55 ms on an H200, whatever the batch), its kernels leave a card idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

WARM_UP: Final = 3  # steps before the capture: libraries choose and the optimiser allocates in them, which a capture cannot hold
AHEAD: Final = 4  # steps that may wait on the card: a clock on the host that runs on is wrong by them

Compute = Callable[[Tensor, Tensor], Tensor]


class GraphedStep:
    """`compute(low, high)`, a whole step of training on tensors of a card, captured after `WARM_UP` calls and replayed from then on.

    Batches of one shape, uint8, on any device, pinned where the host shall not wait. `compute` may read no number from the card and
    reads what changes from step to step (the learning rate) from tensors. The result is the caller's own. Waits while `AHEAD` steps are
    under way. One thread.
    """

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self.compute, self.device = compute, device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.under_way: deque[torch.cuda.Event] = deque()

    def __call__(self, low: Tensor, high: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.on_a_stream(low, high)
        if self.graph is None:
            self.capture(low, high)
        assert self.graph is not None
        for kept, came in zip(self.batch, (low, high), strict=True):
            kept.copy_(came, non_blocking=True)
        self.graph.replay()
        result = self.result.clone()
        self.hold_back()
        return result

    def hold_back(self) -> None:
        """Wait for the step that was launched `AHEAD` steps ago."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self.under_way.append(event)
        if len(self.under_way) > AHEAD:
            self.under_way.popleft().synchronize()

    def on_a_stream(self, low: Tensor, high: Tensor) -> Tensor:
        """One step as it will be captured: what is allocated on the default stream does not go into a graph's memory."""
        stream, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self.compute(low, high)
        current.wait_stream(stream)
        return result

    def capture(self, low: Tensor, high: Tensor) -> None:
        """Record a step on buffers of our own; nothing is computed yet."""
        self.batch = [torch.empty_like(t, device=self.device) for t in (low, high)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # meanwhile another thread pins the next batches
            self.result = self.compute(*self.batch)
        self.graph = graph
