"""Local attribution maps: which input pixels a small window of the result was made from (Gu and Dong, arXiv 2011.11036).

The attribution of a pixel is the gradient of what a detector sees in the window, integrated along a path from a blurred input to the
input itself, the blur growing weaker step by step. The diffusion index tells how widely it is spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from a2n_video.errors import OptionError
from a2n_video.io.rgb import Image
from a2n_video.tools import plots
from a2n_video.tools.footage import Shown, shot_of
from a2n_video.tools.images import to_image

if TYPE_CHECKING:
    from fractions import Fraction

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from a2n_video.net.model import A2N

Floats = NDArray[np.float64]
Network = Callable[[Tensor], Tensor]
Detector = Callable[[Tensor], Tensor]
SIGMA: Final = 1.2  # of the blur the path begins with, in input pixels
STEPS: Final = 50
MAGNITUDES: Final = 4  # that the heat map shows below the strongest attribution
HELD: Final = 0.9  # share of the attribution that the contribution area holds
LARGE: Final = 256 * 256  # pixels of a crop from which on memory counts for more than time


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """(N, C, H, W) blurred, edges repeated; sigma 0 is the input. Kernels reach four sigma."""
    if sigma <= 0:
        return x
    reach = max(1, round(4 * sigma))
    taps = torch.exp(-(torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, -1)
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, taps[:, :, None, :], groups=x.shape[1])
    return F.conv2d(across, taps[:, :, :, None], groups=x.shape[1])


def edge_strength(window: Tensor) -> Tensor:
    """The paper's kind of detector: the sum of gradient magnitudes (right and lower neighbour) in a window (1, C, h, w)."""
    across = window[..., :-1, 1:] - window[..., :-1, :-1]
    down = window[..., 1:, :-1] - window[..., :-1, :-1]
    return torch.sqrt(across**2 + down**2 + 1e-12).sum()


def attribution(network: Network, x: Tensor, detector: Detector, *, steps: int = STEPS, sigma: float = SIGMA) -> Tensor:
    """Path-integrated gradients of detector(network(x)) for an input (1, C, H, W); the same shape, signed.

    The path is blur(x, sigma * (1 - k / steps)), k = 0..steps. Gradients are taken midway between neighbours on it, so that a
    detector that is linear or quadratic in the input is integrated exactly. The sum over all pixels is
    detector(network(x)) - detector(network(blurred)), up to the steps' error.
    """
    total = torch.zeros_like(x)
    previous = gaussian_blur(x, sigma)
    for step in range(1, steps + 1):
        current = gaussian_blur(x, sigma * (1 - step / steps))
        middle = ((previous + current) / 2).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(detector(network(middle)), middle)
        total += gradient * (current - previous)
        previous = current
    return total


def gini(values: NDArray[Any]) -> float:
    """Gini coefficient of non-negative values: 0 where all are equal, (n - 1) / n where one of n has everything, 0 where all are 0."""
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    total = ordered.sum()
    if total <= 0:
        return 0.0
    n = ordered.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def diffusion_index(strength: NDArray[Any]) -> float:
    """(1 - Gini) * 100 of a map of absolute attributions: 100 where every pixel counts alike, towards 0 where few do."""
    return (1 - gini(strength)) * 100


def contribution_area(strength: Floats, held: float = HELD) -> NDArray[np.bool_]:
    """The fewest pixels that together hold `held` of the attribution."""
    order = np.argsort(strength, axis=None)[::-1]
    sums = np.cumsum(strength.ravel()[order])
    count = int(np.searchsorted(sums, held * sums[-1])) + 1 if sums[-1] > 0 else 0
    mask = np.zeros(strength.size, bool)
    mask[order[:count]] = True
    return mask.reshape(strength.shape)


@dataclass(frozen=True, kw_only=True)
class LocalAttribution:
    """The attribution of one window.

    `strength` is the absolute attribution of each input pixel (summed over channels first), (H, W). `window` is (left, top, side) in the
    result's pixels. `gap` is the part of the detector's change along the path that the steps missed, 0 when exact.
    """

    source: Image
    result: Image
    strength: Floats
    window: tuple[int, int, int]
    gap: float

    @property
    def diffusion(self) -> float:
        return diffusion_index(self.strength)

    @property
    def area(self) -> int:
        """Source pixels that hold HELD of the attribution."""
        return int(contribution_area(self.strength).sum())

    @property
    def scale(self) -> int:
        return int(self.result.shape[0] // self.source.shape[0])


def local_attribution(
    network: Network, x: Tensor, window: tuple[int, int, int], *, steps: int = STEPS, sigma: float = SIGMA
) -> LocalAttribution:
    """The local attribution map of a window (left, top, side; result's pixels) for an input (1, 3, H, W) in 0..1."""
    left, top, side = window

    def detector(out: Tensor) -> Tensor:
        return edge_strength(out[..., top : top + side, left : left + side])

    with torch.no_grad():
        result = network(x)
        change = float(detector(result) - detector(network(gaussian_blur(x, sigma))))
    found = attribution(network, x, detector, steps=steps, sigma=sigma)
    return LocalAttribution(
        source=to_image(x),
        result=to_image(result),
        strength=found[0].sum(dim=0).abs().double().cpu().numpy(),
        window=window,
        gap=abs(change - float(found.sum())) / max(abs(change), 1e-9),
    )


def crop_around(rgb: Tensor, at: tuple[int, int], context: int) -> tuple[Tensor, tuple[int, int]]:
    """A crop of `context` pixels a side (less in small frames) around (x, y), moved inside the frame, and its (left, top)."""
    height, width = rgb.shape[-2:]
    if not (0 <= at[0] < width and 0 <= at[1] < height):
        raise OptionError(f"--at {at[0]},{at[1]} lies outside the frame, which is {width}x{height}")
    sides = min(context, width), min(context, height)
    left, top = (min(max(0, a - side // 2), full - side) for a, side, full in zip(at, sides, (width, height), strict=True))
    return rgb[..., top : top + sides[1], left : left + sides[0]], (left, top)


@dataclass(frozen=True, kw_only=True)
class LamOptions:
    """`at` is (x, y) in the source's pixels, None the middle; `window` a side in the result's pixels; `context` one in the source's."""

    at: tuple[int, int] | None = None
    window: int = 16
    context: int = 64
    time: Fraction | None = None
    steps: int = STEPS


def lam_of_frame(rgb: Tensor, model: A2N, options: LamOptions) -> LocalAttribution:
    """The attribution of a window around a pixel of a frame (1, 3, H, W). OptionError where pixel or window lies outside.

    The crop is a frame of its own to the network, as in the paper: its blocks' weights are the crop's, not the whole frame's.
    """
    at = options.at or (rgb.shape[-1] // 2, rgb.shape[-2] // 2)
    crop, (left, top) = crop_around(rgb, at, options.context)
    scale, side = model.config.scale, options.window
    if not 2 <= side <= scale * min(crop.shape[-2:]):
        raise OptionError(f"--window {side} is not between 2 and {scale * min(crop.shape[-2:])}, the result's side")
    place = [
        min(max(0, scale * (a - start) + scale // 2 - side // 2), scale * full - side)
        for a, start, full in zip(at, (left, top), (crop.shape[-1], crop.shape[-2]), strict=True)
    ]
    device = next(model.parameters()).device
    network = model if crop.shape[-1] * crop.shape[-2] <= LARGE else recomputed(model)
    return local_attribution(network, crop.contiguous().to(device), (place[0], place[1], side), steps=options.steps)


def recomputed(model: A2N) -> Network:
    """The same network, keeping one map a block for gradients and computing the rest again: less memory, about a third more time."""

    def network(x: Tensor) -> Tensor:
        first = model.conv_first(x)
        features = first
        for block in model.AAB_trunk:
            features = checkpoint(block, features, use_reentrant=False)
        result: Tensor = checkpoint(model.upsample, first + model.trunk_conv(features), use_reentrant=False)
        return result + model.skip(x)

    return network


def lam_report(source: Path, model: A2N, out: Path, options: LamOptions) -> LocalAttribution:
    """Draw the attribution of a window of a frame, upright."""
    shot = shot_of(source, options.time)
    found = lam_of_frame(shot.rgb, model, options)
    plots.save(lam_figure(found, source.name, shot.shown), out)
    return found


def lam_figure(found: LocalAttribution, title: str, shown: Shown) -> Figure:
    """Source crop, result, heat map and contribution area side by side, the window framed in each."""
    source, result, strength = (shown.upright(picture) for picture in (found.source, found.result, found.strength))
    height, width = strength.shape
    figure = plots.new_figure(13.6, 3.05 * shown.aspect * height / width + 0.95)
    plots.headline(figure, f"Where a window of the result looks: {title}, diffusion index {found.diffusion:.2f}")
    axes = list(figure.subplots(1, 4))
    area = contribution_area(strength)
    plots.show(axes[0], source, f"source crop, {width}x{height}", aspect=shown.aspect)
    plots.show(axes[1], result, f"result, window {found.window[2]}x{found.window[2]}", aspect=shown.aspect)
    heat = heat_map(axes[2], source, strength, shown.aspect)
    text = f"{HELD:.0%} comes from {int(area.sum())} pixels ({area.mean():.1%})"
    plots.show(axes[3], plots.marked(source, area, (214, 64, 32)), text, aspect=shown.aspect)
    bar = plots.color_bar(figure, heat, axes, "share of the strongest", location="right", shrink=0.85, aspect=30, pad=0.01)
    bar.set_ticks(range(-MAGNITUDES, 1), labels=[f"{10.0**tick:g}" for tick in range(-MAGNITUDES, 1)])
    left, top, side = found.window
    box = shown.box((left, top, side, side), (found.result.shape[1], found.result.shape[0]))
    for place, factor in zip(axes, (found.scale, 1, found.scale, found.scale), strict=True):
        plots.frame_of(place, *(value / factor for value in box))
    return figure


def heat_map(axes: Axes, source: Image, strength: Floats, aspect: float) -> Any:
    """The attribution over the grey source. Strengths span magnitudes: a logarithm shows the weak ones, which make the range."""
    plots.show_gray(axes, source, aspect)
    share = strength / max(float(strength.max()), 1e-30)
    least = 10.0**-MAGNITUDES
    heat = np.ma.masked_where(share < least, np.log10(np.maximum(share, least)))
    settings = {"cmap": plots.DARK_TO_BRIGHT, "vmin": -MAGNITUDES, "vmax": 0, "alpha": 0.9, "aspect": aspect}
    return plots.show(axes, heat, "attribution of each pixel", **settings)
