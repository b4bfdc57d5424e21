"""The filter's hosts: scripts that end early, vspipe, several cores, no Python at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("vapoursynth")
pytestmark = [pytest.mark.usefixtures("core"), pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]

# A script's head: nearest made slow, and a clip whose frames differ.
SLOW = """
import time
from a2n_video import vs_engine
from a2n_video.engine.nearest import NearestEngine
class Slow(NearestEngine):
    def submit(self, frames):
        time.sleep({seconds})
        return super().submit(frames)
vs_engine.open_engine = lambda plan, geometry: Slow(geometry, plan.batch_size)
import vapoursynth as vs
core = vs.core
def distinct(length, width=64, height=48):
    look = dict(width=width, height=height, format=vs.YUV420P8, length=1)
    return core.std.Splice([core.std.BlankClip(color=[n & 255, 128, 128], **look) for n in range(length)])
"""
# Longer than any frame takes, much shorter than a hang.
LIMIT_S = 30


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As a user has it after `vapoursynth config`, with this tree's package."""
    scripts = sysconfig.get_path("scripts")
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path)}


@pytest.fixture
def vspipe(tmp_path: Path, environment: dict[str, str]) -> Callable[..., subprocess.Popen[bytes]]:
    """Start vspipe on a script, y4m to stdout."""
    program = shutil.which("vspipe", path=environment["PATH"])
    if program is None:
        pytest.skip("vspipe is not on the PATH")

    def start(script: str, **changes: Any) -> subprocess.Popen[bytes]:
        path = tmp_path / "script.vpy"
        path.write_text(script)
        command = [program, "-c", "y4m", str(path), "-"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | changes)

    return start


def python(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_script_may_end_with_frames_on_their_way(environment: dict[str, str], batch_size: int) -> None:
    script = SLOW.format(seconds=0.4) + (
        "core.num_threads = 8\n"
        f"clip = distinct(300).a2n.Upscale(model='nearest', batch_size={batch_size})\n"
        "pending = [clip.get_frame_async(n) for n in range(100)]\n"
        "time.sleep(0.5)\n"
    )
    started = time.monotonic()
    done = python(script, environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # 100 frames at 0.4 s would take 40 s, batches of 8 five: what is pending is given up.
    assert time.monotonic() - started < 10


def test_two_cores_in_one_process(environment: dict[str, str]) -> None:
    script = """
import hashlib, vapoursynth as vs
class Policy(vs.EnvironmentPolicy):
    current = None
    def on_policy_registered(self, api): self.api = api
    def on_policy_cleared(self): pass
    def get_current_environment(self): return self.current
    def set_environment(self, environment): before, self.current = self.current, environment; return before
    def is_alive(self, environment): return True
policy = Policy()
vs.register_policy(policy)
environments = [policy.api.create_environment() for _ in range(2)]
clips, pending = [], []
for environment in environments:
    with policy.api.wrap_environment(environment).use():
        core = vs.core.core
        frames = [core.std.BlankClip(width=64, height=48, format=vs.YUV420P8, length=1, color=[n, 90, 160]) for n in range(40)]
        clips.append(core.std.Splice(frames).a2n.Upscale(model="nearest", batch_size=4))
for n in range(40):
    pending.append([clip.get_frame_async(n) for clip in clips])
found = [[hashlib.md5(b"".join(bytes(f.result()[p]) for p in range(3))).hexdigest() for f in pair] for pair in pending]
print(all(one == two for one, two in found), len({one for one, _ in found}))
del clips, pending, core, frames
for environment in environments: policy.api.destroy_environment(environment)
"""
    done = python(script, environment)
    assert (done.returncode, done.stdout) == (0, "True 40\n"), done.stderr


def test_ctrl_c_ends_a_waiting_script(environment: dict[str, str]) -> None:
    script = SLOW.format(seconds=0.2) + "print('ready', flush=True)\nfor _ in distinct(300).a2n.Upscale(model='nearest').frames(): pass\n"
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert running.stdout is not None
    running.stdout.readline()
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=LIMIT_S)
    assert running.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in told


def test_vspipe_gets_frames_and_nothing_else_on_stdout(vspipe: Callable[..., subprocess.Popen[bytes]]) -> None:
    running = vspipe(SLOW.format(seconds=0) + "distinct(50).a2n.Upscale(model='nearest', batch_size=8).set_output()\n", A2N_VS_STATS="1")
    out, told = running.communicate(timeout=LIMIT_S)
    head, rest = out.split(b"\n", 1)
    assert running.returncode == 0, told
    assert head.startswith(b"YUV4MPEG2 ")
    assert len(rest) == 50 * (len(b"FRAME\n") + 128 * 96 * 3 // 2)
    assert b"delivered=50 calls=7 frames=50 repeats=0" in told


@pytest.mark.parametrize("streams", [1, 2])
def test_vspipe_whose_reader_leaves_ends_as_it_does_without_us(vspipe: Callable[..., subprocess.Popen[bytes]], streams: int) -> None:
    codes = []
    for script in ("distinct(300, 640, 480)", f"distinct(300, 320, 240).a2n.Upscale(model='nearest', batch_size=4, num_streams={streams})"):
        running = vspipe(SLOW.format(seconds=0.05) + script + ".set_output()\n")
        assert running.stdout is not None
        running.stdout.read(1000)
        running.stdout.close()
        codes.append(running.wait(timeout=LIMIT_S))
    assert codes[0] == codes[1] != 0


def test_ctrl_c_ends_vspipe(vspipe: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = SLOW.format(seconds=0.1) + f"distinct(300).a2n.Upscale(model='nearest').set_output()\nopen({str(ready)!r}, 'w').close()\n"
    running = vspipe(script)
    while not ready.exists():
        time.sleep(0.05)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    out, told = running.communicate(timeout=LIMIT_S)
    # vspipe itself takes the signal, ends after the frames under way, and calls that success.
    assert running.returncode == 0, told
    assert len(out) < 300 * 128 * 96 * 3 // 2


def test_an_error_makes_vspipe_fail_and_names_the_frame(vspipe: Callable[..., subprocess.Popen[bytes]]) -> None:
    running = vspipe(SLOW.format(seconds=0) + "distinct(5).std.SetFieldBased(2).a2n.Upscale(model='nearest').set_output()\n")
    _, told = running.communicate(timeout=LIMIT_S)
    assert running.returncode not in (0, None)
    assert re.search(rb"frame (\d+) with error: a2n\.Upscale: frame \1 is interlaced", told)


def test_a_host_without_python_is_told_so(tmp_path: Path) -> None:
    import vapoursynth as vs

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path / "host"
    source = Path(__file__).with_name("host.c")
    subprocess.run([compiler, str(source), f"-I{vs.get_include()}", "-o", str(program), "-ldl"], check=True)
    library = next(Path(vs.get_include()).parent.glob("libvapoursynth.*"))
    done = subprocess.run([str(program), str(library)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("a2n.Upscale: this host runs no Python")
