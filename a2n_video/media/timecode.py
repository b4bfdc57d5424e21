"""Timecodes that a track at the result's frame rate can say, and what becomes of the others. Pure values."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Final

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
