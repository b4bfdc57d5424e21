"""A step as a CUDA graph is the eager step, goes on from a checkpoint, and reads the learning rate of the moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from a2n_video.training.replay import AHEAD, WARM_UP, GraphedStep
from a2n_video.training.train import LOSSES, TrainConfig, Trainer

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("card")]
CONFIG = TrainConfig(n_features=16, n_blocks=2, batch=4, side=16, steps=40, warm_up=4, learning_rate=2e-3, amp=False)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    high = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8, generator=generator).to(memory_format=torch.channels_last)
    return high[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last).pin_memory(), high.pin_memory()


def trained(trainer: Trainer, steps: range) -> list[float]:
    errors = [trainer.train_step(*batch(step)) for step in steps]
    return [float(error) for error in errors]


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for network in (trainer.model, trainer.average) for p in network.parameters()])


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_graph_trains_as_eager_steps_do(loss: str) -> None:
    graphed, eager = (Trainer(replace(CONFIG, graph=graph, loss=loss), 2, torch.device("cuda")) for graph in (True, False))
    start = weights(eager).clone()
    assert trained(graphed, range(12)) == pytest.approx(trained(eager, range(12)), rel=1e-3)
    assert isinstance(graphed.compute, GraphedStep) and graphed.compute.graph is not None
    apart, moved = (weights(graphed) - weights(eager)).norm(), (weights(eager) - start).norm()
    assert apart < 0.05 * moved


def test_the_host_is_never_far_ahead() -> None:
    trainer = Trainer(CONFIG, 2, torch.device("cuda"))
    trained(trainer, range(WARM_UP + 2 * AHEAD))
    assert isinstance(trainer.compute, GraphedStep) and len(trainer.compute.under_way) == AHEAD


def test_a_graph_reads_the_rate_of_the_moment() -> None:
    trainer = Trainer(replace(CONFIG, ema=0.0), 2, torch.device("cuda"))
    trained(trainer, range(WARM_UP + 2))
    trainer.config = replace(CONFIG, learning_rate=0.0, final_learning_rate=0.0)
    before = weights(trainer)[: sum(p.numel() for p in trainer.model.parameters())].clone()
    trained(trainer, range(2))
    assert torch.equal(weights(trainer)[: len(before)], before)


def test_a_checkpoint_goes_on_in_a_new_graph_and_on_a_processor(tmp_path: Path) -> None:
    whole, part = (Trainer(CONFIG, 2, torch.device("cuda")) for _ in range(2))
    trained(whole, range(12))
    trained(part, range(6))
    torch.save(part.state(), tmp_path / "state.pt")
    for device in ("cuda", "cpu"):
        resumed = Trainer(CONFIG, 2, torch.device(device))
        resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu"))
        trained(resumed, range(6, 12))
        assert torch.allclose(weights(resumed).cpu(), weights(whole).cpu(), atol=2e-3)
