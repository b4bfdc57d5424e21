"""What a cut costs the videos that are copied: they begin with a keyframe, wherever the cut lies. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from a2n_video.media.containers import HOLDS
from a2n_video.media.index import PacketTime, ScanResult, TimeMap, Window, placed
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.streams import Container, StreamFate, StreamPlan


def with_cut_videos(info: VideoInfo, plan: StreamPlan, time_map: TimeMap, scanned: ScanResult) -> StreamPlan:
    """The plan with what a cut leaves out of copied videos: what comes before their first keyframe, or all where none lies in the part."""
    fates: list[StreamFate] = []
    for fate in plan.fates:
        packets = scanned.other_videos.get(fate.index) if fate.index is not None and fate.fate == "copied" else None
        if fate.index is None or not packets:
            fates.append(fate)
        else:
            fates += _cut(fate, plan.container, _lost_seconds(info.streams[fate.index], packets, time_map))
    return replace(plan, fates=tuple(fates))


def _cut(fate: StreamFate, container: Container, lost: Fraction | None) -> tuple[StreamFate, ...]:
    """The fate of a video of which the first `lost` seconds are lost; None: all."""
    if lost is None:
        return (replace(fate, fate="dropped", reason="no keyframe of it lies in the part that is taken, and a copy begins with one"),)
    if lost and HOLDS[container].steady:
        reason = f"its first keyframe comes {float(lost):.3f} s after the cut, and {container} begins all streams together"
        return (replace(fate, fate="dropped", reason=reason),)
    if lost:
        reason = "a video that is copied begins with its first keyframe after the cut"
        return (fate, StreamFate(what=f"the first {float(lost):.3f} s of {fate.what}", kind="cut", fate="dropped", reason=reason))
    return (fate,)


def _lost_seconds(stream: StreamInfo, packets: Sequence[PacketTime], time_map: TimeMap) -> Fraction | None:
    """How much later than its first picture in the part a video begins; None where it does not, though there are some."""
    window = Window(time_map)
    inside, taken = [], []
    for packet in packets:
        ticks = packet.dts if packet.pts is None else packet.pts
        time, duration = (ticks or 0) * stream.time_base, packet.duration * stream.time_base
        span = placed(time_map, time, duration, packet.position, stretches=False)
        inside += [] if span is None else [span[0]]
        span = window.place(stream, time, duration, packet.position, keyframe=packet.keyframe)
        taken += [] if span is None else [span[0]]
    if not taken:
        return None if inside else Fraction(0)
    return min(taken) - min(inside)
