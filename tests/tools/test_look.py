"""The command line of `look`: errors in one line and before the work, columns in the help."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from a2n_video.tools import ablation, attention, compare, look
from a2n_video.tools.images import png_bytes
from tests.made import make_source

CODES = {
    "no such file": (3, ["attention", "none.mp4", "-o", "out.png"]),
    "no such model": (2, ["attention", "in.mp4", "-o", "out.png", "--model", "none"]),
    "no picture format": (2, ["lam", "in.mp4", "-o", "out.gif"]),
    "no such folder": (5, ["lam", "in.mp4", "-o", "none/out.png"]),
    "the source itself": (5, ["attention", "in.png", "-o", "in.png"]),
    "outside the frame": (2, ["lam", "in.mp4", "-o", "out.png", "--at", "64,0"]),
    "beyond the end": (2, ["attention", "in.mp4", "-o", "out.png", "--at", "9"]),
    "no pictures": (3, ["ablation", ".", "-o", "out.png"]),
    "too small a picture": (3, ["ablation", ".", "-o", "out.png"]),
    "no such scale": (2, ["lam", "in.mp4", "-o", "out.png", "--scale", "0"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look")
    make_source(folder / "in.mp4", pts=range(3), audio=())
    (folder / "in.png").write_bytes(b"a picture")
    return folder


@pytest.mark.parametrize("case", CODES)
def test_errors_are_one_line(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, given = CODES[case]
    if case == "no pictures":
        (folder / "empty").mkdir(exist_ok=True)
        given = ["ablation", "empty", *given[2:]]
    if case == "too small a picture":
        (folder / "tiny").mkdir(exist_ok=True)
        (folder / "tiny" / "a.png").write_bytes(png_bytes(np.zeros((4, 4, 3), np.uint8)))
        given = ["ablation", "tiny", *given[2:]]
    monkeypatch.chdir(folder)
    assert look.main(given) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("a2n_video.tools.look: ")
    assert told.err.count("\n") == 1
    assert (folder / "in.png").read_bytes() == b"a picture"
    assert not (folder / "out.png").exists()


def test_without_matplotlib_it_says_so_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(look, "_model", lambda _: pytest.fail("the network was loaded"))
    assert look.main(["attention", str(folder / "in.mp4"), "-o", str(folder / "out.png")]) == 2
    told = capsys.readouterr().err
    assert "pip install 'a2n-video[plots]'" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(("main", "columns"), [("attention", attention.COLUMNS), ("ablation", ablation.COLUMNS), ("", compare.COLUMNS)])
def test_the_help_tells_every_column(main: str, columns: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        look.main([main, "--help"]) if main else compare.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name, meaning in columns.items():
        assert f"{name}: {meaning}" in told


@pytest.mark.parametrize("given", [["--frames", "0"], ["--frames", "-3"], ["--at", "1:2:3:4"]])
def test_numbers_that_are_none(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        look.main(["attention", "in.mp4", "-o", "out.png", *given])
    assert "is no" in capsys.readouterr().err
