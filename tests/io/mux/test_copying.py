"""The packets that are copied: exact bases, what begins at a cut, decode times as containers can say them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2n_video.io.mux.copying import as_held, fine_base
from a2n_video.job.run import upscale_video
from tests.clips import Clip, write_clip
from tests.made import decoded, make_source, packets

TICK = Fraction(1, 25)
EMPTY = hashlib.sha1(b"\0\0").hexdigest()


@given(
    st.fractions(min_value=Fraction(1, 200_000), max_value=1, max_denominator=200_000).filter(bool),
    st.lists(st.fractions(min_value=-100_000, max_value=100_000, max_denominator=200_000), max_size=2),
)
def test_a_fine_base_divides_the_tick_and_fits_into_ffmpeg(tick: Fraction, shifts: list[Fraction]) -> None:
    base = fine_base(tick, *shifts)
    assert (tick / base).denominator == 1 and base.denominator < 1 << 31 > base.numerator
    exact = all((shift / base).denominator == 1 for shift in shifts)
    assert exact or base <= Fraction(tick.numerator, 1 << 30), "only where FFmpeg's numbers end is a shift rounded"


def lane(times: Iterable[tuple[int, int]], base: Fraction = TICK) -> Iterator[tuple[int, Any]]:
    """Packets of one stream with these presentation and decode times."""
    for pts, dts in times:
        packet = av.Packet(b"x")
        packet.pts, packet.dts, packet.duration, packet.time_base = pts, dts, 1, base
        yield 0, packet


REORDERED = {
    "from its beginning": [(0, -2), (3, -1), (1, 0), (2, 1), (6, 2), (4, 3), (5, 4)],
    "cut by another tool, before a picture that is shown at once": [(2, -1), (0, 0), (1, 1), (5, 2), (3, 3), (4, 4)],
    "not reordered": [(0, 0), (1, 1), (2, 2)],
}


@pytest.mark.parametrize("name", list(REORDERED))
def test_a_decode_time_of_nut_never_passes_what_is_shown(name: str) -> None:
    """Its muxer refuses that, and a decode time that does not rise."""
    given = REORDERED[name]
    packets = [packet for _, packet in as_held(lane(given), "nut")]
    times = [(packet.pts * packet.time_base, packet.dts * packet.time_base) for packet in packets]
    assert all(0 <= dts <= pts for pts, dts in times)
    assert all(b > a for (_, a), (_, b) in pairwise(times))
    assert all(0 <= pts - before * TICK < Fraction(1, 10_000) for (pts, _), (before, _) in zip(times, given, strict=True))


def test_other_containers_are_given_times_as_they_are() -> None:
    given = REORDERED["from its beginning"]
    assert [(packet.pts, packet.dts) for _, packet in as_held(lane(given), "mkv")] == given
    assert [(packet.pts, packet.dts) for _, packet in as_held(lane(given), "avi")] == [(pts + 2, dts + 2) for pts, dts in given]


TOUCHING = [(Fraction(n, 5), Fraction(n + 1, 5), f"cue {n}") for n in range(1, 5)]


@pytest.mark.parametrize("start", [None, Fraction(3, 10)])
def test_cues_of_mp4_that_touch_stay_where_they_are(start: Fraction | None, tmp_path: Path) -> None:
    """MP4's muxer puts empty samples between them; those of the source, copied too, would each push the next cue by a tick."""
    made = make_source(tmp_path / "in.mkv", pts=range(25), audio=(), subtitles=TOUCHING)
    source = upscale_video(made, tmp_path / "in.mp4", model="nearest").path
    dest = upscale_video(source, tmp_path / "out.mp4", model="nearest", start=start).path
    cut = Fraction(0) if start is None else Fraction(8, 25)  # the first frame after it
    wanted = [(max(begin - cut, Fraction(0)), end - max(begin, cut)) for begin, end, _ in TOUCHING if end > cut]
    assert [span[:2] for span in packets(dest, 1) if span[2] != EMPTY] == wanted
    assert len(packets(dest, 1)) <= len(packets(source, 1)), "no more empty samples than were there"


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "nut"])
def test_a_second_video_of_matroska_with_reordered_pictures_keeps_its_times(container: str, tmp_path: Path) -> None:
    """Its reader knows no decode times for the first packets; with their pts instead, later ones were moved, and the source "damaged"."""
    made = write_clip(tmp_path / "one.mkv", Clip(times=[n * TICK for n in range(25)], options={"bf": "3"}))
    with av.open(str(made)) as first, av.open(str(made)) as second, av.open(str(tmp_path / "in.mkv"), "w") as output:
        targets = [output.add_stream_from_template(each.streams.video[0]) for each in (first, second)]
        for pair in zip(first.demux(), second.demux(), strict=True):
            for packet, target in zip(pair, targets, strict=True):
                if packet.size:
                    packet.stream = target
                    output.mux(packet)
    result = upscale_video(tmp_path / "in.mkv", tmp_path / f"out.{container}", model="nearest")
    assert result.damage.moved == 0
    shown = [pts * base for pts, base, _ in decoded(result.path, 1)]
    assert [round(float(time - shown[0]), 3) for time in shown] == [round(n * 0.04, 3) for n in range(25)]


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_sound_that_begins_in_mid_frame_is_left_out_by_name(container: str, tmp_path: Path) -> None:
    """MP4's muxer drops it and says nothing, and the job failed its verification at its end."""
    whole = make_source(tmp_path / "whole.mkv", pts=range(25), audio=("ac3",))
    with av.open(str(whole)) as given, av.open(str(tmp_path / "in.mkv"), "w") as output:
        targets = {stream.index: output.add_stream_from_template(stream) for stream in given.streams}
        begun = False
        for packet in (packet for packet in given.demux() if packet.size):
            copy: Any = packet
            if packet.stream_index == 1 and not begun:
                copy, begun = av.Packet(bytes(packet)[-7:]), True
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.stream = targets[packet.stream_index]
            output.mux(copy)
    result = upscale_video(tmp_path / "in.mkv", tmp_path / f"out.{container}", model="nearest")
    assert result.damage.refused == 1
    assert len(packets(result.path, 1)) == len(packets(whole, 1)) - 1


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_sound_nearer_together_than_its_samples_is_muxed(container: str, alike: bool, tmp_path: Path) -> None:
    """As in damaged transport streams, where a time that steps back comes a tick later: MP4 counts sound in samples, which are longer.

    Sound whose decode times alone are damaged is heard when it was.
    """
    whole = make_source(tmp_path / "whole.mkv", pts=range(25), audio=("mp2",))
    with av.open(str(whole)) as given, av.open(str(tmp_path / "in.ts"), "w", options={"pes_payload_size": "0"}) as output:
        targets = {stream.index: output.add_stream_from_template(stream) for stream in given.streams}
        before = 0
        for packet in (packet for packet in given.demux() if packet.size):
            copy: Any = packet
            if packet.stream_index == 1:
                copy.time_base, time = Fraction(1, 90000), int(packet.pts * Fraction(packet.time_base) * 90000)
                copy.dts = before = before + 1 if 20000 < time < 40000 else time
                copy.pts = before if alike else time
            copy.stream = targets[packet.stream_index]
            output.mux(copy)
    times = [time for time, *_ in packets(tmp_path / "in.ts", 1) if time is not None]
    assert (Fraction(1, 90000) in {b - a for a, b in pairwise(times)}) == alike
    result = upscale_video(tmp_path / "in.ts", tmp_path / f"out.{container}", model="nearest")
    made = [time for time, *_ in packets(result.path, 1) if time is not None]
    assert len(made) == len(times) and all(b > a for a, b in pairwise(made))
    assert result.damage.moved == 0 or alike


def test_aac_of_one_byte_is_left_out_of_a_transport_stream(tmp_path: Path) -> None:
    """Damage leaves such; the muxer refuses it when it is given a later packet, of another stream perhaps."""
    damaged = b"\0"
    whole = make_source(tmp_path / "whole.ts", pts=range(25))
    with av.open(str(whole)) as given, av.open(str(tmp_path / "in.nut"), "w") as output:
        targets = {stream.index: output.add_stream_from_template(stream) for stream in given.streams}
        for number, packet in enumerate(packet for packet in given.demux() if packet.size):
            copy: Any = packet
            if packet.stream_index == 1 and number > 40 and damaged:
                copy = av.Packet(damaged)
                copy.pts, copy.dts, copy.time_base, copy.duration, damaged = packet.pts, packet.dts, packet.time_base, packet.duration, b""
            copy.stream = targets[packet.stream_index]
            output.mux(copy)
    result = upscale_video(tmp_path / "in.nut", tmp_path / "out.ts", model="nearest")
    assert result.damage.refused == 1
