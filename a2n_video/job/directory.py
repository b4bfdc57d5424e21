"""Where a job keeps its segments, journal and lock until its result is in place: `<output>.a2n/` beside the output."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from a2n_video.errors import JobConflictError, OutputError
from a2n_video.io.outfile import output_error, sha256_of, sync_directory
from a2n_video.job.journal import whole_lines

try:
    import fcntl
except ImportError:  # Windows has no flock; two runs on one output are not told apart there
    fcntl = None  # type: ignore[assignment]

_NAME_BYTES: Final = 255
JOURNAL: Final = "journal.jsonl"
LOCK: Final = "lock"


class JobDirectory:
    """The folder of one job, locked for this process while open. The lock dies with its process, however that ends.

    `result` is where the final file is made: on the target's file system, so that a rename puts it in place.
    """

    def __init__(self, dest: Path) -> None:
        self.dest = dest
        self.path = job_path(dest)
        self.journal = self.path / JOURNAL
        self.result = self.path / f"result{dest.suffix}"
        self._lock = -1
        self._removed = False

    def __enter__(self) -> Self:
        """Make the folder if need be and take the lock; JobConflictError if another process has it."""
        try:
            while not self._locked():
                self._unlock()
        except OutputError:
            raise
        except OSError as error:
            raise output_error(error, self.path, "the job's folder cannot be made") from error
        return self

    def _locked(self) -> bool:
        """Take the lock; False if the folder went away meanwhile, as it does when another run finishes."""
        self.path.mkdir(exist_ok=True)
        try:
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._lock), (self.path / LOCK).stat())
        except FileNotFoundError:
            if self._lock < 0 and self.path.is_dir():
                raise
            return False
        except BlockingIOError:
            self._unlock()
            raise JobConflictError(f"{self.dest}: another run is working on this output; wait for it or choose another name") from None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is worth coming back for: no journal, or one without a line."""
        try:
            return not self.journal.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return True

    def clear(self) -> None:
        """Remove all but the lock: the job begins anew."""
        self._clear_all_but(LOCK)
        sync_directory(self.path)

    def clear_segments(self) -> None:
        """Remove all but lock and journal: what no journal vouches for."""
        self._clear_all_but(LOCK, JOURNAL)

    def _clear_all_but(self, *names: str) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir():  # a worker's
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name not in names:
                entry.unlink()

    def remove(self) -> None:
        """Remove the folder, lock and all: the job is over. The journal goes last: stopped before that, the next run knows."""
        self._removed = True
        with contextlib.suppress(OSError):  # what cannot be removed now is left: the result is in place
            self._clear_all_but(LOCK, JOURNAL)
        shutil.rmtree(self.path, ignore_errors=True)

    def tidy_up(self) -> None:
        """Remove a folder in which nothing was left but a lock that nobody holds; any other stays as it is."""
        if self.path.is_dir():
            with contextlib.suppress(OSError), self:
                if self.is_empty and {entry.name for entry in self.path.iterdir()} <= {LOCK, JOURNAL}:
                    self.remove()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._unlock()
        if self._removed:  # over NFS the lock's file goes only once it is closed, and with it the folder
            with contextlib.suppress(OSError):
                self.path.rmdir()


def job_path(dest: Path) -> Path:
    """The folder for an output; for a name that would grow too long, shortened with a hash that keeps it apart from others."""
    name = os.fsencode(dest.name) + b".a2n"
    if len(name) > _NAME_BYTES:
        digest = hashlib.sha256(name).hexdigest()[:16]
        name = os.fsencode(os.fsdecode(name[:200])) + f"~{digest}.a2n".encode()
    return dest.with_name(os.fsdecode(name))


def result_stands(dest: Path) -> bool:
    """Whether an existing output is what its own job folder says it put there: a run was stopped before it removed the folder."""
    try:
        entries = [entry for _, entry in whole_lines((job_path(dest) / JOURNAL).read_bytes())]
        results = [entry["values"] for entry in entries if entry["kind"] == "result"]
        return bool(results) and results[-1]["size"] == dest.stat().st_size and results[-1]["sha256"] == sha256_of(dest)
    except OSError:
        return False
