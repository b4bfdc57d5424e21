"""One frame as nearest, bicubic and one or more networks show it, side by side: what to expect before hours are spent."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from a2n_video.engine.resize import resize
from a2n_video.errors import OptionError
from a2n_video.frames import VideoFrameAdapter
from a2n_video.io.fitting import Fit, fitted
from a2n_video.io.rgb import Image, rgb_of
from a2n_video.job.planning.picture import full_layout, settle_size
from a2n_video.media.pixfmt import pix_fmt_of
from a2n_video.media.size import PictureSize
from a2n_video.net.catalog import resolve_model
from a2n_video.options import JobOptions, ModelOptions
from a2n_video.tools import plots
from a2n_video.tools.footage import Footage
from a2n_video.tools.images import JPEG_SUFFIXES, display_size, encoded, to_image
from a2n_video.tools.results import check_output, write_file
from a2n_video.upscaler import Upscaler

if TYPE_CHECKING:
    import av

CROP: Final = (320, 240)  # of the source, where none was asked for
PANEL: Final = 400  # panels narrower than half of this are shown with every pixel as a square of several
GAP: Final = 6  # pixels between panels
LABEL: Final = 30  # least height of the line with a panel's name
LABELS_WIDE: Final = 14  # a panel is at most that many of these heights wide: wide pictures are looked at made small
PAPER: Final = 255
INK: Final = 40
_CROP: Final = re.compile(r"(\d+)x(\d+)(?:\+(\d+)\+(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of the source's frame, in its pixels; without a place it is put where the frame has most detail."""

    width: int
    height: int
    place: tuple[int, int] | None = None  # (left, top)

    @classmethod
    def parse(cls, text: str) -> Crop:
        """WxH or WxH+X+Y; OptionError for anything else."""
        match = _CROP.fullmatch(text)
        if match is None or 0 in (int(match[1]), int(match[2])):
            raise OptionError(f"--crop {text!r}: write WxH or WxH+X+Y, such as 320x240+100+60")
        place = (int(match[3]), int(match[4])) if match[3] is not None else None
        return cls(width=int(match[1]), height=int(match[2]), place=place)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A settled part of a frame, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def within(self, source: tuple[int, int], size: tuple[int, int]) -> Window:
        """The same part of a picture of another size (width, height), in whole pixels."""
        across, down = (Fraction(new, old) for new, old in zip(size, source, strict=True))
        width, height = max(1, round(across * self.width)), max(1, round(down * self.height))
        left, top = min(round(across * self.left), size[0] - width), min(round(down * self.top), size[1] - height)
        return Window(left=left, top=top, width=width, height=height)

    def of(self, rgb: Tensor) -> Tensor:
        """This part of a frame (1, 3, H, W)."""
        return rgb[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """What to show. `models` None shows that of `job` alone; `at` None is the middle of the video. Of the job's options count the
    network's, --size, --deinterlace and --overwrite.
    """

    job: JobOptions
    models: tuple[str, ...] | None = None
    at: Fraction | None = None
    crop: Crop | None = None


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What was drawn: the labels from left to right, the part of the source, the time in seconds from the first frame."""

    path: Path
    labels: tuple[str, ...]
    window: Window
    time: Fraction
    named: bool

    @property
    def summary(self) -> str:
        w = self.window
        where = f"{w.width}x{w.height}+{w.left}+{w.top} of the source at {float(self.time):.3f} s"
        hint = "" if self.named else "; for names in the picture: pip install 'a2n-video[plots]'"
        return f"{self.path}: {' | '.join(self.labels)}; {where}{hint}"


def preview(source: Path, dest: Path, wanted: PreviewOptions) -> Preview:
    """Draw a preview into a PNG or JPEG: panels at the right aspect and rotation, each under its name.

    Networks see the whole frame, deinterlaced as in a job (their weights depend on all of it), through the same engine. Colours are as
    stored: HDR is not mapped to a screen's. Small crops are shown enlarged, pixel by pixel. Without matplotlib there are no names in the
    picture.
    """
    if wanted.job.execution.sandbox:
        raise OptionError("--sandbox guards jobs from file to file; leave it out, or look at frames of a job with --start and --frames")
    check_output(dest, (".png", *JPEG_SUFFIXES), [source], overwrite=wanted.job.execution.overwrite)
    footage = Footage.open(source, wanted.job.fidelity.deinterlace)
    at = wanted.at if wanted.at is not None else footage.seconds / 2
    frame = footage.frame(at)
    rgb = rgb_of(frame)
    window = settle(wanted.crop, rgb)
    results = enlarged(frame, footage, wanted)
    size = results[0].size
    there = window.within((footage.info.width, footage.info.height), (size.width, size.height))
    width, height = display_size(there.width, there.height, size.sar)
    part = window.of(rgb)
    panels = {
        "source (nearest)": F.interpolate(part, (height, width), mode="nearest-exact"),
        "bicubic": resize(part, height, width),
        **{f"{each.name} x{each.scale}": resize(there.of(each.rgb), height, width) for each in results},
    }
    images = {name: pixels_shown(footage.shown.upright(to_image(panel))) for name, panel in panels.items()}
    picture, named = side_by_side(images)
    write_file(dest, encoded(picture, dest.suffix))
    return Preview(path=dest, labels=tuple(images), window=window, time=footage.time_of(frame), named=named)


def pixels_shown(image: Image) -> Image:
    """The picture, with each pixel as a square of several where it is so narrow that little could be seen."""
    zoom = max(1, PANEL // image.shape[1])
    return image.repeat(zoom, 0).repeat(zoom, 1)


def settle(crop: Crop | None, rgb: Tensor) -> Window:
    """The crop as a window inside the frame: an OptionError where it does not fit."""
    height, width = rgb.shape[-2:]
    if crop is None:
        crop = Crop(width=min(CROP[0], width), height=min(CROP[1], height))
    left, top = crop.place or (0, 0)
    if left + crop.width > width or top + crop.height > height:
        raise OptionError(f"--crop {crop.width}x{crop.height}+{left}+{top} does not fit into the frame, which is {width}x{height}")
    if crop.place is None:
        left, top = most_detail(rgb, crop)
    return Window(left=left, top=top, width=crop.width, height=crop.height)


def most_detail(rgb: Tensor, crop: Crop) -> tuple[int, int]:
    """(left, top), in steps of 8, of the part with the greatest sum of steps between neighbouring pixels."""
    grey = rgb.mean(dim=1, keepdim=True).clamp(0, 1)
    detail = F.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1)) + F.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1))
    sums = F.avg_pool2d(detail, (crop.height, crop.width), stride=8)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return 8 * column, 8 * row


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """A whole frame as the job would make it with one network: of that `size`."""

    name: str
    scale: int
    size: PictureSize
    rgb: Tensor


def enlarged(frame: av.VideoFrame, footage: Footage, wanted: PreviewOptions) -> list[Enlarged]:
    """The frame through each model, in its own engine, one after the other."""
    options = wanted.job.model
    if wanted.models is not None and options.weights is not None:
        raise OptionError("--models and --weights do not go together; a weights file stands for one model")
    results = []
    for model in wanted.models or (options.model,):
        scale, size = settle_size(footage.info, wanted.job.with_changes(model=model))
        name = Path(options.weights).stem if options.weights is not None else resolve_model(model, scale)
        made = upscaled(frame, replace(options, model=model, scale=scale), size)
        results.append(Enlarged(name=name, scale=scale, size=size, rgb=rgb_of(made)))
    return results


def upscaled(frame: av.VideoFrame, options: ModelOptions, size: PictureSize) -> av.VideoFrame:
    """A frame in its own layout as the job would make it: larger by the options' scale, then brought to `size`."""
    fmt, color = VideoFrameAdapter().describe(frame)
    target = replace(fmt, width=size.width, height=size.height)
    resized = target != fmt.scaled(options.scale)
    with Upscaler.from_options(options, layout=full_layout(fmt, alpha=fmt.alpha) if resized else None) as upscaler:
        (made,) = fitted(upscaler.upscale_frames([frame]), Fit(target=target, color=color, pix_fmt=pix_fmt_of(target)))
    return made


def side_by_side(images: dict[str, Image]) -> tuple[Image, bool]:
    """Pictures of one size next to one another on white, each under its name; False where matplotlib is missing, and the names with it."""
    pictures = list(images.values())
    height, width, _ = pictures[0].shape
    label = max(LABEL, width // LABELS_WIDE)
    lines = [plots.words(name, label) for name in images]
    named = all(line is not None for line in lines)
    above = label if named else 0
    canvas = np.full((above + height, len(pictures) * (width + GAP) - GAP, 3), PAPER, np.uint8)
    for index, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        left = index * (width + GAP)
        canvas[above:, left : left + width] = picture
        if line is not None:
            cover = line[:, :width, None]
            target = canvas[:label, left : left + cover.shape[1]]
            target[...] = (target * (1 - cover) + INK * cover).round().astype(np.uint8)
    return canvas, named
