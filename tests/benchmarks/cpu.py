"""The network alone on this CPU: the plain published module in float32 beside our engines, on the same frame, in one run.

    python tests/benchmarks/cpu.py [--weights FILE] [--size 640x360] [--rounds 5] [--threads N] [--json]

Rounds are interleaved; a row gives the median, its spread, and the ratio to the plain module. `of matmul` is the share of what one large
bfloat16 matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import torch

from a2n_video.engine.cpu import has_bfloat16, lowered
from a2n_video.engine.memory import in_strips
from a2n_video.engine.select import cpu_strip_rows, has_openvino
from a2n_video.net.model import A2N
from a2n_video.net.weights import load_model

MATMUL = 3072


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
    x = torch.rand(shape).numpy()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)


def contestants(model: A2N, width: int, height: int, threads: int) -> dict[str, Callable[[], object]]:
    shape = (1, 3, height, width)
    x = torch.rand(shape)
    left, right = (torch.rand(MATMUL, MATMUL, dtype=torch.bfloat16) for _ in range(2))
    rows = cpu_strip_rows(width)
    runs: dict[str, Callable[[], object]] = {"plain float32": lambda: model(x), "matmul bfloat16": lambda: left @ right}
    for dtype in ("float32", "bfloat16") if has_bfloat16() else ("float32",):
        net = lowered(model, getattr(torch, dtype))
        runs[f"torch {dtype}"] = lambda net=net: net(x)  # type: ignore[misc]
        runs[f"torch {dtype} strips of {rows}"] = lambda net=net: in_strips(net, x, rows)  # type: ignore[misc]
        if has_openvino():
            runs[f"openvino {dtype}"] = openvino_runner(model, shape, dtype, threads)
    if has_openvino():
        runs["openvino int8"] = openvino_runner(model, shape, "int8", threads)
    return runs


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


def table(seconds: dict[str, list[float]], gmac: float) -> list[dict[str, object]]:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    matmul = MATMUL**3 / 1e9 / medians.pop("matmul bfloat16")
    return [
        {
            "run": name,
            "seconds": round(median, 4),
            "spread": round((max(seconds[name]) - min(seconds[name])) / median, 3),
            "gmac_per_s": round(gmac / median, 1),
            "of_matmul": round(gmac / median / matmul, 3),
            "times_plain": round(medians["plain float32"] / median, 2),
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
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = (int(n) for n in args.size.split("x"))
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        model = load_model(args.weights, args.scale)
        gmac = macs_per_pixel(model) * width * height / 1e9
        rows = table(measure(contestants(model, width, height, args.threads), args.rounds), gmac)
    if args.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
