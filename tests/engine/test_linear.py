"""Resampling after the network: in light, not in codes; without aliases, without a shift, without losing a code."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from a2n_video.engine.linear import edge_repeated, refit, resampled
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat

BT709 = ColorSpec(matrix=1, full_range=False, primaries=1, transfer=1)


def gray(width: int, height: int, depth: int = 16) -> PlaneFormat:
    return PlaneFormat(width=width, height=height, family="gray", depth=depth)


@pytest.mark.parametrize(("transfer", "power"), [(1, 2.4), (6, 2.4), (4, 2.2), (5, 2.8), (8, 1.0)])
def test_fine_lines_keep_their_light(transfer: int, power: float) -> None:
    """Black and white lines seen from afar are half the light, which is not the middle code."""
    fmt, target = gray(64, 64), gray(64, 16)
    color = ColorSpec(matrix=1, full_range=True, transfer=transfer)
    lines = np.zeros((64, 64), np.uint16)
    lines[::2] = 65535
    small = target.unpack(refit([lines], fmt, color, target, color))[0].astype(float) / 65535
    assert np.abs(small[4:-4] - 0.5 ** (1 / power)).max() < 0.004


def test_pq_stays_coded() -> None:
    fmt, target = gray(64, 64), gray(64, 16)
    color = ColorSpec(matrix=1, full_range=True, transfer=16)
    lines = np.zeros((64, 64), np.uint16)
    lines[::2] = 65535
    small = target.unpack(refit([lines], fmt, color, target, color))[0].astype(float) / 65535
    assert np.abs(small[4:-4] - 0.5).max() < 0.01


def test_no_aliases() -> None:
    """Waves too fine for the smaller picture vanish; coarse ones stay."""
    x = np.arange(480)
    for period, wanted in ((2.2, 0.0), (2.6, 0.0), (24.0, 1.0)):
        wave = np.broadcast_to(np.cos(2 * np.pi * x / period), (1, 8, 480)).astype(np.float32)
        small = resampled(wave, 8, 160)[0, 0, 10:-10]
        assert abs(np.abs(small).max() - wanted) < 0.08


@pytest.mark.parametrize("sizes", [(90, 60), (60, 90), (97, 64), (64, 97), (100, 33)])
def test_no_shift(sizes: tuple[int, int]) -> None:
    before, after = sizes
    ramp = np.broadcast_to(np.arange(before, dtype=np.float32), (1, 4, before))
    found = resampled(ramp, 4, after)[0, 0]
    expected = (np.arange(after) + 0.5) * before / after - 0.5
    inner = slice(after // 8, -after // 8)
    assert np.abs(found - expected)[inner].max() < 0.03


@pytest.mark.parametrize("transfer", [1, 4, 5, 13, 16, 17])
@pytest.mark.parametrize("depth", [8, 10, 12, 16])
def test_flat_codes_stay(depth: int, transfer: int) -> None:
    fmt, target = gray(20, 20, depth), gray(13, 7, depth)
    color = replace(BT709, transfer=transfer)
    for code in (*range(0, 64, 7), *np.linspace(0, (1 << depth) - 1, 23).astype(int)):
        row = refit([np.full((20, 20), code, fmt.dtype)], fmt, color, target, color)
        assert (row == code).all()


@pytest.mark.parametrize("matrix", [1, 6, 8, 9])
def test_flat_colours_stay(matrix: int) -> None:
    """All that limited codes can say: red is then up to twice as bright as white."""
    fmt, target = (PlaneFormat(width=width, height=width, family="yuv", depth=10) for width in (8, 6))
    color = ColorSpec(matrix=matrix, full_range=False, transfer=1)
    for codes in product((0, 400, 720, 940, 1023), (0, 200, 600, 1023), (0, 200, 600, 1023)):
        row = refit([np.full((8, 8), code, np.uint16) for code in codes], fmt, color, target, color)
        assert all((plane == code).all() for plane, code in zip(target.unpack(row), codes, strict=True)), codes


def test_alpha_goes_along() -> None:
    fmt = PlaneFormat(width=16, height=16, family="rgb", depth=16, alpha=True)
    target = PlaneFormat(width=8, height=8, family="rgb", alpha=True)
    alpha = np.zeros((16, 16), np.uint16)
    alpha[:, 8:] = 65535
    rgb = ColorSpec(matrix=0, full_range=True)
    found = target.unpack(refit([alpha, alpha, alpha, alpha], fmt, rgb, target, rgb))[3]
    assert found[:, :3].max() <= 8
    assert found[:, 5:].min() >= 247


@pytest.mark.parametrize("transfer", [13, 16])
@pytest.mark.parametrize("side", [17, 40, 61])
def test_no_hidden_colour_comes_into_an_edge(side: int, transfer: int) -> None:
    """White on hidden black stays white wherever it is seen; what is hidden stays black."""
    fmt = PlaneFormat(width=40, height=40, family="rgb", depth=16, alpha=True)
    target = PlaneFormat(width=side, height=side, family="rgb", alpha=True)
    color = ColorSpec(matrix=0, full_range=True, transfer=transfer)
    alpha = np.zeros((40, 40), np.uint16)
    alpha[10:30, 10:30] = 30000
    alpha[12:28, 12:28] = 65535
    white = np.where(alpha > 0, np.uint16(65535), np.uint16(0))
    *rgb, seen = target.unpack(refit([white, white, white, alpha], fmt, color, target, color))
    assert all((plane[seen > 0] == 255).all() for plane in rgb)
    assert all((plane[: side // 6] == 0).all() for plane in rgb)


def test_edges_are_repeated() -> None:
    target = PlaneFormat(width=4, height=6, family="yuv", log2_chroma_w=1, log2_chroma_h=1)
    planes = [np.arange(15, dtype=np.uint8).reshape(5, 3), np.ones((3, 2), np.uint8), np.zeros((3, 2), np.uint8)]
    luma, u, _ = target.unpack(edge_repeated(planes, target))
    assert np.array_equal(luma[:5, :3], planes[0])
    assert np.array_equal(luma[5], luma[4])
    assert np.array_equal(luma[:, 3], luma[:, 2])
    assert np.array_equal(u, planes[1])
