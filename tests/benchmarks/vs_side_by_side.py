"""Our filter and vapoursynth-mlrt-ov on the same network and frames, in turns, in one process.

    python -m tests.benchmarks.vs_side_by_side [--size 320x180] [--turns 4] [--dtype auto] [--fused]

Both run on one OpenVINO: it is imported before VapourSynth loads its plugins. Every contender has a graph of its own, so that none finds
another's frames in a cache. With RGBS both take and give the same; with YUV420P8 ours works on the planes, theirs needs a resize on either
side. Seconds a frame, the median of all turns, one frame
at a time and several asked for at once; the greatest difference of the results, in codes of 8 bits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # noqa: F401  before the core: see vs_plugin/README.md
import vapoursynth as vs

from a2n_video.net.catalog import find_model
from a2n_video.net.weights import load_model
from a2n_video.tools import export

ROW = 4
core = vs.core


def moving(width: int, height: int, frames: int) -> Any:
    """YUV420P8, BT.709: waves that move, no two frames alike."""
    y, x = np.mgrid[:height, :width]
    blank = core.std.BlankClip(width=width, height=height, format=vs.YUV420P8, length=frames, keep=True)

    def draw(n: int, f: Any) -> Any:
        frame = f.copy()
        for plane in range(3):
            samples = np.asarray(frame[plane])
            wave = np.sin((x + 5 * n) / (7 + plane)) * np.cos((y - 3 * n) / 11)
            samples[...] = (120 + 60 * wave)[: samples.shape[0], : samples.shape[1]]
        return frame

    return core.std.ModifyFrame(blank, blank, draw).std.SetFrameProps(_Matrix=1, _Range=0)


def contenders(yuv: Any, onnx: Path, dtype: str) -> dict[str, Any]:
    rgb = yuv.resize.Bicubic(format=vs.RGBS)
    options = {"model": "a2n", "dtype": dtype, "batch_size": 1}
    return {
        "RGBS ours": rgb.a2n.Upscale(**options),
        "RGBS mlrt-ov": core.ov.Model(rgb, str(onnx)),
        "YUV420P8 ours": yuv.a2n.Upscale(**options),
        "YUV420P8 mlrt-ov": core.ov.Model(rgb, str(onnx)).resize.Bicubic(format=vs.YUV420P8, matrix_s="709"),
    }


def difference(ours: Any, theirs: Any) -> float:
    """Of frame 0, in codes of 8 bits."""
    with ours.get_frame(0) as a, theirs.get_frame(0) as b:
        step = 255 if a.format.sample_type == vs.FLOAT else 1
        planes = range(a.format.num_planes)
        return max(step * float(np.abs(np.asarray(a[p], np.float32) - np.asarray(b[p], np.float32)).max()) for p in planes)


def one_by_one(clip: Any, first: int) -> float:
    """Seconds for one frame with nothing else asked for, as when a preview is moved."""
    started = time.perf_counter()
    clip.get_frame(first).close()
    return time.perf_counter() - started


def in_a_row(clip: Any, first: int) -> float:
    """Seconds a frame where the next ones are asked for meanwhile, as vspipe does."""
    started = time.perf_counter()
    for frame in clip[first : first + ROW].frames():
        frame.close()
    return (time.perf_counter() - started) / ROW


WAYS = {"one by one": one_by_one, "in a row": in_a_row}


def measure(clips: dict[str, Any], turns: int) -> dict[tuple[str, str], list[float]]:
    """Seconds a frame for every contender and way, contenders in turns; a first turn is not counted."""
    seconds: dict[tuple[str, str], list[float]] = {(name, way): [] for name in clips for way in WAYS}
    for turn in range(turns + 1):
        for name, clip in clips.items():
            for at, (way, run) in enumerate(WAYS.items()):
                taken = run(clip, turn * (ROW + 1) + at)
                if turn:
                    seconds[name, way].append(taken)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--fused", action="store_true")
    args = parser.parse_args()
    width, height = (int(n) for n in args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "a2n.onnx"
        network = load_model(str(find_model("a2n", 2).path), 2)
        onnx.write_bytes(export.onnx_model(network, fused=args.fused).SerializeToString())
        clips = contenders(moving(width, height, (args.turns + 1) * (ROW + 1)), onnx, args.dtype)
        seconds = measure(clips, args.turns)
    for (name, way), values in seconds.items():
        median = statistics.median(values)
        print(f"{name:17} {way:10}  {median:.4f} s/frame  {1 / median:.2f} fps  spread {(max(values) - min(values)) / median:.0%}")
    for form in ("RGBS", "YUV420P8"):
        ours, theirs = (clips[f"{form} {who}"] for who in ("ours", "mlrt-ov"))
        print(f"{form}: at most {difference(ours, theirs):.2f} codes apart")


if __name__ == "__main__":
    main()
