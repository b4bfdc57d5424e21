"""The form for graph compilers: the same numbers, and with 8 bits nearly the same."""

from __future__ import annotations

import pytest
import torch

from a2n_video.net.fuse import fuse
from a2n_video.net.graph import NARROW_WEIGHT_LEVELS, WEIGHT_LEVELS, ForCompiler, Levels, calibration_picture
from a2n_video.net.weights import load_model
from tests.net.test_fuse import CONFIGS, NAMES, difference, frames, lively


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_taken_apart_it_is_the_plain_network(config) -> None:  # type: ignore[no-untyped-def]
    model = lively(config)
    taken = ForCompiler(fuse(model))
    for height, width in ((17, 13), (3, 2)):
        x = frames(3, height, width)
        assert difference(taken(x) + model.skip(x), model(x)) < 1e-10


@pytest.mark.parametrize("weight_levels", [WEIGHT_LEVELS, NARROW_WEIGHT_LEVELS])
def test_eight_bits_cost_next_to_nothing(weight_levels: int) -> None:
    """On the bundled network, measured 0.002 dB on Set5; here a picture that it was not calibrated on."""
    model = load_model("a2n", 2)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    picture = (0.5 + 0.4 * torch.sin(x / 5 + y / 9) * torch.cos(y / 4)).expand(1, 3, -1, -1).clone()
    picture[:, 0, 10:30, 20:40] = 0.9
    with torch.inference_mode():
        rounded = ForCompiler(fuse(model), int8=True, weight_levels=weight_levels)(picture) + model.skip(picture)
        error = (model(picture) - rounded).abs()
    assert 0 < error.mean() < 0.5 / 255
    assert error.max() < 12 / 255


def test_levels_cover_a_map_and_hold_zero() -> None:
    x = torch.linspace(-1, 3, 1001)
    levels = Levels.covering(x)
    rounded = torch.fake_quantize_per_tensor_affine(x, levels.step, levels.zero, 0, 255)
    assert (rounded - x).abs().max() <= levels.step
    assert torch.fake_quantize_per_tensor_affine(torch.zeros(1), levels.step, levels.zero, 0, 255) == 0


def test_the_calibration_picture_is_always_the_same_and_in_range() -> None:
    one, other = calibration_picture(), calibration_picture()
    assert torch.equal(one, other)
    assert 0 <= one.min() < 0.1 < 0.9 < one.max() <= 1
