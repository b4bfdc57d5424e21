"""Stdout as the place of a result: every byte of it or an error, and a stop gets through while nobody reads."""

from __future__ import annotations

import io
import select
import sys
from typing import cast

from a2n_video.errors import OutputError
from a2n_video.job.stages import Stages


def stdout() -> io.RawIOBase:
    """Stdout without its buffer, which would keep the process from ending while nobody reads. OutputError where it is closed."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        raise OutputError("-: stdout is closed or takes no bytes; send it into a program or a file")
    sys.stdout.flush()
    return cast(io.RawIOBase, getattr(buffer, "raw", buffer))


class Outgoing:
    """A stream written to by a thread of its own, which a stop leaves behind where it waits for a reader; used as a binary file.

    A reader may pause as long as it likes: it is no stage that hangs.
    """

    def __init__(self, stream: io.RawIOBase, stages: Stages) -> None:
        self._stream, self._stages = stream, stages
        self._call = stages.calls("pipe", position=lambda thread: object())

    def write(self, data: bytes) -> int:
        """All of `data`; OSError where nobody reads any more or the disk is full, and no stop came: Ctrl-C ends the reader as well."""
        try:
            self._call(self._write_all, data)
        except OSError:
            self._stages.check()
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered here."""

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._stream.write(view)
            if written is None:  # the pipe is full, and whoever made it has it not block
                select.select([], [self._stream], [])
            else:
                view = view[written:]
