"""The accelerator's computation, on the CPU: equal to the torch engine's, flagged where float16 overflows, graphs only where they agree."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from a2n_video.engine import accelerator
from a2n_video.engine import network_step as module
from a2n_video.engine.accelerator import AcceleratorEngine, open_pipeline
from a2n_video.engine.backend import Tensors
from a2n_video.engine.cpu import open_cpu_engine
from a2n_video.engine.network_step import GraphedStep, Step, exact_step, graphed, network_step, time_layouts
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.options import ExecutionPlan
from tests.engine.host_backend import HostBackend
from tests.engine.pipelines import identity
from tests.engine.simulated_device import SimulatedDevice

CPU = torch.device("cpu")
YUV = PlaneFormat(width=24, height=18, family="yuv", depth=10, log2_chroma_w=1, log2_chroma_h=1)
GEOMETRY = Geometry(source=YUV, color=ColorSpec().settled(YUV), scale=2)
PLAN = ExecutionPlan(model="weights", engine="accelerator", dtype="float32", layout="nchw", batch_size=3)


def model(gain: float = 1.0) -> A2N:
    """A small network with made-up weights; a large gain leaves float16's range, not float32's."""
    torch.manual_seed(0)
    made = A2N(A2NConfig(scale=2, n_features=8, n_upsample_features=8, n_blocks=2)).eval()
    made.conv_first.weight.data *= gain
    return made


def frames(count: int, fmt: PlaneFormat = YUV) -> list[tuple[Rows, ...]]:
    random = np.random.default_rng(0)
    rows = random.integers(64, 940, (count, fmt.samples)).astype(fmt.dtype)
    return [fmt.unpack(row) for row in rows]


def computed(step: Step, rows: Rows, strip_rows: int = 0) -> tuple[Rows, list[int]]:
    """A step's rows and flags."""
    out = torch.zeros((len(rows), GEOMETRY.target.samples), dtype=torch.uint16)
    flags = torch.full((len(rows),), 7, dtype=torch.uint8)
    with torch.inference_mode():
        step(torch.from_numpy(rows), out, flags, strip_rows=strip_rows)
    return out.numpy(), flags.tolist()


def packed(count: int) -> Rows:
    rows = np.empty((count, YUV.samples), YUV.dtype)
    for row, planes in zip(rows, frames(count), strict=True):
        YUV.pack(planes, row)
    return rows


def by_the_torch_engine(count: int) -> Rows:
    with closing(open_cpu_engine(model(), GEOMETRY, replace(PLAN, engine="torch"))) as engine:
        return engine.submit(frames(count)).result(60)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_step_equals_the_torch_engine(layout: str) -> None:
    expected = by_the_torch_engine(3)
    got, flags = computed(network_step(model(), GEOMETRY, replace(PLAN, layout=layout), CPU), packed(3))
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert (got != expected).mean() < 0.001
    assert flags == [0, 0, 0]


def test_strips_change_nothing() -> None:
    step = network_step(model(), GEOMETRY, PLAN, CPU)
    whole, strips = computed(step, packed(2))[0], computed(step, packed(2), strip_rows=8)[0]
    assert np.abs(whole.astype(int) - strips).max() <= 1


def test_only_float16_needs_a_second_route() -> None:
    assert exact_step(model(), GEOMETRY, replace(PLAN, dtype="float16"), CPU) is not None
    assert exact_step(model(), GEOMETRY, replace(PLAN, dtype="bfloat16"), CPU) is None
    assert exact_step(model(), GEOMETRY, PLAN, CPU) is None


def test_what_float16_cannot_hold_is_flagged_and_redone_in_float32() -> None:
    plan, hot = replace(PLAN, dtype="float16", batch_size=2), model(gain=1e7)
    assert computed(network_step(hot, GEOMETRY, plan, CPU), packed(2))[1] == [1, 1]
    expected, flags = computed(network_step(hot, GEOMETRY, PLAN, CPU), packed(2))
    assert flags == [0, 0]

    engine = AcceleratorEngine(GEOMETRY, plan.batch_size, lambda: open_pipeline(SimulatedDevice(0), hot, GEOMETRY, plan))
    got = engine.submit(frames(2)).result(60)
    assert engine.stats().redone_fp32 == 2
    engine.close()
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_a_model_is_left_as_it_was() -> None:
    mine = model()
    network_step(mine, GEOMETRY, replace(PLAN, dtype="float16", layout="nhwc"), CPU)
    network_step(mine, GEOMETRY, PLAN, torch.device("meta"))
    assert {p.dtype for p in mine.parameters()} == {torch.float32}
    assert {p.device for p in mine.parameters()} == {CPU}
    assert all(p.is_contiguous() for p in mine.parameters())


def test_one_of_the_layouts_is_chosen() -> None:
    assert time_layouts(model(), GEOMETRY, PLAN, HostBackend()) in ("nchw", "nhwc")


class FakeGraph:
    """What a capture would leave: something that computes into the captured buffers again."""

    def __init__(self, step: Step, buffers: Tensors) -> None:
        self._step, self._buffers = step, buffers

    def replay(self) -> None:
        self._step(*self._buffers)


class WrongGraph(FakeGraph):
    def replay(self) -> None:
        super().replay()
        self._buffers[1][0, 0] += 1


def like(batch: int = 2) -> Tensors:
    return (torch.zeros((batch, 6), dtype=torch.int16), torch.zeros((batch, 6), dtype=torch.int16), torch.zeros(batch, dtype=torch.uint8))


def test_a_graph_that_agrees_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_captured", FakeGraph)
    step = graphed(identity, HostBackend(), like())
    assert isinstance(step, GraphedStep)
    rows, out, flags = like()
    rows += 5
    step(rows, out, flags)
    assert torch.equal(out, rows)


def test_a_graph_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "_captured", WrongGraph)
    assert graphed(identity, HostBackend(), like()) is identity
    assert "differs from the eager one" in caplog.text


def test_a_graph_that_cannot_be_captured_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("it can be captured here")
    assert graphed(identity, HostBackend(), like()) is identity
    assert "going on without a CUDA graph" in caplog.text


def test_other_shapes_go_past_the_graph_and_drop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_captured", WrongGraph)
    step = GraphedStep(identity, like())
    rows, out, flags = (t[:1] for t in like())
    rows += 5
    step(rows, out, flags)
    assert torch.equal(out, rows)
    rows, out, flags = like()
    step(rows, out, flags)
    assert torch.equal(out, rows)  # the wrong graph is gone


def test_compiled_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself is torch's; here: that every block is asked for, once, and the step still computes."""
    asked: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(self))
    step = network_step(model(), GEOMETRY, replace(PLAN, compile=True), CPU)
    assert len(asked) == 2
    assert computed(step, packed(1))[1] == [0]


def test_flags_see_one_bad_sample() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.nn.functional.interpolate(x, scale_factor=2)
            y[1, 2, -1, -1] = float("-inf")
            return y

    step = module.NetworkStep(Broken(), GEOMETRY, CPU)  # type: ignore[arg-type]
    assert computed(step, packed(3))[1] == [0, 1, 0]


class OnHost(HostBackend):
    """Stands where a card's backend would."""

    made: ClassVar[list[OnHost]] = []

    def __init__(self, device: torch.device) -> None:
        self.guard_syncs = False
        self.released = 0
        OnHost.made.append(self)

    def release_memory(self) -> None:
        self.released += 1


def test_what_a_plan_opens_computes_as_the_torch_engine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of `open_accelerator_engine` but the card; the guard is off while the engine warms up and on afterwards."""
    monkeypatch.setattr(accelerator, "TorchBackend", OnHost)
    engine = accelerator.open_accelerator_engine(model(), GEOMETRY, PLAN, guard_syncs=True)
    got = np.concatenate([engine.submit(frames(3)[i : i + 2]).result(60) for i in (0, 2)])
    engine.close()
    assert OnHost.made[-1].guard_syncs
    assert np.abs(got.astype(int) - by_the_torch_engine(3)).max() <= 1


def test_timing_layouts_leaves_no_memory_to_a_stream_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "TorchBackend", OnHost)
    assert accelerator.fastest_layout(model(), GEOMETRY, PLAN) in ("nchw", "nhwc")
    assert OnHost.made[-1].released == 1
