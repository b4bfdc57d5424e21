"""Run the command line in a process of its own that can be struck at a named point. Usage: child.py MODE POINT NTH ARGUMENTS...

MODE is `kill` (SIGKILL itself there), `enospc` (raise it there), `record` (append every point to the file POINT), `limit` (at most
POINT MiB of memory beyond what the imports took), `hang` (the stage POINT does, at its NTH frame; `join` and `verify` have one step),
`load` (the engine is never loaded; the file POINT is made once it begins) or `none`.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str | Path, mode: str = "none", point: str | Path = "-", nth: int = 1) -> list[str]:
    """The command that runs this file."""
    return [sys.executable, str(Path(__file__)), mode, str(point), str(nth), *map(str, arguments)]


def start(*arguments: str | Path, mode: str = "none", point: str | Path = "-", nth: int = 1) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(*arguments, mode=mode, point=point, nth=nth), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def run(
    *arguments: str | Path, mode: str = "none", point: str | Path = "-", nth: int = 1, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it says is in `stdout` and `stderr`."""
    process = start(*arguments, mode=mode, point=point, nth=nth)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def hang(stage: str, nth: int) -> None:
    """Have a stage never come back from its nth frame."""
    from a2n_video.engine.nearest import NearestEngine
    from a2n_video.io import reader
    from a2n_video.io.writer import VideoWriter
    from a2n_video.job import finish

    place, name = {
        "decode": (reader, "native_frame"),
        "engine": (NearestEngine, "submit"),
        "encode": (VideoWriter, "write"),
        "join": (finish, "remux"),
        "verify": (finish, "verify"),
    }[stage]
    plain, count = getattr(place, name), itertools.count(1)

    def struck(*arguments: object) -> object:
        while next(count) == nth:
            time.sleep(1000)
        return plain(*arguments)

    setattr(place, name, struck)


def never_load(told: Path) -> None:
    from a2n_video import upscaler

    def open_engine(*_: object) -> None:
        told.touch()
        time.sleep(1000)

    upscaler.open_engine = open_engine  # type: ignore[assignment]


def main() -> int:
    mode, point, nth, *arguments = sys.argv[1:]
    seen: Counter[str] = Counter()

    def hook(reached: str) -> None:
        seen[reached] += 1
        if mode == "record":
            with Path(point).open("a") as file:
                file.write(f"{reached}\n")
        elif mode in ("kill", "enospc") and reached == point and seen[reached] == int(nth):
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from a2n_video.cli import main as cli
    from a2n_video.io.faults import listening

    if mode == "limit":
        import resource

        import a2n_video.job.run  # noqa: F401 - what it maps does not count

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + int(point) * 2**20, resource.RLIM_INFINITY))
    if mode == "hang":
        hang(point, int(nth))
    if mode == "load":
        never_load(Path(point))
    with listening(hook):
        return cli(arguments)


if __name__ == "__main__":
    sys.exit(main())
