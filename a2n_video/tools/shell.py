"""What command lines share: numbers, times and places as people write them; expected errors as one line and an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction

from a2n_video.errors import A2NVideoError, OptionError, exit_code
from a2n_video.job.talk import say
from a2n_video.options import seconds_of


def guarded(prog: str, work: Callable[[], None]) -> int:
    """Run a tool; 0, or the error's exit code with one line on stderr."""
    try:
        work()
    except (A2NVideoError, KeyboardInterrupt) as error:
        message = "stopped" if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
        say(f"{prog}: {message}")
        return exit_code(error)
    return 0


def count(text: str) -> int:
    """A whole number, 1 or more."""
    return _least(text, 1)


def count_or_none(text: str) -> int:
    """A whole number, 0 or more."""
    return _least(text, 0)


def _least(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
    return number


def seconds(text: str) -> Fraction:
    """A time as people write it: 90, 90.5, 1:30.5 or 1:02:03, in exact seconds."""
    try:
        return seconds_of(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def place(text: str) -> tuple[int, int]:
    """X,Y as two whole numbers."""
    x, _, y = text.partition(",")
    try:
        return int(x), int(y)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no place; write X,Y such as 120,80") from None
