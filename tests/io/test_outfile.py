"""The output file object: whole or an error, never a file that only looks finished."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from a2n_video.errors import EXIT_CODES, EncodeError, OutputError, OutputExistsError, exit_code
from a2n_video.io.faults import listening
from a2n_video.io.outfile import OutFile, publish, rename, sha256_of


class Strike:
    """A hook that raises an OSError the nth time a point is reached."""

    def __init__(self, point: str, nth: int = 1, code: int = errno.ENOSPC) -> None:
        self.point, self.left, self.code = point, nth, code

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))


def clip(file: OutFile, container: str, frames: int = 12) -> None:
    with file.muxing(), av.open(file, "w", format=container, buffer_size=512) as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(frames):
            picture = np.random.default_rng(n).integers(0, 255, (72, 64), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))
        output.mux(stream.encode(None))


def test_hash_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    file = OutFile(tmp_path / "a")
    for chunk in (b"abc", b"", b"defg" * 1000):
        assert file.write(chunk) == len(chunk)
    assert file.size == 4003 == file.tell()
    assert file.finish() == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()


@pytest.mark.parametrize("container", ["mp4", "matroska", "nut", "mpegts", "avi"])
def test_a_container_written_with_seeks_hashes_right(tmp_path: Path, container: str) -> None:
    file = OutFile(tmp_path / "a")
    clip(file, container)
    assert file.finish() == sha256_of(tmp_path / "a")
    with av.open(str(tmp_path / "a")) as source:
        assert sum(1 for _ in source.decode(video=0)) == 12


def written_size(tmp_path: Path, container: str) -> int:
    file = OutFile(tmp_path / "whole")
    clip(file, container)
    file.finish()
    return file.size


@pytest.mark.parametrize("container", ["mp4", "matroska", "nut"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_failed_write_is_an_error_wherever_it_strikes(tmp_path: Path, container: str, code: int) -> None:
    writes: list[str] = []
    with listening(writes.append):
        written_size(tmp_path, container)
    count = writes.count("result.write.before")
    assert count > 20
    for nth in sorted({1, 2, 3, count // 2, count - 1, count, *range(5, count, count // 14)}):
        file = OutFile(tmp_path / "a")
        with listening(Strike("result.write.before", nth, code)), pytest.raises(OutputError) as caught:
            clip(file, container)
            file.finish()
        assert caught.value.errno == code
        assert exit_code(caught.value) == 5
        assert str(tmp_path / "a") in str(caught.value)
        with pytest.raises(OutputError):
            file.finish()  # the error is remembered
        file.discard()
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("point", ["result.fsync.before", "result.fsync.after", "result.close.after"])
def test_a_failed_fsync_or_close_is_an_error(tmp_path: Path, point: str) -> None:
    file = OutFile(tmp_path / "a")
    file.write(b"x")
    with listening(Strike(point, code=errno.EIO)), pytest.raises(OutputError, match="cannot be finished"):
        file.finish()
    assert file.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_dev_full() -> None:
    file = OutFile(Path("/dev/full"))
    with pytest.raises(OutputError, match="disk is full"):
        clip(file, "nut")
        file.finish()
    file.close()


def test_a_file_size_limit_is_an_output_error(tmp_path: Path) -> None:
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, {resource.RLIM_INFINITY}))
from pathlib import Path
from a2n_video.errors import OutputError, exit_code
from a2n_video.io.outfile import OutFile
try:
    file = OutFile(Path({str(tmp_path / "a")!r}))
    for _ in range(3): file.write(bytes(900))
except OutputError as error:
    sys.exit(exit_code(error))
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == EXIT_CODES[OutputError] != -signal.SIGXFSZ


def test_publish_never_replaces_unasked(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_bytes(b"new")
    old.write_bytes(b"old")
    with pytest.raises(OutputExistsError):
        publish(new, old, overwrite=False)
    assert (old.read_bytes(), new.read_bytes()) == (b"old", b"new")
    publish(new, old, overwrite=True)
    assert old.read_bytes() == b"new"
    assert not new.exists()


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(source: Path, dest: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    yield


def test_publish_moves(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    publish(tmp_path / "new", tmp_path / "dest", overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["dest"]


@pytest.mark.usefixtures("no_hard_links")
def test_publish_without_hard_links(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    publish(tmp_path / "new", tmp_path / "dest", overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["dest"]
    (tmp_path / "new").write_bytes(b"newer")
    with pytest.raises(OutputExistsError):
        publish(tmp_path / "new", tmp_path / "dest", overwrite=False)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_failed_rename_leaves_the_old_file(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "new").write_bytes(b"new")
    if overwrite:
        (tmp_path / "dest").write_bytes(b"old")
    with listening(Strike("result.rename.before", code=errno.EIO)), pytest.raises(OutputError):
        publish(tmp_path / "new", tmp_path / "dest", overwrite=overwrite)
    assert (tmp_path / "new").read_bytes() == b"new"
    assert not overwrite or (tmp_path / "dest").read_bytes() == b"old"


def test_points_come_in_order(tmp_path: Path) -> None:
    points: list[str] = []
    with listening(points.append):
        file = OutFile(tmp_path / "a.part", "segment")
        file.write(b"x")
        file.finish()
        rename(tmp_path / "a.part", tmp_path / "a", "segment")
    steps = ["write.before", "write.after", "fsync.before", "fsync.after", "close.after", "rename.before", "rename.after"]
    assert points == [f"segment.{step}" for step in steps]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        OutFile(tmp_path / "no" / "a")


def test_what_the_muxer_refuses_is_an_encode_error(tmp_path: Path) -> None:
    file = OutFile(tmp_path / "a")
    with pytest.raises(EncodeError, match="refused"), file.muxing(), av.open(file, "w", format="mp4") as output:
        output.add_stream("mpeg4", rate=25)
        packet = av.Packet(b"xx")
        packet.pts = packet.dts = 5
        packet.stream = output.streams[0]
        output.mux(packet)
        packet.dts = 3
        output.mux(packet)
