"""What a cut costs copied videos: named, and none for those that have a keyframe there."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from a2n_video.errors import OptionError
from a2n_video.media.cuts import with_cut_videos
from a2n_video.media.index import PacketTime, ScanResult, build_time_map
from a2n_video.media.streams import StreamFate, StreamPlan
from tests.media.test_streams import source, stream

TB = Fraction(1, 1000)
VIDEO = [PacketTime(n * 40, n * 40, 40) for n in range(100)]
# Keyframes at 0 and 400 ms, and after the second one a picture that is shown before it.
OTHER = [PacketTime(t, t, 40, t in (0, 400)) for t in (*range(0, 360, 40), 400, 360, *range(440, 1000, 40))]


def planned(other: list[PacketTime], box: str = "mkv", **cut: Any) -> StreamPlan:
    info = source(stream(1, "video", "mpeg4", width=32, height=32), stream(2, "audio", "aac"))
    fates = (
        StreamFate(what="video 2", kind="video", fate="copied", index=1),
        StreamFate(what="audio 1", kind="audio", fate="copied", index=2),
    )
    scanned = ScanResult(video_index=0, time_base=TB, rate=None, packets=tuple(VIDEO), other_videos={1: tuple(other)})
    time_map = build_time_map(VIDEO, TB, Fraction(25)).cut(**cut)
    return with_cut_videos(info, StreamPlan(container=box, fates=fates), time_map, scanned)  # type: ignore[arg-type]


@pytest.mark.parametrize("cut", [{}, {"end": Fraction(1, 5)}, {"start": Fraction(2, 5)}, {"start": Fraction(0)}, {"start": Fraction(2)}])
def test_nothing_is_lost_without_a_start_at_a_keyframe_and_after_the_end(cut: dict[str, Fraction]) -> None:
    assert not planned(OTHER, **cut).losses


def test_what_lies_before_the_first_keyframe_is_named() -> None:
    plan = planned(OTHER, start=Fraction(1, 25))
    assert [(fate.what, fate.kind) for fate in plan.losses] == [("the first 0.360 s of video 2", "cut")]
    assert plan.of_stream(1) and plan.of_stream(1).fate == "copied"  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="first keyframe after the cut"):
        plan.refuse_losses()


@pytest.mark.parametrize(
    ("cut", "box"),
    [({"start": Fraction(12, 25)}, "mkv"), ({"start": Fraction(1, 25), "end": Fraction(1, 5)}, "mkv"), ({"start": Fraction(1, 25)}, "avi")],
)
def test_a_video_that_cannot_begin_in_the_part_is_dropped(cut: dict[str, Fraction], box: str) -> None:
    """Without a keyframe there, or late in a container that begins all streams together."""
    assert [(fate.what, fate.index) for fate in planned(OTHER, box, **cut).losses] == [("video 2", 1)]


# Every third picture comes before the two that are shown before it.
REORDERED = [PacketTime(t * 40, None, 40, t == 0) for n in range(1, 31, 3) for t in (n + 2, n, n + 1)]


@pytest.mark.parametrize(
    ("end", "lost"), [(7, []), (8, ["the last picture of video 2"]), (9, ["the last 2 pictures of video 2"]), (10, []), (99, [])]
)
def test_pictures_that_refer_beyond_the_end_are_named(end: int, lost: list[str]) -> None:
    plan = planned([PacketTime(0, None, 40, True), *REORDERED], end=end * Fraction(1, 25))
    assert [fate.what for fate in plan.losses] == lost
    assert plan.of_stream(1) and plan.of_stream(1).fate == "copied"  # type: ignore[union-attr]
    if lost:
        with pytest.raises(OptionError, match="refers to what comes after the end"):
            plan.refuse_losses()
