"""Mutated sources: no crash, no hang, and never exit 0 with fewer frames than a plain decoder makes of them.

The complete forms, 20 seeds of 500 and 5 of 300 (about ten minutes): `pytest -m slow tests/job/test_hostile_mutants.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video.errors import UnsupportedFormatError
from a2n_video.job.run import upscale_video
from tests.job.child import ROOT
from tests.made import make_source

HANG_S = 30.0


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mutants")
    audio = {"avi": "mp3"}
    boxes = {"mkv": "libx264", "mp4": "libx264", "ts": "libx264", "avi": "mpeg4", "webm": "libvpx-vp9", "mov": "libx265"}
    return [
        make_source(folder / f"a.{box}", pts=range(16), codec=codec, audio=() if box == "webm" else (audio.get(box, "aac"),))
        for box, codec in boxes.items()
    ]


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sources whose sound and text no WebM holds."""
    folder = tmp_path_factory.mktemp("rich")
    words = [(Fraction(n, 10), Fraction(n, 10) + Fraction(1, 12), f"cue {n} <i>x</i>") for n in range(6)]
    return [
        make_source(folder / "a.mkv", pts=range(16), audio=("flac",), subtitles=words, chapters=[(Fraction(0), Fraction(1, 4), "one")]),
        make_source(folder / "b.mkv", pts=range(16), audio=("aac", "ac3"), subtitles=words),
        make_source(folder / "c.mov", pts=range(16), audio=("alac",)),
        make_source(folder / "d.ts", pts=range(16), audio=("mp2",)),
    ]


def outcomes(folder: Path, seed: int, count: int, sources: list[Path], suffix: str = "mkv") -> list[dict[str, Any]]:
    """What became of each mutant; a process that died is begun anew after the one that killed it, which is marked so."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.job.fuzz_child",
                str(folder),
                str(seed),
                str(len(found)),
                str(count - len(found)),
                suffix,
                *map(str, sources),
            ],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=HANG_S * count,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found += [line for line in lines if "code" in line]
        if done.returncode:
            assert len(lines) % 2, done.stderr  # died within a mutant
            found.append(
                {
                    "number": lines[-1]["begin"],
                    "code": done.returncode,
                    "frames": 0,
                    "decodable": 0,
                    "seconds": 0.0,
                    "error": done.stderr[-600:],
                }
            )
    return found


def check(found: list[dict[str, Any]], codes: tuple[int, ...] = (0, 3, 4)) -> None:
    strange = [line for line in found if line["code"] not in codes]
    assert not strange, strange
    short = [line for line in found if line["code"] == 0 and line["frames"] < line["decodable"]]
    assert not short, short[:3]
    assert max(line["seconds"] for line in found) < HANG_S


def test_a_hundred_mutants(sources: list[Path], tmp_path: Path) -> None:
    found = outcomes(tmp_path, 0, 100, sources)
    check(found)
    codes = [line["code"] for line in found]
    assert {0, 3, 4} <= set(codes), codes  # the mutations do bite


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(1, 21))
def test_five_hundred_mutants(sources: list[Path], tmp_path: Path, seed: int) -> None:
    check(outcomes(tmp_path, seed, 500, sources))


def check_conversions(found: list[dict[str, Any]]) -> None:
    """A result that does not match what its damaged source says is refused (7): seldom."""
    check(found, (0, 3, 4, 7))
    assert sum(line["code"] == 7 for line in found) <= len(found) / 100, [line["error"] for line in found if line["code"] == 7]


def test_mutants_whose_sound_and_text_are_made_anew(rich: list[Path], tmp_path: Path) -> None:
    found = outcomes(tmp_path, 0, 60, rich, "webm")
    check_conversions(found)
    assert {0, 3, 4} <= {line["code"] for line in found}


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(1, 6))
def test_three_hundred_mutants_whose_sound_and_text_are_made_anew(rich: list[Path], tmp_path: Path, seed: int) -> None:
    check_conversions(outcomes(tmp_path, seed, 300, rich, "webm"))


def test_frames_too_fast_for_the_container_are_refused_before_the_first_one(tmp_path: Path) -> None:
    """As a damaged rate in an AVI header makes them; a real camera of 5,000 frames a second can be written to MP4."""
    source = make_source(tmp_path / "fast.mp4", pts=range(0, 160, 20), time_base=Fraction(1, 100_000), audio=())
    with pytest.raises(UnsupportedFormatError, match="mp4, mov or nut"):
        upscale_video(source, tmp_path / "out.mkv", model="nearest")
    assert upscale_video(source, tmp_path / "out.mp4", model="nearest").exit_code == 0
