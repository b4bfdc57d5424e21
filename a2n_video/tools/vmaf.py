"""VMAF by an ffmpeg binary that has libvmaf, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path


@cache
def ffmpeg_with_vmaf() -> str | None:
    """An ffmpeg that has the libvmaf filter: the one on PATH, else imageio-ffmpeg's; None where neither has it."""
    candidates = [shutil.which("ffmpeg")]
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        candidates.append(get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: the package without a binary
        pass
    for path in candidates:
        if path and "libvmaf" in subprocess.run([path, "-hide_banner", "-filters"], capture_output=True, text=True).stdout:
            return path
    return None


def vmaf(reference: Path, result: Path, frames: int, seek: Fraction | None = None) -> list[float] | None:
    """VMAF (0..100) of the first `frames` frames, paired in order; the reference's from `seek` on.

    `seek` is in seconds on the reference's own clock, before its first frame that counts. Both are compared as 8-bit 4:2:0.
    None where ffmpeg has no libvmaf or fails.
    """
    ffmpeg = ffmpeg_with_vmaf()
    if ffmpeg is None:
        return None
    # Paired by order: clocks of containers differ by fractions of a frame.
    prepare = f"trim=end_frame={frames},settb=1/25,setpts=N,format=yuv420p"
    graph = f"[0:v]{prepare}[a];[1:v]{prepare}[b];[a][b]libvmaf=log_fmt=json:log_path=vmaf.json:n_threads=2:shortest=1"
    # On the file's own clock: ffmpeg's counts from the first packet of any stream, ours from the first frame.
    sought = [] if seek is None else ["-seek_timestamp", "1", "-ss", f"{float(seek):.6f}"]
    inputs = ["-i", f"file:{result.resolve()}", *sought, "-i", f"file:{reference.resolve()}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", *inputs, "-lavfi", graph, "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True)
        log = Path(folder) / "vmaf.json"
        if done.returncode or not log.exists():
            return None
        return [float(frame["metrics"]["vmaf"]) for frame in json.loads(log.read_text())["frames"]]
