"""Where packets lie in their file, by which it is told on which of its clocks their times are."""

from __future__ import annotations

from typing import Any

from av.packet import Packet


class Positions:
    """Tells the byte offset of each packet of one reading, in order: one that a parser cut out of a larger packet has none of its own.

    It lies where its stream's last one lay, None before there was one.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def of(self, packet: Packet[Any]) -> int | None:
        if packet.pos is not None:
            self._last[packet.stream_index] = packet.pos
        return self._last.get(packet.stream_index)
