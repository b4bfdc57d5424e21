"""An engine ends with whoever has it, and before the interpreter does."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from threading import Event, Thread

import pytest
from torch import Tensor

from a2n_video.engine.accelerator import AcceleratorEngine
from a2n_video.engine.owned import OwnedEngine, Threaded
from a2n_video.engine.pipeline import Pipeline
from a2n_video.engine.protocol import Rows
from a2n_video.engine.worker import WorkerEngine
from tests.engine.host_backend import HostBackend
from tests.engine.pipelines import GEOMETRY, PLAIN, frame, identity, numbers

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
    """A `Compute` whose rows come back, once the gate is open."""

    def __init__(self, gate: Event) -> None:
        self.gate = gate

    def start(self, rows: Rows) -> Callable[[], Rows]:
        self.gate.wait(SOON_S)
        return lambda: rows

    def recoveries(self) -> int:
        return 0

    def close(self) -> None: ...


def worker(gate: Event) -> Threaded:
    return WorkerEngine(GEOMETRY, 2, lambda: Echo(gate))


def accelerator(gate: Event) -> Threaded:
    def gated(rows: Tensor, out: Tensor, flags: Tensor, *, strip_rows: int = 0) -> None:
        gate.wait(SOON_S)
        identity(rows, out, flags, strip_rows=strip_rows)

    return AcceleratorEngine(GEOMETRY, 2, lambda: Pipeline(HostBackend(), GEOMETRY, replace(PLAIN, fast=gated), 2, 0))


def opened_gate() -> Event:
    (gate := Event()).set()
    return gate


@pytest.mark.parametrize("opened", [worker, accelerator])
def test_an_engine_that_nobody_has_ends(opened: Callable[[Event], Threaded]) -> None:
    before = set(threading.enumerate())
    engine = OwnedEngine(opened(opened_gate()))
    assert numbers(engine.submit([frame(3)]).result(SOON_S)) == [3]
    threads = set(threading.enumerate()) - before
    assert threads
    del engine
    gc.collect()
    for thread in threads:
        thread.join(SOON_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("opened", [worker, accelerator])
def test_an_engine_that_is_closed_in_a_thread_of_its_own_ends(
    opened: Callable[[Event], Threaded], caplog: pytest.LogCaptureFixture
) -> None:
    """As when an iteration that nobody finishes is collected there: it would wait for itself."""
    before = set(threading.enumerate())
    engine = OwnedEngine(opened(gate := Event()))
    asked: list[Thread] = []
    threads = set(threading.enumerate()) - before
    future = engine.submit([frame(3)])
    future.add_done_callback(lambda _: (asked.append(threading.current_thread()), engine.close()))
    gate.set()
    for thread in threads:
        thread.join(SOON_S)
        assert not thread.is_alive()
    assert numbers(future.result(0)) == [3] and asked[0] in threads and not caplog.records


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
