"""What the plan says of gaps in sound, in containers that count samples, for the part that is taken."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from a2n_video.media.epochs import StreamTimes
from a2n_video.media.gaps import Unevenness, with_gaps
from a2n_video.media.index import PacketTime, TimeMap, build_time_map
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.samples import Course, Stamp
from a2n_video.media.streams import Container, StreamFate, StreamPlan

MS = Fraction(1, 1000)
PART = build_time_map([PacketTime(40 * n, 40 * n, 40, n == 0, n) for n in range(100)], MS, Fraction(25))


def course(*late: tuple[int, int]) -> Course:
    """Packets at these milliseconds, that many milliseconds after their samples."""
    stamps = tuple(Stamp(time, None, (time - by) * 48) for time, by in late)
    return Course(time_base=MS, rate=48000, step=Fraction(1024, 48000), stamps=stamps)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (PART, Unevenness(off=630 * MS, gaps=2, silence=630 * MS, longest=600 * MS, late=4 * MS)),
        (PART.cut(start=Fraction(2)), Unevenness(off=30 * MS, gaps=1, silence=30 * MS, longest=30 * MS)),
        (PART.cut(start=Fraction(3, 10), end=Fraction(3, 2)), Unevenness(off=604 * MS, gaps=1, silence=604 * MS, longest=604 * MS)),
        (PART.cut(start=Fraction(1, 2), end=Fraction(3, 2)), Unevenness()),  # whose sound begins after the gap
        (PART.cut(start=Fraction(1, 2)), Unevenness(off=30 * MS, gaps=1, silence=30 * MS, longest=30 * MS)),
        (PART.cut(end=Fraction(1, 2)), Unevenness(off=4 * MS, late=4 * MS)),
    ],
)
def test_a_parts_gaps(part: TimeMap, found: Unevenness) -> None:
    assert Unevenness.of(course((0, 0), (200, -4), (400, 0), (1000, 600), (3000, 630)), part) == found


@pytest.mark.parametrize(
    ("codec", "container", "late", "told"),
    [
        ("pcm_s16le", "mov", [600], ["copied 0.600 s of silence fill 1 gap, for mov counts its samples; mkv and nut keep its times"]),
        ("pcm_s16le", "mkv", [600], ["copied "]),
        ("pcm_s16le", "mp4", [8, -6], ["copied "]),
        (
            "pcm_u8",
            "avi",
            [-50],
            ["copied ", "dropped its samples last longer than its times say, and avi counts its samples; mkv and nut keep"],
        ),
        ("pcm_u8", "avi", [-150], ["dropped its samples last up to 0.150 s longer than its times say, and avi counts its samples"]),
        ("pcm_s16le", "mov", [4_000_000], ["dropped it has a gap of 4000 s, and mov counts its samples"]),
        ("aac", "mov", [600], ["copied "]),
        ("aac", "avi", [600], ["dropped its times are up to 0.600 s off, and avi counts its packets"]),
        ("aac", "avi", [-600], ["dropped its times are up to 0.600 s off"]),
        ("aac", "avi", [20], ["copied "]),  # less than a packet
    ],
)
def test_what_the_plan_says(codec: str, container: Container, late: list[int], told: list[str]) -> None:
    sound = StreamInfo(index=1, kind="audio", codec=codec, time_base=MS, sample_rate=48000, channels=1)
    info = VideoInfo.__new__(VideoInfo)
    object.__setattr__(info, "streams", (replace(sound, index=0, kind="video"), sound))
    times = StreamTimes(index=1, kind="audio", time_base=MS, course=course((0, 0), *((1000 * (n + 1), by) for n, by in enumerate(late))))
    fate = StreamFate(what="audio 1", kind="audio", fate="copied", index=1)
    plan = with_gaps(info, StreamPlan(container=container, fates=(fate,)), PART, {1: times})
    assert len(plan.fates) == len(told)
    assert all(f"{fate.fate} {fate.reason}".startswith(words) for fate, words in zip(plan.fates, told, strict=True))
