"""Native planes <-> RGB in torch: float32, on any device, with the exact place of every chroma sample.

Both ways are one matrix product over codes (range and matrix in one, media/chroma.py) and, where chroma is subsampled, products
with small banded matrices: few passes over memory, and the same operations on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from a2n_video.engine.protocol import NOT_FINITE
from a2n_video.errors import DeviceError
from a2n_video.media.chroma import BLOCK, BlockFilter, code_matrices, code_range, enlarging, shrinking
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat

_BAND_SAMPLES: Final = 1 << 18
_HALVINGS: Final = 3  # under a cut-out's edge: as far as a network lets much be seen


@dataclass(frozen=True)
class _Filter:
    """A `BlockFilter` with its matrix on the device."""

    matrix: Tensor
    first: int
    last: int
    step: int

    @classmethod
    def of(cls, block: BlockFilter, device: torch.device) -> _Filter:
        return cls(torch.from_numpy(block.matrix).to(device), block.first, block.last, block.step)

    @property
    def n_out(self) -> int:
        return self.matrix.shape[1]

    def rows(self, x: Tensor, n_out: int, ahead: int = 0) -> Tensor:
        """Resample (B, H, W) along H to (B, n_out, W); `x` begins `ahead` rows early, what it lacks of the reach repeats its edges."""
        blocks = -(-n_out // self.n_out)
        before = self.first - ahead
        x = _repeat_rows(x, before, blocks * self.step + self.first + self.last - before - x.shape[1])
        batch, _, width = x.shape
        out = torch.empty((batch, blocks, self.n_out, width), dtype=x.dtype, device=x.device)
        kernel = self.matrix.T.expand(blocks, -1, -1)
        for frame, target in zip(x, out, strict=True):  # windows of one frame overlap at one stride: no copy is made of them
            windows = frame.as_strided((blocks, self.matrix.shape[0], width), (self.step * width, width, 1))
            torch.bmm(kernel, windows, out=target)
        return out.view(batch, -1, width)[:, :n_out]

    def columns(self, x: Tensor, n_out: int) -> Tensor:
        """Resample (B, H, W) along W to (B, H, n_out), edges repeated; a view of a wider tensor where blocks overhang.

        Windows of `step` samples lie side by side in memory, and what a window reaches into the next is that one's beginning:
        two products over one buffer, and no window is copied.
        """
        batch, height, width = x.shape
        blocks = -(-n_out // self.n_out)
        line = (blocks + 1) * self.step
        taken = min(width, line - self.first)
        buffer = torch.empty((batch, height, line), dtype=x.dtype, device=x.device)
        buffer[:, :, : self.first] = x[:, :, :1]
        buffer[:, :, self.first : self.first + taken] = x[:, :, :taken]
        buffer[:, :, self.first + taken :] = x[:, :, -1:]
        windows = buffer.view(-1, self.step)
        reach = self.matrix.shape[0] - self.step
        out = torch.mm(windows, self.matrix[: self.step])
        out[:-1].addmm_(windows[1:, :reach], self.matrix[self.step :])
        return out.view(batch, height, -1)[:, :, :n_out]


def _repeat_rows(x: Tensor, before: int, after: int) -> Tensor:
    """(B, H, W) contiguous, with its first and last row repeated (or, for a negative `after`, rows cut off)."""
    body = x[:, :after] if after < 0 else x
    parts = [x[:, :1].expand(-1, before, -1), body, x[:, -1:].expand(-1, max(after, 0), -1)]
    return torch.cat(parts, dim=1)


class ColorConverter:
    """Conversion tables for one format and settled colour, on one device; without state, so any thread may use it.

    `covers`: what the format's alpha hides is given the colour beside it (`covered`), for a result that has alpha too.
    """

    def __init__(self, fmt: PlaneFormat, color: ColorSpec, device: torch.device | str = "cpu", *, covers: bool = False) -> None:
        device = torch.device(device)
        self.fmt, self._covers = fmt, covers
        codes = code_matrices(fmt, color)
        self._decode, self._decode_bias, self._encode, self._encode_bias = (
            torch.tensor(table, dtype=torch.float32, device=device)
            for table in (codes.decode, codes.decode_bias[:, None], codes.encode, codes.encode_bias[:, None])
        )
        self._highest = code_range(fmt, color).highest
        if self._highest is not None:
            self._encode_bias = self._encode_bias + 0.5  # rounds: samples are cut to integers after the clamp
        self._dtype = getattr(torch, str(fmt.dtype))
        factors = (1 << fmt.log2_chroma_w, 1 << fmt.log2_chroma_h)
        self._up, self._down = (
            tuple(_Filter.of(make(f, s), device) if f > 1 else None for f, s in zip(factors, color.siting, strict=True))
            for make in (enlarging, shrinking)
        )

    def to_rgb(self, rows: Tensor) -> Tensor:
        """Rows (N, samples) -> RGB (N, 3, H, W), float32, black 0 and white 1, nothing clamped; alpha is left out."""
        n, width = rows.shape[0], self.fmt.width
        rgb = torch.empty((n, 3, self.fmt.height, width), dtype=torch.float32, device=rows.device)
        flat, decode = rgb.view(n, 3, -1), self._decode.expand(n, -1, -1)
        for band in self._bands(rows.device):
            codes = self._codes(rows, band)
            torch.baddbmm(self._decode_bias, decode, codes, out=flat[:, :, band.start * width : band.stop * width])
        alpha = self.alpha(rows) if self._covers else None
        return rgb if alpha is None else covered(rgb, alpha)

    def to_rows(self, rgb: Tensor, alpha: Tensor | None = None) -> Tensor:
        """RGB (N, 3, H, W), any floating dtype -> rows (N, samples) of the format: rounded, held within the depth.

        `alpha` is (N, 1, H, W), 1 opaque; a format with alpha and none given is opaque.
        """
        rows = torch.empty((rgb.shape[0], self.fmt.samples), dtype=self._dtype, device=rgb.device)
        for band in self._bands(rgb.device):
            self._store_band(rgb, rows, band)
        if self.fmt.alpha:
            target = self._plane(rows, len(self.fmt.planes) - 1)
            self._store(self._alpha_codes(target, alpha), target)
        return rows

    def alpha(self, rows: Tensor) -> Tensor | None:
        """The alpha plane, (N, 1, H, W) float32, 1 opaque (full range always), or None where the format has none."""
        if not self.fmt.alpha:
            return None
        return self._plane(rows, len(self.fmt.planes) - 1)[:, None].float() / (self._highest or 1)

    def _plane(self, rows: Tensor, number: int) -> Tensor:
        """A plane of every frame, (N, H, W), a view."""
        shape = self.fmt.planes[number]
        return rows[:, shape.offset : shape.offset + shape.samples].view(-1, shape.height, shape.width)

    def _bands(self, device: torch.device) -> Iterator[range]:
        """Rows of the picture to do at a time: few enough on a CPU that their codes stay in its cache, all of them elsewhere."""
        unit = BLOCK << self.fmt.log2_chroma_h
        rows = max(unit, _BAND_SAMPLES // self.fmt.width // unit * unit) if device.type == "cpu" else self.fmt.height
        for start in range(0, self.fmt.height, rows):
            yield range(start, min(start + rows, self.fmt.height))

    def _codes(self, rows: Tensor, band: range) -> Tensor:
        """A band's codes at full resolution, (N, planes, pixels), float32."""
        n, planes = rows.shape[0], 1 if self.fmt.family == "gray" else 3
        codes = torch.empty((n, planes, len(band), self.fmt.width), dtype=torch.float32, device=rows.device)
        for i in range(planes):
            plane = self._plane(rows, i)
            codes[:, i] = plane[:, band.start : band.stop] if i == 0 else self._enlarged(plane, band)
        return codes.view(n, planes, -1)

    def _enlarged(self, plane: Tensor, band: range) -> Tensor:
        across, down = self._up
        start, stop = band.start >> self.fmt.log2_chroma_h, -(-band.stop >> self.fmt.log2_chroma_h)
        ahead = 0 if down is None else min(start, down.first)
        x = plane[:, start - ahead : stop + (0 if down is None else down.last)].float()
        x = x if down is None else down.rows(x, len(band), ahead)
        return x if across is None else across.columns(x, self.fmt.width)

    def _store_band(self, rgb: Tensor, rows: Tensor, band: range) -> None:
        """A band of RGB to its part of the colour planes."""
        n, _, _, width = rgb.shape
        down = self._down[1]
        ahead, behind = (0, 0) if down is None else (min(band.start, down.first), down.last)
        part = rgb[:, :, band.start - ahead : band.stop + behind]
        codes = torch.baddbmm(self._encode_bias, self._encode.expand(n, -1, -1), part.float().reshape(n, 3, -1))
        codes = codes.view(n, -1, part.shape[2], width)
        self._store(codes[:, 0, ahead : ahead + len(band)], self._plane(rows, 0)[:, band.start : band.stop])
        for i in range(1, codes.shape[1]):
            target = self._plane(rows, i)[:, band.start >> self.fmt.log2_chroma_h : -(-band.stop >> self.fmt.log2_chroma_h)]
            self._store(self._shrunk(codes[:, i], target.shape[1:], ahead), target)

    def _shrunk(self, plane: Tensor, size: torch.Size, ahead: int) -> Tensor:
        across, down = self._down
        x = plane if down is None else down.rows(plane, size[0], ahead)
        return x if across is None else across.columns(x, size[1])

    def _store(self, codes: Tensor, target: Tensor) -> None:
        target.copy_(codes if self._highest is None else codes.clamp(0, self._highest))

    def _alpha_codes(self, target: Tensor, alpha: Tensor | None) -> Tensor:
        opaque, rounding = (1.0, 0.0) if self._highest is None else (float(self._highest), 0.5)
        return target.new_full(target.shape, opaque, dtype=torch.float32) if alpha is None else alpha[:, 0] * opaque + rounding


@lru_cache(maxsize=16)
def converter(fmt: PlaneFormat, color: ColorSpec, device: torch.device) -> ColorConverter:
    """The tables for a format and settled colour, made once."""
    return ColorConverter(fmt, color, device)


def planes_to_rgb(rows: Tensor, fmt: PlaneFormat, color: ColorSpec) -> Tensor:
    """Rows (N, samples) of native planes -> RGB (N, 3, H, W), float32, 0..1, unclamped; see `ColorConverter.to_rgb`."""
    return converter(fmt, color, rows.device).to_rgb(rows)


def rgb_to_planes(rgb: Tensor, fmt: PlaneFormat, color: ColorSpec, alpha: Tensor | None = None) -> Tensor:
    """RGB (N, 3, H, W) -> rows (N, samples) of native planes; see `ColorConverter.to_rows`."""
    return converter(fmt, color, rgb.device).to_rows(rgb, alpha)


def finite(rgb: Tensor) -> Tensor:
    """RGB as it came; DeviceError where a value is infinite or no number, which would be stored as black."""
    # One pass and no map of booleans: finite values this small cannot sum to infinity in float32.
    if not torch.isfinite(rgb.sum(dtype=torch.float32)):
        raise DeviceError(NOT_FINITE)
    return rgb


def covered(rgb: Tensor, alpha: Tensor) -> Tensor:
    """RGB (N, 3, H, W) whose pixels of alpha 0 have the colour of what is seen up to a few pixels beside them.

    The one colour that a cut-out hides, black mostly, would mix into its edge. Frames that hide several are left alone: there alpha may
    be a mask of something else, and what is under it meant.
    """
    hidden = alpha == 0
    asks = rgb.device.type == "cpu"  # elsewhere a question would hold the stream
    if asks and not hidden.any():
        return rgb
    darkest, lightest = rgb.masked_fill(~hidden, torch.inf).amin((2, 3)), rgb.masked_fill(~hidden, -torch.inf).amax((2, 3))
    one_colour = (lightest <= darkest).all(1)[:, None, None, None]
    if asks and not one_colour.any():
        return rgb
    spread, reached = _spread(rgb, alpha, _HALVINGS)
    return torch.where(hidden & one_colour & reached, spread, rgb)


def _spread(rgb: Tensor, weight: Tensor, halvings: int) -> tuple[Tensor, Tensor]:
    """Colours where there is weight, where there is none those around, from ever smaller pictures; and where any was found."""
    found = weight > 0
    if not halvings:
        return rgb, found
    # Windows overlap by one pixel on either side: each halving reaches one of its pixels further, wherever an edge lies.
    smaller = F.avg_pool2d(torch.cat([rgb * weight, weight], 1), 4, 2, 1, ceil_mode=True)
    mass = smaller[:, 3:]
    around = _spread(smaller[:, :3] / mass.clamp_min(1e-6), mass, halvings - 1)
    height, width = rgb.shape[2:]
    spread, reached = (F.interpolate(x.float(), scale_factor=2, mode="nearest")[..., :height, :width] for x in around)
    return torch.where(found, rgb, spread), found | (reached > 0)


def enlarge_alpha(alpha: Tensor, scale: int) -> Tensor:
    """Alpha (N, 1, H, W) enlarged bilinearly: no ringing around a cut-out."""
    return F.interpolate(alpha, scale_factor=scale, mode="bilinear", align_corners=False) if scale > 1 else alpha
