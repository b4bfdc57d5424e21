"""Native planes <-> RGB in torch: float32, on any device, with the exact place of every chroma sample.

Both ways are one matrix product over codes (range and matrix in one, media/chroma.py) and, where chroma is subsampled, products
with small banded matrices: few passes over memory, and the same operations on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from a2n_video.media.chroma import BlockFilter, code_matrices, code_range, enlarging, shrinking
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat


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

    def rows(self, x: Tensor, n_out: int) -> Tensor:
        """Resample (B, H, W) along H to (B, n_out, W), edges repeated."""
        blocks = -(-n_out // self.n_out)
        after = blocks * self.step + self.last - x.shape[1]
        x = _repeat_rows(x, self.first, after)
        batch, _, width = x.shape
        out = torch.empty((batch, blocks, self.n_out, width), dtype=x.dtype, device=x.device)
        kernel = self.matrix.T.expand(blocks, -1, -1)
        for frame, target in zip(x, out, strict=True):  # windows of one frame overlap at one stride: no copy is made of them
            windows = frame.as_strided((blocks, self.matrix.shape[0], width), (self.step * width, width, 1))
            torch.bmm(kernel, windows, out=target)
        return out.view(batch, -1, width)[:, :n_out]

    def columns(self, x: Tensor, n_out: int) -> Tensor:
        """Resample (B, H, W) along W to (B, H, n_out), edges repeated; a view of a wider tensor where blocks overhang."""
        blocks = -(-n_out // self.n_out)
        after = blocks * self.step + self.last - x.shape[2]
        x = F.pad(x, (self.first, after), mode="replicate") if after >= 0 else F.pad(x[:, :, :after], (self.first, 0), mode="replicate")
        batch, height, width = x.shape
        windows = x.as_strided((batch, height, blocks, self.matrix.shape[0]), (height * width, width, self.step, 1))
        flat = windows.reshape(-1, self.matrix.shape[0])  # one copy, one product: many small ones take ten times as long
        return torch.mm(flat, self.matrix).view(batch, height, -1)[:, :, :n_out]


def _repeat_rows(x: Tensor, before: int, after: int) -> Tensor:
    """(B, H, W) contiguous, with its first and last row repeated (or, for a negative `after`, rows cut off)."""
    body = x[:, :after] if after < 0 else x
    parts = [x[:, :1].expand(-1, before, -1), body, x[:, -1:].expand(-1, max(after, 0), -1)]
    return torch.cat(parts, dim=1)


class ColorConverter:
    """Conversion tables for one format and settled colour, on one device; without state, so any thread may use it."""

    def __init__(self, fmt: PlaneFormat, color: ColorSpec, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.fmt = fmt
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
        shapes = self.fmt.planes
        height, width = self.fmt.height, self.fmt.width
        n = rows.shape[0]
        codes = torch.empty((n, 1 if self.fmt.family == "gray" else 3, height, width), dtype=torch.float32, device=rows.device)
        for i in range(codes.shape[1]):
            plane = rows[:, shapes[i].offset : shapes[i].offset + shapes[i].samples].view(n, shapes[i].height, shapes[i].width)
            codes[:, i] = plane if i == 0 else self._enlarged(plane)
        return torch.baddbmm(self._decode_bias, self._decode.expand(n, -1, -1), codes.view(n, -1, height * width)).view(n, 3, height, width)

    def to_rows(self, rgb: Tensor, alpha: Tensor | None = None) -> Tensor:
        """RGB (N, 3, H, W), any floating dtype -> rows (N, samples) of the format: rounded, held within the depth.

        `alpha` is (N, 1, H, W), 1 opaque; a format with alpha and none given is opaque.
        """
        n, _, height, width = rgb.shape
        encode = self._encode.expand(n, -1, -1)
        codes = torch.baddbmm(self._encode_bias, encode, rgb.float().reshape(n, 3, -1)).view(n, -1, height, width)
        rows = torch.empty((n, self.fmt.samples), dtype=self._dtype, device=rgb.device)
        for i, shape in enumerate(self.fmt.planes):
            target = rows[:, shape.offset : shape.offset + shape.samples].view(n, shape.height, shape.width)
            if i == codes.shape[1]:
                self._store(self._alpha_codes(target, alpha), target)
            else:
                self._store(codes[:, i] if i == 0 else self._shrunk(codes[:, i]), target)
        return rows

    def alpha(self, rows: Tensor) -> Tensor | None:
        """The alpha plane, (N, 1, H, W) float32, 1 opaque (full range always), or None where the format has none."""
        if not self.fmt.alpha:
            return None
        shape = self.fmt.planes[-1]
        return rows[:, shape.offset : shape.offset + shape.samples].view(-1, 1, shape.height, shape.width).float() / (self._highest or 1)

    def _enlarged(self, plane: Tensor) -> Tensor:
        across, down = self._up
        x = plane.float()
        x = x if down is None else down.rows(x, self.fmt.height)
        return x if across is None else across.columns(x, self.fmt.width)

    def _shrunk(self, plane: Tensor) -> Tensor:
        across, down = self._down
        chroma = self.fmt.planes[1]
        x = plane if down is None else down.rows(plane, chroma.height)
        return x if across is None else across.columns(x, chroma.width)

    def _store(self, codes: Tensor, target: Tensor) -> None:
        target.copy_(codes if self._highest is None else codes.clamp(0, self._highest))

    def _alpha_codes(self, target: Tensor, alpha: Tensor | None) -> Tensor:
        opaque, rounding = (1.0, 0.0) if self._highest is None else (float(self._highest), 0.5)
        return torch.full(target.shape, opaque, device=target.device) if alpha is None else alpha[:, 0] * opaque + rounding


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


def enlarge_alpha(alpha: Tensor, scale: int) -> Tensor:
    """Alpha (N, 1, H, W) enlarged bilinearly: no ringing around a cut-out."""
    return F.interpolate(alpha, scale_factor=scale, mode="bilinear", align_corners=False) if scale > 1 else alpha
