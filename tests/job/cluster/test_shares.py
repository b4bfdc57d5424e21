"""How a job is cut for workers of measured speed, and who gets which segment next."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2n_video.job.cluster.shares import Board, Failure, Pace, cut, lengths, probe_frames

SPEEDS = st.lists(st.floats(0.5, 200), min_size=1, max_size=40)


def finish(parts: Sequence[int], paces: Sequence[Pace]) -> float:
    """Seconds until all is done where each worker that is idle takes the next part; the slowest goes first, which is the worst."""
    idle = [(0.0, i) for i, _ in enumerate(sorted(paces, key=lambda pace: pace.fps))]
    by_speed = sorted(paces, key=lambda pace: pace.fps)
    ends = []
    for part in parts:
        now, worker = heapq.heappop(idle)
        ends.append(now + by_speed[worker].overhead_s + part / by_speed[worker].fps)
        heapq.heappush(idle, (ends[-1], worker))
    return max(ends)


@given(frames=st.integers(1, 100_000), speeds=SPEEDS, longest=st.none() | st.integers(24, 300))
def test_parts_are_all_the_frames_and_shrink(frames: int, speeds: list[float], longest: int | None) -> None:
    parts = list(lengths(frames, [Pace(fps=fps) for fps in speeds], longest))
    assert sum(parts) == frames
    assert min(parts) >= min(8, frames) or max(parts) <= 8
    assert max(parts) <= min(longest or frames, max(8, int(120 * min(speeds))))
    rounds = [length for length, after in zip(parts, [*parts[1:], 0], strict=True) if length != after]
    assert rounds[:-2] == sorted(rounds[:-2], reverse=True)


@pytest.mark.parametrize("speeds", [[20.0] * 4, [30.0, 30.0, 30.0, 3.0], [1.3, 0.7], [180.0, 40.0, 40.0, 5.0]])
def test_the_slowest_worker_does_not_set_the_end(speeds: list[float]) -> None:
    """Within 5 % of what the speeds can do together; equal shares of four a worker are not, where speeds differ."""
    paces = [Pace(fps=fps, overhead_s=0.02) for fps in speeds]
    frames = int(600 * sum(speeds))
    ideal = frames / sum(speeds)
    assert finish(list(lengths(frames, paces)), paces) < 1.05 * ideal
    equal = [frames // (4 * len(speeds))] * (4 * len(speeds))
    if max(speeds) > 5 * min(speeds):
        assert finish(equal, paces) > 1.2 * ideal


def test_four_equal_workers_on_400_short_frames() -> None:
    """The form whose speed is measured elsewhere: 50 ms a frame, 40 ms a segment."""
    paces = [Pace(fps=20.0, overhead_s=0.04)] * 4
    parts = [24] * 4 + list(lengths(400 - 4 * 24, paces))
    assert finish([24] * 16 + [16], [paces[0]]) / finish(parts, paces) > 3.7


def test_overhead_makes_the_last_ones_longer() -> None:
    short, long = (list(lengths(4000, [Pace(fps=30.0, overhead_s=s)] * 4)) for s in (0.01, 0.5))
    assert min(short) < 24
    assert min(long) >= 60


def test_probes_leave_work_to_share() -> None:
    assert probe_frames(10_000, 4) == 24
    assert probe_frames(160, 4) == 10
    assert probe_frames(50, 4) == 8


@given(frames=st.integers(30, 500), parts=st.lists(st.integers(1, 90), max_size=12))
def test_marks_follow_the_parts(frames: int, parts: list[int]) -> None:
    times = [40 * n + n % 3 for n in range(frames)]
    marks = cut(times, times[8:25:8], parts)
    assert marks[:3] == (times[8], times[16], times[24])
    assert list(marks[3:]) == [times[24 + end] for end in accumulate(parts) if 24 + end < frames]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_failed_segment_goes_to_another_worker() -> None:
    board = Board()
    board.want([0, 1])
    assert board.take(7, [7, 8]) == 0
    assert board.failed(board.returned(7), 7) == [Failure(7, of_source=False)]
    assert board.take(7, [7, 8]) == 1  # the failed one is left to worker 8
    assert board.take(8, [7, 8]) == 0


def test_a_lonely_worker_tries_again() -> None:
    board = Board()
    board.want([0])
    board.take(7, [7])
    board.failed(board.returned(7), 7)
    assert board.take(7, [7]) == 0


def test_whoever_waits_for_a_hung_worker_may_try_again() -> None:
    clock = Clock()
    board = Board(clock=clock, lease_s=1.0)
    board.want([0, 1])
    board.take(7, [7, 8])
    board.take(8, [7, 8])
    board.failed(board.returned(7), 7)
    assert board.take(7, [7, 8]) is None
    clock.now = 3.5
    assert board.hung() == [8]
    assert board.take(7, [7, 8]) == 0


def test_a_late_segment_is_lent_once_more() -> None:
    clock = Clock()
    board = Board(clock=clock)
    board.want([0, 1])
    board.take(1, [1, 2, 3])
    board.take(2, [1, 2, 3])
    board.done(board.returned(2), seconds=30.0)
    clock.now = 119.0
    assert board.take(2, [1, 2, 3]) is None
    clock.now = 121.0  # four times the median
    assert board.take(2, [1, 2, 3]) == 0
    assert board.take(3, [1, 2, 3]) is None
    board.done(board.returned(2), seconds=1.0)
    assert not board.wanted
    assert board.returned(1) == 0  # late, and nobody asks


def test_a_segment_done_meanwhile_is_not_handed_out() -> None:
    board = Board()
    board.want([0, 0, 1])
    board.take(1, [1, 2])
    board.done(board.returned(1), seconds=1.0)
    assert board.take(1, [1, 2]) == 1
