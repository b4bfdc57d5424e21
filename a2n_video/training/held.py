"""The held-out tenth: what checkpoints are chosen by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from a2n_video.engine.resize import resize
from a2n_video.tools.metrics import psnr_y
from a2n_video.training.data import CLEAN_KIND, HELD_KINDS, open_together

CHUNK = 16


class HeldOut:
    """Held-out pairs, and bicubic's PSNR on them.

    A run that trains on clean pairs alone leaves the compressed ones out: they are three quarters of the time and decide nothing there.
    """

    def __init__(self, *folders: Path, clean_only: bool = False) -> None:
        low, high, kind = (np.concatenate(parts) for parts in zip(*open_together(folders, "held"), strict=True))
        kept = np.flatnonzero(kind == CLEAN_KIND) if clean_only else np.arange(len(kind))
        self.scale = high.shape[1] // low.shape[1]
        self.low, self.high = (torch.from_numpy(array[kept]).permute(0, 3, 1, 2) for array in (low, high))
        self.kind = torch.from_numpy(kind[kept])
        self.bicubic = self._psnr(lambda x: resize(x, high.shape[1], high.shape[2]), torch.device("cpu"))

    def _psnr(self, enlarge: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
        values = []
        for low, high in zip(torch.split(self.low, CHUNK), torch.split(self.high, CHUNK), strict=True):
            out = enlarge(low.to(device, torch.float32) / 255)
            out = (255 * out.float()).round().clamp(0, 255)
            values.append(psnr_y(out, high.to(device), self.scale).cpu())
        return torch.cat(values)

    @torch.inference_mode()
    def gains(self, model: nn.Module, device: torch.device, amp: bool) -> dict[str, float]:
        """Mean gain over bicubic in dB for each kind of pair held here; `amp` computes in bfloat16 autocast."""
        model.eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            gain = self._psnr(model, device) - self.bicubic
        model.train()
        of_kind = {name: gain[self.kind == index] for index, (name, _) in enumerate(HELD_KINDS)}
        return {name: values.mean().item() for name, values in of_kind.items() if len(values)}

    @staticmethod
    def score(gains: dict[str, float], clean_share: float) -> float:
        """What checkpoints are chosen by: clean and compressed gains in the shares they are trained in."""
        compressed = [gain for name, gain in gains.items() if name != "clean"]
        if not compressed:
            return gains["clean"]
        return clean_share * gains["clean"] + (1 - clean_share) * sum(compressed) / len(compressed)
