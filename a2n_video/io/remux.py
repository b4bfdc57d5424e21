"""Make the final file: the joined segments as its video, everything else copied once, packet for packet, from the source."""

from __future__ import annotations

import contextlib
import heapq
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from math import ceil, gcd
from pathlib import Path
from typing import Any, Final, Protocol

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from a2n_video.io.isobmff import set_hdr
from a2n_video.io.joining import joined_packets, scan_segment
from a2n_video.io.matroska import set_pixel_shape
from a2n_video.io.outfile import OutFile
from a2n_video.io.probe import fraction
from a2n_video.io.source import open_source
from a2n_video.io.writer import FORMAT_NAMES, set_color
from a2n_video.media.containers import CHAPTERS_FROM_ZERO, HOLDS
from a2n_video.media.final import FinalFile
from a2n_video.media.index import TimeMap, placed
from a2n_video.media.info import Chapter, StreamInfo, VideoInfo
from a2n_video.media.streams import Container, StreamPlan
from a2n_video.media.tags import kept_tags
from a2n_video.media.timemap import told

_BUFFER_BYTES: Final = 1 << 18
_READ_RETRIES: Final = 100
_PACKETS_TO_TRY: Final = 20
_MOVED_S: Final = Fraction(1, 1000)  # less is rounding
_MOST_TICKS: Final = (1 << 31) - 1  # of a second: FFmpeg's rationals are of 32 bits
_PRESSED: Final = Fraction(1, 40_000)  # nut's clocks are finer, and sixteen of these shorter than a frame
_MANY_AT_ONCE: Final = frozenset({"mkv", "webm"})
# Sound in packets of a known length, and the containers that go by the packet size in its header, which not all sources get right.
_FRAMED: Final = frozenset({"aac", "ac3", "dts", "mp2", "mp3"})
_BY_FRAME_SIZE: Final = frozenset({"avi", "nut"})
# What channels mean where the source does not say (PCM in Matroska), and MP4 insists.
_USUAL_LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


@dataclass(frozen=True, kw_only=True)
class RemuxJob:
    """What goes into the final file: the segments, whose video has pts in `time_base`, and what `final` says of the rest.

    What its TimeMap cuts is left out of the copied streams; chapters and subtitles are cut to fit.
    """

    final: FinalFile
    segments: tuple[Path, ...]
    time_base: Fraction
    frame_rate: Fraction | None = None
    options: Mapping[str, str] = field(default_factory=dict)  # the muxer's

    @property
    def last_duration(self) -> int:
        """The last frame's duration in `time_base`."""
        times = self.final.time_map
        return round((times.end_pts - times.last_pts) * times.time_base / self.time_base)


@dataclass(frozen=True, kw_only=True)
class RemuxResult:
    """What was written: video packets, packets by source stream index, and read errors passed over in the source.

    `refused`: by stream, which of its packets in the window (from 0) are so damaged that the muxer cannot take them. `moved`: which
    came later than they say, since they say less than the one before them (of a converted stream only how many). `undecoded`: how many
    of a converted stream are missing, as they could not be decoded.
    """

    video_packets: int
    copied: Mapping[int, int]
    read_errors: int
    refused: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    moved: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    undecoded: Mapping[int, int] = field(default_factory=dict)


class Converted(Protocol):
    """A stream that is made from a source stream, such as text subtitles in another format: it adds itself, then gives packets by dts.

    `undecoded` counts the source's packets that could not be decoded, `moved` those whose times stepped back.
    """

    @property
    def undecoded(self) -> int: ...

    @property
    def moved(self) -> int: ...

    def add_to(self, output: OutputContainer) -> Any: ...

    def packets(self) -> Iterator[Packet[Any]]: ...


def remux(
    job: RemuxJob, file: OutFile, converted: Mapping[int, Converted] | None = None, check: Callable[[], None] = lambda: None
) -> RemuxResult:
    """Write the final file into `file`, which stays open and unfinished. `converted` gives the streams the plan converts, by source index.

    Packets are merged by dts, so that memory is bounded whatever the length. OutputError where the disk refuses, EncodeError where
    the muxer does or the segments do not fit together. `check` is called once a packet and may raise to stop.
    """
    final = job.final
    converted = converted or {}
    counts: Counter[int] = Counter()
    refused: dict[int, list[int]] = {}
    box = final.plan.container
    options = {**dict(final.plan.muxer_options), **job.options}
    with open_source(final.info.path, ignore_edits=final.info.ignore_edits) as source, file.muxing():
        output = av.open(file, "w", format=FORMAT_NAMES.get(box, box), options=options, buffer_size=_BUFFER_BYTES)
        with output:
            lanes, copying = _add_streams(job, source, output, converted)
            for index, packet in heapq.merge(*(_as_held(lane, box) for lane in lanes), key=_microseconds):
                try:
                    output.mux(packet)
                except (av.error.InvalidDataError, av.error.PatchWelcomeError):
                    if index not in copying.targets:
                        raise
                    refused.setdefault(index, []).append(counts[index])
                file.check()
                check()
                counts[index] += 1
        if final.sar != 1 and box in ("mkv", "webm"):
            set_pixel_shape(file, final.width, final.height, final.sar)
        if final.hdr is not None and HOLDS[box].hdr:
            set_hdr(file, final.width, final.height, final.hdr)
    video = counts.pop(final.info.video_index, 0)
    copied = {index: count - len(refused.get(index, ())) for index, count in counts.items()}
    numbers = {index: tuple(found) for index, found in refused.items()}
    moved = {index: tuple(found) for index, found in copying.moved.items()}
    moved |= {index: tuple(range(stream.moved)) for index, stream in converted.items() if stream.moved}
    undecoded = {index: stream.undecoded for index, stream in converted.items() if stream.undecoded}
    return RemuxResult(video_packets=video, copied=copied, read_errors=copying.errors, refused=numbers, moved=moved, undecoded=undecoded)


Lane = Iterator["tuple[int, Packet[Any]]"]  # source stream index and packet, by dts


def _add_streams(
    job: RemuxJob, source: InputContainer, output: OutputContainer, converted: Mapping[int, Converted]
) -> tuple[list[Lane], _Copying]:
    """The output's streams in the source's order, with what gives their packets."""
    final = job.final
    scans = [scan_segment(path, job.time_base) for path in job.segments]
    copying = _Copying(final.info, final.plan.container, final.time_map, source)
    lanes: list[Lane] = []
    for stream in final.info.streams:
        fate = final.plan.of_stream(stream.index)
        if stream.index == final.info.video_index:
            target = _add_video(job, output)
            lanes.append(_numbered(stream.index, _on(target, joined_packets(scans, job.last_duration))))
        elif fate is not None and fate.fate == "copied":
            copying.targets[stream.index] = _add_copy(stream, final, source, output)
        elif stream.index in converted:
            _tag(converted[stream.index].add_to(output), stream, final.plan.container)
            lanes.append(_numbered(stream.index, converted[stream.index].packets()))
    output.metadata.update(kept_tags(final.info.metadata, final.plan.container, of_stream=False))
    chapters = shifted_chapters(final) if _kept(final.plan, "chapters") else []
    filling = fills_before_chapters(final, chapters)
    chapters = [filling, *chapters] if filling is not None else chapters
    output.set_chapters([_av_chapter(chapter, final.plan.container) for chapter in chapters])
    return [copying.packets(), *lanes], copying


def _kept(plan: StreamPlan, kind: str) -> bool:
    return all(fate.fate != "dropped" for fate in plan.fates if fate.kind == kind)


def _add_video(job: RemuxJob, output: OutputContainer) -> Any:
    """The video stream, made from the first segment's, with the tags that a segment's container may have lost."""
    final = job.final
    with av.open(f"file:{job.segments[0]}") as segment:
        stream: Any = output.add_stream_from_template(segment.streams.video[0], opaque=True)
    context = stream.codec_context
    stream.time_base = job.time_base
    if final.plan.container == "avi" and job.frame_rate:
        stream.time_base = 1 / job.frame_rate  # its header holds a rate, not a time base
    if job.frame_rate:
        context.framerate = job.frame_rate
    context.sample_aspect_ratio = final.sar
    set_color(context, final.color)
    if context.codec.canonical_name == "hevc" and final.plan.container in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # the tag that every player takes; FFmpeg's own choice is hev1
    if final.display_matrix:
        # A damaged one may not fit once its translation has grown with the picture.
        stream.set_display_matrix(tuple(max(-(1 << 31), min(value, (1 << 31) - 1)) for value in final.display_matrix))
    _tag(stream, final.info.video, final.plan.container)
    return stream


def _add_copy(info: StreamInfo, final: FinalFile, source: InputContainer, output: OutputContainer) -> Any:
    if info.is_cover and final.plan.container == "mkv":
        return _add_cover(info, final.info.path, output)
    stream = _like(info, final.info.path, source, output, final.plan.container)
    _tag(stream, info, final.plan.container)
    return stream


def _like(info: StreamInfo, path: Path, source: InputContainer, output: OutputContainer, container: Container) -> Any:
    template: Any = source.streams[info.index]
    with contextlib.ExitStack() as stack:
        if info.codec in _FRAMED and container in _BY_FRAME_SIZE and template.codec_context.block_align:
            template = _without_frame_size(path, info.index, stack) or template
        stream: Any = output.add_stream_from_template(template, opaque=True)
    if info.kind == "audio" and stream.codec_context.layout.name == f"{info.channels} channels":
        stream.codec_context.layout = _USUAL_LAYOUTS.get(info.channels, stream.codec_context.layout)
    if info.codec in _FRAMED and container == "nut":
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


def unwritable_streams(path: Path, info: VideoInfo, plan: StreamPlan, time_map: TimeMap) -> dict[int, str]:
    """Copied audio and video streams that the container refuses, with the reason: found by trying, alone and with their first packets."""
    fates = ((stream, plan.of_stream(stream.index)) for stream in info.streams if stream.kind in ("audio", "video") and not stream.is_cover)
    copied = [stream for stream, fate in fates if fate is not None and fate.fate == "copied"]
    reasons = {stream.index: _refusal(stream, path, info, plan.container, time_map) for stream in copied}
    return {index: reason for index, reason in reasons.items() if reason}


def _refusal(stream: StreamInfo, path: Path, info: VideoInfo, container: Container, time_map: TimeMap) -> str:
    """Why a container does not take a stream: muxers look at its header, some at its first packets. Damaged packets are passed over."""
    file = io.BytesIO()
    output = av.open(file, "w", format=FORMAT_NAMES.get(container, container))
    times: list[Fraction] = []
    with open_source(path, ignore_edits=info.ignore_edits) as source, contextlib.suppress(av.FFmpegError, ValueError), output:
        try:
            copying = _Copying(info, container, time_map, source)
            copying.targets[stream.index] = _like(stream, path, source, output, container)
            output.start_encoding()
            for _, packet in islice(_as_held(copying.packets(), container), _PACKETS_TO_TRY):
                time = (packet.pts or 0) * (fraction(packet.time_base) or Fraction(0))
                with contextlib.suppress(av.error.InvalidDataError, av.error.PatchWelcomeError):
                    output.mux(packet)
                    times.append(time)
            output.close()
            if HOLDS[container].steady and stream.codec in _FRAMED and not _same_times(times, file):
                return f"{container} gives its packets other times"
        except (av.error.ArgumentError, ValueError):
            return "its header is damaged or empty, or its packets are of another codec than it says"
    return ""


def _same_times(times: Sequence[Fraction], file: io.BytesIO) -> bool:
    """Whether packets come back when they were written, to a tick: in AVI, large ones of MP3 (layer 2 from an MP4) count twice."""
    file.seek(0)
    with av.open(file, "r") as made:
        base = fraction(made.streams[0].time_base) or Fraction(0)
        found = [(packet.pts or 0) * base for packet in made.demux() if packet.size]
    return all(abs(a - b) <= base for a, b in zip(times, found, strict=False))


def _add_cover(info: StreamInfo, path: Path, output: OutputContainer) -> Any:
    """A cover picture as Matroska keeps it: an attachment named cover.png or cover.jpg (Matroska's own rule for attachments)."""
    suffix, mime = {"mjpeg": ("jpg", "image/jpeg")}.get(info.codec, (info.codec, f"image/{info.codec}"))
    with open_source(path) as source:
        packet = next(packet for packet in source.demux(source.streams[info.index]) if packet.size)
        return output.add_attachment(info.metadata.get("filename", f"cover.{suffix}"), mime, bytes(packet))


def _tag(stream: Any, info: StreamInfo, container: Container) -> None:
    stream.metadata.clear()
    stream.metadata.update(kept_tags(info.metadata, container, of_stream=True))
    stream.disposition = info.disposition


def shifted_chapters(final: FinalFile) -> list[Chapter]:
    """The source's chapters on the result's clock by their beginning, cut at its start and end; those wholly outside are left out.

    Sorted, since Matroska's reader leaves out one that comes after a later one.
    """
    kept = []
    for chapter in final.info.chapters:
        start, end = final.time_map.seconds_of(chapter.start), final.time_map.seconds_of(chapter.end)
        if final.time_map.begin is not None:
            start = max(start, final.time_map.begin)
        if final.time_map.limit is not None:
            end = min(end, final.time_map.limit)
        if start < end or (start == end and chapter.start == chapter.end):
            kept.append(Chapter(id=chapter.id, start=start, end=end, metadata=chapter.metadata))
    return sorted(kept, key=lambda chapter: chapter.start)


def fills_before_chapters(final: FinalFile, chapters: Sequence[Chapter]) -> Chapter | None:
    """What stands before the first chapter in a container that would else let that one begin with the file: one without a name."""
    late = final.plan.container in CHAPTERS_FROM_ZERO and bool(chapters) and chapters[0].start >= _MOVED_S
    return Chapter(id=0, start=Fraction(0), end=chapters[0].start) if late else None


def _av_chapter(chapter: Chapter, container: Container) -> Any:
    """In nanoseconds, Matroska's unit, which the units of other containers round from.

    MP4 and QuickTime keep names in a track, in which FFmpeg gives a chapter without one the name of the next.
    """
    nameless = {"title": ""} if container in ("mp4", "mov") else {}
    base = Fraction(1, 10**9)
    times = {"start": round(chapter.start / base), "end": round(chapter.end / base)}
    return {"id": chapter.id, "time_base": base, "metadata": {**nameless, **chapter.metadata}, **times}


class _Copying:
    """The copied streams' packets, in the source file's order, on the result's clock. `errors` counts what could not be read."""

    def __init__(self, info: VideoInfo, container: Container, time_map: TimeMap, source: InputContainer) -> None:
        self.info = info
        self.time_map = time_map
        self.source = source
        self.targets: dict[int, Any] = {}
        self.errors = 0
        self.moved: dict[int, list[int]] = {}
        self._last_dts: dict[int, int] = {}
        self._counts: Counter[int] = Counter()
        self._bases: dict[int, Fraction] = {}
        self._steps: dict[int, int] = {}
        self._many_at_once = container in _MANY_AT_ONCE

    def packets(self) -> Lane:
        if not self.targets:
            return
        for packet in self._demuxed():
            index = packet.stream_index
            if packet.size and self._placed(packet, self.info.streams[index]):
                packet.stream = self.targets[index]
                yield index, packet

    def _demuxed(self) -> Iterator[Packet[Any]]:
        """All packets that can be read; a broken one is passed over, and reading ends where nothing more comes."""
        wanted = [self.source.streams[index] for index, target in self.targets.items() if target.type != "attachment"]
        while wanted and self.errors < _READ_RETRIES:
            try:
                yield from self.source.demux(wanted)
                return
            except av.FFmpegError:
                self.errors += 1

    def _placed(self, packet: Packet[Any], stream: StreamInfo) -> bool:
        """Move a packet onto the result's clock; False if it lies outside the result."""
        if stream.is_cover:
            packet.pts = packet.dts = 0
            return True
        base = self._base(stream)
        shift = round(self.time_map.seconds_of(Fraction(0), packet.pos) / base)
        dts, pts, duration = self._times(packet, stream, base, shift)
        stretches = stream.kind == "subtitle"
        span = placed(self.time_map, (pts - shift) * base, duration * base, packet.pos, stretches=stretches)
        if span is None:
            return False
        if stretches:
            dts = pts = ceil(span[0] / base)
            duration = max(0, int(span[1] // base) - pts)
        packet.time_base, packet.duration = base, duration
        packet.pts, packet.dts = self._in_order(stream, base, pts, dts)
        self._counts[stream.index] += 1
        return True

    def _base(self, stream: StreamInfo) -> Fraction:
        """The time base for a stream's packets: in the stream's own, a shift would be rounded, in AVI to a whole packet of sound."""
        if stream.index not in self._bases:
            times = self.time_map
            self._bases[stream.index] = fine_base(stream.time_base, *(times.shift + epoch.offset for epoch in times.epochs))
        return self._bases[stream.index]

    def _times(self, packet: Packet[Any], stream: StreamInfo, base: Fraction, shift: int) -> tuple[int, int, int]:
        """Decode and presentation time on the result's clock, and duration, in ticks of `base`; a packet without follows the last one."""
        ticks, last = int(stream.time_base / base), self._last_dts.get(stream.index)
        duration = (packet.duration or 0) * ticks
        pts, raw = told(packet.pts), told(packet.dts)
        raw = pts if raw is None else raw
        dts = raw * ticks + shift if raw is not None else (last or 0) + (duration or ticks)
        if not duration and last is not None and stream.kind != "subtitle":
            duration = self._usual_step(stream.index, dts - last)
        return dts, pts * ticks + shift if pts is not None else dts, duration

    def _usual_step(self, index: int, step: int) -> int:
        """How long a packet is that does not say (nut), the shortest step so far: MP4 would not show the last one else."""
        if step > 0:
            self._steps[index] = min(step, self._steps.get(index, step))
        return self._steps.get(index, 0)

    def _in_order(self, stream: StreamInfo, base: Fraction, pts: int, dts: int) -> tuple[int, int]:
        """The same times, later where they step back, as those of damaged and joined files do: muxers refuse that.

        Matroska takes two packets in one millisecond (TrueHD).
        """
        last = self._last_dts.get(stream.index)
        least = 0 if self._many_at_once else int(stream.time_base / base)
        if last is not None and dts < last + least:
            dts = last + least
        self._last_dts[stream.index] = dts
        if pts < dts and (dts - pts) * base > _MOVED_S:
            self.moved.setdefault(stream.index, []).append(self._counts[stream.index])
        return max(pts, dts), dts


def fine_base(tick: Fraction, *shifts: Fraction) -> Fraction:
    """The coarsest time base in which `tick` and all shifts are whole; where FFmpeg cannot say that, the finest that divides `tick`."""
    common = tick
    for shift in shifts:
        over = common.denominator * shift.denominator
        common = Fraction(gcd(common.numerator * shift.denominator, shift.numerator * common.denominator), over)
    return common if common.denominator <= _MOST_TICKS else tick / (_MOST_TICKS // tick.denominator)


def _numbered(index: int, packets: Iterable[Packet[Any]]) -> Lane:
    return ((index, packet) for packet in packets)


def _as_held(packets: Lane, container: Container) -> Lane:
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

    It stores none, and works them out again from what is shown when, which stays as it is.
    """
    last: dict[int, int] = {}
    for index, packet in packets:
        if (packet.dts or 0) < 0 or index in last:
            base = fraction(packet.time_base) or _PRESSED
            fine = fine_base(base, _PRESSED)
            ticks = int(base / fine)
            dts = max((packet.dts or 0) * ticks, last.get(index, 0))
            packet.pts, packet.duration = (packet.pts or 0) * ticks, (packet.duration or 0) * ticks
            packet.time_base, packet.dts = fine, dts
            last[index] = dts + int(_PRESSED / fine)
        yield index, packet


def _on(stream: Any, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
    for packet in packets:
        packet.stream = stream
        yield packet


def _microseconds(entry: tuple[int, Packet[Any]]) -> int:
    packet = entry[1]
    return (packet.dts or 0) * packet.time_base.numerator * 1_000_000 // packet.time_base.denominator
