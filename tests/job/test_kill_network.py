"""With the real network: a real clip killed three times, the result equal to the unbroken run's.

It is slow whichever way: `pytest -m slow tests/job/test_kill_network.py`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from a2n_video.job.directory import job_path
from tests.job import child
from tests.made import decoded, packets


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_clip_killed_three_times(shared: Path, tmp_path: Path) -> None:
    source = shared / "clips" / "androidx__sample_with_chapters.mkv"
    options = ["--frames", "60", "--segment-frames", "8", "--model", "auto", "--threads", "1", "--preset", "veryfast"]
    unbroken, killed = tmp_path / "unbroken.mkv", tmp_path / "killed.mkv"
    done = child.run(source, unbroken, *options, timeout=900)
    assert done.returncode == 0, done.stderr
    for segments in (1, 3, 6):
        process = child.start(source, killed, *options)
        while len(list(job_path(killed).glob("*.nut"))) < segments and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        _, err = process.communicate()
        assert process.returncode == -9, err
    done = child.run(source, killed, *options, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "of them by earlier runs" in done.stderr
    assert len(decoded(killed)) == 60
    assert decoded(killed) == decoded(unbroken)
    assert packets(killed, 1) == packets(unbroken, 1)
