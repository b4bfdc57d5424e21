"""The nearest setting that an encoder and a muxer take. (What is made with it: test_audio.py.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import av
import pytest

from a2n_video.errors import OptionError
from a2n_video.io.mux.sound import Sound, nearest_setting


def sound(rate: int = 48000, layout: str = "stereo", channels: int = 2, bits: int | None = 16) -> Sound:
    return Sound(rate=rate, layout=layout, channels=channels, bits=bits)


@pytest.mark.parametrize(
    ("given", "codec", "muxer", "rate", "layout"),
    [
        (sound(), "aac", "mp4", 48000, "stereo"),
        (sound(layout="5.1(side)", channels=6), "opus", "webm", 48000, "5.1"),
        (sound(layout="7.1", channels=8), "ac3", "mpegts", 48000, "5.1"),
        (sound(layout="5.1", channels=6), "mp3", "mp4", 48000, "stereo"),
        (sound(rate=8000, layout="5.1", channels=6), "mp3", "mp4", 16000, "stereo"),
        (sound(rate=8000, layout="mono", channels=1), "mp2", "mpegts", 16000, "mono"),
        (sound(rate=192000), "opus", "matroska", 48000, "stereo"),
        (sound(rate=192000), "flac", "matroska", 192000, "stereo"),
        (sound(rate=32000), "opus", "matroska", 48000, "stereo"),
        (sound(rate=22050), "opus", "matroska", 24000, "stereo"),
        (sound(rate=88200), "ac3", "mpegts", 48000, "stereo"),
    ],
)
def test_the_nearest_rate_and_layout(given: Sound, codec: str, muxer: str, rate: int, layout: str) -> None:
    setting = nearest_setting(given, codec, muxer)
    assert setting is not None
    assert (setting.sound.rate, setting.sound.layout) == (rate, layout)


@pytest.mark.parametrize(
    ("codec", "given", "made"),
    [
        *(("flac", given, made) for given, made in ((None, 16), (8, 16), (16, 16), (20, 24), (24, 24), (32, 24))),
        *(("alac", given, made) for given, made in ((16, 16), (24, 24))),
        *(("pcm_s16le", given, 16) for given in (None, 16, 24)),
        *(("pcm_s24le", given, 24) for given in (None, 16, 24)),
        *(("aac", given, None) for given in (None, 16, 24)),
    ],
)
def test_bits_that_are_kept(codec: str, given: int | None, made: int | None) -> None:
    setting = nearest_setting(sound(bits=given), codec, "mp4")
    assert setting is not None
    assert setting.sound.bits == made


def test_an_encoder_that_is_not_there() -> None:
    with pytest.raises(OptionError, match="no encoder libvorbis"):
        nearest_setting(sound(), "vorbis", "matroska")


def test_what_no_encoder_takes() -> None:
    assert nearest_setting(sound(rate=10**9), "flac", "matroska") is None


@pytest.mark.parametrize(
    "context",
    [
        None,
        SimpleNamespace(sample_rate=0, layout=av.AudioLayout("mono"), channels=1, codec=av.Codec("aac", "r")),
        SimpleNamespace(sample_rate=48000, layout=av.AudioLayout("mono"), channels=0, codec=av.Codec("aac", "r")),
    ],
)
def test_a_header_without_sense(context: Any) -> None:
    assert Sound.of(context) is None
