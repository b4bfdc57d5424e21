"""Weights files of every layout become a network for RGB 0..1; anything else is a WeightsError, and no code in it runs."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from a2n_video.errors import UnknownModelError, WeightsError
from a2n_video.net import catalog, weights
from a2n_video.net.catalog import available_models, resolve_model, weights_sha256
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.net.weights import load_model, save_model, to_unit_range, weights_scale

SMALL = A2NConfig(n_features=8, n_upsample_features=6, n_blocks=2)


def network(config: A2NConfig = SMALL) -> A2N:
    torch.manual_seed(5)
    return A2N(config).eval().requires_grad_(False)


def saved(path: Path, config: A2NConfig = SMALL) -> Path:
    save_model(network(config), path)
    return path


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("head", ["paper", "pixelshuffle"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_what_is_saved_comes_back(tmp_path: Path, scale: int, head: str, kernel: int) -> None:
    config = A2NConfig(scale=scale, n_features=8, n_upsample_features=6, n_blocks=2, head=head, non_attention_kernel=kernel)
    model = load_model(saved(tmp_path / "w.safetensors", config), scale)
    assert model.config == config
    x = torch.rand(1, 3, 7, 9)
    assert torch.equal(model(x), network(config)(x))


@pytest.mark.parametrize("n_features", [*range(1, 17), 21, 41])
def test_every_width_that_can_be_saved_comes_back(tmp_path: Path, n_features: int) -> None:
    """Several reductions give one hidden width; the file says which was meant."""
    config = A2NConfig(n_features=n_features, n_upsample_features=6, n_blocks=1)
    assert load_model(saved(tmp_path / "w.safetensors", config)).config == config


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("head", ["paper", "pixelshuffle"])
def test_a_range_of_255_converts_exactly(scale: int, head: str) -> None:
    config = A2NConfig(scale=scale, n_features=8, n_upsample_features=6, n_blocks=2, head=head)
    wide = network(config).double()
    for name, parameter in wide.named_parameters():
        parameter.mul_(20 if "ADM" in name else 1)  # gates that are far from even
    unit = A2N(config).double()
    unit.load_state_dict(to_unit_range(wide.state_dict(), 255.0))
    x = torch.rand(2, 3, 9, 8, dtype=torch.float64)
    assert torch.allclose(unit(x), wide(255 * x) / 255, rtol=0, atol=1e-12)
    assert not torch.allclose(wide(x), unit(x), rtol=0, atol=1e-4)  # it matters


def test_a_stated_range_is_converted(tmp_path: Path) -> None:
    model = network()
    path = tmp_path / "w.safetensors"
    save_model(model, path)
    stated = json.dumps({"scale": 2, "n_features": 8, "n_upsample_features": 6, "n_blocks": 2, "rgb_range": 255.0})
    save_file(model.state_dict(), path, {"config": stated})
    x = torch.rand(1, 3, 8, 8)
    loaded = load_model(path)
    assert loaded.config.rgb_range == 1.0
    assert torch.allclose(loaded(x), model(255 * x) / 255, atol=1e-5)


@pytest.mark.parametrize("name, scale", [("aan_x2.pt", 2), ("aan_x3.pt", 3), ("a2n_x2_start.safetensors", 2)])
def test_reference_weights_are_recognised(shared: Path, tmp_path: Path, name: str, scale: int) -> None:
    """Range and scale by the probe alone: as they lie there (0..255) and as the super-image port has them (0..1)."""
    model = load_model(shared / "weights" / name)
    assert (model.config.scale, model.config.n_blocks, model.config.n_features) == (scale, 16, 40)
    port = tmp_path / "pytorch_model_2x.pt"
    torch.save(model.state_dict(), port)
    again = load_model(port)
    x = torch.rand(1, 3, 12, 12)
    assert again.config.scale == scale
    with torch.inference_mode():
        assert torch.equal(again(x), model(x))
    with pytest.raises(WeightsError, match=f"for scale {scale}, not {5 - scale}; give --scale {scale}"):
        load_model(port, 5 - scale)


def test_a_wrapped_state_dict_is_taken(tmp_path: Path) -> None:
    tensors = {f"module.{name}": value for name, value in network().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "w.pt")
    with torch.inference_mode():
        assert load_model(tmp_path / "w.pt", 2).config.n_blocks == 2


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_that_runs_code_does_not(tmp_path: Path, protocol: int, legacy: bool) -> None:
    trap, path = tmp_path / "it_ran", tmp_path / "w.pt"
    tensors = {**network().state_dict(), "extra": Hostile(trap)}
    torch.save(tensors, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="expected weights of an A2N"):
        load_model(path, 2)
    path.write_bytes(pickle.dumps(Hostile(trap), protocol=protocol))
    with pytest.raises(WeightsError):
        load_model(path, 2)
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # the trap works
    assert trap.exists()


@pytest.mark.parametrize("layout", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.0005, 0.02, 0.5, 0.98])
def test_truncated_files(tmp_path: Path, layout: str, kept: float) -> None:
    path = tmp_path / "w.safetensors"
    if layout == "safetensors":
        saved(path)
    else:
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=layout == "zip")
    whole = path.read_bytes()
    assert load_model(path, 2).config.n_blocks == 2
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(WeightsError, match=r"w\.safetensors: expected weights of an A2N"):
        load_model(path, 2)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04nonsense", b"\x80\x02}q\x00.", b"\xff" * 8 + b"{" + b" " * 40, b"\x80\x04N."]
)
def test_wrong_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pt"):
        load_model(path, 2)


def test_a_folder_named_like_a_model_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a2n-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("a2n-tiny").config.n_features == 16
    saved(tmp_path / "a2n")
    assert load_model("a2n").config == SMALL  # but a file does


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="directory"):
        load_model(tmp_path)


def broken(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    name = "AAB_trunk.1.attention.k3.weight"
    if kind == "missing":
        del tensors[name]
    elif kind == "extra":
        tensors["spare.weight"] = torch.zeros(2)
    elif kind == "shape":
        tensors[name] = tensors[name][:, :4].contiguous()
    elif kind == "gap":
        tensors = {key.replace("trunk.1.", "trunk.7."): value for key, value in tensors.items()}
    elif kind == "nan":
        tensors[name] = torch.full_like(tensors[name], float("nan"))
    elif kind == "integers":
        tensors[name] = tensors[name].int()
    elif kind == "scalar":
        tensors["conv_first.weight"] = torch.tensor(1.0)
    return tensors


@pytest.mark.parametrize("kind", ["missing", "extra", "shape", "gap", "nan", "integers", "scalar"])
def test_tensors_of_another_network(tmp_path: Path, kind: str) -> None:
    save_file(broken(network().state_dict(), kind), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        load_model(tmp_path / "w.safetensors", 2)


@pytest.mark.parametrize(
    "change",
    [
        {"n_blocks": 3},
        {"n_features": 10**9},
        {"scale": 4},
        {"scale": 7},
        {"scale": "2"},
        {"temperature": -1.0},
        {"rgb_range": float("inf")},
        {"surprise": 1},
        {"head": "pixelshuffle"},
        {"n_blocks": True},
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, change: dict[str, object]) -> None:
    config = {"scale": 2, "n_features": 8, "n_upsample_features": 6, "n_blocks": 2, **change}
    save_file(network().state_dict(), tmp_path / "w.safetensors", {"config": json.dumps(config)})
    with pytest.raises(WeightsError, match="config"):
        load_model(tmp_path / "w.safetensors")


def test_weights_for_another_scale(tmp_path: Path) -> None:
    for config, wrong in ((SMALL, 3), (A2NConfig(scale=4, n_features=8, n_blocks=1, head="pixelshuffle"), 2)):
        with pytest.raises(WeightsError, match=f"scale {config.scale}, not {wrong}; give --scale {config.scale}"):
            load_model(saved(tmp_path / "w.safetensors", config), wrong)


def test_the_scale_of_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    load = weights.load_file
    monkeypatch.setattr(weights, "load_file", lambda path, scale: read.append(path) or load(path, scale))
    path = saved(tmp_path / "w.safetensors", replace(SMALL, scale=4))
    assert [weights_scale(path), weights_scale(path), len(read)] == [4, 4, 1]
    saved(path, replace(SMALL, scale=3, n_blocks=3))
    assert [weights_scale(path), len(read)] == [3, 2]
    for _ in range(2):
        with pytest.raises(WeightsError, match="for scale 3, not 2; give --scale 3"):
            weights_scale(path, 2)
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="found neither"):
        weights_scale(path)
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        weights_scale(path)


def test_half_precision_is_stored_small_and_loaded_whole(tmp_path: Path) -> None:
    save_model(network(), tmp_path / "half.safetensors", half=True)
    model = load_model(tmp_path / "half.safetensors", 2)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * saved(tmp_path / "w.safetensors").stat().st_size


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(UnknownModelError, match=r"no model is called 'esrgan'; there are: a2n \(x2"):
        load_model("esrgan", 2)
    with pytest.raises(UnknownModelError, match="not bundled for scale 9"):
        load_model("a2n", 9)
    with pytest.raises(UnknownModelError, match="repeats pixels"):
        load_model("nearest", 2)


def test_auto_is_video_where_it_is_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = catalog.Model(name="a2n", scale=3, summary="", file="a")
    video = catalog.Model(name="a2n-video", scale=2, summary="", file="b")
    monkeypatch.setattr(catalog, "MODELS", (plain, video, catalog.Model(name="a2n", scale=2, summary="", file="c")))
    assert resolve_model("auto", 2) == "a2n-video"
    assert resolve_model("auto", 3) == "a2n"
    assert resolve_model("a2n", 2) == "a2n"
    with pytest.raises(UnknownModelError):
        resolve_model("auto", 4)


@pytest.mark.parametrize("model", [m for m in available_models() if m.path], ids=lambda m: f"{m.name}-x{m.scale}")
def test_every_bundled_model_loads_and_has_its_card(model: catalog.Model) -> None:
    assert model.path is not None
    network = load_model(model.name, model.scale)
    assert network.config.scale == model.scale
    assert network.config.rgb_range == 1.0
    card = model.path.with_suffix(".md").read_text()
    assert "CC BY-SA 4.0" in card and "PSNR" in card
    assert len(weights_sha256(model.path)) == 64


def test_weights_that_may_not_be_shipped_are_not(shared: Path) -> None:
    theirs = {weights_sha256(path) for path in (shared / "weights").glob("*.pt")}
    assert not theirs & {weights_sha256(path) for path in catalog.DATA.iterdir() if path.is_file()}
    assert not list(catalog.DATA.glob("*.pt"))


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys; from a2n_video.net.catalog import *; resolve_model('auto', 2); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_file_of_others_is_tried_whatever_the_programs_default_dtype(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(network().state_dict(), path)
    expected = load_model(path).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        loaded = load_model(path).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
