"""What the attention does: maps and weights of every block, seen through hooks that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from a2n_video.io.rgb import Image
from a2n_video.io.sequences import is_picture
from a2n_video.net.model import A2N, AttentionInAttentionBlock
from a2n_video.tools import plots
from a2n_video.tools.footage import Footage, Shot, shot_of
from a2n_video.tools.results import write_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Map = NDArray[np.float32]
COLUMNS: Final = MappingProxyType(
    {
        "frame": "number, from 0",
        "time_s": "seconds from the first frame",
        "block": "1 and up, or head 1, head 2",
        "attention_weight": "the dropout module's, 0 to 1; empty for the head, which has none",
        "non_attention_weight": "1 less that",
        "map_mean": "of the pixel attention, mean over channels, 0 to 1",
        "map_lowest": "the same of its lowest pixel",
        "map_highest": "the same of its highest pixel",
    }
)
TILES_ACROSS: Final = 4
# Inches: a tile across, the bars' height, the key's where it has a row of its own.
TILE: Final = 3.1
BARS: Final = 2.1
KEY: Final = 1.5
EXTREME: Final = 0.05  # share of a frame's pixels that is marked as most enhanced, and as most suppressed
SPREAD: Final = 2.5  # heat maps reach this many standard deviations from their mean


@dataclass
class BlockView:
    """One attention of the network on one frame.

    `map` is the pixel attention, mean over channels, (H, W) in 0..1 (at the result's size for the head's). `weights` are the dropout
    module's for (attention, non-attention), which sum to 1; the head has none.
    """

    name: str
    map: Map = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    weights: tuple[float, float] | None = None


@contextmanager
def observed(model: A2N) -> Iterator[list[BlockView]]:
    """Views of every block, then the head's, filled by each frame (batch of 1) that passes; outputs stay bit-equal.

    Only the mean over channels is kept: one plane a block. The hooks are gone when the `with` ends.
    """
    views: list[BlockView] = []
    handles = []
    for number, block in enumerate(model.AAB_trunk, 1):
        assert isinstance(block, AttentionInAttentionBlock)
        view = BlockView(str(number))
        views.append(view)
        handles.append(block.ADM.register_forward_hook(_keep_weights(view, block.temperature)))
        handles.append(block.attention.k2.register_forward_hook(_keep_map(view)))
    for name in ("att1", "att2"):
        if hasattr(model, name):
            view = BlockView(f"head {name[-1]}")
            views.append(view)
            handles.append(getattr(model, name).conv.register_forward_hook(_keep_map(view)))
    try:
        yield views
    finally:
        for handle in handles:
            handle.remove()


def _keep_map(view: BlockView) -> Any:
    def hook(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        view.map = torch.sigmoid(logits.detach().float()).mean(dim=1)[0].cpu().numpy()

    return hook


def _keep_weights(view: BlockView, temperature: float) -> Any:
    def hook(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        attention, other = torch.softmax(logits.detach()[0].float() / temperature, dim=0).tolist()
        view.weights = (attention, other)

    return hook


@torch.inference_mode()
def look(model: A2N, rgb: Tensor) -> list[BlockView]:
    """All attentions on one frame, RGB (1, 3, H, W) in 0..1."""
    with observed(model) as views:
        model(rgb.to(next(model.parameters()).device))
    return views


def rows_of(number: int, time: Fraction, views: list[BlockView]) -> list[tuple[Any, ...]]:
    """Lines of the CSV for one frame; see COLUMNS."""
    return [
        (number, float(time), view.name, *(view.weights or (None, None)), *(float(f(view.map)) for f in (np.mean, np.min, np.max)))
        for view in views
    ]


def attention_report(source: Path, model: A2N, out: Path, at: Fraction | None, frames: int) -> list[Path]:
    """Write the sheet of one frame and its CSV; for a video also the course over `frames` evenly spread frames. Gives what was written."""
    shot = shot_of(source, at)
    views = look(model, shot.rgb)
    still = is_picture(source)
    plots.save(sheet(shot, views, source.name if still else f"{source.name} at {float(shot.time):.2f} s"), out)
    table = out.with_suffix(".csv")
    if still:
        write_rows(table, COLUMNS, rows_of(0, Fraction(0), views))
        return [out, table]
    rows = [row for seen in Footage.open(source).spread(frames) for row in rows_of(seen.number, seen.time, look(model, seen.rgb))]
    write_rows(table, COLUMNS, rows)
    drawn = out.with_stem(f"{out.stem}-course")
    plots.save(course_figure(rows, source.name), drawn)
    return [out, drawn, table]


def sheet(shot: Shot, views: list[BlockView], title: str) -> Figure:
    """The labelled sheet: the frame, where attention is strongest and weakest, the dropout module's weights, and a heat map a block."""
    image = shot.image
    views = [replace(view, map=shot.shown.upright(view.map)) for view in views]
    blocks = [view for view in views if view.weights]
    rows = -(-(len(views) + 1) // TILES_ACROSS)  # one place more, for the colour bar
    tile = TILE * shot.shown.aspect * image.shape[0] / image.shape[1] + 0.35
    heights = [tile, BARS, *[tile] * (rows - 1), tile if len(views) % TILES_ACROSS else KEY]
    figure = plots.new_figure(TILE * TILES_ACROSS, sum(heights) + 0.6)
    plots.headline(figure, f"Attention of {len(blocks)} blocks: {title}")
    grid = figure.add_gridspec(rows + 2, TILES_ACROSS, height_ratios=heights)
    overview(figure, grid, image, blocks, shot.shown.aspect)
    bars(figure.add_subplot(grid[1, :]), blocks)
    means = [float(view.map.mean()) for view in blocks]
    marks = {blocks[int(np.argmax(means))].name: "highest mean", blocks[int(np.argmin(means))].name: "lowest mean"}
    places = [(2 + index // TILES_ACROSS, index % TILES_ACROSS) for index in range(rows * TILES_ACROSS)]
    drawn: Any = None
    for view, place in zip(views, places, strict=False):
        drawn = heat(figure.add_subplot(grid[place]), image, view, marks.get(view.name), aspect=shot.shown.aspect)
    row, column = places[len(views)]
    key(figure.add_subplot(grid[row, column:]), drawn)
    return figure


def standardised(view: BlockView) -> Map:
    """The map as standard deviations from its mean; a flat map is 0 everywhere."""
    deviation = float(view.map.std())
    return (view.map - view.map.mean()) / deviation if deviation > 1e-7 else np.zeros_like(view.map)


def heat(axes: Axes, image: Image, view: BlockView, mark: str | None, *, aspect: float) -> Any:
    """One tile: the standardised map over the grey frame; the highest and lowest block say so and carry a coloured frame."""
    factor = view.map.shape[0] // image.shape[0]
    plots.show_gray(axes, image, aspect)
    what = f"block {view.name}" if view.weights else view.name
    title = f"{what}: {view.map.mean():.2f} ({view.map.min():.2f} to {view.map.max():.2f})"
    settings = {"cmap": plots.COLD_TO_WARM, "vmin": -SPREAD, "vmax": SPREAD, "alpha": 0.82, "aspect": aspect}
    drawn = plots.show(axes, standardised(view)[::factor, ::factor], title, **settings)
    if mark:
        colour = plots.ATTENTION if mark.startswith("high") else plots.OTHER
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)
        box = {"facecolor": colour, "edgecolor": "none", "pad": 2.5}
        axes.text(0.985, 0.97, mark, transform=axes.transAxes, ha="right", va="top", fontsize=plots.TEXT, color="white", bbox=box)
    return drawn


def key(axes: Axes, drawn: Any) -> None:
    """What the tiles' titles and colours say, in the place after the last of them."""
    axes.set_axis_off()
    bar = axes.inset_axes((0.06, 0.62, 0.88, 0.09))
    axes.figure.colorbar(drawn, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=plots.TEXT)
    bar.set_title("standard deviations from the map's mean", fontsize=plots.TEXT, color=plots.INK)
    text = "below 0 suppressed, above 0 enhanced\ntitles: mean (lowest to highest pixel)"
    axes.text(0.5, 0.36, text, transform=axes.transAxes, ha="center", va="top", fontsize=plots.TEXT, color=plots.INK)


def overview(figure: Figure, grid: Any, image: Image, blocks: list[BlockView], aspect: float) -> None:
    """The top row: the frame, the mean of all blocks' maps, and where that is highest and lowest."""
    mean = np.mean([standardised(view) for view in blocks], axis=0)
    high, low = np.quantile(mean, 1 - EXTREME), np.quantile(mean, EXTREME)
    axes = [figure.add_subplot(grid[0, column]) for column in range(TILES_ACROSS)]
    plots.show(axes[0], image, "the frame", aspect=aspect)
    plots.show(axes[1], mean, "mean of the blocks' maps", cmap=plots.COLD_TO_WARM, aspect=aspect)
    plots.show(axes[2], plots.marked(image, mean >= high, (214, 64, 32)), f"most enhanced {EXTREME:.0%} of pixels", aspect=aspect)
    plots.show(axes[3], plots.marked(image, mean <= low, (32, 92, 200)), f"most suppressed {EXTREME:.0%} of pixels", aspect=aspect)


def bars(axes: Axes, blocks: list[BlockView]) -> None:
    """The dropout module's two weights of each block, on one another: they sum to 1."""
    weights = np.array([view.weights for view in blocks])
    place = np.arange(len(blocks))
    axes.bar(place, weights[:, 0], 0.7, color=plots.ATTENTION, label="attention branch")
    axes.bar(place, weights[:, 1], 0.7, bottom=weights[:, 0], color=plots.OTHER, alpha=0.55, label="non-attention branch")
    axes.axhline(0.5, color=plots.INK, linewidth=0.8, linestyle=":")
    for x, (ours, other) in enumerate(weights.tolist()):
        axes.text(x, ours / 2, f"{ours:.2f}", ha="center", va="center", fontsize=plots.TEXT, color="white")
        axes.text(x, ours + other / 2, f"{other:.2f}", ha="center", va="center", fontsize=plots.TEXT, color=plots.INK)
    axes.set_xticks(place, [view.name for view in blocks])
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=plots.TEXT, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    plots.tidy(axes, "attention dropout module: the two weights of each block", "block", "weight")


def course_figure(rows: list[tuple[Any, ...]], title: str) -> Figure:
    """The dropout module's attention weight over time: a line for the mean, and for each block a strip of its changes."""
    rows = [row for row in rows if row[3] is not None]
    names = list(dict.fromkeys(row[2] for row in rows))
    times = list(dict.fromkeys(row[1] for row in rows))
    weights = np.array([row[3] for row in rows]).reshape(len(times), len(names)).T
    figure = plots.new_figure(10, 3.1 + 0.28 * len(names))
    plots.headline(figure, f"Weight of the attention branch over time: {title}")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 0.28 * len(names) + 0.3])
    top.fill_between(times, weights.min(axis=0), weights.max(axis=0), color=plots.ATTENTION, alpha=0.15, label="lowest to highest block")
    top.plot(times, weights.mean(axis=0), color=plots.ATTENTION, label="mean of the blocks")
    top.legend(fontsize=plots.TEXT, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    plots.tidy(top, "all blocks", "", "weight")
    edges = [*times, times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1)]
    means = weights.mean(axis=1, keepdims=True)
    reach = max(0.002, float(np.abs(weights - means).max()))
    colours: dict[str, Any] = {"cmap": plots.COLD_TO_WARM, "vmin": -reach, "vmax": reach}
    drawn = below.pcolormesh(edges, np.arange(len(names) + 1), weights - means, **colours)
    below.set_yticks(np.arange(len(names)) + 0.5, [f"{name}: {mean:.2f}" for name, mean in zip(names, means[:, 0], strict=True)])
    below.invert_yaxis()
    plots.tidy(below, "each block: its mean weight, and how it changes", "seconds", "block")
    plots.color_bar(figure, drawn, below, "change from the block's own mean", location="bottom", shrink=0.6, aspect=50)
    return figure
