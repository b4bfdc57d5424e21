"""Closing a reader midway. (What it reads: tests/test_timing.py, tests/job/test_damage.py.)"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.made import make_source

CLOSE_EARLY = """
import logging, sys
import av.logging
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader

logging.disable(logging.CRITICAL)
info = probe(sys.argv[1])
time_map = scan(sys.argv[1], info).time_map
av.logging.set_level(av.logging.ERROR)  # as a program around may, or a scan in another thread
for k in range(60):
    with VideoReader(sys.argv[1], info=info, time_map=time_map) as reader:
        next(frame for number, frame in enumerate(reader) if number == k % 20)
"""


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = make_source(tmp_path / "damaged.mkv", pts=range(60), codec="libx264")
    data, chance = bytearray(path.read_bytes()), random.Random(1)
    for _ in range(300):
        data[chance.randrange(2000, len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return path


def test_a_decoder_whose_threads_have_something_to_say_can_be_closed(damaged: Path) -> None:
    """In a process of its own: without `decoding`'s care it hangs for ever, the GIL held."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSE_EARLY, str(damaged)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
