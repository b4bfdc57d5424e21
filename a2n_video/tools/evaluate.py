"""`python -m a2n_video.tools.evaluate --images DIR | --clips FILE...`: PSNR and SSIM on luma, bicubic beside the models.

Images are made small by antialiased bicubic, enlarged by the model and compared with themselves. Clips are made small, sent
through libx264 at several crf, enlarged, and compared frame by frame; flicker is the mean absolute change between neighbouring
frames of the result less that of the original (above 0: it flickers more).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from a2n_video.engine.protocol import Geometry
from a2n_video.engine.resize import resize
from a2n_video.engine.select import resolve_plan
from a2n_video.errors import InputError, OptionError
from a2n_video.io.chunks import READABLE
from a2n_video.io.rgb import Image, read_rgb
from a2n_video.io.roundtrip import Encoding, through_codec
from a2n_video.io.sequences import is_picture
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat
from a2n_video.options import Dtype, ModelOptions
from a2n_video.tools.metrics import check_measurable, luma, psnr_y, shave, ssim_y
from a2n_video.tools.shell import guarded
from a2n_video.upscaler import Upscaler

PROG: Final = "python -m a2n_video.tools.evaluate"
BICUBIC: Final = "bicubic"
CLIP_FRAMES: Final = 30
MEASURED: Final = (2, 9, 17, 26)  # frames of a clip that are compared
FLICKER_PAIRS: Final = ((9, 10), (17, 18))
CRFS: Final[tuple[int | None, ...]] = (None, 23, 28, 33)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: means over the images of a set, or the measured frames of a clip."""

    model: str
    scale: int
    dtype: str
    set: str
    images: int
    psnr_y: float
    ssim_y: float


@dataclass(frozen=True, kw_only=True)
class ClipRow(Row):
    """A row of a clip: `input` is "clean" or the crf it was encoded at; flicker in 8-bit steps of luma."""

    input: str
    flicker: float


class Enlarger:
    """The model of the options, or bicubic where there are none: (N, 3, h, w) uint8 -> (N, 3, scale*h, scale*w) uint8."""

    def __init__(self, options: ModelOptions | None, scale: int) -> None:
        self.options, self.scale = options, scale
        self.upscaler = Upscaler.from_options(options) if options else None
        self.name, self.dtype = BICUBIC, "float32"
        if options:
            plan = resolve_plan(options, _any_geometry(scale))
            self.name, self.dtype = Path(options.weights).name if options.weights else plan.model, plan.dtype

    def __call__(self, small: Tensor) -> Tensor:
        if self.upscaler is not None:
            return self.upscaler(small)
        large = resize(small.double(), self.scale * small.shape[-2], self.scale * small.shape[-1])
        return to_bytes(large)

    def close(self) -> None:
        if self.upscaler is not None:
            self.upscaler.close()


def _any_geometry(scale: int) -> Geometry:
    fmt = PlaneFormat(width=64, height=64, family="rgb")
    return Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=scale)


def to_bytes(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def to_tensor(images: Sequence[Image]) -> Tensor:
    """RGB images -> (N, 3, H, W) uint8."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def cropped(image: Image, multiple: int) -> Image:
    """Cut to a multiple of `multiple`, at the right and below, as the literature does."""
    height, width = (side - side % multiple for side in image.shape[:2])
    return image[:height, :width]


def shrunk(large: Tensor, scale: int) -> Tensor:
    """Small images by MATLAB's bicubic, rounded to 8 bit."""
    return to_bytes(resize(large.double(), large.shape[-2] // scale, large.shape[-1] // scale))


def image_row(folder: Path, enlarger: Enlarger) -> Row:
    """The means over a folder of pictures. InputError if it holds none, or one too small to measure."""
    scale = enlarger.scale
    paths = sorted(path for path in folder.iterdir() if is_picture(path)) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no folder with pictures in it ({', '.join(sorted(READABLE))})")
    scores = []
    for path in paths:
        picture = cropped(next(read_rgb(path)), scale)
        check_measurable(path, picture.shape[1], picture.shape[0], scale)
        large = to_tensor([picture])
        result = enlarger(shrunk(large, scale))
        scores.append((psnr_y(result, large, scale).item(), ssim_y(result, large, scale).item()))
    psnr, ssim = (math.fsum(column) / len(scores) for column in zip(*scores, strict=True))
    return Row(model=enlarger.name, scale=scale, dtype=enlarger.dtype, set=folder.name, images=len(paths), psnr_y=psnr, ssim_y=ssim)


@dataclass(kw_only=True)
class Clip:
    """The first frames of a clip, and its small ones as they come out of the encoder at each crf."""

    path: Path
    scale: int
    large: list[Image] = field(init=False)
    measured: list[int] = field(init=False)
    pairs: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        # 4:2:0 halves the small frame once more.
        self.large = [cropped(image, 2 * self.scale) for image in islice(read_rgb(self.path), CLIP_FRAMES)]
        self.measured = [index for index in MEASURED if index < len(self.large)]
        self.pairs = [pair for pair in FLICKER_PAIRS if max(pair) < len(self.large)]
        if not self.pairs:
            raise InputError(f"{self.path}: {len(self.large)} frames, more than {max(FLICKER_PAIRS[0])} are needed")
        check_measurable(self.path, self.large[0].shape[1], self.large[0].shape[0], self.scale)

    def small(self, crf: int | None) -> list[Image]:
        frames = [shrunk(to_tensor([image]), self.scale)[0].permute(1, 2, 0).numpy() for image in self.large]
        if crf is None:
            return frames
        return through_codec(frames, Encoding(codec="libx264", options={"preset": "medium", "crf": str(crf)}))

    def row(self, small: list[Image], crf: int | None, enlarger: Enlarger) -> ClipRow:
        """Compare one enlarger's results with the original."""
        wanted = sorted({*self.measured, *(index for pair in self.pairs for index in pair)})
        results = {index: enlarger(to_tensor([small[index]])) for index in wanted}
        pairs = [(results[index], to_tensor([self.large[index]])) for index in self.measured]
        return ClipRow(
            model=enlarger.name,
            scale=self.scale,
            dtype=enlarger.dtype,
            set=self.path.stem,
            input="clean" if crf is None else f"crf{crf}",
            images=len(pairs),
            psnr_y=math.fsum(psnr_y(a, b, self.scale).item() for a, b in pairs) / len(pairs),
            ssim_y=math.fsum(ssim_y(a, b, self.scale).item() for a, b in pairs) / len(pairs),
            flicker=self._flicker(results),
        )

    def _flicker(self, results: dict[int, Tensor]) -> float:
        change = [
            _change(results[a], results[b], self.scale) - _change(to_tensor([self.large[a]]), to_tensor([self.large[b]]), self.scale)
            for a, b in self.pairs
        ]
        return math.fsum(change) / len(change)


def _change(a: Tensor, b: Tensor, border: int) -> float:
    return (shave(luma(a.double()), border) - shave(luma(b.double()), border)).abs().mean().item()


def clip_rows(paths: Sequence[Path], enlargers: Sequence[Enlarger]) -> Iterator[ClipRow]:
    """Rows of each clip at each quality by each enlarger, as they are done."""
    for path in paths:
        clip = Clip(path=path, scale=enlargers[0].scale)
        for crf in CRFS:
            small = clip.small(crf)
            for enlarger in enlargers:
                yield clip.row(small, crf, enlarger)


def line(row: Row) -> str:
    """A row as text."""
    start = f"{row.model:24} x{row.scale} {row.dtype:9} {row.set:40}"
    extra = f" {row.input:6} flicker {row.flicker:+.3f}" if isinstance(row, ClipRow) else ""
    return f"{start} {row.images:3} {row.psnr_y:6.2f} dB {row.ssim_y:.4f}{extra}"


def markdown(rows: Sequence[Row]) -> list[str]:
    """The lines of a table, a model a row: dB / SSIM of each set, or dB at each quality (mean of the clips) and flicker at crf 28."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.model, row.input if isinstance(row, ClipRow) else row.set), []).append(row)
    models, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    clips = isinstance(rows[0], ClipRow)
    heads = [*columns, "flicker at crf 28"] if clips else columns
    lines = [f"| model, x{rows[0].scale} | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for model in models:
        texts = [_cell(cells[model, column]) for column in columns]
        if clips:
            still = [row.flicker for row in cells[model, "crf28"] if isinstance(row, ClipRow)]
            texts.append(f"{math.fsum(still) / len(still):+.3f}")
        lines.append(f"| {model} | {' | '.join(texts)} |")
    return lines


def _cell(rows: Sequence[Row]) -> str:
    psnr, ssim = (math.fsum(values) / len(rows) for values in zip(*((row.psnr_y, row.ssim_y) for row in rows), strict=True))
    return f"{psnr:.2f}" if isinstance(rows[0], ClipRow) else f"{psnr:.2f} / {ssim:.4f}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROG, description="PSNR and SSIM on luma, bicubic beside the model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--images", type=Path, nargs="+", metavar="DIR", help="folders of pictures, each a set")
    what.add_argument("--clips", type=Path, nargs="+", metavar="FILE", help="videos; their first 30 frames are taken")
    parser.add_argument("--model", action="append", default=[], help="a bundled model; may be repeated (default: auto)")
    parser.add_argument("--weights", action="append", default=[], metavar="FILE", help="a weights file; may be repeated")
    parser.add_argument("--scale", type=int, help="2, 3 or 4 (default: that of the weights, or 2)")
    parser.add_argument("--dtype", choices=Dtype.__args__, default="auto")  # type: ignore[attr-defined]
    parser.add_argument("--device", help="as for the main command")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    how.add_argument("--markdown", action="store_true", help="one table, a model a row; clips are averaged")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> Iterator[Row]:
    """The rows that the arguments ask for, bicubic's and each model's, as they are done."""
    scale = args.scale or _scale_of(args.weights)
    given = [{"model": name} for name in args.model] + [{"weights": file} for file in args.weights]
    options = [ModelOptions(**one, scale=scale, dtype=args.dtype, device=args.device) for one in given or [{}]]
    enlargers = [Enlarger(one, scale) for one in [None, *options]]
    try:
        if args.images:
            yield from (image_row(folder, enlarger) for folder in args.images for enlarger in enlargers)
        else:
            yield from clip_rows(args.clips, enlargers)
    finally:
        for enlarger in enlargers:
            enlarger.close()


def _scale_of(weights: Sequence[str]) -> int:
    """The scale of the first weights file, 2 without one."""
    if not weights:
        return 2
    from a2n_video.net.weights import load_model

    return load_model(Path(weights[0])).config.scale


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return guarded(PROG, lambda: report(args))


def report(args: argparse.Namespace) -> None:
    """Print the rows: each as it is done, or one document at the end."""
    if args.scale not in (None, 2, 3, 4):
        raise OptionError(f"--scale {args.scale}: 2, 3 or 4 is taken")
    rows = []
    for row in run(args):
        rows.append(row)
        if not (args.json or args.markdown):
            print(line(row), flush=True)
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    if args.markdown:
        print("\n".join(markdown(rows)))


if __name__ == "__main__":
    sys.exit(main())
