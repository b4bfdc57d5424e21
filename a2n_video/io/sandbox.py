"""Look into and decode a source in a child process with limits: a decoder that crashes, hangs or eats memory costs one file, not the batch.

The child is this module run as a program. It takes a request on stdin, sets its limits, and answers on stdout. It guards against faults,
not against an attacker who takes the child over: it has its user's rights, and its answers are believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, Final, Self

import av
import numpy as np

from a2n_video.errors import A2NVideoError, DecodeError
from a2n_video.frames import color_of_frame, frame_planes, tag_frame
from a2n_video.io.reader import Damage, VideoReader
from a2n_video.media.info import VideoInfo
from a2n_video.media.pixfmt import plane_format

STALL_S: Final = 60
MEMORY_BYTES: Final = 4 << 30
_BYTES_A_PIXEL: Final = 8  # of the widest format there is
_PICTURES: Final = 17  # that a decoder holds to refer to, and the one it makes
_MOST_THREADS: Final = 16  # that FFmpeg takes of itself
MOVED_BYTES: Final = 64 << 30
MOVED_TIMES: Final = 20
_LENGTH_BYTES: Final = 8
_DIES_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the child may take.

    Bytes of address space beyond its start; seconds, by the clock and of each processor, without an answer or a byte read or written;
    bytes read and written in all, and how many times the source's size beyond that: a demuxer can go round in circles.
    """

    memory_bytes: int = MEMORY_BYTES
    stall_s: float = STALL_S
    moved_bytes: int = MOVED_BYTES


def memory_for(pixels: int, threads: int | None = None) -> int:
    """What a child may take to decode pictures of this size: each thread of a decoder (None: as many as FFmpeg takes) has one of its own.

    It is address space that is limited, and that is taken in pools before it is used.
    """
    count = min((os.cpu_count() or 1) + 1, _MOST_THREADS) if threads is None else threads
    return MEMORY_BYTES + _BYTES_A_PIXEL * pixels * (count + _PICTURES)


def sandboxed[**P, T](function: Callable[Concatenate[Path, P], T], path: Path, *arguments: P.args, **named: P.kwargs) -> T:
    """`function(path, ...)` in a child, such as `probe` or `scan`. Its errors, and DecodeError where the child is lost."""
    return limited(Limits(), function, path, *arguments, **named)


def limited[**P, T](limits: Limits, function: Callable[Concatenate[Path, P], T], path: Path, *arguments: P.args, **named: P.kwargs) -> T:
    """`sandboxed` within limits of one's own."""
    with _Child(path, {"function": function, "arguments": arguments, "named": named}, limits) as child:
        result: T = child.answer()[1]
        return result


class SandboxedReader:
    """A VideoReader whose decoding happens in a child: same arguments, same frames, same `damage`.

    DecodeError where the child crashes, goes beyond its limits, or gives nothing for a minute.
    """

    def __init__(self, source: Path | str, *, limits: Limits | None = None, **arguments: Any) -> None:
        self.source = Path(source)
        self.damage = Damage()
        info: VideoInfo | None = arguments.get("info")
        memory = MEMORY_BYTES if info is None else memory_for(info.width * info.height)
        self._child = _Child(self.source, {"arguments": arguments}, limits or Limits(memory_bytes=memory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._child.close()

    def wake(self) -> None:
        """End the child, from any thread: whoever waits for its next frame comes back."""
        self._child.kill()

    @property
    def position(self) -> object:
        """Changes while the child reads on; for any thread."""
        return self._child.bytes_moved()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        while True:
            kind, *values = self._child.answer()
            if kind == "damage":
                self.damage.__dict__.update(values[0])
            elif kind == "frame":
                yield _unpacked(values[0])
            else:
                return


class _Child:
    """The process, its request and its answers; used from one thread, closed from any."""

    def __init__(self, path: Path, request: Mapping[str, Any], limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._frames = 0
        self._moved = 0
        self._most_moved = limits.moved_bytes + MOVED_TIMES * _size(path)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "a2n_video.io.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a Ctrl-C is the parent's to handle
        )
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(pickle.dumps({"path": path, "limits": limits, "parent": os.getpid(), **request}))
            self._stdin.close()

    @property
    def _stdin(self) -> BinaryIO:
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]

    def answer(self) -> tuple[Any, ...]:
        """The next message; an error the child met is raised here, and DecodeError where nothing comes any more."""
        length = int.from_bytes(self._read(_LENGTH_BYTES))
        message: tuple[Any, ...] = pickle.loads(self._read(length))
        if message[0] == "error":
            raise message[1]
        self._frames += message[0] == "frame"
        return message

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        parts: list[bytes] = []
        until = time.monotonic() + self._limits.stall_s
        while size:
            ready = wait(
                [self._process.stdout.fileno()], max(0.0, until - time.monotonic())
            )  # select.select takes no descriptor above 1023
            if not ready and self._goes_on():
                until = time.monotonic() + self._limits.stall_s
                continue
            data = os.read(self._process.stdout.fileno(), min(size, 1 << 20)) if ready else b""
            if not data:
                raise self._lost(stalled=not ready)
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _goes_on(self) -> bool:
        """Whether the child, silent so far, has read or written since it was asked last: then its processor time is granted anew."""
        moved = self.bytes_moved()
        if moved is None or moved <= self._moved or moved > self._most_moved:
            return False
        self._moved = moved
        with contextlib.suppress(ProcessLookupError, ImportError):
            import resource

            soft, hard = resource.prlimit(self._process.pid, resource.RLIMIT_CPU)
            resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (soft + _cpu_seconds(self._limits), hard))
        return True

    def _lost(self, *, stalled: bool) -> DecodeError:
        if stalled:
            self._process.kill()
        code = self._process.wait()
        how = f"hung for {self._limits.stall_s:g} s" if stalled or code == -signal.SIGXCPU else f"crashed ({_name(code)})"
        where = f"after {self._frames} frames" if self._frames else "before the first frame"
        return DecodeError(f"{self._path}: its decoder {how} {where}, in the sandbox; nothing else was harmed")

    def kill(self) -> None:
        self._process.kill()

    def bytes_moved(self) -> int | None:
        """What the child has read and written so far, None where the system does not say."""
        return bytes_moved(str(self._process.pid))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def bytes_moved(process: str) -> int | None:
    """What a process (or `self/task/N`: thread N of this one) has read and written so far, None where the system does not say."""
    try:
        counts = Path(f"/proc/{process}/io").read_text().split()
        return int(counts[1]) + int(counts[3])  # rchar, wchar
    except (OSError, IndexError, ValueError):
        return None


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def _packed(frame: av.VideoFrame) -> dict[str, Any]:
    fmt = plane_format(frame.format.name, frame.width, frame.height)
    assert fmt is not None
    planes = [np.ascontiguousarray(plane) for plane in frame_planes(frame, fmt)]
    return {
        "size": (frame.width, frame.height, frame.format.name),
        "pts": frame.pts,
        "time_base": Fraction(frame.time_base.numerator, frame.time_base.denominator) if frame.time_base else None,
        "color": color_of_frame(frame),
        "planes": planes,
    }


def _unpacked(values: Mapping[str, Any]) -> av.VideoFrame:
    width, height, pix_fmt = values["size"]
    frame = av.VideoFrame(width, height, pix_fmt)
    fmt = plane_format(pix_fmt, width, height)
    assert fmt is not None
    for target, plane in zip(frame_planes(frame, fmt), values["planes"], strict=True):
        target[...] = plane
    tag_frame(frame, values["color"])
    frame.pts, frame.time_base = values["pts"], values["time_base"]
    return frame


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The child: one request, its answers, the end."""
    request = pickle.loads(requests.read())
    _die_with(request["parent"])
    rearm = _limited(request["limits"])

    def send(*message: Any) -> None:
        data = pickle.dumps(message, protocol=5)
        answers.write(len(data).to_bytes(_LENGTH_BYTES) + data)
        answers.flush()
        rearm()

    try:
        if "function" in request:
            send("result", request["function"](request["path"], *request["arguments"], **request["named"]))
        else:
            _read_frames(request, send)
    except A2NVideoError as error:
        send("error", error)
    except MemoryError:
        send("error", DecodeError(f"{request['path']}: its decoder wanted more memory than the sandbox gives"))


def _read_frames(request: Mapping[str, Any], send: Any) -> None:
    with VideoReader(request["path"], **request["arguments"]) as reader:
        told = (0, 0, 0)
        for frame in reader:
            now = (reader.damage.errors, reader.damage.repeated, len(reader.damage.changes))
            if now != told:
                send("damage", vars(reader.damage))
                told = now
            send("frame", _packed(frame))
        send("damage", vars(reader.damage))
    send("end")


def _limited(limits: Limits) -> Any:
    """Set the limits; returns what grants processor time anew after each answer."""
    try:
        import resource
    except ImportError:  # Windows: only the parent's clock
        return lambda: None
    taken = _address_space() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (taken, taken))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def rearm() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + _cpu_seconds(limits)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))

    rearm()
    return rearm


def _cpu_seconds(limits: Limits) -> int:
    return int(limits.stall_s * (os.cpu_count() or 1)) + 1


def _die_with(parent: int) -> None:
    """Have the system end this child with its parent, however that ends: one that hangs would be left behind. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
