"""Which of two encoder back ends works: PyAV's encoders in this process, or an ffmpeg binary's, looked for only if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from a2n_video.errors import OptionError
from a2n_video.io import writer
from a2n_video.media.encoders import encoder

_X264: Final = "x264-params"  # how both of its encoders name what goes straight to it


def pix_fmts_of(codec: str, backend: str = "pyav") -> tuple[str, ...]:
    """Pixel formats an encoder says it takes, empty where it does not say; a ValueError for an encoder that is not there."""
    if backend == "pyav":
        return writer.pix_fmts_of(codec)
    from a2n_video.io import ffmpeg_writer

    return ffmpeg_writer.pix_fmts_of(codec)


def version(backend: str) -> str | None:
    """Which build of an encoder back end works here; None for PyAV's encoders, which are of av's version."""
    if backend == "pyav":
        return None
    from a2n_video.io import ffmpeg_writer

    return ffmpeg_writer.version()


def check_container(codec: str, container: str, backend: str = "pyav") -> None:
    """An OptionError if the container cannot hold what the encoder makes."""
    if backend == "pyav":
        writer.check_container(codec, container)
        return
    from a2n_video.io import ffmpeg_writer

    ffmpeg_writer.check_container(codec, container)


def check_encoder(settings: writer.EncoderSettings) -> None:
    """Open the encoder once, on nothing; an OptionError for whatever it refuses, or should."""
    least = encoder(settings.codec).least
    if min(settings.width, settings.height) < least:
        raise OptionError(
            f"{settings.codec} is not safe below {least}x{least}, and the result is {settings.width}x{settings.height}: "
            "choose another --codec, such as libx264 or ffv1, or a larger --size"
        )
    if settings.backend == "pyav":
        writer.check_encoder(settings)
        return
    from a2n_video.io import ffmpeg_writer

    ffmpeg_writer.check_encoder(settings)


def open_writer(file: BinaryIO, settings: writer.EncoderSettings) -> writer.FrameWriter:
    """A writer into `file` of the back end that the settings name."""
    settings = replace(settings, options=repeatable(settings.codec, settings.options))
    if settings.backend == "pyav":
        return writer.VideoWriter(file, settings)
    from a2n_video.io.ffmpeg_writer import FfmpegWriter

    return FfmpegWriter(file, settings)


def repeatable(codec: str, options: Mapping[str, str]) -> dict[str, str]:
    """The options, and what makes equal frames come out of an encoder equal: x264 without its AVX-512 code.

    That code reads what nobody wrote: equal input gave up to 12 results in 12 runs, and a resumed job must give what an unbroken one
    does. What is given in x264-params comes after it, and wins.
    """
    if encoder(codec).params != _X264 or not _has_avx512():
        return dict(options)
    given = options.get(_X264)
    return {**options, _X264: "asm=avx2" + (f":{given}" if given else "")}


@cache
def _has_avx512() -> bool:
    try:
        return "avx512bw" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
