"""What each block's attention contributes: switched off in turn, measured on pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from a2n_video.engine.resize import resize
from a2n_video.errors import InputError
from a2n_video.io.sequences import is_picture
from a2n_video.net.model import A2N, AttentionInAttentionBlock
from a2n_video.tools import plots
from a2n_video.tools.footage import shot_of
from a2n_video.tools.metrics import check_measurable, psnr_y
from a2n_video.tools.results import write_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS: Final = MappingProxyType(
    {
        "block": "1 and up, or all",
        "switched_off": "nothing (the whole network), branch, map or other",
        "pictures": "count",
        "psnr_db": "on luma, dB, mean over the pictures",
        "change_db": "against the whole network, dB, mean over the pictures",
        "change_lowest_db": "the same of the picture that loses most",
        "change_highest_db": "the same of the picture that loses least",
    }
)
Hook = Callable[[nn.Module, Any, Tensor], Tensor]


def _nothing(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
    return torch.zeros_like(out)


def _flat(_module: nn.Module, _inputs: object, logits: Tensor) -> Tensor:
    """Logits of a map that is everywhere its own mean, channel by channel."""
    return torch.logit(torch.sigmoid(logits).mean(dim=(2, 3), keepdim=True)).expand_as(logits)


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One way of switching something off in a block: which module's output is replaced, and by what."""

    label: str
    module: Callable[[AttentionInAttentionBlock], nn.Module]
    hook: Hook
    color: str


SWITCHES: Final[Mapping[str, Switch]] = MappingProxyType(
    {
        "branch": Switch(label="attention branch off: it adds nothing", module=lambda b: b.attention, hook=_nothing, color=plots.ATTENTION),
        "map": Switch(label="attention map off: its mean everywhere", module=lambda b: b.attention.k2, hook=_flat, color=plots.THIRD),
        "other": Switch(
            label="non-attention branch off: it adds nothing", module=lambda b: b.non_attention, hook=_nothing, color=plots.OTHER
        ),
    }
)


@contextmanager
def switched_off(block: AttentionInAttentionBlock, switch: Switch) -> Iterator[None]:
    """The block without what the switch names; the weights of the branches stay as the dropout module gives them."""
    handle = switch.module(block).register_forward_hook(switch.hook)
    try:
        yield
    finally:
        handle.remove()


def pairs(folder: Path, scale: int) -> list[tuple[Tensor, Tensor]]:
    """(small, large) RGB in 0..1 of every picture of a folder, cut to a multiple of the scale, small by MATLAB's bicubic in 8 bits."""
    files = sorted(path for path in folder.glob("*") if is_picture(path))
    if not files:
        raise InputError(f"{folder}: no picture in it, and full-size pictures are needed to measure on")
    result = []
    for path in files:
        large = shot_of(path).rgb
        height, width = (size - size % scale for size in large.shape[-2:])
        check_measurable(path, width, height, scale, window=1)
        large = large[..., :height, :width]
        small = resize(large.double(), height // scale, width // scale)
        result.append((((255 * small).round().clamp(0, 255) / 255).float(), large))
    return result


@torch.inference_mode()
def psnr_of(model: A2N, given: list[tuple[Tensor, Tensor]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """PSNR on luma of each pair, the result in 8 bits, `scale` pixels shaved."""
    device = next(model.parameters()).device
    values = []
    for small, large in given:
        out = (255 * model(small.to(device)).cpu()).round().clamp(0, 255)
        values.append(psnr_y(out, 255 * large, model.config.scale).item())
    return np.array(values)


def ablation(model: A2N, given: list[tuple[Tensor, Tensor]], switches: list[str]) -> list[tuple[Any, ...]]:
    """Lines of the table (COLUMNS): the whole network first, then each block with each switch off, alone."""
    whole = psnr_of(model, given)
    rows: list[tuple[Any, ...]] = [("all", "nothing", len(given), float(whole.mean()), 0.0, 0.0, 0.0)]
    for name in switches:
        for number, block in enumerate(model.AAB_trunk, 1):
            assert isinstance(block, AttentionInAttentionBlock)
            with switched_off(block, SWITCHES[name]):
                change = psnr_of(model, given) - whole
            values = (float(f(change)) for f in (np.mean, np.min, np.max))
            rows.append((number, name, len(given), float((whole + change).mean()), *values))
    return rows


def ablation_report(folder: Path, model: A2N, out: Path, switches: list[str]) -> list[Path]:
    """Measure on a folder of pictures and write chart and table. Gives what was written."""
    rows = ablation(model, pairs(folder, model.config.scale), switches)
    write_rows(out.with_suffix(".csv"), COLUMNS, rows)
    count = rows[0][2]
    plots.save(ablation_figure(rows, f"{folder.resolve().name} ({count} picture{'s' * (count > 1)})"), out)
    return [out, out.with_suffix(".csv")]


def ablation_figure(rows: list[tuple[Any, ...]], title: str) -> Figure:
    """The bar chart: PSNR change of each block, a panel a switch, whiskers from the worst to the best picture."""
    switches = list(dict.fromkeys(row[1] for row in rows[1:]))
    figure = plots.new_figure(11, 1.0 + 2.5 * len(switches))
    plots.headline(figure, f"What a block's attention is worth: {title}, whole network {rows[0][3]:.2f} dB")
    panels = figure.subplots(len(switches), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, switches, strict=True):
        change_bars(axes, [row for row in rows if row[1] == name], SWITCHES[name])
    text = "bars: mean over the pictures; whiskers: from the picture that loses most to the one that loses least"
    figure.supxlabel(text, fontsize=plots.TEXT)
    return figure


def change_bars(axes: Axes, rows: list[tuple[Any, ...]], switch: Switch) -> None:
    """One panel: a bar a block, its value below the lower whisker."""
    change, low, high = (np.array([row[column] for row in rows]) for column in (4, 5, 6))
    place = np.arange(len(rows))
    axes.bar(place, change, 0.7, color=switch.color)
    axes.errorbar(place, change, yerr=[change - low, high - change], fmt="none", ecolor=plots.INK, elinewidth=0.9, capsize=2.5)
    for x, value, end in zip(place, change, low, strict=True):
        settings: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": plots.TEXT - 1}
        axes.annotate(signed(value), (x, min(end, 0)), (0, -3), **settings)
    axes.axhline(0, color=plots.INK, linewidth=0.8)
    axes.margins(x=0.01, y=0.22)
    axes.set_xticks(place, [str(row[0]) for row in rows])
    plots.tidy(axes, switch.label, "block", "PSNR change, dB")


def signed(value: float) -> str:
    """Two digits with a sign; what rounds to nothing has none."""
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "\u2212")
