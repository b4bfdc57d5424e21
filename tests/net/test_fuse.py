"""The rewrites are exact, and strips in step give the whole frame's result."""

from __future__ import annotations

import pytest
import torch

from a2n_video.engine.memory import MIN_STRIP_ROWS, in_strips, strips_of
from a2n_video.net.fuse import fuse
from a2n_video.net.model import A2N, A2NConfig, AttentionInAttentionBlock

CONFIGS = [
    A2NConfig(scale=2, n_features=12, n_upsample_features=8, n_blocks=3),
    A2NConfig(scale=3, n_features=10, n_upsample_features=6, n_blocks=2),
    A2NConfig(scale=4, n_features=10, n_upsample_features=6, n_blocks=2),
    A2NConfig(scale=2, n_features=12, n_upsample_features=8, n_blocks=2, non_attention_kernel=1),
    *(A2NConfig(scale=scale, n_features=8, n_blocks=3, head="pixelshuffle") for scale in (1, 2, 3, 4)),
]
NAMES = [f"x{c.scale}-{c.head}-{c.non_attention_kernel}" for c in CONFIGS]


def lively(config: A2NConfig) -> A2N:
    """A network whose residual, gates and attention all matter: gates far apart, and different for each frame."""
    torch.manual_seed(3)
    model = A2N(config).double().eval()
    for name, parameter in model.named_parameters():
        parameter.data *= 30 if "ADM" in name else 1.5
        parameter.requires_grad_(False)
    return model


def frames(n: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    brightness = torch.linspace(0.2, 1, n, dtype=torch.float64)[:, None, None, None]
    return torch.rand((n, 3, height, width), generator=generator, dtype=torch.float64) * brightness


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_fused_equals_plain(config: A2NConfig) -> None:
    model = lively(config)
    fused = fuse(model)
    for height, width in ((16, 24), (17, 13), (1, 5), (3, 2)):
        x = frames(3, height, width)
        plain = model(x)
        assert (plain - model.skip(x)).abs().max() > 0.05  # the network does something
        assert difference(fused(x), plain) < 1e-10


@pytest.mark.parametrize("favoured", [0, 1])
def test_a_branch_without_any_weight_is_no_infinity(favoured: int) -> None:
    """As where values are large, such as linear light of HDR: the scores of the branches are then far apart."""
    model = one_sided(lively(CONFIGS[0]).float(), favoured)
    x = frames(1, 16, 24).float()
    inner = torch.rand(1, 12, 4, 4)
    assert model.AAB_trunk[0].gates(inner)[0].tolist() == [1.0 - favoured, favoured]  # type: ignore[union-attr, operator]
    assert difference(fuse(model)(x), model(x)) < 1e-5
    assert difference(in_strips(fuse(model), x, 8), model(x)) < 1e-5


def one_sided(model: A2N, favoured: int) -> A2N:
    """The network with gates that give all weight to one of the branches, for inputs of either sign."""
    for block in model.AAB_trunk:
        if isinstance(block, AttentionInAttentionBlock):
            squeeze, excite = block.ADM[0].weight.data, block.ADM[2].weight.data
            squeeze[0], squeeze[1:] = 1, -1  # type: ignore[index]
            excite[favoured], excite[1 - favoured] = 1e6, -1e6  # type: ignore[index]
    return model


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@pytest.mark.parametrize("height", [32, 37, 50])
def test_strips_in_step_equal_the_whole_frame(config: A2NConfig, height: int) -> None:
    model = lively(config)
    fused = fuse(model)
    x = frames(2, height, 11)
    plain = model(x)
    for rows in (1, 9, 16, height - 1):
        assert difference(in_strips(fused, x, rows), plain) < 1e-12


def test_tiles_with_gates_of_their_own_would_not_do() -> None:
    """Why strips go in step: the same network on the two halves, however much they overlap, gives another picture."""
    model = lively(CONFIGS[0])
    x = frames(1, 48, 11) * torch.linspace(0.1, 1, 48, dtype=torch.float64)[:, None]
    tiles = torch.cat([model(x[:, :, :40])[:, :, :48], model(x[:, :, 8:])[:, :, 32:]], dim=2)
    assert difference(tiles, model(x)) > 1e-4


def test_strips_in_float32_stay_within_a_hundred_thousandth_of_the_range() -> None:
    model = lively(CONFIGS[0]).float()
    fused = fuse(model)
    x = frames(1, 45, 31).float()
    assert (in_strips(fused, x, 10) - fused(x)).abs().max() < 1e-5


@pytest.mark.parametrize("height", [1, 7, 8, 15, 16, 17, 100, 1081])
@pytest.mark.parametrize("rows", [0, 1, 8, 9, 64, 5000])
def test_strips_cover_a_frame_once(height: int, rows: int) -> None:
    strips = strips_of(height, rows)
    assert [row for a, b in strips for row in range(a, b)] == list(range(height))
    assert len(strips) == 1 or min(b - a for a, b in strips) >= MIN_STRIP_ROWS
    assert rows or len(strips) == 1


def test_lowered_keeps_the_last_convolution_wide() -> None:
    fused = fuse(lively(CONFIGS[0]).float()).lowered(torch.bfloat16)
    x = frames(1, 16, 16).float()
    assert fused.conv_last.weight.dtype is torch.float32
    assert fused.trunk_conv.weight.dtype is torch.bfloat16
    assert fused(x).dtype is torch.float32
