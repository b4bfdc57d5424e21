"""The only place that imports matplotlib: one design for all figures, drawn without a screen; and words drawn onto pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from a2n_video.errors import MissingDependencyError
from a2n_video.io.rgb import Image
from a2n_video.tools.images import JPEG_QUALITY
from a2n_video.tools.results import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI: Final = 110
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
# Sizes in points, readable where a page shows the figure at two thirds of its size.
TITLE: Final = 14
HEADING: Final = 11.5
TEXT: Final = 10
FINEST: Final = 640  # columns a picture in a figure keeps at least; far more would only cost time
INK: Final = "#1c2733"
ATTENTION: Final = "#c8502d"
OTHER: Final = "#3a6ea5"
THIRD: Final = "#e0a030"
# Lightness rises all along both maps, so they read on paper without colour too.
COLD_TO_WARM: Final = "cividis"
DARK_TO_BRIGHT: Final = "inferno"
_MISSING: Final = "plots need matplotlib, which is not installed; get it with: pip install 'a2n-video[plots]'"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, saved by `save`. MissingDependencyError without matplotlib: ask for one before long work."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(_MISSING) from error
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that its name says, one of SUFFIXES."""
    buffer = io.BytesIO()
    kind = path.suffix.lower().lstrip(".")
    settings: dict[str, Any] = {"pil_kwargs": {"quality": JPEG_QUALITY}} if kind in ("jpg", "jpeg") else {}
    figure.savefig(buffer, format=kind, dpi=DPI, **settings)
    write_file(path, buffer.getvalue())


def headline(figure: Figure, text: str) -> None:
    """The figure's title."""
    figure.suptitle(text, fontsize=TITLE, color=INK)


def show(axes: Axes, image: Any, title: str, **settings: Any) -> Any:
    """A picture without ticks under a short title; gives what a colour bar wants. Places on it stay pixels of the whole picture."""
    height, width = image.shape[:2]
    step = max(1, width // FINEST)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    drawn = axes.imshow(image[::step, ::step], extent=extent, **{"interpolation": "nearest", **settings})
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=TEXT, color=INK)
    return drawn


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axis names of a plot, with the lines that carry nothing taken away."""
    axes.set_title(title, fontsize=HEADING, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def color_bar(figure: Figure, drawn: Any, axes: Any, label: str, **settings: Any) -> Any:
    """A colour bar beside or below axes, named."""
    bar = figure.colorbar(drawn, ax=axes, **settings)
    bar.set_label(label, fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    return bar


def words(text: str, height: int) -> NDArray[np.float32] | None:
    """The text's coverage, (height, width) in 0..1, in DejaVu Sans; None where matplotlib is not installed."""
    try:
        from matplotlib import font_manager, ft2font
    except ImportError:
        return None
    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(0.62 * height, 72)
    font.set_text(text)
    font.draw_glyphs_to_bitmap(antialiased=True)
    drawn = np.asarray(font.get_image())
    # One baseline for all labels, whatever their letters reach.
    top = max(0, round(0.74 * height) - (drawn.shape[0] - round(font.get_descent() / 64)))
    kept = drawn[: height - top]
    result = np.zeros((height, drawn.shape[1] + height // 4), np.float32)
    result[top : top + kept.shape[0], height // 4 :] = kept / 255
    return result


def show_gray(axes: Axes, image: Image, aspect: float) -> None:
    """A faint grey picture to lay colours on."""
    show(axes, gray(image), "", cmap="gray", vmin=0, vmax=1, aspect=aspect)


def gray(image: Image) -> NDArray[np.float32]:
    """A picture as faint grey, (H, W) in 0..1."""
    return np.asarray(0.35 + 0.65 * image.astype(np.float32).mean(axis=2) / 255, np.float32)


def marked(image: Image, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Image:
    """The picture in faint grey with some pixels in a colour."""
    grey = np.repeat((255 * gray(image)).astype(np.uint8)[:, :, None], 3, axis=2)
    grey[mask] = colour
    return grey


def frame_of(axes: Axes, left: float, top: float, width: float, height: float) -> None:
    """A frame around pixels of a picture that is drawn on these axes."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor="#20e0d0", linewidth=1.8))
