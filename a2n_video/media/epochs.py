"""Clocks that restart: the stretches of a file on one clock each, found from when its streams run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple

from a2n_video.media.samples import Course

# Decode time never runs backward within a clock; a tenth of a second is FFmpeg's own tolerance for transport streams.
BACKWARD_S: Final = Fraction(1, 10)
# A leap ahead is a new clock only where clocks may restart (transport streams); elsewhere it is a long frame.
_FORWARD_S: Final = Fraction(10)
# Where only presentation times are known, they go back by as much as a codec reorders, and frames may be seconds long.
_REORDER_S: Final = Fraction(10)
_WRAP_S: Final = Fraction(1 << 33, 90000)
# Audio decoders need a lead-in (AAC 21 to 48 ms, Opus up to 80): MP4 and Matroska hold it before zero, others do not.
LEAD_IN: Final = Fraction(1, 10)


class Run(NamedTuple):
    """Packets of one stream on one unbroken clock: times in ticks, `end` includes the last duration, `position` the first byte offset."""

    first: int
    end: int
    position: int | None
    packets: int


@dataclass(frozen=True, kw_only=True)
class StreamTimes:
    """When one stream runs, as its packets say. `start` and `end` in ticks of `time_base`, None where no packet has a time."""

    index: int
    kind: str
    time_base: Fraction
    packets: int = 0
    runs: tuple[Run, ...] = ()
    hidden_start: int | None = None  # of the first packet, where an edit list hides it
    shown_start: int | None = None  # of the first packet that an edit list does not hide
    pieced: bool = False  # it hides some between others
    course: Course | None = None  # of sound

    @property
    def start(self) -> int | None:
        return min((run.first for run in self.runs), default=None)

    @property
    def trimmed(self) -> bool:
        """Whether an edit list hides more at the beginning than decoders warm up on."""
        if self.hidden_start is None or self.shown_start is None:
            return False
        return (self.shown_start - self.hidden_start) * self.time_base > LEAD_IN

    @property
    def kept_start(self) -> int | None:
        """Where it starts in a container that can hide nothing: what is trimmed is left out there."""
        return self.shown_start if self.trimmed else self.start

    @property
    def end(self) -> int | None:
        return max((run.end for run in self.runs), default=None)


class RunTracker:
    """Collects a stream's packet times into runs, in file order; `leaps`: its clock may jump ahead; `restarts`: it may jump back."""

    def __init__(self, time_base: Fraction, *, leaps: bool, restarts: bool = True) -> None:
        self._restarts = restarts
        self._back = max(1, int(BACKWARD_S / time_base))
        self._reorder = max(1, int(_REORDER_S / time_base))
        self._ahead = int(_FORWARD_S / time_base) if leaps else None
        self._runs: list[Run] = []
        self._first = self._end = self._last = self._count = 0
        self._position: int | None = None
        self._last_dts: int | None = None
        self.packets = 0
        self.hidden_start: int | None = None
        self.shown_start: int | None = None
        self._hidden_later = False
        self.pieced = False

    def add(self, pts: int | None, dts: int | None, duration: int, position: int | None, *, hidden: bool = False) -> None:
        """Enter one packet. Order is judged by dts where two neighbours have one: pts of a stream with B-frames go back and forth.

        One that is hidden after others that are not has no place on any clock: FFmpeg counts its time back from the next piece's.
        """
        self.packets += 1
        time = dts if pts is None else pts
        if time is None:
            return
        if hidden and self.shown_start is not None:
            self._hidden_later = True
            return
        self.pieced = self.pieced or self._hidden_later
        if self._count and self._breaks(time, dts, duration):
            self._close()
        if not self._count:
            self._first, self._end, self._position = time, time + duration, position
        if self.shown_start is None:
            if not hidden:
                self.shown_start = time
            elif self.hidden_start is None:
                self.hidden_start = time
        self._first, self._end = min(self._first, time), max(self._end, time + duration)
        self._count += 1
        self._last, self._last_dts = time, dts

    def _breaks(self, time: int, dts: int | None, duration: int) -> bool:
        if dts is not None and self._last_dts is not None:
            step, tolerance = dts - self._last_dts, max(self._back, 2 * duration)
        elif dts is None and self._last_dts is None:
            step, tolerance = time - self._last, max(self._reorder, 32 * duration)
        else:
            return False
        return (self._restarts and step < -tolerance) or (self._ahead is not None and step > self._ahead)

    def _close(self) -> None:
        self._runs.append(Run(self._first, self._end, self._position, self._count))
        self._count, self._last_dts = 0, None

    def runs(self) -> tuple[Run, ...]:
        """The runs so far, the open one included."""
        return (*self._runs, Run(self._first, self._end, self._position, self._count)) if self._count else tuple(self._runs)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A stretch of the file on one clock. Raw video pts lie in `first`..`last`.

    `offset` (seconds) brings every stream's time onto the first epoch's clock.

    `position`: byte offset where it begins; packets of all streams from there on belong to it.
    """

    first: int
    last: int
    offset: Fraction = Fraction(0)
    position: int = 0


def find_epochs(video: StreamTimes | None, others: Sequence[StreamTimes] = ()) -> tuple[Epoch, ...]:
    """The stretches of a file on one clock each, from the runs of its video and the other streams; empty where no packet has a time.

    A new run of the video is a new epoch unless it leaps ahead while another stream runs on through the gap: then it is a still picture.
    Epochs follow each other so that no stream overlaps itself, their own streams in unchanged relation to each other.
    """
    if video is None or not video.runs:
        return ()
    epochs = [Epoch(first=video.runs[0].first, last=video.runs[0].end)]
    for place, (before, after) in enumerate(pairwise(video.runs)):
        gap = (before.end * video.time_base, after.first * video.time_base)
        if gap[0] < gap[1] and _runs_through(others, gap):
            epochs[-1] = replace(epochs[-1], last=after.end)
            continue
        matched = [s for s in (video, *others) if len(s.runs) == len(video.runs)]
        leap = max((s.runs[place].end - s.runs[place + 1].first) * s.time_base for s in matched)
        starts = [p for s in matched if (p := s.runs[place + 1].position) is not None]
        offset = epochs[-1].offset + _exact_wrap(leap)
        epochs.append(Epoch(first=after.first, last=after.end, offset=offset, position=min(starts, default=0)))
    return tuple(epochs)


def _runs_through(others: Sequence[StreamTimes], gap: tuple[Fraction, Fraction]) -> bool:
    middle = (gap[0] + gap[1]) / 2
    return any(run.first * s.time_base < middle < run.end * s.time_base for s in others if s.kind == "audio" for run in s.runs)


def _exact_wrap(leap: Fraction) -> Fraction:
    """A leap of about 2**33 ticks of 90 kHz is that counter running over, and then exactly so much."""
    return _WRAP_S if abs(leap - _WRAP_S) < _FORWARD_S else leap
