"""Audio made into a codec that the container holds, where --reencode-audio says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from a2n_video.errors import EncodeError, OptionError
from a2n_video.io.source import open_source
from a2n_video.media.info import VideoInfo
from a2n_video.media.streams import AUDIO_ENCODERS, StreamPlan
from a2n_video.media.timemap import TimeMap

_RATES: Final = {"opus": (48000, 24000, 16000, 12000, 8000)}  # what else an encoder takes, FFmpeg tells
_BIT_RATE_A_CHANNEL: Final = 96_000
# What encoders usually take, those of many channels first.
_LAYOUTS: Final = {"7.1": 8, "6.1": 7, "5.1": 6, "5.0": 5, "quad": 4, "3.0": 3, "stereo": 2, "mono": 1}


@dataclass(frozen=True, kw_only=True)
class Sound:
    """How an encoder is to be set: the nearest rate and layout to the source's that it takes, the layout's number of channels."""

    encoder: str
    rate: int
    layout: str
    channels: int

    def open(self) -> None:
        """Open the encoder on nothing; an FFmpegError where it refuses."""
        context: Any = av.CodecContext.create(self.encoder, "w")
        context.sample_rate, context.format, context.layout = self.rate, self.format, self.layout
        context.time_base = Fraction(1, self.rate)
        context.open()

    @property
    def format(self) -> str:
        formats: Any = av.Codec(self.encoder, "w").audio_formats
        return str(formats[0].name)


def sounds_made_anew(path: Path, info: VideoInfo, plan: StreamPlan) -> dict[int, tuple[str, str] | None]:
    """Of each audio stream that is to be made anew its layout and the result's, by index; None where its header is too damaged.

    OptionError where this FFmpeg has no such encoder.
    """
    wanted = [fate for fate in plan.fates if fate.kind == "audio" and fate.fate == "converted" and fate.index is not None]
    if not wanted:
        return {}
    found: dict[int, tuple[str, str] | None] = {}
    with open_source(path, ignore_edits=info.ignore_edits) as source:
        for fate in wanted:
            assert fate.index is not None and fate.to is not None
            context: Any = source.streams[fate.index].codec_context
            sound = _sound(context, fate.to)
            found[fate.index] = None if sound is None else (context.layout.name, sound.layout)
    return found


def _sound(context: Any, codec: str) -> Sound | None:
    """None for a stream whose header no decoder can begin with, or for which its encoder takes no layout."""
    name = AUDIO_ENCODERS[codec]
    try:
        encoder: Any = av.Codec(name, "w")
    except ValueError as error:
        raise OptionError(f"--reencode-audio {codec}: this FFmpeg has no encoder {name}; aac, opus and flac are there") from error
    try:
        rate, layout, channels = context.sample_rate, context.layout.name, context.channels
    except (AttributeError, ValueError):  # no known codec, or no layout can be made of what it says
        return None
    rates = _RATES.get(codec) or tuple(encoder.audio_rates or ())
    if rate <= 0 or channels <= 0:
        return None
    rate = rate if not rates or rate in rates else min(rates, key=lambda known: abs(known - rate))
    sounds = (Sound(encoder=name, rate=rate, layout=other, channels=count) for other, count in _nearest(layout, channels))
    return next((sound for sound in sounds if _opens(sound)), None)


def _nearest(layout: str, channels: int) -> Iterator[tuple[str, int]]:
    """A layout, then the usual ones of as many channels and of fewer."""
    yield layout, channels
    yield from ((other, count) for other, count in _LAYOUTS.items() if count <= channels)


def _opens(sound: Sound) -> bool:
    try:
        sound.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


@dataclass
class ConvertedAudio:
    """An audio stream of the source in another codec, for one output; used by the thread that muxes.

    Samples keep their time: gaps and a late start stay as they are, and a packet that cannot be decoded leaves a gap; `undecoded` counts
    those. A frame that says less than the one before it comes after that one; `moved` counts those. `start` and `end` bound the stream on
    the result's clock.
    """

    path: Path
    index: int
    codec: str
    time_map: TimeMap
    start: Fraction | None = None
    end: Fraction | None = None
    undecoded: int = 0
    moved: int = 0
    _stream: Any = field(default=None, init=False)

    def add_to(self, output: OutputContainer) -> Any:
        """Add the stream to an output whose header is not yet written, and return it."""
        with open_source(self.path) as source:
            sound = _sound(source.streams[self.index].codec_context, self.codec)
        if sound is None:
            raise EncodeError(f"{self.path}: audio stream {self.index} cannot be made into {self.codec}: its header is damaged")
        self._stream = output.add_stream(sound.encoder, rate=sound.rate, layout=sound.layout, format=sound.format)
        self._stream.codec_context.time_base = Fraction(1, sound.rate)
        self._stream.bit_rate = _BIT_RATE_A_CHANNEL * sound.channels
        return self._stream

    def packets(self) -> Iterator[Packet[Any]]:
        """The encoded packets, by time."""
        with open_source(self.path) as source:
            try:
                for part in self._resampled(self._settled(source)):
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
        for packet, frame in self._decoded(source):
            if frame.pts is None:
                continue
            base = Fraction(1, frame.sample_rate)
            seconds = frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator)
            seconds = self.time_map.seconds_of(seconds, packet.pos)
            if seconds < begun:
                self.moved += 1
                seconds = ended
            if (self.start is not None and seconds < self.start) or (self.end is not None and seconds >= self.end):
                continue
            begun, ended = seconds, seconds + frame.samples * base
            frame.pts, frame.time_base = round(seconds / base), base
            yield frame

    def _decoded(self, source: InputContainer) -> Iterator[tuple[Packet[Any], av.AudioFrame]]:
        stream: Any = source.streams[self.index]
        with suppress(av.FFmpegError):  # what cannot be read, the scan has told
            for packet in source.demux(stream):
                try:
                    frames = packet.decode()
                except (av.FFmpegError, ValueError):  # ValueError: reading can change its codec to one nobody knows
                    self.undecoded += 1
                    continue
                yield from ((packet, frame) for frame in frames)

    def _encoded(self, frame: av.AudioFrame | None) -> Iterator[Packet[Any]]:
        for packet in self._stream.codec_context.encode(frame):
            packet.stream = self._stream
            yield packet
