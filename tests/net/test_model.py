"""The network has the authors' names and size, keeps shapes at every scale, and weighs its branches as the paper says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from a2n_video.net.model import A2N, A2NConfig, AttentionInAttentionBlock


def test_the_paper_s_size() -> None:
    model = A2N(A2NConfig())
    assert sum(p.numel() for p in model.parameters()) == 1_036_443
    assert len(model.state_dict()) == 172
    slim = A2N(A2NConfig(non_attention_kernel=1))
    assert sum(p.numel() for p in slim.parameters()) == 1_036_443 - 16 * 8 * 40 * 40


@pytest.mark.parametrize("head", ["paper", "pixelshuffle"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(8, 11), (1, 1), (3, 2)])
def test_shapes(head: str, scale: int, size: tuple[int, int]) -> None:
    model = A2N(A2NConfig(scale=scale, n_features=8, n_upsample_features=4, n_blocks=1, head=head))
    assert model(torch.rand(2, 3, *size)).shape == (2, 3, scale * size[0], scale * size[1])


def test_gates_weigh_the_two_branches_by_the_whole_frame() -> None:
    torch.manual_seed(1)
    block = AttentionInAttentionBlock(A2NConfig(n_features=8)).double()
    for layer in (block.ADM[0], block.ADM[2]):
        layer.weight.data *= 40
    x = torch.rand(2, 8, 6, 6, dtype=torch.float64)
    gates = block.gates(x)
    assert torch.allclose(gates.sum(dim=1), torch.ones(2, dtype=torch.float64))
    by_hand = torch.softmax(block.ADM(x.flatten(2).mean(2)) / 30, dim=1)
    assert torch.allclose(gates, by_hand)
    assert (gates[:, 0] - gates[:, 1]).abs().max() > 1e-3
    inner = torch.nn.functional.leaky_relu(block.conv_first(x), 0.2)
    g = block.gates(inner)[:, :, None, None, None]
    mixed = g[:, 0] * block.attention(inner) + g[:, 1] * block.non_attention(inner)
    assert torch.allclose(block(x), x + block.conv_last(torch.nn.functional.leaky_relu(mixed, 0.2)))


def test_without_its_trunk_it_enlarges_bilinearly() -> None:
    model = A2N(A2NConfig(n_features=8, n_upsample_features=4, n_blocks=1))
    torch.nn.init.zeros_(model.conv_last.weight)
    torch.nn.init.zeros_(model.conv_last.bias)
    x = torch.rand(1, 3, 5, 4)
    assert torch.allclose(model(x), torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"))


@pytest.mark.parametrize("bad", [{"scale": 5}, {"scale": 0}, {"n_blocks": 0}, {"n_features": -1}, {"scale": 1}, {"head": "shuffle"}])
def test_configs_that_make_no_network(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"scale|widths|head"):
        A2NConfig(**bad)
