"""A network that takes its time and nothing of the processor, and a Ray cluster of four nodes on loopback: for tests and timings."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from a2n_video.engine.nearest import NearestEngine
from a2n_video.engine.protocol import Engine, Geometry, Rows
from a2n_video.job.cluster.worker import SegmentWorker
from a2n_video.job.planning.plan import JobPlan
from a2n_video.media.planes import Planes
from a2n_video.upscaler import Upscaler

FRAME_S = 0.05
NODES = 4


class SleepingEngine(NearestEngine):
    """Repeats pixels, 50 ms a frame."""

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        time.sleep(FRAME_S * len(frames))
        return super().submit(frames)


class SleepingUpscaler(Upscaler):
    """The product's upscaler around the engine above."""

    def engine(self, geometry: Geometry) -> Engine:
        if self._engine is None:
            self._engine = SleepingEngine(geometry)
        return self._engine


class Sleeper(SegmentWorker):
    """The product's worker with that network."""

    def upscaler(self, plan: JobPlan) -> Upscaler:
        return SleepingUpscaler(plan.execution.model, scale=plan.geometry.scale)


@contextmanager
def loopback_cluster() -> Iterator[Any]:
    """Four nodes on loopback, as four machines would be, each with one core; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    local = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(NODES - 1):
        local.add_node(num_cpus=1)
    ray.init(address=local.address, log_to_driver=False)
    # Workers do not see the tests' modules: their classes travel by value.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield local
    ray.shutdown()
    local.shutdown()
