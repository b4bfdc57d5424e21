"""The network in C gives the model's numbers, in every width of vectors and on any number of threads, and gives way when memory ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
from torch import Tensor

from a2n_video.engine import select
from a2n_video.engine.cpu import cpu_strip_rows, set_threads_here
from a2n_video.engine.footprint import frame_bytes
from a2n_video.engine.native import engine as native
from a2n_video.engine.native import has_native
from a2n_video.engine.native.library import Network
from a2n_video.engine.protocol import Geometry
from a2n_video.errors import DeviceError, MissingDependencyError, OptionError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.net.fuse import FusedA2N, fuse
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.options import ExecutionPlan, ModelOptions
from tests.net.test_fuse import one_sided

MUST_BE_THERE = os.environ.get("A2N_REQUIRE_NATIVE", "0") != "0"
pytestmark = pytest.mark.skipif(not has_native() and not MUST_BE_THERE, reason="the native network was not built")

CONFIGS = {
    "paper-x2": A2NConfig(n_blocks=2),
    "paper-x3": A2NConfig(scale=3, n_blocks=2),
    "paper-x4": A2NConfig(scale=4, n_blocks=2),
    "small-x2": A2NConfig(n_features=16, n_blocks=3, head="pixelshuffle"),
    "small-x3": A2NConfig(scale=3, n_features=16, n_blocks=1, head="pixelshuffle"),
    "small-x4": A2NConfig(scale=4, n_features=8, n_blocks=1, head="pixelshuffle"),
    "point-wise": A2NConfig(n_blocks=1, non_attention_kernel=1),
    "odd-widths": A2NConfig(n_features=21, n_upsample_features=10, n_blocks=1),
    "wide-head-x2": A2NConfig(n_features=8, n_upsample_features=64, n_blocks=1),
    "wide-head-x4": A2NConfig(scale=4, n_features=5, n_upsample_features=40, n_blocks=1),
}
LANES = (0, 4, 8, 16)


def model_of(config: A2NConfig) -> A2N:
    """Weights as large as trained ones, so that every part is seen in the result."""
    torch.manual_seed(7)
    model = A2N(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(1.6)
    return model


def network(model: A2N, threads: int = 1, lanes: int = 0) -> Network:
    try:
        return Network(model, threads, lanes)
    except ValueError as error:
        pytest.skip(str(error))


def enlarged(net: Network, x: Tensor) -> Tensor:
    result = torch.empty((3, x.shape[1] * net.scale, x.shape[2] * net.scale))
    net.run(x, result)
    return result


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_gives_what_the_model_gives(config: A2NConfig, lanes: int) -> None:
    """Sizes below a tile, not of whole tiles, of more tiles than a stretch, and of more rows than a band of the head."""
    model = model_of(config)
    net = network(model, 2, lanes)
    for height, width in ((1, 1), (3, 9), (37, 30), (16, 133)):
        x = torch.rand(3, height, width)
        expected = model.double()(x[None].double())[0]
        found = enlarged(net, x)
        model.float()
        assert (found - expected).abs().max() < 2e-5 * expected.abs().max()
    net.close()
    net.close()


def test_the_number_of_threads_changes_no_bit() -> None:
    model, x = model_of(CONFIGS["paper-x2"]), torch.rand(3, 45, 61)
    one, *more = (enlarged(network(model, threads), x) for threads in (1, 2, 5))
    assert all(torch.equal(one, other) for other in more)


def test_sizes_may_change_and_repeat() -> None:
    net, frames = network(model_of(CONFIGS["paper-x2"]), 2), [torch.rand(3, *size) for size in ((20, 30), (9, 50), (20, 30))]
    first = [enlarged(net, frame) for frame in frames]
    assert all(torch.equal(a, enlarged(net, b)) for a, b in zip(first, frames, strict=True))
    with pytest.raises(ValueError, match="does not go to"):
        net.run(frames[0], torch.empty(3, 5, 5))


def test_what_it_cannot_take_is_refused() -> None:
    net, x = network(model_of(CONFIGS["paper-x2"]), 2), torch.rand(3, 8, 8)
    for result in (torch.empty(3, 16, 16, dtype=torch.float64), torch.empty(3, 16, 16, dtype=torch.float16)):
        with pytest.raises(ValueError, match="does not go to"):
            net.run(x, result)
    net.close()
    with pytest.raises(ValueError, match="closed"):
        net.run(x, torch.empty(3, 16, 16))


def test_more_threads_take_more_memory() -> None:
    """Each has the head's rows: 20 MiB at 1920 x2, and over 90 at x4."""
    for scale, least in ((2, 20 << 20), (4, 90 << 20)):
        one, many = (network(model_of(CONFIGS[f"paper-x{scale}"]), threads) for threads in (1, 9))
        assert one.bytes_for(1080, 1920) > 1080 * 1920 * 640
        assert 8 * least < many.bytes_for(1080, 1920) - one.bytes_for(1080, 1920) < 10 * least


def test_a_frame_whose_maps_would_not_fit_goes_in_strips(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(native, "free_host_bytes", lambda: 1 << 16)
    engine = native.open_native_engine(
        model_of(CONFIGS["small-x2"]), geometry(), ExecutionPlan(model="weights", engine="native", threads=1)
    )
    fmt = geometry().source
    assert len(engine.submit([fmt.unpack(np.zeros(fmt.samples, np.uint8))]).result(20)) == 1
    assert engine.stats().oom_recoveries == 1 and "MiB of maps" in caplog.text
    engine.close()


def test_strips_have_the_plans_threads_and_the_program_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    strips = native.in_strips

    def looked_at(net: FusedA2N, x: Tensor, rows: int) -> Tensor:
        seen.append(torch.get_num_threads())
        return strips(net, x, rows)

    monkeypatch.setattr(native, "free_host_bytes", lambda: 1 << 16)
    monkeypatch.setattr(native, "in_strips", looked_at)
    before = in_a_new_thread(torch.get_num_threads)
    engine = native.open_native_engine(
        model_of(CONFIGS["small-x2"]), geometry(), ExecutionPlan(model="weights", engine="native", threads=3)
    )
    fmt = geometry().source
    engine.submit([fmt.unpack(np.zeros(fmt.samples, np.uint8))]).result(20)
    engine.close()
    assert seen == [3] and in_a_new_thread(torch.get_num_threads) == before


def in_a_new_thread(call: Callable[[], int]) -> int:
    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(call).result()


def test_strips_after_the_native_network_take_less_than_its_maps() -> None:
    model = model_of(CONFIGS["paper-x4"])
    fmt = PlaneFormat(width=1920, height=1080, family="rgb")
    whole = network(model).bytes_for(1080, 1920)
    net = fuse(model).lowered(torch.float32).to("meta")
    assert frame_bytes(net, Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=4), cpu_strip_rows(1920)) < whole


def test_the_programs_own_threads_keep_theirs() -> None:
    """Torch hands a number of threads on to whichever thread comes next."""
    seen: list[int] = []
    look: Callable[[], object] = lambda: seen.append(torch.get_num_threads())  # noqa: E731
    for task in (look, lambda: set_threads_here(7), look):
        thread = Thread(target=task)
        thread.start()
        thread.join()
    assert seen == [seen[0]] * 2 and seen[0] != 7


def test_what_is_no_number_stays_none() -> None:
    x = torch.rand(3, 12, 12)
    x[1, 6, 6] = torch.nan
    assert enlarged(network(model_of(CONFIGS["paper-x2"])), x).isnan().any()


def test_large_values_do_not_overflow_the_gates() -> None:
    model = model_of(CONFIGS["small-x2"])
    model.AAB_trunk[0].attention.k2.weight.mul_(1e5)  # type: ignore[union-attr, operator]
    x = torch.rand(3, 12, 12)
    assert torch.allclose(enlarged(network(model), x), model(x[None])[0], atol=1e-4)


@pytest.mark.parametrize("favoured", [0, 1])
def test_a_branch_without_any_weight_is_no_infinity(favoured: int) -> None:
    model = one_sided(model_of(CONFIGS["small-x2"]), favoured)
    x = torch.rand(3, 12, 12)
    assert torch.allclose(enlarged(network(model), x), model(x[None])[0], atol=1e-4)


def geometry() -> Geometry:
    fmt = PlaneFormat(width=40, height=32, family="rgb")
    return Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=2)


def test_when_memory_ends_torch_goes_on_with_the_same_frame(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    plan = ExecutionPlan(model="weights", engine="native", batch_size=2, threads=1)
    fmt = geometry().source
    frames = [fmt.unpack(np.random.default_rng(k).integers(0, 255, fmt.samples).astype(np.uint8)) for k in range(6)]

    def results() -> tuple[list[np.ndarray], int]:
        engine = native.open_native_engine(model_of(CONFIGS["small-x2"]), geometry(), plan)
        rows = [row for k in (0, 2, 4) for row in engine.submit(frames[k : k + 2]).result(20)]
        count = engine.stats().oom_recoveries
        engine.close()
        return rows, count

    whole, count = results()
    assert count == 0
    calls, run = [], Network.run

    def failing(self: Network, rgb: Tensor, result: Tensor) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise MemoryError("no memory for the maps")
        run(self, rgb, result)

    monkeypatch.setattr(Network, "run", failing)
    halves, count = results()
    assert count == 1 and len(calls) == 4 and len(halves) == 6
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(whole, halves, strict=True))
    assert sum("out of memory" in message for message in caplog.messages) == 1


def test_threads_that_cannot_be_had_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Network, model: A2N, threads: int) -> None:
        raise MemoryError("no memory or threads for the network")

    monkeypatch.setattr(Network, "__init__", none)
    plan = ExecutionPlan(model="weights", engine="native", batch_size=1, threads=900)
    with pytest.raises(DeviceError, match="no memory or threads for the network in 900 threads; give fewer with --threads"):
        native.open_native_engine(model_of(CONFIGS["small-x2"]), geometry(), plan)


def planned(**options: object) -> ExecutionPlan:
    return select.resolve_plan(replace(ModelOptions(model="a2n-tiny", device="cpu"), **options), geometry())  # type: ignore[arg-type]


def test_it_is_taken_where_float32_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2n_video.engine.cpu.has_amx", lambda: False)
    plan = planned()
    assert (plan.engine, plan.dtype) == ("native", "float32")
    assert planned(dtype="bfloat16").engine in ("openvino", "torch")
    monkeypatch.setattr(select, "has_openvino", lambda: True)
    monkeypatch.setattr("a2n_video.engine.cpu.has_amx", lambda: True)
    assert planned().engine == "openvino"
    assert planned(dtype="float32").engine == "native"
    assert planned(engine="native").engine == "native"


def test_too_large_frames_go_to_strips_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "WHOLE_FRAME_MAX_PIXELS", 100)
    given_way = planned(engine="native")
    assert (given_way.engine, given_way.dtype) == ("torch", "float32")  # the precision that was asked for stays
    monkeypatch.setattr(select, "has_openvino", lambda: True)
    with pytest.raises(OptionError, match="which frames of this size need"):
        planned(dtype="int8")


def test_where_it_was_not_built_it_is_said_and_another_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "has_native", lambda: False)
    assert planned().engine in ("openvino", "torch")
    with pytest.raises(MissingDependencyError, match="C compiler"):
        planned(engine="native")
