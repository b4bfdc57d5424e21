"""Whether a source is interlaced or telecined, and what is done about it. Pure values; io/filters.py looks and does."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

from a2n_video.media.timemap import TimeMap
from a2n_video.options import Deinterlace

# What is done to frames: "flagged" deinterlaces those their decoder calls interlaced and leaves the others alone.
Mode = Literal["off", "flagged", "all", "field", "ivtc"]
# Which field of a frame was there first, as FFmpeg's filters are told; "auto" goes by each frame's marks, and by the top without any.
FieldOrder = Literal["auto", "tff", "bff"]
CYCLE: Final = 5  # film at 24 frames, on 30: four of five frames are new
# Lines that interlaced video has; flags are often missing there (captures), and a picture of other height was hardly ever woven.
INTERLACED_HEIGHTS: Final = frozenset({480, 486, 512, 576, 608, 1080, 1088})
_SURE: Final = 0.9
_COARSE: Final = Fraction(1, 1000)  # what Matroska rounds all times to, and nobody sees
_FEWEST: Final = 16


@dataclass(frozen=True, kw_only=True)
class InterlaceFindings:
    """What the first frames look like. `looks` is idet's view of each (t, b: woven; p; u), `repeats` the fields it saw twice (n, t, b)."""

    frames: int = 0
    flagged: int = 0
    looks: str = ""
    repeats: str = ""
    combed: int = 0  # frames with comb teeth in some places

    @property
    def woven(self) -> bool:
        """Whether nearly all frames look interlaced, in one field order, and a good part show teeth (idet alone sees them in noise)."""
        orders = max(self.looks.count("t"), self.looks.count("b"))
        return len(self.looks) >= _FEWEST and orders >= _SURE * len(self.looks) and self.combed >= len(self.looks) // 4

    @property
    def order(self) -> FieldOrder:
        """Which field comes first by the looks of the frames, whatever they are marked as."""
        top, bottom = self.looks.count("t"), self.looks.count("b")
        return "auto" if top == bottom else "tff" if top > bottom else "bff"

    @property
    def telecined(self) -> bool:
        """Whether each field is shown twice once in five frames: film at 24 frames a second, spread over 30."""
        if len(self.repeats) < 3 * CYCLE:
            return False
        places = {field: {i % CYCLE for i, seen in enumerate(self.repeats) if seen == field} for field in "tb"}
        counts = [self.repeats.count(field) for field in "tb"]
        cycles = len(self.repeats) // CYCLE
        return all(len(place) == 1 for place in places.values()) and places["t"] != places["b"] and min(counts) >= 0.7 * cycles


@dataclass(frozen=True, kw_only=True)
class InterlacePlan:
    """What is done, and what the plan says about it. `order` is that of the frames that are not marked; marked ones say theirs."""

    mode: Mode
    note: str = ""
    order: FieldOrder = "auto"

    @property
    def factor(self) -> int:
        """Frames that come for each one of the source (ivtc: four for five, by TimeMap)."""
        return 2 if self.mode == "field" else 1

    @property
    def rate_factor(self) -> Fraction:
        """The result's nominal frame rate by the source's."""
        return Fraction(CYCLE - 1, CYCLE) if self.mode == "ivtc" else Fraction(self.factor)


def plan_interlace(wanted: Deinterlace, found: InterlaceFindings, height: int) -> InterlacePlan:
    """Settle --deinterlace by what was found."""
    return replace(_settled(wanted, found, height), order=found.order)


def _settled(wanted: Deinterlace, found: InterlaceFindings, height: int) -> InterlacePlan:
    if wanted == "off":
        woven = found.flagged or (found.woven and height in INTERLACED_HEIGHTS)
        return InterlacePlan(mode="off", note="interlaced frames are upscaled as they are (--deinterlace off)" if woven else "")
    if wanted == "frame":
        return InterlacePlan(mode="all", note="every frame is deinterlaced (bwdif), frame rate kept")
    if wanted == "field":
        return InterlacePlan(mode="field", note="every field becomes a frame (bwdif): two frames for each one of the source")
    if wanted == "ivtc":
        return InterlacePlan(mode="ivtc", note=_ivtc_note(found))
    return _automatic(found, height)


def _ivtc_note(found: InterlaceFindings) -> str:
    doubt = "" if found.telecined else "; no 3:2 pulldown was seen in the first frames, so look at the result"
    return f"telecine is undone: fields are matched, one frame of five is dropped{doubt}"


def _automatic(found: InterlaceFindings, height: int) -> InterlacePlan:
    film = "; it is film with 3:2 pulldown: --deinterlace ivtc gives its 24 frames back" if found.telecined else ""
    if found.flagged:
        calm = found.looks.count("p") >= _SURE * max(1, len(found.looks))
        still = "; they look progressive: --deinterlace off keeps all their lines" if calm and not film else ""
        return InterlacePlan(mode="flagged", note=f"interlaced: deinterlaced with bwdif, frame rate kept{film or still}")
    if found.woven and height in INTERLACED_HEIGHTS:
        first = "bottom" if found.order == "bff" else "top"
        done = f"deinterlaced with bwdif, {first} field first, frame rate kept"
        note = f"interlaced, though not marked so: {done}{film}; --deinterlace off if that is wrong"
        return InterlacePlan(mode="all", note=note)
    return InterlacePlan(mode="flagged")


def result_map(plan: InterlacePlan, source: TimeMap) -> TimeMap:
    """The TimeMap of the frames that come out: of fields, with half the tick; of ivtc, four frames evenly in the time of five."""
    if plan.mode == "field":
        return _doubled(source)
    if plan.mode == "ivtc":
        exact = film_clock(source)
        times = tuple(time for first in range(0, source.frames, CYCLE) for time in cycle_times(exact, first))
        return replace(exact, times=times, step=exact.step * CYCLE / (CYCLE - 1))
    return source


def film_clock(source: TimeMap) -> TimeMap:
    """The source's map on a clock that can say a quarter of a cycle, which falls between ticks that are frames, as AVI's are."""
    return _finer(source, CYCLE - 1) if source.time_base > _COARSE else source


def cycle_times(source: TimeMap, first: int) -> tuple[int, ...]:
    """The times of what is left of the cycle of frames that begins with number `first`: four for five, as many for fewer."""
    times = source.times[first : first + CYCLE]
    if len(times) < CYCLE:
        return times
    end = source.times[first + CYCLE] if first + CYCLE < source.frames else source.end_pts
    return tuple(times[0] + round(Fraction(k * (end - times[0]), CYCLE - 1)) for k in range(CYCLE - 1))


def next_time(source: TimeMap, pts: int) -> int:
    """Settled pts of the frame after the one at `pts`."""
    place = bisect_right(source.times, pts)
    return source.times[place] if place < source.frames else max(source.end_pts, pts + 1)


def _doubled(source: TimeMap) -> TimeMap:
    ends = (*source.times[1:], max(source.end_pts, source.last_pts + 1))
    times = tuple(time for start, end in zip(source.times, ends, strict=True) for time in (2 * start, start + end))
    return replace(_finer(source, 2), times=times, step=source.step)


def _finer(source: TimeMap, factor: int) -> TimeMap:
    """The map of a whole source with so many ticks for one."""
    return replace(
        source,
        time_base=source.time_base / factor,
        step=source.step * factor,
        times=tuple(factor * time for time in source.times),
        first_pts=factor * source.first_pts,
        end_pts=factor * source.end_pts,
        origin_pts=factor * source.origin_pts,
        shift_pts=factor * source.shift_pts,
        keyframes=tuple(factor * time for time in source.keyframes),
    )
