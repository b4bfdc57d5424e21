"""What a finished file is to be beside its frames: what makes it and what holds it against its source are told the same."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.info import HdrMetadata, VideoInfo
from a2n_video.media.streams import StreamPlan
from a2n_video.media.timemap import TimeMap


@dataclass(frozen=True, kw_only=True)
class FinalFile:
    """The source, what becomes of its streams, and the picture's header.

    `time_map` places everything but the picture, and bounds it where --start, --end or --frames cut. `width`, `height`, `color`, `sar`,
    `display_matrix` and `hdr` are those of the result; None for `pix_fmt` leaves the format open. One that is not `tagged` has no place for
    colour tags.
    """

    info: VideoInfo
    plan: StreamPlan
    time_map: TimeMap
    width: int
    height: int
    color: ColorSpec
    tagged: bool = True
    pix_fmt: str | None = None
    sar: Fraction = Fraction(1)
    display_matrix: tuple[int, ...] | None = None
    hdr: HdrMetadata | None = None
