"""What the pipeline costs beside the network: frames a second through everything but it, each stage alone, and a whole job.

    python -m tests.benchmarks.pipeline [identity] [stages] [job] [repeats] [memory] [--frames 240] [--model a2n] [--job-frames 12] [--json]

identity: 1080p, decode -> planes -> RGB -> planes -> null, with a network that changes nothing at x1.
stages:   nanoseconds per output pixel of each stage at x2, one after the other in one thread each.
job:      640x360 file to file against the bare network on the same frames: what decoding, colour, encoding and checking add.
repeats:  the rate with every frame shown twice against the rate of frames that all differ.
memory:   10,000 frames of 64x64 through the engine: how much resident memory they add.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from a2n_video.engine.color import ColorConverter
from a2n_video.engine.protocol import Engine, Geometry, Rows
from a2n_video.engine.select import open_engine, resolve_plan
from a2n_video.engine.worker import WorkerEngine
from a2n_video.frames import adapter_of
from a2n_video.io.reader import VideoReader
from a2n_video.job.run import upscale_video
from a2n_video.job.stages import Stages
from a2n_video.options import ModelOptions
from a2n_video.upscaler import Upscaler
from tests.benchmarks.rows import show

TIME_BASE = Fraction(1, 25)


def make_clip(path: Path, width: int, height: int, frames: int) -> Path:
    """A moving picture with grain, as H.264."""
    rng = np.random.default_rng(0)
    grain = rng.integers(-6, 7, (height + 64, width + 64)).astype(np.int16)
    y, x = np.mgrid[: height + 256, : width + 256]
    base = (128 + 50 * np.sin(x / 23) * np.cos(y / 31) + 40 * np.sin((x + y) / 7)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            step = i % 128
            gray = base[step : step + height, 2 * step : 2 * step + width][:height, :width]
            gray = (gray + grain[i % 64 : i % 64 + height, i * 7 % 64 : i * 7 % 64 + width]).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([gray, np.roll(gray, 9, 1), 255 - gray], 2), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class IdentityCompute:
    """Planes -> RGB -> planes, pixels repeated in between at scales above 1; see `WorkerEngine`."""

    def __init__(self, geometry: Geometry, threads: int) -> None:
        torch.set_num_threads(threads)
        self._scale = geometry.scale
        self._source, self._target = (ColorConverter(fmt, geometry.color) for fmt in (geometry.source, geometry.target))

    def start(self, rows: Rows) -> Callable[[], Rows]:
        return partial(self._result, rows)

    def recoveries(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is held."""

    def _result(self, rows: Rows) -> Rows:
        with torch.inference_mode():
            rgb = self._source.to_rgb(torch.from_numpy(rows))
            large = F.interpolate(rgb, scale_factor=self._scale, mode="nearest") if self._scale > 1 else rgb
            return self._target.to_rows(large).numpy()


class IdentityUpscaler(Upscaler):
    """The product's upscaler around the engine above."""

    def engine(self, geometry: Geometry) -> Engine:
        if self._engine is None:
            self._engine = WorkerEngine(geometry, 1, lambda: IdentityCompute(geometry, 1))
        return self._engine


def null_sink(frames: Iterator[av.VideoFrame]) -> int:
    """FFmpeg's null muxer, fed as an encoder would be."""
    count = 0
    with av.open("null", "w", format="null") as container:
        stream = container.add_stream("rawvideo", rate=25)
        for frame in frames:
            if not count:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
            container.mux(stream.encode(frame))
            count += 1
    return count


def identity(folder: Path, frames: int) -> dict[str, object]:
    clip = make_clip(folder / "1080.mp4", 1920, 1080, frames)
    rates = []
    for _ in range(3):
        with VideoReader(clip) as reader, IdentityUpscaler(scale=1) as upscaler:
            started = time.perf_counter()
            with Stages() as stages:
                results = stages.prefetch(upscaler.upscale_frames(stages.prefetch(iter(reader), 4, "decode")), 4, "upscale")
                assert null_sink(results) == frames
            rates.append(frames / (time.perf_counter() - started))
            assert upscaler.repeated == 0
    return {"what": "identity 1080p x1", "fps": round(statistics.median(rates), 1), "all": [round(rate, 1) for rate in rates]}


def timed(work: Callable[[], object], pixels: int, rounds: int = 7) -> float:
    """Nanoseconds per output pixel, the median of some rounds."""
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds[1:]) / pixels * 1e9, 3)


def stages(folder: Path) -> dict[str, object]:
    clip = make_clip(folder / "720.mp4", 1280, 720, 24)
    with VideoReader(clip) as reader:
        started = time.perf_counter()
        decoded = list(reader)
        decode_s = time.perf_counter() - started
    adapter = adapter_of(decoded[0])
    source, color = adapter.describe(decoded[0])
    geometry = Geometry(source=source, color=color, scale=2)
    target, pixels = geometry.target, geometry.target.width * geometry.target.height
    row = np.empty((1, source.samples), source.dtype)
    converters = ColorConverter(source, color), ColorConverter(target, color)
    with torch.inference_mode():
        rgb = converters[0].to_rgb(torch.from_numpy(row))
        large = F.interpolate(rgb, scale_factor=2.0, mode="nearest")
        result = converters[1].to_rows(large).numpy()
        found = {
            "decode": round(decode_s / len(decoded) / pixels * 1e9, 3),
            "pack": timed(lambda: source.pack(adapter.planes(decoded[0]), row[0]), pixels),
            "planes to RGB": timed(lambda: converters[0].to_rgb(torch.from_numpy(row)), pixels),
            "RGB to planes": timed(lambda: converters[1].to_rows(large), pixels),
            "wrap": timed(lambda: adapter.wrap(result[0], target, adapter.note(decoded[0])), pixels),
        }
    return {"what": "stages 720p x2, ns per output pixel", **found, "binds": max(found, key=lambda name: found[name])}


def job(folder: Path, model: str, frames: int) -> dict[str, object]:
    clip = make_clip(folder / "360.mp4", 640, 360, frames)
    with VideoReader(clip) as reader:
        decoded = list(reader)
    adapter = adapter_of(decoded[0])
    source, color = adapter.describe(decoded[0])
    geometry = Geometry(source=source, color=color, scale=2)
    plan = resolve_plan(ModelOptions(model=model), geometry)
    bare, whole, piped = [], [], []
    engine = open_engine(plan, geometry)
    planes = [adapter.planes(frame) for frame in decoded]
    engine.submit(planes[: plan.batch_size]).result()
    for _ in range(2):
        started = time.perf_counter()
        futures = [engine.submit(planes[i : i + plan.batch_size]) for i in range(0, frames, plan.batch_size)]
        assert sum(len(future.result()) for future in futures) == frames
        bare.append(time.perf_counter() - started)
        with VideoReader(clip) as reader, Upscaler(model) as upscaler:
            upscaler._engine = engine
            started = time.perf_counter()
            with Stages() as stages:
                results = stages.prefetch(upscaler.upscale_frames(stages.prefetch(iter(reader), 4, "decode")), 4, "upscale")
                assert null_sink(results) == frames
            piped.append(time.perf_counter() - started)
            upscaler._engine = None
        started = time.perf_counter()
        upscale_video(clip, folder / "out.mkv", model=model, overwrite=True, resume=False)
        whole.append(time.perf_counter() - started)
    engine.close()
    network_s, pipe_s, job_s = (statistics.median(x) for x in (bare, piped, whole))
    return {
        "what": f"job 640x360 x2, {frames} frames, engine {plan.engine} {plan.dtype}",
        "engine_s": round(network_s, 2),
        "pipeline_to_null_s": round(pipe_s, 2),
        "file_to_file_s": round(job_s, 2),
        "pipeline_overhead": round(pipe_s / network_s - 1, 4),
        "job_overhead": round(job_s / network_s - 1, 4),
    }


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def noise_frames(count: int, width: int, height: int, shown: int = 1) -> Iterator[npt.NDArray[np.uint8]]:
    """RGB arrays, each given `shown` times."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        frame = rng.integers(0, 256, (height, width, 3), np.uint8)
        for _ in range(shown):
            yield frame


def repeats(model: str, count: int = 24) -> dict[str, object]:
    rates: dict[int, list[float]] = {1: [], 2: []}
    with Upscaler(model) as upscaler:
        list(upscaler.upscale_frames(noise_frames(4, 320, 180)))
        for _ in range(3):
            for shown, found in rates.items():
                started = time.perf_counter()
                frames = sum(1 for _ in upscaler.upscale_frames(noise_frames(count // shown, 320, 180, shown)))
                found.append(frames / (time.perf_counter() - started))
    distinct, held = (statistics.median(found) for found in rates.values())
    return {
        "what": "every frame twice, 320x180",
        "fps_distinct": round(distinct, 2),
        "fps": round(held, 2),
        "times": round(held / distinct, 3),
    }


def memory(frames: int = 10_000) -> dict[str, object]:
    at, resident = [], []
    with Upscaler("a2n-tiny") as upscaler:
        for n, _ in enumerate(upscaler.upscale_frames(noise_frames(frames, 64, 64))):
            if n >= frames // 10 and n % 100 == 0:
                at.append(n)
                resident.append(resident_bytes())
    slope = float(np.polyfit(at, resident, 1)[0]) * frames
    return {"what": f"{frames} frames 64x64", "slope_mb_per_run": round(slope / 1e6, 2), "resident_mb": round(resident[-1] / 1e6)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="identity, stages, job, repeats, memory (default: all)")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--model", default="a2n")
    parser.add_argument("--job-frames", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers = {
            "identity": lambda: identity(folder, args.frames),
            "stages": lambda: stages(folder),
            "job": lambda: job(folder, args.model, args.job_frames),
            "repeats": lambda: repeats(args.model),
            "memory": memory,
        }
        rows = [makers[part]() for part in args.parts or makers]
    show(rows, as_json=args.json)


if __name__ == "__main__":
    main()
