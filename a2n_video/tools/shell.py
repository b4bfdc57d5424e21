"""What the tools' command lines share: times, and every expected error as one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from fractions import Fraction

from a2n_video.errors import A2NVideoError, exit_code


def guarded(prog: str, work: Callable[[], None]) -> int:
    """Run a tool; 0, or the error's exit code with one line on stderr."""
    try:
        work()
    except (A2NVideoError, KeyboardInterrupt) as error:
        message = "stopped" if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
        print(f"{prog}: {message}", file=sys.stderr)
        return exit_code(error)
    return 0


def seconds(text: str) -> Fraction:
    """90, 90.5, 1:30.5 or 0:01:30.5 as exact seconds."""
    try:
        parts = [Fraction(part) for part in text.split(":")]
    except (ValueError, ZeroDivisionError):
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90.5 or 0:01:30.5")
    return sum((part * 60**power for power, part in enumerate(reversed(parts))), Fraction(0))


def place(text: str) -> tuple[int, int]:
    """X,Y as two whole numbers."""
    x, _, y = text.partition(",")
    try:
        return int(x), int(y)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no place; write X,Y such as 120,80") from None
