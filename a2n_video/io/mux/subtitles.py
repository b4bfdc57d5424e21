"""Text subtitles made into what a container holds: decoded to cues, moved onto the result's clock, cut, and encoded again."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from a2n_video.io.mux.converted import Converted
from a2n_video.io.source import open_source
from a2n_video.media.timemap import TimeMap

_MS: Final = Fraction(1, 1000)
# MP4 stores each cue's end as the beginning of the next sample: cues that overlap must become ones that do not.
_ONE_AT_A_TIME: Final = frozenset({"mov_text"})
_NO_WORDS: Final = "}\\\u2060"  # FFmpeg's decoders set a word joiner after a backslash that is none of ASS's
_ASS_FIELDS: Final = 8  # commas before the text of a decoded ASS line: ReadOrder, Layer, Style, Name, three margins, Effect


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One subtitle: seconds on the result's clock, and FFmpeg's ASS line without its times."""

    start: Fraction
    end: Fraction
    line: str

    @property
    def text(self) -> str:
        """The text field, override tags and all."""
        return self.line.split(",", _ASS_FIELDS)[-1]

    @property
    def words(self) -> str:
        """The text alone, without override tags and the marks of escapes, for comparing."""
        plain, depth = [], 0
        for character in self.text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " "):
            depth += (character == "{") - (depth > 0 and character == "}")
            if depth == 0 and character not in _NO_WORDS:
                plain.append(character)
        return "".join(plain).strip()


@dataclass(frozen=True, kw_only=True)
class Cues:
    """All cues of a stream in order of time, with the ASS header that their styles are in; how many packets could not be decoded."""

    cues: tuple[Cue, ...]
    header: bytes | None
    undecoded: int = 0


def read_cues(path: Path, index: int, time_map: TimeMap | None = None, *, ignore_edits: bool = False) -> Cues:
    """Decode a text subtitle stream whole. Times are on the result's clock with a `time_map`, else as they are in the file."""
    with open_source(path, ignore_edits=ignore_edits) as container:
        stream: Any = container.streams[index]
        base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        cues: list[Cue] = []
        undecoded = 0
        for packet in _readable(container, stream):
            try:
                cues += _decoded(stream, packet, base, time_map)
            except av.FFmpegError:
                undecoded += 1
        return Cues(cues=_in_order(cues), header=stream.codec_context.subtitle_header, undecoded=undecoded)


def _in_order(cues: Iterable[Cue]) -> tuple[Cue, ...]:
    return tuple(sorted(cues, key=lambda cue: (cue.start, cue.end)))


def _readable(container: InputContainer, stream: Any) -> Iterator[Packet[Any]]:
    with suppress(av.FFmpegError):  # what cannot be read, the scan has told
        yield from (packet for packet in container.demux(stream) if packet.size and packet.pts is not None)


def _decoded(stream: Any, packet: Packet[Any], base: Fraction, time_map: TimeMap | None) -> Iterator[Cue]:
    subtitle = stream.codec_context.decode2(packet)
    if subtitle is None:
        return
    start = (packet.pts or 0) * base
    start = start if time_map is None else time_map.seconds_of(start, packet.pos)
    length = packet.duration * base if packet.duration else (subtitle.end_display_time - subtitle.start_display_time) * _MS
    for rect in subtitle:
        if isinstance(rect, AssSubtitle) and rect.ass:
            yield Cue(start=start, end=start + length, line=rect.ass.decode("utf-8", "replace"))


def _for_webvtt(cue: Cue) -> str:
    """The line with what WebVTT reads as markup escaped, and hard spaces as such: FFmpeg's encoder takes both over as they stand."""
    head = cue.line[: len(cue.line) - len(cue.text)]
    return head + html.escape(cue.text, quote=False).replace("\\h", "\u00a0")


def cut_cues(cues: Sequence[Cue], start: Fraction | None, end: Fraction | None) -> tuple[Cue, ...]:
    """The cues inside [start, end) that say anything, in order of time; those that reach in or out are cut to fit."""
    kept = [
        replace(cue, start=cue.start if start is None else max(cue.start, start), end=cue.end if end is None else min(cue.end, end))
        for cue in cues
    ]
    return _in_order(cue for cue in kept if cue.start < cue.end and cue.words)


def one_at_a_time(cues: Sequence[Cue]) -> tuple[Cue, ...]:
    """The same picture over time without overlaps: where several show at once, one cue holds the lines of all."""
    edges = sorted({edge for cue in cues for edge in (cue.start, cue.end)})
    ordered = sorted(cues, key=lambda cue: cue.start)
    result: list[Cue] = []
    place, showing = 0, list[Cue]()
    for start, end in pairwise(edges):
        while place < len(ordered) and ordered[place].start <= start:
            showing.append(ordered[place])
            place += 1
        showing = [cue for cue in showing if cue.end > start]
        if showing:
            line = "\\N".join([showing[0].line, *(cue.text for cue in showing[1:])])
            if result and result[-1].end == start and result[-1].line == line:
                result[-1] = replace(result[-1], end=end)
            else:
                result.append(Cue(start=start, end=end, line=line))
    return tuple(result)


@dataclass
class ConvertedSubtitles(Converted):
    """A text subtitle stream of the source in another codec."""

    _cues: tuple[Cue, ...] = field(default=(), init=False)
    _stream: Any = field(default=None, init=False)

    def add_to(self, output: OutputContainer) -> Any:
        source = read_cues(self.path, self.index, self.time_map, ignore_edits=self.ignore_edits)
        self.undecoded = source.undecoded
        self._cues = cut_cues(source.cues, self.start, self.end)
        if self.codec in _ONE_AT_A_TIME:
            self._cues = one_at_a_time(self._cues)
        self._stream = output.add_stream(self.codec, time_base=_MS)
        self._stream.codec_context.subtitle_header = source.header or _HEADER
        return self._stream

    def packets(self) -> Iterator[Packet[Any]]:
        for cue in self._cues:
            start = round(cue.start / _MS)
            length = max(1, round(cue.end / _MS) - start)
            line = _for_webvtt(cue) if self.codec == "webvtt" else cue.line
            packet = self._stream.codec_context.encode_subtitle(SubtitleSet.create(line.encode(), 0, length, start))
            packet.pts = packet.dts = start
            packet.duration = length
            packet.time_base = _MS
            packet.stream = self._stream
            yield packet


# What FFmpeg's text encoders take as styles where a decoder gives none.
_HEADER: Final = (
    b"[Script Info]\r\nScriptType: v4.00+\r\nPlayResX: 384\r\nPlayResY: 288\r\n\r\n[V4+ Styles]\r\n"
    b"Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, "
    b"ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\r\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\r\n\r\n[Events]\r\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n\r\n"
)
