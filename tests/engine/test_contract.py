"""What every engine promises, whatever it is made of; see a2n_video/engine/protocol.py."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace

import numpy as np
import pytest
import torch

from a2n_video.engine import cpu, nearest, openvino
from a2n_video.engine.accelerator import AcceleratorEngine, open_pipeline
from a2n_video.engine.color import planes_to_rgb, rgb_to_planes
from a2n_video.engine.native import engine as native
from a2n_video.engine.native import has_native
from a2n_video.engine.numpy_color import repeated
from a2n_video.engine.protocol import Engine, Geometry, Rows
from a2n_video.engine.select import has_openvino
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.options import ExecutionPlan
from tests.engine.host_backend import HostBackend
from tests.engine.pipelines import run
from tests.engine.simulated_device import SimulatedDevice

Opener = Callable[..., Engine]
SOON_S = 20.0
BATCH = 3


def small_model(scale: int = 2) -> A2N:
    torch.manual_seed(5)
    return A2N(A2NConfig(scale=scale, n_features=8, n_blocks=2, head="pixelshuffle")).eval()


def plan_for(engine: str, batch_size: int) -> ExecutionPlan:
    return ExecutionPlan(model="weights", engine=engine, batch_size=batch_size, threads=1, dtype="float32")


def open_nearest(geometry: Geometry, batch_size: int = BATCH) -> Engine:
    return nearest.NearestEngine(geometry, batch_size)


def open_torch(geometry: Geometry, batch_size: int = BATCH) -> Engine:
    return cpu.open_cpu_engine(small_model(geometry.scale), geometry, plan_for("torch", batch_size))


def open_openvino(geometry: Geometry, batch_size: int = BATCH) -> Engine:
    if not has_openvino():  # importing it plainly would start its reporting
        pytest.skip("openvino is not installed")
    return openvino.open_openvino_engine(small_model(geometry.scale), geometry, plan_for("openvino", batch_size))


def open_native(geometry: Geometry, batch_size: int = BATCH) -> Engine:
    if not has_native():
        pytest.skip("the native network was not built")
    return native.open_native_engine(small_model(geometry.scale), geometry, plan_for("native", batch_size))


def open_accelerator(geometry: Geometry, batch_size: int = BATCH) -> Engine:
    model, plan = small_model(geometry.scale), plan_for("accelerator", batch_size)
    return AcceleratorEngine(geometry, batch_size, lambda: open_pipeline(HostBackend(), model, geometry, plan))


def open_simulated(geometry: Geometry, batch_size: int = BATCH) -> Engine:
    model, plan = small_model(geometry.scale), plan_for("accelerator", batch_size)
    device = SimulatedDevice(0)
    device.device = torch.device("cpu")  # type: ignore[attr-defined]
    return AcceleratorEngine(geometry, batch_size, lambda: open_pipeline(device, model, geometry, plan))


ENGINES: dict[str, Opener] = {
    "nearest": open_nearest,
    "torch": open_torch,
    "openvino": open_openvino,
    "native": open_native,
    "accelerator": open_accelerator,
    "simulated": open_simulated,
}


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Opens the engine under test; afterwards all are closed and none of their threads is left."""
    before = set(threading.enumerate())
    engines: list[Engine] = []

    def opening(*args: object, **kwargs: object) -> Engine:
        engines.append(ENGINES[request.param](*args, **kwargs))
        return engines[-1]

    yield opening
    for engine in engines:
        engine.close()
        engine.close()
    left = [t for t in set(threading.enumerate()) - before if t.is_alive() and t.name.startswith("a2n")]
    assert not left


def geometry_of(fmt: PlaneFormat, scale: int = 2) -> Geometry:
    return Geometry(source=fmt, color=ColorSpec(chroma_location=1).settled(fmt), scale=scale)


YUV = PlaneFormat(width=20, height=14, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
GRAY = PlaneFormat(width=6, height=5, family="gray", depth=16)


def level(fmt: PlaneFormat, value: float) -> Planes:
    """A flat frame, `value` of its range bright, without colour."""
    full = 1.0 if fmt.floating else (1 << fmt.depth) - 1
    neutral = 0.0 if fmt.floating else 1 << (fmt.depth - 1)
    levels = [value * full, neutral, neutral] if fmt.family == "yuv" else [value * full] * 3
    return [np.full((s.height, s.width), levels[min(i, 2)], fmt.dtype) for i, s in enumerate(fmt.planes)]


def numbered(count: int, fmt: PlaneFormat = YUV) -> list[Planes]:
    return [level(fmt, 0.1 + 0.8 * i / max(count, 8)) for i in range(count)]


def brightness(rows: Rows, fmt: PlaneFormat) -> list[float]:
    return [float(fmt.unpack(row)[0].mean()) for row in rows]


def grouped(frames: Sequence[Planes], size: int = BATCH) -> list[Sequence[Planes]]:
    return [frames[i : i + size] for i in range(0, len(frames), size)]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_one_out_for_one_in_and_in_order(opened: Opener, count: int) -> None:
    geometry = geometry_of(YUV)
    engine = opened(geometry)
    shown = [b for rows in run(engine, grouped(numbered(count))) for b in brightness(rows, geometry.target)]
    assert len(shown) == count
    assert shown == sorted(shown)
    assert len(set(shown)) == count
    stats = engine.stats()
    assert (stats.frames, stats.batches) == (count, -(-count // BATCH))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_programs_default_dtype_changes_nothing(opened: Opener, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, model = geometry_of(replace(YUV, alpha=True)), small_model()
    monkeypatch.setattr(sys.modules[__name__], "small_model", lambda scale: model)
    frames = [[*planes, planes[0]] for planes in numbered(BATCH)]
    expected = opened(geometry).submit(frames).result(SOON_S)
    torch.set_default_dtype(dtype)
    try:
        result = opened(geometry).submit(frames).result(SOON_S)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(result, expected)


def test_a_short_batch_gives_what_a_full_one_gives(opened: Opener) -> None:
    engine = opened(geometry_of(YUV))
    frames = numbered(3)
    together = engine.submit(frames).result(SOON_S)
    alone = [engine.submit([frame]).result(SOON_S)[0] for frame in frames]
    assert np.abs(together.astype(int) - np.stack(alone).astype(int)).max() <= 1


def test_a_caller_that_waits_for_each_result_gets_it(opened: Opener) -> None:
    engine = opened(geometry_of(YUV))
    for frame in numbered(8):
        assert len(engine.submit([frame]).result(SOON_S)) == 1


def test_results_belong_to_the_caller(opened: Opener) -> None:
    geometry = geometry_of(YUV)
    engine = opened(geometry)
    kept = [engine.submit([frame]).result(SOON_S) for frame in numbered(9)]
    shown = [brightness(rows, geometry.target)[0] for rows in kept]
    assert shown == sorted(set(shown))
    for rows in kept:
        rows[...] = 0  # theirs to write on
    assert engine.submit(numbered(1)).result(SOON_S).any()


def test_frames_may_change_once_submit_is_back(opened: Opener) -> None:
    geometry = geometry_of(YUV)
    engine = opened(geometry)
    frame = [plane.copy() for plane in level(YUV, 0.8)]
    future = engine.submit([frame])
    for plane in frame:
        plane[...] = 0
    assert brightness(future.result(SOON_S), geometry.target)[0] > 150


FORMATS = [
    replace(YUV, width=21, height=15),
    replace(YUV, width=9, height=7, depth=10),
    PlaneFormat(width=8, height=6, family="yuv", depth=12, log2_chroma_w=1),
    PlaneFormat(width=7, height=5, family="yuv", depth=10),
    GRAY,
    PlaneFormat(width=5, height=9, family="rgb"),
    PlaneFormat(width=6, height=6, family="rgb", depth=16, alpha=True),
    PlaneFormat(width=6, height=6, family="rgb", depth=32, floating=True),
    PlaneFormat(width=1, height=1, family="yuv", log2_chroma_w=1, log2_chroma_h=1),
]


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.width}x{f.height}-{f.family}{f.depth}{'a' * f.alpha}{'f' * f.floating}")
def test_every_format_comes_back_as_itself(opened: Opener, fmt: PlaneFormat) -> None:
    """A flat frame stays about as bright (the small network is random, but it corrects an enlargement)."""
    geometry = geometry_of(fmt)
    rows = opened(geometry, 1).submit([level(fmt, 0.5)]).result(SOON_S)
    assert rows.shape == (1, geometry.target.samples)
    assert rows.dtype == fmt.dtype
    full = 1.0 if fmt.floating else (1 << fmt.depth) - 1
    assert abs(brightness(rows, geometry.target)[0] / full - 0.5) < 0.25
    if fmt.alpha:
        assert np.abs(geometry.target.unpack(rows[0])[-1] / full - 0.5).max() < 0.01


def test_the_result_may_have_another_layout(opened: Opener) -> None:
    layout = PlaneFormat(width=1, height=1, family="yuv", depth=10, log2_chroma_w=1)
    geometry = replace(geometry_of(YUV), layout=layout)
    rows = opened(geometry, 1).submit([level(YUV, 0.5)]).result(SOON_S)
    assert rows.shape[1] == 40 * 28 + 2 * 20 * 28
    assert rows.dtype == np.uint16
    assert abs(brightness(rows, geometry.target)[0] - 511) < 120


@pytest.mark.parametrize("kept", [True, False])
def test_a_cut_out_is_the_same_whatever_colour_it_hides(opened: Opener, kept: bool) -> None:
    """Where it is seen; without alpha in the result all is seen, and as it was."""
    fmt = PlaneFormat(width=40, height=24, family="rgb", alpha=True)
    engine = opened(replace(geometry_of(fmt), layout=replace(fmt, alpha=kept)), 1)
    alpha = np.zeros((24, 40), np.uint8)
    alpha[8:16, 8:16] = 255
    rows = [
        engine.submit([[*(np.where(alpha > 0, np.uint8(240), np.uint8(hidden)) for _ in range(3)), alpha]]).result(SOON_S)[0]
        for hidden in (0, 200)
    ]
    dark, light = (np.stack(engine.geometry.target.unpack(row)[:3]).astype(int) for row in rows)
    seen = repeated(alpha, 2) > 0
    assert (np.abs(dark - light)[:, seen].max() <= 2) == kept or isinstance(engine, nearest.NearestEngine)
    assert np.abs(dark - light)[:, :, 64:].mean() > 50


def test_rgb_has_no_matrix_to_become_yuv_by() -> None:
    """A source may become RGB on the way, where YUV was asked for at its beginning."""
    layout = PlaneFormat(width=1, height=1, family="yuv", depth=16, log2_chroma_w=1)
    rgb = PlaneFormat(width=6, height=4, family="rgb")
    target = Geometry(source=rgb, color=ColorSpec().settled(rgb), scale=2, layout=layout).target
    assert target == PlaneFormat(width=12, height=8, family="rgb", depth=16)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_networks_compute_what_the_model_computes(opened: Opener, scale: int, request: pytest.FixtureRequest) -> None:
    if "nearest" in request.node.callspec.id:
        pytest.skip("nearest has no network")
    geometry = geometry_of(YUV, scale)
    generator = np.random.default_rng(scale)
    row = generator.integers(30, 200, YUV.samples).astype(np.uint8)
    rows = opened(geometry, 1).submit([YUV.unpack(row)]).result(SOON_S)
    with torch.inference_mode():
        rgb = small_model(scale)(planes_to_rgb(torch.from_numpy(row)[None], YUV, geometry.color))
        expected = rgb_to_planes(rgb, geometry.target, geometry.color).numpy()
    assert np.abs(rows.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [level(YUV, 0.5)] * (BATCH + 1),
        [level(replace(YUV, width=22), 0.5)],
        [level(replace(YUV, depth=10), 0.5)],
        [level(YUV, 0.5)[:2]],
    ],
    ids=["none", "too-many", "too-wide", "too-deep", "planes-missing"],
)
def test_frames_that_do_not_fit_are_refused_and_harm_nothing(opened: Opener, frames: list[Planes]) -> None:
    engine = opened(geometry_of(YUV))
    with pytest.raises(ValueError, match=r"frames|plane"):
        engine.submit(frames)
    assert len(engine.submit(numbered(2)).result(SOON_S)) == 2


def test_an_error_reaches_its_future_and_every_later_one(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = geometry_of(YUV)
    engine = opened(geometry)
    assert len(engine.submit(numbered(1)).result(SOON_S)) == 1

    def fails(*_: object, **__: object) -> None:
        raise ArithmeticError("a mutant of a computer")

    monkeypatch.setattr("a2n_video.engine.color.ColorConverter.to_rgb", fails)
    monkeypatch.setattr(nearest, "planes_to_rgb", fails)
    for _ in range(4):
        with pytest.raises(Exception, match="mutant of a computer"):
            engine.submit(numbered(2)).result(SOON_S)
    monkeypatch.undo()
    with pytest.raises(Exception, match="mutant of a computer"):
        engine.submit(numbered(2)).result(SOON_S)


def test_closing_ends_everything_and_nothing_is_taken_afterwards(opened: Opener) -> None:
    engine = opened(geometry_of(YUV))
    futures: list[Future[Rows]] = [engine.submit(numbered(3)) for _ in range(2)]
    engine.close()
    for future in futures:
        try:
            assert len(future.result(SOON_S)) == 3
        except CancelledError:
            continue
        except Exception as error:  # noqa: BLE001  an engine may also say in words that it was closed
            assert "close" in str(error)
    with pytest.raises(Exception, match="closed"):
        engine.submit(numbered(1)).result(SOON_S)


@pytest.mark.parametrize("kind", ["torch", "openvino", "native"])
def test_all_torch_work_is_done_by_one_thread(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread that calls torch grows a team of threads."""
    seen: set[str] = set()
    from a2n_video.engine.color import ColorConverter

    original = ColorConverter.to_rgb

    def watched(self: ColorConverter, rows: torch.Tensor) -> torch.Tensor:
        seen.add(threading.current_thread().name)
        return original(self, rows)

    monkeypatch.setattr(ColorConverter, "to_rgb", watched)
    engine = ENGINES[kind](geometry_of(YUV))
    try:
        list(run(engine, grouped(numbered(9))))
    finally:
        engine.close()
    assert seen == {"a2n-engine"}


@pytest.mark.parametrize("kind", ["torch", "openvino", "native"])
def test_no_more_than_two_batches_are_under_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    held = {
        "torch": "a2n_video.engine.cpu.TorchCompute._result",
        "openvino": "a2n_video.engine.openvino.OpenVINOCompute._finish",
        "native": "a2n_video.engine.native.engine.NativeCompute._finish",
    }[kind]
    monkeypatch.setattr(held, lambda self, *rest: released.wait(SOON_S) and np.zeros((1, 1), np.uint8))
    engine = ENGINES[kind](geometry_of(YUV))
    count = 0

    def feed() -> None:
        nonlocal count
        for frame in numbered(6):
            engine.submit([frame])
            count += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(0.5)
    assert count == 2
    released.set()
    feeder.join(SOON_S)
    assert count == 6
    engine.close()


def test_openvino_in_eight_bits_stays_near_float32() -> None:
    geometry = geometry_of(replace(YUV, width=64, height=48))
    row = np.add.outer(np.arange(72) * 1.5, np.arange(64) * 1.2).astype(np.uint8).ravel()
    results = []
    for dtype in ("float32", "int8"):
        if not has_openvino():
            pytest.skip("openvino is not installed")
        torch.manual_seed(5)
        model = A2N(A2NConfig(n_features=16, n_upsample_features=8, n_blocks=3)).eval()
        engine = openvino.open_openvino_engine(model, geometry, replace(plan_for("openvino", 1), dtype=dtype))
        results.append(engine.submit([geometry.source.unpack(row)]).result(SOON_S).astype(int))
        engine.close()
    assert 0 < np.abs(results[0] - results[1]).max() <= 6
