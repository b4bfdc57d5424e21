"""Where the frames of a job that is one stream go: into a pipe, into picture files, or into one file under its working name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from a2n_video.io.outfile import OutFile, publish
from a2n_video.io.writer import FrameWriter
from a2n_video.job.stages import Calls, Stages

if TYPE_CHECKING:
    import av


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Sink:
    """Takes frames, in one thread at a time: `write`, then `close`, after which all is on the disk; `put_in_place` gives it its name.

    `abort` lets go of whatever it holds, finished or not. `disown` does so from another thread, where the writer's own does not come
    back: what that still does reaches nothing. `position` changes while a long step goes on (see `Stage`).
    """

    write: Callable[[av.VideoFrame], None]
    close: Callable[[], None]
    put_in_place: Callable[[], None] = _nothing
    abort: Callable[[], None] = _nothing
    disown: Callable[[], None] = _nothing
    position: Callable[[], object] = _nothing

    def let_go(self, encode: Calls, stages: Stages) -> None:
        """Let go once the stages are closed, whether or not the thread of `encode`, which wrote, has come back."""
        if encode.over:
            stages.let_go(self.abort, "encode")
        else:
            self.disown()


class ResultFile:
    """One file, made by a writer that is opened at the first frame; see `Sink`, whose calls these are."""

    def __init__(self, path: Path, dest: Path, opened: Callable[[OutFile], FrameWriter], *, overwrite: bool) -> None:
        self._file = OutFile(path)
        self._dest, self._opened, self._overwrite = dest, opened, overwrite
        self._writer: FrameWriter | None = None
        self._finishing = False

    @property
    def sink(self) -> Sink:
        return Sink(
            write=self._write,
            close=self._close,
            put_in_place=self._put_in_place,
            abort=self._abort,
            disown=self._disown,
            position=self._position,
        )

    def _write(self, frame: av.VideoFrame) -> None:
        if self._writer is None:
            self._writer = self._opened(self._file)
        self._writer.write(frame)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._finishing = True
        self._file.finish()

    def _position(self) -> object:
        """Another one each time while the disk takes what lay in memory: a slow one takes long, and is no encoder that hangs."""
        return object() if self._finishing else None

    def _put_in_place(self) -> None:
        publish(self._file.path, self._dest, overwrite=self._overwrite)

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()  # before the file is closed, for it would write an end when it goes
        self._file.close()

    def _disown(self) -> None:
        self._file.disown()
        if self._writer is not None:
            self._writer.kill()
