"""How an encoder of sound is set so that it keeps what the source has. What encoders and muxers take is found by trying them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Final

import av
from av.container import OutputContainer

from a2n_video.errors import OptionError
from a2n_video.media.streams import AUDIO_ENCODERS

_RATES: Final = {"opus": (48000, 24000, 16000, 12000, 8000)}  # what else an encoder takes, FFmpeg tells
# For each channel, the first one that is taken: some encoders have an upper limit, a lower one for low sample rates.
_BIT_RATES: Final = (96_000, 80_000, 64_000, 48_000, 32_000, 24_000, 16_000)
# What encoders usually take, those of many channels first.
_LAYOUTS: Final = {"7.1": 8, "6.1": 7, "5.1": 6, "5.0": 5, "quad": 4, "3.0": 3, "stereo": 2, "mono": 1}
_CD_BITS: Final = 16
_MOST_BITS: Final = 24  # of FFmpeg's encoders without loss; their s32 has it too


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What a stream of audio is: samples a second, layout, bits a sample; no bits where a codec with losses keeps none in particular."""

    rate: int
    layout: str
    channels: int
    bits: int | None

    @classmethod
    def of(cls, context: Any) -> Sound | None:
        """What a decoder is told, None where its header makes no sense."""
        try:
            sound = cls(rate=context.sample_rate, layout=context.layout.name, channels=context.channels, bits=_bits(context))
        except (AttributeError, ValueError):  # no known codec, or no layout can be made of what it says
            return None
        return sound if sound.rate > 0 and sound.channels > 0 else None


def _bits(context: Any) -> int | None:
    if not context.codec.lossless or context.format is None:
        return None
    if context.bits_per_raw_sample:
        return int(context.bits_per_raw_sample)
    return None if context.codec.lossy else 8 * int(context.format.bytes)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an encoder is set: `sound` is what it makes, of which a codec without loss keeps `sound.bits`."""

    encoder: str
    sound: Sound
    format: str
    bit_rate: int

    def add_to(self, output: OutputContainer) -> Any:
        """Add the stream to an output whose header is not yet written, and return it."""
        stream: Any = output.add_stream(self.encoder, rate=self.sound.rate, layout=self.sound.layout, format=self.format)
        context = stream.codec_context
        context.time_base, context.bit_rate = Fraction(1, self.sound.rate), self.bit_rate
        if self.sound.bits is not None:
            context.bits_per_raw_sample = self.sound.bits
        return stream

    def works_in(self, muxer: str) -> bool:
        """Whether the encoder and a muxer (by FFmpeg's name) begin with it."""
        try:
            with av.open(io.BytesIO(), "w", format=muxer) as output:
                self.add_to(output)
                output.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
        return True


def nearest_setting(source: Sound, codec: str, muxer: str) -> Setting | None:
    """The setting nearest to what the source is that both encoder and muxer take, None where they take none.

    A sample rate is given up last. OptionError where this FFmpeg has no such encoder.
    """
    return next((setting for setting in _settings(source, codec) if setting.works_in(muxer)), None)


def _settings(source: Sound, codec: str) -> Iterator[Setting]:
    name = AUDIO_ENCODERS[codec]
    encoder = _encoder(codec)
    format_, bits = _format(encoder, source.bits)
    for rate, (layout, channels), share in product(_rates(encoder, codec, source.rate), _layouts(source), _BIT_RATES):
        sound = Sound(rate=rate, layout=layout, channels=channels, bits=bits)
        yield Setting(encoder=name, sound=sound, format=format_, bit_rate=share * channels)


def _encoder(codec: str) -> Any:
    try:
        return av.Codec(AUDIO_ENCODERS[codec], "w")
    except ValueError as error:
        known = "aac, opus and flac are there"
        raise OptionError(f"--reencode-audio {codec}: this FFmpeg has no encoder {AUDIO_ENCODERS[codec]}; {known}") from error


def _format(encoder: Any, bits: int | None) -> tuple[str, int | None]:
    """The smallest format that holds so many bits, else the largest, and the bits that are kept of it; an encoder with losses gets all."""
    formats = sorted(encoder.audio_formats, key=lambda known: int(known.bytes))
    if encoder.lossy:
        return str(formats[-1].name), None
    found = next((known for known in formats if 8 * known.bytes >= (bits or _CD_BITS)), formats[-1])
    return str(found.name), min(8 * int(found.bytes), _MOST_BITS)


def _rates(encoder: Any, codec: str, rate: int) -> list[int]:
    """The source's rate if it is taken, then higher ones, which lose nothing, then lower ones; the nearest first."""
    known = _RATES.get(codec) or tuple(encoder.audio_rates or ())
    return sorted(known, key=lambda other: (other < rate, abs(other - rate))) or [rate]


def _layouts(source: Sound) -> list[tuple[str, int]]:
    """The source's layout, then the usual ones of as many channels and of fewer."""
    return [(source.layout, source.channels), *((other, count) for other, count in _LAYOUTS.items() if count <= source.channels)]
