"""The network alone on this CPU: the plain published module in float32 beside our engines, on the same frame, in one run.

    python -m tests.benchmarks.cpu [--weights FILE] [--size 640x360] [--rounds 5] [--threads N] [--only NAME...] [--json]

Rounds are interleaved; a row gives the median, its spread, and the ratio to the plain module. `of matmul` is the share of what one large
matrix product (bfloat16 where the processor has it) reaches in the same run, `of peak` of what the cores can do in registers
with bfloat16 (peak.c, where it can be built and run). Multiplications are counted as published: the native network needs fewer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from a2n_video.engine.cpu import cpu_strip_rows, has_bfloat16, lowered
from a2n_video.engine.memory import in_strips
from a2n_video.engine.native import has_native
from a2n_video.engine.select import has_openvino
from a2n_video.net.fuse import bilinear
from a2n_video.net.model import A2N
from a2n_video.net.weights import load_model
from tests.benchmarks.rows import show

MATMUL = 3072
PLAIN, PRODUCT = "plain float32", "matmul"


def macs_per_pixel(model: A2N) -> int:
    """Multiply-adds for one input pixel, counted on the plain module's convolutions at a small size."""
    total = 0

    def count(module: torch.nn.Module, _: object, y: torch.Tensor) -> None:
        nonlocal total
        total += module.weight[0].numel() * y.numel() // (16 * 16)  # type: ignore[operator, union-attr]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    model(torch.rand(1, 3, 16, 16))
    for hook in hooks:
        hook.remove()
    return total


def openvino_runner(model: A2N, shape: tuple[int, ...], dtype: str, threads: int) -> Callable[[], object]:
    from a2n_video.engine.openvino import compiled

    request = compiled(model, shape, dtype, threads).create_infer_request()
    x = torch.rand(shape)

    def run() -> object:
        correction = request.infer([x.numpy()], share_inputs=True, share_outputs=True)[0]
        return bilinear(x, model.config.scale).add_(torch.from_numpy(correction))

    return run


def native_runner(model: A2N, x: torch.Tensor, threads: int) -> Callable[[], object]:
    from a2n_video.engine.native.library import Network

    network, scale = Network(model, threads), model.config.scale
    result = torch.empty((3, x.shape[2] * scale, x.shape[3] * scale))
    return lambda: network.run(x[0], result)


def contestants(model: A2N, width: int, height: int, threads: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """What can be run, by name: each makes its runner."""
    shape = (1, 3, height, width)
    x = torch.rand(shape)
    rows = cpu_strip_rows(width)

    def product() -> Callable[[], object]:
        dtype = torch.bfloat16 if has_bfloat16() else torch.float32
        left, right = (torch.rand(MATMUL, MATMUL, dtype=dtype) for _ in range(2))
        return lambda: left @ right

    def in_torch(dtype: str, strip_rows: int) -> Callable[[], object]:
        net = lowered(model, getattr(torch, dtype))
        return lambda: in_strips(net, x, strip_rows)

    makers: dict[str, Callable[[], Callable[[], object]]] = {PLAIN: lambda: lambda: model(x), PRODUCT: product}
    for dtype in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
        makers[f"torch {dtype}"] = partial(in_torch, dtype, 0)
        makers[f"torch {dtype} strips of {rows}"] = partial(in_torch, dtype, rows)
        makers[f"openvino {dtype}"] = partial(openvino_runner, model, shape, dtype, threads)
    if has_native():
        makers["native float32"] = partial(native_runner, model, x, threads)
    makers["openvino int8"] = partial(openvino_runner, model, shape, "int8", threads)
    return makers if has_openvino() else {name: make for name, make in makers.items() if not name.startswith("openvino")}


def bfloat16_peak(threads: int) -> float | None:
    """GMAC/s of products in registers, or None without a C compiler or the instruction."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not torch.cpu._is_avx512_bf16_supported():
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        source = Path(__file__).with_name("peak.c")
        subprocess.run([compiler, "-O2", str(source), "-o", str(program), "-lpthread"], check=True)
        return float(subprocess.run([str(program), str(threads)], check=True, capture_output=True, text=True).stdout)


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round for every contestant, a warm-up round left out."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if i:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table(seconds: dict[str, list[float]], gmac: float, peak: float | None) -> list[dict[str, object]]:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    matmul = MATMUL**3 / 1e9 / medians.pop(PRODUCT)
    return [
        {
            "run": name,
            "seconds": round(median, 4),
            "spread": round((max(seconds[name]) - min(seconds[name])) / median, 3),
            "gmac_per_s": round(gmac / median, 1),
            "of_matmul": round(gmac / median / matmul, 3),
            "of_peak": None if peak is None else round(gmac / median / peak, 3),
            "times_plain": round(medians[PLAIN] / median, 2),
        }
        for name, median in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="a2n", help="a bundled model or a file (default: a2n)")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--only",
        nargs="+",
        default=["torch", "openvino", "native"],
        help="beside the plain module and the product: rows whose names begin so",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = (int(n) for n in args.size.split("x"))
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        model = load_model(args.weights, args.scale)
        gmac = macs_per_pixel(model) * width * height / 1e9
        makers = contestants(model, width, height, args.threads)
        runs = {name: make() for name, make in makers.items() if name in (PLAIN, PRODUCT) or name.startswith(tuple(args.only))}
        rows = table(measure(runs, args.rounds), gmac, bfloat16_peak(args.threads))
    show(rows, as_json=args.json)


if __name__ == "__main__":
    main()
