"""Resampling as MATLAB has it: its known weights, an independent implementation, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from a2n_video.engine.resize import KERNELS, Window, resize, resize_array, resize_matrix


def test_halving_has_matlab_s_weights() -> None:
    """The antialiased cubic at half a sample off: the kernel at (0.25, 0.75, 1.25, 1.75) / 2."""
    row = resize_matrix(32, 16)[8]
    assert row.sum() == pytest.approx(1)
    assert np.count_nonzero(row) == 8
    assert row[13:17] == pytest.approx(np.array([-0.01171875, -0.03515625, 0.11328125, 0.43359375]), abs=1e-12)
    assert row[13:21] == pytest.approx(row[13:21][::-1])


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("sizes", [(16, 8), (15, 7), (8, 16), (9, 27), (5, 5), (3, 1), (1, 4), (100, 30)])
def test_flat_stays_flat_and_mirror_images_agree(kernel: str, sizes: tuple[int, int]) -> None:
    matrix = resize_matrix(*sizes, kernel)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(sizes[1]))
    if kernel != "area":  # a half-open box is not symmetric where a sample falls on its edge
        assert matrix == pytest.approx(matrix[::-1, ::-1])


def test_same_size_is_the_same() -> None:
    assert resize_matrix(9, 9) == pytest.approx(np.eye(9))


def test_a_ramp_stays_a_ramp_inside() -> None:
    ramp = np.arange(64.0)
    for n_out in (32, 21, 128):
        centres = (np.arange(n_out) + 0.5) * 64 / n_out - 0.5
        inner = (centres > 8) & (centres < 55)
        assert (resize_matrix(64, n_out) @ ramp)[inner] == pytest.approx(centres[inner], abs=0.05)


def test_against_pillow_inside() -> None:
    """Pillow's bicubic has the same kernel and antialiasing and differs at the borders only."""
    pictures = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    image = rng.random((40, 60)).astype(np.float32)
    for height, width in ((20, 30), (16, 24), (80, 120)):
        theirs = np.asarray(pictures.fromarray(image).resize((width, height), pictures.Resampling.BICUBIC))
        ours = resize_array(image.astype(np.float64), height, width)
        assert ours[5:-5, 5:-5] == pytest.approx(theirs[5:-5, 5:-5], abs=1e-5)


def test_tensor_and_array_agree() -> None:
    x = torch.rand(2, 3, 11, 8, dtype=torch.float64)
    tensor = resize(x, 5, 16)
    array = resize_array(x[1].permute(1, 2, 0).numpy(), 5, 16)
    assert torch.allclose(tensor[1].permute(1, 2, 0), torch.from_numpy(array.copy()))
    with pytest.raises(ValueError, match="uint8"):
        resize(x.to(torch.uint8), 5, 16)


def test_a_window_is_a_crop_and_fractions_shift() -> None:
    row = np.random.default_rng(2).random(40)
    assert resize_matrix(40, 10, "bicubic", Window(start=7, length=10)) @ row == pytest.approx(row[7:17])
    ramp = np.arange(40.0)
    assert resize_matrix(40, 10, "bicubic", Window(start=7.25, length=10)) @ ramp == pytest.approx(np.arange(7.25, 17.25))
