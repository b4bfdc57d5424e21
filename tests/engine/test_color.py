"""Colour through both converters (torch's and numpy's), against formulas written out here and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from a2n_video.engine import color as torch_color
from a2n_video.engine import nearest
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat

Array = npt.NDArray[np.float64]
ToRgb = Callable[[npt.NDArray[np.generic], PlaneFormat, ColorSpec], Array]

# Kr, Kb of ITU-R BT.601, BT.709, BT.2020.
LUMA = {5: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}
YCGCO = 8
PATCHES = {
    "black": (0, 0, 0),
    "white": (1, 1, 1),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "skin": (0.87, 0.67, 0.55),
    "gray": (0.5, 0.5, 0.5),
}
SITINGS = {1: (0.0, 0.5), 2: (0.5, 0.5), 3: (0.0, 0.0), 5: (0.0, 1.0)}  # left, centre, topleft, bottomleft


def yuv(width: int, height: int, depth: int = 8, subsampling: tuple[int, int] = (1, 1)) -> PlaneFormat:
    return PlaneFormat(width=width, height=height, family="yuv", depth=depth, log2_chroma_w=subsampling[0], log2_chroma_h=subsampling[1])


def codes_of(rgb: tuple[float, ...], matrix: int, full: bool, depth: int) -> tuple[int, int, int]:
    """Y'CbCr codes as ITU-R BT.601, 709 and 2020 write them."""
    r, g, b = rgb
    if matrix == YCGCO:
        return ycgco_codes_of(r, g, b, full, depth)
    kr, kb = LUMA[matrix]
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    if full:
        top = 2**depth - 1
        return round(y * top), round(min(cb * top + 2 ** (depth - 1), top)), round(min(cr * top + 2 ** (depth - 1), top))
    unit = 2 ** (depth - 8)
    return round((219 * y + 16) * unit), round((224 * cb + 128) * unit), round((224 * cr + 128) * unit)


def ycgco_codes_of(r: float, g: float, b: float, full: bool, depth: int) -> tuple[int, int, int]:
    """YCgCo codes as ITU-T H.273 writes them: of R, G and B as they are coded."""
    unit, top = 2 ** (depth - 8), 2**depth - 1
    red, green, blue = (c * top if full else (219 * c + 16) * unit for c in (r, g, b))
    cg, co = green / 2 - (red + blue) / 4, (red - blue) / 2
    return round(green / 2 + (red + blue) / 4), round(min(cg + 2 ** (depth - 1), top)), round(min(co + 2 ** (depth - 1), top))


def flat_row(fmt: PlaneFormat, codes: tuple[int, ...]) -> npt.NDArray[np.generic]:
    return np.concatenate([np.full(shape.samples, code, fmt.dtype) for shape, code in zip(fmt.planes, codes, strict=True)])


def rgb_by_torch(row: npt.NDArray[np.generic], fmt: PlaneFormat, color: ColorSpec) -> Array:
    return torch_color.planes_to_rgb(torch.from_numpy(row)[None], fmt, color)[0].double().numpy()


def rgb_by_numpy(row: npt.NDArray[np.generic], fmt: PlaneFormat, color: ColorSpec) -> Array:
    return nearest.planes_to_rgb(fmt.unpack(row), fmt, color).astype(np.float64)


def row_by_torch(rgb: Array, fmt: PlaneFormat, color: ColorSpec) -> npt.NDArray[np.generic]:
    return torch_color.rgb_to_planes(torch.from_numpy(rgb)[None], fmt, color)[0].numpy()


def row_by_numpy(rgb: Array, fmt: PlaneFormat, color: ColorSpec) -> npt.NDArray[np.generic]:
    row = np.empty(fmt.samples, fmt.dtype)
    nearest.rgb_to_planes(rgb.astype(np.float32), fmt, color, row)
    return row


WAYS = pytest.mark.parametrize(("to_rgb", "to_row"), [(rgb_by_torch, row_by_torch), (rgb_by_numpy, row_by_numpy)], ids=["torch", "numpy"])


@WAYS
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [*LUMA, YCGCO])
def test_flat_patches_mean_what_the_standard_says(to_rgb: ToRgb, to_row: ToRgb, matrix: int, full: bool, depth: int) -> None:
    color = ColorSpec(matrix=matrix, full_range=full, chroma_location=1)
    for name, rgb in PATCHES.items():
        for fmt in (yuv(18, 10, depth), yuv(9, 7, depth), yuv(8, 6, depth, (1, 0)), yuv(8, 6, depth, (0, 0))):
            codes = codes_of(rgb, matrix, full, depth)
            row = flat_row(fmt, codes)
            shown = to_rgb(row, fmt, color)
            assert np.abs(shown - np.array(rgb)[:, None, None]).max() < 2.2 / 2**depth, name  # half a code in each of three planes
            back = to_row(np.broadcast_to(np.array(rgb, np.float64)[:, None, None], shown.shape).copy(), fmt, color)
            assert np.abs(back.astype(int) - row.astype(int)).max() <= (1 if depth == 8 else 2), name
            assert np.array_equal(to_row(shown, fmt, color), row), name


def chroma_ramp(fmt: PlaneFormat, siting: tuple[float, float], axis: int) -> tuple[Array, Array]:
    """Cr on a ramp over luma positions: its samples (chroma plane), and what it is at each luma sample along the axis."""
    shape = fmt.planes[2]
    n_chroma, n_luma = ((shape.width, fmt.width), (shape.height, fmt.height))[axis]
    slope = 60 / n_luma
    at_chroma = 100 + slope * (2 * np.arange(n_chroma) + siting[axis])
    at_luma = 100 + slope * np.arange(n_luma)
    plane = np.broadcast_to(at_chroma if axis == 0 else at_chroma[:, None], (shape.height, shape.width))
    return plane, at_luma


@WAYS
@pytest.mark.parametrize("axis", [0, 1], ids=["across", "down"])
@pytest.mark.parametrize("location", SITINGS)
def test_a_chroma_ramp_stays_where_its_siting_puts_it(to_rgb: ToRgb, to_row: ToRgb, location: int, axis: int) -> None:
    fmt = replace(yuv(96, 64), depth=32, floating=True)
    color = ColorSpec(matrix=1, full_range=True, chroma_location=location)
    plane, at_luma = chroma_ramp(fmt, SITINGS[location], axis)
    row = np.concatenate([np.full(fmt.planes[0].samples, 0.5), np.zeros(plane.size), plane.ravel() / 1000 - 0.13]).astype(np.float32)
    rgb = to_rgb(row, fmt, color)
    kr, _ = LUMA[1]
    cr = (rgb[0] - 0.5) / (2 - 2 * kr)
    found = (cr.mean(axis=0) if axis == 0 else cr.mean(axis=1)) * 1000 + 130
    pixel = at_luma[1] - at_luma[0]
    inside = slice(8, -8)
    assert np.abs(found - at_luma)[inside].max() < 0.02 * pixel
    back = fmt.unpack(to_row(rgb, fmt, color))[2].astype(np.float64) * 1000 + 130
    assert np.abs(back - plane)[8:-8, 8:-8].max() < 0.02 * pixel


@pytest.mark.parametrize("location", SITINGS)
def test_luma_and_chroma_stay_together_when_enlarged(location: int) -> None:
    """An edge in RGB, enlarged by repeating, lies at the same place in the result's luma and chroma."""
    source, target = yuv(64, 48), yuv(128, 96)
    color = ColorSpec(matrix=1, full_range=False, chroma_location=location)
    ramp = np.linspace(0.2, 0.6, 64)
    rgb = np.stack([ramp, np.full(64, 0.4), 0.8 - ramp])[:, None, :].repeat(48, axis=1)
    row = row_by_torch(rgb, source, color)
    large = nearest.repeated(rgb_by_numpy(row, source, color), 2)
    out = rgb_by_torch(row_by_torch(large, target, color), target, color)
    pixel = (ramp[1] - ramp[0]) / 2
    expected = nearest.repeated(rgb, 2)
    error = (out - expected)[:, 16:-16, 16:-16].mean(axis=1)
    assert np.abs(error.mean(axis=1)).max() < 0.1 * pixel + 0.3 / 219  # a tenth of a pixel, besides rounding


SAMPLES = [
    yuv(37, 21),
    yuv(38, 22, 10),
    yuv(1, 1),
    yuv(5, 3, 12, (1, 0)),
    yuv(6, 5, 16, (0, 0)),
    yuv(33, 9, 8, (2, 0)),
    PlaneFormat(width=7, height=5, family="gray", depth=10),
    PlaneFormat(width=7, height=5, family="rgb"),
    PlaneFormat(width=7, height=5, family="rgb", depth=16),
    PlaneFormat(width=7, height=6, family="rgb", depth=32, floating=True),
    PlaneFormat(width=7, height=6, family="yuv", depth=16, floating=True, log2_chroma_w=1, log2_chroma_h=1),
]


def smooth_row(fmt: PlaneFormat, seed: int = 0) -> npt.NDArray[np.generic]:
    """A soft picture in any format: what subsampled chroma can hold, so that it comes back."""
    phase = np.random.default_rng(seed).uniform(0, 6, 4)
    parts = []
    for shape, shift in zip(fmt.planes, phase, strict=False):
        y, x = np.mgrid[: shape.height, : shape.width]
        wave = 0.5 + 0.2 * np.sin(x / 19 + shift) * np.cos(y / 17 + shift)
        middle = fmt.floating and fmt.family == "yuv" and len(parts) in (1, 2)
        parts.append((wave - 0.5 * middle if fmt.floating else np.round(wave * (2**fmt.depth - 1))).astype(fmt.dtype).ravel())
    return np.concatenate(parts)


@pytest.mark.parametrize("fmt", SAMPLES, ids=lambda f: f"{f.width}x{f.height}-{f.family}{f.depth}-{f.log2_chroma_w}{f.log2_chroma_h}")
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_both_converters_agree_and_come_back(fmt: PlaneFormat, full: bool) -> None:
    color = replace(ColorSpec(chroma_location=1).settled(fmt), full_range=full)
    row = smooth_row(fmt)
    by_torch, by_numpy = rgb_by_torch(row, fmt, color), rgb_by_numpy(row, fmt, color)
    assert np.abs(by_torch - by_numpy).max() < 1e-5
    step = 2e-3 if fmt.floating else 1
    one, other = (f(by_torch, fmt, color).astype(np.float64) for f in (row_by_torch, row_by_numpy))
    assert np.abs(one - other).max() <= step
    tolerance = 0.01 if fmt.floating else max(1, 2 ** (fmt.depth - 8) * (2 if fmt.log2_chroma_w else 0.02))
    assert np.abs(one - row.astype(np.float64)).max() <= tolerance


def test_whatever_the_network_says_is_held_within_the_depth() -> None:
    fmt, color = yuv(16, 16, 10), ColorSpec(matrix=1, full_range=False, chroma_location=1)
    rgb = np.random.default_rng(1).uniform(-3, 4, (3, 16, 16))
    for row in (row_by_torch(rgb, fmt, color), row_by_numpy(rgb, fmt, color)):
        assert row.min() == 0
        assert row.max() == 1023


def test_gray_is_shown_as_equal_channels_and_weighed_by_the_matrix() -> None:
    fmt = PlaneFormat(width=4, height=4, family="gray")
    color = ColorSpec(matrix=9, full_range=True)
    rgb = rgb_by_torch(np.arange(16, dtype=np.uint8) * 16, fmt, color)
    assert np.array_equal(rgb[0], rgb[2])
    blue = np.zeros((3, 4, 4))
    blue[2] = 1
    assert set(row_by_torch(blue, fmt, color).tolist()) == {round(255 * LUMA[9][1])}


@pytest.mark.parametrize("depth", [8, 10])
def test_alpha_keeps_its_codes_and_is_opaque_where_none_was(depth: int) -> None:
    fmt = replace(yuv(6, 4, depth), alpha=True)
    color = ColorSpec(matrix=1, full_range=False)
    alpha = np.arange(24) * (10 if depth == 8 else 40)
    row = np.concatenate([flat_row(replace(fmt, alpha=False), (100, 128, 128)), alpha.astype(fmt.dtype)])
    tables = torch_color.ColorConverter(fmt, color)
    rows = torch.from_numpy(row)[None]
    rgb = tables.to_rgb(rows)
    assert np.array_equal(fmt.unpack(tables.to_rows(rgb, tables.alpha(rows))[0].numpy())[3].ravel(), alpha)
    assert set(fmt.unpack(tables.to_rows(rgb)[0].numpy())[3].ravel().tolist()) == {2**depth - 1}


def cut_out(hidden: float | torch.Tensor, size: tuple[int, int] = (33, 47)) -> tuple[torch.Tensor, torch.Tensor]:
    """A white square, half seen at its edge, on a colour that is not seen at all."""
    alpha = torch.zeros(1, 1, *size)
    alpha[..., 8:24, 8:24] = 0.5
    alpha[..., 9:23, 9:23] = 1
    return torch.where(alpha > 0, torch.ones(1, 3, *size), torch.as_tensor(hidden)), alpha


@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_what_a_cut_out_hides_beside_its_edge_has_the_colour_of_the_edge(hidden: float) -> None:
    rgb, alpha = cut_out(hidden)
    covered = torch_color.covered(rgb, alpha)
    assert (covered[..., 4:28, 4:28] == 1).all()
    assert (covered[..., 32:] == hidden).all()


def test_colours_that_may_be_meant_are_left_under_alpha() -> None:
    """All that is seen, and all of a frame that hides more than one; frames of a batch stand for themselves."""
    one, alpha = cut_out(0.0)
    noise = torch.rand(1, 3, 33, 47)
    several, _ = cut_out(noise)
    batch = torch_color.covered(torch.cat([several, noise, one]), torch.cat([alpha, torch.ones_like(alpha), alpha]))
    assert torch.equal(batch[:2], torch.cat([several, noise]))
    assert torch.equal(batch[2:], torch_color.covered(one, alpha))
    seen = torch.where(alpha > 0, noise, 0.0)
    assert torch.equal(torch_color.covered(seen, alpha)[alpha.expand(-1, 3, -1, -1) > 0], noise[alpha.expand(-1, 3, -1, -1) > 0])
    assert torch.equal(torch_color.covered(one, torch.zeros_like(alpha)), one)


def test_batches_are_frames_side_by_side() -> None:
    fmt, color = yuv(21, 13), ColorSpec(matrix=5, full_range=False, chroma_location=2)
    rows = torch.from_numpy(np.stack([smooth_row(fmt, seed) for seed in range(3)]))
    together = torch_color.planes_to_rgb(rows, fmt, color)
    for one, frame in itertools.zip_longest(rows, together):
        assert torch.equal(torch_color.planes_to_rgb(one[None], fmt, color)[0], frame)


@pytest.mark.parametrize("fmt", [yuv(40, 150), yuv(21, 99, 10), yuv(24, 70, 8, (1, 0)), PlaneFormat(width=9, height=80, family="gray")])
def test_bands_are_the_picture_cut_at_no_cost(fmt: PlaneFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion goes in bands of rows; where they meet, chroma reaches into the neighbour."""
    color = ColorSpec(chroma_location=2).settled(fmt)
    rows = torch.from_numpy(np.random.default_rng(3).integers(0, 250, (2, fmt.samples)).astype(fmt.dtype))
    found = []
    for samples in (1 << 30, 1):
        monkeypatch.setattr(torch_color, "_BAND_SAMPLES", samples)
        rgb = torch_color.planes_to_rgb(rows, fmt, color)
        found.append((rgb, torch_color.rgb_to_planes(rgb, fmt, color).int()))
    assert (found[0][0] - found[1][0]).abs().max() < 1e-5
    assert (found[0][1] - found[1][1]).abs().max() <= 1
