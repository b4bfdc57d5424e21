"""What takes a step: Adam for all weights, or Muon for the convolutions and Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from a2n_video.errors import OptionError

SMALLEST: Final = 16  # rows and columns of a matrix that is worth making orthogonal
MUON_FACTOR: Final = 2.0  # of the learning rate, on top of the match with Adam's step


class Optimiser(Protocol):
    """What the loop asks of one: groups whose "lr" it sets, a step, a state that can be kept."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class FusedAdam(torch.optim.Adam):
    """Adam in one kernel. On a card its rate is a tensor there, so that a CUDA graph of the step reads the one of the moment."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        parameters = list(parameters)
        on_card = parameters[0].is_cuda
        rate = torch.tensor(lr, device=parameters[0].device) if on_card else lr
        super().__init__(parameters, lr=rate, fused=True, capturable=on_card)

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Also a state that was kept on the other kind of device."""
        ours = [{name: group[name] for name in ("lr", "capturable")} for group in self.param_groups]
        super().load_state_dict(state)
        for group, kept in zip(self.param_groups, ours, strict=True):
            group.update(kept)


def set_learning_rate(optimiser: Optimiser, rate: float) -> None:
    """The rate of the next step; a tensor of it keeps its place."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class MuonAndAdam:
    """torch's Muon for the kernels of convolutions, each a matrix (outputs, inputs * height * width), and Adam for the rest.

    The rest is biases, gates and the thin kernels to and from colours. Muon makes each step orthogonal (Jordan, 2024), scaled to the
    size of Adam's (Liu et al., arXiv 2502.16982, 2.2). The matrices share the parameters' memory, so these must stay where they are:
    move the network first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise OptionError("--optimiser muon needs torch 2.9 or newer; leave the option out")
        parameters = list(parameters)
        self.kernels = [p for p in parameters if p.ndim == 4 and min(p.shape[0], p[0].numel()) >= SMALLEST]
        if not self.kernels:
            raise OptionError(f"--optimiser muon: no kernel of this network has {SMALLEST} rows and columns; leave the option out")
        self.matrices = [as_matrix(p.detach()) for p in self.kernels]
        taken = set(map(id, self.kernels))
        self.muon = torch.optim.Muon(self.matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.adam = FusedAdam([p for p in parameters if id(p) not in taken], lr)
        self.param_groups: list[dict[str, Any]] = [{"lr": lr}]

    def step(self) -> None:
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.permute(0, 2, 3, 1).flatten(1)
        for optimiser, factor in ((self.muon, MUON_FACTOR), (self.adam, 1.0)):
            set_learning_rate(optimiser, factor * self.param_groups[0]["lr"])
            optimiser.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def as_matrix(kernel: Tensor) -> Tensor:
    """A view of a channels_last kernel (O, I, H, W) as (O, H * W * I); the order of columns is nothing to Muon."""
    return kernel.permute(0, 2, 3, 1).view(kernel.shape[0], -1)


OPTIMISERS: Final[dict[str, Callable[[Iterable[nn.Parameter], float], Optimiser]]] = {"adam": FusedAdam, "muon": MuonAndAdam}
