"""Frames after the network, as the encoder wants them. (Their sizes and colours: tests/job/test_faults.py.)"""

from __future__ import annotations

from fractions import Fraction

import av
import pytest

from a2n_video.frames import VideoFrameAdapter
from a2n_video.io.fitting import Fit, fitted
from a2n_video.media.pixfmt import plane_format


@pytest.mark.parametrize(("pix_fmt", "size"), [("yuv420p", 16), ("yuv420p", 15), ("nv12", 16), ("yuv444p", 16)])
def test_a_job_goes_by_its_own_times_and_by_no_duration(pix_fmt: str, size: int) -> None:
    frame = av.VideoFrame(size, size, pix_fmt)
    frame.pts, frame.duration, frame.time_base = 3, 2, Fraction(1, 25)
    target = plane_format("yuv420p", 16, 16)
    assert target is not None
    fit = Fit(target=target, color=VideoFrameAdapter().describe(frame)[1], pix_fmt="yuv420p")
    (made,) = fitted(iter([frame]), fit)
    assert (made.width, made.pts, made.duration, made.time_base) == (16, 3, 0, Fraction(1, 25))
