"""The evaluator gives the literature's figures, exactly the JSON that was promised, and one line for what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from a2n_video.io.roundtrip import BT709, Encoding, through_codec
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.net.weights import save_model
from a2n_video.tools.evaluate import CRFS, Clip, Enlarger, cropped, main


def picture(seed: int, height: int = 51, width: int = 38) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(x / rng.uniform(2, 6) + y / rng.uniform(2, 6)) for _ in range(3)]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def save_png(path: Path, image: np.ndarray) -> None:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24" if image.ndim == 3 else "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=stream.pix_fmt)))
        container.mux(stream.encode(None))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    torch.manual_seed(1)
    save_model(A2N(A2NConfig(n_features=8, n_blocks=1, head="pixelshuffle")), path)
    return path


def moving(frames: int) -> list[np.ndarray]:
    wide = picture(7, 64, 160)
    return [np.ascontiguousarray(wide[:, 2 * k : 2 * k + 96]) for k in range(frames)]


def save_clip(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))


def test_the_json_of_a_folder(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pair"
    folder.mkdir()
    save_png(folder / "a.png", picture(1))
    save_png(folder / "50%d.PNG", picture(2)[..., 0])  # gray, and a name that FFmpeg would take for a pattern
    (folder / "notes.txt").write_text("not a picture")
    assert main(["--images", str(folder), "--weights", str(weights), "--dtype", "float32", "--json"]) == 0
    (document,) = capsys.readouterr().out.splitlines()
    rows = json.loads(document)["rows"]
    assert [list(row) for row in rows] == [["model", "scale", "dtype", "set", "images", "psnr_y", "ssim_y"]] * 2
    assert [row["model"] for row in rows] == ["bicubic", "small.safetensors"]
    assert {(row["set"], row["images"], row["scale"], row["dtype"]) for row in rows} == {("pair", 2, 2, "float32")}
    assert all(15 < row["psnr_y"] < 60 and 0.2 < row["ssim_y"] < 1 for row in rows)
    assert rows[0]["psnr_y"] != rows[1]["psnr_y"]


def test_several_models_beside_bicubic(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_png(tmp_path / "a.png", picture(1))
    arguments = ["--images", str(tmp_path), "--model", "nearest", "--model", "a2n-tiny", "--weights", str(weights), "--json"]
    assert main([*arguments, "--dtype", "float32"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["model"] for row in rows] == ["bicubic", "nearest", "a2n-tiny", "small.safetensors"]
    assert len({row["psnr_y"] for row in rows}) == 4


def test_the_table_of_several_sets_and_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        save_png(tmp_path / name / "a.png", picture(seed))
    assert main(["--images", str(tmp_path / "one"), str(tmp_path / "two"), "--model", "nearest", "--markdown"]) == 0
    head, rule, bicubic, nearest = capsys.readouterr().out.splitlines()
    assert head == "| model, x2 | one | two |" and rule == "|---|---|---|"
    assert bicubic.startswith("| bicubic |") and nearest.startswith("| nearest |") and bicubic.count(" / ") == 2
    save_clip(tmp_path / "a.mkv", moving(12))
    save_clip(tmp_path / "b.mkv", moving(12)[::-1])
    clips = [str(tmp_path / "a.mkv"), str(tmp_path / "b.mkv")]
    assert main(["--clips", *clips, "--model", "nearest", "--markdown"]) == 0
    head, _, bicubic, _ = capsys.readouterr().out.splitlines()
    assert head == "| model, x2 | clean | crf23 | crf28 | crf33 | flicker at crf 28 |"
    assert main(["--clips", *clips, "--model", "nearest", "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["model"] == "bicubic" and row["input"] == "crf23"]
    assert len(rows) == 2
    assert bicubic.split(" | ")[2] == f"{sum(row['psnr_y'] for row in rows) / 2:.2f}"


@pytest.mark.parametrize("scale, psnr, ssim", [(2, 33.68, 0.9305), (3, 30.40, 0.8690)])
def test_bicubic_has_the_literature_s_figures(
    shared: Path, scale: int, psnr: float, ssim: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--images", str(shared / "images" / "Set5"), "--model", "nearest", "--scale", str(scale), "--json"]) == 0
    bicubic = json.loads(capsys.readouterr().out)["rows"][0]
    assert bicubic["psnr_y"] == pytest.approx(psnr, abs=0.01)
    assert bicubic["ssim_y"] == pytest.approx(ssim, abs=0.0002)


@pytest.mark.slow
@pytest.mark.parametrize("name, psnr, ssim", [("aan_x2.pt", 38.07, 0.9608), ("aan_x3.pt", 34.48, 0.9281)])
def test_the_authors_weights_have_the_paper_s_figures(
    shared: Path, name: str, psnr: float, ssim: float, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", str(shared / "images" / "Set5"), "--weights", str(shared / "weights" / name), "--dtype", "float32", "--json"]
    assert main(arguments) == 0
    row = json.loads(capsys.readouterr().out)["rows"][1]
    assert row["psnr_y"] == pytest.approx(psnr, abs=0.01)
    assert row["ssim_y"] == pytest.approx(ssim, abs=0.0002)


def test_a_clip_at_every_quality(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_clip(tmp_path / "clip.mkv", moving(12))
    assert main(["--clips", str(tmp_path / "clip.mkv"), "--model", "nearest", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    bicubic = [row for row in rows if row["model"] == "bicubic"]
    assert [row["input"] for row in bicubic] == ["clean", "crf23", "crf28", "crf33"]
    assert len(rows) == 2 * len(CRFS)
    psnrs = [row["psnr_y"] for row in bicubic]
    assert psnrs == sorted(psnrs, reverse=True) and psnrs[0] > psnrs[3] + 1
    assert {row["images"] for row in rows} == {2}  # frames 2 and 9 of 12
    assert all(np.isfinite(row["flicker"]) for row in rows)


def test_a_still_clip_that_stays_still_does_not_flicker(tmp_path: Path) -> None:
    save_clip(tmp_path / "still.mkv", [moving(1)[0]] * 11)
    clip = Clip(path=tmp_path / "still.mkv", scale=2)
    assert clip.row(clip.small(None), None, Enlarger(None, 2)).flicker == 0


def test_the_round_trip_keeps_order_and_colour() -> None:
    frames = moving(6)
    lossless = through_codec(frames, Encoding(codec="libx264", options={"crf": "0"}))
    assert all(np.array_equal(a, b) for a, b in zip(lossless, through_codec(frames, None), strict=True))
    flat = np.full((16, 16, 3), (200, 60, 20), np.uint8)
    assert np.abs(through_codec([flat], None, BT709)[0].astype(int) - flat).max() <= 2


def test_cropping_is_right_and_below() -> None:
    image = picture(3)
    assert np.array_equal(cropped(image, 4), image[:48, :36])


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--images", "nowhere"], 3, "nowhere"),
        (["--clips", "nowhere.mp4"], 3, "nowhere.mp4"),
        (["--images", ".", "--scale", "5"], 2, "scale 5"),
        (["--images", ".", "--model", "esrgan"], 2, "esrgan"),
        (["--images", ".", "--weights", "none.pt"], 6, "none.pt"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    out, error = capsys.readouterr()
    assert words in error and len(error.splitlines()) == 1 and not out


@pytest.mark.parametrize("side", [1, 14])
def test_a_picture_too_small_to_measure_is_named(side: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_png(tmp_path / "a.png", picture(1))
    save_png(tmp_path / "b.png", picture(1)[:side, :side])
    assert main(["--images", str(tmp_path), "--model", "nearest"]) == 3
    assert "b.png: " in (told := capsys.readouterr().err) and "15 pixels on each side are the least" in told
    save_clip(tmp_path / "small.mkv", [frame[:14] for frame in moving(12)])
    assert main(["--clips", str(tmp_path / "small.mkv"), "--model", "nearest"]) == 3
    assert "small.mkv: 96x12 is too small" in capsys.readouterr().err


def test_too_short_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_clip(tmp_path / "short.mkv", moving(4))
    assert main(["--clips", str(tmp_path / "short.mkv"), "--model", "nearest"]) == 3
    assert "4 frames" in capsys.readouterr().err
