"""Hooks see what the network computes and change none of it."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from a2n_video.net.model import A2N, A2NConfig, lrelu
from a2n_video.tools import ablation as ablation_module
from a2n_video.tools.ablation import SWITCHES, ablation, ablation_report, psnr_of, switched_off
from a2n_video.tools.attention import COLUMNS, BlockView, attention_report, look, observed, standardised
from a2n_video.tools.images import png_bytes
from tests.made import make_source


@pytest.fixture(scope="module")
def model() -> A2N:
    torch.manual_seed(3)
    made = A2N(A2NConfig(n_features=8, n_upsample_features=6, n_blocks=3, temperature=2.0)).eval().requires_grad_(False)
    for block in made.AAB_trunk:  # random weights alone leave the branches all but even
        block.ADM[2].weight.mul_(30)
    return made


@pytest.fixture(scope="module")
def rgb() -> torch.Tensor:
    torch.manual_seed(4)
    return torch.rand(1, 3, 20, 28)


def test_outputs_stay_bit_equal_and_hooks_go(model: A2N, rgb: torch.Tensor) -> None:
    before = model(rgb)
    with observed(model):
        assert torch.equal(model(rgb), before)
    assert torch.equal(model(rgb), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_go_when_the_network_fails(model: A2N) -> None:
    with pytest.raises(RuntimeError), observed(model):
        model(torch.rand(1, 4, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_views_are_what_the_blocks_compute(model: A2N, rgb: torch.Tensor) -> None:
    views = look(model, rgb)
    assert [view.name for view in views] == ["1", "2", "3", "head 1"]
    features = model.conv_first(rgb)
    for view, block in zip(views, model.AAB_trunk, strict=False):
        inner = lrelu(block.conv_first(features))
        assert view.weights == pytest.approx(block.gates(inner)[0].tolist(), abs=1e-6)
        np.testing.assert_allclose(view.map, block.attention.attention(inner).mean(dim=1)[0], atol=1e-6)
        features = block(features)
    assert len({round(view.weights[0], 3) for view in views if view.weights}) > 1
    assert views[-1].weights is None
    assert views[-1].map.shape == (40, 56)


def test_a_flat_map_stays_flat() -> None:
    assert not standardised(BlockView("1", np.full((4, 4), 0.5, np.float32))).any()


def test_a_video_gives_sheet_course_and_table(model: A2N, tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=range(12), audio=())
    written = attention_report(source, model, tmp_path / "out.png", Fraction(1, 5), frames=4)
    assert [path.name for path in written] == ["out.png", "out-course.png", "out.csv"]
    assert all(path.stat().st_size > 100 for path in written)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert sorted({int(row["frame"]) for row in rows}) == [0, 3, 6, 9]
    assert len(rows) == 4 * 4
    block = rows[0]
    assert float(block["attention_weight"]) + float(block["non_attention_weight"]) == pytest.approx(1, abs=1e-5)
    assert float(block["map_lowest"]) < float(block["map_mean"]) < float(block["map_highest"])
    assert float(rows[4]["time_s"]) == pytest.approx(3 / 25)


def test_switches_do_what_they_say(model: A2N, rgb: torch.Tensor) -> None:
    block = model.AAB_trunk[1]
    x = model.conv_first(rgb)
    inner = lrelu(block.conv_first(x))
    gates = block.gates(inner)[0]
    attention, other = gates[0] * block.attention(inner), gates[1] * block.non_attention(inner)
    flat = block.attention.k4(block.attention.k3(inner) * block.attention.attention(inner).mean(dim=(2, 3), keepdim=True)) * gates[0]
    expected = {"branch": other, "map": flat + other, "other": attention}
    for name, mixed in expected.items():
        with switched_off(block, SWITCHES[name]):
            torch.testing.assert_close(block(x), block.conv_last(lrelu(mixed)) + x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(block(x), block.conv_last(lrelu(attention + other)) + x, rtol=1e-5, atol=1e-6)


def test_ablation_switches_one_block_at_a_time(model: A2N, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png_bytes(rng.integers(0, 255, (41, 48, 3), np.uint8)))
    given = ablation_module.pairs(tmp_path, 2)
    assert [tuple(large.shape) for _, large in given] == [(1, 3, 40, 48)] * 2
    rows = ablation(model, given, ["branch", "other"])
    assert [(row[0], row[1]) for row in rows] == [("all", "nothing"), *((n, s) for s in ("branch", "other") for n in (1, 2, 3))]
    with switched_off(model.AAB_trunk[2], SWITCHES["branch"]):
        off = psnr_of(model, given)
    whole = psnr_of(model, given)
    assert rows[3][3:] == pytest.approx((off.mean(), (off - whole).mean(), (off - whole).min(), (off - whole).max()))
    assert rows[3][4] != 0
    assert rows[0][3] == pytest.approx(whole.mean())
    written = ablation_report(tmp_path, model, tmp_path / "chart.png", ["map"])
    assert all(path.stat().st_size > 100 for path in written)
