"""Make the final file: the joined segments as its video, everything else copied once, packet for packet, from the source."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from a2n_video.io.mux.converted import Converted
from a2n_video.io.mux.copying import Copying, Lane, as_held, copied_stream, stream_like
from a2n_video.io.mux.isobmff import set_hdr
from a2n_video.io.mux.joining import joined_packets, scan_segment
from a2n_video.io.mux.matroska import display_size, set_pixel_shape
from a2n_video.io.outfile import OutFile
from a2n_video.io.source import open_source
from a2n_video.io.writer import FORMAT_NAMES, set_color
from a2n_video.media.chapters import fills_before_chapters, shifted_chapters
from a2n_video.media.containers import ENDS_BY_DTS, HOLDS, TRANSPORT
from a2n_video.media.final import FinalFile
from a2n_video.media.info import Chapter, StreamInfo
from a2n_video.media.streams import Container, StreamPlan
from a2n_video.media.tags import kept_tags
from a2n_video.media.timecode import keeps_timecode

_BUFFER_BYTES: Final = 1 << 18
_FORMAT_IN_TAG: Final = frozenset({"utvideo"})  # nothing else says their pixel format
_SYNCHRONISED: Final = {"ac3": b"\x0b\x77", "eac3": b"\x0b\x77"}  # what packets begin with


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
            track = _track_number(output, copying)
            for index, packet in heapq.merge(*(as_held(lane, box) for lane in lanes), key=_microseconds):
                if index not in copying.targets:
                    output.mux(packet)
                elif not _taken(output, packet, final.info.streams[index].codec, box):
                    refused.setdefault(index, []).append(counts[index])
                file.check()
                check()
                counts[index] += 1
        _set_header(file, final, track)
    video_packets = counts.pop(final.info.video_index, 0)
    moved = {index: tuple(found) for index, found in copying.moved.items()}
    moved |= {index: tuple(range(stream.moved)) for index, stream in converted.items() if stream.moved}
    return RemuxResult(
        video_packets=video_packets,
        copied={index: count - len(refused.get(index, ())) for index, count in counts.items()},
        read_errors=copying.errors,
        refused={index: tuple(found) for index, found in refused.items()},
        moved=moved,
        undecoded={index: stream.undecoded for index, stream in converted.items() if stream.undecoded},
    )


def _track_number(output: OutputContainer, copying: Copying) -> int:
    """The made video's number among the tracks, which attachments are none of: it is the one video that is not copied."""
    tracks: list[Any] = [stream for stream in output.streams if stream.type != "attachment"]
    copied = {target.index for target in copying.targets.values()}
    return 1 + next(place for place, stream in enumerate(tracks) if stream.type == "video" and stream.index not in copied)


def _set_header(file: OutFile, final: FinalFile, track: int) -> None:
    """Write into a finished file's header what its muxer leaves out, for the made video's track: others can be of its size."""
    box = final.plan.container
    if final.sar != 1 and box in ("mkv", "webm"):
        set_pixel_shape(file, track, display_size(final.width, final.height, final.sar))
    if final.hdr is not None and HOLDS[box].hdr:
        set_hdr(file, track, final.hdr)


def _taken(output: OutputContainer, packet: Packet[Any], codec: str, container: Container) -> bool:
    """Mux a copied packet; False for one so damaged that the muxer refuses it."""
    if not _whole(packet, codec, container):
        return False
    try:
        output.mux(packet)
    except (av.error.InvalidDataError, av.error.PatchWelcomeError):
        return False
    return True


def _whole(packet: Packet[Any], codec: str, container: Container) -> bool:
    """Whether a packet begins as one of its codec must, where its muxer does not say which one it does not take.

    MP4's leaves AC-3 that begins in mid-frame out without a word, as long as no whole frame came: of a DVD that was cut, say. That of
    transport streams refuses AAC of one byte when it is given a later packet, of another stream perhaps.
    """
    head = bytes(memoryview(packet)[:2])
    if container in TRANSPORT and codec == "aac":
        return len(head) == 2
    return container not in ("mp4", "mov") or head == _SYNCHRONISED.get(codec, head)


def _add_streams(
    job: RemuxJob, source: InputContainer, output: OutputContainer, converted: Mapping[int, Converted]
) -> tuple[list[Lane], Copying]:
    """The output's streams in the source's order, with what gives their packets."""
    final = job.final
    scans = [scan_segment(path, job.time_base) for path in job.segments]
    copying = Copying(final.info, final.plan.container, final.time_map, source)
    lanes: list[Lane] = []
    for stream in final.info.streams:
        fate = final.plan.of_stream(stream.index)
        if stream.index == final.info.video_index:
            target = _add_video(job, output)
            joined = joined_packets(scans, job.last_duration, ends_by_dts=final.plan.container in ENDS_BY_DTS)
            lanes.append(_numbered(stream.index, _on(target, joined)))
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
        template = segment.streams.video[0]
        stream: Any = stream_like(template, output)
        if template.codec_context.name in _FORMAT_IN_TAG:
            stream.codec_context.codec_tag = template.codec_context.codec_tag
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
    if not keeps_timecode(final.plan):  # of one that its rate cannot say the muxer would make another
        for name in [name for name in stream.metadata if name.lower() == "timecode"]:
            del stream.metadata[name]
    # VP8's and VP9's alpha lies beside the picture, and nothing but this tag says so: the source's speaks of the source.
    stream.metadata.pop("alpha_mode", None)
    if context.codec.canonical_name in ("vp8", "vp9") and (final.pix_fmt or "").startswith("yuva"):
        stream.metadata["alpha_mode"] = "1"
    return stream


def _add_copy(info: StreamInfo, final: FinalFile, source: InputContainer, output: OutputContainer) -> Any:
    if info.is_cover and final.plan.container == "mkv":
        return _add_cover(info, final.info.path, output)
    stream = copied_stream(info, final.info.path, source, output, final.plan.container)
    _tag(stream, info, final.plan.container)
    return stream


def _add_cover(info: StreamInfo, path: Path, output: OutputContainer) -> Any:
    """A cover picture as Matroska keeps it: an attachment named cover.png or cover.jpg (Matroska's own rule for attachments)."""
    suffix, mime = {"mjpeg": ("jpg", "image/jpeg")}.get(info.codec, (info.codec, f"image/{info.codec}"))
    with open_source(path) as source:
        packet = next(packet for packet in source.demux(source.streams[info.index]) if packet.size)
        return output.add_attachment(info.metadata.get("filename", f"cover.{suffix}"), mime, bytes(packet))


def _tag(stream: Any, info: StreamInfo, container: Container) -> None:
    stream.metadata.clear()
    stream.metadata.update(kept_tags(info.metadata, container, of_stream=True, of_video=info.kind == "video"))
    stream.disposition = info.disposition


def _av_chapter(chapter: Chapter, container: Container) -> Any:
    """In nanoseconds, Matroska's unit, which the units of other containers round from.

    MP4 and QuickTime keep names in a track, in which FFmpeg gives a chapter without one the name of the next.
    """
    nameless = {"title": ""} if container in ("mp4", "mov") else {}
    base = Fraction(1, 10**9)
    times = {"start": round(chapter.start / base), "end": round(chapter.end / base)}
    return {"id": chapter.id, "time_base": base, "metadata": {**nameless, **chapter.metadata}, **times}


def _numbered(index: int, packets: Iterable[Packet[Any]]) -> Lane:
    return ((index, packet) for packet in packets)


def _on(stream: Any, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
    for packet in packets:
        packet.stream = stream
        yield packet


def _microseconds(entry: tuple[int, Packet[Any]]) -> int:
    packet = entry[1]
    return (packet.dts or 0) * packet.time_base.numerator * 1_000_000 // packet.time_base.denominator
