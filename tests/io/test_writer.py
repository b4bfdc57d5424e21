"""Encoding into one file: what is refused before the first frame, and how a writer ends."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest

from a2n_video.errors import OptionError
from a2n_video.io.backends import check_encoder, open_writer
from a2n_video.io.writer import clock_of
from tests.made import frames, settings

TICK = Fraction(1, 90000)


@pytest.mark.parametrize("size", [(48, 32), (64, 62), (62, 640)])
def test_x265_is_not_opened_below_its_largest_block(size: tuple[int, int]) -> None:
    """It writes beyond its buffers there: 48x32 corrupted the heap."""
    with pytest.raises(OptionError, match=f"64x64.*{size[0]}x{size[1]}.*libx264"):
        check_encoder(settings("libx265", TICK, size=size))
    check_encoder(settings("libx264", TICK, size=size))


def test_x265_is_opened_from_there_on() -> None:
    check_encoder(settings("libx265", TICK, size=(64, 64)))


@pytest.mark.parametrize("size", [(8, 8), (14, 64), (64, 14)])
def test_svt_av1_is_not_opened_on_the_smallest_pictures(size: tuple[int, int]) -> None:
    """At 8x8 it writes beyond a buffer, and the process ends with a corrupted heap."""
    with pytest.raises(OptionError, match=f"16x16.*{size[0]}x{size[1]}.*libx264"):
        check_encoder(settings("libsvtav1", TICK, size=size))
    check_encoder(settings("libsvtav1", TICK, size=(16, 16)))


@pytest.mark.parametrize(
    ("codec", "rate", "tick"),
    [
        ("libx264", Fraction(25), TICK),
        ("mpeg4", Fraction(30000, 1001), Fraction(1001, 30000)),
        ("mpeg4", Fraction(630000, 47281), Fraction(47281, 630000).limit_denominator(65535)),
        ("mpeg2video", Fraction(24000, 1001), Fraction(1001, 24000)),
        ("mpeg2video", Fraction(2500, 101), Fraction(1, 25)),
    ],
)
def test_an_encoder_works_in_a_clock_it_can_hold(codec: str, rate: Fraction, tick: Fraction) -> None:
    assert clock_of(settings(codec, TICK, frame_rate=rate)) == tick


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])
def test_packets_have_the_frames_own_times(codec: str) -> None:
    times = [0, 37, 4000, 4001, 90000, 99999]
    file = io.BytesIO()
    with open_writer(file, settings(codec, TICK)) as writer:
        for frame in frames(times, TICK):
            time = frame.pts
            writer.write(frame)
            assert (frame.pts, frame.time_base) == (time, TICK), "a segment's record is of the frame's time"
    file.seek(0)
    with av.open(file) as container:
        base = Fraction(container.streams.video[0].time_base)
        found = sorted(packet.pts * base for packet in container.demux(video=0) if packet.pts is not None)
    assert found == [time * TICK for time in times]
