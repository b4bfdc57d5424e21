"""Small files for tests, made with PyAV: pictures that tell their number, sound, subtitles, chapters, fonts."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from a2n_video.frames import tag_frame
from a2n_video.io.writer import EncoderSettings
from a2n_video.media.colorspec import ColorSpec

BT709 = ColorSpec(matrix=1, full_range=False, primaries=1, transfer=1)
# Options with which each encoder is quick.
FAST = {
    "libx264": {"preset": "veryfast", "bf": "3"},
    "libx265": {"preset": "ultrafast", "bf": "3", "x265-params": "log-level=error:info=0:pools=1"},
    "libsvtav1": {"preset": "10", "svtav1-params": "lp=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "8", "auto-alt-ref": "1"},
    "ffv1": {},
    "mpeg4": {"sc_threshold": "1000000000"},
    "mpeg2video": {"sc_threshold": "1000000000"},
    "prores_ks": {},
}
PIX_FMTS = {"prores_ks": "yuv422p10le"}


def picture(number: int, width: int = 64, height: int = 48, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A picture no other number has: smooth shapes that move, and the number in 16 blocks of black or white."""
    y, x = np.mgrid[0:height, 0:width]
    gray = (128 + 60 * np.sin((x + 3 * number) / 9) + 50 * np.cos((y - 2 * number) / 7)).clip(0, 255)
    side = max(2, width // 16)
    for bit in range(16):
        gray[0:side, bit * side : (bit + 1) * side] = 255 if number >> bit & 1 else 0
    rgb = np.stack([gray, np.roll(gray, 5, 0), 255 - gray], axis=2).astype(np.uint8)
    return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt, dst_colorspace=1)


def frames(
    pts: Sequence[int], time_base: Fraction, size: tuple[int, int] = (64, 48), pix_fmt: str = "yuv420p", first: int = 0
) -> Iterator[av.VideoFrame]:
    for number, time in enumerate(pts, first):
        frame = picture(number, *size, pix_fmt)
        frame.pts, frame.time_base = time, time_base
        tag_frame(frame, BT709)
        yield frame


def settings(codec: str, time_base: Fraction, container: str = "nut", size: tuple[int, int] = (64, 48), **changes: Any) -> EncoderSettings:
    values: dict[str, Any] = {
        "container": container,
        "codec": codec,
        "width": size[0],
        "height": size[1],
        "pix_fmt": PIX_FMTS.get(codec, "yuv420p"),
        "time_base": time_base,
        "frame_rate": Fraction(25),
        "color": BT709,
        "options": dict(FAST.get(codec, {})),
        "threads": 1,
    }
    return EncoderSettings(**values | changes)


def decoded(path: Path, stream: int = 0) -> list[tuple[int, Fraction, str]]:
    """(pts, time base, hash of the picture) of every frame, in order."""
    with av.open(str(path)) as container:
        return [(f.pts, Fraction(f.time_base), frame_hash(f)) for f in container.decode(video=stream)]


def frame_hash(frame: av.VideoFrame) -> str:
    return hashlib.sha1(np.ascontiguousarray(frame.to_ndarray()).tobytes()).hexdigest()


def packets(path: Path, index: int) -> list[tuple[Fraction | None, Fraction, str]]:
    """(pts in seconds, duration in seconds, hash of the payload) of every packet of a stream."""
    with av.open(str(path)) as container:
        stream = container.streams[index]
        base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        return [
            (None if p.pts is None else p.pts * base, (p.duration or 0) * base, hashlib.sha1(bytes(p)).hexdigest())
            for p in container.demux(stream)
            if p.size
        ]


def animated(path: Path, count: int) -> Path:
    """An animated PNG, whatever its name."""
    with av.open(str(path), "w", format="apng") as output:
        stream: Any = output.add_stream("apng", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number in range(count):
            output.mux(stream.encode(picture(number, pix_fmt="rgb24")))
        output.mux(stream.encode(None))
    return path


def box(kind: bytes, body: bytes) -> bytes:
    """A box of MP4 or QuickTime."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_box(source: Path, path: Path, added: bytes) -> Path:
    """An MP4 or QuickTime file of one track with one more box about its picture, where the header lies behind the pictures."""
    data = bytearray(source.read_bytes())
    place, parents = 0, []
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        while data[place + 4 : place + 8] != kind:
            place += int.from_bytes(data[place : place + 4])
        parents.append(place)
        place += 8
    entry = place + 8
    for parent in (*parents, entry):
        data[parent : parent + 4] = (int.from_bytes(data[parent : parent + 4]) + len(added)).to_bytes(4)
    end = entry + int.from_bytes(data[entry : entry + 4]) - len(added)
    data[end:end] = added
    path.write_bytes(data)
    return path


LONG_GROUPS = {
    "mpeg4": {"bf": "2", "g": "24", "sc_threshold": "1000000000", "b": "2M"},
    "libx264": {"preset": "veryfast", "bf": "3", "g": "24", "sc_threshold": "0"},
}


def with_long_groups(path: Path, codec: str) -> Path:
    """Two frames a second for 48 s, in groups of twelve seconds: more than a reader's preroll."""
    base = Fraction(1, 2)
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream(codec, rate=2, options=LONG_GROUPS[codec])
        video.width, video.height, video.pix_fmt, video.codec_context.time_base = 64, 48, "yuv420p", base
        for frame in frames(range(96), base):
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def make_source(
    path: Path,
    *,
    pts: Iterable[int] = range(50),
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    size: tuple[int, int] = (64, 48),
    audio: Sequence[str] = ("aac",),
    audio_delay: Fraction = Fraction(0),
    subtitles: Sequence[tuple[Fraction, Fraction, str]] = (),
    chapters: Sequence[tuple[Fraction, Fraction, str]] = (),
    attachments: Sequence[tuple[str, str, bytes]] = (),
    metadata: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """A source file: video with these pts, tones, subtitles (start, end, text; SRT), chapters and attachments."""
    pts = list(pts)
    with av.open(str(path), "w", format=container) as output:
        video: Any = output.add_stream(codec, rate=25, options=dict(FAST.get(codec, {})))
        video.width, video.height, video.pix_fmt = *size, PIX_FMTS.get(codec, "yuv420p")
        video.codec_context.time_base = video.time_base = time_base
        video.codec_context.gop_size = 12
        video.codec_context.thread_count = 1
        tones = [output.add_stream(name, rate=48000) for name in audio]
        for number, tone in enumerate(tones):
            tone.metadata.update(language=("deu", "fra", "eng")[number % 3], title=f"tone {number}")
        words: Any = output.add_mux_stream("subrip") if subtitles else None
        if words is not None:
            words.metadata["language"] = "jpn"
        for name, mime, data in attachments:
            output.add_attachment(name, mime, data)
        output.metadata.update(metadata or {})
        if chapters:
            output.set_chapters([_chapter(number, *chapter) for number, chapter in enumerate(chapters, 1)])
        output.mux(_all_packets(video, list(frames(pts, time_base, size, video.pix_fmt))))
        seconds = (pts[-1] - pts[0] + 1) * time_base
        for number, tone in enumerate(tones):
            output.mux(_all_packets(tone, list(_tone(tone, seconds, audio_delay, 300 * (number + 1)))))
        for start, end, text in subtitles:
            output.mux(_subtitle(words, start, end, text))
    return path


def _all_packets(stream: Any, given: list[Any]) -> list[Any]:
    return [packet for frame in [*given, None] for packet in stream.encode(frame)]


def _tone(stream: Any, seconds: Fraction, delay: Fraction, hertz: int) -> Iterator[av.AudioFrame]:
    size = stream.codec_context.frame_size or 1024
    for start in range(0, int(seconds * 48000), size):
        time = (start + np.arange(size)) / 48000
        wave = (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start + int(delay * 48000), Fraction(1, 48000)
        if stream.codec_context.format.name != "fltp":
            resampler = av.AudioResampler(stream.codec_context.format.name, "stereo", 48000)
            yield from resampler.resample(frame)
        else:
            yield frame


def _subtitle(stream: Any, start: Fraction, end: Fraction, text: str) -> av.Packet[Any]:
    packet: Any = av.Packet(text.encode())
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = int(start * 1000)
    packet.duration = int((end - start) * 1000)
    return packet


def _chapter(number: int, start: Fraction, end: Fraction, title: str) -> Any:
    metadata = {"title": title} if title else {}
    return {"id": number, "start": int(start * 1000), "end": int(end * 1000), "time_base": Fraction(1, 1000), "metadata": metadata}


def with_empty_sample(path: Path, number: int, track: int = 0) -> Path:
    """Have a sample of an MP4 hold nothing; what it held is more than the one before it needs, and is left aside there."""
    data = bytearray(path.read_bytes())
    table = -1
    for _ in range(track + 1):
        table = data.index(b"stsz", table + 1)
    at = table + 16 + 4 * number  # after version and flags, the size of all, and how many there are
    before, its = (int.from_bytes(data[place : place + 4]) for place in (at - 4, at))
    data[at - 4 : at + 4] = (before + its).to_bytes(4) + bytes(4)
    path.write_bytes(data)
    return path


def with_broken_pictures(source: Path, path: Path, which: slice) -> Path:
    """A copy of a file, of its size, in which those of its pictures that are no keyframes are zeros."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        payloads = [bytes(p) for p in container.demux(video=0) if p.size and not p.is_keyframe]
    for payload in payloads[which]:
        start = bytes(data).index(payload)
        data[start : start + len(payload)] = bytes(len(payload))
    path.write_bytes(data)
    return path
