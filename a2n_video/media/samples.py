"""Sound counted by its samples, and held against the times that its packets say. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

# Seconds by which stamps may be off their samples: those of captures are rounded, and waver by milliseconds. Nobody hears sound that comes
# so much early as wrong, and where stamps drift away from the samples, silence is put in at every such step.
JITTER: Final = Fraction(1, 100)
LONGEST_GAP: Final = Fraction(3600)  # a longer one is a damaged stamp's
_NOTED: Final = Fraction(1, 500)  # twice what Matroska rounds
_SILENT_UNSIGNED: Final = 0x80
_SILENT_ALAW, _SILENT_MULAW = 0xD5, 0xFF
# Bytes of a sample, and the byte that silence is made of.
_RAW: Final[Mapping[str, tuple[int, int]]] = {
    **{f"pcm_s{bits}{order}": (bits // 8, 0) for bits in (16, 24, 32, 64) for order in ("le", "be")},
    **{f"pcm_f{bits}{order}": (bits // 8, 0) for bits in (32, 64) for order in ("le", "be")},
    "pcm_s8": (1, 0),
    "pcm_u8": (1, _SILENT_UNSIGNED),
    "pcm_alaw": (1, _SILENT_ALAW),
    "pcm_mulaw": (1, _SILENT_MULAW),
}


@dataclass(frozen=True, kw_only=True)
class RawSound:
    """Sound that lies in its packets sample by sample: bytes of a sample of all channels, and the byte of silence."""

    block: int
    silent: int
    rate: int

    @classmethod
    def of(cls, codec: str, channels: int, rate: int) -> RawSound | None:
        """None for a codec that is no such sound, or a header that makes no sense."""
        size, silent = _RAW.get(codec, (0, 0))
        return cls(block=size * channels, silent=silent, rate=rate) if size and channels > 0 and rate > 0 else None

    def silence(self, samples: int) -> bytes:
        """So many silent samples."""
        return bytes([self.silent]) * (samples * self.block)


class SampleCount:
    """Counts the samples of one stream from its first packet on, and finds those that are missing."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._first: Fraction | None = None
        self._count = 0

    @property
    def end(self) -> Fraction:
        """Seconds at which the samples counted so far end."""
        return (self._first or Fraction(0)) + Fraction(self._count, self.rate)

    def missing(self, begins: Fraction, samples: int) -> int:
        """How many samples lack before a packet that begins at `begins` (seconds) and holds `samples`; both are counted then."""
        if self._first is None:
            self._first = begins
        lack = round((begins - self._first) * self.rate) - self._count
        if not JITTER * self.rate < lack <= LONGEST_GAP * self.rate:
            lack = 0
        self._count += lack + samples
        return lack


class Stamp(NamedTuple):
    """What one packet says, in ticks, and the samples that come before it in the file."""

    time: int
    position: int | None
    samples: int


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a stream's times run beside its samples: the first packet, and each from which on they lie otherwise. `step`: of a packet, in
    seconds.
    """

    time_base: Fraction
    rate: int
    step: Fraction
    stamps: tuple[Stamp, ...]


class CourseTracker:
    """Collects a stream's Course, in file order: of raw sound, whose packets tell their samples by their size, or of `frame_size` each."""

    def __init__(self, time_base: Fraction, rate: int, *, raw: RawSound | None = None, frame_size: int = 0) -> None:
        self._base, self._rate = time_base, rate
        self._raw, self._frame_size = raw, frame_size
        # Whole numbers, for there are hundreds of thousands of packets: a tick and a sample in parts of both, what is noted, a frame.
        self._tick, self._sample = time_base.numerator * rate, time_base.denominator
        self._least, self._frame = int(_NOTED * time_base.denominator * rate), frame_size * time_base.denominator
        self._known = rate > 0 and (raw is not None or frame_size > 0)
        self._odd = False  # the last packet was of another length: that is only right at the end
        self._samples = self._step = 0
        self._noted: int | None = None
        self._stamps: list[Stamp] = []

    def add(self, time: int | None, duration: int, size: int, position: int | None) -> None:
        """Enter a packet; one without a time has its samples counted."""
        if not self._known:
            return
        if self._odd:
            self._known = False
            return
        samples = size // self._raw.block if self._raw is not None else self._frame_size
        self._odd = self._raw is None and not self._fits(duration)
        if time is not None:
            off = time * self._tick - self._samples * self._sample
            if self._noted is None or abs(off - self._noted) > self._least:
                self._noted = off
                self._stamps.append(Stamp(time, position, self._samples))
        self._samples += samples
        self._step = max(self._step, samples)

    def _fits(self, duration: int) -> bool:
        """Whether a packet lasts as long as its samples, to a tick."""
        return abs(duration * self._tick - self._frame) <= self._tick

    def course(self) -> Course | None:
        """None where nobody knows how many samples a packet has."""
        if not self._known or not self._stamps:
            return None
        return Course(time_base=self._base, rate=self._rate, step=Fraction(self._step, self._rate), stamps=tuple(self._stamps))
