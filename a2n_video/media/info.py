"""What a source file holds, as pure values: made by io/probe.py, read by plans, the CLI and the verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat

StreamKind = Literal["video", "audio", "subtitle", "data", "attachment"]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter: exact times in seconds on the source's clock."""

    id: int
    start: Fraction
    end: Fraction
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One stream of the source, whatever its kind. `start_pts` is in units of `time_base`; `duration` in seconds."""

    index: int
    kind: StreamKind
    codec: str  # FFmpeg's codec name, "unknown" where it has none
    time_base: Fraction
    start_pts: int | None = None
    duration: Fraction | None = None
    disposition: int = 0  # AV_DISPOSITION_* flags
    metadata: Mapping[str, str] = field(default_factory=dict)  # language, title, and for attachments filename, mimetype
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    channels: int = 0
    side_data: tuple[str, ...] = ()  # names of stream-level side data

    @property
    def is_cover(self) -> bool:
        """An attached picture, which is no video to upscale."""
        return bool(self.disposition & 0x400)


@dataclass(frozen=True, kw_only=True)
class HdrMetadata:
    """Static HDR10 metadata. Mastering: chromaticities and luminances as exact fractions, content light in cd/m2."""

    red: tuple[Fraction, Fraction] | None = None
    green: tuple[Fraction, Fraction] | None = None
    blue: tuple[Fraction, Fraction] | None = None
    white: tuple[Fraction, Fraction] | None = None
    max_luminance: Fraction | None = None
    min_luminance: Fraction | None = None
    max_content: int | None = None
    max_average: int | None = None


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the container says of a video's frames: colours and fields count where they say nothing themselves."""

    color: ColorSpec = field(default_factory=ColorSpec)
    order: Literal["tff", "bff"] | None = None  # that fields are woven, and which is shown first
    hidden: tuple[int, int, int, int] = (0, 0, 0, 0)  # rows at the top and bottom, columns at the left and right that are not shown

    def cut(self, wide: int, high: int) -> tuple[int, int, int, int]:
        """`hidden`, as far as it can be cut off where a chroma sample covers so many columns and rows: those it shares stay.

        Where fields are woven each has its own, so that the same one comes first.
        """
        top, bottom, left, right = self.hidden
        high *= 1 if self.order is None else 2
        return top - top % high, bottom, left - left % wide, right


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """A source file and the one video stream in it that is upscaled.

    `planes` and `color` describe the decoder's first frame (colour as tagged, not yet settled); `pix_fmt` is the
    decoder's own format, which the reader converts to `planes` where it has no native planes (palettes, packed RGB).
    `sar` is the sample aspect ratio, 1 where unknown; `rotation` the display rotation in degrees, counter-clockwise.
    """

    path: Path
    container: str  # FFmpeg's demuxer name, such as "mov,mp4,m4a,3gp,3g2,mj2"
    size_bytes: int
    duration: Fraction | None
    metadata: Mapping[str, str]
    chapters: tuple[Chapter, ...]
    streams: tuple[StreamInfo, ...]
    video_index: int
    pix_fmt: str
    planes: PlaneFormat
    color: ColorSpec
    frame_rate: Fraction | None
    time_base: Fraction
    sar: Fraction = Fraction(1)
    rotation: float = 0.0
    display_matrix: tuple[int, ...] | None = None  # nine 16.16 / 2.30 fixed-point numbers, where there is one
    interlaced: bool = False
    hdr: HdrMetadata | None = None
    dynamic_hdr: tuple[str, ...] = ()  # "dolby vision", "hdr10+": named, cannot be kept
    beside: tuple[str, ...] = ()  # "ICC colour profile" of a picture file, "closed captions" of a video: named, not kept
    unread: tuple[str, ...] = ()  # "2 more pages": what a picture file shows beside the one picture that is taken
    alpha: bool = False
    said: Said = Said()
    first_pts: int | None = None  # raw, of the first frame that decodes; a recording may begin with packets that need what it lacks
    ignore_edits: bool = False  # its edit list shows no frame at all: it is read as if there were none

    @property
    def video(self) -> StreamInfo:
        return self.streams[self.video_index]

    @property
    def width(self) -> int:
        return self.planes.width

    @property
    def height(self) -> int:
        return self.planes.height
