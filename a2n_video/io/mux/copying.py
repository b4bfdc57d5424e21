"""What is copied packet for packet: the streams for it, and its packets on the result's clock, as the container can say them."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil, gcd
from pathlib import Path
from typing import Any, Final

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from a2n_video.frames import fraction
from a2n_video.io.inspect import fills_gap
from a2n_video.io.mux.silence import Silence
from a2n_video.io.positions import Positions
from a2n_video.io.source import open_source
from a2n_video.media.containers import HOLDS
from a2n_video.media.gaps import filled_sound
from a2n_video.media.index import TimeMap, Window, placed
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.streams import Container, StreamPlan
from a2n_video.media.timemap import told

_READ_RETRIES: Final = 100
_MOVED_S: Final = Fraction(1, 1000)  # less is rounding
_MOST_TICKS: Final = (1 << 31) - 1  # of a second: FFmpeg's rationals are of 32 bits
_PRESSED: Final = Fraction(1, 40_000)  # nut's clocks are finer, and sixteen of these shorter than a frame
_MOST_REORDERED: Final = 16  # pictures that a codec decodes before the first is shown
_MANY_AT_ONCE: Final = frozenset({"mkv", "webm"})
_IN_SAMPLES: Final = frozenset({"mp4", "mov"})  # their clock for sound
# Sound in packets of a known length, and the containers that go by the packet size in its header, which not all sources get right.
FRAMED: Final = frozenset({"aac", "ac3", "dts", "mp2", "mp3"})
_BY_FRAME_SIZE: Final = frozenset({"avi", "nut"})
# What channels mean where the source does not say (PCM in Matroska), and MP4 insists.
_USUAL_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_STAND_INS: Final = {"audio": "pcm_s16le", "video": "ffv1"}  # which Matroska has names for

Lane = Iterator["tuple[int, Packet[Any]]"]  # source stream index and packet, by dts


def copied_stream(info: StreamInfo, path: Path, source: InputContainer, output: OutputContainer, container: Container) -> Any:
    """The output's stream for a source stream that is copied: as its header says, but for what a container would misread."""
    template: Any = source.streams[info.index]
    with contextlib.ExitStack() as stack:
        if info.codec in FRAMED and container in _BY_FRAME_SIZE and template.codec_context.block_align:
            template = _without_frame_size(path, info.index, stack) or template
        stream: Any = stream_like(template, output)
    if info.kind == "audio" and stream.codec_context.layout.name == f"{info.channels} channels":
        stream.codec_context.layout = _USUAL_LAYOUTS.get(info.channels, stream.codec_context.layout)
    if info.codec in FRAMED and container == "nut":
        stream.codec_context.bit_rate = 0  # MP4's is a mean, and nut cannot read again what it writes by that
    return stream


def _without_frame_size(path: Path, index: int, stack: contextlib.ExitStack) -> Any:
    """A stream's header as Matroska gives it back, None where it takes none: PyAV cannot change a frame size, and Matroska has none.

    By the one that AVI gives, AVI counts time in bytes, and nut writes what it cannot read again.
    """
    file = io.BytesIO()
    try:
        with open_source(path) as source, av.open(file, "w", format="matroska") as output:
            target = output.add_stream_from_template(source.streams[index], opaque=True)
            for packet in islice((packet for packet in source.demux(source.streams[index]) if packet.size), 1):
                packet.stream, packet.pts, packet.dts = target, 0, 0
                output.mux(packet)
        file.seek(0)
        return next(iter(stack.enter_context(av.open(file)).streams), None)
    except (av.FFmpegError, ValueError):
        return None


def stream_like(template: Any, output: OutputContainer) -> Any:
    """An output's stream with the codec and header of another stream.

    PyAV asks FFmpeg whether a container has a name of its own for a codec, and refuses for Matroska what that holds by AVI's names for
    it (A_MS/ACM, V_MS/VFW/FOURCC). A stream of another codec is made there, and its parameters are written over by a filter that changes
    nothing.
    """
    try:
        return output.add_stream_from_template(template, opaque=True)
    except ValueError:
        if output.format.name != "matroska" or template.type not in _STAND_INS:
            raise
    with av.open(io.BytesIO(), "w", format="mpegts") as scratch:
        nameless = scratch.add_stream_from_template(template, opaque=True)
        stand_in = output.add_stream_from_template(scratch.add_stream(_STAND_INS[template.type]), opaque=True)
        BitStreamFilterContext("null", nameless, stand_in)
    return stand_in


class Copying:
    """The copied streams' packets, in the source file's order, on the result's clock. `errors` counts what could not be read."""

    def __init__(self, info: VideoInfo, container: Container, time_map: TimeMap, source: InputContainer) -> None:
        self.info = info
        self.time_map = time_map
        self._window = Window(time_map)
        self._positions = Positions()
        self.source = source
        self.targets: dict[int, Any] = {}
        self.errors = 0
        self.moved: dict[int, list[int]] = {}
        self._last_dts: dict[int, int] = {}
        self._first_pts: dict[int, int] = {}
        self._counts: Counter[int] = Counter()
        self._bases: dict[int, Fraction] = {}
        self._steps: dict[int, int] = {}
        self._container = container
        raw = {stream.index: filled_sound(stream, container) for stream in info.streams if stream.kind == "audio"}
        self._silence = {index: Silence(sound) for index, sound in raw.items() if sound is not None}

    def packets(self, demuxed: Iterable[Packet[Any]] | None = None) -> Lane:
        """Those of the streams that have a target, from the whole source, or from what is demuxed of it elsewhere."""
        for packet in self._demuxed() if demuxed is None else demuxed:
            index = packet.stream_index
            if index in self.targets:
                for made in self._placed(packet, self.info.streams[index]):
                    made.stream = self.targets[index]
                    yield index, made

    def _demuxed(self) -> Iterator[Packet[Any]]:
        wanted = [self.source.streams[index] for index, target in self.targets.items() if target.type != "attachment"]
        return readable(self.source, wanted, self._count_error)

    def _count_error(self) -> None:
        self.errors += 1

    def _placed(self, packet: Packet[Any], stream: StreamInfo) -> Iterator[Packet[Any]]:
        """A packet on the result's clock, after the silence that belongs before it; none where it lies outside the result, or fills a gap
        that the muxer fills anew.
        """
        if stream.is_cover:
            packet.pts = packet.dts = 0
            yield packet
            return
        position = self._positions.of(packet)
        if fills_gap(stream.codec, memoryview(packet)):
            return
        base = self._base(stream)
        shift = round(self.time_map.seconds_of(Fraction(0), position) / base)
        dts, pts, duration = self._times(packet, stream, base, shift)
        stretches = stream.kind == "subtitle"
        raw, length = (pts - shift) * base, duration * base
        span = self._window.place(stream, raw, length, position, keyframe=packet.is_keyframe, hidden=packet.is_discard)
        if span is None:
            return
        if stretches:
            dts = pts = ceil(span[0] / base)
            duration = max(0, int(span[1] // base) - pts)
        if stream.index in self._silence:
            yield from self._counted(stream, base, span[0], packet)
            return
        packet.time_base, packet.duration = base, duration
        packet.pts, packet.dts = self._in_order(stream, base, pts, dts, duration)
        self._counts[stream.index] += 1
        yield packet

    def _counted(self, stream: StreamInfo, base: Fraction, begins: Fraction, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """A packet of raw sound, after the silence that belongs before it, each where the samples before it end.

        A reader of MP4 shows no more of them than their times have room for.
        """
        for time, samples, made in self._silence[stream.index].filled(begins, packet):
            made.time_base, made.duration = base, round(samples / base / stream.sample_rate)
            made.pts, made.dts = self._in_order(stream, base, round(time / base), round(time / base), made.duration)
            yield made
        self._counts[stream.index] += 1

    def _base(self, stream: StreamInfo) -> Fraction:
        """The time base for a stream's packets: in the stream's own, a shift would be rounded, in AVI to a whole packet of sound."""
        if stream.index not in self._bases:
            shifts = [self.time_map.shift + epoch.offset for epoch in self.time_map.epochs]
            if stream.index in self._silence:
                shifts.append(Fraction(1, stream.sample_rate))
            self._bases[stream.index] = fine_base(stream.time_base, *shifts)
        return self._bases[stream.index]

    def _times(self, packet: Packet[Any], stream: StreamInfo, base: Fraction, shift: int) -> tuple[int, int, int]:
        """Decode and presentation time on the result's clock, and duration, in ticks of `base`; a packet without follows the last one."""
        ticks, last = int(stream.time_base / base), self._last_dts.get(stream.index)
        duration = (packet.duration or 0) * ticks
        pts, raw = told(packet.pts), told(packet.dts)
        raw = self._decoded_at(stream, pts) if raw is None else raw
        dts = raw * ticks + shift if raw is not None else (last or 0) + (duration or ticks)
        if not duration and last is not None and stream.kind != "subtitle":
            duration = self._usual_step(stream.index, dts - last)
        return dts, pts * ticks + shift if pts is not None else dts, duration

    def _decoded_at(self, stream: StreamInfo, pts: int | None) -> int | None:
        """A decode time for a packet without: Matroska's reader knows none for a video's first ones, which go just before the first pts."""
        early = _MOST_REORDERED - self._counts[stream.index]
        if pts is None or stream.kind != "video" or early <= 0:
            return pts
        return min(pts, self._first_pts.setdefault(stream.index, pts) - early)

    def _usual_step(self, index: int, step: int) -> int:
        """How long a packet is that does not say (nut), the shortest step so far: MP4 would not show the last one else."""
        if step > 0:
            self._steps[index] = min(step, self._steps.get(index, step))
        return self._steps.get(index, 0)

    def _in_order(self, stream: StreamInfo, base: Fraction, pts: int, dts: int, duration: int) -> tuple[int, int]:
        """The same times, later where they step back, as those of damaged and joined files do: muxers refuse that.

        Sound of which the decode time alone does is decoded when it is heard: MP4 has no other time for it.
        """
        last = self._last_dts.get(stream.index)
        if last is not None and dts < last + (least := self._least(stream, base)):
            heard = min(pts, last + duration) if stream.kind == "audio" else dts
            dts = max(heard, last + least)
        self._last_dts[stream.index] = dts
        if pts < dts and (dts - pts) * base > _MOVED_S:
            self.moved.setdefault(stream.index, []).append(self._counts[stream.index])
        return max(pts, dts), dts

    def _least(self, stream: StreamInfo, base: Fraction) -> int:
        """How much later than the one before it a packet must come: a tick of the source's clock, and of the container's.

        Matroska takes two packets in one millisecond (TrueHD).
        """
        if self._container in _MANY_AT_ONCE:
            return 0
        sample = Fraction(1, stream.sample_rate) if self._container in _IN_SAMPLES and stream.sample_rate else Fraction(0)
        return ceil(max(stream.time_base, sample) / base)


def readable(source: InputContainer, streams: Sequence[Any], on_error: Callable[[], None] = lambda: None) -> Iterator[Packet[Any]]:
    """All packets that can be read of some streams; a broken one is passed over, and reading ends where nothing more comes."""
    for _ in range(_READ_RETRIES if streams else 0):
        try:
            yield from (packet for packet in source.demux(*streams) if packet.size)
            return
        except av.FFmpegError:
            on_error()


def sound_starts(path: Path, info: VideoInfo, plan: StreamPlan, part: TimeMap) -> dict[int, Fraction]:
    """When each audio stream that goes along begins in a part, in settled seconds; those of which nothing lies in it are left out.

    A copied one begins with its first packet after a cut, one made anew with the sample there.
    """
    made_anew = {
        fate.index: fate.fate == "converted"
        for fate in plan.fates
        if fate.kind == "audio" and fate.fate != "dropped" and fate.index is not None
    }
    starts: dict[int, Fraction] = {}
    positions = Positions()
    with open_source(path, ignore_edits=info.ignore_edits) as source:
        for packet in readable(source, [source.streams[index] for index in made_anew]):
            index, base, position = packet.stream_index, info.streams[packet.stream_index].time_base, positions.of(packet)
            time = told(packet.dts) if packet.pts is None else told(packet.pts)
            if index in starts or time is None or (packet.is_discard and index in part.trimmed):
                continue
            span = placed(part, time * base, (packet.duration or 0) * base, position, stretches=made_anew[index])
            if span is not None:
                starts[index] = span[0]
            if len(starts) == len(made_anew):
                break
    return starts


def fine_base(tick: Fraction, *shifts: Fraction) -> Fraction:
    """The coarsest time base in which `tick` and all shifts are whole; where FFmpeg cannot say that, the finest that divides `tick`."""
    common = tick
    for shift in shifts:
        over = common.denominator * shift.denominator
        common = Fraction(gcd(common.numerator * shift.denominator, shift.numerator * common.denominator), over)
    return common if common.denominator <= _MOST_TICKS else tick / (_MOST_TICKS // tick.denominator)


def as_held(packets: Lane, container: Container) -> Lane:
    """The packets with times that the container can say."""
    if HOLDS[container].steady:
        return _from_zero(packets)
    return _decoded_from_zero(packets) if container == "nut" else packets


def _from_zero(packets: Lane) -> Lane:
    """Every stream from time zero on: AVI counts packets, and would fill what lies before a later start with empty ones."""
    starts: dict[int, int] = {}
    for index, packet in packets:
        start = starts.setdefault(index, packet.dts or 0)
        packet.dts = (packet.dts or 0) - start
        packet.pts = None if packet.pts is None else packet.pts - start
        yield index, packet


def _decoded_from_zero(packets: Lane) -> Lane:
    """Decode times below zero, with which reordered video begins, pressed together after it: nut is read wrongly where they are below.

    It stores none, and works them out again from what is shown when. That stays as it is; only a picture that a damaged source shows
    before its decode time comes with that, fractions of a millisecond later.
    """
    last: dict[int, int] = {}
    for index, packet in packets:
        if (packet.dts or 0) < 0 or index in last:
            base = fraction(packet.time_base) or _PRESSED
            fine = fine_base(base, _PRESSED)
            ticks = int(base / fine)
            dts = max((packet.dts or 0) * ticks, last.get(index, 0))
            packet.pts, packet.duration = max((packet.pts or 0) * ticks, dts), (packet.duration or 0) * ticks
            packet.time_base, packet.dts = fine, dts
            last[index] = dts + int(_PRESSED / fine)
        yield index, packet
