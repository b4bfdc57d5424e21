"""Sound made anew: in samples as deep as the source's, cut to the sample, with settings that encoder and muxer take."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video.io.mux.audio import ConvertedAudio, sounds_made_anew
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.media.streams import StreamFate, StreamPlan
from tests.made import make_source, with_empty_sample

SAMPLES = np.random.default_rng(1).integers(-(1 << 30), 1 << 30, size=(72_000, 2), dtype=np.int32)


def with_sound(path: Path, codec: str, samples: np.ndarray[Any, Any], *, rate: int = 48000, each: int = 1200, late: int = 0) -> Path:
    """A file with a little video and a stereo track of such samples (s16 or s32), in packets of `each` samples."""
    with av.open(str(path), "w", format="mpegts" if path.suffix == ".m2ts" else None) as output:
        video: Any = output.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        given = "s16" if samples.dtype == np.int16 else "s32"
        wanted = next(known.name for known in av.Codec(codec, "w").audio_formats if known.name.startswith(given))
        audio: Any = output.add_stream(codec, rate=rate, layout="stereo", format=wanted)
        audio.codec_context.time_base = Fraction(1, rate)
        packets = [video.encode(black(number)) for number in range(38)] + [video.encode(None)]
        output.start_encoding()
        resampler = av.AudioResampler(wanted, "stereo", rate)
        for first in range(0, len(samples), each):
            frame = av.AudioFrame.from_ndarray(samples[first : first + each].reshape(1, -1), format=given, layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, late + first, Fraction(1, rate)
            packets += [audio.encode(part) for part in resampler.resample(frame)]
        packets += [audio.encode(None)]
        for packet in sorted((packet for some in packets for packet in some), key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def black(number: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, 25)
    return frame


def made_anew(source: Path, codec: str, dest: Path, *, start: Fraction | None = None, end: Fraction | None = None) -> Path:
    info = probe(source)
    sound = ConvertedAudio(source, 1, codec, scan(source, info).time_map, start, end)
    with av.open(str(dest), "w") as output:
        sound.add_to(output)
        for packet in sound.packets():
            output.mux(packet)
    return dest


def heard(path: Path) -> tuple[Fraction, np.ndarray[Any, Any]]:
    """When the first sample comes, and all samples as int32."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[0]))
    resampler = av.AudioResampler("s32", "stereo", frames[0].sample_rate)
    begins = frames[0].pts * Fraction(frames[0].time_base)
    return begins, np.concatenate([part.to_ndarray().reshape(-1, 2) for frame in frames for part in resampler.resample(frame)])


def changes(source: Path, codec: str, container: Any) -> tuple[str, str] | None:
    fate = StreamFate(what="audio 1", kind="audio", fate="converted", index=1, to=codec)
    return sounds_made_anew(source, probe(source), StreamPlan(container=container, fates=(fate,)))[1]


def of_bits(bits: int) -> np.ndarray[Any, Any]:
    """Samples that use so many bits, the others zero."""
    return (SAMPLES[:24_000] >> (32 - bits) << (32 - bits)).astype(np.int32)


@pytest.mark.parametrize("codec", ["flac", "alac", "pcm_s24le"])
@pytest.mark.parametrize(("container", "encoder"), [("m2ts", "pcm_bluray"), ("mov", "pcm_s24be"), ("mkv", "wavpack")])
def test_24_bits_stay_24_bits(container: str, encoder: str, codec: str, tmp_path: Path) -> None:
    source = with_sound(tmp_path / f"in.{container}", encoder, of_bits(24))
    begins, samples = heard(made_anew(source, codec, tmp_path / "out.mkv"))
    assert begins == 0
    assert np.array_equal(samples[:24_000], of_bits(24))
    if encoder != "wavpack":  # FFmpeg's encoder calls them 32 bits
        assert changes(source, codec, "mkv") == ("", "")


@pytest.mark.parametrize("codec", ["flac", "alac", "pcm_s16le"])
def test_16_bits_are_not_blown_up(codec: str, tmp_path: Path) -> None:
    samples = (SAMPLES[:24_000] >> 16).astype(np.int16)
    source = with_sound(tmp_path / "in.mov", "pcm_s16be", samples)
    dest = made_anew(source, codec, tmp_path / "out.mkv")
    assert np.array_equal(heard(dest)[1][:24_000], samples.astype(np.int32) << 16)
    with av.open(str(dest)) as result:
        assert result.streams.audio[0].format.name.startswith("s16")
    assert changes(source, codec, "mkv") == ("", "")


@pytest.mark.parametrize(
    ("encoder", "codec", "said"),
    [
        ("pcm_s24be", "pcm_s16le", ("24 bit", "16 bit")),
        ("pcm_s32be", "flac", ("32 bit", "24 bit")),
        ("pcm_s24be", "aac", ("", "")),
        ("pcm_s24be", "opus", ("", "")),
    ],
)
def test_a_lesser_depth_is_told(encoder: str, codec: str, said: tuple[str, str], tmp_path: Path) -> None:
    assert changes(with_sound(tmp_path / "in.mov", encoder, of_bits(32)), codec, "mkv") == said


@pytest.mark.parametrize(
    ("rate", "codec", "container", "said"),
    [
        (22050, "mp2", "ts", ("", "")),  # at most 160 kbit/s
        (8000, "mp3", "mkv", ("", "")),
        (8000, "mp3", "mp4", ("8000 Hz", "16000 Hz")),  # the muxer refuses less
        (11025, "mp3", "mp4", ("11025 Hz", "16000 Hz")),
        (44100, "opus", "mp4", ("44100 Hz", "48000 Hz")),
        (96000, "ac3", "mp4", ("96000 Hz", "48000 Hz")),
    ],
)
def test_settings_that_encoder_and_muxer_take(rate: int, codec: str, container: str, said: tuple[str, str], tmp_path: Path) -> None:
    samples = (SAMPLES[: rate // 2] >> 18).astype(np.int16)
    source = with_sound(tmp_path / "in.mov", "pcm_s16be", samples, rate=rate)
    assert changes(source, codec, container) == said
    with av.open(str(made_anew(source, codec, tmp_path / f"out.{container}"))) as result:
        audio = result.streams.audio[0]
        assert audio.layout.name == "stereo"
        assert audio.sample_rate == int((said[1] or str(rate)).split()[0])
        assert abs(sum(frame.samples for frame in result.decode(audio)) / audio.sample_rate - 0.5) < 0.15


@pytest.mark.parametrize(("encoder", "each"), [("wavpack", 24_000), ("flac", 4608), ("pcm_s16le", 1200)])
@pytest.mark.parametrize(
    ("start", "end"),
    [(Fraction(1, 5), None), (None, Fraction(7, 10)), (Fraction(1, 5), Fraction(2, 5)), (Fraction(1, 48000), Fraction(71_999, 48000))],
)
def test_sound_is_cut_to_the_sample(encoder: str, each: int, start: Fraction | None, end: Fraction | None, tmp_path: Path) -> None:
    """Packets are up to half a second long; a part may lie in one."""
    samples = (SAMPLES >> 16).astype(np.int16)
    source = with_sound(tmp_path / "in.mkv", encoder, samples, each=each)
    begins, cut = heard(made_anew(source, "flac", tmp_path / "out.mkv", start=start, end=end))
    first, last = (None if time is None else int(time * 48000) for time in (start, end))
    assert abs(begins - (start or 0)) < Fraction(1, 1000)
    assert np.array_equal(cut, samples[first:last].astype(np.int32) << 16)


def test_a_late_start_stays_late_in_a_part(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv", "flac", (SAMPLES[:24_000] >> 16).astype(np.int16), late=9600)
    begins, cut = heard(made_anew(source, "flac", tmp_path / "out.mkv", start=Fraction(1, 10), end=Fraction(1, 2)))
    assert abs(begins - Fraction(1, 5)) < Fraction(1, 500)
    assert abs(len(cut) - 14_400) < 100


def test_nothing_of_the_sound_in_the_part(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv", "flac", (SAMPLES[:24_000] >> 16).astype(np.int16))
    sound = ConvertedAudio(source, 1, "flac", scan(source, probe(source)).time_map, start=Fraction(1))
    with av.open(str(tmp_path / "out.mkv"), "w") as output:
        sound.add_to(output)
        assert [packet for packet in sound.packets() if packet.size] == []


def test_an_empty_packet_is_no_end_of_sound(tmp_path: Path) -> None:
    source = make_source(tmp_path / "in.mp4", pts=range(25))
    whole = heard(made_anew(source, "flac", tmp_path / "whole.mka"))[1]
    with_empty_sample(source, 3, track=1)
    assert len(heard(made_anew(source, "flac", tmp_path / "made.mka"))[1]) >= len(whole) - 1024
