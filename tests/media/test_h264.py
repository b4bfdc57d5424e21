"""Second fields are told from first ones and from frames, in both forms in which containers keep H.264."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2n_video.media.h264 import FieldPairs, read_sequence
from tests.fields import DELIMITER, START, Bits, access_units, field, picture_header, sequence, unit

HEADERS = (sequence(), picture_header())
TOP, BOTTOM = ([field(number, bottom=bottom) for number in range(4)] for bottom in (False, True))


def after_start_codes(*units: bytes) -> bytes:
    return b"".join(START + each for each in units)


def after_lengths(*units: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4) + each for each in units)


AVCC = bytes([1, 77, 0, 30, 0xFF, 0xE1]) + len(HEADERS[0]).to_bytes(2) + HEADERS[0] + b"\1" + len(HEADERS[1]).to_bytes(2) + HEADERS[1]
FORMS = {"start codes": (after_start_codes(*HEADERS), after_start_codes), "lengths": (AVCC, after_lengths)}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_second_field_is_found(form: str) -> None:
    header, packed = FORMS[form]
    pairs = FieldPairs(header)
    assert pairs.possible
    packets = [packed(bytes([DELIMITER, 0x10]), each) for number in range(4) for each in (TOP[number], BOTTOM[number])]
    assert [pairs.begins_frame(packet) for packet in packets] == [True, False] * 4


@pytest.mark.parametrize("form", list(FORMS))
def test_a_packet_of_both_fields_is_a_frame(form: str) -> None:
    header, packed = FORMS[form]
    pairs = FieldPairs(header)
    assert [pairs.begins_frame(packed(TOP[n], BOTTOM[n])) for n in range(4)] == [True] * 4
    assert [pairs.begins_frame(packed(TOP[n], TOP[n])) for n in range(2)] == [True] * 2  # one field in two slices
    assert not pairs.begins_frame(packed(BOTTOM[1]))


def test_a_lost_field_costs_no_other_frame() -> None:
    pairs = FieldPairs(after_start_codes(*HEADERS))
    lone = [TOP[0], TOP[1], BOTTOM[1], BOTTOM[2], TOP[3], BOTTOM[3]]
    assert [pairs.begins_frame(after_start_codes(each)) for each in lone] == [True, True, False, True, True, False]


def test_headers_may_come_in_the_packets() -> None:
    pairs = FieldPairs(b"")
    assert pairs.possible
    assert [pairs.begins_frame(packet) for number in (0, 1) for packet in access_units(number)] == [True, False] * 2


def test_what_cannot_be_read_is_a_frame() -> None:
    pairs = FieldPairs(b"")
    assert pairs.begins_frame(after_start_codes(TOP[0])) and pairs.begins_frame(after_start_codes(BOTTOM[0]))
    pairs = FieldPairs(after_start_codes(*HEADERS))
    assert pairs.begins_frame(b"") and pairs.begins_frame(after_start_codes(b"\x61"))


@pytest.mark.parametrize("profile", [77, 100, 244])
@pytest.mark.parametrize("fields", [True, False])
def test_a_sequence_header_is_read(profile: int, fields: bool) -> None:
    if profile == 100:
        bits = Bits().put(24, 0x64001E).unsigned(0, 1, 0, 0).put(2, 0)  # no scaling lists
        bits.unsigned(0, 1).put(1, 0).unsigned(4, 3, 2, 0, 1).unsigned(3).put(1, 0).unsigned(3, 1).put(1, not fields)
        found = read_sequence(bits.payload())
    else:
        found = read_sequence(sequence(profile, fields=fields)[1:])
    assert (found.number, found.frame_num_bits, found.fields, found.colours_apart) == (0, 4, fields, profile == 244)


def test_a_stream_without_fields_is_not_asked() -> None:
    assert not FieldPairs(after_start_codes(sequence(fields=False), picture_header())).possible


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_are_too_damaged(header: bytes, packet: bytes) -> None:
    for data in (header, after_start_codes(unit(0x67, header), unit(0x68, packet)), AVCC[:6] + header):
        pairs = FieldPairs(data)
        assert pairs.begins_frame(packet) in (True, False)
        assert pairs.begins_frame(after_start_codes(b"\x61" + packet)) in (True, False)
