"""The streams a plan converts, each as the object that makes it."""

from __future__ import annotations

from fractions import Fraction

from a2n_video.io.audio import ConvertedAudio
from a2n_video.io.subtitles import ConvertedSubtitles
from a2n_video.media.info import VideoInfo
from a2n_video.media.streams import StreamPlan
from a2n_video.media.timemap import TimeMap

Converted = ConvertedAudio | ConvertedSubtitles


def converted_streams(
    info: VideoInfo, plan: StreamPlan, time_map: TimeMap, start: Fraction | None = None, end: Fraction | None = None
) -> dict[int, Converted]:
    """What to hand `remux` for the streams that the plan converts, by source index; `start` and `end` bound them on the result's clock."""
    makers: dict[str, type[ConvertedAudio] | type[ConvertedSubtitles]] = {"audio": ConvertedAudio, "subtitle": ConvertedSubtitles}
    return {
        fate.index: makers[fate.kind](info.path, fate.index, fate.to, time_map, start, end)
        for fate in plan.fates
        if fate.fate == "converted" and fate.kind in makers and fate.index is not None and fate.to is not None
    }
