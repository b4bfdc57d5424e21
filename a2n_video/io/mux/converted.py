"""A stream of the result that is made from one of the source's, such as text subtitles in another format: what all kinds have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import OutputContainer
from av.packet import Packet

from a2n_video.media.timemap import TimeMap


@dataclass
class Converted(ABC):
    """Stream `index` of the source in another codec, for one output; used by the thread that muxes.

    `start` and `end` bound it on the result's clock, `ignore_edits` as in `open_source`. It adds itself, then gives packets by dts.
    `undecoded` counts the source's packets that could not be decoded, `moved` those whose times stepped back.
    """

    path: Path
    index: int
    codec: str
    time_map: TimeMap
    start: Fraction | None = None
    end: Fraction | None = None
    ignore_edits: bool = False
    undecoded: int = 0
    moved: int = 0

    @abstractmethod
    def add_to(self, output: OutputContainer) -> Any:
        """Add the stream to an output whose header is not yet written, and return it."""

    @abstractmethod
    def packets(self) -> Iterator[Packet[Any]]:
        """The encoded packets, by time."""
