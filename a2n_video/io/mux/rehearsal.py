"""Try an encoder and a container on a few small frames, before hours of work end in a result that verification refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import av
import numpy as np

from a2n_video.errors import EncodeError, InputError, OptionError
from a2n_video.frames import frame_planes, rearranged, tag_frame
from a2n_video.io.backends import open_writer
from a2n_video.io.mux.joining import scan_segment
from a2n_video.io.mux.remux import RemuxJob, remux
from a2n_video.io.outfile import OutFile
from a2n_video.io.probe import probe
from a2n_video.io.writer import EncoderSettings
from a2n_video.media.differences import picture_differences
from a2n_video.media.encoders import encoder, says_color
from a2n_video.media.final import FinalFile
from a2n_video.media.index import PacketTime, build_time_map
from a2n_video.media.pixfmt import encodable, pix_fmt_of
from a2n_video.media.streams import Container, StreamFate, plan_streams
from a2n_video.options import Fidelity

_FRAMES: Final = 3
_SIDES: Final = (256, 128)  # even the pickiest encoders take these
_SHORTEST, _LONGEST = Fraction(1, 500), Fraction(1)  # a frame's duration, which Matroska's milliseconds and MP4's 32 bits can say
_MS: Final = Fraction(1, 1000)


def rehearse(settings: EncoderSettings, container: Container, fates: Sequence[StreamFate] = ()) -> None:
    """Encode, join and read back a few frames; OptionError where they do not come back as `settings` say, or not at all.

    `fates` name what of the picture is lost knowingly. The frames are small, so that it takes a fraction of a second; what an encoder
    refuses of a small picture is tried again in full size, since that may have been its size's fault. A header that says the shape of
    the picture, not of its pixels, might say that of the small one alone.
    """
    width, height = (min(side, most) for side, most in zip((settings.width, settings.height), _SIDES, strict=True))
    small = replace(settings, width=width, height=height)
    whole = small == settings or (settings.sar != 1 and encoder(settings.codec).display_aspect)
    for tried in (settings,) if whole else (small, settings):
        faults = _faults(tried, container, fates, settings.width)
        if not faults:
            return
    raise OptionError(
        f"{settings.codec} in {container} does not give back what it is given ({'; '.join(faults)}): "
        "choose another --codec, --pix-fmt or extension"
    )


def _faults(settings: EncoderSettings, container: Container, fates: Sequence[StreamFate], width: int) -> list[str]:
    """What is wrong with frames that went through, in words. Where there is no room to try, nothing is said."""
    try:
        with TemporaryDirectory(prefix="a2n-video-") as folder:
            try:
                return list(_tried(settings, container, fates, Path(folder), width))
            except (EncodeError, InputError, av.FFmpegError, ValueError) as error:
                return [str(error).replace(f"{folder}/", "").removesuffix("; nothing was written")]
    except OSError:  # of the folder for temporary files, which says nothing of the encoder
        return []


def _tried(settings: EncoderSettings, container: Container, fates: Sequence[StreamFate], folder: Path, width: int) -> Iterator[str]:
    segment, result = folder / f"segment.{settings.container}", folder / f"trial.{container}"
    times = _times(settings)
    _encode(segment, settings, times)
    found = scan_segment(segment, settings.time_base).pts
    if len(found) != len(times) or any(abs(a - b) * settings.time_base > _MS for a, b in zip(times, found, strict=True)):
        yield f"frames for {_seconds(times, settings)} came back for {_seconds(found, settings)}"
    info = probe(segment)
    final = FinalFile(
        info=info,
        plan=plan_streams(info, container, Fidelity()).plus(*fates),
        time_map=build_time_map([PacketTime(time, time) for time in times], settings.time_base, settings.frame_rate),
        width=settings.width,
        height=settings.height,
        color=settings.color,
        tagged=says_color(settings.codec, container),
        pix_fmt=settings.pix_fmt,
        sar=settings.sar,
    )
    with OutFile(result, "trial") as file:
        remux(RemuxJob(final=final, segments=(segment,), time_base=settings.time_base, frame_rate=settings.frame_rate), file)
    yield from picture_differences(final, probe(result), width)


def _encode(path: Path, settings: EncoderSettings, times: Sequence[int]) -> None:
    with OutFile(path, "trial") as file, file.muxing():
        try:
            with open_writer(file, settings) as writer:  # type: ignore[arg-type]
                for time in times:
                    writer.write(_noise(settings, time))
        except EncodeError:
            file.check()  # a full disk is no encoder that refuses
            raise


def _noise(settings: EncoderSettings, time: int) -> av.VideoFrame:
    """A frame as the encoder gets them, of noise: a transport stream of three plain ones is too short to be known for one."""
    fmt = encodable(settings.pix_fmt, settings.width, settings.height)
    assert fmt is not None
    frame = av.VideoFrame(settings.width, settings.height, pix_fmt_of(fmt))
    random = np.random.default_rng(time)
    for plane in frame_planes(frame, fmt):
        plane[...] = random.integers(0, 1 << fmt.depth, plane.shape, fmt.dtype)
    frame = frame if frame.format.name == settings.pix_fmt else rearranged(frame, settings.pix_fmt)
    tag_frame(frame, settings.color)
    frame.pts, frame.time_base = time, settings.time_base
    return frame


def _times(settings: EncoderSettings) -> list[int]:
    """Times that do not begin at 0, as those of all segments but the first."""
    duration = min(max(1 / (settings.frame_rate or Fraction(25)), _SHORTEST), _LONGEST)
    step = max(1, round(duration / settings.time_base))
    return [step * number for number in range(_FRAMES, 2 * _FRAMES)]


def _seconds(times: Sequence[int], settings: EncoderSettings) -> str:
    return " ".join(f"{float(time * settings.time_base):.3f}" for time in times) + " s"
