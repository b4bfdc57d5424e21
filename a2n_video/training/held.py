"""The held-out tenth: what checkpoints are chosen by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from a2n_video.engine.resize import resize
from a2n_video.tools.metrics import psnr_y
from a2n_video.training.data import HELD_KINDS, open_arrays

CHUNK = 16


class HeldOut:
    """Held-out pairs, and bicubic's PSNR on them."""

    def __init__(self, folder: Path) -> None:
        low, high, kind = open_arrays(folder, "held")
        self.scale = high.shape[1] // low.shape[1]
        self.low, self.high = (torch.from_numpy(np.array(array)).permute(0, 3, 1, 2) for array in (low, high))
        self.kind = torch.from_numpy(np.array(kind))
        self.bicubic = self._psnr(lambda x: resize(x, high.shape[1], high.shape[2]), torch.device("cpu"))

    def _psnr(self, enlarge: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
        values = []
        for low, high in zip(torch.split(self.low, CHUNK), torch.split(self.high, CHUNK), strict=True):
            out = enlarge(low.to(device, torch.float32) / 255)
            out = (255 * out.float()).round().clamp(0, 255)
            values.append(psnr_y(out, high.to(device), self.scale).clamp(max=100).cpu())
        return torch.cat(values)

    @torch.inference_mode()
    def gains(self, model: nn.Module, device: torch.device, amp: bool) -> dict[str, float]:
        """Mean gain over bicubic in dB for each kind of held-out pair; `amp` computes in bfloat16 autocast."""
        model.eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            gain = self._psnr(model, device) - self.bicubic
        model.train()
        return {name: gain[self.kind == index].mean().item() for index, (name, _) in enumerate(HELD_KINDS)}

    @staticmethod
    def score(gains: dict[str, float], clean_share: float) -> float:
        """What checkpoints are chosen by: clean and compressed gains in the shares they are trained in."""
        compressed = [gain for name, gain in gains.items() if name != "clean"]
        return clean_share * gains["clean"] + (1 - clean_share) * sum(compressed) / len(compressed)
