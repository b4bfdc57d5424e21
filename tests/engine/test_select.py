"""Which engine and device a job gets, on a machine that seems to have a card."""

from __future__ import annotations

import pytest
import torch

from a2n_video.engine import select
from a2n_video.engine.protocol import Geometry
from a2n_video.errors import OptionError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
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


@pytest.mark.parametrize("engine", ["native", "torch", "openvino"])
def test_an_engine_of_the_cpu_is_enough_to_say(engine: str) -> None:
    assert (planned(engine=engine).engine, planned(engine=engine).device) == (engine, "cpu")


def test_int8_means_the_cpu_too() -> None:
    assert (planned(dtype="int8").engine, planned(dtype="int8").device) == ("openvino", "cpu")


def test_what_contradicts_itself_is_told() -> None:
    with pytest.raises(OptionError, match="--engine native does not run on device cuda:0; leave one of them away"):
        planned(engine="native", device="cuda:0")
