"""File to file against what else one would use: same clip, same weights, same machine, interleaved, each run a process of its own.

    python tests/benchmarks/peers.py [--weights FILE|NAME] [--size 640x360] [--frames 8] [--rounds 2] [--only a c ours] [--json]

a     the published module in torch float32 in a plain PyAV loop, encoded as ours is
b     the same loop around ONNX Runtime
c     vs-mlrt's OpenVINO plugin in a script under vspipe, colour by VapourSynth, nothing encoded
ours  upscale_video: decoded, upscaled, encoded, joined, verified

Every contestant does 2 frames and then `--frames`: the rate is that of the frames between, so that starting up counts for nobody.
The clip's length is the same for both, only how far it is taken differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.rows import show

FIRST = 2
ENCODER = {"crf": "16", "preset": "medium"}
RunArray = Callable[[np.ndarray], np.ndarray]
VPY = """
import vapoursynth as vs
core = vs.core
clip = core.bs.VideoSource({clip!r}, cachemode=0)[:{frames}]
clip = core.resize.Bicubic(clip, format=vs.RGBS, matrix_in=6)
clip = core.ov.Model(clip, network_path={onnx!r}, device="CPU")
core.resize.Bicubic(clip, format=vs.YUV420P8, matrix=6).set_output()
"""


def plain_loop(source: str, dest: str, frames: int, upscale: RunArray) -> None:
    """What one writes in ten minutes: RGB arrays through the network, sound and times not thought of."""
    with av.open(source) as reader, av.open(dest, "w") as writer:
        stream = None
        for i, frame in enumerate(reader.decode(video=0)):
            if i == frames:
                break
            image = frame.to_ndarray(format="rgb24").astype(np.float32).transpose(2, 0, 1)[None] / 255
            large = upscale(np.ascontiguousarray(image))[0].clip(0, 1)
            result = av.VideoFrame.from_ndarray((large * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy(), "rgb24")
            if stream is None:
                stream = writer.add_stream("libx264", rate=25, options=ENCODER)
                stream.width, stream.height, stream.pix_fmt = result.width, result.height, "yuv420p"
            writer.mux(stream.encode(result))
        if stream is not None:
            writer.mux(stream.encode())


def run_a(source: str, dest: str, frames: int, weights: str, onnx: str) -> None:
    import torch

    from a2n_video.net.weights import load_model

    model = load_model(weights, 2)

    def upscale(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(image)).numpy()

    plain_loop(source, dest, frames, upscale)


def run_b(source: str, dest: str, frames: int, weights: str, onnx: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    plain_loop(source, dest, frames, lambda image: session.run(None, {"input": image})[0])


def run_c(source: str, dest: str, frames: int, weights: str, onnx: str) -> None:
    script = Path(dest).with_suffix(".vpy")
    script.write_text(VPY.format(clip=source, frames=frames, onnx=onnx))
    vspipe = shutil.which("vspipe") or str(Path(sys.executable).with_name("vspipe"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "XDG_CONFIG_HOME": str(script.parent)}
    subprocess.run([vspipe, str(script), "."], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_ours(source: str, dest: str, frames: int, weights: str, onnx: str) -> None:
    from a2n_video import upscale_video

    chosen = {"weights": weights} if Path(weights).exists() else {"model": weights}
    upscale_video(source, dest, scale=2, frames=frames, overwrite=True, resume=False, **chosen)


RUNS = {"a": run_a, "b": run_b, "c": run_c, "ours": run_ours}


def seconds(name: str, folder: Path, clip: Path, frames: int, weights: str) -> float:
    """How long a process takes for the clip's first frames."""
    arguments = [name, str(clip), str(folder / f"{name}.mp4"), str(frames), weights, str(folder / "net.onnx")]
    started = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--run", *arguments], check=True)
    return time.perf_counter() - started


def rates(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    from a2n_video.net.weights import load_model
    from a2n_video.tools.export import onnx_model
    from tests.benchmarks.pipeline import make_clip

    width, height = (int(n) for n in args.size.split("x"))
    clip = make_clip(folder / "clip.mp4", width, height, args.frames + 4)
    (folder / "net.onnx").write_bytes(onnx_model(load_model(args.weights, 2), fused=False).SerializeToString())
    found: dict[str, list[float]] = {name: [] for name in args.only}
    for _ in range(args.rounds):
        for name, values in found.items():
            short, long = (seconds(name, folder, clip, frames, args.weights) for frames in (FIRST, args.frames))
            values.append((args.frames - FIRST) / max(long - short, 1e-9))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="a2n", help="a bundled model or a file (default: a2n)")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.run:
        name, source, dest, frames, weights, onnx = args.run
        RUNS[name](source, dest, int(frames), weights, onnx)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = rates(args, Path(folder))
    ours = statistics.median(found["ours"]) if "ours" in found else float("nan")
    rows = [
        {
            "run": name,
            "fps": round(statistics.median(values), 4),
            "lowest": round(min(values), 4),
            "highest": round(max(values), 4),
            "ours_is_times": round(ours / statistics.median(values), 2),
        }
        for name, values in found.items()
    ]
    show(rows, as_json=args.json)


if __name__ == "__main__":
    main()
