"""Field-coded H.264 made by hand, as no encoder here makes it: each field a picture of its own, all its samples written out (I_PCM)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from tests.clips import TICK, level

GROUP = 12
SEQUENCE, PICTURE, DELIMITER = 0x67, 0x68, 0x09
START = b"\0\0\0\1"
_BLOCKS = 8  # of 16x16 in a field of 64x32


class Bits:
    """Writes a NAL unit's payload."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, count: int, value: int) -> Bits:
        self.text += f"{value:0{count}b}"
        return self

    def unsigned(self, *values: int) -> Bits:
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code
        return self

    def aligned(self) -> Bits:
        self.text += "0" * (-len(self.text) % 8)
        return self

    def payload(self) -> bytes:
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8)


def unit(kind: int, payload: bytes) -> bytes:
    """A NAL unit without its start code, kept free of others."""
    data, zeros = bytearray([kind]), 0
    for value in payload:
        if zeros >= 2 and value <= 3:
            data.append(3)
            zeros = 0
        data.append(value)
        zeros = zeros + 1 if value == 0 else 0
    return bytes(data)


def sequence(profile: int = 77, *, fields: bool = True) -> bytes:
    """A sequence header: 64x64, 25 frames a second. Profile 244 has colours apart and a scaling list."""
    bits = Bits().put(8, profile).put(8, 0).put(8, 30).unsigned(0)
    if profile == 244:
        bits.unsigned(3).put(1, 1).unsigned(0, 0).put(1, 0).put(1, 1).put(1, 1)
        bits.unsigned(*[0] * 16).put(11, 0)  # one list of sixteen equal steps, eleven that are not there
    bits.unsigned(0, 0, 4, 1).put(1, 0).unsigned(3, 1 if fields else 3).put(1, 0 if fields else 1)
    if fields:
        bits.put(1, 0)
    bits.put(1, 1).put(1, 0).put(1, 1)
    bits.put(4, 0).put(1, 1).put(32, 1).put(32, 50).put(1, 1).put(3, 0).put(1, 1).put(1, 1).unsigned(0, 0, 0, 0, 0, 1)
    return unit(SEQUENCE, bits.payload())


def picture_header() -> bytes:
    return unit(PICTURE, Bits().unsigned(0, 0).put(2, 0).unsigned(0, 0, 0).put(3, 0).unsigned(0, 0, 0).put(3, 0b100).payload())


def field(number: int, *, bottom: bool) -> bytes:
    """A field of frame `number`, which shows its number as tests/clips.py reads it."""
    place = number % GROUP
    key = place == 0 and not bottom
    bits = Bits().unsigned(0, 7, 0).put(4, place).put(2, 0b10 | bottom)
    if key:
        bits.unsigned(number // GROUP % 2)
    bits.put(8, 2 * place + bottom).put(2 if key else 1, 0).unsigned(0, 1)
    for _ in range(_BLOCKS):
        bits.unsigned(25).aligned()
        bits.text += f"{level(number):08b}" * 256 + f"{128:08b}" * 128
    return unit(0x65 if key else 0x61, bits.payload())


def access_units(number: int) -> tuple[bytes, bytes]:
    """The two fields of a frame, each with its delimiter, headers before a key one."""
    heads = START + sequence() + START + picture_header() if number % GROUP == 0 else b""
    delimiter = START + bytes([DELIMITER, 0x10])
    return delimiter + heads + START + field(number, bottom=False), delimiter + START + field(number, bottom=True)


def write_fields(path: Path, frames: int, *, first: int = 0, lost: tuple[int, ...] = ()) -> Path:
    """A transport stream of such frames, each field a packet; of the `lost` ones a good part of the first field is missing."""
    with av.open(str(path), "w", format="mpegts") as output:
        stream: Any = output.add_mux_stream("h264", rate=25)
        stream.width, stream.height, stream.time_base = 64, 64, TICK
        for number in range(first, frames):
            for place, data in enumerate(access_units(number)):
                packet = av.Packet(data[: len(data) // 3] if number in lost and not place else data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, TICK, number % GROUP == 0 and not place
                packet.pts = packet.dts = 9000 + 3600 * (number - first) + 1800 * place
                output.mux(packet)
    return path


def copied(source: Path, path: Path) -> Path:
    """The same in another container."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        target = output.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = target
                output.mux(packet)
    return path
