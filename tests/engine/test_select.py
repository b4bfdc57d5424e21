"""Which engine and device a job gets, on a machine that seems to have a card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from a2n_video.engine import host_memory, select
from a2n_video.engine.protocol import Geometry
from a2n_video.errors import DeviceError, OptionError, WeightsError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.net.catalog import find_model
from a2n_video.options import ExecutionPlan, ModelOptions

FMT = PlaneFormat(width=64, height=48, family="rgb")
GEOMETRY = Geometry(source=FMT, color=ColorSpec().settled(FMT), scale=2)


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """One card; nothing is opened on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(select, "_with_timed_layout", lambda plan, geometry: plan)
    monkeypatch.setattr(select, "has_native", lambda: True)
    monkeypatch.setattr(select, "has_openvino", lambda: True)


def planned(**options: str) -> ExecutionPlan:
    return select.resolve_plan(ModelOptions(model="a2n-tiny", **options), GEOMETRY)  # type: ignore[arg-type]


def test_the_card_is_taken_where_nothing_else_was_said() -> None:
    assert (planned().engine, planned().device) == ("accelerator", "cuda")
    assert planned(device="cpu").device == "cpu"


@pytest.mark.parametrize("device", [None, "cuda:0"])
def test_a_card_that_the_process_before_a_fork_has_used_is_told(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(DeviceError, match=r"--device cuda.* forked off has used it; .*'spawn', or use --device cpu"):
        select.resolve_plan(ModelOptions(model="a2n-tiny", device=device), GEOMETRY)
    assert planned(device="cpu").device == "cpu"


@pytest.mark.parametrize("engine", ["native", "torch", "openvino"])
def test_an_engine_of_the_cpu_is_enough_to_say(engine: str) -> None:
    assert (planned(engine=engine).engine, planned(engine=engine).device) == (engine, "cpu")


def test_int8_means_the_cpu_too() -> None:
    assert (planned(dtype="int8").engine, planned(dtype="int8").device) == ("openvino", "cpu")


def test_what_contradicts_itself_is_told() -> None:
    with pytest.raises(OptionError, match="--engine native does not run on device cuda:0; leave one of them away"):
        planned(engine="native", device="cuda:0")


@pytest.mark.parametrize("engine", ["auto", "native", "torch"])
def test_more_threads_than_any_machine_has_are_refused(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_cores", lambda: 2)
    for asked in (1025, 100_000):
        with pytest.raises(OptionError, match=rf"--threads {asked}: at most 1024"):
            planned(engine=engine, threads=asked)  # type: ignore[arg-type]
    assert planned(engine=engine, threads=1024).threads == 1024  # type: ignore[arg-type]
    monkeypatch.setattr(select, "_cores", lambda: 2000)
    assert planned(engine=engine, threads=2000).threads == 2000  # type: ignore[arg-type]


def weights(scale: int = 2, name: str = "a2n") -> str:
    return str(find_model(name, scale).path)


def test_weights_settle_the_scale() -> None:
    assert select.settled_scale(ModelOptions()) == select.DEFAULT_SCALE == 2
    assert select.settled_scale(ModelOptions(weights=weights(4), scale=4)) == 4
    for scale, other in ((2, 3), (4, 2)):
        with pytest.raises(WeightsError, match=rf"a2n_x{scale}.* for scale {scale}, not {other}; give --scale {scale}"):
            select.settled_scale(ModelOptions(weights=weights(scale), scale=other))


def test_weights_are_looked_at_before_anything_is_promised(tmp_path: Path) -> None:
    picture = tmp_path / "im.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for options in (ModelOptions(weights=str(picture)), ModelOptions(weights=weights(2, "a2n-tiny"), scale=3)):
        with pytest.raises(WeightsError, match=options.weights):
            select.check_numbers(options)
        with pytest.raises(WeightsError, match=options.weights):
            select.resolve_plan(options, GEOMETRY)


@pytest.mark.parametrize("options", [{"model": "a2n"}, {"model": "nearest"}, {"engine": "nearest"}])
def test_weights_stand_alone(options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=r"--(model|engine) \S+ beside --weights .*a2n_x2.safetensors: .*leave one of them away"):
        select.check_numbers(ModelOptions(weights=weights(), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch_size", "free_gib", "fit"), [(1, 8, "no"), (8, 10, "n"), (1, 4, ""), (16, 20, "n"), (64, 20, "")])
def test_the_native_network_has_the_maps_of_one_frame_of_a_batch(
    batch_size: int, free_gib: int, fit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_memory, "free_host_bytes", lambda: free_gib << 30)
    monkeypatch.setattr(select, "_fitted", lambda plan, geometry: plan)
    fmt = PlaneFormat(width=1920, height=1080, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
    geometry = Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=2)
    for engine in ("native", "openvino"):
        plan = select.resolve_plan(ModelOptions(model="a2n", engine=engine, batch_size=batch_size), geometry)  # type: ignore[arg-type]
        assert plan.engine == (engine if engine[0] in fit else "torch")
