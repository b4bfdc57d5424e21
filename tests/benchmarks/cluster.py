"""What several workers cost beside their work: on four one-core nodes on loopback, with a network that only sleeps (50 ms a frame).

    python -m tests.benchmarks.cluster [scaling] [overhead] [large] [plan] [--rounds 3] [--frames 400] [--json]

scaling:  one, two, four workers on one file; start-up, work and joining apart, the work's speed-up over one worker.
overhead: seconds a segment costs beside its frames, by where they go, with files shared and shipped, and joining.
large:    milliseconds a megabyte of the result, for checking at the driver, joining with verification, and the way through Ray.
plan:     one file and an archive on many cards by the formula of job/cluster/README.md, with what `overhead` measures (also as it is
          printed there); nothing of it was run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from a2n_video.job.cluster.distributed import DistributedMaker
from a2n_video.job.cluster.shares import Pace, lengths
from a2n_video.job.cluster.worker import Made
from a2n_video.job.planning.plan import prepare
from a2n_video.job.run import run
from a2n_video.options import JobOptions
from tests.benchmarks.pipeline import make_clip
from tests.made import make_source
from tests.sleeper import FRAME_S, Sleeper, loopback_cluster

WORKERS = (1, 2, 4)


@dataclass
class Costs:
    """Seconds of one job and of its segments."""

    start_s: float = 0.0
    work_s: float = 0.0
    idle_s: float = 0.0  # of all workers: waiting for Ray, the driver, and at the end for the last
    join_s: float = 0.0
    bytes: int = 0
    frames: list[int] = field(default_factory=list)
    made_s: list[float] = field(default_factory=list)  # at the worker
    segment_s: list[float] = field(default_factory=list)  # of that, beside the frames: open, seek, close, hash at the worker
    check_s: list[float] = field(default_factory=list)  # at the driver: hash, scan, journal
    ship_s: list[float] = field(default_factory=list)  # at the driver: cutting the source


class Timed(DistributedMaker):
    """The product's driver with a clock; begins once all its workers are there."""

    costs: Costs

    def make(self, *arguments: Any) -> None:
        self._began = time.monotonic()
        super().make(*arguments)

    def collect(self, crew: Any, on_progress: Any) -> None:
        while crew._joining:
            crew.wait(0.1)
        started = time.monotonic()
        self.costs.start_s = started - self._began
        super().collect(crew, on_progress)
        self.costs.work_s = time.monotonic() - started
        self.costs.idle_s = self.costs.work_s * len(crew.members) - sum(self.costs.made_s)

    def _received(self, number: int, worker: int, made: Made, crew: Any) -> None:
        started = time.monotonic()
        super()._received(number, worker, made, crew)
        costs = self.costs
        costs.check_s.append(time.monotonic() - started)
        costs.made_s.append(made.seconds)
        costs.segment_s.append(made.seconds - FRAME_S * made.record.frames)
        costs.frames.append(made.record.frames)
        costs.bytes += made.record.size

    def _shipped(self, number: int) -> bytes | None:
        started = time.monotonic()
        data = super()._shipped(number)
        self.costs.ship_s.append(time.monotonic() - started)
        return data


def job(source: Path, folder: Path, workers: int, **changes: Any) -> Costs:
    """One job on so many warm workers."""
    costs = Costs()

    def maker(*arguments: Any) -> Timed:
        made = Timed(*arguments, worker=Sleeper)
        made.costs = costs
        return made

    options = JobOptions().with_changes(model="nearest", ray=True, devices=("cpu",) * workers, overwrite=True, **changes)
    started = time.monotonic()
    run(prepare(source, folder / "out.mkv", options), make=maker)
    costs.join_s = time.monotonic() - started - costs.start_s - costs.work_s
    return costs


def scaling(source: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Interleaved rounds; medians."""
    found: dict[tuple[str, int], list[Costs]] = {}
    for _ in range(rounds):
        for cut, frames in (("by speed", None), ("20 frames", 20)):
            for workers in WORKERS:
                found.setdefault((cut, workers), []).append(job(source, folder, workers, segment_frames=frames, codec="ffv1"))
    rows = []
    for (cut, workers), all_costs in found.items():
        ratios = [one.work_s / costs.work_s for one, costs in zip(found[cut, 1], all_costs, strict=True)]
        row = {"cut": cut, "workers": workers, "segments": len(all_costs[0].frames)}
        row |= {
            name: round(statistics.median(getattr(c, name) for c in all_costs), 2) for name in ("start_s", "work_s", "idle_s", "join_s")
        }
        row["segment_ms"] = round(statistics.median(s for costs in all_costs for s in costs.segment_s) * 1e3, 1)
        rows.append({**row, "times_one": round(statistics.median(ratios), 2), "all": [round(ratio, 2) for ratio in ratios]})
    return rows


def overhead(source: Path, folder: Path) -> list[dict[str, Any]]:
    """Milliseconds a segment, medians, on four workers; joining from jobs of few and of many segments."""
    rows = []
    for ship in (False, True):
        many, few = (job(source, folder, 4, segment_frames=n, codec="libx264", ship=ship) for n in (10, 100))
        parts = {name: statistics.median(getattr(many, name)) * 1e3 for name in ("segment_s", "check_s", "ship_s")}
        row = {"ship": ship, **{name.replace("_s", "_ms"): round(value, 1) for name, value in parts.items()}}
        row["idle_ms"] = round(many.idle_s / len(many.frames) * 1e3, 1)
        row["join_ms_a_segment"] = round((many.join_s - few.join_s) / (len(many.frames) - len(few.frames)) * 1e3, 1)
        rows.append({**row, "join_s_of_4_segments": round(few.join_s, 2), "bytes_of_4_segments": few.bytes})
    return rows


def large(folder: Path) -> list[dict[str, Any]]:
    """What a byte of the result costs: ffv1 at 1280x720, at the driver and, shipped, on its way through Ray."""
    source = make_clip(folder / "large.mp4", 640, 360, 120)
    rows = []
    for ship in (False, True):
        costs = job(source, folder, 2, segment_frames=15, codec="ffv1", ship=ship)
        row: dict[str, Any] = {"ship": ship, "megabytes": round(costs.bytes / 1e6)}
        for name, seconds in (("check", sum(costs.check_s)), ("join_and_verify", costs.join_s), ("idle", costs.idle_s)):
            row[f"{name}_ms_a_megabyte"] = round(seconds / costs.bytes * 1e9, 2)
        rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a plan is made from, in seconds and frames; the defaults were measured on loopback or assumed, as its README says."""

    frame_s: float = 1 / 30  # of one card: assumed
    beside_s: float = 0.05  # a segment at its worker, beside its frames: measured
    preroll_s: float = 1.0  # seek and decode up to the segment, 1080p: assumed
    driver_s: float = 0.007  # check, journal, cut of one segment at the driver: measured
    join_s: float = 0.001  # of one segment: measured
    frame_bytes: float = 0.1e6  # of the result: assumed, 20 Mbit/s at 25 frames a second
    check_byte_s: float = 4e-9  # the driver reads and hashes each result: measured, file in the page cache
    join_byte_s: float = 4e-9  # joining and verifying: the same
    start_s: float = 15.0  # start actors, load the network: assumed


def file_seconds(frames: int, cards: int, site: Site) -> dict[str, float]:
    """One file on so many cards: the formula of job/cluster/README.md."""
    beside = site.beside_s + site.preroll_s
    parts = [24] * cards + list(lengths(max(0, frames - 24 * cards), [Pace(fps=1 / site.frame_s, overhead_s=beside)] * cards))
    cards_s = frames * site.frame_s / cards + ceil(len(parts) / cards) * beside
    driver_s = len(parts) * site.driver_s + frames * site.frame_bytes * site.check_byte_s
    join = len(parts) * site.join_s + frames * site.frame_bytes * site.join_byte_s
    total = site.start_s + max(cards_s, driver_s) + join
    found = {"segments": len(parts), "cards_s": cards_s, "driver_s": driver_s, "join_s": join, "total_s": total}
    return {**found, "of_ideal": frames * site.frame_s / cards / total}


def plan(site: Site, frames: int = 67_500, files: int = 10_000, cards: int = 1000) -> list[dict[str, Any]]:
    """One file on more and more cards; then an archive on all cards, so many for each file at a time."""
    rows: list[dict[str, Any]] = []
    for some in (1, 2, 4, 8, 16, 32, 64, 128, 1000):
        found = file_seconds(frames, some, site)
        rows.append({"cards_a_file": some, **{name: round(value, 2) for name, value in found.items()}})
        rounds = ceil(files / (cards // some))
        rows[-1]["archive_hours"] = round(rounds * found["total_s"] / 3600, 2)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="scaling, overhead, large, plan (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    parts = args.parts or ["scaling", "overhead", "large", "plan"]
    rows: list[dict[str, Any]] = plan(Site()) if parts == ["plan"] else []
    if not rows:
        with tempfile.TemporaryDirectory() as name, loopback_cluster():
            folder = Path(name)
            source = make_source(folder / "in.mkv", pts=[40 * n for n in range(args.frames)], time_base=Fraction(1, 1000))
            rows += scaling(source, folder, args.rounds) if "scaling" in parts else []
            rows += overhead(source, folder) if "overhead" in parts else []
            rows += large(folder) if "large" in parts else []
        rows += plan(Site()) if "plan" in parts else []
    for row in rows:
        print(json.dumps(row) if args.json else "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
