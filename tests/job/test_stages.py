"""What is known of a stage. (That hangs and stops end it: tests/job/test_faults.py, tests/job/test_stops.py.)"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from a2n_video.job.stages import Stages


def test_a_stage_counts_what_it_made_and_not_its_waits() -> None:
    with Stages() as stages:
        decoded = stages.prefetch(iter(range(10)), 2, "decode")
        upscaled = stages.prefetch((number + 1 for number in decoded), 2, "upscale")
        encode = stages.calls("encode")
        assert [encode(abs, number) for number in upscaled] == list(range(1, 11))
        assert (decoded.stage.made, upscaled.stage.made, encode.stage.made) == (10, 10, 10)


def test_a_stage_that_is_ended_as_it_waits_does_not_take_that_for_an_error() -> None:
    """It would give what it still has first, and that can take long."""
    ended, taken = threading.Event(), threading.Event()
    caught: list[Exception] = []

    def silent() -> Iterator[int]:
        yield 0
        taken.set()
        ended.wait(10)

    def careful(source: Iterator[int]) -> Iterator[int]:
        try:
            yield from source
        except Exception as error:  # noqa: BLE001 - whatever comes
            caught.append(error)

    with Stages() as stages:
        first = stages.prefetch(silent(), 1, "decode")
        second = stages.prefetch(careful(first), 1, "upscale")
        next(second)
        taken.wait(10)
        first.stop()
        second.close()
        ended.set()
    assert caught == []
