"""Encode frames into one closed, video-only file."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, BinaryIO, Self

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from a2n_video.errors import EncodeError, OptionError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.containers import TRANSPORT
from a2n_video.media.encoders import encoder
from a2n_video.options import EncoderBackend

_MPEG4_TICKS = 65535  # a second at most (ISO/IEC 14496-2, vop_time_increment_resolution)
# Containers of ours that FFmpeg calls otherwise.
FORMAT_NAMES = {"mkv": "matroska", "ts": "mpegts", "m2ts": "mpegts", "y4m": "yuv4mpegpipe"}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Everything an encoder is opened with; settled before the first frame and kept in the journal.

    `options` are FFmpeg's and go to the encoder as they are. `time_base` is the source stream's, so that every pts passes exactly;
    `frame_rate` is a hint for rate control and headers. `color` is settled. `threads` 0 leaves the count to FFmpeg.
    """

    container: str  # FFmpeg's muxer, such as "nut"
    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: Fraction
    frame_rate: Fraction | None
    color: ColorSpec
    sar: Fraction = Fraction(1)
    options: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    closed_gop: bool = True
    backend: EncoderBackend = "pyav"
    muxer: dict[str, str] = field(default_factory=dict)  # what the muxer is told, where that is no segment's


def check_encoder(settings: EncoderSettings) -> None:
    """Open the encoder once, on nothing: an unknown codec, a misspelt option, a refused size is an OptionError before the first frame."""
    if "w" not in _codec_modes(settings.codec):
        raise OptionError(
            f"no encoder named {settings.codec!r} in this FFmpeg; common ones are libx264 libx265 libsvtav1 libvpx-vp9 ffv1 prores_ks"
        )
    container = av.open(io.BytesIO(), "w", format=settings.container)
    try:
        context = _add_stream(container, settings).codec_context
        context.open()
        if context.options:
            names = ", ".join(f"{key}={value}" for key, value in context.options.items())
            raise OptionError(f"{settings.codec} has no option {names}; see ffmpeg -h encoder={settings.codec}")
    except (av.FFmpegError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, OptionError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            f"{settings.codec} refuses {settings.width}x{settings.height} {settings.pix_fmt} with {settings.options} ({reason})"
        ) from error
    finally:
        # Nothing was muxed: closing writes nothing, and may say so.
        with contextlib.suppress(av.FFmpegError, ValueError):
            container.close()


def check_container(codec: str, container: str) -> None:
    """An OptionError if the container cannot hold what the encoder makes."""
    name = av.Codec(codec, "w").canonical_name
    # MPEG-TS answers for few of the codecs it takes; those it does take are listed in H.222.0.
    taken = ("h264", "hevc", "mpeg2video", "mpeg1video", "vc1") if container in TRANSPORT else supported_codecs(container)
    if name not in taken:
        raise OptionError(f"a {container} file cannot hold {name} video ({codec}); choose another --codec or another extension")


def supported_codecs(container: str) -> frozenset[str]:
    """What a container has names for. Matroska takes AVI's for what it has none for."""
    names = (FORMAT_NAMES.get(container, container), *(("avi",) if container == "mkv" else ()))
    return frozenset(codec for name in names for codec in av.open(io.BytesIO(), "w", format=name).supported_codecs)


def pix_fmts_of(codec: str) -> tuple[str, ...]:
    """Pixel formats an encoder says it takes, in FFmpeg's order; empty where it does not say."""
    return tuple(fmt.name for fmt in av.Codec(codec, "w").video_formats or ())


class FrameWriter(ABC):
    """Takes frames and makes a finished file of them, or lets go: what the back ends have in common. For one thread, but for `kill`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def write(self, frame: av.VideoFrame) -> None:
        """Encode one frame; EncodeError names the frame where the encoder or the disk refuses."""

    @abstractmethod
    def close(self) -> None:
        """Drain the encoder and finish the file; the file object stays open and is the caller's. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Let go of everything; what the file object holds is worthless."""

    @abstractmethod
    def kill(self) -> None:
        """End from any thread what hangs outside this process, if anything does: whoever waits for it comes back."""


class VideoWriter(FrameWriter):
    """One encoder and one muxer on one file object, used from one thread.

    Frames carry pts in `settings.time_base`; the encoder's delay is drained by `close`. After an error, or to drop what was written,
    call `abort`: `close` would finish a short file that looks whole.
    """

    def __init__(self, file: BinaryIO, settings: EncoderSettings) -> None:
        self.settings = settings
        self.frames = 0
        self._closed = False
        self._file = file
        # Absolute pts: a muxer would shift a stream whose first dts is below zero, as an encoder with B-frames makes it.
        told = {"avoid_negative_ts": "disabled", **settings.muxer}
        self._container = av.open(file, "w", format=settings.container, container_options=told)
        self._stream = _add_stream(self._container, settings)
        self._counted = _Counted(settings.time_base, clock_of(settings)) if encoder(settings.codec).counts else None

    def write(self, frame: av.VideoFrame) -> None:
        frame.pict_type = 0  # the source's frame types would force the encoder's
        try:
            self._container.mux(self._timed(self._encoded(frame)))
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"frame {self.frames} (pts {frame.pts}) could not be encoded with {self.settings.codec}: {error}") from error
        self.frames += 1

    def _encoded(self, frame: av.VideoFrame) -> list[av.Packet[VideoStream]]:
        """What comes of a frame; it keeps its time, by which segments are recorded and marks set."""
        if self._counted is None:
            return self._stream.encode(frame)
        pts = frame.pts
        self._counted.count(frame)
        try:
            return self._stream.encode(frame)
        finally:
            frame.pts, frame.time_base = pts, self.settings.time_base

    def _timed(self, packets: list[av.Packet[VideoStream]]) -> list[av.Packet[VideoStream]]:
        return packets if self._counted is None else [self._counted.timed(packet) for packet in packets]

    def _with_dts(self, packets: list[av.Packet[VideoStream]]) -> list[av.Packet[VideoStream]]:
        """x265 leaves dts unset memory where one or two frames are all it gets; so few are never reordered."""
        if self.frames <= 2:
            for packet in packets:
                packet.dts = packet.pts
        return packets

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._container.mux(self._with_dts(self._timed(self._stream.encode(None))))
            self._container.close()
        except av.FFmpegError as error:
            raise EncodeError(f"after {self.frames} frames the {self.settings.codec} encoder could not be finished: {error}") from error

    def abort(self) -> None:
        self._closed = True
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def kill(self) -> None:
        """Nothing: this process encodes."""


class _Counted:
    """Stands between frames and an encoder that cannot be told their times (`Encoder.counts`): it gets their numbers instead.

    Packets get the frames' times back; decode times before the first frame go on at the encoder's rate.
    """

    def __init__(self, time_base: Fraction, tick: Fraction) -> None:
        self._time_base, self._tick = time_base, tick
        self._times: list[int] = []

    def count(self, frame: av.VideoFrame) -> None:
        assert frame.pts is not None
        self._times.append(frame.pts)
        frame.pts, frame.time_base = len(self._times) - 1, self._tick

    def timed(self, packet: av.Packet[VideoStream]) -> av.Packet[VideoStream]:
        pts, dts = packet.pts, packet.dts
        packet.time_base = self._time_base
        packet.pts = None if pts is None else self._time_of(pts)
        packet.dts = None if dts is None else self._time_of(dts)
        packet.duration = 0
        return packet

    def _time_of(self, number: int) -> int:
        return self._times[number] if number >= 0 else self._times[0] + round(number * self._tick / self._time_base)


def clock_of(settings: EncoderSettings) -> Fraction:
    """The time base that an encoder works in: that of the frames, but where it counts them the tick of its nearest own rate."""
    if not encoder(settings.codec).counts:
        return settings.time_base
    rate = settings.frame_rate or Fraction(25)
    known = [Fraction(r.numerator, r.denominator) for r in av.Codec(settings.codec, "w").frame_rates or ()]
    return (1 / min(known, key=lambda other: abs(other / rate - 1)) if known else 1 / rate).limit_denominator(_MPEG4_TICKS)


def _add_stream(container: OutputContainer, settings: EncoderSettings) -> VideoStream:
    options = dict(settings.options)
    stream: Any = container.add_stream(settings.codec, rate=settings.frame_rate or Fraction(25), options=options)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = settings.width, settings.height, settings.pix_fmt
    context.time_base = clock_of(settings)
    if encoder(settings.codec).counts:
        context.framerate = 1 / context.time_base
    stream.time_base = settings.time_base
    context.sample_aspect_ratio = settings.sar
    context.thread_count = settings.threads
    set_color(context, settings.color)
    if settings.closed_gop:
        context.flags |= av.codec.context.Flags.closed_gop
    return stream  # type: ignore[no-any-return]


def set_color(context: Any, color: ColorSpec) -> None:
    """Write colour tags into a codec context, and so into the container's header."""
    context.colorspace, context.color_primaries, context.color_trc = color.matrix, color.primaries, color.transfer
    context.color_range = 1 + bool(color.full_range)
    if color.chroma_location:
        context.chroma_sample_location = color.chroma_location


def _codec_modes(codec: str) -> str:
    try:
        av.Codec(codec, "w")
    except (av.FFmpegError, ValueError):
        return ""
    return "w"
