"""Stdin and stdout for tests of jobs that are one stream, and y4m to put into them."""

from __future__ import annotations

import io
from fractions import Fraction

import pytest

from a2n_video.io.y4m import Y4mHeader, Y4mWriter
from a2n_video.job import streaming
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.pixfmt import plane_format
from tests.test_picture import frame_of, planes_of

LIMITED = ColorSpec(full_range=False, chroma_location=1)


def y4m(pix_fmt: str, count: int = 3, size: tuple[int, int] = (18, 14), rate: Fraction = Fraction(24000, 1001)) -> bytes:
    fmt = plane_format(pix_fmt, *size)
    assert fmt is not None
    out = io.BytesIO()
    writer = Y4mWriter(out, Y4mHeader(fmt=fmt, rate=rate, sar=Fraction(32, 27), color=LIMITED))
    for number in range(count):
        writer.write(frame_of(pix_fmt, planes_of(pix_fmt, size, number), LIMITED))
    return out.getvalue()


class Pipes:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, given: bytes = b"") -> None:
        self.out = io.BytesIO()
        pipe = io.BufferedReader(io.BytesIO(given))  # type: ignore[arg-type]
        monkeypatch.setattr(streaming, "stdin", lambda: pipe)
        monkeypatch.setattr(streaming, "stdout", lambda: self.out)
