"""What tools write: names checked before the work, small files written whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2n_video.errors import OptionError, OutputError, OutputExistsError


def check_output(path: Path, suffixes: Sequence[str], sources: Iterable[Path] = (), *, overwrite: bool = True) -> None:
    """See that a result can be written, before minutes are spent on it.

    OptionError for an extension that is none of `suffixes`; OutputError where the folder is missing or closed, or where it is one of the
    sources; OutputExistsError without `overwrite`.
    """
    if path.suffix.lower() not in suffixes:
        raise OptionError(f"{path}: the result is a {' or '.join(suffixes)} file, and its name is to say so")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: cannot be written: no permission in {folder}")
    if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
        raise OutputError(f"{path}: is an input as well and would be overwritten; give another name")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already; add --overwrite to replace it")


def write_file(path: Path, data: bytes) -> None:
    """Write a small result whole or not at all: what stood there stays. OutputError where the disk or a permission says no."""
    target = path.resolve()  # a link stays one
    part = target.with_name(f".a2n-{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV: a line of column names, then one line a row; floats with six significant digits, None empty."""
    lines = [",".join(columns)]
    lines += [",".join("" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    write_file(path, ("\n".join(lines) + "\n").encode())


def described(columns: Mapping[str, str]) -> str:
    """A CSV's columns and what they mean, for people."""
    return "; ".join(f"{name}: {meaning}" for name, meaning in columns.items())
