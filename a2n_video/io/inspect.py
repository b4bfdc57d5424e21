"""Read a file's streams packet by packet for comparing: what each packet carries, and when, whatever container it lies in."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Final

import av
from av.packet import Packet

from a2n_video.frames import fraction
from a2n_video.io.positions import Positions
from a2n_video.io.source import open_source
from a2n_video.media.samples import RawSound, SampleCount
from a2n_video.media.timemap import told

_US: Final = Fraction(1, 1_000_000)
_READ_RETRIES: Final = 100
_CUT_ANYHOW: Final = ("pcm_", "adpcm_", "gsm")  # codecs whose samples or blocks follow each other, as many a packet as a container likes
_WITHOUT_ADTS: Final = ("matroska", "mov")  # a damaged AAC frame in these may look like a header, and is none

# seconds and byte offset of a packet, its duration, its stream's index, whether it is a keyframe, whether an edit list hides it -> seconds
# on the clock to compare on, None to leave it out
Place = Callable[[Fraction, int | None, Fraction, int, bool, bool], Fraction | None]


@dataclass
class StreamPackets:
    """What one stream's packets carry, in file order: times and durations in microseconds, and a digest of each payload.

    Payloads are compared as their codec sees them: without ADTS headers, start codes and parameter sets, which containers add and take
    away. Audio in samples or blocks, which containers cut into packets as they like, is one digest and one packet; raw audio ends where its
    samples do. `header` is the codec's, for video of which a container may repeat it before pictures.
    """

    times: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    digests: array[int] = field(default_factory=lambda: array("Q"))
    untimed: int = 0
    header: bytes = b""

    def without(self, numbers: Collection[int]) -> StreamPackets:
        """The same but for some packets, by their place."""
        if not numbers:
            return self
        kept = [number for number in range(len(self.digests)) if number not in numbers]
        times, ends, digests = (array(a.typecode, (a[number] for number in kept)) for a in (self.times, self.ends, self.digests))
        return StreamPackets(times=times, ends=ends, digests=digests, untimed=self.untimed, header=self.header)

    @property
    def first(self) -> Fraction | None:
        return min(self.times) * _US if self.times else None

    @property
    def last_end(self) -> Fraction | None:
        return max(self.ends) * _US if self.ends else None


def read_packets(
    path: Path,
    codecs: Mapping[int, str],
    place: Place | None = None,
    *,
    headers: Mapping[int, bytes] | None = None,
    filled: Collection[int] = (),
    ignore_edits: bool = False,
) -> dict[int, StreamPackets]:
    """Read the streams of `codecs` (index to codec name). `place` moves each packet onto another clock, or leaves it out.

    What cannot be read is passed over, as when copying. `headers` are the source's for streams that were copied from it, `filled` those
    of raw audio whose gaps count as silence.
    """
    with open_source(path, ignore_edits=ignore_edits) as container:
        if container.format.name.startswith(_WITHOUT_ADTS):
            codecs = {index: "raw" if codec == "aac" else codec for index, codec in codecs.items()}
        own = {index: _header(container.streams[index], codec) for index, codec in codecs.items()}
        result = {index: StreamPackets(header=(headers or own).get(index, b"")) for index in codecs}
        bases = {index: fraction(container.streams[index].time_base) or Fraction(1, 1000) for index in codecs}
        cut = {index: codec for index, codec in codecs.items() if codec.startswith(_CUT_ANYHOW)}
        whole = {index: _Whole(container.streams[index], codec, fills=index in filled) for index, codec in cut.items()}
        positions = Positions()
        for packet in _demuxed(container, [container.streams[index] for index in codecs]):
            index = packet.stream_index
            payload = essence(codecs[index], memoryview(packet), result[index].header)
            time = _time(packet, bases[index], place, positions.of(packet))
            if payload is None or time is None:
                continue
            duration = packet.duration * bases[index] if packet.duration else Fraction(0)
            if index in whole:
                duration = whole[index].add(time, payload) or duration
            else:
                result[index].digests.append(int.from_bytes(blake2b(payload, digest_size=8).digest()))
            _enter(result[index], time, duration)
    for index, sound in whole.items():
        _as_one(result[index], sound.digest)
    return result


class _Whole:
    """The digest of audio in samples or blocks; where it `fills`, of the silence in the gaps of raw audio too."""

    def __init__(self, stream: Any, codec: str, *, fills: bool) -> None:
        self._sound = sound = RawSound.of(codec, stream.codec_context.channels or 0, stream.codec_context.sample_rate or 0)
        self._count = SampleCount(sound.rate) if fills and sound is not None else None
        self._digest = blake2b(digest_size=8)

    def add(self, time: Fraction, payload: bytes) -> Fraction:
        """Enter a packet; how long it lasts by its samples, zero where nobody knows."""
        samples = 0 if self._sound is None else len(payload) // self._sound.block
        if self._sound is not None and self._count is not None:
            missing = self._count.missing(time, samples)
            for _ in range(missing // self._sound.rate):
                self._digest.update(self._sound.silence(self._sound.rate))
            self._digest.update(self._sound.silence(missing % self._sound.rate))
        self._digest.update(payload)
        return Fraction(0) if self._sound is None else Fraction(samples, self._sound.rate)

    @property
    def digest(self) -> int:
        return int.from_bytes(self._digest.digest())


def _header(stream: Any, codec: str) -> bytes:
    return (stream.codec_context.extradata or b"") if codec in _NAL_TYPE else b""


def _demuxed(container: Any, streams: list[Any]) -> Iterable[Packet[Any]]:
    for _ in range(_READ_RETRIES if streams else 0):
        try:
            yield from (packet for packet in container.demux(streams) if packet.size)
            return
        except av.FFmpegError:
            continue


def _time(packet: Packet[Any], base: Fraction, place: Place | None, position: int | None) -> Fraction | None:
    pts = told(packet.pts)
    pts = told(packet.dts) if pts is None else pts
    seconds = Fraction(0) if pts is None else pts * base
    if place is None:
        return seconds
    duration = packet.duration * base if packet.duration else Fraction(0)
    return place(seconds, position, duration, packet.stream_index, packet.is_keyframe, packet.is_discard)


def _enter(stream: StreamPackets, time: Fraction, duration: Fraction) -> None:
    stream.times.append(round(time / _US))
    stream.ends.append(round((time + duration) / _US))


def _as_one(stream: StreamPackets, digest: int) -> None:
    """Keep of a stream when it begins and ends, and the digest of all."""
    if stream.times:
        stream.times, stream.ends = array("q", [min(stream.times)]), array("q", [max(stream.ends)])
    stream.digests = array("Q", [digest])


def essence(codec: str, data: memoryview, header: bytes = b"") -> bytes | None:
    """A payload as the codec sees it, without what its source's `header` says as well, None for one that only fills a gap."""
    if codec == "aac":
        return bytes(data[_adts_header(data) :])
    if codec in _NAL_TYPE:
        return _nal_essence(codec, bytes(data), header)
    return None if fills_gap(codec, data) else bytes(data)


def fills_gap(codec: str, data: memoryview) -> bool:
    """Whether a payload only fills the time between two others: an empty text, which MP4's muxer writes wherever it needs one."""
    return codec == "mov_text" and bytes(data) == b"\0\0"


def _adts_header(data: memoryview) -> int:
    """Bytes of an ADTS header before the AAC frame, 0 where there is none. A frame never begins with the sync word: it would be empty."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF0 != 0xF0:
        return 0
    return 7 if data[1] & 1 else 9


# Where a NAL unit's type lies in its first byte, and the types that containers move to their headers: delimiters and parameter sets.
# Then those that a header may hold besides, such as x265's name and HDR10: TS is given them before each keyframe.
_NAL_TYPE: Final[dict[str, tuple[Callable[[int], int], frozenset[int], frozenset[int]]]] = {
    "h264": (lambda byte: byte & 0x1F, frozenset({7, 8, 9}), frozenset()),
    "hevc": (lambda byte: byte >> 1 & 0x3F, frozenset({32, 33, 34, 35}), frozenset({39, 40})),
}


def _nal_essence(codec: str, data: bytes, header: bytes) -> bytes:
    type_of, moved, repeated = _NAL_TYPE[codec]
    units = _length_prefixed(data) or data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    kept = (unit for unit in (unit.rstrip(b"\0") for unit in units) if unit and type_of(unit[0]) not in moved)
    return b"\0\0\1".join(unit for unit in kept if not (type_of(unit[0]) in repeated and unit in header))


def _length_prefixed(data: bytes) -> list[bytes] | None:
    """NAL units that each follow their length in four bytes, None where the lengths do not add up."""
    units, place = [], 0
    while place + 4 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        units.append(data[place + 4 : place + 4 + length])
        place += 4 + length
    return units if place == len(data) else None


def read_attachments(path: Path) -> tuple[tuple[str, str], ...]:
    """The file name and the sha256 of each attachment, covers aside; several may have one name."""
    with open_source(path) as container:
        streams: list[Any] = [stream for stream in container.streams if stream.type == "attachment"]
        return tuple((stream.metadata.get("filename", str(stream.index)), sha256(stream.data).hexdigest()) for stream in streams)
