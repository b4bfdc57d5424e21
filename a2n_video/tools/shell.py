"""What command lines share: numbers, times and places as people write them; expected errors as one line and an exit code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from a2n_video.errors import A2NVideoError, exit_code

_CLOCK: Final = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d+)?)")


def guarded(prog: str, work: Callable[[], None]) -> int:
    """Run a tool; 0, or the error's exit code with one line on stderr."""
    try:
        work()
    except (A2NVideoError, KeyboardInterrupt) as error:
        message = "stopped" if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
        print(f"{prog}: {message}", file=sys.stderr)
        return exit_code(error)
    return 0


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def seconds(text: str) -> Fraction:
    """A time as people write it: 90, 90.5, 1:30.5 or 1:02:03, in exact seconds."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90.5 or 0:01:30.5")
    hours, minutes, rest = match.groups()
    return Fraction(int(hours or 0) * 3600 + int(minutes or 0) * 60) + Fraction(rest)


def place(text: str) -> tuple[int, int]:
    """X,Y as two whole numbers."""
    x, _, y = text.partition(",")
    try:
        return int(x), int(y)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no place; write X,Y such as 120,80") from None
