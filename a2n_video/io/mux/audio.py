"""Audio made into a codec that the container holds, where --reencode-audio says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, groupby
from math import ceil
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from a2n_video.errors import EncodeError
from a2n_video.io.decoding import fed
from a2n_video.io.mux.converted import Converted
from a2n_video.io.mux.silence import without_gaps
from a2n_video.io.mux.sound import Sound, nearest_setting
from a2n_video.io.positions import Positions
from a2n_video.io.source import open_source
from a2n_video.io.writer import FORMAT_NAMES
from a2n_video.media.gaps import counts_samples
from a2n_video.media.info import VideoInfo
from a2n_video.media.streams import StreamPlan


def sounds_made_anew(path: Path, info: VideoInfo, plan: StreamPlan) -> dict[int, tuple[str, str] | None]:
    """What changes of each audio stream that is to be made anew, in words: what it is and what it becomes, by index.

    Both are empty where its layout, its sample rate and its depth stay, and where a codec with losses has no depth. None where its header
    is too damaged. OptionError where this FFmpeg has no such encoder.
    """
    wanted = [fate for fate in plan.fates if fate.kind == "audio" and fate.fate == "converted" and fate.index is not None]
    if not wanted:
        return {}
    found: dict[int, tuple[str, str] | None] = {}
    muxer = FORMAT_NAMES.get(plan.container, plan.container)
    with open_source(path, ignore_edits=info.ignore_edits) as source:
        for fate in wanted:
            assert fate.index is not None and fate.to is not None
            sound = Sound.of(source.streams[fate.index].codec_context)
            setting = None if sound is None else nearest_setting(sound, fate.to, muxer)
            found[fate.index] = None if sound is None or setting is None else _changes(sound, setting.sound)
    return found


def _changes(before: Sound, after: Sound) -> tuple[str, str]:
    pairs = [(before.layout, after.layout), (f"{before.rate} Hz", f"{after.rate} Hz")]
    if before.bits is not None and after.bits is not None and after.bits < before.bits:
        pairs.append((f"{before.bits} bit", f"{after.bits} bit"))
    changed = [(was, becomes) for was, becomes in pairs if was != becomes]
    return ", ".join(was for was, _ in changed), ", ".join(becomes for _, becomes in changed)


@dataclass
class ConvertedAudio(Converted):
    """An audio stream of the source in another codec, cut to the sample.

    Samples keep their time: gaps and a late start stay as they are, and a packet that cannot be decoded leaves a gap; where the container
    counts samples, gaps are filled with silence. A frame that says less than the one before it comes after that one; `moved` counts those.
    """

    _stream: Any = field(default=None, init=False)
    _fills: bool = field(default=False, init=False)

    def add_to(self, output: OutputContainer) -> Any:
        with open_source(self.path, ignore_edits=self.ignore_edits) as source:
            sound = Sound.of(source.streams[self.index].codec_context)
            setting = None if sound is None else nearest_setting(sound, self.codec, output.format.name)
        if setting is None:
            raise EncodeError(f"{self.path}: audio stream {self.index} cannot be made into {self.codec}: its header is damaged")
        self._fills = counts_samples(self.codec, output.format.name)
        self._stream = setting.add_to(output)
        return self._stream

    def packets(self) -> Iterator[Packet[Any]]:
        with open_source(self.path, ignore_edits=self.ignore_edits) as source:
            try:
                frames = self._settled(source)
                for part in self._resampled(without_gaps(frames) if self._fills else frames):
                    yield from self._encoded(part)
                yield from self._encoded(None)
            except av.FFmpegError as error:
                raise EncodeError(f"{self.path}: audio stream {self.index} cannot be made into {self.codec}: {error}") from error

    def _resampled(self, frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
        """Frames as the encoder takes them, whatever rate and layout the source changes to on the way."""
        context = self._stream.codec_context
        sized = self._resampler(context.frame_size)
        for _, alike in groupby(frames, key=lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
            resampler = self._resampler()
            for frame in chain(alike, [None]):
                for part in resampler.resample(frame):
                    yield from sized.resample(part)
        yield from sized.resample(None)

    def _resampler(self, frame_size: int = 0) -> av.AudioResampler:
        context = self._stream.codec_context
        return av.AudioResampler(context.format, context.layout, context.sample_rate, frame_size=frame_size or None)

    def _settled(self, source: InputContainer) -> Iterator[av.AudioFrame]:
        begun = ended = Fraction(-(1 << 40))
        for position, frame in self._decoded(source):
            if frame.pts is None:
                continue
            base = Fraction(1, frame.sample_rate)
            seconds = frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator)
            seconds = self.time_map.seconds_of(seconds, position)
            if seconds < begun:
                self.moved += 1
                seconds = ended
            frame.pts, frame.time_base = round(seconds / base), base
            part = self._within(frame)
            if part is not None:
                begun, ended = seconds, seconds + frame.samples * base
                yield part

    def _within(self, frame: av.AudioFrame) -> av.AudioFrame | None:
        """The samples of a frame, whose pts counts samples, that lie in the part that is taken; None where none does."""
        assert frame.pts is not None
        first = 0 if self.start is None else max(0, ceil(self.start * frame.sample_rate) - frame.pts)
        last = frame.samples if self.end is None else min(frame.samples, ceil(self.end * frame.sample_rate) - frame.pts)
        if first >= last:
            return None
        return frame if (first, last) == (0, frame.samples) else _cut(frame, first, last)

    def _decoded(self, source: InputContainer) -> Iterator[tuple[int | None, av.AudioFrame]]:
        """The frames, each with the place in the file of the packet at which it came."""
        stream: Any = source.streams[self.index]
        positions, position = Positions(), None
        with suppress(av.FFmpegError):  # what cannot be read, the scan has told
            for packet in fed(source.demux(stream)):
                position = position if packet is None else positions.of(packet)
                try:
                    frames = stream.codec_context.decode(packet)
                except (av.FFmpegError, ValueError):  # ValueError: reading can change its codec to one nobody knows
                    self.undecoded += 1
                    continue
                yield from ((position, frame) for frame in frames)

    def _encoded(self, frame: av.AudioFrame | None) -> Iterator[Packet[Any]]:
        for packet in self._stream.codec_context.encode(frame):
            packet.stream = self._stream
            yield packet


def _cut(frame: av.AudioFrame, first: int, last: int) -> av.AudioFrame:
    """The samples from `first` to before `last` of a frame."""
    assert frame.pts is not None
    queue, begins = av.AudioFifo(), frame.pts + first
    frame.pts = None  # it would have to be zero for the queue
    queue.write(frame)
    if first:
        queue.read(first)
    part = queue.read(last - first)
    assert part is not None
    part.pts, part.time_base = begins, frame.time_base
    return part
