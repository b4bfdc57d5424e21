"""The build hook: a wheel with the filter and the network's library, and a wheel that says why it has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("hatchling")
pytest.importorskip("vapoursynth")
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "vs_plugin", "a2n_video/__init__.py", "a2n_video/engine/native")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As much of the project as a build reads."""
    copy = tmp_path / "tree"
    for name in NEEDED:
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    return copy


def build(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tree / "out")]
    settings = (
        os.environ | {"A2N_REQUIRE_VS_PLUGIN": "0", "A2N_REQUIRE_NATIVE": "0"} | environment
    )  # where it is set for the whole run, as in CI
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=settings, check=False)


def wheel(tree: Path) -> zipfile.ZipFile:
    [path] = (tree / "out").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    empty = tmp_path / "empty"
    empty.mkdir()
    return {"PATH": str(empty), "CC": ""}


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
def test_a_wheel_holds_the_filter_and_its_manifest(tree: Path) -> None:
    assert build(tree, CC="").returncode == 0
    built = wheel(tree)
    assert Path(built.filename or "").name.split("-")[2:4] == ["py3", "none"]
    assert not (built.filename or "").endswith("-any.whl")
    inside = {Path(name).name: name for name in built.namelist() if name.startswith("vapoursynth/plugins/a2n/")}
    library = next(name for name in inside if name.startswith("liba2n."))
    assert set(inside) == {library, "manifest.vs"}
    assert built.read(inside["manifest.vs"]) == b"[VapourSynth Manifest V1]\nliba2n\n"
    data = built.read(inside[library])
    assert b"libstdc++" not in data
    assert b"libpython" not in data


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
def test_a_wheel_holds_the_network_for_processors(tree: Path) -> None:
    assert build(tree, CC="", A2N_REQUIRE_NATIVE="1").returncode == 0
    built = wheel(tree)
    [library] = [name for name in built.namelist() if "liba2n_native" in name]
    assert Path(library).parent == Path("a2n_video/engine/native")
    data = built.read(library)
    assert b"a2n_find_build" in data
    assert not any(name in data for name in (b"libstdc++", b"libpython", b"libgomp"))


def test_either_part_may_fail_alone(tree: Path) -> None:
    (tree / "a2n_video" / "engine" / "native" / "network.c").write_text("#error not today\n")
    done = build(tree, CC="", A2N_REQUIRE_VS_PLUGIN="1")
    assert done.returncode == 0
    names = wheel(tree).namelist()
    assert any("plugins/a2n/liba2n." in name for name in names) and not any("liba2n_native" in name for name in names)
    assert "not today" in done.stdout + done.stderr
    assert build(tree, CC="", A2N_REQUIRE_NATIVE="1").returncode != 0


def test_without_a_compiler_the_wheel_says_what_is_missing_and_how_to_get_it(tree: Path, no_compiler: dict[str, str]) -> None:
    done = build(tree, **no_compiler)
    assert done.returncode == 0
    built = wheel(tree)
    assert (built.filename or "").endswith("-py3-none-any.whl")
    note = built.read("vapoursynth/plugins/a2n/MISSING.txt").decode()
    assert "no C compiler was found" in note
    assert "apt install gcc" in note
    assert "core.a2n was not built" in done.stdout + done.stderr
    assert "code for processors was not built" in done.stdout + done.stderr


def test_a_compiler_that_fails_is_told_of_too(tree: Path) -> None:
    (tree / "vs_plugin" / "broken.c").write_text("#error no\n")
    assert build(tree, CC="").returncode == 0
    assert "#error no" in wheel(tree).read("vapoursynth/plugins/a2n/MISSING.txt").decode()


def test_where_the_filter_must_be_there_its_absence_is_an_error(tree: Path, no_compiler: dict[str, str]) -> None:
    done = build(tree, A2N_REQUIRE_VS_PLUGIN="1", **no_compiler)
    assert done.returncode != 0
    assert "no C compiler was found" in done.stdout + done.stderr


def test_a_build_leaves_nothing_behind_where_it_fails_either(tree: Path, no_compiler: dict[str, str], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert build(tree, A2N_REQUIRE_VS_PLUGIN="1", TMPDIR=str(scratch), **no_compiler).returncode != 0
    assert build(tree, TMPDIR=str(scratch), **no_compiler).returncode == 0
    assert not list(scratch.glob("a2n-build-*"))
