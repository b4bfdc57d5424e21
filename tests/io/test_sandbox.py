"""The sandbox: the same frames as without, and whatever the decoder does costs this file only."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import pytest

from a2n_video.errors import DecodeError, InputError, OptionError, UnsupportedFormatError, exit_code
from a2n_video.io import reader as reader_module
from a2n_video.io import sandbox
from a2n_video.io.decoding import decoding
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.io.sandbox import Limits, SandboxedReader, limited, memory_for, sandboxed
from a2n_video.job.encode import frames_until
from a2n_video.job.run import upscale_video
from tests.job.child import ROOT
from tests.made import decoded, frame_hash, make_source, packets


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("sandbox") / "a.mkv", pts=range(30))


def test_probe_is_the_same(clip: Path) -> None:
    info = sandboxed(probe, clip, 10**6)
    assert info == probe(clip)
    assert sandboxed(scan, clip, info).time_map == scan(clip, info).time_map


def test_it_works_in_a_process_that_holds_many_files_open(clip: Path) -> None:
    """select() knows descriptors up to 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip(f"no more than {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held: list[int] = []
    try:
        while not held or held[-1] < 1023:
            held.append(os.open(os.devnull, os.O_RDONLY))
        assert sandboxed(probe, clip, 10**6) == probe(clip)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_frames_are_the_same(clip: Path) -> None:
    def seen(reader: Any) -> list[tuple[Any, ...]]:
        with reader:
            return [(f.pts, f.time_base, frame_hash(f), f.format.name, f.colorspace, f.color_range, f.color_trc) for f in reader]

    time_map = scan(clip, probe(clip)).time_map
    start = time_map.times[7]
    assert seen(SandboxedReader(clip)) == seen(VideoReader(clip))
    assert seen(SandboxedReader(clip, start_pts=start, frames=5)) == seen(VideoReader(clip, start_pts=start, frames=5))


def test_errors_and_damage_come_through(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="--max-pixels"):
        sandboxed(probe, clip, 10)
    broken = tmp_path / "b.mkv"
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        payload = [bytes(p) for p in container.demux(video=0) if p.size and not p.is_keyframe][8]
    data[data.index(payload) : data.index(payload) + len(payload)] = bytes(len(payload))
    broken.write_bytes(data)
    with VideoReader(broken) as plain, SandboxedReader(broken) as boxed:
        assert len(list(plain)) == len(list(boxed))
        assert plain.damage.errors
        assert vars(boxed.damage) == vars(plain.damage)


FAULTS = {
    "segfault": "os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "os.abort()",
    "hang": "time.sleep(1000)",
    "spin": "while True: pass",
    "memory": "x = [bytearray(1 << 26) for _ in range(1000)]",
    "exit": "os._exit(0)",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [1, 20])
def test_a_faulty_decoder_costs_one_file(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, at: int) -> None:
    # A site of the child's own puts the fault into the decoder.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        "from a2n_video.io import reader\n"
        "plain = reader.native_frame\n"
        "count = 0\n"
        "def native_frame(*arguments):\n"
        "    global count\n"
        "    count += 1\n"
        f"    if count == {at}:\n"
        f"        {FAULTS[fault]}\n"
        "    return plain(*arguments)\n"
        "reader.native_frame = native_frame\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    info = probe(clip)
    reader = SandboxedReader(clip, info=info, time_map=scan(clip, info).time_map, limits=Limits(memory_bytes=1 << 29, stall_s=2))
    started = time.monotonic()
    with reader, pytest.raises(DecodeError, match="sandbox") as caught:
        for _ in reader:
            pass
    assert exit_code(caught.value) == 3
    assert time.monotonic() - started < 15
    assert reader._child._process.poll() is not None


SHORT_OF_MEMORY = """
import contextlib, av
from a2n_video.io import reader
plain = reader.decoding
class Short:
    def __init__(self, decoder):
        self.decoder, self.sar, self.packets = decoder, decoder.sar, 0
    def decode(self, packet):
        self.packets += 1
        if self.packets == 12:
            raise av.error.MemoryError(12, "Cannot allocate memory", "avcodec_send_packet()")
        return self.decoder.decode(packet)
@contextlib.contextmanager
def decoding(*arguments):
    with plain(*arguments) as decoder:
        yield Short(decoder)
reader.decoding = decoding
"""


def test_too_little_memory_is_no_damage(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's error for it is one of its own as well as a MemoryError; a frame that is lost to it must not be stood in for."""
    (tmp_path / "sitecustomize.py").write_text(SHORT_OF_MEMORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    info = probe(clip)
    reader = SandboxedReader(clip, info=info, time_map=scan(clip, info).time_map)
    with reader, pytest.raises(DecodeError, match=r"a\.mkv: its decoder wanted more memory than the sandbox gives"):
        list(reader)
    assert (reader.damage.errors, reader.damage.repeated) == (0, 0)


def test_too_little_memory_is_no_damage_without_the_sandbox(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "decoding", decoding)  # put back at the end
    exec(SHORT_OF_MEMORY, {})
    with pytest.raises(DecodeError, match=r"a\.mkv: its decoder wanted more memory than there is"):
        list(frames_until(VideoReader(clip)))


def test_large_pictures_and_many_threads_are_given_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """8K with 4:2:2 in 10 bits: 16 threads and the 16 pictures they refer to take more than four GiB of address space."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    picture = 7680 * 4320 * 4
    assert memory_for(7680 * 4320) >= sandbox.MEMORY_BYTES + 32 * picture
    assert memory_for(1920 * 1080) < sandbox.MEMORY_BYTES + (1 << 30)
    assert memory_for(1920 * 1080, threads=1) < memory_for(1920 * 1080)


def test_a_reader_is_limited_by_the_size_of_its_pictures(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Limits] = []

    class Child:
        def __init__(self, path: Path, request: object, limits: Limits) -> None:
            given.append(limits)

    monkeypatch.setattr(sandbox, "_Child", Child)
    info = probe(clip)
    SandboxedReader(clip, info=info)
    SandboxedReader(clip, info=info, limits=Limits(memory_bytes=5))
    assert [limits.memory_bytes for limits in given] == [memory_for(info.width * info.height), 5]


def test_closing_early_leaves_no_child(clip: Path) -> None:
    reader = SandboxedReader(clip)
    next(iter(reader))
    reader.close()
    with pytest.raises(ProcessLookupError):
        os.kill(reader._child._process.pid, 0)


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.mkv").write_bytes(b"nothing")
    with pytest.raises(InputError):
        sandboxed(probe, tmp_path / "x.mkv")
    assert sandbox.STALL_S == 60


def read_slowly(path: Path) -> int:
    """Reads for three seconds without an answer, as the scan of a large file does."""
    for _ in range(6):
        time.sleep(0.5)
        path.read_bytes()
    return 6


def read_in_circles(path: Path) -> None:
    while True:
        path.read_bytes()


def test_what_goes_on_reading_does_not_hang_and_what_reads_for_ever_does(clip: Path, tmp_path: Path) -> None:
    assert limited(Limits(stall_s=1.2), read_slowly, clip) == 6
    large = tmp_path / "large"
    large.write_bytes(bytes(1 << 20))
    with pytest.raises(DecodeError, match="hung"):
        limited(Limits(stall_s=1, moved_bytes=100 << 20), read_in_circles, large)


def test_a_child_dies_with_its_parent(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfrom a2n_video.io import reader\nreader.native_frame = lambda *_: time.sleep(1000)\n"
    )
    code = (
        "import sys, threading\nfrom a2n_video.io.sandbox import SandboxedReader\n"
        "reader = SandboxedReader(sys.argv[1])\nprint(reader._child._process.pid, flush=True)\nnext(iter(reader))"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    parent = subprocess.Popen([sys.executable, "-c", code, str(clip)], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    until = time.monotonic() + 20
    time.sleep(3)  # until it has asked the system for this, and hangs
    parent.kill()
    parent.communicate()
    while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until, "left behind"
        time.sleep(0.1)


def test_the_end_of_a_job_is_in_the_sandbox_too(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demuxer that crashes while the sound is copied costs this file, and the segments stand."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\nfrom a2n_video.io.mux import remux\nremux.remux = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    dest = tmp_path / "out.mkv"
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(DecodeError, match="SIGSEGV"):
            upscale_video(clip, dest, model="nearest", preset="ultrafast", segment_frames=10, sandbox=True)
    assert not dest.exists()
    (tmp_path / "sitecustomize.py").unlink()
    result = upscale_video(clip, dest, model="nearest", preset="ultrafast", segment_frames=10, sandbox=True)
    assert result.resumed_frames == 30
    upscale_video(clip, tmp_path / "plain.mkv", model="nearest", preset="ultrafast", segment_frames=10)
    assert decoded(dest) == decoded(tmp_path / "plain.mkv")
    assert packets(dest, 1) == packets(tmp_path / "plain.mkv", 1)


def test_what_the_sandbox_cannot_guard_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^sandbox"):
        upscale_video(clip, tmp_path / "%04d.png", model="nearest", sandbox=True)
