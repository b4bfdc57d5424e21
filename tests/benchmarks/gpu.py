"""What is still unknown about a card: frames a second by size, layout, batch, graph and compilation, with and without transfers.

    python -m tests.benchmarks.gpu                 about ten minutes; --full tries graph and compilation with every layout and batch
    python -m tests.benchmarks.gpu --dry-run       small frames and a small network without a device: shows that the script runs

"network" is the compute stream alone; "engine" is submit to rows: packing, upload, computation, download and copying out, no codec.
Weights do not change the speed, so they are made up. Figures are medians of several runs, with (most - least) / median.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from a2n_video.engine.accelerator import AcceleratorEngine, open_pipeline
from a2n_video.engine.backend import Backend, TorchBackend
from a2n_video.engine.network_step import GraphedStep
from a2n_video.engine.pipeline import Pipeline
from a2n_video.engine.protocol import Geometry
from a2n_video.errors import A2NVideoError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes
from a2n_video.net.model import A2N, A2NConfig
from a2n_video.options import ExecutionPlan
from tests.engine.host_backend import HostBackend
from tests.engine.pipelines import run

SIZES: Final = {"540p": (960, 540), "720p": (1280, 720), "1080p": (1920, 1080)}
DRY_SIZES: Final = {"540p": (32, 18), "720p": (40, 24), "1080p": (64, 36)}
LAYOUTS: Final = ("nchw", "nhwc")
# Computed limits of the paper's x2 network in frames a second at 1920x1080, by a part of the card's name; the work goes with the pixels.
LIMITS_1080P: Final = {
    "H100": {"compute": 182.0, "memory, eager": 27.0, "memory, pointwise fused": 40.0, "memory, two kernels a block": 142.0},
    "4090": {"compute": 38.0},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration."""

    size: str
    layout: Literal["nchw", "nhwc"]
    batch: int
    graph: bool = False
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Frames a second: median of several runs, and (most - least) / median."""

    fps: float = 0.0
    spread: float = 0.0

    @classmethod
    def of(cls, runs: Sequence[float]) -> Speed:
        median = statistics.median(runs)
        return cls(fps=median, spread=(max(runs) - min(runs)) / median)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A case's figures, or in `error` why it has none. `shares` are of the network's speed in the card's computed limits."""

    case: Case
    network: Speed = Speed()
    engine: Speed = Speed()
    shares: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how long cases are timed."""

    backend: Callable[[], Backend]
    device: str
    card: str
    sizes: dict[str, tuple[int, int]]
    model: A2N
    dtype: str
    seconds: float
    repeats: int

    def measure(self, case: Case) -> Result:
        """Time one case; what fails (memory, a compiler) is noted, and the next case starts from freed memory."""
        try:
            return self._measured(case)
        except (A2NVideoError, RuntimeError) as error:
            return Result(case=case, error=str(error).splitlines()[0])
        finally:
            gc.collect()
            torch.compiler.reset()
            if self.device != "cpu":
                torch.get_device_module(self.device).empty_cache()

    def _measured(self, case: Case) -> Result:
        fmt = PlaneFormat(width=self.sizes[case.size][0], height=self.sizes[case.size][1], family="yuv", log2_chroma_w=1, log2_chroma_h=1)
        geometry = Geometry(source=fmt, color=ColorSpec().settled(fmt), scale=2)
        network: list[float] = []
        notes: list[str] = []

        def open_and_time() -> Pipeline:
            pipeline = open_pipeline(self.backend(), self.model, geometry, self._plan(case))
            if case.graph and not isinstance(pipeline.fast.step, GraphedStep):
                notes.append("no graph, eager")
            network.extend(_network_fps(pipeline, self.seconds) for _ in range(self.repeats))
            return pipeline

        with closing(AcceleratorEngine(geometry, case.batch, open_and_time)) as engine:
            runs = [_engine_fps(engine, self.seconds) for _ in range(self.repeats)]
            if engine.stats().oom_recoveries:
                notes.append(f"{engine.stats().oom_recoveries} out of memory")
        speed = Speed.of(network)
        return Result(case=case, network=speed, engine=Speed.of(runs), shares=self._shares(case, speed.fps), notes=tuple(notes))

    def _plan(self, case: Case) -> ExecutionPlan:
        base = ExecutionPlan(model="weights", engine="accelerator", device=self.device, dtype=self.dtype, batch_size=case.batch)
        return replace(base, layout=case.layout, compile=case.compile, cuda_graph=case.graph)

    def _shares(self, case: Case, fps: float) -> dict[str, float]:
        width, height = self.sizes[case.size]
        limits = next((limits for name, limits in LIMITS_1080P.items() if name in self.card), {})
        return {name: fps * width * height / (1920 * 1080) / limit for name, limit in limits.items()}


def _network_fps(pipeline: Pipeline, seconds: float) -> float:
    """Frames a second of the fast step alone, on the thread that made the pipeline."""
    rows, out = pipeline.inputs[0].device, pipeline.device_outputs[0]
    frames, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds or not frames:
        for _ in range(4):  # enough to keep the stream busy while the next are asked for
            pipeline.fast(rows, out.rows, out.flags)
        pipeline.backend.synchronize()
        frames += 4 * pipeline.batch_size
    return frames / taken


def _engine_fps(engine: AcceleratorEngine, seconds: float) -> float:
    """Frames a second from `submit` to rows in the caller's memory."""
    fmt = engine.geometry.source
    noise = np.random.default_rng(0).integers(16, 235, fmt.samples, np.uint8)
    batch = [fmt.unpack(noise)] * engine.batch_size
    started, frames = time.perf_counter(), 0

    def batches() -> Iterator[list[Planes]]:
        while time.perf_counter() - started < seconds or not frames:
            yield list(batch)

    for rows in run(engine, batches()):
        frames += len(rows)
    return frames / (time.perf_counter() - started)


def sweep(bench: Bench, arguments: argparse.Namespace, report: Callable[[Result], None]) -> list[Result]:
    """Layouts and batches first; graph and compilation then with each size's quickest, or with all."""
    results: list[Result] = []

    def measure(case: Case) -> Result:
        results.append(bench.measure(case))
        report(results[-1])
        return results[-1]

    for size in arguments.sizes:
        plain = [measure(Case(size=size, layout=layout, batch=batch)) for layout, batch in product(arguments.layouts, arguments.batches)]
        bases = plain if arguments.full else [max(plain, key=lambda result: result.engine.fps)]
        for base, (graph, compiled) in product(bases, [(True, False), (False, True), (True, True)]):
            measure(replace(base.case, graph=graph, compile=compiled))
    return results


HEADER: Final = (
    "| size | layout | batch | graph | compile | network fps | spread | engine fps | spread | engine / network | share of limits | note |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def table_row(result: Result) -> str:
    """One line of the Markdown table."""
    case, network, engine = result.case, result.network, result.engine
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result.shares.items())
    note = result.error or ", ".join(result.notes)
    cells = [case.size, case.layout, case.batch, "on" if case.graph else "off", "on" if case.compile else "off"]
    cells += [f"{network.fps:.1f}", f"{network.spread:.0%}", f"{engine.fps:.1f}", f"{engine.spread:.0%}"]
    cells += [f"{engine.fps / network.fps:.0%}" if network.fps else "", shares, note]
    return f"| {' | '.join(map(str, cells))} |"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, xpu")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="write all figures there too")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args(arguments)


def make_bench(arguments: argparse.Namespace) -> Bench:
    torch.manual_seed(0)
    if arguments.dry_run:
        model = A2N(A2NConfig(scale=2, n_features=8, n_upsample_features=8, n_blocks=1)).eval()
        place = {"backend": HostBackend, "device": "cpu", "card": "no card (dry run: these figures mean nothing)"}
        return Bench(**place, sizes=DRY_SIZES, model=model, dtype="float32", seconds=0.01, repeats=2)
    device = torch.device(arguments.device)
    place = {
        "backend": lambda: TorchBackend(device),
        "device": str(device),
        "card": torch.get_device_module(device).get_device_name(device),
    }
    model = A2N(A2NConfig(scale=2)).eval()
    return Bench(**place, sizes=SIZES, model=model, dtype=arguments.dtype, seconds=arguments.seconds, repeats=arguments.repeats)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    bench = make_bench(options)
    print(f"{bench.card}, torch {torch.__version__}, {bench.dtype}, paper's network, x2, yuv420p 8 bit\n", *HEADER, sep="\n")
    results = sweep(bench, options, lambda result: print(table_row(result), flush=True))
    if options.json:
        figures = {"card": bench.card, "torch": torch.__version__, "results": [asdict(result) for result in results]}
        Path(options.json).write_text(json.dumps(figures, indent=1))
    return 1 if all(result.error for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
