"""Videos measured against one another, frame by frame, in step: PSNR, SSIM, flicker, and pictures of chosen frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from a2n_video.engine.resize import resize
from a2n_video.errors import InputError
from a2n_video.io.rgb import Image
from a2n_video.tools.footage import Footage, Shot
from a2n_video.tools.metrics import luma, psnr, ssim

BICUBIC: Final = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who is compared. `base` is the reference (of the results' size) or the source of them; `small` is what bicubic enlarges."""

    base: Footage
    base_name: str
    results: dict[str, Footage]
    small: Footage | None

    @property
    def has_reference(self) -> bool:
        return self.base.info.width == self.width and self.base.info.height == self.height

    @property
    def width(self) -> int:
        return next(iter(self.results.values())).info.width

    @property
    def height(self) -> int:
        return next(iter(self.results.values())).info.height

    @property
    def versions(self) -> list[str]:
        """What has curves: bicubic first where there is something to enlarge, then the results."""
        return [*([BICUBIC] if self.small else []), *self.results]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One version on one frame.

    With a reference: `psnr_db` and `ssim` on luma. Without: `kept_db`, the PSNR on luma of the result shrunk back to the source's size
    (area) against the source. `flicker` is the mean absolute change of luma since the frame before, in 8-bit steps, less that of the
    base; None on the first frame. `vmaf` is filled in later where it can be had.
    """

    frame: int
    time: Fraction
    version: str
    psnr_db: float | None = None
    ssim: float | None = None
    kept_db: float | None = None
    flicker: float | None = None
    vmaf: float | None = None


@dataclass(frozen=True, kw_only=True)
class Still:
    """A chosen frame: its label, time and pictures by version, the base first (at its own size)."""

    label: str
    frame: int
    time: Fraction
    pictures: dict[str, Image]


@dataclass
class Comparison:
    """Everything measured, and what could not be."""

    cast: Cast
    rows: list[Measurement] = field(default_factory=list)
    stills: list[Still] = field(default_factory=list)
    frames: int = 0
    unmatched: int = 0  # frames of the base that some result has no frame for


def in_step(
    base: Footage, results: list[Footage], start: Fraction | None, frames: int | None, small: Footage | None = None
) -> Iterator[tuple[Shot, list[Shot | None]]]:
    """Each frame of `base` at or after `start` with the others' frames of the same time, None where one has none; `small`'s comes last.

    The results begin with the first of these, as those of a job with that --start do; `small`, what they were made from, is uncut like
    the base. Times are equal when they differ by less than half a frame.
    """
    near = base.time_map.step * base.time_map.time_base / 2
    begin = None if start is None else base.begin(start)
    streams = [_pairing(result.shots(), near) for result in results]
    whole = None if small is None else _pairing(small.shots(begin), near)
    origin: Fraction | None = None
    for shot in base.shots(begin, frames):
        origin = shot.time if origin is None else origin
        found = [stream(shot.time - origin) for stream in streams]
        yield replace(shot, time=shot.time - origin), [*found, *([] if whole is None else [whole(shot.time)])]


def _pairing(shots: Iterator[Shot], near: Fraction) -> Callable[[Fraction], Shot | None]:
    """Asked for ever later times, it gives the frame that is nearer to each than `near`, None where there is none."""
    head = next(shots, None)

    def at(time: Fraction) -> Shot | None:
        nonlocal head
        while head is not None and head.time < time - near:
            head = next(shots, None)
        return head if head is not None and head.time < time + near else None

    return at


def measure(cast: Cast, times: list[Fraction], *, start: Fraction | None = None, frames: int | None = None) -> Comparison:
    """Measure every frame, at most `frames`, and keep pictures of the frames shown at `times`, seconds from the first of them.

    Where there is a reference, the frame of the first result's lowest PSNR is kept too.
    """
    result = Comparison(cast=cast)
    meter, stills = _Meter(cast), _Stills(times)
    small = cast.small if cast.small is not None and cast.small is not cast.base else None
    for shot, found in in_step(cast.base, list(cast.results.values()), start, frames, small):
        seen = [other for other in found if other is not None]
        if len(seen) < len(found):
            result.unmatched += 1
            continue
        versions = meter.versions(shot, seen)
        rows = meter.rows(result.frames, shot, versions)
        result.rows += rows
        stills.see(result.frames, {cast.base_name: shot, **versions}, rows[-len(cast.results)].psnr_db)
        result.frames += 1
    if not result.frames:
        raise InputError(f"{cast.base.path}: no frame of it has the time of a frame of every result; were they made with --start?")
    result.stills = stills.kept()
    return result


class _Stills:
    """Keeps pictures of the frames shown at given times, and of the one with the lowest PSNR."""

    def __init__(self, times: list[Fraction]) -> None:
        self.wanted = sorted(times)
        self.due: list[Still] = []
        self.last: tuple[int, dict[str, Shot]] | None = None  # it is shown until the next one comes
        self.worst: tuple[float, Still] | None = None

    def see(self, frame: int, shots: dict[str, Shot], psnr_db: float | None) -> None:
        """Look at the next frame: its versions, the base first, and the PSNR of the first result."""
        self._keep_last(_time(shots))
        self.last = frame, shots
        if psnr_db is not None and (self.worst is None or psnr_db < self.worst[0]):
            self.worst = psnr_db, _still(frame, shots)

    def _keep_last(self, until: Fraction | None) -> None:
        """Keep the last frame if it was wanted before a time; None: it is shown to the end."""
        later = [] if until is None else [time for time in self.wanted if time >= until]
        if self.last is not None and len(later) < len(self.wanted):
            self.due.append(_still(*self.last))
            self.wanted = later

    def kept(self) -> list[Still]:
        """All, once every frame was seen: in order of time, the one of the lowest PSNR last, unless it is among the others."""
        self._keep_last(None)
        if self.worst is None or self.worst[1].frame in [still.frame for still in self.due]:
            return self.due
        still = self.worst[1]
        return [*self.due, replace(still, label=f"{still.label}, lowest PSNR")]


def _time(shots: dict[str, Shot]) -> Fraction:
    return next(iter(shots.values())).time


def _still(frame: int, shots: dict[str, Shot]) -> Still:
    time = _time(shots)
    return Still(label=f"{float(time):.2f} s", frame=frame, time=time, pictures={name: shot.image for name, shot in shots.items()})


class _Meter:
    """Measures frames in order; it remembers the luma of the frame before."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.before: dict[str, Tensor] = {}

    def versions(self, base: Shot, seen: list[Shot]) -> dict[str, Shot]:
        """Frames by version: bicubic made here from the small video, then the results."""
        named = dict(zip(self.cast.results, seen, strict=False))
        if self.cast.small is None:
            return named
        small = base if self.cast.small is self.cast.base else seen[-1]
        return {BICUBIC: replace(small, rgb=resize(small.rgb, self.cast.height, self.cast.width)), **named}

    def rows(self, number: int, shot: Shot, versions: dict[str, Shot]) -> list[Measurement]:
        lumas = {name: _luma(version.rgb) for name, version in versions.items()}
        base = _luma(shot.rgb)
        # The base's change is measured at the results' size: small pictures change more from pixel to pixel.
        full = base if self.cast.has_reference else resize(base, self.cast.height, self.cast.width)
        changes = {name: self._change(name, y) for name, y in {"": full, **lumas}.items()}
        return [
            Measurement(
                frame=number,
                time=shot.time,
                version=name,
                **self._likeness(y, base),
                flicker=None if changes[""] is None else (changes[name] or 0.0) - changes[""],
            )
            for name, y in lumas.items()
        ]

    def _change(self, name: str, y: Tensor) -> float | None:
        before = self.before.get(name)
        self.before[name] = y
        return None if before is None else float((y - before).abs().mean())

    def _likeness(self, y: Tensor, base: Tensor) -> dict[str, float]:
        if self.cast.has_reference:
            return {"psnr_db": psnr(y, base).item(), "ssim": ssim(y, base).item()}
        return {"kept_db": psnr(F.interpolate(y, base.shape[-2:], mode="area"), base).item()}


def _luma(rgb: Tensor) -> Tensor:
    """Luma of a frame as it is shown: 8 bits a channel."""
    return luma((255 * rgb).round().clamp(0, 255))


def mean_of(rows: list[Measurement], version: str, name: str) -> float | None:
    """Mean of one measure of one version over the frames that have it; None where none has."""
    values = [value for row in rows if row.version == version and (value := getattr(row, name)) is not None]
    return math.fsum(values) / len(values) if values else None
