"""Sources for the suites on time and preservation: each picture shows its number, each time is known exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from a2n_video.io.writer import FORMAT_NAMES

MS = Fraction(1, 1000)
TICK = Fraction(1, 90000)
SIZE = (64, 48)
MUXERS = FORMAT_NAMES

# Options with which each encoder is quick, as upscale_video takes them.
QUICK: dict[str, dict[str, Any]] = {
    "libx264": {"codec": "libx264", "preset": "veryfast"},
    "libx265": {"codec": "libx265", "preset": "ultrafast", "encoder_options": {"x265-params": "pools=1:frame-threads=1"}},
    "libsvtav1": {"codec": "libsvtav1", "preset": "12", "encoder_options": {"svtav1-params": "lp=1"}},
    "libvpx-vp9": {"codec": "libvpx-vp9", "preset": "8", "encoder_options": {"deadline": "realtime", "lag-in-frames": "4"}},
    "ffv1": {"codec": "ffv1"},
    "prores_ks": {"codec": "prores_ks"},
    "mpeg4": {"codec": "mpeg4"},
    "mpeg2video": {"codec": "mpeg2video", "encoder_options": {"bf": "2"}},
}


def level(number: int) -> int:
    """The luma that shows a frame's number: 49 frames are told apart with room for what a codec does to them."""
    return 30 + 4 * number


def picture(number: int, size: tuple[int, int] = SIZE, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A frame all of one luma, its number's, in 8-bit 4:2:0 of either range."""
    width, height = size
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = level(number)
    return av.VideoFrame.from_ndarray(planes, format=pix_fmt)


def shown_number(frame: av.VideoFrame) -> int:
    """The number that a frame shows, whatever its size, depth and subsampling."""
    plane, depth = frame.planes[0], frame.format.components[0].bits
    luma = np.frombuffer(plane, np.uint8 if depth == 8 else np.uint16)
    return round((float(np.median(luma[: frame.width])) / (1 << (depth - 8)) - level(0)) / 4)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """An audio track: a codec, where it begins, how long it lasts."""

    codec: str = "aac"
    start: Fraction = Fraction(0)
    seconds: Fraction = Fraction(1)
    tags: Mapping[str, str] = field(default_factory=dict)
    disposition: int = 0
    rate: int = 48000
    layout: str = "mono"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What to make: frame times in seconds, and how they are stored. Times below zero are written as they are.

    `stored` are times to write instead of those, for a codec without reordering, such as no encoder would make.
    """

    times: Sequence[Fraction]
    codec: str = "libx264"
    time_base: Fraction = MS
    options: Mapping[str, str] = field(default_factory=dict)
    sounds: tuple[Sound, ...] = ()
    muxer: Mapping[str, str] = field(default_factory=dict)
    stored: Sequence[Fraction] | None = None


def write_clip(path: Path, clip: Clip) -> Path:
    """Make the file; its container is that of the name."""
    container = MUXERS.get(path.suffix[1:], path.suffix[1:])
    options = {"avoid_negative_ts": "disabled", **clip.muxer}
    if container in ("mp4", "mov"):
        options.setdefault("video_track_timescale", str(clip.time_base.denominator))
    with av.open(str(path), "w", format=container, options=options) as output:
        video: Any = output.add_stream(clip.codec, rate=25, options=dict(clip.options))
        video.width, video.height, video.pix_fmt = *SIZE, "yuvj420p" if clip.codec == "mjpeg" else "yuv420p"
        video.codec_context.time_base = clip.time_base
        tracks = [(sound, add_sound(output, sound)) for sound in clip.sounds]
        packets = []
        for number, time in enumerate(clip.times):
            frame = picture(number, pix_fmt=video.pix_fmt)
            frame.pts, frame.time_base = round(time / clip.time_base), clip.time_base
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet, time in zip(packets, clip.stored or (), strict=False):
            packet.pts = packet.dts = round(time / clip.time_base)
        for sound, stream in tracks:
            packets += sound_packets(sound, stream)
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * Fraction(packet.time_base)):
            output.mux(packet)
    return path


def add_sound(output: Any, sound: Sound) -> Any:
    stream = output.add_stream(sound.codec, rate=sound.rate, layout=sound.layout, options={"strict": "experimental"})
    stream.metadata.update(sound.tags)
    stream.disposition = sound.disposition
    return stream


def sound_packets(sound: Sound, stream: Any) -> list[Any]:
    """A tone, encoded; the first sample comes at `sound.start`."""
    rate = sound.rate
    count = int(sound.seconds * rate)
    wave = (np.sin(np.arange(count) / 20 * (1 + stream.index)) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, round(sound.start * rate), Fraction(1, rate)
    context = stream.codec_context
    context.open(strict=False)
    resampler = av.AudioResampler(context.format, sound.layout, rate, frame_size=context.frame_size or 1024)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return [packet for part in [*parts, None] for packet in stream.encode(part)]


def read_frames(path: Path) -> list[tuple[Fraction, int]]:
    """(seconds, shown number) of every frame that plain decoding gives, in order; the video is the first one."""
    with av.open(str(path)) as container:
        return [(frame.pts * Fraction(frame.time_base), shown_number(frame)) for frame in container.decode(video=0)]


def read_stream(path: Path, kind: str, number: int = 0, strip: int = 0) -> list[tuple[Fraction, str]]:
    """(seconds, hash of the payload but for `strip` bytes at its head) of every packet of the n-th stream of a kind."""
    with av.open(str(path)) as container:
        stream = [s for s in container.streams if s.type == kind][number]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(p.pts * Fraction(p.time_base), hashlib.sha1(bytes(p)[strip:]).hexdigest()) for p in packets if p.pts is not None]


def with_sound_at(source: Path, path: Path, when: Callable[[Fraction], Fraction | None]) -> Path:
    """A copy of a file whose packets of sound say other times, in seconds; those for which there is none are left out."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        targets = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        for packet in given.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                time = when((packet.pts or 0) * Fraction(packet.time_base))
                if time is None:
                    continue
                packet.pts = packet.dts = round(time / Fraction(packet.time_base))
            packet.stream = targets[packet.stream_index]
            output.mux(packet)
    return path


def with_gap(source: Path, path: Path, gap: tuple[Fraction, Fraction]) -> Path:
    """A copy of a file without the packets of sound that begin in [gap)."""
    return with_sound_at(source, path, lambda time: None if gap[0] <= time < gap[1] else time)


def in_pieces(source: Path, path: Path, pieces: Sequence[tuple[Fraction, Fraction]]) -> Path:
    """A copy of an MP4 or QuickTime file of which an edit list shows these parts, (start, end) in seconds, one after the other."""
    data = source.read_bytes()
    path.write_bytes(_in_pieces(data, pieces, (_clock(data, b"mvhd"), 0)))
    return path


def _clock(data: bytes, box: bytes) -> int:
    """Ticks a second, as a box of that name says."""
    return int.from_bytes(data[data.index(box) + 16 :][:4])


def _in_pieces(data: bytes, pieces: Sequence[tuple[Fraction, Fraction]], clocks: tuple[int, int]) -> bytes:
    """Boxes with their edit lists rewritten; `clocks` are those of the movie and of the track that they lie in."""
    made, place = b"", 0
    while place < len(data):
        size, name = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        body = data[place + 8 : place + size]
        if name in (b"moov", b"trak", b"edts"):
            body = _in_pieces(body, pieces, (clocks[0], _clock(body, b"mdhd")) if name == b"trak" else clocks)
        elif name == b"elst":
            first = int.from_bytes(body[12:16])
            entries = ((round((end - start) * clocks[0]), first + round(start * clocks[1]), 1 << 16) for start, end in pieces)
            body = bytes(4) + len(pieces).to_bytes(4) + b"".join(value.to_bytes(4) for entry in entries for value in entry)
        made += (8 + len(body)).to_bytes(4) + name + body
        place += size
    return made


def read_sound(path: Path) -> np.ndarray[Any, Any]:
    """All samples of the first sound, as numbers from -1 to 1, one after the other whatever their times."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("dbl", "mono")
        parts = [part for frame in [*container.decode(audio=0), None] for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])
