"""Silence in place of samples that a source lacks, for containers that count them: packets of raw sound, and frames for an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.packet import Packet

from a2n_video.media.samples import RawSound, SampleCount

_PIECE_S = Fraction(1, 4)


class Silence:
    """Fills the gaps of one stream of raw sound, on the result's clock."""

    def __init__(self, sound: RawSound) -> None:
        self.rate = sound.rate
        self._sound = sound
        self._count = SampleCount(sound.rate)

    def filled(self, begins: Fraction, packet: Packet[Any]) -> Iterator[tuple[Fraction, int, Packet[Any]]]:
        """A packet that says `begins`, after silent ones for what is missing before it: when each begins by its samples, and how many."""
        samples = packet.size // self._sound.block
        missing = self._count.missing(begins, samples)
        time = self._count.end - Fraction(samples + missing, self.rate)
        for silent in _pieces(missing, self.rate):
            yield time, silent, av.Packet(self._sound.silence(silent))
            time += Fraction(silent, self.rate)
        yield time, samples, packet


def without_gaps(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Frames whose pts count samples, with silent ones where some are missing between them."""
    count: SampleCount | None = None
    for frame in frames:
        if count is None or count.rate != frame.sample_rate:
            count = SampleCount(frame.sample_rate)
        assert frame.pts is not None
        missing = count.missing(Fraction(frame.pts, frame.sample_rate), frame.samples)
        pts = frame.pts - missing
        for samples in _pieces(missing, frame.sample_rate):
            yield _silent(frame, pts, samples)
            pts += samples
        yield frame


def _pieces(samples: int, rate: int) -> Iterator[int]:
    while samples > 0:
        piece = min(samples, int(_PIECE_S * rate))
        yield piece
        samples -= piece


def _silent(like: av.AudioFrame, pts: int, samples: int) -> av.AudioFrame:
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[...] = 0x80 if like.format.name.startswith("u8") else 0
    frame.pts, frame.sample_rate, frame.time_base = pts, like.sample_rate, Fraction(1, like.sample_rate)
    return frame
