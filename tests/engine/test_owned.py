"""An engine ends with whoever has it, and before the interpreter does."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from a2n_video.engine.accelerator import AcceleratorEngine
from a2n_video.engine.owned import OwnedEngine, Threaded
from a2n_video.engine.pipeline import Pipeline
from a2n_video.engine.protocol import Rows
from a2n_video.engine.worker import WorkerEngine
from tests.engine.host_backend import HostBackend
from tests.engine.pipelines import GEOMETRY, PLAIN, frame, numbers

SOON_S = 20.0

_ENDS_IN_THE_MIDDLE = """
import threading, time
import numpy as np
from a2n_video.engine.owned import OwnedEngine
from a2n_video.engine.protocol import Geometry
from a2n_video.engine.worker import WorkerEngine
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat

begun = threading.Event()

class Slow:
    def start(self, rows):
        return lambda: (begun.set(), time.sleep(SLEEP_S), rows)[-1]
    def recoveries(self):
        return 0
    def close(self):
        print("closed", flush=True)

fmt = PlaneFormat(width=2, height=2, family="gray")
engine = OwnedEngine(WorkerEngine(Geometry(source=fmt, color=ColorSpec(), scale=1), 1, Slow))
for _ in range(2):
    engine.submit([[np.zeros((2, 2), np.uint8)]])
begun.wait()
LET_GO
"""


class Echo:
    """A `Compute` whose rows come back."""

    def start(self, rows: Rows) -> Callable[[], Rows]:
        return lambda: rows

    def recoveries(self) -> int:
        return 0

    def close(self) -> None: ...


def worker() -> Threaded:
    return WorkerEngine(GEOMETRY, 2, Echo)


def accelerator() -> Threaded:
    return AcceleratorEngine(GEOMETRY, 2, lambda: Pipeline(HostBackend(), GEOMETRY, PLAIN, 2, 0))


@pytest.mark.parametrize("opened", [worker, accelerator])
def test_an_engine_that_nobody_has_ends(opened: Callable[[], Threaded]) -> None:
    before = set(threading.enumerate())
    engine = OwnedEngine(opened())
    assert numbers(engine.submit([frame(3)]).result(SOON_S)) == [3]
    threads = set(threading.enumerate()) - before
    assert threads
    del engine
    gc.collect()
    for thread in threads:
        thread.join(SOON_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("let_go", ["", "del engine"])
def test_the_interpreter_ends_after_its_engines(let_go: str) -> None:
    """One that somebody still has, and one that is on its way out: its thread comes out of whatever it runs in."""
    assert ended(_ENDS_IN_THE_MIDDLE.replace("LET_GO", let_go), sleep_s=0.3) == "closed\n"


def test_a_device_that_hangs_does_not_hold_the_interpreter_for_ever() -> None:
    patience = "from a2n_video.engine import owned; owned._PATIENCE_S = 0.1"
    assert ended(_ENDS_IN_THE_MIDDLE.replace("LET_GO", patience), sleep_s=1000) == ""


def ended(script: str, sleep_s: float) -> str:
    """What a script wrote that ended well."""
    command = [sys.executable, "-c", script.replace("SLEEP_S", str(sleep_s))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
