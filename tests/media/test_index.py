"""The TimeMap and its Clock on packets made by hand: what each trap in a file's times becomes, and that a clean file is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2n_video.errors import OptionError
from a2n_video.media.epochs import Epoch, RunTracker, find_epochs
from a2n_video.media.index import PacketTime, ScanResult, StreamTimes, TimeMap, TimeRules, Window, build_time_map, hide_head, placed
from a2n_video.media.info import StreamInfo

TB = Fraction(1, 1000)
RATE = Fraction(25)


def packets(times: list[int | None], duration: int = 40) -> list[PacketTime]:
    return [PacketTime(time, time, duration, n == 0, 100 * n) for n, time in enumerate(times)]


def stream(index: int, kind: str, packets: list[PacketTime], *, base: Fraction = TB, leaps: bool = False) -> StreamTimes:
    tracker = RunTracker(base, leaps=leaps)
    for packet in packets:
        tracker.add(packet.pts, packet.dts, packet.duration, packet.position, hidden=packet.hidden)
    return StreamTimes(
        index=index,
        kind=kind,
        time_base=base,
        packets=tracker.packets,
        runs=tracker.runs(),
        hidden_start=tracker.hidden_start,
        shown_start=tracker.shown_start,
        pieced=tracker.pieced,
    )


def mapped(video: list[PacketTime], *others: StreamTimes, leaps: bool = False, **rules: object) -> TimeMap:
    own = stream(0, "video", [p for p in video if not p.hidden], leaps=leaps)
    return build_time_map(video, TB, RATE, TimeRules(video=own, others=others, **rules))  # type: ignore[arg-type]


def settled(time_map: TimeMap, times: list[int | None]) -> list[int]:
    clock = time_map.clock()
    return [clock.settle(time) for time in times]


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(0, 5000), st.integers(0, 20))
def test_a_clean_file_is_left_alone_from_wherever_a_run_starts(steps: list[int], start: int, skip: int) -> None:
    times = [start + sum(steps[:n]) for n in range(len(steps))]
    time_map = mapped(packets(list(times)))
    assert time_map.shift == 0 and not time_map.warnings and time_map.seekable
    assert settled(time_map, list(times)) == times == list(time_map.times)
    assert settled(time_map, list(times[skip:])) == times[skip:]


@given(st.lists(st.one_of(st.none(), st.integers(-10_000, 10_000)), min_size=1, max_size=50))
def test_settled_time_always_rises(times: list[int | None]) -> None:
    """Whatever a file says: no crash, and each frame after the one before it."""
    result = settled(mapped(packets(list(times))), list(times))
    assert all(b > a for a, b in pairwise(result))


def test_b_frames_in_decoding_order_are_no_fault() -> None:
    order = [0, 120, 40, 80, 240, 160, 200]
    video = [PacketTime(pts, dts, 40) for pts, dts in zip(order, range(-80, 200, 40), strict=True)]
    time_map = mapped(video)
    assert time_map.times == (0, 40, 80, 120, 160, 200, 240) and len(time_map.epochs) == 1 and not time_map.warnings


def test_b_frames_a_second_long_are_no_new_clock_though_their_first_dts_are_missing() -> None:
    """Matroska has no dts: FFmpeg makes them up from the third packet or so on."""
    order = zip([0, 4000, 2000, 1000, 3000], [None, None, None, 0, 1000], strict=True)
    time_map = mapped([PacketTime(pts, dts, 40) for pts, dts in order])
    assert time_map.times == (0, 1000, 2000, 3000, 4000) and len(time_map.epochs) == 1 and time_map.seekable


def test_doubled_and_backward_times_come_right_after_their_neighbour() -> None:
    times: list[int | None] = [0, 40, 40, 40, 120, 110, 160]
    clock = mapped(packets(times)).clock()
    assert [clock.settle(time) for time in times] == [0, 40, 41, 42, 120, 121, 160]
    assert (clock.mended, clock.backward) == (3, 1)


@pytest.mark.parametrize(
    ("lost", "late"),
    [((), {}), ((5,), range(21, 60)), ((59,), ())],
)
def test_times_of_decoding_are_taken_in_turn(lost: tuple[int, ...], late: Sequence[int]) -> None:
    """Every second frame is decoded before the one that is shown before it. One that never comes is missed some frames later."""
    order = [place for pair in zip(range(1, 60, 2), range(0, 60, 2), strict=True) for place in pair if place not in lost]
    time_map = mapped(packets([40 * place for place in range(60)]), decode_times=True)
    assert not time_map.seekable
    assert settled(time_map, [40 * place for place in order]) == [40 * (n + (n in late)) for n in range(60 - len(lost))]


def test_missing_times_at_the_head_are_counted_backward() -> None:
    time_map = mapped(packets([None, None, 80, 120]))
    assert settled(time_map, [None, None, 80, 120]) == [0, 40, 80, 120] == list(time_map.times)
    assert "2 of 4" in time_map.warnings[0] and not time_map.seekable


def test_a_missing_time_in_the_middle_follows_its_neighbour() -> None:
    assert settled(mapped(packets([0, 40, None, 120])), [0, 40, None, 120]) == [0, 40, 80, 120]


def test_without_any_time_the_rate_counts_without_drift() -> None:
    video = [PacketTime(None, None) for _ in range(1000)]
    time_map = build_time_map(video, TB, Fraction(30000, 1001))
    found = settled(time_map, [None] * 1000)
    assert found == [round(n * Fraction(1001, 30)) for n in range(1000)]
    assert "guess" in time_map.warnings[0] and not time_map.pts_trusted


def test_fps_counts_where_there_are_no_times_and_is_left_aside_where_there_are() -> None:
    video = [PacketTime(None, n) for n in range(4)]
    assert settled(build_time_map(video, TB, RATE, TimeRules(fps=Fraction(50))), [None] * 4) == [0, 20, 40, 60]
    avi = build_time_map([PacketTime(None, n, 1) for n in range(4)], 1 / RATE, RATE, TimeRules(fps=Fraction(30)))
    assert (avi.time_base, settled(avi, [None] * 4), avi.end_pts) == (Fraction(1, 30), [0, 1, 2, 3], 4), (
        "in ticks of 1/25 s it cannot be said"
    )
    kept = mapped(packets([0, 40, 80]), fps=Fraction(50))
    assert kept.times == (0, 40, 80) and "left aside" in kept.warnings[0]


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ([(160, 80, 40), (120, 120, 40)], 200),
        ([(160, 80, 40), (120, 120, 5000)], 5160),  # what is left of a long last frame
        ([(5000, 80, 4920), (120, 5000, 40)], 5080),  # a gap in decode time, which the last frame's own packet carries
        ([(120, 80, 40), (5000, 120, 40)], 5040),  # the packets end before the last frame begins: it lasts a usual step
    ],
)
def test_the_last_frame_ends_where_decoding_does_and_not_by_its_own_packet(last: list[tuple[int, int, int]], end: int) -> None:
    video = [PacketTime(p, d, length) for p, d, length in [(0, -40, 40), (80, 0, 40), (40, 40, 40), *last]]
    assert mapped(video, ends_by_dts=True).end_pts == end


@pytest.mark.parametrize(
    ("first", "hidden"),
    [
        (160, [True, True, False, True, False, False]),
        (120, [False] * 6),  # not the first keyframe's: who knows why
        (200, [False] * 6),
        (None, [False] * 6),
    ],
)
@pytest.mark.parametrize("clock", [0, -120, -80])
def test_what_lacks_its_reference_at_the_head_is_hidden(first: int | None, hidden: list[bool], clock: int) -> None:
    """A P and a B of a group that began before the file, its next keyframe, a B between both, and a clock that starts anew."""
    times = [(80, 0), (40, 40), (160, 80), (120, 120), (200, 160), (10, 10)]
    video = [PacketTime(p + clock, d + clock, 40, keyframe=p == 160) for p, d in times]
    assert [packet.hidden for packet in hide_head(video, None if first is None else first + clock)] == hidden


def test_times_that_run_backward_after_a_keyframe_hide_nothing() -> None:
    video = packets([160, 0, 40, 80])
    assert hide_head(video, 160) == video


def test_decode_time_stands_in_with_its_gaps() -> None:
    """AVI: pts say nothing; the decoder hands frames out late, and none for the last ones."""
    video = [PacketTime(dts + 1, dts, 1) for dts in (0, 1, 2, 5, 6)]
    time_map = build_time_map(video, Fraction(1, 25), RATE, TimeRules(pts_trusted=False))
    clock = time_map.clock()
    assert [clock.settle(1, dts) for dts in (2, 3, 4, 7, None)] == [0, 1, 2, 5, 6]


def test_joined_clocks_follow_each_other_and_every_stream_moves_alike() -> None:
    part = [PacketTime(time, time, 40, False, 0) for time in range(1000, 1400, 40)]
    video = [p._replace(position=200 * n + 50) for n, p in enumerate(part + part)]
    sound = stream(1, "audio", [PacketTime(t, t, 50, True, 200 * n) for n, t in enumerate([*range(980, 1430, 50), *range(980, 1430, 50)])])
    sound = StreamTimes(index=1, kind="audio", time_base=TB, runs=(sound.runs[0], sound.runs[1]._replace(position=1990)))
    time_map = mapped(video, sound, leaps=True)
    leap = 1430 - 980  # the sound is the longest: it must not overlap itself
    assert [e.offset for e in time_map.epochs] == [0, leap * TB]
    raw = [p.pts for p in part]
    assert settled(time_map, [*raw, *raw]) == [*raw, *(t + leap for t in raw if t is not None)]  # type: ignore[list-item]
    assert time_map.seconds_of(Fraction(1), 1989) == 1
    assert time_map.seconds_of(Fraction(1), 1990) == 1 + leap * TB
    assert not time_map.seekable


def test_joined_clocks_leave_room_for_a_last_frame_that_says_no_length() -> None:
    part = [PacketTime(time, time, 0, False, 0) for time in range(1000, 1400, 40)]
    video = [p._replace(position=200 * n + 50) for n, p in enumerate(part + part)]
    time_map = mapped(video, leaps=True)
    assert [b - a for a, b in pairwise(time_map.times)] == [40] * 19 and len(time_map.warnings) == 1


def test_a_leap_ahead_is_a_new_clock_only_where_nothing_runs_through_it() -> None:
    video = stream(0, "video", packets([0, 40, 30_000, 30_040]), leaps=True)
    through = stream(1, "audio", packets(list(range(0, 30_080, 40))), leaps=True)
    beside = stream(1, "audio", packets([0, 40, 30_000, 30_040]), leaps=True)
    assert len(find_epochs(video, (through,))) == 1
    assert [e.offset for e in find_epochs(video, (beside,))] == [0, Fraction(80 - 30_000, 1000)]
    assert len(find_epochs(stream(0, "video", packets([0, 40, 30_000])), ())) == 1, "elsewhere it is a long frame"


def test_a_counter_of_33_bits_runs_over_exactly() -> None:
    base, wrap = Fraction(1, 90000), 1 << 33
    times = [wrap - 7200, wrap - 3600, 0, 3600]
    video = StreamTimes(index=0, kind="video", time_base=base, runs=stream(0, "video", packets(list(times), 3600), base=base).runs)
    assert [e.offset for e in find_epochs(video)] == [0, wrap * base]


@pytest.mark.parametrize(
    ("first", "sound", "shift"),
    [(0, -21, 0), (0, -250, 250), (-300, 0, 300), (-300, -500, 500), (500, 0, 0)],
    ids=["a decoder's lead-in", "sound long before", "picture before", "both", "after"],
)
def test_one_shift_for_all_brings_the_first_to_zero(first: int, sound: int, shift: int) -> None:
    video = packets([first + 40 * n for n in range(5)])
    time_map = mapped(video, stream(1, "audio", packets([sound + 20 * n for n in range(9)], 20)))
    assert time_map.shift_pts == shift and time_map.first_pts == first + shift
    assert time_map.seconds_of(sound * TB) == (sound + shift) * TB
    assert bool(time_map.warnings) == bool(shift)


def test_what_an_edit_list_hides_does_not_count() -> None:
    video = [PacketTime(t, t, 40, True, None, t < 0) for t in range(-200, 200, 40)]
    sound = stream(1, "audio", [PacketTime(t, t, 20, True, None, t < 0) for t in range(-400, 200, 20)])
    time_map = mapped(video, sound)
    assert time_map.times == (0, 40, 80, 120, 160) and time_map.shift == 0


def test_a_transport_streams_own_origin_is_taken_off() -> None:
    time_map = mapped(packets([5000, 5040]), stream(1, "audio", packets([4980, 5000], 20)), any_origin=True)
    assert time_map.times == (20, 60) and time_map.seconds_of(Fraction(4980, 1000)) == 0


@pytest.mark.parametrize(
    ("part", "times", "window", "limit"),
    [
        ({"start": Fraction(1, 10)}, (0, 40, 80), (0, 120), None),
        ({"end": Fraction(1, 10)}, (500, 540, 580), (500, 600), 600),
        ({"start": Fraction(1, 25), "end": Fraction(1, 10)}, (0, 40), (0, 60), 60),
        ({"frames": 2}, (500, 540), (500, 580), 580),
        ({"frames": 99, "end": Fraction(99)}, (500, 540, 580, 620, 660, 700), (500, 740), None),
    ],
)
def test_cuts(part: dict[str, object], times: tuple[int, ...], window: tuple[int, int], limit: int | None) -> None:
    whole = mapped(packets([500 + 40 * n for n in range(6)]))
    cut = whole.cut(**part)  # type: ignore[arg-type]
    assert cut.times == times and (cut.first_pts, cut.end_pts) == window and cut.limit_pts == limit
    raw = cut.raw_pts(cut.first_pts)
    assert cut.clock().settle(raw) == cut.first_pts and raw in (500, 540, 620)


def test_a_start_of_zero_is_none() -> None:
    """Not even sound before a late first frame is cut then, and none of the time moves."""
    whole = mapped(packets([500 + 40 * n for n in range(6)]))
    assert whole.cut(start=Fraction(0)) == whole
    assert whole.cut(start=Fraction(0), frames=2) == whole.cut(frames=2)


@pytest.mark.parametrize("part", [{"start": Fraction(9)}, {"end": Fraction(0)}, {"start": Fraction(1, 10), "end": Fraction(1, 10)}])
def test_an_empty_cut_is_refused(part: dict[str, Fraction]) -> None:
    with pytest.raises(OptionError, match=r"count from the first frame, and the video lasts 0\.240 s"):
        mapped(packets([40 * n for n in range(6)])).cut(**part)


def test_marks_lie_at_every_nth_frame() -> None:
    time_map = mapped(packets([40 * n for n in range(10)]))
    assert time_map.marks(4) == (160, 320) and time_map.marks(0) == () and time_map.marks(10) == ()


def test_streams_without_a_packet_are_named() -> None:
    streams = {0: stream(0, "video", packets([0])), 1: stream(1, "audio", []), 2: StreamTimes(index=2, kind="attachment", time_base=TB)}
    scan = ScanResult(video_index=0, time_base=TB, rate=RATE, packets=(PacketTime(0, 0),), streams=streams)
    assert scan.empty == {1}


def test_epochs_of_nothing() -> None:
    assert find_epochs(None) == ()
    time_map = build_time_map([], TB, None)
    assert time_map.times == () and time_map.epochs == (Epoch(first=0, last=0),)


@pytest.mark.parametrize(("lead_in", "shift"), [(Fraction(1, 10), 0), (Fraction(0), 24)])
def test_hidden_packets_count_where_nothing_may_lie_before_zero(lead_in: Fraction, shift: int) -> None:
    """The first packet of an MP4's AAC, which its edit list hides, is copied too: nut would refuse it below zero."""
    sound = stream(1, "audio", [PacketTime(-1024, -1024, 1024, hidden=True), PacketTime(0, 0, 1024)], base=Fraction(1, 44100))
    assert mapped(packets([0, 40, 80]), sound, lead_in=lead_in).shift_pts == shift


def test_what_is_trimmed_is_left_out_and_moves_nothing() -> None:
    """A second of sound that an edit list hides is no lead-in; up to a tenth is, and what is not hidden is not trimmed."""
    base = Fraction(1, 1000)
    sound = stream(1, "audio", [PacketTime(n, n, 20, hidden=n < 0) for n in range(-1000, 200, 20)], base=base)
    warming = stream(2, "audio", [PacketTime(n, n, 20, hidden=n < 0) for n in range(-100, 200, 20)], base=base)
    leading = stream(3, "video", [PacketTime(n, None, 40, n == 400) for n in (400, 200, 240, 280, 320, 360)])
    assert [s.trimmed for s in (sound, warming, leading)] == [True, False, False]
    assert [s.kept_start for s in (sound, warming, leading)] == [0, -100, 200]
    assert mapped(packets([0, 40, 80]), sound, lead_in=Fraction(0)).shift_pts == 0
    assert mapped(packets([0, 40, 80]), sound, warming, lead_in=Fraction(0)).shift_pts == 100
    scanned = ScanResult(
        video_index=0, time_base=TB, rate=RATE, packets=tuple(packets([0, 40])), streams={1: sound, 2: warming, 3: leading}
    )
    assert scanned.trimmed == (1,)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("audio", [2, 3, 1, 5, 4, 6, 7]), ("video", [5, 6, 7])],  # 2, 3 and 1 refer to the hidden 0, and 4 is shown before the keyframe 5
)
def test_what_is_hidden_is_left_out_of_trimmed_streams(kind: str, expected: list[int]) -> None:
    whole, other = mapped(packets(list(range(0, 400, 40)))), StreamInfo(index=1, kind=kind, codec="h264", time_base=TB)  # type: ignore[arg-type]
    tick, order = Fraction(1, 25), (0, 2, 3, 1, 5, 4, 6, 7)

    def kept(trimmed: tuple[int, ...], hidden: tuple[int, ...]) -> list[int]:
        window = Window(replace(whole, trimmed=trimmed))
        spans = {n: window.place(other, n * tick, tick, None, keyframe=n in (0, 5), hidden=n in hidden) for n in order}
        return [n for n, span in spans.items() if span is not None]

    assert kept((1,), (0,)) == expected
    assert kept((2,), (0,)) == list(order)
    assert kept((1,), (0, 2, 3, 1, 4)) == [5, 6, 7], "what is hidden and shown before the keyframe costs nothing"


@pytest.mark.parametrize("kind", ["audio", "video"])
@pytest.mark.parametrize("hidden", [(0, 1), (0, 3, 4), (0, 6, 7)])
def test_what_is_hidden_between_two_pieces_is_left_out(hidden: tuple[int, ...], kind: str) -> None:
    """Its times are counted back from the second piece, and say nothing; at the end, a video may refer to it."""
    times = [0, 40, 80, 40, 80, 120, 160, 200]
    given = [PacketTime(time - 400 * (n in (3, 4) and n in hidden), None, 40, True, n, n in hidden) for n, time in enumerate(times)]
    sound = stream(1, kind, given)
    scanned = ScanResult(
        video_index=0, time_base=TB, rate=RATE, packets=tuple(packets(list(range(0, 400, 40)))), streams={1: sound}, lead_in=Fraction(0)
    )
    assert sound.pieced is (hidden == (0, 3, 4)) and scanned.time_map.pieced == ((1,) if sound.pieced else ())
    assert scanned.time_map.shift == 0
    window, other = Window(scanned.time_map), StreamInfo(index=1, kind=kind, codec="h264", time_base=TB)  # type: ignore[arg-type]
    kept = [n for n, p in enumerate(given) if window.place(other, p.pts * TB, 40 * TB, None, keyframe=True, hidden=p.hidden) is not None]  # type: ignore[operator]
    later = {n for n in hidden if n > 2 and (kind == "audio" or sound.pieced)}
    assert kept == [n for n in range(8) if n not in later]


def test_what_begins_a_hair_before_a_cut_lies_outside() -> None:
    """The 31st packet of 24 ms begins at 720 ms, a frame of 25 a second too: neither is rounded to the other's ticks."""
    time_map = mapped(packets(list(range(0, 2000, 40)))).cut(start=Fraction(18, 25), end=Fraction(1))
    tick = Fraction(24, 1000)
    numbers = [n for n in range(80) if placed(time_map, n * tick, tick, None, stretches=False)]
    assert numbers == list(range(30, 42))
    assert placed(time_map, 30 * tick - Fraction(1, 44100), tick, None, stretches=False) is None
    assert placed(time_map, Fraction(1), tick, None, stretches=False) is None


def test_only_what_stretches_is_cut_to_fit() -> None:
    time_map = mapped(packets(list(range(0, 2000, 40)))).cut(start=Fraction(18, 25), end=Fraction(1))
    assert placed(time_map, Fraction(0), Fraction(9), None, stretches=True) == (0, Fraction(7, 25))
    assert placed(time_map, Fraction(0), Fraction(9), None, stretches=False) is None
    assert placed(time_map, Fraction(9, 10), Fraction(9), None, stretches=False) == (Fraction(9, 50), Fraction(459, 50))
    assert placed(time_map, Fraction(0), Fraction(18, 25), None, stretches=True) is None


@pytest.mark.parametrize(
    ("start", "kind", "expected"),
    [
        (None, "video", [0, 2, 1, 5, 3, 4, 8, 6, 7]),
        (0, "video", [0, 2, 1, 5, 3, 4, 8, 6, 7]),
        (1, "video", [5, 8, 6, 7]),  # 3 and 4 come after the keyframe 5, and are shown before it
        (5, "video", [5, 8, 6, 7]),
        (6, "video", []),
        (1, "audio", [2, 1, 5, 3, 4, 8, 6, 7]),
    ],
)
def test_a_copied_video_begins_with_a_keyframe_and_nothing_shown_before_it(start: int | None, kind: str, expected: list[int]) -> None:
    time_map = mapped(packets(list(range(0, 400, 40)))).cut(start=None if start is None else start * Fraction(1, 25))
    window, other = Window(time_map), StreamInfo(index=1, kind=kind, codec="h264", time_base=TB)  # type: ignore[arg-type]
    tick, base = Fraction(1, 25), (start or 0) * Fraction(1, 25)
    spans = [window.place(other, n * tick, tick, None, keyframe=n in (0, 5)) for n in (0, 2, 1, 5, 3, 4, 8, 6, 7)]
    assert [(span[0] + base) / tick for span in spans if span is not None] == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 9, [0, 2, 1, 5, 3, 4, 8, 6, 7]),
        (0, 8, [0, 2, 1, 5, 3, 4]),  # 6 and 7 refer to 8
        (0, 7, [0, 2, 1, 5, 3, 4]),
        (0, 6, [0, 2, 1, 5, 3, 4]),
        (0, 5, [0, 2, 1]),  # 3 and 4 refer to the keyframe 5
        (0, 2, [0]),
        (1, 7, [5]),
        (1, 5, []),
    ],
)
def test_a_copied_video_ends_before_what_refers_beyond_the_end(start: int, end: int, expected: list[int]) -> None:
    tick = Fraction(1, 25)
    time_map = mapped(packets(list(range(0, 400, 40)))).cut(start=start * tick or None, end=end * tick)
    window, other = Window(time_map), StreamInfo(index=1, kind="video", codec="h264", time_base=TB)
    spans = [window.place(other, n * tick, tick, None, keyframe=n in (0, 5)) for n in (0, 2, 1, 5, 3, 4, 8, 6, 7)]
    assert [(span[0] / tick + start) for span in spans if span is not None] == expected


def test_a_copied_video_goes_on_at_the_next_keyframe_after_a_time_that_leaps() -> None:
    """A damaged time beyond the end costs what may refer to it, and not all that follows."""
    tick = Fraction(1, 25)
    window = Window(mapped(packets(list(range(0, 400, 40)))).cut(end=9 * tick))
    other = StreamInfo(index=1, kind="video", codec="h264", time_base=TB)
    spans = [window.place(other, n * tick, tick, None, keyframe=n in (0, 5)) for n in (0, 99, 1, 3, 5, 4, 6)]
    assert [span[0] / tick for span in spans if span is not None] == [0, 5, 6]
