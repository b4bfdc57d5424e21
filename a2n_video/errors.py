"""The error tree and its exit codes.

    A2NVideoError                     1   internal: a bug of ours
    |-- OptionError (ValueError)      2   an option, a codec, an extension that does not fit
    |-- MissingDependencyError        2   an extra is not installed (ImportError)
    |-- InputError                    3   the source cannot be used
    |   |-- DecodeError               3   not a video, or nothing decodable in it (ValueError)
    |   |-- UnsupportedFormatError    3   a pixel format or size we do not take (ValueError)
    |   `-- IncompleteSourceError     4   damaged or truncated; the result was kept
    |-- OutputError (OSError)         5   disk, permission, output equals input
    |   |-- EncodeError               5   the encoder or muxer refused a frame
    |   |-- OutputExistsError         5   exists and --overwrite was not given (FileExistsError)
    |   `-- JobConflictError          5   locked, or the journal of another job
    |-- ModelError                    6   weights
    |   |-- UnknownModelError         2   no model of that name: a usage error (ValueError)
    |   `-- WeightsError              6   a file that is not what it should be (ValueError)
    |-- DeviceError (RuntimeError)    6   no such device, or it failed
    `-- VerificationError             7   the result does not match its source

Every message says what happened, in which file, at which frame or time where that is known, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OPTION: Final = re.compile(r"(?<![\w-])--(?!list-)([a-z]+(?:-[a-z]+)*)")


class A2NVideoError(Exception):
    """Anything this package raises on purpose."""


class OptionError(A2NVideoError, ValueError):
    """An option has a value that cannot be used."""


class MissingDependencyError(A2NVideoError, ImportError):
    """An optional package is needed for what was asked, and is not installed."""


class InputError(A2NVideoError):
    """The source cannot be used."""


class DecodeError(InputError, ValueError):
    """The source is not a video, or nothing in it can be decoded."""


class UnsupportedFormatError(InputError, ValueError):
    """The source's pixel format, size or layout is not taken."""


class IncompleteSourceError(InputError):
    """The source is damaged or ends early; what could be made of it was kept."""


class OutputError(A2NVideoError, OSError):
    """The result cannot be written."""


class EncodeError(OutputError):
    """The encoder or the muxer refused what it was given."""


class OutputExistsError(OutputError, FileExistsError):
    """The target exists and overwriting was not asked for."""


class JobConflictError(OutputError):
    """Another run holds this output, or its journal belongs to another job."""


class ModelError(A2NVideoError):
    """The network or its weights."""


class UnknownModelError(ModelError, ValueError):
    """No bundled model has that name (and scale)."""


class WeightsError(ModelError, ValueError):
    """A weights file is not what was expected."""


class DeviceError(A2NVideoError, RuntimeError):
    """No such device, or it failed."""


class VerificationError(A2NVideoError):
    """The finished result does not match its source."""


BATCH_FAILED: Final = 8
INTERRUPTED: Final = 130
TERMINATED: Final = 143

# The nearest class in an error's method resolution order decides.
EXIT_CODES: Final[dict[type[BaseException], int]] = {
    A2NVideoError: 1,
    OptionError: 2,
    MissingDependencyError: 2,
    UnknownModelError: 2,
    InputError: 3,
    IncompleteSourceError: 4,
    OutputError: 5,
    ModelError: 6,
    DeviceError: 6,
    VerificationError: 7,
    KeyboardInterrupt: INTERRUPTED,
}


def exit_code(error: BaseException) -> int:
    """Exit code for an error: the table's entry of the nearest class, 1 for anything unforeseen."""
    for cls in type(error).__mro__:
        if cls in EXIT_CODES:
            return EXIT_CODES[cls]
    return 1


@contextmanager
def named_as_in_python() -> Iterator[None]:
    """Errors of ours that leave this block name options as Python and VapourSynth do: `keep_all` for `--keep-all`."""
    try:
        yield
    except A2NVideoError as error:
        error.args = tuple(_OPTION.sub(_as_argument, told) if isinstance(told, str) else told for told in error.args)
        raise


def _as_argument(option: re.Match[str]) -> str:
    return option[1].replace("-", "_")
