"""kill -9 at any point: the same command goes on, and the result is the unbroken run's.

The complete form, 100 random times and 100 named steps: `pytest -m slow tests/job/test_kill.py`.
"""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from a2n_video.job.directory import job_path
from a2n_video.job.journal import Journal
from tests.job import child
from tests.made import decoded, make_source, packets

FRAMES = 80
SEGMENT = 16


@dataclass
class Reference:
    """An unbroken run: its source, arguments, frames, sound, points and seconds."""

    source: Path
    frames: list[tuple[int, object, str]]
    sound: list[tuple[object, object, str]]
    points: list[str]
    seconds: float

    def arguments(self, dest: Path) -> list[str | Path]:
        return [self.source, dest, "--model", "nearest", "--segment-frames", str(SEGMENT), "--preset", "veryfast"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    pts = [40 * n + 3 * (n % 4) for n in range(FRAMES)]
    source = make_source(folder / "in.mkv", pts=pts, time_base=Fraction(1, 1000))
    found = Reference(source, [], [], [], 0.0)
    started = time.monotonic()
    done = child.run(*found.arguments(folder / "out.mkv"), mode="record", point=folder / "points")
    found.seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    found.frames, found.sound = decoded(folder / "out.mkv"), packets(folder / "out.mkv", 1)
    found.points = (folder / "points").read_text().split()
    assert len(found.frames) == FRAMES
    return found


def left_behind(dest: Path) -> dict[str, int]:
    """Frames of each segment in the journal of a killed run; checks that at most one more was begun."""
    folder = job_path(dest)
    if not (folder / "journal.jsonl").exists():
        return {}
    with Journal.open(folder / "journal.jsonl") as journal:
        entered = {record.file: record.frames for record in journal.segments.values()}
    others = [p.name for p in folder.iterdir() if p.suffix in (".nut", ".part") and p.name not in entered]
    assert len(others) <= 1
    return entered


def check_after_kill(reference: Reference, dest: Path) -> None:
    """Run the same command again and hold the result against the unbroken run's."""
    if dest.exists() and not job_path(dest).exists():
        assert decoded(dest) == reference.frames  # killed once all was done
        return
    if dest.exists():  # killed while the job's folder was being removed
        done = child.run(*reference.arguments(dest))
        assert done.returncode == 0, done.stderr
        assert decoded(dest) == reference.frames
        assert not job_path(dest).exists()
        return
    entered = left_behind(dest)
    kept = dest.with_suffix(".kept")
    kept.mkdir()
    for name in entered:
        os.link(job_path(dest) / name, kept / name)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept.iterdir()}
    done = child.run(*reference.arguments(dest))
    assert done.returncode == 0, done.stderr
    assert decoded(dest) == reference.frames
    assert packets(dest, 1) == reference.sound
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept.iterdir()} == before
    earlier = re.search(r"(\d+) frames, (all|\d+) of them by earlier runs", done.stderr)
    told = 0 if earlier is None else int(earlier[1] if earlier[2] == "all" else earlier[2])
    assert told == sum(entered.values())
    assert not job_path(dest).exists()


def kill_at(reference: Reference, dest: Path, point: str, nth: int) -> None:
    done = child.run(*reference.arguments(dest), mode="kill", point=point, nth=nth)
    assert done.returncode == -9, done.stderr
    check_after_kill(reference, dest)


def kill_after(reference: Reference, dest: Path, seconds: float) -> None:
    process = child.start(*reference.arguments(dest))
    time.sleep(seconds)
    process.kill()
    process.communicate()
    check_after_kill(reference, dest)


def named_steps(points: list[str], count: int) -> list[tuple[str, int]]:
    """Points and how often they are reached before the strike: every name first and last, then evenly more."""
    steps = [(point, points[: place + 1].count(point)) for place, point in enumerate(points)]
    ends = {step for name in set(points) for step in ((name, 1), (name, points.count(name)))}
    rest = [step for step in steps if step not in ends]
    more = max(0, count - len(ends))
    return [*sorted(ends), *rest[:: max(1, len(rest) // more) if more else len(rest) + 1]][:count]


def test_every_kind_of_point_is_on_the_way(reference: Reference) -> None:
    names = set(reference.points)
    steps = ("write", "fsync", "rename")
    assert {f"{role}.{step}.{when}" for role in ("segment", "result") for step in steps for when in ("before", "after")} <= names
    assert {"journal.append.before", "journal.append.after"} <= names


def test_killed_at_named_steps(reference: Reference, tmp_path: Path) -> None:
    names = ["journal.append.before", "journal.append.after", "segment.rename.before", "segment.rename.after"]
    chosen = [(name, 3) for name in names] + [("segment.write.before", 5), ("segment.fsync.after", 2)]
    chosen += [("result.write.after", 2), ("result.rename.before", 1), ("result.rename.after", 1), ("journal.append.after", 7)]
    for number, (point, nth) in enumerate(chosen):
        kill_at(reference, tmp_path / f"{number}.mkv", point, nth)


def test_killed_at_random_times(reference: Reference, tmp_path: Path) -> None:
    rng = random.Random(7)
    for number in range(10):
        kill_after(reference, tmp_path / f"{number}.mkv", rng.uniform(0.3, 1.05) * reference.seconds)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_a_hundred_named_steps(reference: Reference, tmp_path: Path) -> None:
    chosen = named_steps(reference.points, 100)
    for number, (point, nth) in enumerate(chosen):
        kill_at(reference, tmp_path / f"{number}.mkv", point, nth)
    assert len(chosen) == 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100))
def test_killed_at_a_hundred_random_times(reference: Reference, tmp_path: Path, seed: int) -> None:
    kill_after(reference, tmp_path / "out.mkv", random.Random(seed).uniform(0.1, 1.1) * reference.seconds)
