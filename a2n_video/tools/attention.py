"""What the attention does: maps and weights of every block, seen through hooks that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from a2n_video.net.model import A2N, AttentionInAttentionBlock
from a2n_video.tools import plots
from a2n_video.tools.picture import Footage, Image, is_picture, shot_of, to_image, write_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Map = NDArray[np.float32]
COLUMNS: Final = ("frame", "time_s", "block", "attention_weight", "non_attention_weight", "map_mean", "map_lowest", "map_highest")
TILES_ACROSS: Final = 4
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
    plots.save(sheet(to_image(shot.rgb), views, source.name if is_picture(source) else f"{source.name} at {float(shot.time):.2f} s"), out)
    table = out.with_suffix(".csv")
    if is_picture(source):
        write_rows(table, COLUMNS, rows_of(0, Fraction(0), views))
        return [out, table]
    rows = [row for number, time, seen in course(Footage.open(source), model, frames) for row in rows_of(number, time, seen)]
    write_rows(table, COLUMNS, rows)
    drawn = out.with_name(f"{out.stem}-course.png")
    plots.save(course_figure(rows, source.name), drawn)
    return [out, drawn, table]


def course(source: Footage, model: A2N, frames: int) -> Iterator[tuple[int, Fraction, list[BlockView]]]:
    """(frame number, seconds, views) of about `frames` frames, evenly spread over the video."""
    step = max(1, source.time_map.frames // frames)
    for shot in source.shots():
        if shot.number % step == 0:
            yield shot.number, shot.time, look(model, shot.rgb)


def sheet(image: Image, views: list[BlockView], title: str) -> Figure:
    """The labelled sheet: the frame, where attention is strongest and weakest, the dropout module's weights, and a heat map a block."""
    blocks = [view for view in views if view.weights]
    rows = -(-len(views) // TILES_ACROSS)
    tile = 3.1 * image.shape[0] / image.shape[1] + 0.3
    figure = plots.new_figure(3.1 * TILES_ACROSS, tile * (rows + 1) + 2.6)
    figure.suptitle(f"Attention of {len(blocks)} blocks: {title}", fontsize=12, color=plots.INK)
    grid = figure.add_gridspec(rows + 2, TILES_ACROSS, height_ratios=[tile, 2.1, *[tile] * rows])
    overview(figure, grid, image, blocks)
    bars(figure.add_subplot(grid[1, :]), blocks)
    means = [float(view.map.mean()) for view in blocks]
    marks = {blocks[int(np.argmax(means))].name: "highest mean", blocks[int(np.argmin(means))].name: "lowest mean"}
    drawn: Any = None
    tiles = []
    for index, view in enumerate(views):
        axes = figure.add_subplot(grid[2 + index // TILES_ACROSS, index % TILES_ACROSS])
        drawn = heat(axes, image, view, marks.get(view.name))
        tiles.append(axes)
    bar = figure.colorbar(drawn, ax=tiles, location="bottom", shrink=0.5, aspect=50, pad=0.01)
    bar.set_label("suppressed  <  the map's own mean, in standard deviations  >  enhanced", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    return figure


def standardised(view: BlockView) -> Map:
    """The map as standard deviations from its mean; a flat map is 0 everywhere."""
    deviation = float(view.map.std())
    return (view.map - view.map.mean()) / deviation if deviation > 1e-7 else np.zeros_like(view.map)


def heat(axes: Axes, image: Image, view: BlockView, mark: str | None) -> Any:
    """One tile: the standardised map over the grey frame; the highest and lowest block carry a coloured frame."""
    factor = view.map.shape[0] // image.shape[0]
    axes.imshow(plots.gray(image), cmap="gray", vmin=0, vmax=1)
    what = f"block {view.name}" if view.weights else view.name
    title = f"{what}: mean {view.map.mean():.3f}, {view.map.min():.2f} to {view.map.max():.2f}"
    shown = standardised(view)[::factor, ::factor]
    drawn = plots.show(axes, shown, f"{title} ({mark})" if mark else title, cmap="coolwarm", vmin=-SPREAD, vmax=SPREAD, alpha=0.78)
    if mark:
        for spine in axes.spines.values():
            spine.set(color=plots.ATTENTION if mark.startswith("high") else plots.OTHER, linewidth=3)
    return drawn


def overview(figure: Figure, grid: Any, image: Image, blocks: list[BlockView]) -> None:
    """The top row: the frame, the mean of all blocks' maps, and where that is highest and lowest."""
    mean = np.mean([standardised(view) for view in blocks], axis=0)
    high, low = np.quantile(mean, 1 - EXTREME), np.quantile(mean, EXTREME)
    axes = [figure.add_subplot(grid[0, column]) for column in range(TILES_ACROSS)]
    plots.show(axes[0], image, "the frame")
    plots.show(axes[1], mean, "mean of the blocks' maps", cmap="magma")
    plots.show(axes[2], marked(image, mean >= high, (214, 64, 32)), f"most enhanced {EXTREME:.0%} of pixels")
    plots.show(axes[3], marked(image, mean <= low, (32, 92, 200)), f"most suppressed {EXTREME:.0%} of pixels")


def marked(image: Image, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Image:
    """The frame in faint grey with some pixels in a colour."""
    grey = np.repeat(plots.gray(image)[:, :, None] * 255, 3, axis=2).astype(np.uint8)
    grey[mask] = colour
    return grey


def bars(axes: Axes, blocks: list[BlockView]) -> None:
    """The dropout module's two weights of each block, on one another: they sum to 1."""
    weights = np.array([view.weights for view in blocks])
    place = np.arange(len(blocks))
    axes.bar(place, weights[:, 0], 0.7, color=plots.ATTENTION, label="attention branch")
    axes.bar(place, weights[:, 1], 0.7, bottom=weights[:, 0], color=plots.OTHER, alpha=0.55, label="non-attention branch")
    axes.axhline(0.5, color=plots.INK, linewidth=0.8, linestyle=":")
    for x, weight in enumerate(weights[:, 0].tolist()):
        axes.text(x, weight / 2, f"{weight:.2f}", ha="center", va="center", fontsize=8, color="white")
    axes.set_xticks(place, [view.name for view in blocks])
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.22), frameon=False)
    plots.tidy(axes, "attention dropout module: weight of each branch", "block", "weight")


def course_figure(rows: list[tuple[Any, ...]], title: str) -> Figure:
    """The dropout module's attention weight over time: a line for the mean, and a strip a block."""
    rows = [row for row in rows if row[3] is not None]
    names = list(dict.fromkeys(row[2] for row in rows))
    times = list(dict.fromkeys(row[1] for row in rows))
    weights = np.array([row[3] for row in rows]).reshape(len(times), len(names)).T
    figure = plots.new_figure(9, 2.6 + 0.26 * len(names))
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 0.26 * len(names) + 0.4])
    top.fill_between(times, weights.min(axis=0), weights.max(axis=0), color=plots.ATTENTION, alpha=0.15, label="lowest to highest block")
    top.plot(times, weights.mean(axis=0), color=plots.ATTENTION, label="mean of the blocks")
    top.legend(fontsize=8, frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.25))
    plots.tidy(top, f"attention weight over time: {title}", "", "weight")
    edges = [*times, times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1)]
    reach = max(0.01, float(np.abs(weights - 0.5).max()))
    drawn = below.pcolormesh(edges, np.arange(len(names) + 1), weights, cmap="coolwarm", vmin=0.5 - reach, vmax=0.5 + reach)
    below.set_yticks(np.arange(len(names)) + 0.5, names)
    below.invert_yaxis()
    plots.tidy(below, "", "seconds", "block")
    bar = figure.colorbar(drawn, ax=below, location="bottom", shrink=0.5, aspect=50, pad=0.02)
    bar.set_label("weight of the attention branch", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    return figure
