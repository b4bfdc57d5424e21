"""Time, settled once: from one pass over a source's packets to the TimeMap that reader, writer, segments, cuts and verification share.

A source's own times (raw pts) can be missing, doubled, run backward, start below zero or start anew in the middle (two joined
transport streams). The TimeMap says what each becomes: `settled = raw + offset of its epoch + shift`, in the video's own time base, so
that for a clean file time is only moved as a whole, by `shift`, which all streams share. What cannot be said by a sum is mended
frame by frame by a Clock, and counted. Pure values: neither av nor torch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import ceil
from statistics import median_low
from typing import Any, Final, NamedTuple

from a2n_video.errors import OptionError

_FALLBACK_RATE: Final = Fraction(25)
# Decode time never runs backward within a clock; a tenth of a second is FFmpeg's own tolerance for transport streams.
_BACKWARD_S: Final = Fraction(1, 10)
# A leap ahead is a new clock only where clocks may restart (transport streams); elsewhere it is a long frame.
_FORWARD_S: Final = Fraction(10)
# Audio decoders need a lead-in (AAC 21 to 48 ms, Opus up to 80): MP4 and Matroska hold it before zero, others do not.
LEAD_IN: Final = Fraction(1, 10)
_WRAP_TICKS: Final = 1 << 33
_WRAP_BASE: Final = Fraction(1, 90000)


class PacketTime(NamedTuple):
    """One video packet in file order: times in ticks, `position` its byte offset, `hidden` where it shows no frame (edit lists, VP9)."""

    pts: int | None
    dts: int | None
    duration: int = 0
    keyframe: bool = False
    position: int | None = None
    hidden: bool = False


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
    shown_start: int | None = None  # of the first packet that an edit list does not hide

    @property
    def start(self) -> int | None:
        return min((run.first for run in self.runs), default=None)

    @property
    def end(self) -> int | None:
        return max((run.end for run in self.runs), default=None)


class RunTracker:
    """Collects a stream's packet times into runs, in file order; `leaps`: its clock may jump ahead; `restarts`: it may jump back."""

    def __init__(self, time_base: Fraction, *, leaps: bool, restarts: bool = True) -> None:
        self._restarts = restarts
        self._back = max(1, int(_BACKWARD_S / time_base))
        self._reorder = max(1, int(1 / time_base))
        self._ahead = int(_FORWARD_S / time_base) if leaps else None
        self._runs: list[Run] = []
        self._first = self._end = self._last = self._count = 0
        self._position: int | None = None
        self._last_dts: int | None = None
        self.packets = 0
        self.shown_start: int | None = None

    def add(self, pts: int | None, dts: int | None, duration: int, position: int | None, *, hidden: bool = False) -> None:
        """Enter one packet. Order is judged by dts where two neighbours have one: pts of a stream with B-frames go back and forth."""
        self.packets += 1
        time = dts if pts is None else pts
        if time is None:
            return
        if self._count and self._breaks(time, dts, duration):
            self._close()
        if not self._count:
            self._first, self._end, self._position = time, time + duration, position
        if not hidden and self.shown_start is None:
            self.shown_start = time
        self._first, self._end = min(self._first, time), max(self._end, time + duration)
        self._count += 1
        self._last, self._last_dts = time, dts

    def _breaks(self, time: int, dts: int | None, duration: int) -> bool:
        if dts is not None and self._last_dts is not None:
            step, tolerance = dts - self._last_dts, max(self._back, 2 * duration)
        else:
            step, tolerance = time - self._last, max(self._reorder, 32 * duration)
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


@dataclass(frozen=True, kw_only=True)
class TimeMap:
    """How a source's raw pts become settled pts; both in ticks of `time_base`.

    `times` estimates the settled pts of all frames within the window, rising: exact in time, but packets are not frames, and a few
    may never be shown. `shift_pts` moves all streams alike (`shift` seconds). The window `first_pts` <= settled < `end_pts` is the
    part of the source that a job takes; without --start, --end, --frames it is all, and `end_pts` is the end of the last frame.
    `pts_trusted` is False where raw pts say nothing (AVI, raw H.264): order and decode time count instead.
    `seekable` is False where a reader cannot start mid-file and know the time: it must decode from the start.
    """

    time_base: Fraction
    step: Fraction  # ticks from one frame to the next, exact, where nothing better is known
    times: tuple[int, ...]
    first_pts: int
    end_pts: int
    origin_pts: int  # settled pts of the file's very first frame, cut off or not
    shift_pts: int = 0
    epochs: tuple[Epoch, ...]
    keyframes: tuple[int, ...] = ()  # settled
    first_dts: int | None = None  # None where decode times say nothing either
    pts_trusted: bool = True
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
        """The part that is taken, in settled seconds: [start, end)."""
        return self.first_pts * self.time_base, self.end_pts * self.time_base

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

    def cut(self, *, start: Fraction | None = None, end: Fraction | None = None, frames: int | None = None) -> TimeMap:
        """The same for a part: seconds from the first frame, `end` exclusive, at most `frames` frames from `start` on.

        The first frame at or after `start` comes to settled 0 and takes all streams with it. An empty part is an OptionError.
        """
        if start is None and end is None and frames is None:
            return self
        origin = self.first_pts
        low = origin if start is None else origin + ceil(start / self.time_base)
        high = self.end_pts if end is None else origin + ceil(end / self.time_base)
        kept = self.times[bisect_left(self.times, low) : bisect_left(self.times, high)]
        if frames is not None and len(kept) > frames:
            high = kept[frames]
            kept = kept[:frames]
        if not kept:
            total = float((self.end_pts - origin) * self.time_base)
            raise OptionError(f"no frame lies between --start and --end: the video lasts {total:.3f} s")
        return self._moved(kept, kept[0] if start else 0, min(high, self.end_pts))

    def _moved(self, kept: tuple[int, ...], by: int, end: int) -> TimeMap:
        return replace(
            self,
            times=tuple(time - by for time in kept),
            first_pts=kept[0] - by,
            end_pts=end - by,
            origin_pts=self.origin_pts - by,
            shift_pts=self.shift_pts - by,
            keyframes=tuple(time - by for time in self.keyframes),
        )

    def _epoch_at(self, position: int | None) -> Epoch:
        if position is None or len(self.epochs) == 1:
            return self.epochs[0]
        return self.epochs[max(0, bisect_right([epoch.position for epoch in self.epochs], position) - 1)]

    def as_json(self) -> dict[str, Any]:
        """Plain values for the journal and for workers; frame times as runs of equal steps."""
        return {
            "time_base": str(self.time_base),
            "step": str(self.step),
            "times": _steps(self.times),
            "first_pts": self.first_pts,
            "end_pts": self.end_pts,
            "origin_pts": self.origin_pts,
            "shift_pts": self.shift_pts,
            "epochs": [[e.first, e.last, str(e.offset), e.position] for e in self.epochs],
            "keyframes": _steps(self.keyframes),
            "first_dts": self.first_dts,
            "pts_trusted": self.pts_trusted,
            "seekable": self.seekable,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TimeMap:
        """The inverse of `as_json`."""
        values = dict(data)
        values["time_base"], values["step"] = Fraction(values["time_base"]), Fraction(values["step"])
        values["times"], values["keyframes"] = _unsteps(values["times"]), _unsteps(values["keyframes"])
        values["epochs"] = tuple(Epoch(first=a, last=b, offset=Fraction(o), position=p) for a, b, o, p in values["epochs"])
        values["warnings"] = tuple(values["warnings"])
        return cls(**values)


class Clock:
    """Settles the time of each decoded frame of one run, in presentation order; for one thread.

    Counts what it had to do: `frames` seen, `mended` (doubled or backward), `missing` (had no time of their own).
    """

    def __init__(self, time_map: TimeMap) -> None:
        self._map = time_map
        self._nudge = _nudge(time_map.time_base)
        self._back = max(1, int(_BACKWARD_S / time_map.time_base))
        self._epoch = 0
        self._raw: int | None = None  # of the last frame that had one
        self._last: int | None = None  # settled
        self._anchor, self._since = time_map.origin_pts, 0  # frames without a time are counted from here
        self._dts_lag: int | None = None
        self.frames = self.mended = self.missing = 0

    def settle(self, raw_pts: int | None, dts: int | None = None) -> int:
        """The settled pts of the next frame, above all before; `dts` is its decoder's, used where pts are missing.

        A frame that would not rise comes a millisecond (a tick, if that is longer) after the one before it.
        """
        if raw_pts is None or not self._map.pts_trusted:
            settled = self._without_pts(dts)
        else:
            settled = self._from_raw(raw_pts)
            self._anchor, self._since = settled, 0
        if self._last is not None and settled <= self._last:
            self.mended += 1
            settled = self._last + self._nudge
        self._last = settled
        self.frames += 1
        return settled

    @property
    def warnings(self) -> tuple[str, ...]:
        """What had to be mended so far, in words."""
        if not self.mended:
            return ()
        return (
            f"{self.mended} of {self.frames} frames had the time of another or an earlier one; each comes right after the one before it",
        )

    def _from_raw(self, raw: int) -> int:
        epochs = self._map.epochs
        if self._raw is not None and self._epoch + 1 < len(epochs) and self._enters(raw, epochs[self._epoch + 1]):
            self._epoch += 1
        self._raw = raw
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


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """What one demux pass found: the video's packets in file order, and when every stream runs."""

    video_index: int
    time_base: Fraction
    rate: Fraction | None
    packets: tuple[PacketTime, ...]
    streams: Mapping[int, StreamTimes] = field(default_factory=dict)
    pts_trusted: bool = True
    any_origin: bool = False
    error: str | None = None  # reading stopped early: the file is damaged or cut short

    @cached_property
    def time_map(self) -> TimeMap:
        """The TimeMap of the whole source with nothing said about its rate."""
        return self.settle()

    def settle(self, *, fps: Fraction | None = None, lead_in: Fraction = LEAD_IN) -> TimeMap:
        """The TimeMap of the whole source. `fps`: the rate to believe where the file has no times; `lead_in`: see `TimeRules`."""
        others = tuple(times for index, times in self.streams.items() if index != self.video_index)
        rules = TimeRules(
            fps=fps,
            lead_in=lead_in,
            others=others,
            video=self.streams.get(self.video_index),
            pts_trusted=self.pts_trusted,
            any_origin=self.any_origin,
        )
        return build_time_map(self.packets, self.time_base, self.rate, rules)


@dataclass(frozen=True, kw_only=True)
class TimeRules:
    """What else bears on time: the user's `fps`, the other streams, and how far (seconds) audio may begin before zero in the result."""

    fps: Fraction | None = None
    lead_in: Fraction = LEAD_IN
    video: StreamTimes | None = None
    others: tuple[StreamTimes, ...] = ()
    pts_trusted: bool = True
    any_origin: bool = False  # the source's clock begins anywhere (transport streams): its first time is brought to zero


def build_time_map(packets: Sequence[PacketTime], time_base: Fraction, rate: Fraction | None, rules: TimeRules | None = None) -> TimeMap:
    """Settle the time of a video from its packets in file order; `rate` is the container's word on the frame rate."""
    rules = rules or TimeRules()
    shown = [packet for packet in packets if not packet.hidden]
    trusted = rules.pts_trusted and any(packet.pts is not None for packet in shown)
    step = _step(shown, time_base, rules.fps if not trusted and rules.fps else rate, trusted)
    epochs = find_epochs(rules.video, rules.others) if trusted else ()
    use_dts = not trusted and rules.fps is None and all(packet.dts is not None for packet in shown) and bool(shown)
    warnings: tuple[str, ...] = ()
    if trusted:
        raw, warnings = _from_pts(shown, epochs, time_base, step)
    elif use_dts:
        raw, warnings = _rising(sorted(p.dts for p in shown if p.dts is not None), 1), ()
    else:
        raw, warnings = [round(i * step) for i in range(len(shown))], (_no_times(rules.fps, rate),)
    shift = _shift(raw[0] if raw else 0, time_base, rules)
    times = tuple(time + shift for time in raw)
    if trusted and rules.fps is not None:
        warnings += ("--fps is left aside: the source has times of its own",)
    if len(epochs) > 1:
        warnings += (f"the source's clock starts anew {len(epochs) - 1} times; its parts are put one after the other",)
    if shift:
        way = "later, so that none begins before zero" if shift > 0 else "earlier, so that the first begins at zero"
        warnings += (f"all streams begin {abs(float(shift * time_base)):.3f} s {way}",)
    return TimeMap(
        time_base=time_base,
        step=step,
        times=times,
        first_pts=times[0] if times else 0,
        end_pts=(times[-1] if times else 0) + _last_duration(shown, step),
        origin_pts=times[0] if times else 0,
        shift_pts=shift,
        epochs=epochs or (Epoch(first=raw[0] if raw else 0, last=raw[-1] if raw else 0),),
        keyframes=_keyframes(shown, shift) if trusted and len(epochs) < 2 else (),
        first_dts=min(p.dts for p in shown if p.dts is not None) if use_dts else None,
        pts_trusted=trusted,
        seekable=trusted and len(epochs) < 2 and all(packet.pts is not None for packet in shown),
        warnings=warnings,
    )


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
    wrap = _WRAP_TICKS * _WRAP_BASE
    return wrap if abs(leap - wrap) < _FORWARD_S else leap


def ticks(seconds: Fraction, time_base: Fraction) -> int:
    """Seconds as the nearest whole number of ticks."""
    return round(seconds / time_base)


def _step(shown: Sequence[PacketTime], time_base: Fraction, rate: Fraction | None, trusted: bool) -> Fraction:
    if rate:
        return 1 / (rate * time_base)
    pts = sorted(packet.pts for packet in shown if packet.pts is not None) if trusted else []
    steps = [after - before for before, after in pairwise(pts) if after > before]
    return Fraction(median_low(steps)) if steps else 1 / (_FALLBACK_RATE * time_base)


def _from_pts(
    shown: Sequence[PacketTime], epochs: Sequence[Epoch], time_base: Fraction, step: Fraction
) -> tuple[list[int], tuple[str, ...]]:
    """Presentation times, epoch by epoch; missing ones are filled backward from the first known one, elsewhere after their neighbour."""
    known: list[int] = []
    filled = head = 0
    place = offset = 0
    last_clock: int | None = None
    for packet in shown:
        if packet.pts is None:
            head, filled = (head + 1, filled) if not known else (head, filled + 1)
            known += [known[-1] + round(step)] if known else []
            continue
        if place + 1 < len(epochs) and _at_or_after(packet, epochs[place + 1], last_clock, time_base):
            place += 1
            offset = ticks(epochs[place].offset, time_base)
        last_clock = packet.pts if packet.dts is None else packet.dts
        known.append(packet.pts + offset)
    first = min(known)
    times = _rising(sorted([first - round(i * step) for i in range(head, 0, -1)] + known), _nudge(time_base))
    missing = head + filled
    return times, (f"{missing} of {len(shown)} frames have no time; it is counted from their neighbours",) if missing else ()


def _at_or_after(packet: PacketTime, following: Epoch, last_clock: int | None, time_base: Fraction) -> bool:
    if packet.position is not None and following.position:
        return packet.position >= following.position
    clock = packet.pts if packet.dts is None else packet.dts
    return last_clock is not None and clock is not None and clock < last_clock - int(_BACKWARD_S / time_base)


def _nudge(time_base: Fraction) -> int:
    """How far behind its neighbour a frame comes that has no place of its own: a millisecond, or a tick where that is longer."""
    return max(1, ceil(Fraction(1, 1000) / time_base))


def _rising(times: list[int], nudge: int) -> list[int]:
    """Sorted times with none twice."""
    rising: list[int] = []
    for time in times:
        rising.append(time if not rising or time > rising[-1] else rising[-1] + nudge)
    return rising


def _no_times(fps: Fraction | None, rate: Fraction | None) -> str:
    if fps:
        return f"the source has no times; they are counted at --fps {fps}"
    guess = rate or _FALLBACK_RATE
    return f"the source has no times; they are counted at {guess} frames a second, which is a guess: say --fps if you know better"


def _shift(first: int, time_base: Fraction, rules: TimeRules) -> int:
    """Ticks that bring the earliest of all streams to zero; none where it lies after zero and the source's clock has a meaning.

    Packets that an edit list hides do not count, and audio alone may use its lead-in before zero.
    """
    starts = [first * time_base]
    for stream in rules.others:
        start = stream.start if stream.shown_start is None else stream.shown_start
        if stream.kind in ("audio", "video", "subtitle") and start is not None:
            seconds = start * stream.time_base
            lead = stream.kind == "audio" and not rules.any_origin and -rules.lead_in <= seconds < 0
            starts.append(Fraction(0) if lead else seconds)
    earliest = min(starts)
    return ceil(-earliest / time_base) if earliest < 0 or rules.any_origin else 0


def _last_duration(shown: Sequence[PacketTime], step: Fraction) -> int:
    timed = [packet for packet in shown if packet.pts is not None]
    last = max(timed, key=lambda packet: packet.pts or 0, default=None)
    return last.duration if last is not None and last.duration > 0 else max(1, round(step))


def _keyframes(shown: Sequence[PacketTime], shift: int) -> tuple[int, ...]:
    return tuple(sorted({packet.pts + shift for packet in shown if packet.keyframe and packet.pts is not None}))


def _steps(times: Sequence[int]) -> list[list[int]]:
    """Run-length form: the first time, then [step, how often] pairs."""
    packed: list[list[int]] = [[times[0], 1]] if times else []
    for before, after in pairwise(times):
        if len(packed) > 1 and packed[-1][0] == after - before:
            packed[-1][1] += 1
        else:
            packed.append([after - before, 1])
    return packed


def _unsteps(packed: Sequence[Sequence[int]]) -> tuple[int, ...]:
    if not packed:
        return ()
    times = [packed[0][0]]
    for step, count in packed[1:]:
        last = times[-1]
        times.extend(last + step * i for i in range(1, count + 1))
    return tuple(times)
