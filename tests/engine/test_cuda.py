"""The accelerator engine on a card: what the simulated device cannot say. Skipped without one, or failed with FAIL_WITHOUT_CUDA=1."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from a2n_video.engine.accelerator import AcceleratorEngine, fastest_layout, open_accelerator_engine
from a2n_video.engine.backend import TorchBackend, syncs_are_errors
from a2n_video.engine.cpu import open_cpu_engine
from a2n_video.engine.network_step import network_step
from a2n_video.engine.pipeline import Pipeline, Steps
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.options import ExecutionPlan
from tests.conftest import ROOT
from tests.engine.pipelines import GEOMETRY as TINY
from tests.engine.pipelines import batches, exact_identity, identity, numbers, run

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("card")]
YUV = PlaneFormat(width=322, height=180, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
GEOMETRY = Geometry(source=YUV, color=ColorSpec().settled(YUV), scale=2)
PLAN = ExecutionPlan(model="weights", engine="accelerator", device="cuda", dtype="float16", layout="nhwc", batch_size=3)
DEVICE = torch.device("cuda")
SLOW_CYCLES = 2_000_000  # about a millisecond, so that what is not ordered overlaps


@pytest.fixture(scope="module")
def model() -> A2N:
    torch.manual_seed(0)
    return A2N(A2NConfig(scale=2)).eval()


def frames(count: int) -> list[Planes]:
    rows = np.random.default_rng(0).integers(16, 235, (count, YUV.samples), np.uint8)
    return [YUV.unpack(row) for row in rows]


def pipelined(model: A2N, plan: ExecutionPlan, count: int = 20, *, guard_syncs: bool = False) -> Rows:
    with closing(open_accelerator_engine(model, GEOMETRY, plan, guard_syncs=guard_syncs)) as engine:
        got = frames(count)
        groups = [got[i : i + plan.batch_size] for i in range(0, count, plan.batch_size)]
        return np.concatenate(list(run(engine, groups)))


def serial(model: A2N, plan: ExecutionPlan, count: int = 20) -> Rows:
    """The same batches, one after the other on the default stream, with nothing under way between them."""
    step = network_step(model, GEOMETRY, plan, DEVICE)
    results, rows = [], np.stack([np.concatenate([p.ravel() for p in f]) for f in frames(count)])
    for i in range(0, count, plan.batch_size):
        part = rows[i : i + plan.batch_size]
        filled = np.concatenate([part, np.repeat(part[-1:], plan.batch_size - len(part), 0)])
        out = torch.zeros((plan.batch_size, GEOMETRY.target.samples), dtype=torch.uint8, device=DEVICE)
        with torch.inference_mode():
            step(torch.from_numpy(filled).to(DEVICE), out, torch.zeros(plan.batch_size, dtype=torch.uint8, device=DEVICE))
        torch.cuda.synchronize()
        results.append(out.cpu().numpy()[: len(part)])
    return np.concatenate(results)


def most_codes_apart(one: Rows, other: Rows) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_pipelined_and_serial_are_equal_bit_by_bit(model: A2N, dtype: str, layout: str) -> None:
    plan = replace(PLAN, dtype=dtype, layout=layout)
    assert np.array_equal(pipelined(model, plan), serial(model, plan))


def test_float16_is_within_a_code_of_float32(model: A2N) -> None:
    assert most_codes_apart(pipelined(model, PLAN), pipelined(model, replace(PLAN, dtype="float32"))) <= 1


def test_the_card_is_within_a_code_of_the_cpu(model: A2N) -> None:
    plan = replace(PLAN, engine="torch", device="cpu", dtype="float32")
    with closing(open_cpu_engine(model, GEOMETRY, plan)) as engine:
        expected = engine.submit(frames(2)).result(120)
    assert most_codes_apart(pipelined(model, replace(PLAN, dtype="float32"), 2), expected) <= 1


def test_nothing_synchronises_in_the_compute_stream(model: A2N) -> None:
    with syncs_are_errors(), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device=DEVICE).item()  # the guard itself works here
    for dtype in ("float16", "bfloat16"):
        pipelined(model, replace(PLAN, dtype=dtype), guard_syncs=True)


def test_a_graph_gives_the_eager_result(model: A2N, caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(pipelined(model, replace(PLAN, cuda_graph=True)), pipelined(model, PLAN))
    assert "without a CUDA graph" not in caplog.text


@pytest.mark.slow
def test_compiled_blocks_are_within_a_code(model: A2N) -> None:
    assert most_codes_apart(pipelined(model, replace(PLAN, compile=True)), pipelined(model, PLAN)) <= 1


def test_what_float16_cannot_hold_is_redone(model: A2N) -> None:
    hot = A2N(model.config).eval()
    hot.load_state_dict(model.state_dict())
    hot.conv_first.weight.data *= 1e4  # ten times as much closes a gate, in float32 too
    hot.conv_last.weight.data *= 1e-4  # a result as of other weights: large ones are rounded to more than a code
    with closing(open_accelerator_engine(hot, GEOMETRY, PLAN)) as engine:
        got = np.concatenate(list(run(engine, [frames(3), frames(3)])))
        assert engine.stats().redone_fp32 == 6
    assert most_codes_apart(got[:3], serial(hot, replace(PLAN, dtype="float32"), 3)) <= 1


def test_running_out_of_memory_loses_no_frame(model: A2N) -> None:
    expected = pipelined(model, replace(PLAN, batch_size=1), 8)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 250e6) / total))
    try:
        with closing(open_accelerator_engine(model, GEOMETRY, replace(PLAN, batch_size=8))) as engine:
            got = engine.submit(frames(8)).result(120)
            assert engine.stats().oom_recoveries > 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert most_codes_apart(got, expected) <= 1


def test_memory_does_not_grow(model: A2N) -> None:
    with closing(open_accelerator_engine(model, GEOMETRY, PLAN)) as engine:
        list(run(engine, [frames(3)] * 5))
        before = torch.cuda.memory_allocated()
        list(run(engine, [frames(3)] * 50))
        assert torch.cuda.memory_allocated() <= before


def test_a_layout_can_be_chosen(model: A2N) -> None:
    assert fastest_layout(model, GEOMETRY, PLAN) in ("nchw", "nhwc")


def slowly(step: Callable[..., None]) -> Callable[..., None]:
    def slow(rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
        torch.cuda._sleep(SLOW_CYCLES)
        step(rows, out, flags, strip_rows=strip_rows)
        torch.cuda._sleep(SLOW_CYCLES)

    return slow


def test_slow_computations_mix_no_frames_up() -> None:
    """Identity between long sleeps: copies of the next batches wait in their streams while this one is computed."""
    steps = Steps(fast=slowly(identity), exact=slowly(exact_identity))

    def opened() -> Pipeline:
        backend = TorchBackend(DEVICE)
        backend.bind()
        return Pipeline(backend, TINY, steps, 2)

    with closing(AcceleratorEngine(TINY, 2, opened)) as engine:
        got = [number for rows in run(engine, batches([2, 1] * 100)) for number in numbers(rows)]
    assert got == list(range(1, 301))


SANITIZED = """
    import torch, torch.cuda._sanitizer as sanitizer
    from a2n_video.engine.accelerator import AcceleratorEngine, open_pipeline
    from a2n_video.engine.backend import TorchBackend
    from tests.engine import test_cuda as t

    def opened():
        sanitizer.enable_cuda_sanitizer()  # watches the thread that enables it: the one that launches
        return open_pipeline(TorchBackend(t.DEVICE), model, t.GEOMETRY, t.PLAN)

    model = t.A2N(t.A2NConfig(scale=2, n_blocks=2)).eval()
    engine = AcceleratorEngine(t.GEOMETRY, t.PLAN.batch_size, opened)
    print(sum(len(rows) for rows in t.run(engine, [t.frames(3)] * 8)))
    engine.close()
"""


def test_the_stream_sanitizer_finds_nothing() -> None:
    """In a process of its own: the sanitizer cannot be switched off again. It raises inside the operation that races."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SANITIZED)], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "24"
    assert "data race" not in done.stderr
