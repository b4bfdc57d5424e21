"""The accelerator engine's threads, errors and recoveries, on the simulated device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from a2n_video.engine import accelerator, select
from a2n_video.engine.accelerator import AcceleratorEngine
from a2n_video.engine.backend import Backend, Tensors, TorchBackend, Work
from a2n_video.engine.pipeline import Pipeline, Steps
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.engine.rings import HOST_OUTPUTS
from a2n_video.errors import DeviceError, OptionError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.options import ExecutionPlan, ModelOptions
from tests.engine.host_backend import HostBackend
from tests.engine.pipelines import CHECKED, GEOMETRY, OVERFLOWS, PLAIN, batches, frame, identity, numbers, run
from tests.engine.simulated_device import SimulatedDevice, TracedChannel

BATCH = 2
ENDS_WITHIN_S = 5.0


@contextmanager
def engine_on(
    device: Backend, steps: Steps = PLAIN, geometry: Geometry = GEOMETRY, batch_size: int = BATCH, kind: type[Pipeline] = Pipeline
) -> Iterator[AcceleratorEngine]:
    """An engine that is closed in the end, all of whose threads must then be gone."""
    cls = AcceleratorEngine
    if isinstance(device, SimulatedDevice):
        cls = type("Traced", (AcceleratorEngine,), {"channel_type": staticmethod(lambda hub: TracedChannel(hub, device))})
    engine = cls(geometry, batch_size, lambda: kind(device, geometry, steps, batch_size))
    try:
        yield engine
    finally:
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(ENDS_WITHIN_S)
        assert not closing.is_alive(), "close does not come back"
        assert not any(thread.is_alive() for thread in engine._threads)


def frames_through(engine: AcceleratorEngine, sizes: Sequence[int], first: int = 1) -> list[int]:
    return [number for rows in run(engine, batches(sizes, first)) for number in numbers(rows)]


@pytest.mark.schedules
@pytest.mark.parametrize("block", range(5))
def test_threads_keep_every_frame(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        device = SimulatedDevice(seed)
        with engine_on(device) as engine:
            assert frames_through(engine, [2, 2, 1, 2, 2, 1, 2]) == list(range(1, 13)), f"seed {seed}"
            assert engine.stats().frames == 12
            assert engine.stats().batches == 7
        assert not device.races, f"seed {seed}: {device.races[0]}"


def test_a_caller_that_waits_for_each_result_gets_it() -> None:
    with engine_on(SimulatedDevice(0)) as engine:
        for number in range(1, 8):
            assert numbers(engine.submit([frame(number)]).result(ENDS_WITHIN_S)) == [number]


def test_results_belong_to_the_caller() -> None:
    with engine_on(SimulatedDevice(1)) as engine:
        kept = [engine.submit(batch).result(ENDS_WITHIN_S) for batch in batches([2] * 8)]
        for rows in kept:
            rows += 0  # writable
    assert [number for rows in kept for number in numbers(rows)] == list(range(1, 17))


def test_a_slow_encoder_holds_no_more_than_the_output_ring() -> None:
    taken = most = 0

    def counted() -> Iterator[list[list[Rows]]]:
        nonlocal taken
        for batch in batches([1] * 12):
            taken += 1
            yield batch

    with engine_on(SimulatedDevice(2)) as engine:
        for delivered, _ in enumerate(run(engine, counted())):
            most = max(most, taken - delivered)
            time.sleep(0.005)
    assert most == HOST_OUTPUTS


def test_submit_waits_while_the_device_stands_still() -> None:
    device = SimulatedDevice(3)
    futures: list[Future[Rows]] = []
    with engine_on(device) as engine:
        device.stalled.clear()
        feeder = threading.Thread(target=lambda: futures.extend(engine.submit(b) for b in batches([1] * 9)), daemon=True)
        feeder.start()
        feeder.join(0.3)
        assert feeder.is_alive()
        assert device.calls["upload"] <= HOST_OUTPUTS
        device.stalled.set()
        feeder.join(ENDS_WITHIN_S)
        assert [numbers(f.result(ENDS_WITHIN_S)) for f in futures] == [[n] for n in range(1, 10)]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("batch", [0, 4, 8])
@pytest.mark.parametrize("stage", ["pack", "upload", "compute", "download", "copy"])
def test_an_error_in_any_stage_ends_everything(stage: str, batch: int, late: bool) -> None:
    device = SimulatedDevice(batch)
    error = RuntimeError(f"injected in {stage}")
    (device.inject_late if late and stage not in ("pack", "copy") else device.inject)[stage, batch] = error
    delivered: list[int] = []
    with engine_on(device) as engine:
        started = time.monotonic()
        with pytest.raises(DeviceError, match=f"injected in {stage}") as caught:
            delivered.extend(number for rows in run(engine, batches([2] * 9)) for number in numbers(rows))
        for thread in engine._threads:
            thread.join(ENDS_WITHIN_S)
        assert not any(thread.is_alive() for thread in engine._threads)
        assert time.monotonic() - started < ENDS_WITHIN_S
        assert engine.submit([frame(1)]).exception(ENDS_WITHIN_S) is caught.value
    assert caught.value.__cause__ is error
    assert delivered == list(range(1, len(delivered) + 1))
    assert len(delivered) <= batch * 2


def test_an_error_says_which_frames() -> None:
    device = SimulatedDevice(0)
    device.inject["compute", 2] = RuntimeError("kaput")
    with engine_on(device) as engine, pytest.raises(DeviceError, match=r"computing frames 4 to 5 failed: kaput; .*--device cpu"):
        frames_through(engine, [2] * 5)


def test_frames_that_do_not_fit_leave_the_engine_as_it_was() -> None:
    with engine_on(SimulatedDevice(4)) as engine:
        for _ in range(5):
            with pytest.raises(ValueError, match="a plane is"):
                engine.submit([[np.zeros((5, 5), np.uint16)]])
        with pytest.raises(ValueError, match="a batch is 1 to 2"):
            engine.submit([])
        with pytest.raises(ValueError, match="a batch is 1 to 2"):
            engine.submit([frame(1)] * 3)
        assert frames_through(engine, [2, 2, 2]) == [1, 2, 3, 4, 5, 6]


def test_what_cannot_be_opened_is_told_by_the_constructor() -> None:
    def refuse() -> Pipeline:
        raise OptionError("no such thing")

    before = threading.active_count()
    with pytest.raises(OptionError, match="no such thing"):
        AcceleratorEngine(GEOMETRY, BATCH, refuse)
    assert threading.active_count() == before


def test_closing_finishes_what_was_submitted_and_can_be_done_twice() -> None:
    with engine_on(SimulatedDevice(5), CHECKED) as engine:
        futures = [engine.submit(batch) for batch in batches([2, 2], first=OVERFLOWS)]
        engine.close()
        engine.close()
        assert [n for f in futures for n in numbers(f.result(0))] == [OVERFLOWS + 1000 + i for i in range(4)]
        with pytest.raises(RuntimeError, match="closed"):
            engine.submit([frame(1)])


def test_a_future_cannot_be_cancelled_under_the_engine() -> None:
    with engine_on(SimulatedDevice(6)) as engine:
        assert not engine.submit([frame(1)]).cancel()
        assert frames_through(engine, [2]) == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_frames_that_overflow_are_redone_alone(seed: int) -> None:
    device = SimulatedDevice(seed)
    first = OVERFLOWS - 4
    with engine_on(device, CHECKED) as engine:
        got = frames_through(engine, [2, 1, 2, 2, 1], first)
        assert engine.stats().redone_fp32 == 4
    assert got == [n if n < OVERFLOWS else n + 1000 for n in range(first, first + 8)]
    assert not device.races


TALL = replace(GEOMETRY, source=replace(GEOMETRY.source, width=2, height=32))


def tall(number: int) -> list[Rows]:
    return [np.full((32, 2), number, np.uint16)]


def needing_at_most(rows: int, strip_rows: int = 64) -> Callable[[Work, Tensors], bool]:
    """Memory for so many frames at once, whole (or in strips of at most so many rows)."""

    def refuse(work: Work, reads: Tensors) -> bool:
        strips = getattr(work, "keywords", {}).get("strip_rows")
        return strips is not None and (len(reads[0]) > rows or (strips or 32) > strip_rows)

    return refuse


@pytest.mark.parametrize(
    ("refuse", "recoveries"), [(needing_at_most(2), 1), (needing_at_most(1), 2), (needing_at_most(1, 8), 4)], ids=["half", "one", "strips"]
)
@pytest.mark.parametrize("batch", [0, 2])
def test_running_out_of_memory_loses_no_frame(refuse: Callable[[Work, Tensors], bool], recoveries: int, batch: int) -> None:
    device = SimulatedDevice(7)
    with engine_on(device, geometry=TALL, batch_size=4) as engine:
        results = []
        for i in range(5):
            if i == batch:
                device.refuse = refuse
            results += numbers(engine.submit([tall(4 * i + j) for j in range(4)]).result(ENDS_WITHIN_S))
        stats = engine.stats()
    assert results == list(range(20))
    assert stats.oom_recoveries == device.released == recoveries
    assert not device.races


def test_memory_that_never_suffices_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    device = SimulatedDevice(8)
    device.refuse = lambda work, reads: True
    with engine_on(device, geometry=TALL) as engine, pytest.raises(DeviceError, match=r"frame.* not enough memory for a strip of 8 rows"):
        list(run(engine, [[tall(1)], [tall(2)]]))
    assert sum("out of memory" in message for message in caplog.messages) == 1


def test_without_a_device_the_same_frames_come_out() -> None:
    with engine_on(HostBackend()) as engine:
        assert frames_through(engine, [2, 1, 2]) == [1, 2, 3, 4, 5]


def test_every_kind_of_step_is_given_whole_batches() -> None:
    """The last batch is filled up by repeating a frame, so that every computation has one shape."""
    seen: list[list[list[int]]] = []

    def watched(rows, out, flags, *, strip_rows=0):  # type: ignore[no-untyped-def]
        seen.append(rows.tolist())
        identity(rows, out, flags)

    with engine_on(HostBackend(), Steps(fast=watched), batch_size=3) as engine:
        assert frames_through(engine, [3, 1]) == [1, 2, 3, 4]
    assert [[row[0] for row in rows] for rows in seen] == [[1, 2, 3], [4, 4, 4]]


def test_a_cpu_is_no_accelerator() -> None:
    with pytest.raises(DeviceError, match="not on cpu"):
        TorchBackend(torch.device("cpu"))


def test_the_plan_has_the_layout_that_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled once, with the plan, so that a resumed job and every worker compute alike."""
    fmt = PlaneFormat(width=32, height=32, family="gray")
    geometry = Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=2)
    timed: list[ExecutionPlan] = []
    monkeypatch.setattr(select, "_resolve_device", lambda name: "cuda:0")
    monkeypatch.setattr(accelerator, "fastest_layout", lambda model, geometry, plan: timed.append(plan) or "nchw")
    plan = select.resolve_plan(ModelOptions(model="a2n"), geometry)
    assert (plan.engine, plan.layout, plan.dtype) == ("accelerator", "nchw", "float16")
    assert timed[0].device == "cuda:0"
