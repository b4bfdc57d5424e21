"""The programs of a transport stream are those whose streams it holds, and several of them are named as lost: a result has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2n_video.errors import OptionError
from a2n_video.io.programs import programs
from a2n_video.job.planning.plan import prepare
from a2n_video.options import JobOptions
from tests.survival import clip

FIRST, SECOND, THIRD = (100, "Eins"), (200, "Zwei"), (300, "Drei")


def packet(pid: int, table: int, body: bytes) -> bytes:
    """A section that begins and ends in one packet. What else its head says, and its checksum, nobody looks at here."""
    section = bytes([table]) + (0xB000 | len(body) + 9).to_bytes(2) + bytes([0, 1, 0xC1, 0, 0]) + body + bytes(4)
    return (bytes([0x47]) + (0x4000 | pid).to_bytes(2) + b"\x10\0" + section).ljust(188, b"\xff")


def tables(listed: tuple[tuple[int, str], ...], there: tuple[tuple[int, str], ...]) -> bytes:
    pat = packet(0, 0, b"".join(number.to_bytes(2) + (0xE000 | number).to_bytes(2) for number, _ in listed))
    named = ((number, bytes([0x48, len(name) + 3, 1, 0, len(name)]) + name.encode()) for number, name in listed)
    services = b"".join(number.to_bytes(2) + b"\0" + (0x8000 | len(words)).to_bytes(2) + words for number, words in named)
    return pat + packet(0x11, 0x42, b"\0\1\0" + services) + b"".join(packet(number, 2, bytes(4)) for number, _ in there)


@pytest.mark.parametrize("before", [b"", bytes(4)])
def test_programs_of_which_there_are_streams_are_named(before: bytes, tmp_path: Path) -> None:
    path, data = tmp_path / "in.ts", 2 * tables((FIRST, SECOND, THIRD), (FIRST, THIRD))
    path.write_bytes(b"".join(before + data[place : place + 188] for place in range(0, len(data), 188)))
    assert programs(path) == ("Eins", "Drei")


def test_tables_that_end_anywhere_are_borne(tmp_path: Path) -> None:
    whole = tables((FIRST, SECOND), (FIRST, SECOND)) + bytes(188)
    for place in range(5, 2 * 188):
        broken = bytearray(3 * whole)
        broken[place] ^= 0xFF
        (tmp_path / "in.ts").write_bytes(broken)
        programs(tmp_path / "in.ts")
    (tmp_path / "in.txt").write_text("Eins")
    assert programs(tmp_path / "in.txt") == () == programs(tmp_path / "none.ts")


def test_the_division_into_programs_is_named_as_lost(tmp_path: Path) -> None:
    source, options = tmp_path / "in.ts", {"model": "nearest", "preset": "ultrafast"}
    clip(source)
    assert not prepare(source, tmp_path / "out.ts", JobOptions().with_changes(keep_all=True, **options)).streams.losses
    source.write_bytes(source.read_bytes() + tables((FIRST, SECOND), (FIRST, SECOND)))
    with pytest.raises(OptionError, match=r"the division into programs \(Service01, Eins, Zwei\)"):
        prepare(source, tmp_path / "out.ts", JobOptions().with_changes(keep_all=True, **options))
