"""The network in C for processors (network.c), found and called here: in float32 it needs a quarter of the multiplications.

Optional, as everything that wants a compiler when the package is built. Neither torch nor the library is loaded to ask for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent
_SUFFIXES: Final = (".so", ".dylib")


def library_path() -> Path | None:
    """Where the library is, if it was built where this package was installed."""
    return next((path for suffix in _SUFFIXES if (path := _FOLDER / f"liba2n_native{suffix}").exists()), None)


def has_native() -> bool:
    """Whether the library is there."""
    return library_path() is not None
