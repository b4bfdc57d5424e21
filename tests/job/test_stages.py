"""What is known of a stage. (That hangs and stops end it: tests/job/test_faults.py, tests/job/test_stops.py.)"""

from __future__ import annotations

from a2n_video.job.stages import Stages


def test_a_stage_counts_what_it_made_and_not_its_waits() -> None:
    with Stages() as stages:
        decoded = stages.prefetch(iter(range(10)), 2, "decode")
        upscaled = stages.prefetch((number + 1 for number in decoded), 2, "upscale")
        encode = stages.calls("encode")
        assert [encode(abs, number) for number in upscaled] == list(range(1, 11))
        assert (decoded.stage.made, upscaled.stage.made, encode.stage.made) == (10, 10, 10)
