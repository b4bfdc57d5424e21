"""Time, settled once: from one pass over a source's packets to the TimeMap that reader, writer, segments, cuts and verification share.

A source's own times (raw pts) can be missing, doubled, run backward, start below zero or start anew in the middle (two joined
transport streams). The TimeMap says what each becomes: `settled = raw + offset of its epoch + shift`, in the video's own time base, so
that for a clean file time is only moved as a whole, by `shift`, which all streams share. What cannot be said by a sum is mended
frame by frame by a Clock, and counted. Pure values: neither av nor torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import ceil
from statistics import median_low
from typing import Final, NamedTuple

from a2n_video.media.epochs import BACKWARD_S, LEAD_IN, Epoch, Run, RunTracker, StreamTimes, find_epochs
from a2n_video.media.info import StreamInfo
from a2n_video.media.timemap import Clock, TimeMap, nudge, ticks

__all__ = [
    "LEAD_IN",
    "Clock",
    "Epoch",
    "PacketTime",
    "Run",
    "RunTracker",
    "ScanResult",
    "StreamTimes",
    "TimeMap",
    "TimeRules",
    "Window",
    "build_time_map",
    "hide_head",
    "placed",
]

_FALLBACK_RATE: Final = Fraction(25)
_EVER: Final = Fraction(-(1 << 62))  # seconds, before any that a packet can say


class PacketTime(NamedTuple):
    """One video packet in file order: times in ticks, `position` its byte offset, `hidden` where it shows no frame.

    An edit list hides packets; VP9 has such that only others refer to, H.264 second fields; and the first ones may refer to what lies
    before the file.
    """

    pts: int | None
    dts: int | None
    duration: int = 0
    keyframe: bool = False
    position: int | None = None
    hidden: bool = False


def hide_head(packets: Sequence[PacketTime], first: int | None) -> list[PacketTime]:
    """The packets with those hidden that a file begins with and nothing can decode: it was cut, or recorded, from the middle of a group.

    `first` is the pts of the first frame that decodes, and its packet the first keyframe. What comes before that one lacks a reference, and
    so does what is decoded after it and shown before. Where it is otherwise (damage, times in no order) none is hidden.
    """
    place = next((number for number, packet in enumerate(packets) if packet.keyframe and not packet.hidden), None)
    if first is None or place is None or packets[place].pts != first:
        return list(packets)
    begun, stop = packets[place].dts, place + 1
    while begun is not None and stop < len(packets) and (packets[stop].hidden or _between(begun, packets[stop].dts, first)):
        stop += 1
    head = [packet._replace(hidden=packet.hidden or (packet.pts is not None and packet.pts < first)) for packet in packets[:stop]]
    return [*head, *packets[stop:]]


def _between(begun: int, dts: int | None, first: int) -> bool:
    return dts is not None and begun < dts < first


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """What one demux pass found: the video's packets in file order, those of the `other_videos`, and when every stream runs."""

    video_index: int
    time_base: Fraction
    rate: Fraction | None
    packets: tuple[PacketTime, ...]
    streams: Mapping[int, StreamTimes] = field(default_factory=dict)
    other_videos: Mapping[int, tuple[PacketTime, ...]] = field(default_factory=dict)  # by stream index, covers aside
    pts_trusted: bool = True
    decode_times: bool = False
    any_origin: bool = False
    ends_by_dts: bool = False
    fps: Fraction | None = None
    lead_in: Fraction = LEAD_IN
    notes: tuple[str, ...] = ()  # warnings of the reading itself
    error: str | None = None  # reading stopped early: the file is damaged or cut short

    @property
    def empty(self) -> frozenset[int]:
        """Video, audio and subtitle streams without a packet."""
        return frozenset(i for i, s in self.streams.items() if not s.packets and s.kind in ("video", "audio", "subtitle"))

    @property
    def trimmed(self) -> tuple[int, ...]:
        """The other streams of which an edit list hides more at the beginning than decoders warm up on."""
        return tuple(index for index, stream in self.streams.items() if stream.trimmed and index != self.video_index)

    @property
    def frame_rate(self) -> Fraction | None:
        """The nominal rate: the user's `fps` where it counts the frames, else the container's word."""
        return self.rate if self.fps is None or self.time_map.pts_trusted else self.fps

    @cached_property
    def time_map(self) -> TimeMap:
        """The TimeMap of the whole source."""
        rules = TimeRules(
            fps=self.fps,
            lead_in=self.lead_in,
            video=self.streams.get(self.video_index),
            others=tuple(times for index, times in self.streams.items() if index != self.video_index),
            pts_trusted=self.pts_trusted,
            decode_times=self.decode_times,
            any_origin=self.any_origin,
            ends_by_dts=self.ends_by_dts,
        )
        time_map = build_time_map(self.packets, self.time_base, self.rate, rules)
        pieced = tuple(index for index, stream in self.streams.items() if stream.pieced and index != self.video_index)
        return replace(time_map, warnings=self.notes + time_map.warnings, pieced=pieced)


@dataclass(frozen=True, kw_only=True)
class TimeRules:
    """What else bears on time: the user's `fps`, the other streams, and how far (seconds) audio may begin before zero in the result."""

    fps: Fraction | None = None
    lead_in: Fraction = LEAD_IN
    video: StreamTimes | None = None
    others: tuple[StreamTimes, ...] = ()
    pts_trusted: bool = True
    decode_times: bool = False  # pts are those of decoding
    any_origin: bool = False  # the source's clock begins anywhere (transport streams): its first time is brought to zero
    ends_by_dts: bool = False  # packets have lengths of decode time (MP4, QuickTime), and the last frame what is left of them


def build_time_map(packets: Sequence[PacketTime], time_base: Fraction, rate: Fraction | None, rules: TimeRules | None = None) -> TimeMap:
    """Settle the time of a video from its packets in file order; `rate` is the container's word on the frame rate."""
    rules = rules or TimeRules()
    trusted = rules.pts_trusted and any(packet.pts is not None for packet in packets if not packet.hidden)
    if rules.fps is not None and not trusted:
        packets, time_base = _counted(packets, time_base, rules.fps)
    shown = [packet for packet in packets if not packet.hidden]
    step = _step(shown, time_base, rules.fps if not trusted and rules.fps else rate, trusted)
    epochs = find_epochs(_lasting(rules.video, shown, step), rules.others) if trusted else ()
    first_dts = None if trusted or rules.fps is not None else _first_dts(shown)
    if trusted:
        raw, warnings = _from_pts(shown, epochs, time_base, step)
    elif first_dts is not None:
        raw, warnings = _rising(sorted(map(_dts, shown)), 1), ()
    else:
        raw, warnings = [round(i * step) for i in range(len(shown))], (_no_times(rules.fps, rate),)
    shift = _shift(raw[0] if raw else 0, time_base, rules)
    times = tuple(time + shift for time in raw)
    if trusted and rules.fps is not None:
        warnings += ("--fps is left aside: the source has times of its own",)
    return TimeMap(
        time_base=time_base,
        step=step,
        times=times,
        first_pts=times[0] if times else 0,
        end_pts=(times[-1] if times else 0) + _last_duration(packets, step, by_dts=rules.ends_by_dts),
        origin_pts=times[0] if times else 0,
        shift_pts=shift,
        epochs=epochs or (Epoch(first=raw[0] if raw else 0, last=raw[-1] if raw else 0),),
        keyframes=_keyframes(shown, shift) if trusted and len(epochs) < 2 else (),
        first_dts=first_dts,
        pts_trusted=trusted,
        decode_times=rules.decode_times,
        seekable=trusted and not rules.decode_times and len(epochs) < 2 and all(packet.pts is not None for packet in shown),
        warnings=warnings + _moves(len(epochs), shift * time_base),
    )


def _first_dts(shown: Sequence[PacketTime]) -> int | None:
    """The first decode time; None where packets are without."""
    known = [packet.dts for packet in shown if packet.dts is not None]
    return min(known, default=None) if len(known) == len(shown) else None


def _moves(epochs: int, shift: Fraction) -> tuple[str, ...]:
    """What people are told of time that is moved, as a whole or by its parts; `shift` in seconds."""
    told: tuple[str, ...] = ()
    if epochs > 1:
        told += (f"the source's clock starts anew {epochs - 1} times; its parts are put one after the other",)
    if shift:
        way = "later, so that none begins before zero" if shift > 0 else "earlier, so that the first begins at zero"
        told += (f"all streams begin {abs(float(shift)):.3f} s {way}",)
    return told


def _counted(packets: Sequence[PacketTime], time_base: Fraction, fps: Fraction) -> tuple[list[PacketTime], Fraction]:
    """Packets to be counted at `fps`, each as long as that says, and a clock that can: AVI's ticks are frames at the rate it claims."""
    time_base = time_base if (1 / (fps * time_base)).denominator == 1 else 1 / fps
    return [packet._replace(duration=int(1 / (fps * time_base))) for packet in packets], time_base


def _lasting(video: StreamTimes | None, shown: Sequence[PacketTime], step: Fraction) -> StreamTimes | None:
    """The video's runs with their last frames in them: where no packet says how long it lasts (transport streams), the usual step."""
    if video is None or any(packet.duration for packet in shown):
        return video
    return replace(video, runs=tuple(run._replace(end=run.end + round(step)) for run in video.runs))


def _step(shown: Sequence[PacketTime], time_base: Fraction, rate: Fraction | None, trusted: bool) -> Fraction:
    if rate:
        return 1 / (rate * time_base)
    pts = sorted(packet.pts for packet in shown if packet.pts is not None) if trusted else []
    steps = [after - before for before, after in pairwise(pts) if after > before]
    return Fraction(median_low(steps)) if steps else 1 / (_FALLBACK_RATE * time_base)


def _from_pts(
    shown: Sequence[PacketTime], epochs: Sequence[Epoch], time_base: Fraction, step: Fraction
) -> tuple[list[int], tuple[str, ...]]:
    """Presentation times, epoch by epoch, and what people are told of them."""
    said = list(_on_one_clock(shown, epochs, time_base))
    known = [time for time in said if time is not None]
    missing, doubled = len(said) - len(known), len(known) - len(set(known))
    warnings: tuple[str, ...] = (f"{missing} of {len(shown)} frames have no time; it is counted from their neighbours",) if missing else ()
    if doubled:
        warnings += (f"{doubled} of {len(shown)} frames have the time of another; each comes right after it",)
    return _rising(sorted(_filled(said, step)), nudge(time_base)), warnings


def _on_one_clock(shown: Sequence[PacketTime], epochs: Sequence[Epoch], time_base: Fraction) -> Iterator[int | None]:
    """The packets' times on the first epoch's clock, in file order."""
    place = offset = 0
    last_clock: int | None = None
    for packet in shown:
        if packet.pts is None:
            yield None
            continue
        if place + 1 < len(epochs) and _at_or_after(packet, epochs[place + 1], last_clock, time_base):
            place += 1
            offset = ticks(epochs[place].offset, time_base)
        last_clock = packet.pts if packet.dts is None else packet.dts
        yield packet.pts + offset


def _filled(said: Sequence[int | None], step: Fraction) -> list[int]:
    """Times with the missing ones counted: before the first known one backward from the earliest, elsewhere after their neighbours."""
    times: list[int] = []
    head = 0
    for time in said:
        if time is None and not times:
            head += 1
        else:
            times.append(times[-1] + round(step) if time is None else time)
    first = min(times)
    return [first - round(number * step) for number in range(head, 0, -1)] + times


def _at_or_after(packet: PacketTime, following: Epoch, last_clock: int | None, time_base: Fraction) -> bool:
    if packet.position is not None and following.position:
        return packet.position >= following.position
    clock = packet.pts if packet.dts is None else packet.dts
    return last_clock is not None and clock is not None and clock < last_clock - int(BACKWARD_S / time_base)


def _rising(times: list[int], least: int) -> list[int]:
    """Sorted times with none twice."""
    rising: list[int] = []
    for time in times:
        rising.append(time if not rising or time > rising[-1] else rising[-1] + least)
    return rising


def _no_times(fps: Fraction | None, rate: Fraction | None) -> str:
    if fps:
        return f"the source has no times; they are counted at --fps {fps}"
    guess = rate or _FALLBACK_RATE
    return f"the source has no times; they are counted at {guess} frames a second, which is a guess: say --fps if you know better"


def _shift(first: int, time_base: Fraction, rules: TimeRules) -> int:
    """Ticks that bring the earliest of all streams to zero; none where it lies after zero and the source's clock has a meaning.

    Audio alone may use its lead-in before zero. Packets that an edit list hides do not count, unless nothing may lie before zero: up
    to a lead-in they are copied too, and nut refuses them there.
    """
    starts = [first * time_base]
    for stream in rules.others:
        start = stream.kept_start if stream.shown_start is None or not rules.lead_in else stream.shown_start
        if stream.kind in ("audio", "video", "subtitle") and start is not None:
            seconds = start * stream.time_base
            lead = stream.kind == "audio" and not rules.any_origin and -rules.lead_in <= seconds < 0
            starts.append(Fraction(0) if lead else seconds)
    earliest = min(starts)
    return ceil(-earliest / time_base) if earliest < 0 or rules.any_origin else 0


def _last_duration(packets: Sequence[PacketTime], step: Fraction, *, by_dts: bool) -> int:
    timed = [packet for packet in packets if packet.pts is not None]
    last = max((packet for packet in timed if not packet.hidden), key=_pts, default=None)
    if last is None:
        return max(1, round(step))
    duration = _end_by_dts(timed) - _pts(last) if by_dts and all(packet.dts is not None for packet in timed) else last.duration
    return duration if duration > 0 else max(1, round(step))


def _end_by_dts(timed: Sequence[PacketTime]) -> int:
    """Where the packet decoded last ends, as much later as frames are shown after they are decoded."""
    last = max((packet for packet in timed if not packet.hidden), key=_dts)
    return _dts(last) + last.duration + min(map(_pts, timed)) - min(map(_dts, timed))


def _pts(packet: PacketTime) -> int:
    return packet.pts or 0


def _dts(packet: PacketTime) -> int:
    return packet.dts or 0


def _keyframes(shown: Sequence[PacketTime], shift: int) -> tuple[int, ...]:
    return tuple(sorted({packet.pts + shift for packet in shown if packet.keyframe and packet.pts is not None}))


def placed(
    time_map: TimeMap, time: Fraction, duration: Fraction, position: int | None, *, stretches: bool
) -> tuple[Fraction, Fraction] | None:
    """When a packet of another stream begins and ends in the result, None where it lies outside. `time` is raw; all in seconds.

    It belongs to the result where it begins inside; one that `stretches` (a subtitle) is cut to fit instead. Times are exact: rounded
    ones fall on either side of a cut.
    """
    start = time_map.seconds_of(time, position)
    end = start + duration
    begin, limit = time_map.begin, time_map.limit
    if limit is not None and start >= limit:
        return None
    if begin is not None and start < begin:
        if not stretches or end <= begin:
            return None
        start = begin
    return start, end if limit is None or not stretches else min(end, limit)


class Window:
    """Which packets of the other streams belong to the result, and when: what plans, copies and verifies all ask here.

    For one pass over the packets in file order. A video that is copied begins with its first keyframe at or after a cut, without the
    pictures shown before that: they refer to what was cut off, MP4's reader leaves them out, and their decode times fit into no container.
    So it is too after a packet beyond the end: pictures that are shown earlier, and come after it, refer to it. And after one that an edit
    list hides, where that is left out.
    """

    def __init__(self, time_map: TimeMap) -> None:
        self._time_map = time_map
        self._shown: set[int] = set()  # streams of which a packet came that no edit list hides
        self._whole_from: dict[int, Fraction | None] = {}  # when the keyframe is shown that a video is whole from, None while it waits

    def place(
        self, stream: StreamInfo, time: Fraction, duration: Fraction, position: int | None, *, keyframe: bool, hidden: bool = False
    ) -> tuple[Fraction, Fraction] | None:
        """When a packet begins and ends in the result, as `placed`; a cover lies nowhere in time, and is not asked for."""
        span = None
        if not hidden:
            self._shown.add(stream.index)
        if not self.is_trimmed(stream, hidden=hidden):
            span = placed(self._time_map, time, duration, position, stretches=stream.kind == "subtitle")
        if stream.kind != "video":
            return span
        whole_from = self._whole_from.get(stream.index, _EVER if self._time_map.begin is None else None)
        if span is None:
            if whole_from is not None and self._time_map.seconds_of(time, position) >= whole_from:
                self._whole_from[stream.index] = None
            return None
        if whole_from is None and keyframe:
            whole_from = self._whole_from[stream.index] = span[0]
        return span if whole_from is not None and span[0] >= whole_from else None

    def is_trimmed(self, stream: StreamInfo, *, hidden: bool) -> bool:
        """Whether a packet is left out since an edit list hides it, and the result could not.

        Of a video what is hidden at the end stays: pictures that are shown earlier, and come after it, refer to it.
        """
        later = stream.index in self._shown and (stream.kind != "video" or stream.index in self._time_map.pieced)
        return hidden and (later or stream.index in self._time_map.trimmed)
