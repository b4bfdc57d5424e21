"""Streams that people and programs listen to: a job is not lost because nobody does any more."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Listener:
    """A text stream, flushed after every write. Once it takes no more, what is said goes nowhere, and no error is raised."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            silence(self._stream)
        self.flush()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)


def say(text: str) -> None:
    """A line for people on stderr, if there is one. (`print` would take stdout instead, which may be carrying the picture.)"""
    if sys.stderr is not None:
        Listener(sys.stderr).write(f"{text}\n")


def silence(stream: TextIO) -> None:
    """Have what a stream holds and gets go nowhere: Python would fail over it again when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
