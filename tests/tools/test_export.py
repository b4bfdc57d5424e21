"""ONNX files, in ONNX Runtime, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from a2n_video.errors import OptionError
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.tools import export

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

CONFIGS = [
    A2NConfig(scale=2, n_features=12, n_upsample_features=8, n_blocks=2),
    A2NConfig(scale=3, n_features=8, n_upsample_features=6, n_blocks=1),
    A2NConfig(scale=4, n_features=8, n_upsample_features=6, n_blocks=1, non_attention_kernel=1),
    A2NConfig(scale=2, n_features=8, n_blocks=2, head="pixelshuffle"),
]


def lively(config: A2NConfig) -> A2N:
    torch.manual_seed(2)
    model = A2N(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data *= 30 if "ADM" in name else 1.5
    return model


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"x{c.scale}-{c.head}-{c.non_attention_kernel}")
def test_onnx_runtime_computes_what_torch_computes_at_any_size(config: A2NConfig, tmp_path: Path) -> None:
    model, path = lively(config), tmp_path / "net.onnx"
    export.write(model, path)
    runtime = session(path)
    for n, height, width in ((1, 16, 24), (1, 33, 17), (3, 9, 40), (1, 1, 1)):
        x = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(width)) * torch.linspace(0.3, 1, n)[:, None, None, None]
        with torch.no_grad():
            expected = model(x)
        found = runtime.run(None, {"input": x.numpy()})[0]
        assert found.shape == expected.shape
        assert np.abs(found - expected.numpy()).max() < 2e-5


@pytest.mark.parametrize("opset", [18, 20, export.LAST_OPSET])
def test_later_opsets_compute_the_same(opset: int, tmp_path: Path) -> None:
    model, path = lively(CONFIGS[0]), tmp_path / "net.onnx"
    export.write(model, path, opset=opset)
    x = torch.rand(1, 3, 33, 17, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert np.abs(session(path).run(None, {"input": x.numpy()})[0] - model(x).numpy()).max() < 2e-5


@pytest.mark.parametrize("failure", [ValueError("Unsupported opset\nand more"), RuntimeError("Unsupported opset")])
def test_an_exporter_that_cannot_is_one_line(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(OptionError, match=r"--opset 18: torch .* cannot write it \(Unsupported opset\); try --opset 17$"):
        export.onnx_model(lively(CONFIGS[0]), opset=18)


def test_the_file_says_what_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export.write(lively(CONFIGS[0]), path, metadata={"model": "mine"})
    made = onnx.load(path)
    assert made.opset_import[0].version == 17
    assert [value.name for value in (*made.graph.input, *made.graph.output)] == ["input", "output"]
    sizes = [dim.dim_param or dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "height", "width"]
    said = {entry.key: entry.value for entry in made.metadata_props}
    assert (said["scale"], said["range"], said["model"]) == ("2", "RGB 0..1", "mine")


def test_the_command_writes_a_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a2n.onnx"
    assert export.main(["--model", "a2n", "--scale", "2", "-o", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: x2")
    x = np.full((1, 3, 12, 10), 0.5, np.float32)
    assert np.abs(session(path).run(None, {"input": x})[0] - 0.5).max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--model", "nobody"], 2, "nobody"),
        (["--model", "nearest"], 2, "nearest"),
        (["--scale", "0"], 2, "scale 0"),
        (["--opset", "11"], 2, "from 17 to 23"),
        (["--opset", "99"], 2, "from 17 to 23"),
        (["--weights", "none.safetensors"], 6, "none.safetensors"),
    ],
)
def test_bad_use_is_one_line_and_a_code(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([*arguments, "-o", str(tmp_path / "x.onnx")]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.onnx").exists()


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_text("mine")
    assert export.main(["-o", str(path)]) == 5
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "code", "said"), [("gone/x.onnx", 5, "there is no folder"), ("x.bin", 2, "is a .onnx file"), ("w.onnx", 5, "is an input")]
)
def test_where_nothing_can_be_written_is_told_before_the_work(
    name: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.onnx").write_bytes(b"weights")
    monkeypatch.setattr(export, "load_model", lambda *_: pytest.fail("the work began"))
    assert export.main(["--weights", str(tmp_path / "w.onnx"), "--overwrite", "-o", str(tmp_path / name)]) == code
    assert said in capsys.readouterr().err


def test_a_stop_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "load_model", stopped)
    assert export.main(["-o", str(tmp_path / "x.onnx")]) == 130
    assert capsys.readouterr().err == "a2n_video.tools.export: stopped\n"
