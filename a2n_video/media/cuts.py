"""What a cut costs the videos that are copied: they begin with a keyframe, and end before what refers beyond the end. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from a2n_video.media.containers import HOLDS
from a2n_video.media.index import PacketTime, ScanResult, TimeMap, Window, placed
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.streams import Container, StreamFate, StreamPlan


@dataclass(frozen=True, kw_only=True)
class _Lost:
    """What a video loses of the part that is taken: seconds before its first keyframe there, all where that is None; later pictures."""

    seconds: Fraction | None
    pictures: int = 0


def with_cut_videos(info: VideoInfo, plan: StreamPlan, time_map: TimeMap, scanned: ScanResult) -> StreamPlan:
    """The plan with what a cut leaves out of copied videos: what comes before their first keyframe, or all where none lies in the part."""
    fates: list[StreamFate] = []
    for fate in plan.fates:
        packets = scanned.other_videos.get(fate.index) if fate.index is not None and fate.fate == "copied" else None
        if fate.index is None or not packets:
            fates.append(fate)
        else:
            fates += _cut(fate, plan.container, _lost(info.streams[fate.index], packets, time_map))
    return replace(plan, fates=tuple(fates))


def _cut(fate: StreamFate, container: Container, lost: _Lost) -> tuple[StreamFate, ...]:
    """The fate of a video, and of what is lost of it."""
    if lost.seconds is None:
        return (replace(fate, fate="dropped", reason="no keyframe of it lies in the part that is taken, and a copy begins with one"),)
    if lost.seconds and HOLDS[container].steady:
        reason = f"its first keyframe comes {float(lost.seconds):.3f} s after the cut, and {container} begins all streams together"
        return (replace(fate, fate="dropped", reason=reason),)
    missing = StreamFate(what="", kind="cut", fate="dropped")
    fates = [fate]
    if lost.seconds:
        reason = "a video that is copied begins with its first keyframe after the cut"
        fates.append(replace(missing, what=f"the first {float(lost.seconds):.3f} s of {fate.what}", reason=reason))
    if lost.pictures:
        what = f"the last {f'{lost.pictures} pictures' if lost.pictures > 1 else 'picture'} of {fate.what}"
        fates.append(replace(missing, what=what, reason="a video that is copied keeps none that refers to what comes after the end"))
    return tuple(fates)


def _lost(stream: StreamInfo, packets: Sequence[PacketTime], time_map: TimeMap) -> _Lost:
    window = Window(time_map)
    taken: list[Fraction] = []
    lost: list[Fraction] = []
    for packet in packets:
        ticks = packet.dts if packet.pts is None else packet.pts
        time, duration = (ticks or 0) * stream.time_base, packet.duration * stream.time_base
        span = window.place(stream, time, duration, packet.position, keyframe=packet.keyframe, hidden=packet.hidden)
        inside = placed(time_map, time, duration, packet.position, stretches=False)
        if inside is not None and not window.is_trimmed(stream, hidden=packet.hidden):
            (lost if span is None else taken).append(inside[0])
    if not taken:
        return _Lost(seconds=None if lost else Fraction(0))
    first = min(taken)
    return _Lost(seconds=first - min([first, *lost]), pictures=sum(time > first for time in lost))
