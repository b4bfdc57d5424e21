"""A VapourSynth core with our filter in it, and an engine that counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from a2n_video import vs_engine
from a2n_video.engine.nearest import NearestEngine
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.media.planes import Planes
from a2n_video.options import ExecutionPlan


@pytest.fixture
def core() -> Iterator[Any]:
    """The core; a missing filter is a skip, or an error where A2N_REQUIRE_VS_PLUGIN says that it must be there."""
    vs = pytest.importorskip("vapoursynth")
    if not hasattr(vs.core, "a2n"):
        message = "core.a2n is not installed: pip install -e . with a C compiler"
        if os.environ.get("A2N_REQUIRE_VS_PLUGIN", "0") != "0":
            pytest.fail(message)
        pytest.skip(message)
    threads = vs.core.num_threads
    yield vs.core
    vs.core.num_threads = threads


class Counting(NearestEngine):
    """Nearest; `calls` says how many frames came each time, over all engines."""

    def __init__(self, geometry: Geometry, batch_size: int, calls: list[int]) -> None:
        super().__init__(geometry, batch_size)
        self._calls = calls

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        self._calls.append(len(frames))
        return super().submit(frames)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that reach the engines of filters made from now on."""
    counted: list[int] = []

    def open_engine(plan: ExecutionPlan, geometry: Geometry) -> Counting:
        return Counting(geometry, plan.batch_size, counted)

    monkeypatch.setattr(vs_engine, "open_engine", open_engine)
    return counted


@pytest.fixture
def distinct(core: Any) -> Callable[..., Any]:
    """Make a clip whose frames all differ; `made`, where given, gets the number of every frame that is made."""
    import numpy as np
    import vapoursynth as vs

    def clip(length: int, width: int = 48, height: int = 32, made: list[int] | None = None) -> Any:
        def draw(n: int, f: Any) -> Any:
            if made is not None:
                made.append(n)
            frame = f.copy()
            for plane in range(frame.format.num_planes):
                samples = np.asarray(frame[plane])
                samples[...] = np.random.default_rng([n, plane]).integers(0, 256, samples.shape)
            return frame

        blank = core.std.BlankClip(width=width, height=height, format=vs.YUV420P8, length=length, keep=True)
        return core.std.ModifyFrame(blank, blank, draw)

    return clip
