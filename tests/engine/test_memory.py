"""What is done when memory runs out, and how much a frame is foreseen to take."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from a2n_video.engine import footprint
from a2n_video.engine.cpu import open_cpu_engine
from a2n_video.engine.memory import MIN_STRIP_ROWS, Recovery, is_out_of_memory
from a2n_video.engine.protocol import Geometry
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.net.fuse import fuse
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.options import ExecutionPlan
from tests.engine.pipelines import run

FMT = PlaneFormat(width=32, height=96, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
GEOMETRY = Geometry(source=FMT, color=ColorSpec(chroma_location=1).settled(FMT), scale=2)
PLAN = ExecutionPlan(model="weights", engine="torch", batch_size=4)


def small_model() -> A2N:
    torch.manual_seed(1)
    return A2N(A2NConfig(n_features=12, n_upsample_features=8, n_blocks=2)).eval()


class Memory:
    """Stands for a machine on which only so many frames of so many rows fit; keeps what was computed on it."""

    def __init__(self, frames: int, rows: int, height: int = 96) -> None:
        self.frames, self.rows, self.height = frames, rows, height
        self.tries: list[tuple[int, int]] = []

    def part(self, rows: Tensor, strip_rows: int) -> Tensor:
        self.tries.append((len(rows), strip_rows))
        if len(rows) > self.frames or (strip_rows or self.height) > self.rows:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return rows * 2


@pytest.mark.parametrize(("frames", "rows"), [(4, 96), (2, 96), (1, 96), (1, 48), (1, 13), (3, 96)])
def test_less_memory_gives_the_same_result(frames: int, rows: int) -> None:
    memory = Memory(frames, rows)
    recovery = Recovery(batch_size=4, strip_rows=0, height=96)
    for first in (0, 40):
        batch = torch.arange(first, first + 4)[:, None]
        assert torch.equal(recovery.run(memory.part, batch), batch * 2)
    assert recovery.batch_size <= frames
    assert (recovery.strip_rows or 96) <= rows
    settled = memory.tries[-(4 // recovery.batch_size) :]
    assert all(tried == (recovery.batch_size, recovery.strip_rows) for tried in settled)  # what worked is kept


def test_the_batch_goes_before_the_frame() -> None:
    memory = Memory(1, 24)
    Recovery(batch_size=4, strip_rows=0, height=96).run(memory.part, torch.zeros(4, 1))
    steps = list(dict.fromkeys(memory.tries))
    assert steps == [(4, 0), (2, 0), (1, 0), (1, 48), (1, 24)]


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    recovery = Recovery(batch_size=4, strip_rows=0, height=96)
    with caplog.at_level(logging.WARNING):
        recovery.run(Memory(1, 24).part, torch.zeros(4, 1))
    assert len(caplog.records) == 1
    assert recovery.count == 4


def test_when_nothing_helps_it_is_an_error() -> None:
    with pytest.raises(MemoryError, match="not enough memory for a strip"):
        Recovery(batch_size=2, strip_rows=0, height=96).run(Memory(0, 0).part, torch.zeros(2, 1))


def test_other_errors_are_not_taken_for_it() -> None:
    def broken(rows: Tensor, strip_rows: int) -> Tensor:
        raise RuntimeError("shapes do not match")

    recovery = Recovery(batch_size=2, strip_rows=0, height=96)
    with pytest.raises(RuntimeError, match="shapes"):
        recovery.run(broken, torch.zeros(2, 1))
    assert recovery.count == 0


def test_the_allocators_own_error_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())


def test_an_engine_short_of_memory_loses_and_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for one frame in strips of 24 rows; the frames come out as from an engine with all the memory it wants."""
    from a2n_video.engine import cpu

    rng = np.random.default_rng(2)
    frames = [FMT.unpack(rng.integers(20, 220, FMT.samples).astype(np.uint8)) for _ in range(7)]
    batches = [frames[:4], frames[4:]]

    def through() -> tuple[list[np.ndarray], int]:
        engine = open_cpu_engine(small_model(), GEOMETRY, PLAN)
        try:
            return [row for rows in run(engine, batches) for row in rows], engine.stats().oom_recoveries
        finally:
            engine.close()

    whole, none = through()
    original = cpu.in_strips

    def short(net: object, x: Tensor, strip_rows: int) -> Tensor:
        if len(x) > 1 or not 0 < strip_rows <= 24:
            raise MemoryError("no room")
        return original(net, x, strip_rows)  # type: ignore[arg-type]

    monkeypatch.setattr(cpu, "in_strips", short)
    parts, recoveries = through()
    assert (none, recoveries) == (0, 4)
    assert len(parts) == len(whole) == 7
    assert max(np.abs(a.astype(int) - b.astype(int)).max() for a, b in zip(parts, whole, strict=True)) <= 1


def test_the_probe_counts_what_lives_at_once() -> None:
    def work() -> Tensor:
        a = torch.empty(1000, device="meta")
        b = a + 1  # 8000 bytes
        del a
        return b[:10] + torch.empty(1500, device="meta")[:10]  # and 6000 and 40 beside 4000

    assert footprint.peak_bytes(work) == 4000 + 6000 + 40


@pytest.mark.parametrize("strip_rows", [8, 12, 24])
def test_two_points_foresee_any_height(strip_rows: int) -> None:
    net = fuse(small_model()).to("meta")
    source = replace(FMT, height=strip_rows * 40)
    tall = replace(GEOMETRY, source=source)
    foreseen = footprint.frame_bytes(net, tall, strip_rows)
    shown = torch.empty((1, 3, source.height, source.width), device="meta")
    counted = footprint.peak_bytes(lambda: footprint.in_strips(net, shown, strip_rows))
    assert counted < foreseen < 3 * counted  # with its rows and colour
    # A frame twice as tall takes twice what grows, and the strips' own share once.
    double = footprint.frame_bytes(net, replace(GEOMETRY, source=replace(source, height=2 * source.height)), strip_rows)
    assert 1.8 * foreseen < double <= 2 * foreseen


def test_the_plan_gives_up_the_batch_then_rows() -> None:
    model = small_model()
    plan = replace(PLAN, strip_rows=96)
    net = fuse(model).to("meta")
    one, strip = footprint.frame_bytes(net, GEOMETRY, 96), footprint.frame_bytes(net, GEOMETRY, MIN_STRIP_ROWS)
    assert strip < one
    fitted = [footprint.fitted(plan, model, GEOMETRY, free) for free in (8 * one, 4 * one, 2 * one, one + strip, 0)]
    assert [p.batch_size for p in fitted] == [4, 2, 1, 1, 1]
    assert [p.strip_rows for p in fitted[:3]] == [96] * 3
    assert fitted[3].strip_rows < 96
    assert MIN_STRIP_ROWS <= fitted[4].strip_rows < 2 * MIN_STRIP_ROWS


_WHOLE_8K = """
import resource, numpy as np
from a2n_video.engine.protocol import Geometry
from a2n_video.engine.select import open_engine, resolve_plan
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.options import ModelOptions
fmt = PlaneFormat(width=7680, height=4320, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
geometry = Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=2)
engine = open_engine(resolve_plan(ModelOptions(model="a2n", dtype="bfloat16"), geometry), geometry)
row = np.random.default_rng(0).integers(0, 255, fmt.samples).astype(np.uint8)
assert engine.submit([fmt.unpack(row)]).result().shape == (1, geometry.target.samples)
engine.close()
"""


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_an_8k_frame_stays_below_8_gib() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([sys.executable, "-c", _WHOLE_8K], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak > before, "another child was larger; run this test alone"
    assert peak * 1024 < 8 * 2**30
