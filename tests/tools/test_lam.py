"""Attribution against closed forms, the Gini coefficient on known vectors, the parts of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from a2n_video.errors import OptionError
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.tools import lam as lam_module
from a2n_video.tools.footage import shot_of
from a2n_video.tools.lam import (
    LamOptions,
    attribution,
    contribution_area,
    crop_around,
    diffusion_index,
    edge_strength,
    gaussian_blur,
    gini,
    lam_of_frame,
    lam_report,
    local_attribution,
    recomputed,
)
from tests.made import make_source


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 3, 14, 17, dtype=torch.float64)


def test_the_blur_is_a_gaussian(x: Tensor) -> None:
    expected = gaussian_filter1d(gaussian_filter1d(x.numpy(), 1.2, axis=2, mode="nearest", radius=5), 1.2, axis=3, mode="nearest", radius=5)
    np.testing.assert_allclose(gaussian_blur(x, 1.2).numpy(), expected, atol=1e-12)
    assert torch.equal(gaussian_blur(x, 0), x)


def test_a_linear_network_in_closed_form(x: Tensor) -> None:
    """For detector(network(x)) = w . x the attribution is w * (x - blurred x), whatever the path's steps."""
    kernel = torch.randn(3, 3, 3, 3, dtype=torch.float64)

    def network(z: Tensor) -> Tensor:
        return F.conv2d(z, kernel, padding=1)

    def detector(out: Tensor) -> Tensor:
        return out[..., 5:9, 6:10].sum()

    probe = torch.zeros_like(x).requires_grad_()
    (weights,) = torch.autograd.grad(detector(network(probe)), probe)
    for steps in (1, 7):
        found = attribution(network, x, detector, steps=steps, sigma=1.2)
        torch.testing.assert_close(found, weights * (x - gaussian_blur(x, 1.2)), rtol=1e-10, atol=1e-12)
    outside = torch.ones_like(x, dtype=torch.bool)
    outside[..., 4:10, 5:11] = False  # the window and the one pixel that a 3x3 kernel reaches
    assert not found[outside].any()


def test_a_quadratic_network_in_closed_form(x: Tensor) -> None:
    """For the sum of squares each pixel's attribution is x^2 - b^2: gradients midway along the path integrate it exactly."""
    found = attribution(lambda z: z**2, x, lambda out: out.sum(), steps=5, sigma=2.0)
    torch.testing.assert_close(found, x**2 - gaussian_blur(x, 2.0) ** 2, rtol=1e-10, atol=1e-12)


def test_a_cubic_network_needs_its_steps(x: Tensor) -> None:
    exact = x**3 - gaussian_blur(x, 1.2) ** 3
    errors = [
        (attribution(lambda z: z**3, x, lambda out: out.sum(), steps=steps, sigma=1.2) - exact).abs().max().item() for steps in (2, 8, 32)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]  # second order: sixteenfold a fourfold, and a margin


def test_edge_strength_of_a_ramp() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 5, 6) * 3
    assert edge_strength(ramp).item() == pytest.approx(3 * 4 * 5)
    assert edge_strength(ramp.transpose(2, 3)).item() == pytest.approx(3 * 4 * 5)
    assert edge_strength(torch.ones(1, 3, 5, 6)).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 1, 1], 0.0),
        ([0, 0, 0, 5], 0.75),
        ([1, 2, 3, 4], 0.25),
        ([4, 1, 3, 2], 0.25),
        ([0, 0], 0.0),
        ([1, 3], 0.25),
    ],
)
def test_gini_of_known_vectors(values: list[int], expected: float) -> None:
    assert gini(np.array(values)) == pytest.approx(expected)
    assert gini(10 * np.array(values)) == pytest.approx(expected)
    assert diffusion_index(np.array(values)) == pytest.approx(100 * (1 - expected))


def test_the_contribution_area_is_the_smallest_that_holds_enough() -> None:
    strength = np.array([[50.0, 1, 1], [30, 11, 7]])
    assert contribution_area(strength, 0.9).tolist() == [[True, False, False], [True, True, False]]
    assert contribution_area(strength, 0.95).sum() == 4
    assert not contribution_area(np.zeros((2, 2))).any()


def test_crops_stay_inside() -> None:
    rgb = torch.arange(20.0 * 30).reshape(1, 1, 20, 30)
    crop, place = crop_around(rgb, (15, 10), 8)
    assert place == (11, 6)
    assert torch.equal(crop, rgb[..., 6:14, 11:19])
    assert crop_around(rgb, (0, 19), 8)[1] == (0, 12)
    assert crop_around(rgb, (5, 5), 64)[0].shape == rgb.shape
    with pytest.raises(OptionError, match="outside the frame, which is 30x20"):
        crop_around(rgb, (30, 0), 8)


def test_a_whole_map_is_complete() -> None:
    torch.manual_seed(0)
    model = A2N(A2NConfig(n_features=6, n_blocks=2, head="pixelshuffle")).eval().requires_grad_(False)
    torch.manual_seed(2)
    found = local_attribution(model, torch.rand(1, 3, 24, 24), (16, 16, 16), steps=40)
    assert found.gap < 0.03
    assert found.strength.shape == (24, 24)
    assert 0 < found.diffusion < 100
    inside = found.strength[7:17, 7:17].sum()
    assert inside > 0.5 * found.strength.sum()
    # A gate weighs by the whole frame's mean: even a corner has a part, where plain convolutions would have none.
    assert found.strength[0, 0] > 0


def test_the_window_lies_around_the_pixel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = A2N(A2NConfig(n_features=6, n_blocks=1, head="pixelshuffle")).eval().requires_grad_(False)
    source = make_source(tmp_path / "in.mp4", pts=range(3), size=(96, 80), audio=())
    rgb = shot_of(source).rgb
    found = lam_of_frame(rgb, model, LamOptions(at=(60, 30), window=12, context=32, steps=2))
    assert found.source.shape == (32, 32, 3)
    assert found.window == (2 * 16 + 1 - 6, 2 * 16 + 1 - 6, 12)  # the crop's pixel 16 covers the result's 32 and 33
    corner = lam_of_frame(rgb, model, LamOptions(at=(0, 0), window=12, context=32, steps=2))
    assert corner.window == (0, 0, 12)
    with pytest.raises(OptionError, match="--window 65"):
        lam_of_frame(rgb, model, LamOptions(window=65, context=32))
    lam_report(source, model, tmp_path / "out.png", LamOptions(context=32, steps=2))
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_window_counts() -> None:
    """Through a network that changes nothing, attribution fills the window to its last row and column, and nothing else."""
    torch.manual_seed(5)
    found = local_attribution(lambda z: z, torch.rand(1, 3, 24, 30), (9, 4, 7), steps=3)
    rows, columns = np.nonzero(found.strength)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 10, 9, 15)
    assert found.area <= 49


@pytest.mark.parametrize("config", [A2NConfig(n_features=6, n_blocks=2, scale=4), A2NConfig(n_features=6, n_blocks=2, head="pixelshuffle")])
def test_a_recomputed_network_is_the_same(config: A2NConfig) -> None:
    torch.manual_seed(0)
    model = A2N(config).eval().requires_grad_(False)
    results = []
    for network in (model, recomputed(model)):
        x = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = network(x)
        out.square().sum().backward()
        results.append((out.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_large_crop_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole frames need it: their maps would not fit into memory all at once."""
    torch.manual_seed(0)
    model = A2N(A2NConfig(n_features=4, n_blocks=1, head="pixelshuffle")).eval().requires_grad_(False)
    seen = []
    monkeypatch.setattr(lam_module, "recomputed", lambda given: seen.append(given) or given)
    for side in (256, 257):
        lam_of_frame(torch.rand(1, 3, side, side), model, LamOptions(context=1000, steps=1))
    assert seen == [model]
