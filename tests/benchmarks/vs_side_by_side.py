"""Our filter and vapoursynth-mlrt-ov on the same network, in turns: python -m tests.benchmarks.vs_side_by_side [width height frames dtype].

Both run on one OpenVINO: it is imported before VapourSynth loads its plugins. Seconds a frame, the median of all turns.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openvino  # noqa: F401  before the core: see vs_plugin/README.md
import vapoursynth as vs

from a2n_video.net.catalog import find_model
from a2n_video.net.weights import load_model
from a2n_video.tools import export

core = vs.core


def seconds_a_frame(clip: Any, first: int, count: int) -> float:
    start = time.perf_counter()
    for n in range(first, first + count):
        clip.get_frame(n).close()
    return (time.perf_counter() - start) / count


def main(width: int = 320, height: int = 180, frames: int = 12, dtype: str = "float32") -> None:
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "a2n.onnx"
        export.write(load_model(str(find_model("a2n", 2).path), 2), onnx)
        yuv = core.std.Splice(
            [
                core.std.BlankClip(width=width, height=height, format=vs.YUV420P8, length=1, color=[16 + n, 100, 150])
                for n in range(frames + 2)
            ]
        )
        yuv = yuv.std.SetFrameProps(_Matrix=1, _Range=0)
        rgb = yuv.resize.Bicubic(format=vs.RGBS)
        theirs = {"RGBS": core.ov.Model(rgb, str(onnx))}
        theirs["YUV420P8"] = theirs["RGBS"].resize.Bicubic(format=vs.YUV420P8, matrix_s="709")
        ours = {name: clip.a2n.Upscale(model="a2n", dtype=dtype, batch_size=1) for name, clip in (("RGBS", rgb), ("YUV420P8", yuv))}
        contenders = {f"{who} {name}": clip for name in ours for who, clip in (("ours", ours[name]), ("mlrt-ov", theirs[name]))}
        turns: dict[str, list[float]] = {name: [] for name in contenders}
        for clip in contenders.values():
            seconds_a_frame(clip, 0, 2)
        for n in range(2, frames + 2):
            for name, clip in contenders.items():
                turns[name].append(seconds_a_frame(clip, n, 1))
        for name, seconds in turns.items():
            print(f"{name:18} {statistics.median(seconds):.3f} s/frame, {1 / statistics.median(seconds):.2f} fps")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:5])
