"""Which packets of H.264 hold only the second field of a frame: in field coding each field may be a packet of its own.

Of the bitstream (ITU-T H.264, 7.3) only as much is read as tells fields apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

_SLICES: Final = frozenset({1, 5})
_SPS: Final = 7
_PPS: Final = 8
# Profiles whose sequence header tells of chroma and scaling.
_WITH_CHROMA: Final = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_PREFIX: Final = b"\0\0\1"
_HEAD_BYTES: Final = 40  # more than a slice's header has up to its field marks
_SEQUENCE_BYTES: Final = 1024
_LONGEST_CODE: Final = 32


class SequenceHeader(NamedTuple):
    """What a sequence header says of slices: bits of frame_num, whether there are fields, and whether colours are coded apart."""

    number: int
    frame_num_bits: int
    fields: bool
    colours_apart: bool


class _Picture(NamedTuple):
    frame_num: int
    field: bool
    bottom: bool


class _Bits:
    """Reads a NAL unit's payload; ValueError beyond its end."""

    def __init__(self, payload: bytes) -> None:
        data = payload.replace(b"\0\0\3", b"\0\0")  # what keeps start codes out of it
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("the header ends early")
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > _LONGEST_CODE:
                raise ValueError("no number is that long")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def read_sequence(payload: bytes) -> SequenceHeader:
    """A sequence header (the NAL unit without its first byte). ValueError where it is none."""
    bits = _Bits(payload)
    profile = bits.take(8)
    bits.take(16)
    number, colours_apart = bits.unsigned(), False
    if profile in _WITH_CHROMA:
        colours_apart = _chroma(bits)
    frame_num_bits = bits.unsigned() + 4
    _picture_order(bits)
    bits.unsigned()  # reference frames
    bits.take(1)
    bits.unsigned()  # width
    bits.unsigned()  # height
    return SequenceHeader(number=number, frame_num_bits=frame_num_bits, fields=not bits.take(1), colours_apart=colours_apart)


def _chroma(bits: _Bits) -> bool:
    """Pass over chroma format, depths and scaling lists; whether colours are coded apart."""
    chroma = bits.unsigned()
    apart = chroma == 3 and bool(bits.take(1))
    bits.unsigned()
    bits.unsigned()
    bits.take(1)
    if bits.take(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.take(1):
                _scaling_list(bits, 16 if number < 6 else 64)
    return apart


def _scaling_list(bits: _Bits, size: int) -> None:
    scale = 8
    for _ in range(size):
        scale = (scale + bits.signed()) % 256
        if not scale:
            return


def _picture_order(bits: _Bits) -> None:
    kind = bits.unsigned()
    if kind == 0:
        bits.unsigned()
    elif kind == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()


class FieldPairs:
    """Pairs the fields of a stream as FFmpeg's decoder does; asked about its packets in file order.

    `header` is the stream's: avcC, by which its packets hold NAL units after their lengths, or NAL units after start codes, as its
    packets do then.
    """

    def __init__(self, header: bytes) -> None:
        self._length_bytes = (header[4] & 3) + 1 if len(header) > 6 and header[0] == 1 else 0
        self._sequences: dict[int, SequenceHeader] = {}
        self._sequence_of: dict[int, int] = {}
        self._open: _Picture | None = None  # a first field whose second one has not come
        units = _avcc_units(header) if self._length_bytes else _units_after_start_codes(header)
        for unit in units:
            self._note(unit)

    @property
    def possible(self) -> bool:
        """Whether the header leaves room for fields; nothing in the packets is asked where it does not."""
        return not self._sequences or any(sequence.fields for sequence in self._sequences.values())

    def begins_frame(self, packet: bytes) -> bool:
        """Whether a packet holds a frame or the first field of one; True too where it cannot be told."""
        begins, told, last = False, False, None
        for picture in self._pictures(packet):
            if picture is None:
                self._open = None
                return True
            if picture != last:
                begins, told, last = self._begins(picture) or begins, True, picture
            if not picture.field:
                return True
        return begins or not told

    def _begins(self, picture: _Picture) -> bool:
        first = self._open
        if picture.field and first is not None and first.frame_num == picture.frame_num and first.bottom != picture.bottom:
            self._open = None
            return False
        self._open = picture if picture.field else None
        return True

    def _pictures(self, packet: bytes) -> Iterator[_Picture | None]:
        """What picture each slice of a packet belongs to, None where that cannot be read."""
        units = _units_after_lengths(packet, self._length_bytes) if self._length_bytes else _units_after_start_codes(packet)
        for unit in units:
            if unit and unit[0] & 31 in _SLICES:
                try:
                    yield self._picture(unit[1:_HEAD_BYTES])
                except (ValueError, KeyError):
                    yield None
            else:
                self._note(unit)

    def _picture(self, payload: bytes) -> _Picture:
        bits = _Bits(payload)
        bits.unsigned()  # first macroblock
        bits.unsigned()  # kind
        sequence = self._sequences[self._sequence_of[bits.unsigned()]]
        if sequence.colours_apart:
            bits.take(2)
        frame_num = bits.take(sequence.frame_num_bits)
        field = sequence.fields and bool(bits.take(1))
        return _Picture(frame_num=frame_num, field=field, bottom=field and bool(bits.take(1)))

    def _note(self, unit: bytes) -> None:
        """Keep what a header among the units says; a damaged one says nothing."""
        kind = unit[0] & 31 if unit else 0
        try:
            if kind == _SPS:
                sequence = read_sequence(unit[1:_SEQUENCE_BYTES])
                self._sequences[sequence.number] = sequence
            elif kind == _PPS:
                bits = _Bits(unit[1:_HEAD_BYTES])
                number = bits.unsigned()
                self._sequence_of[number] = bits.unsigned()
        except ValueError:
            return


def _units_after_start_codes(data: bytes) -> Iterator[bytes]:
    """NAL units, each after 0 0 1."""
    place = data.find(_PREFIX)
    while place >= 0:
        following = data.find(_PREFIX, place + 3)
        yield data[place + 3 : following if following >= 0 else len(data)]
        place = following


def _units_after_lengths(data: bytes, length_bytes: int) -> Iterator[bytes]:
    place = 0
    while place + length_bytes < len(data):
        begin = place + length_bytes
        place = begin + int.from_bytes(data[place:begin])
        yield data[begin:place]


def _avcc_units(header: bytes) -> Iterator[bytes]:
    """The sequence and picture headers of an avcC record (ISO/IEC 14496-15, 5.3.3)."""
    place = 5
    for mask in (31, 255):
        if place >= len(header):
            return
        count, place = header[place] & mask, place + 1
        for _ in range(count):
            begin = place + 2
            place = begin + int.from_bytes(header[place:begin])
            yield header[begin:place]
