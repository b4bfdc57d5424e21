"""The TimeMap, and the Clock that applies it: how a source's raw pts become settled ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any, Final

from a2n_video.errors import OptionError
from a2n_video.media.epochs import BACKWARD_S, Epoch

_NO_TIME: Final = 1 << 62  # ticks of nanoseconds for 146 years
_MOST_REORDERED: Final = 16  # pictures that a codec decodes before the first is shown


def told(ticks: int | None) -> int | None:
    """A time that a packet or frame says; None where it says none, or one that only an overflow somewhere can have made."""
    return ticks if ticks is None or abs(ticks) < _NO_TIME else None


@dataclass(frozen=True, kw_only=True)
class TimeMap:
    """How a source's raw pts become settled pts; both in ticks of `time_base`.

    `times` estimates the settled pts of all frames within the window, rising: exact in time, but packets are not frames, and a few
    may never be shown. `shift_pts` moves all streams alike (`shift` seconds). The window `first_pts` <= settled < `end_pts` is the
    part of the source's video that a job takes; without --start, --end, --frames it is all, and `end_pts` is the end of the last frame.
    `begin_pts` is where --start cuts all streams, `limit_pts` where --end or --frames does; None where that was not given, or reaches
    beyond the video. `trimmed` are the other streams, by index, of which the result lacks what an edit list hides: it could not hide it;
    `pieced` those of which it hides something in the middle, which no result can.
    `pts_trusted` is False where raw pts say nothing (AVI, raw H.264): order and decode time count instead. With `decode_times` they are
    the times at which frames are decoded, and those that are shown in another order take these in turn.
    `seekable` is False where a reader cannot start mid-file and know the time: it must decode from the start.
    """

    time_base: Fraction
    step: Fraction  # ticks from one frame to the next, exact, where nothing better is known
    times: tuple[int, ...]
    first_pts: int
    end_pts: int
    begin_pts: int | None = None
    limit_pts: int | None = None
    trimmed: tuple[int, ...] = ()
    pieced: tuple[int, ...] = ()
    origin_pts: int  # settled pts of the file's very first frame, cut off or not
    shift_pts: int = 0
    epochs: tuple[Epoch, ...]
    keyframes: tuple[int, ...] = ()  # settled
    first_dts: int | None = None  # None where decode times say nothing either
    pts_trusted: bool = True
    decode_times: bool = False
    seekable: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def shift(self) -> Fraction:
        """Seconds by which every stream is moved."""
        return self.shift_pts * self.time_base

    @property
    def frames(self) -> int:
        """An estimate of the number of frames in the window."""
        return len(self.times)

    @property
    def last_pts(self) -> int:
        """Settled pts of the last frame in the window, an estimate where the last packet is hidden."""
        return self.times[-1] if self.times else self.first_pts

    @property
    def window(self) -> tuple[Fraction, Fraction]:
        """The part of the video that is taken, in settled seconds: [start, end)."""
        return self.first_pts * self.time_base, self.end_pts * self.time_base

    @property
    def begin(self) -> Fraction | None:
        """Settled seconds before which nothing of any stream comes, None where nothing cuts them."""
        return None if self.begin_pts is None else self.begin_pts * self.time_base

    @property
    def limit(self) -> Fraction | None:
        """Settled seconds at which all streams are cut off, None where nothing cuts them."""
        return None if self.limit_pts is None else self.limit_pts * self.time_base

    def clock(self) -> Clock:
        """A fresh clock for one run over the decoded frames."""
        return Clock(self)

    def seconds_of(self, time: Fraction, position: int | None = None) -> Fraction:
        """Settled seconds of another stream's raw time in seconds; `position` is its packet's byte offset, needed where clocks restart."""
        return time + self._epoch_at(position).offset + self.shift

    def raw_pts(self, settled: int) -> int:
        """Raw video pts to seek to for a settled one; only where `seekable`."""
        return settled - self.shift_pts - ticks(self.epochs[0].offset, self.time_base)

    def keyframe_before(self, settled: int) -> int:
        """The settled pts of the last keyframe at or before a settled pts, `first_pts` where there is none."""
        place = bisect_right(self.keyframes, settled)
        return self.keyframes[place - 1] if place else self.first_pts

    def marks(self, every: int) -> tuple[int, ...]:
        """Settled pts at which segments after the first begin: every `every` frames of the estimate; 0 means no marks."""
        return self.times[every::every] if every > 0 else ()

    def count(self, start_pts: int | None = None, end_pts: int | None = None) -> int:
        """An estimate of the frames with `start_pts` <= settled < `end_pts`."""
        low, high = self._places(start_pts, end_pts)
        return high - low

    def times_of(self, start_pts: int | None = None, end_pts: int | None = None) -> tuple[int, ...]:
        """Their times."""
        low, high = self._places(start_pts, end_pts)
        return self.times[low:high]

    def _places(self, start_pts: int | None, end_pts: int | None) -> tuple[int, int]:
        low = 0 if start_pts is None else bisect_left(self.times, start_pts)
        high = len(self.times) if end_pts is None else bisect_left(self.times, end_pts)
        return low, max(low, high)

    def range(self, start: Fraction | None, end: Fraction | None) -> tuple[int | None, int | None]:
        """Seconds from the first frame as settled pts, for a reader; None stays None."""
        low = None if start is None else self.first_pts + ceil(start / self.time_base)
        high = None if end is None else self.first_pts + ceil(end / self.time_base)
        return low, high

    def cut(self, *, start: Fraction | None = None, end: Fraction | None = None, frames: int | None = None) -> TimeMap:
        """The same for a part: seconds from the first frame, `end` exclusive, at most `frames` frames from `start` on.

        The first frame at or after `start` comes to settled 0 and takes all streams with it; a start of 0 is none. An empty part is an
        OptionError.
        """
        start = start or None
        if start is None and end is None and frames is None:
            return self
        origin = self.first_pts
        low, high = self.range(start, end)
        high = None if high is not None and high >= self.end_pts else high
        last = len(self.times) if high is None else bisect_left(self.times, high)
        kept = self.times[bisect_left(self.times, origin if low is None else low) : last]
        if frames is not None and len(kept) > frames:
            high = kept[frames]
            kept = kept[:frames]
        if not kept:
            total = float((self.end_pts - origin) * self.time_base)
            raise OptionError(
                f"no frame lies between --start and --end: they count from the first frame, and the video lasts {total:.3f} s"
            )
        moved = self._moved(kept, 0 if start is None else kept[0], high)
        return replace(moved, begin_pts=None if start is None else moved.first_pts)

    def _moved(self, kept: tuple[int, ...], by: int, limit: int | None) -> TimeMap:
        return replace(
            self,
            times=tuple(time - by for time in kept),
            first_pts=kept[0] - by,
            end_pts=(self.end_pts if limit is None else limit) - by,
            limit_pts=None if limit is None else limit - by,
            origin_pts=self.origin_pts - by,
            shift_pts=self.shift_pts - by,
            keyframes=tuple(time - by for time in self.keyframes),
        )

    def _epoch_at(self, position: int | None) -> Epoch:
        if position is None or len(self.epochs) == 1:
            return self.epochs[0]
        return self.epochs[max(0, bisect_right([epoch.position for epoch in self.epochs], position) - 1)]

    def as_json(self) -> dict[str, Any]:
        """Plain values for the journal, which tells by them whether a run has the same frames; times as runs of equal steps."""
        return {
            "time_base": str(self.time_base),
            "step": str(self.step),
            "times": _steps(self.times),
            "first_pts": self.first_pts,
            "end_pts": self.end_pts,
            "begin_pts": self.begin_pts,
            "limit_pts": self.limit_pts,
            "trimmed": list(self.trimmed),
            "pieced": list(self.pieced),
            "origin_pts": self.origin_pts,
            "shift_pts": self.shift_pts,
            "epochs": [[e.first, e.last, str(e.offset), e.position] for e in self.epochs],
            "keyframes": _steps(self.keyframes),
            "first_dts": self.first_dts,
            "pts_trusted": self.pts_trusted,
            "decode_times": self.decode_times,
            "seekable": self.seekable,
            "warnings": list(self.warnings),
        }


class Clock:
    """Settles the time of each decoded frame of one run, in presentation order; for one thread.

    Counts what it had to do: `mended` (doubled or backward), `backward` (of those, what no index can know), `missing` (had no time of
    their own).
    """

    def __init__(self, time_map: TimeMap) -> None:
        self._map = time_map
        self._nudge = nudge(time_map.time_base)
        self._back = max(1, int(BACKWARD_S / time_map.time_base))
        self._epoch = 0
        self._raw: int | None = None  # of the last frame that had one
        self._due: int | None = None  # of the last frame, before it was mended
        self._last: int | None = None  # settled
        self._anchor, self._since = time_map.origin_pts, 0  # frames without a time are counted from here
        self._dts_lag: int | None = None
        self._turns = _Turns(time_map) if time_map.decode_times else None
        self.mended = self.backward = self.missing = 0

    def settle(self, raw_pts: int | None, dts: int | None = None) -> int:
        """The settled pts of the next frame, above all before; `dts` is its decoder's, used where pts are missing.

        A frame that would not rise comes a millisecond (a tick, if that is longer) after the one before it.
        """
        raw_pts = told(raw_pts)
        if raw_pts is None or not self._map.pts_trusted:
            settled = self._without_pts(told(dts))
        else:
            settled = self._from_raw(raw_pts)
            self._anchor, self._since = settled, 0
        self.backward += self._due is not None and settled < self._due
        self._due = settled
        if self._last is not None and settled <= self._last:
            self.mended += 1
            settled = self._last + self._nudge
        self._last = settled
        return settled

    def _from_raw(self, raw: int) -> int:
        epochs = self._map.epochs
        if self._raw is not None and self._epoch + 1 < len(epochs) and self._enters(raw, epochs[self._epoch + 1]):
            self._epoch += 1
        self._raw = raw
        if self._turns is not None:
            return self._turns.next(raw + self._map.shift_pts)
        return raw + ticks(epochs[self._epoch].offset, self._map.time_base) + self._map.shift_pts

    def _enters(self, raw: int, following: Epoch) -> bool:
        """Whether a frame belongs to the next epoch: it left this one's clock, and lies on the next one's. Both may show the same times."""
        if not following.first - self._back <= raw <= following.last + self._back:
            return False
        return raw < (self._raw or 0) - self._back or raw > self._map.epochs[self._epoch].last + self._back

    def _without_pts(self, dts: int | None) -> int:
        self.missing += 1
        by_dts = not self._map.pts_trusted and dts is not None and self._map.first_dts is not None
        if by_dts and dts is not None and self._map.first_dts is not None:
            if self._dts_lag is None:
                # Whatever the decoder's delay: the first frame out is the first shown.
                self._dts_lag = dts - self._map.first_dts
            settled = dts - self._dts_lag + self._map.shift_pts
            if self._last is None or settled > self._last:
                self._anchor, self._since = settled, 0
                return settled
        if self._last is not None:
            self._since += 1
        return self._anchor + round(self._since * self._map.step)


class _Turns:
    """Gives the times of a whole source to its frames in turn, each as it comes; for raw times of decoding.

    The n-th frame has the n-th time, one later for each packet that gave no frame: that is one whose turn to be shown is long over.
    """

    def __init__(self, time_map: TimeMap) -> None:
        self._map = time_map
        self._turn = self._newest = -1
        self._awaited: set[int] = set()  # packets before the newest of which no frame has come

    def next(self, decoded: int) -> int:
        """The time of the frame whose packet says `decoded`, settled."""
        times = self._map.times
        place = bisect_left(times, decoded)
        self._awaited.update(range(self._newest + 1, place))
        self._awaited.discard(place)
        self._newest = max(self._newest, place)
        lost = {other for other in self._awaited if other < self._newest - _MOST_REORDERED}
        self._awaited -= lost
        self._turn += 1 + len(lost)
        beyond = self._turn - len(times) + 1
        return times[self._turn] if beyond <= 0 else times[-1] + round(beyond * self._map.step)


def ticks(seconds: Fraction, time_base: Fraction) -> int:
    """Seconds as the nearest whole number of ticks."""
    return round(seconds / time_base)


def nudge(time_base: Fraction) -> int:
    """How far behind its neighbour a frame comes that has no place of its own: a millisecond, or a tick where that is longer."""
    return max(1, ceil(Fraction(1, 1000) / time_base))


def _steps(times: Sequence[int]) -> list[list[int]]:
    """Run-length form: the first time, then [step, how often] pairs."""
    packed: list[list[int]] = [[times[0], 1]] if times else []
    for before, after in pairwise(times):
        if len(packed) > 1 and packed[-1][0] == after - before:
            packed[-1][1] += 1
        else:
            packed.append([after - before, 1])
    return packed
