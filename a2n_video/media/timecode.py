"""Timecodes that a track at the result's frame rate can say, and what becomes of the others. Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from a2n_video.media.containers import HOLDS
from a2n_video.media.info import VideoInfo
from a2n_video.media.streams import StreamFate, StreamPlan, describe
from a2n_video.media.tags import kept_tags, tag_of

_FORM: Final = re.compile(r"\d\d:([0-5]\d):([0-5]\d)([:;])(\d+)")
_DROP_FRAME: Final = 30  # rates that drop frame numbers are multiples of it, and drop two for each such multiple


def can_say(timecode: str, rate: Fraction | None) -> bool:
    """Whether QuickTime's timecode track at a frame rate begins with just this: it counts frames, and its reader writes them anew.

    Frame numbers end below the (rounded) rate and have as many digits as it needs; with `;` the first ones of most minutes are left out.
    """
    match = _FORM.fullmatch(timecode)
    if match is None or rate is None:
        return False
    frames = int(rate + Fraction(1, 2))
    minute, second, number = int(match[1]), int(match[2]), int(match[4])
    if number >= frames or len(match[4]) != len(str(frames - 1)):
        return False
    left_out = second == 0 and minute % 10 and number < 2 * frames // _DROP_FRAME
    return match[3] == ":" or (frames % _DROP_FRAME == 0 and not left_out)


@dataclass(frozen=True, kw_only=True)
class Counting:
    """How a result's frames count on from its source's: `skipped` seconds come before the first, `factor` times as many fill a second."""

    rate: Fraction | None  # the source's
    factor: Fraction = Fraction(1)
    skipped: Fraction = Fraction(0)

    @property
    def same(self) -> bool:
        """Whether the first frame's timecode is the source's."""
        return self.factor == 1 and not self.skipped


def counted_on(timecode: str, counting: Counting) -> str | None:
    """The timecode of the result's first frame, None where it cannot be told: it is no count at the source's rate, or of no whole frame."""
    match = _FORM.fullmatch(timecode)
    if match is None or counting.rate is None:
        return None
    rate, result = (int(rate + Fraction(1, 2)) for rate in (counting.rate, counting.rate * counting.factor))
    drops = match[3] == ";"
    count = _count(match, rate, _dropped(rate, drops))
    frame = None if count is None else count * counting.factor + round(counting.skipped * counting.rate * counting.factor)
    if frame is None or frame.denominator != 1 or (drops and result % _DROP_FRAME):
        return None
    return _shown(int(frame), result, _dropped(result, drops), max(len(match[4]), len(str(result - 1))))


def _dropped(rate: int, drops: bool) -> int:
    """How many numbers are left out at the beginning of nine minutes of ten."""
    return 2 * rate // _DROP_FRAME if drops else 0


def _count(match: re.Match[str], rate: int, dropped: int) -> int | None:
    """Which frame after midnight a timecode names, None where it names none."""
    minutes, second, number = int(match[0][:2]) * 60 + int(match[1]), int(match[2]), int(match[4])
    left_out = minutes % 10 and second == 0 and number < dropped
    if number >= rate or left_out or (match[3] == ";" and rate % _DROP_FRAME):
        return None
    return (minutes * 60 + second) * rate + number - dropped * (minutes - minutes // 10)


def _shown(frame: int, rate: int, dropped: int, digits: int) -> str:
    """The timecode of a frame after midnight; a day later it begins anew."""
    minute, ten = 60 * rate - dropped, 600 * rate - 9 * dropped
    tens, rest = divmod(frame % (144 * ten), ten)
    number = frame % (144 * ten) + dropped * (9 * tens + max(0, rest - dropped) // minute)
    seconds, frames = divmod(number, rate)
    mark = ";" if dropped else ":"
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{frames:0{digits}}"


def with_counted_on(info: VideoInfo, counting: Counting) -> VideoInfo:
    """The source with its timecodes as they are at the result's first frame.

    One that cannot be told is not that frame's where frames are skipped: it is left out of the tags, and `with_timecode` names it.
    """
    if counting.same:
        return info
    streams = tuple(replace(s, metadata=_counted_on(s.metadata, counting, keep=s.kind == "data")) for s in info.streams)
    return replace(info, metadata=_counted_on(info.metadata, counting), streams=streams)


def _counted_on(tags: Mapping[str, str], counting: Counting, *, keep: bool = False) -> dict[str, str]:
    told = {name: counted_on(value, counting) if name.lower() == "timecode" else value for name, value in tags.items()}
    kept = keep or not counting.skipped
    return {name: tags[name] if value is None else value for name, value in told.items() if value is not None or kept}


def without_uncounted(source: VideoInfo, info: VideoInfo, plan: StreamPlan) -> StreamPlan:
    """The plan with the timecodes of the source dropped by name that `with_counted_on` has left out."""
    if not HOLDS[plan.container].timecode:
        return plan
    for before, after, of_video in ((source.metadata, info.metadata, False), (source.video.metadata, info.video.metadata, True)):
        timecode = tag_of(before, "timecode")
        if timecode is not None and tag_of(after, "timecode") is None:
            reason = f"it is that of the first frame, and cannot be counted on from {timecode}"
            fate = StreamFate(what="timecode of the file", kind="tags", fate="dropped", reason=reason)
            plan = _without(source, plan, timecode, reason) if of_video else plan.plus(fate)
    return plan


def with_timecode(info: VideoInfo, plan: StreamPlan, rate: Fraction | None) -> StreamPlan:
    """The plan for frames at a rate: MP4 and QuickTime make a track of a timecode, the file's before the video's.

    One of the file that no track can say stays as text in a named key; one of the video is dropped by name.
    """
    if plan.container not in ("mp4", "mov"):
        return plan
    files = tag_of(kept_tags(info.metadata, plan.container, of_stream=False), "timecode")
    videos = tag_of(kept_tags(info.video.metadata, plan.container, of_stream=True), "timecode")
    if files is not None and not can_say(files, rate):
        plan = replace(plan, muxer_options=_as_text(plan))
    sayable = videos is not None and can_say(videos, rate)
    if videos is None or (sayable and files in (None, videos)):
        return plan
    speed = "changing rates" if rate is None else f"{float(rate):.5g} frames a second"
    reason = f"{plan.container} cannot count {videos} at {speed}" if not sayable else f"the file's own says {files}"
    return _without(info, plan, videos, reason)


def _as_text(plan: StreamPlan) -> tuple[tuple[str, str], ...]:
    options = dict(plan.muxer_options)
    flags = options.get("movflags", "")
    named = flags if "use_metadata_tags" in flags else f"{flags}+use_metadata_tags"
    return tuple((options | {"movflags": named, "write_tmcd": "0"}).items())


def _without(info: VideoInfo, plan: StreamPlan, timecode: str, reason: str) -> StreamPlan:
    """The plan with the video's timecode dropped: the tracks that it comes from, or its tag."""
    tracks = {stream.index for stream in info.streams if stream.kind == "data" and tag_of(stream.metadata, "timecode") == timecode}
    if not tracks:
        what = f"timecode of {describe(info, info.video)}"
        return plan.plus(StreamFate(what=what, kind="timecode", fate="dropped", reason=reason))

    def settled(fate: StreamFate) -> StreamFate:
        return replace(fate, kind="timecode", fate="dropped", to=None, reason=reason) if fate.index in tracks else fate

    return replace(plan, fates=tuple(map(settled, plan.fates)))


def keeps_timecode(plan: StreamPlan) -> bool:
    """Whether the video keeps the timecode that it has, if any."""
    return all(fate.fate != "dropped" for fate in plan.fates if fate.kind == "timecode")
