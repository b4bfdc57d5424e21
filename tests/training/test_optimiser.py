"""Muon for the convolutions: its steps are orthogonal, its state is kept, the rest is Adam's."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from a2n_video.errors import OptionError
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.training.optimiser import MUON_FACTOR, FusedAdam, MuonAndAdam, as_matrix

if not hasattr(torch.optim, "Muon"):
    pytest.skip("this torch has no Muon", allow_module_level=True)


def network() -> A2N:
    torch.manual_seed(1)
    return A2N(A2NConfig(scale=2, n_features=16, n_blocks=1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def backward(model: A2N, seed: int) -> None:
    model.zero_grad()
    model(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().mean().backward()


def test_a_matrix_shares_the_kernels_memory() -> None:
    kernel = torch.randn(4, 3, 2, 5).to(memory_format=torch.channels_last)
    as_matrix(kernel).zero_()
    assert not kernel.any()
    with pytest.raises(RuntimeError):
        as_matrix(torch.randn(4, 3, 2, 5))


def test_every_kernel_moves_by_an_orthogonal_matrix_and_the_rest_as_adam_moves_it() -> None:
    model, twin = network(), network()
    muon, plain = MuonAndAdam(model.parameters(), 1e-3), FusedAdam(twin.parameters(), 1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for optimiser, net in ((muon, model), (plain, twin)):
        backward(net, 3)
        optimiser.step()
    kernels = {id(p) for p in muon.kernels}
    assert 0 < len(kernels) < len(before)
    for (name, p), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        if id(p) not in kernels:
            assert torch.equal(p, other), name
            continue
        step = (p.detach() - before[name]).flatten(1)
        singular = torch.linalg.svdvals(step) / (MUON_FACTOR * 1e-3 * 0.2 * max(step.shape) ** 0.5)
        assert singular.max() < 1.4, name
        assert singular.median() > 0.5, name


def test_a_rate_set_from_outside_counts() -> None:
    model = network()
    optimiser = MuonAndAdam(model.parameters(), 1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    backward(model, 3)
    optimiser.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_its_state_goes_on_bit_for_bit() -> None:
    model = network()
    optimiser = MuonAndAdam(model.parameters(), 1e-3)
    for seed in range(2):
        backward(model, seed)
        optimiser.step()
    again = network()
    again.load_state_dict(model.state_dict())
    resumed = MuonAndAdam(again.parameters(), 1e-3)
    resumed.load_state_dict(deepcopy(optimiser.state_dict()))  # as a file would: it shares memory otherwise
    for net, each in ((model, optimiser), (again, resumed)):
        backward(net, 5)
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_torch_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(OptionError, match=r"2\.9"):
        MuonAndAdam(network().parameters(), 1e-3)
