"""What the filter itself costs: microseconds a frame spends in it outside packing, the engine and unpacking, counted inside the filter.

    python tests/benchmarks/vs_overhead.py [--size 1920x1080] [--frames 60] [--threads 1 2]

`nearest` on YUV420P8 under vspipe, every frame another one; once with the colour tags that video usually carries, once with none, which the
filter then writes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import vapoursynth as vs
core = vs.core
core.num_threads = {threads}
look = dict(width={width}, height={height}, format=vs.YUV420P8, length=1, keep=True)
shades = core.std.Splice([core.std.BlankClip(color=[40 + n, 100, 150], **look) for n in range(7)])
clip = core.std.Loop(shades, {frames} // 7 + 1)[:{frames}]
clip = clip.std.SetFrameProps({props})
clip.a2n.Upscale(model="nearest", batch_size=1).set_output()
"""
TAGS = {"tagged": "_Matrix=1, _Range=0, _Primaries=1, _Transfer=1, _ChromaLocation=0", "untagged": "_SARNum=1"}
LINE = re.compile(r"delivered=(\d+).*overhead_us_median=([\d.]+) overhead_us_p90=([\d.]+)")


def overhead(script: str, environment: dict[str, str], vspipe: str) -> tuple[float, float]:
    """Median and 90th percentile of one run, microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.vpy"
        path.write_text(script)
        command = [vspipe, str(path), "."]
        done = subprocess.run(command, capture_output=True, text=True, env={**environment, "XDG_CONFIG_HOME": folder}, check=False)
    found = LINE.search(done.stderr)
    if done.returncode or found is None:
        raise SystemExit(done.stderr)
    return float(found[2]), float(found[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    width, height = (int(n) for n in args.size.split("x"))
    vspipe = shutil.which("vspipe") or str(Path(sys.executable).with_name("vspipe"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "A2N_VS_STATS": "1"}
    for threads in args.threads:
        for name, props in TAGS.items():
            script = SCRIPT.format(threads=threads, width=width, height=height, frames=args.frames, props=props)
            median, high = overhead(script, environment, vspipe)
            print(f"threads {threads}  {name:8}  median {median:.1f} us  p90 {high:.1f} us")


if __name__ == "__main__":
    main()
