"""What becomes of time in containers of one frame rate: AVI, y4m, numbered pictures. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from a2n_video.errors import OptionError
from a2n_video.media.containers import HOLDS
from a2n_video.media.index import LEAD_IN, TimeMap
from a2n_video.media.info import VideoInfo
from a2n_video.media.streams import StreamFate, StreamPlan

_MS: Final = Fraction(1, 1000)


def time_fates(info: VideoInfo, plan: StreamPlan, part: TimeMap, starts: Mapping[int, Fraction]) -> tuple[StreamFate, ...]:
    """What a container of one rate (AVI) loses of time in a part: the start of streams against the picture. `starts`: settled seconds.

    An OptionError where it cannot hold the result at all: frames at uneven times, or sound more than a lead-in away from the picture.
    """
    if not HOLDS[plan.container].steady or not part.times:
        return ()
    allowed = max(part.time_base, _MS)
    late = off_rate(part)
    if late is not None:
        raise OptionError(
            f"{plan.container} holds one frame rate, and frame {late} of {info.path} is off it; write mkv, which holds any time"
        )
    fates = []
    for fate in plan.fates:
        if fate.kind != "audio" or fate.fate == "dropped" or fate.index is None or fate.index not in starts:
            continue
        delay = starts[fate.index] - part.window[0]
        if abs(delay) > LEAD_IN:
            words = f"{abs(float(delay)):.3f} s {'after' if delay > 0 else 'before'} the picture"
            raise OptionError(f"{plan.container} begins all streams together, and {fate.what} begins {words}; write mkv, which keeps that")
        if abs(delay) > allowed:
            reason = f"{plan.container} begins all streams together"
            what = f"delay of {fate.what} ({1000 * float(delay):+.1f} ms)"
            fates.append(StreamFate(what=what, kind="delay", fate="dropped", reason=reason))
    return tuple(fates)


def off_rate(time_map: TimeMap) -> int | None:
    """The first frame that lies more than a millisecond (a tick, if that is longer) from where the nominal rate puts it; None for none."""
    allowed = max(time_map.time_base, _MS) / time_map.time_base
    first = time_map.times[0] if time_map.times else 0
    return next((n for n, time in enumerate(time_map.times) if abs(time - first - n * time_map.step) > allowed), None)
