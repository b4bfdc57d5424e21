"""Sound counted against its times: what is missing, and what of it the index notes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from a2n_video.media.samples import CourseTracker, RawSound, SampleCount, Stamp

RATE = 48000
MS = Fraction(1, 1000)


@pytest.mark.parametrize(
    ("stamps", "missing"),
    [
        ([0, 21, 43, 64], [0, 0, 0, 0]),  # rounded
        ([0, 29, 36, 72, 79], [0, 0, 0, 0, 0]),  # wavering
        ([500, 521, 600, 621], [0, 0, 2752, 0]),
        ([0, 30, 60, 90], [0, 0, 832, 0]),  # drifting: made up for where it comes to more than 10 ms
        ([0, 21, 500, 43, 64], [0, 0, 21952, 0, 0]),  # back again: nothing can be taken out
        ([0, 21, 9_000_000, 64], [0, 0, 0, 0]),
    ],
)
def test_missing_samples(stamps: list[int], missing: list[int]) -> None:
    count = SampleCount(RATE)
    assert [count.missing(time * MS, 1024) for time in stamps] == missing
    assert count.end == stamps[0] * MS + Fraction(1024 * len(stamps) + sum(missing), RATE)


@pytest.mark.parametrize(
    ("codec", "silence"),
    [("pcm_s24le", bytes(6)), ("pcm_f64be", bytes(16)), ("pcm_u8", b"\x80\x80"), ("pcm_alaw", b"\xd5\xd5"), ("pcm_mulaw", b"\xff\xff")],
)
def test_silence(codec: str, silence: bytes) -> None:
    sound = RawSound.of(codec, 2, RATE)
    assert sound is not None and sound.silence(1) == silence
    assert RawSound.of("aac", 2, RATE) is None and RawSound.of(codec, 0, RATE) is None


def test_a_course_is_noted_where_it_changes() -> None:
    tracker = CourseTracker(MS, RATE, raw=RawSound.of("pcm_s16le", 1, RATE))
    for number, time in enumerate([0, 21, 43, 164, 185, 207, 160]):
        tracker.add(time, 21, 2048, number)
    course = tracker.course()
    assert course is not None and course.stamps == (Stamp(0, 0, 0), Stamp(164, 3, 3072), Stamp(160, 6, 6144))


@pytest.mark.parametrize(("lengths", "known"), [([21, 21, 21], True), ([21, 21, 9], True), ([21, 9, 21], False), ([43, 43, 43], False)])
def test_a_course_is_known_where_packets_are_as_long_as_is_said(lengths: list[int], known: bool) -> None:
    tracker = CourseTracker(MS, RATE, frame_size=1024)
    for number, length in enumerate(lengths):
        tracker.add(21 * number, length, 100, None)
    assert (tracker.course() is not None) is known
