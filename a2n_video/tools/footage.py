"""Frames of a file as RGB, with their times and with how they are shown: for tools that look at pictures."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from a2n_video.errors import DecodeError, OptionError
from a2n_video.io.filters import look_for_interlace
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader
from a2n_video.io.rgb import Image, read_rgb, rgb_of
from a2n_video.io.sequences import is_picture
from a2n_video.media.index import TimeMap
from a2n_video.media.info import VideoInfo
from a2n_video.media.interlace import InterlacePlan, plan_interlace, result_map
from a2n_video.options import Deinterlace
from a2n_video.tools.images import to_image

if TYPE_CHECKING:
    import av

_FAR: Final = Fraction(20)  # seconds between frames from which on a seek to each is quicker than to decode all between


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How stored pixels are shown. `sar` is a stored pixel's width over its height; rows and columns are swapped first, then mirrored."""

    sar: Fraction = Fraction(1)
    swapped: bool = False
    mirrored: bool = False  # left and right
    flipped: bool = False  # top and bottom

    @classmethod
    def of(cls, info: VideoInfo) -> Shown:
        """By the display matrix (quarter turns and reflections; other angles as the nearest of these)."""
        across, down, back, up = (info.display_matrix[i] for i in (0, 1, 3, 4)) if info.display_matrix else (1, 0, 0, 1)
        swapped = abs(down) > abs(across)
        x, y = (back, down) if swapped else (across, up)
        return cls(sar=info.sar, swapped=swapped, mirrored=x < 0, flipped=y < 0)

    def upright(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Rows and columns (H, W, ...) as they are shown, pixel for pixel; the shape of pixels is `aspect`'s."""
        turned = stored.swapaxes(0, 1) if self.swapped else stored
        return turned[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]

    def box(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Where (left, top, width, height) of a stored picture of a size (width, height) lies in the upright one."""
        left, top, width, height = box
        full = size
        if self.swapped:
            left, top, width, height, full = top, left, height, width, size[::-1]
        return (
            full[0] - left - width if self.mirrored else left,
            full[1] - top - height if self.flipped else top,
            width,
            height,
        )

    @property
    def aspect(self) -> float:
        """An upright pixel's height over its width."""
        return float(self.sar if self.swapped else 1 / self.sar)


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One frame: its place in what was read, its time in seconds from the file's first frame, RGB (1, 3, H, W) in 0..1, unclamped."""

    number: int
    time: Fraction
    rgb: Tensor
    shown: Shown = field(default_factory=Shown)

    @property
    def image(self) -> Image:
        """Upright, in 8 bits."""
        return np.ascontiguousarray(self.shown.upright(to_image(self.rgb)))


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A video that was looked into. `time_map` is that of the frames that come, `source_map` the file's own, before deinterlacing."""

    path: Path
    info: VideoInfo
    time_map: TimeMap
    source_map: TimeMap
    interlace: InterlacePlan

    @classmethod
    def open(cls, path: Path | str, deinterlace: Deinterlace = "auto") -> Footage:
        """Probe and index a file; frames are made whole as a job with that option would. InputError and its kin where it cannot be used."""
        path = Path(path)
        info = probe(path)
        source_map = scan(path, info).time_map
        plan = plan_interlace(deinterlace, look_for_interlace(path, info), info.height)
        return cls(path=path, info=info, time_map=result_map(plan, source_map), source_map=source_map, interlace=plan)

    @property
    def seconds(self) -> Fraction:
        first, end = self.time_map.window
        return end - first

    @property
    def shown(self) -> Shown:
        return Shown.of(self.info)

    def frames(self, start: Fraction | None = None, frames: int | None = None) -> Iterator[av.VideoFrame]:
        """Frames from the one shown at `start` seconds on; at most `frames`."""
        first = None if start is None else self._pts_at(start)
        with VideoReader(
            self.path,
            info=self.info,
            time_map=self.time_map,
            source_map=self.source_map,
            deinterlace=self.interlace,
            start_pts=first,
            frames=frames,
        ) as reader:
            yield from reader

    def frame(self, at: Fraction) -> av.VideoFrame:
        """The frame that is shown at `at` seconds. DecodeError where the index names one and the decoder gives none, and says nothing."""
        for frame in self.frames(at, 1):
            return frame
        raise DecodeError(f"{self.path}: the frame at {float(at):.3f} s cannot be decoded; take another time")

    def shots(self, start: Fraction | None = None, frames: int | None = None) -> Iterator[Shot]:
        """The same as RGB with times."""
        for number, frame in enumerate(self.frames(start, frames)):
            yield self._shot(number, frame)

    def shot(self, at: Fraction = Fraction(0)) -> Shot:
        """The frame that is shown at `at` seconds; errors as `frame`."""
        return self._shot(0, self.frame(at))

    def spread(self, count: int) -> Iterator[Shot]:
        """`count` shots (all frames where there are fewer) at even distances, the first frame's first, numbered as in the file."""
        count = min(count, self.time_map.frames)
        wanted = sorted({self.time_map.frames * i // count for i in range(count)})
        if self.seconds / count > _FAR:
            for number in wanted:
                yield replace(self.shot(self._seconds_at(self.time_map.times[number])), number=number)
            return
        for number, frame in enumerate(self.frames()):
            if number in wanted:
                yield self._shot(number, frame)

    def begin(self, start: Fraction | None) -> Fraction:
        """Seconds of the first frame at or after `start`, with which a job with that --start begins. OptionError where there is none."""
        if start is None:
            return Fraction(0)
        first, _ = self.time_map.range(start, None)
        place = bisect_left(self.time_map.times, first or 0)
        if place == self.time_map.frames:
            raise OptionError(f"{self.path}: no frame comes at or after {float(start):.3f} s, the video lasts {float(self.seconds):.3f} s")
        return self._seconds_at(self.time_map.times[place])

    def end(self, begin: Fraction, frames: int | None) -> Fraction:
        """Seconds at which the last of `frames` frames from the one shown at `begin` ends."""
        times = self.time_map.times
        after = None if frames is None else bisect_right(times, self._pts_at(begin)) - 1 + frames
        return self.seconds if after is None or after >= len(times) else self._seconds_at(times[after])

    def seek_to(self, at: Fraction) -> Fraction | None:
        """Seconds on the file's own clock between the frame shown at a time and the one before; None where no seek knows the time."""
        if not self.time_map.seekable:
            return None
        times, shown = self.time_map.times, self._pts_at(at)
        before = times[max(0, bisect_left(times, shown) - 1)]
        return (self.time_map.raw_pts(shown) - Fraction(shown - before, 2)) * self.time_map.time_base

    def time_of(self, frame: av.VideoFrame) -> Fraction:
        """Seconds from the file's first frame; the reader has given every frame a pts."""
        return self._seconds_at(frame.pts or 0)

    def _seconds_at(self, pts: int) -> Fraction:
        return (pts - self.time_map.first_pts) * self.time_map.time_base

    def _shot(self, number: int, frame: av.VideoFrame) -> Shot:
        return Shot(number=number, time=self.time_of(frame), rgb=rgb_of(frame), shown=self.shown)

    def _pts_at(self, at: Fraction) -> int:
        """Settled pts of the frame shown at a time, which begins at or before it."""
        if not 0 <= at < max(self.seconds, Fraction(1, 1000)):
            raise OptionError(f"{self.path}: there is no frame at {float(at):.3f} s, the video lasts {float(self.seconds):.3f} s")
        times = self.time_map.times
        wanted = self.time_map.first_pts + at / self.time_map.time_base
        return times[max(0, bisect_right(times, wanted) - 1)]


def shot_of(path: Path, at: Fraction | None = None) -> Shot:
    """A picture, or the frame of a video that is shown at `at` seconds (None: in its middle)."""
    if is_picture(path):
        image = next(read_rgb(path))
        return Shot(number=0, time=Fraction(0), rgb=torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    footage = Footage.open(path)
    return footage.shot(footage.seconds / 2 if at is None else at)
