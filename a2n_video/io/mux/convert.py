"""The streams a plan converts, each as the object that makes it."""

from __future__ import annotations

from a2n_video.io.mux.audio import ConvertedAudio
from a2n_video.io.mux.converted import Converted
from a2n_video.io.mux.subtitles import ConvertedSubtitles
from a2n_video.media.final import FinalFile


def converted_streams(final: FinalFile) -> dict[int, Converted]:
    """What to hand `remux` for the streams that the plan converts, by source index."""
    makers: dict[str, type[Converted]] = {"audio": ConvertedAudio, "subtitle": ConvertedSubtitles}
    times, info = final.time_map, final.info
    return {
        fate.index: makers[fate.kind](info.path, fate.index, fate.to, times, times.begin, times.limit, info.ignore_edits)
        for fate in final.plan.fates
        if fate.fate == "converted" and fate.kind in makers and fate.index is not None and fate.to is not None
    }
