"""A network that gives no numbers is an error of the engine, on every road: stored, they would be black."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from a2n_video.engine.color import finite
from a2n_video.engine.protocol import Geometry
from a2n_video.errors import DeviceError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from tests.engine import test_contract as contract

GEOMETRY = Geometry(
    source=PlaneFormat(width=24, height=16, family="yuv", depth=8, log2_chroma_w=1, log2_chroma_h=1),
    color=ColorSpec(matrix=1, primaries=1, transfer=1, full_range=False),
    scale=2,
)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_is_enough(value: float) -> None:
    rgb = torch.rand(2, 3, 40, 50)
    assert finite(rgb) is rgb
    rgb[1, 2, 39, 49] = value
    with pytest.raises(DeviceError, match="no numbers"):
        finite(rgb)


@pytest.mark.parametrize("name", ["torch", "openvino", "accelerator", "simulated"])
def test_weights_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = contract.small_model

    def broken(scale: int = 2) -> torch.nn.Module:
        model = whole(scale)
        with torch.no_grad():
            next(iter(model.parameters())).view(-1)[0] = float("nan")
        return model

    monkeypatch.setattr(contract, "small_model", broken)
    planes = [np.full((shape.height, shape.width), 90, np.uint8) for shape in GEOMETRY.source.planes]
    engine = contract.ENGINES[name](GEOMETRY)
    try:
        future = engine.submit([planes])
        with pytest.raises(DeviceError, match="no numbers"):
            future.result(timeout=contract.SOON_S)
    finally:
        engine.close()
