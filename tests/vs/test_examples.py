"""The example scripts under vspipe, and the same frames as the command line makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT

vs = pytest.importorskip("vapoursynth")
CLIP = ROOT / "examples" / "clip.mp4"


@pytest.fixture
def environment(core: object, tmp_path: Path) -> dict[str, str]:
    if not hasattr(core, "bs"):
        pytest.skip("vapoursynth-bestsource is not installed")
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("vspipe", path=path) is None:
        pytest.skip("vspipe is not on the PATH")
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path)}


def vspipe(script: Path, environment: dict[str, str], *options: str) -> bytes:
    program = shutil.which("vspipe", path=environment["PATH"])
    assert program is not None
    done = subprocess.run(
        [program, "-c", "y4m", *options, str(script), "-"], capture_output=True, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def y4m_frames(data: bytes, size: int) -> list[np.ndarray]:
    rest = data.split(b"\n", 1)[1]
    step = size + len(b"FRAME\n")
    assert len(rest) % step == 0
    return [np.frombuffer(rest, np.uint8, size, at + len(b"FRAME\n")) for at in range(0, len(rest), step)]


def from_command_line(out: Path, environment: dict[str, str], *options: str) -> list[np.ndarray]:
    import av

    command = [sys.executable, "-m", "a2n_video", str(CLIP), str(out), "--codec", "ffv1", "-q", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    with av.open(str(out)) as container:
        return [frame.to_ndarray(format="yuv420p").reshape(-1) for frame in container.decode(video=0)]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> int:
    """The greatest difference in codes; as many frames on both sides."""
    assert len(ours) == len(theirs) > 0
    return max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in zip(ours, theirs, strict=True))


def test_upscale_vpy_gives_the_frames_of_the_command_line(tmp_path: Path, environment: dict[str, str]) -> None:
    text = (ROOT / "examples" / "upscale.vpy").read_text()
    assert "scale=2)" in text
    script = tmp_path / "upscale.vpy"
    script.write_text(text.replace("scale=2)", "scale=2, model='nearest')").replace('"clip.mp4"', repr(str(CLIP))))
    ours = y4m_frames(vspipe(script, environment), 640 * 360 * 3 // 2)
    assert len(ours) == 75
    assert same(ours, from_command_line(tmp_path / "out.mkv", environment, "--model", "nearest")) <= 1


def test_upscale_vpy_needs_no_plugin_that_reads_files(tmp_path: Path, environment: dict[str, str]) -> None:
    """After `pip install .` alone it shows examples/clip.mp4 as it does with bestsource."""
    text = (ROOT / "examples" / "upscale.vpy").read_text().replace("scale=2)", "scale=2, model='nearest')")
    text = text.replace('"clip.mp4"', repr(str(CLIP)))
    assert 'hasattr(core, "bs")' in text
    (tmp_path / "with.vpy").write_text(text)
    (tmp_path / "without.vpy").write_text(text.replace('hasattr(core, "bs")', "False"))
    assert vspipe(tmp_path / "without.vpy", environment) == vspipe(tmp_path / "with.vpy", environment)


@pytest.mark.slow
def test_upscale_vpy_gives_the_frames_of_the_command_line_with_the_network(tmp_path: Path, environment: dict[str, str]) -> None:
    text = (ROOT / "examples" / "upscale.vpy").read_text()
    script = tmp_path / "upscale.vpy"
    script.write_text(text.replace("scale=2)", "scale=2, dtype='float32', batch_size=1)").replace('"clip.mp4"', repr(str(CLIP))))
    ours = y4m_frames(vspipe(script, environment, "-e", "2"), 640 * 360 * 3 // 2)
    options = ("--engine", "torch", "--dtype", "float32", "--batch-size", "1", "--frames", "3")
    assert same(ours, from_command_line(tmp_path / "out.mkv", environment, *options)) <= 1


@pytest.mark.parametrize("name", ["upscale", "encode", "denoise"])
def test_every_example_runs_in_its_own_folder(name: str, environment: dict[str, str]) -> None:
    data = vspipe(ROOT / "examples" / f"{name}.vpy", environment, "-e", "0")
    assert data.startswith(b"YUV4MPEG2 ")
    assert b" W640 H360 F25:1 " in data.split(b"\n", 1)[0]
