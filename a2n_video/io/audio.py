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

from a2n_video.errors import EncodeError
from a2n_video.io.source import open_source
from a2n_video.media.streams import AUDIO_ENCODERS
from a2n_video.media.timemap import TimeMap

_RATES: Final = {"opus": (48000, 24000, 16000, 12000, 8000)}  # what else an encoder takes, FFmpeg tells
_BIT_RATE_A_CHANNEL: Final = 96_000


@dataclass
class ConvertedAudio:
    """An audio stream of the source in another codec, for one output; used by the thread that muxes.

    Samples keep their time: gaps and a late start stay as they are, and a packet that cannot be decoded leaves a gap; `undecoded` counts
    those. `start` and `end` bound the stream on the result's clock.
    """

    path: Path
    index: int
    codec: str
    time_map: TimeMap
    start: Fraction | None = None
    end: Fraction | None = None
    undecoded: int = 0
    _stream: Any = field(default=None, init=False)

    def add_to(self, output: OutputContainer) -> Any:
        """Add the stream to an output whose header is not yet written, and return it."""
        with open_source(self.path) as source:
            context: Any = source.streams[self.index].codec_context
            rate, layout, channels = context.sample_rate, context.layout.name, context.channels
        encoder: Any = av.Codec(AUDIO_ENCODERS[self.codec], "w")
        rates = _RATES.get(self.codec) or tuple(encoder.audio_rates or ())
        rate = rate if not rates or rate in rates else min(rates, key=lambda known: abs(known - rate))
        self._stream = output.add_stream(encoder.name, rate=rate, layout=layout, format=encoder.audio_formats[0].name)
        self._stream.codec_context.time_base = Fraction(1, rate)
        self._stream.bit_rate = _BIT_RATE_A_CHANNEL * channels
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
        for packet, frame in self._decoded(source):
            if frame.pts is None:
                continue
            base = Fraction(1, frame.sample_rate)
            seconds = frame.pts * Fraction(frame.time_base.numerator, frame.time_base.denominator)
            seconds = self.time_map.seconds_of(seconds, packet.pos)
            if (self.start is not None and seconds < self.start) or (self.end is not None and seconds >= self.end):
                continue
            frame.pts, frame.time_base = round(seconds / base), base
            yield frame

    def _decoded(self, source: InputContainer) -> Iterator[tuple[Packet[Any], av.AudioFrame]]:
        stream: Any = source.streams[self.index]
        with suppress(av.FFmpegError):  # what cannot be read, the scan has told
            for packet in source.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    self.undecoded += 1
                    continue
                yield from ((packet, frame) for frame in frames)

    def _encoded(self, frame: av.AudioFrame | None) -> Iterator[Packet[Any]]:
        for packet in self._stream.codec_context.encode(frame):
            packet.stream = self._stream
            yield packet
