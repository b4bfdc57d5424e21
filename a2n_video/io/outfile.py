"""The one file object that output bytes go through: fsync, full disks, sizes, hashes and injected faults live here.

PyAV takes it as a file (`write`, `seek`, `tell`, `flush`). FFmpeg forgets some errors of the calls it makes and words others badly, so the
first one is kept: nothing is written after it, and `muxing`, `check` and `finish` raise it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import av

from a2n_video.errors import EncodeError, OutputError, OutputExistsError
from a2n_video.io.faults import reach

_HASH_CHUNK: Final = 1 << 20
_ADVICE: Final = {
    errno.ENOSPC: "the disk is full; make room and run the same command again",
    errno.EDQUOT: "the quota is used up; make room and run the same command again",
    errno.EFBIG: "the file would be larger than this file system or limit allows; write elsewhere",
    errno.EACCES: "not permitted; choose a folder you may write to",
    errno.EPERM: "not permitted; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; make it first",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


class OutFile:
    """A new file, written and fsynced by us. Used by one thread at a time.

    `role` names the file's points (io/faults.py). `size` is the length so far. Every failure is an OutputError whose `errno` is the
    system's; the first one is raised once by `write`, which after that drops what it is given (PyAV holds one error of ours at a time),
    and always by `check`. `finish` is the one good end; a file left without it is whatever was written.
    """

    def __init__(self, path: Path, role: str = "result") -> None:
        self.path = path
        self.role = role
        self.size = 0
        self.error: OutputError | None = None
        self.closed = False
        self._disowned = False
        self._position = 0
        self._hash: hashlib._Hash | None = hashlib.sha256()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise output_error(error, path, "cannot be made") from error

    def write(self, data: bytes) -> int:
        """All of `data` at the current position; returns its length."""
        if self.error is not None:
            return len(data)
        try:
            reach(f"{self.role}.write.before")
            self._write_all(data)
            reach(f"{self.role}.write.after")
        except OSError as error:
            raise self._remember(error, f"cannot be written after {self.size} bytes") from error
        return len(data)

    def _write_all(self, data: bytes) -> None:
        if self._hash is not None and self._position == self.size:
            self._hash.update(data)
        else:
            self._hash = None
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            view = view[written:]
            self._position += written
            self.size = max(self.size, self._position)

    def read(self, size: int) -> bytes:
        """Bytes at the current position, for muxers that look back."""
        data = os.read(self._fd, size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = os.lseek(self._fd, offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is buffered here."""

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def check(self) -> None:
        """Raise the first error again, if there was one."""
        if self.error is not None:
            raise self.error

    @contextmanager
    def muxing(self) -> Iterator[None]:
        """A block of PyAV calls that write here: their failures come as this file's own error where it has one, else as EncodeError."""
        try:
            yield
        except av.FFmpegError as error:
            self.check()
            raise EncodeError(f"{self.path}: the muxer or encoder refused: {error.strerror or error}") from error
        self.check()

    def finish(self) -> str:
        """Everything on the disk (fsync) and the file closed; its sha256 as hex."""
        self.check()
        digest = self._hash.hexdigest() if self._hash is not None else sha256_of(self.path)
        try:
            try:
                reach(f"{self.role}.fsync.before")
                os.fsync(self._fd)
                reach(f"{self.role}.fsync.after")
            finally:
                self.closed = True
                os.close(self._fd)
                reach(f"{self.role}.close.after")
        except OSError as error:
            raise self._remember(error, "cannot be finished") from error
        return digest

    def close(self) -> None:
        """Let go of the file as it is; idempotent, raises nothing."""
        if not self.closed:
            self.closed = True
            os.close(self._fd)

    def discard(self) -> None:
        """Let go of the file and remove it."""
        self.close()
        if not self._disowned:
            self.path.unlink(missing_ok=True)

    def disown(self) -> None:
        """Take the file away from a thread that may be stuck in it: removed now, never finished, and its name is free for another."""
        self.error = OutputError(f"{self.path}: given up")
        self._disowned = True
        self.path.unlink(missing_ok=True)

    def _remember(self, error: OSError, what: str) -> OutputError:
        self.error = error if isinstance(error, OutputError) else output_error(error, self.path, what)
        return self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def output_error(error: OSError, path: Path, what: str) -> OutputError:
    """An OutputError that says what failed on which file and what to do; `errno` is kept."""
    advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    told = OutputError(f"{path}: {what}: {advice}")
    told.errno = error.errno
    return told


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def rename(source: Path, dest: Path, role: str) -> None:
    """Move a finished file to its name in the same folder and make the move durable; what stood there is replaced at once."""
    try:
        reach(f"{role}.rename.before")
        source.replace(dest)
        sync_directory(dest.parent)
        reach(f"{role}.rename.after")
    except OSError as error:
        raise output_error(error, dest, "cannot be put in place") from error


def publish(source: Path, dest: Path, *, overwrite: bool) -> None:
    """Give a finished result its name: whole or not at all, and an older file stays as it is unless `overwrite`."""
    if overwrite:
        return rename(source, dest, "result")
    try:
        reach("result.rename.before")
        _claim(source, dest)
        sync_directory(dest.parent)
        reach("result.rename.after")
    except OutputExistsError:
        raise
    except OSError as error:
        raise output_error(error, dest, "cannot be put in place") from error
    return None


def _claim(source: Path, dest: Path) -> None:
    """Move without replacing anything: a hard link is refused where a file stands, even one made a moment ago."""
    try:
        os.link(source, dest)
    except OSError as error:
        if dest.exists() or isinstance(error, FileExistsError):
            raise OutputExistsError(f"{dest}: exists; give --overwrite to replace it, or another name") from error
        source.replace(dest)  # a file system without hard links
    else:
        source.unlink()


def sync_directory(path: Path) -> None:
    """Make renames and removals in a folder durable, where the system can (Windows cannot open folders)."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
