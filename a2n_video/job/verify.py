"""Hold the finished result against its source: nothing is taken on trust from the code that wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Final

from a2n_video.errors import InputError, VerificationError
from a2n_video.io.inspect import StreamPackets, read_attachments, read_packets
from a2n_video.io.mux.subtitles import Cue, cut_cues, one_at_a_time, read_cues
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.job.expected import Expected, Placing, due_chapters
from a2n_video.media.containers import CHAPTERS_FROM_ZERO, DISPOSITIONS, HOLDS, TELLS_END
from a2n_video.media.differences import picture_differences
from a2n_video.media.gaps import filled_sound
from a2n_video.media.index import LEAD_IN, TimeMap
from a2n_video.media.info import StreamInfo, VideoInfo
from a2n_video.media.streams import NO_EMPTY_TRACKS, StreamFate, describe, kept_disposition
from a2n_video.media.tags import kept_tags, same_language, same_place, same_time, tag_of
from a2n_video.media.timecode import keeps_timecode

_MS: Final = Fraction(1, 1000)
_US: Final = Fraction(1, 1_000_000)
_SHOWN: Final = 5
_IN_TIME: Final = ("video", "audio", "subtitle")
# MPEG-4 has one mark for both, and FFmpeg's reader takes it for the more usual one.
_READ_AS: Final[Mapping[tuple[str, str | None], str]] = {("mp4", "mp2"): "mp3"}
# Samples that an encoder puts before the first one.
_PADDING: Final[Mapping[str, int]] = {"aac": 1024, "mp3": 1105}


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was compared, and every difference found, in words; none means that the result is right."""

    frames: int
    counts: Mapping[str, int]
    differences: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Such as `verified: 2157 frames, 2 audio, 3 subtitles, 12 chapters, 4 attachments identical`."""
        rest = [f"{number} {_plural(kind, number)}" for kind, number in self.counts.items() if number]
        return f"verified: {', '.join([f'{self.frames} {_plural("frame", self.frames)}', *rest])}{' identical' if rest else ''}"


def verify(expected: Expected, result: Path) -> VerifyReport:
    """Compare a finished result with its source. VerificationError names the first differences."""
    report = compare(expected, result)
    if report.differences:
        more = len(report.differences) - _SHOWN
        shown = "; ".join(report.differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        where = ". It was left there for a look" if expected.left else ""
        raise VerificationError(f"{result}: the result does not match {expected.final.info.path}: {shown}{where}")
    return report


def compare(expected: Expected, result: Path) -> VerifyReport:
    """The same as a report, differences and all. Only what is no video at all is an error."""
    try:
        found = _Found.read(result, _video_number(expected))
    except InputError as error:
        raise VerificationError(f"{result}: the result cannot be read back: {error}") from error
    check = _Check(expected, found)
    differences = tuple(difference for part in (check.video, check.picture, check.streams, check.details) for difference in part())
    return VerifyReport(frames=len(found.times), counts=check.counts, differences=differences)


def _video_number(expected: Expected) -> int:
    """The upscaled video's place among the result's videos, covers aside."""
    before = expected.final.info.streams[: expected.final.info.video_index]
    kept = (expected.final.plan.of_stream(stream.index) for stream in before if _kind(stream) == "video")
    return sum(fate is not None and fate.fate == "copied" for fate in kept)


@dataclass(frozen=True, kw_only=True)
class _Found:
    info: VideoInfo
    time_map: TimeMap
    attachments: tuple[tuple[str, str], ...]

    @property
    def times(self) -> tuple[int, ...]:
        return self.time_map.times

    @classmethod
    def read(cls, path: Path, video_number: int) -> _Found:
        info = probe(path, video_number=video_number)
        return cls(info=info, time_map=scan(path, info).time_map, attachments=read_attachments(path))


@dataclass
class _Check:
    expected: Expected
    found: _Found
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def _tick(self) -> Fraction:
        """How far apart two equal times may be read: 1 ms, or a tick of the result's coarsest clock."""
        return max(_MS, self.found.time_map.time_base)

    @property
    def _origin(self) -> tuple[Fraction, Fraction]:
        """Seconds of the first frame: as expected, and on the result's raw clock. Muxers may move all streams alike."""
        want, got = self.expected, self.found
        first = want.times[0] if want.times else 0
        return first * want.final.time_map.time_base, got.time_map.first_pts * got.time_map.time_base - got.time_map.shift

    def video(self) -> Iterator[str]:
        """Number and time of the frames, and the end of the last one."""
        want, got = self.expected.times, self.found.times
        if len({self.expected.encoded, len(want), len(got)}) > 1:
            yield f"{self.expected.encoded} frames were encoded, {len(got)} are in the result"
        if not want or not got:
            return
        base, found_base = self.expected.final.time_map.time_base, self.found.time_map.time_base
        for number, (a, b) in enumerate(zip(want, got, strict=False)):
            wanted, is_at = (a - want[0]) * base, (b - got[0]) * found_base
            if abs(wanted - is_at) > self._tick:
                yield f"frame {number} comes {_ms(is_at - wanted)} from where it belongs ({float(wanted):.4f} s after the first)"
                return
        if len(want) == len(got) and self.expected.final.plan.container in TELLS_END:
            yield from self._same_end()

    def _same_end(self) -> Iterator[str]:
        """The last frame lasts as long as the source's, to a usual frame: a reader may guess that much."""
        lasts, found = ((times.end_pts - times.last_pts) * times.time_base for times in (self.expected.final.time_map, self.found.time_map))
        usual = (times.step * times.time_base for times in (self.expected.final.time_map, self.found.time_map))
        if abs(found - lasts) > max(*usual, self._tick) + self._tick:
            yield f"the last frame lasts {float(found):.3f} s, not {float(lasts):.3f} s"

    def picture(self) -> Iterator[str]:
        """Size, format, colour tags, shape, rotation."""
        return picture_differences(self.expected.final, self.found.info)

    def streams(self) -> Iterator[str]:
        """Every other stream as planned: copied ones packet for packet."""
        kept = self._kept()
        wanted = self._wanted(kept)
        pairs, missing = self._pairs([fate for fate in kept if fate.index is not None and not self._left_out(fate, wanted[fate.index])])
        yield from missing
        copied = [(source, target) for fate, source, target in pairs if fate.fate == "copied"]
        headers = {t.index: wanted[s.index].header for s, t in copied}
        got = read_packets(self.found.info.path, {t.index: s.codec for s, t in copied}, headers=headers)
        for source, target in copied:
            yield from self._same_packets(source, target, wanted[source.index], got[target.index])
        for fate, source, target in pairs:
            if fate.fate == "converted":
                yield from self._converted(fate, (source, target), wanted[source.index])
            yield from self._same_tags(source, target)
            name = "cover" if source.is_cover else source.kind
            self.counts[name] = self.counts.get(name, 0) + 1

    def _kept(self) -> list[StreamFate]:
        """The fates of the streams that the result is to have. Data that is converted becomes chapters or a tag, compared as such."""
        fates = (fate for fate in self.expected.final.plan.fates if fate.index is not None and fate.kind in (*_IN_TIME, "cover", "data"))
        return [fate for fate in fates if fate.fate == "copied" or (fate.fate == "converted" and fate.kind != "data")]

    def _wanted(self, kept: Sequence[StreamFate]) -> dict[int, StreamPackets]:
        """The source's packets that belong to the result, of every stream that is kept."""
        final = self.expected.final
        codecs = {f.index: final.info.streams[f.index].codec if f.fate == "copied" else "any" for f in kept if f.index is not None}
        filled = {index for index in codecs if filled_sound(final.info.streams[index], final.plan.container) is not None}
        return read_packets(final.info.path, codecs, Placing(final), filled=filled, ignore_edits=final.info.ignore_edits)

    def _left_out(self, fate: StreamFate, wanted: StreamPackets) -> bool:
        """Whether the muxer leaves a stream out since nothing of it lies in the part that was taken."""
        return not wanted.times and fate.kind in ("video", "audio") and self.expected.final.plan.container in NO_EMPTY_TRACKS

    def _pairs(self, kept: Sequence[StreamFate]) -> tuple[list[tuple[StreamFate, StreamInfo, StreamInfo]], list[str]]:
        """Kept source streams beside the result's, by their order among their kind."""
        pairs, missing = [], []
        spare = {kind: [s for s in self.found.info.streams if _kind(s) == kind] for kind in (*_IN_TIME, "cover", "data")}
        spare["video"] = [s for s in spare["video"] if s.index != self.found.info.video_index]
        for fate in kept:
            if spare[fate.kind] and fate.index is not None:
                pairs.append((fate, self.expected.final.info.streams[fate.index], spare[fate.kind].pop(0)))
            else:
                missing.append(f"{fate.what} is missing")
        extra = [s for kind in (*_IN_TIME, "cover") for s in spare[kind]]
        missing += [f"the result has one {_kind(s)} stream too many ({s.codec})" for s in extra]
        return pairs, missing

    def _same_packets(self, source: StreamInfo, target: StreamInfo, want: StreamPackets, got: StreamPackets) -> Iterator[str]:
        what = describe(self.expected.final.info, source)
        want = want.without(self.expected.refused.get(source.index, ()))
        if want.digests != got.digests:
            if len(want.digests) != len(got.digests):
                yield f"{what}: {len(want.digests)} packets, {len(got.digests)} in the result"
            else:
                first = next(i for i, (a, b) in enumerate(zip(want.digests, got.digests, strict=True)) if a != b)
                yield f"{what}: packet {first} has other contents"
            return
        if not source.is_cover:
            yield from self._same_times(what, (source, target), want, got)

    def _same_times(self, what: str, streams: tuple[StreamInfo, StreamInfo], want: StreamPackets, got: StreamPackets) -> Iterator[str]:
        """Packets at the same times, to a tick of the result: the source's may be a whole packet long (AVI), and rounds nothing."""
        source, target = streams
        start, found_start = self._origin
        allowed = max(self._tick, target.time_base) + _MS / 10
        if HOLDS[self.expected.final.plan.container].steady and want.times:  # all its streams begin together, as the plan said
            start, found_start = want.times[0] * _US, got.times[0] * _US
        refused, moved = self.expected.refused.get(source.index, ()), self.expected.moved.get(source.index, ())
        places = (place for place in count() if place not in refused)
        for number, (place, a, b) in enumerate(zip(places, want.times, got.times, strict=False)):
            late = (b * _US - found_start) - (a * _US - start)
            if abs(late) > allowed and place not in moved:
                yield f"{what}: packet {number} comes {_ms(late)} late against the picture"
                return
        if source.codec.startswith("pcm_") and want.ends and got.ends and not moved:
            late = (got.ends[0] * _US - found_start) - (want.ends[0] * _US - start)
            if abs(late) > allowed + LEAD_IN:  # that much a container that counts samples may lose, and the plan names it
                yield f"{what}: ends {_ms(late)} late against the picture"

    def _converted(self, fate: StreamFate, streams: tuple[StreamInfo, StreamInfo], want: StreamPackets) -> Iterator[str]:
        source, target = streams
        container = self.expected.final.plan.container
        if target.codec != _READ_AS.get((container, fate.to), fate.to):
            yield f"{fate.what} became {target.codec}, not {fate.to}"
        elif fate.kind == "subtitle":
            yield from self._same_cues(fate, source, target)
        elif fate.kind == "audio":
            yield from self._same_extent(fate, (source, target), want)

    def _same_cues(self, fate: StreamFate, source: StreamInfo, target: StreamInfo) -> Iterator[str]:
        times, info = self.expected.final.time_map, self.expected.final.info
        cues = read_cues(info.path, source.index, times, ignore_edits=info.ignore_edits).cues
        want = cut_cues(cues, times.begin, times.limit)
        want = one_at_a_time(want) if fate.to == "mov_text" else want
        got = read_cues(self.found.info.path, target.index).cues
        if len(want) != len(got):
            yield f"{fate.what}: {len(want)} cues, {len(got)} in the result"
            return
        start, found_start = self._origin
        for number, (a, b) in enumerate(zip(want, got, strict=True)):
            late = max((b.start - found_start - (a.start - start), b.end - found_start - (a.end - start)), key=abs)
            if abs(late) > 2 * self._tick:
                yield f"{fate.what}: cue {number} is {_ms(late)} late against the picture"
                return
            if _words(a) != _words(b):
                yield f"{fate.what}: cue {number} reads {_words(b)!r}, not {_words(a)!r}"
                return

    def _same_extent(self, fate: StreamFate, streams: tuple[StreamInfo, StreamInfo], want: StreamPackets) -> Iterator[str]:
        """Audio made anew begins and ends with the old, but for the lead-in and padding of codecs, and for what cannot be decoded.

        A codec's first packet may only prime it: sound then begins with the second, which comes late where there is a gap between.
        """
        source, target = streams
        got = read_packets(self.found.info.path, {target.index: "any"})[target.index]
        start, found_start = self._origin
        first, last_end = self._cut_extent(want)
        earliest = sorted(want.times[:2])
        primed = (earliest[-1] - earliest[0]) * _US if earliest else Fraction(0)
        padding = Fraction(_PADDING.get(target.codec, 0), max(1, target.sample_rate))
        for word, a, b in (("begins", first, got.first), ("ends", last_end, got.last_end)):
            lost = source.index in self.expected.undecoded or len(want.times) == 1
            if (a is None) != (b is None) and not (lost and b is None):
                yield f"{fate.what}: the result has {'no' if b is None else 'unexpected'} sound"
                return
            late = Fraction(0) if a is None or b is None else b - found_start - (a - start)
            shorter = late > 0 if word == "begins" else late < 0
            allowed = LEAD_IN + ((primed if shorter else padding) if word == "begins" else 0)
            if abs(late) > allowed and not (lost and shorter) and source.index not in self.expected.moved:
                yield f"{fate.what}: {word} {_ms(late)} late"

    def _cut_extent(self, want: StreamPackets) -> tuple[Fraction | None, Fraction | None]:
        """When sound made anew begins and ends: it is cut to the sample, within the packets that lie across a cut."""
        first, last_end, times = want.first, want.last_end, self.expected.final.time_map
        if first is not None and times.begin is not None:
            first = max(first, times.begin)
        if last_end is not None and times.limit is not None:
            last_end = min(last_end, times.limit)
        return first, last_end

    def _same_tags(self, source: StreamInfo, target: StreamInfo) -> Iterator[str]:
        container = self.expected.final.plan.container
        what = describe(self.expected.final.info, source)
        if source.is_cover:
            return
        kept = kept_tags(source.metadata, container, of_stream=True, of_video=source.kind == "video")
        if not same_language(tag_of(kept, "language"), tag_of(target.metadata, "language")):
            yield f"{what}: language is {tag_of(target.metadata, 'language')}, not {tag_of(kept, 'language')}"
        title, found_title = tag_of(kept, "title"), tag_of(target.metadata, "title") or tag_of(target.metadata, "name")
        if (title or "") != (found_title or ""):
            yield f"{what}: title is {found_title!r}, not {title!r}"
        marks = kept_disposition(source.disposition, container)
        if marks & ~target.disposition:
            yield f"{what}: lost the mark {_marks(marks & ~target.disposition)}"
        added = target.disposition & ~source.disposition & ~_IMPLIED.get(marks & (0x80 | 0x100), 0) & ~DISPOSITIONS["default"]
        if added & _KNOWN_MARKS:
            yield f"{what}: was given the mark {_marks(added)}"

    def details(self) -> Iterator[str]:
        """Chapters, attachments, the file's tags, and the picture's own."""
        want, got = self.expected.final.info, self.found.info
        yield from self._same_tags(want.video, got.video)
        yield from self._same_timecode()
        dropped = {fate.kind for fate in self.expected.final.plan.losses if fate.index is None}
        if want.chapters and "chapters" not in dropped:
            yield from self._same_chapters()
        kept = {f.index for f in self.expected.final.plan.fates if f.kind == "attachment" and f.fate == "copied"}
        if kept:
            source = read_attachments(want.path)
            self.counts["attachment"] = len(source)
            lost = Counter(source) - Counter(self.found.attachments)
            yield from (f"attachment {name} is missing or differs" for name, _ in lost.elements())
        for name, value in kept_tags(want.metadata, self.expected.final.plan.container, of_stream=False).items():
            if not _tag_equal(name, value, self.found.info):
                yield f"tag {name} is {tag_of(got.metadata, name.lower())!r}, not {value!r}"

    def _same_timecode(self) -> Iterator[str]:
        plan = self.expected.final.plan
        kept = tag_of(kept_tags(self.expected.final.info.video.metadata, plan.container, of_stream=True), "timecode")
        found = tag_of(self.found.info.video.metadata, "timecode")
        if kept is not None and kept != found and keeps_timecode(plan):
            yield f"the video's timecode is {found}, not {kept}"

    def _same_chapters(self) -> Iterator[str]:
        due = due_chapters(self.expected.final)
        self.counts["chapter"] = len(due)
        filled = self.expected.final.plan.container in CHAPTERS_FROM_ZERO and due[0][0] >= _MS if due else False
        want, got = [*([(Fraction(0), "")] if filled else []), *due], self.found.info.chapters
        if len(want) != len(got):
            yield f"{len(want)} chapters, {len(got)} in the result"
            return
        start, found_start = self._origin
        for number, ((begins, title), chapter) in enumerate(zip(want, got, strict=True), 0 if filled else 1):
            found_title = tag_of(chapter.metadata, "title") or ""
            if title != found_title:
                yield f"chapter {number} is called {found_title!r}, not {title!r}"
            late = (chapter.start - found_start) - (begins - start)
            if abs(late) > self._tick + _MS and number:
                yield f"chapter {number} begins {_ms(late)} late"


_KNOWN_MARKS: Final = sum(DISPOSITIONS.values())
# MP4 says captions with hearing_impaired, and descriptions with visual_impaired.
_IMPLIED: Final[dict[int, int]] = {0x80: 0x10000, 0x100: 0x20000, 0x180: 0x30000}


def _kind(stream: StreamInfo) -> str:
    return "cover" if stream.is_cover else stream.kind


def _marks(flags: int) -> str:
    return ", ".join(name for name, flag in DISPOSITIONS.items() if flags & flag)


def _words(cue: Cue) -> str:
    return " ".join(cue.words.split())


def _ms(seconds: Fraction) -> str:
    return f"{float(seconds) * 1000:+.2f} ms"


def _plural(kind: str, number: int) -> str:
    return kind if kind in ("audio", "video", "data") or number == 1 else f"{kind}s"


def _tag_equal(name: str, value: str, found: VideoInfo) -> bool:
    """Whether a tag came through. MP4 moves the timecode to a track, and writes locations with four decimals."""
    values = [tag_of(found.metadata, name), *(tag_of(s.metadata, name) for s in found.streams)]
    if name.lower().startswith("location"):
        return any(other is not None and same_place(other, value) for other in values)
    if name.lower() == "creation_time":
        return any(other is not None and same_time(other, value) for other in values)
    return value in values
