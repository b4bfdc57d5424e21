"""PSNR and SSIM against values by hand and against an independent implementation."""

from __future__ import annotations

import math

import pytest
import torch

from a2n_video.tools.metrics import BEST_DB, STRIP, WINDOW, luma, psnr, psnr_y, shave, ssim, ssim_y


def noise(seed: int, *shape: int) -> torch.Tensor:
    return 255 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_luma_of_black_white_and_the_primaries() -> None:
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.float64)
    y = luma(colours[:, :, None, None]).flatten()
    assert torch.allclose(y, torch.tensor([16, 235.0, 81.48, 144.55, 40.97], dtype=torch.float64), atol=0.01)


def test_psnr_by_hand() -> None:
    a = torch.full((2, 1, 4, 4), 100.0)
    b = a.clone()
    b[0] += 5
    b[1, 0, 0, 0] += 16
    expected = [10 * math.log10(255**2 / 25), 10 * math.log10(255**2 / 16)]
    assert psnr(a, b).tolist() == pytest.approx(expected)
    assert psnr(a, a).tolist() == [BEST_DB] * len(a)


def test_the_border_is_left_out() -> None:
    a = noise(1, 1, 3, 20, 20)
    b = a.clone()
    b[..., :2, :] = 0
    b[..., -2:] = 0
    assert psnr_y(a, b, 2).item() == BEST_DB
    assert psnr_y(a, b, 1).item() < 40
    assert shave(a, 0).shape == a.shape


def test_uint8_does_not_wrap() -> None:
    a, b = (torch.full((1, 3, 16, 16), value, dtype=torch.uint8) for value in (250, 255))
    assert psnr_y(a, b, 0).item() == pytest.approx(10 * math.log10(255**2 / (5 * 219.859 / 256) ** 2), abs=0.01)


@pytest.mark.parametrize("height", [11, 24, STRIP + WINDOW - 1, STRIP + WINDOW, 3 * STRIP])
def test_ssim_equals_scikit_image(height: int) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a = noise(2, 1, 1, height, 31)
    b = (a + 0.4 * noise(3, 1, 1, height, 31)).clamp(0, 255)
    theirs = metrics.structural_similarity(
        a[0, 0].numpy(),
        b[0, 0].numpy(),
        win_size=11,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )[1][5:-5, 5:-5].mean()
    assert ssim(a, b).item() == pytest.approx(theirs, abs=1e-9)


def test_ssim_of_equal_images_is_one_and_small_ones_are_refused() -> None:
    a = noise(4, 2, 3, 16, 16)
    assert ssim_y(a, a, 2).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="11x11"):
        ssim_y(a, a, 3)
