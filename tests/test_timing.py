"""Time end to end: every frame of the source is in the result once, at its time, and sound keeps its distance from the picture.

What is right is known from how each clip is made, not asked of the product. In MP4 times must be exact, in Matroska to half a
millisecond, its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from a2n_video import upscale_video
from tests.clips import MS, QUICK, TICK, Clip, Sound, read_frames, read_stream, write_clip

FRAME = Fraction(1, 25)


def steady(count: int, start: Fraction = Fraction(0), step: Fraction = FRAME) -> list[Fraction]:
    return [start + step * n for n in range(count)]


def uneven(count: int, unit: Fraction) -> list[Fraction]:
    """A variable rate: steps of 17 to 260 units with no pattern."""
    times, now = [], Fraction(0)
    for n in range(count):
        times.append(now)
        now += unit * (17 + (n * 7919) % 243)
    return times


B_FRAMES = {"bf": "3", "preset": "veryfast", "g": "12"}
NO_B_FRAMES = {"bf": "0", "preset": "ultrafast", "g": "12"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A source, and what of it must come out when: (seconds, number) of each frame. `audio_moves`: sound and picture move alike by this."""

    suffix: str
    clip: Clip
    expected: Sequence[tuple[Fraction, int]]
    sound: bool = True


def shape(
    suffix: str, times: Sequence[Fraction], *, audio: Fraction | None = Fraction(0), shift: Fraction = Fraction(0), **changes: Any
) -> Shape:
    base = changes.pop("time_base", TICK if suffix == "mp4" else MS)
    sounds = () if audio is None else (Sound(start=audio, codec="ac3", seconds=Fraction(1, 2)),)
    clip = Clip(times=times, time_base=base, sounds=sounds, options=changes.pop("options", NO_B_FRAMES), **changes)
    stored = [round(time / base) * base for time in times]
    return Shape(suffix=suffix, clip=clip, expected=[(time + shift, n) for n, time in enumerate(stored)], sound=audio is not None)


def hidden_start() -> Shape:
    """An MP4 whose edit list begins in the middle: what lies before zero is not shown."""
    made = shape("mp4", steady(24, -5 * FRAME), options={**NO_B_FRAMES, "g": "1"})
    return Shape(suffix="mp4", clip=made.clip, expected=[(t, n) for t, n in made.expected if t >= 0])


SHAPES: dict[str, Callable[[], Shape]] = {
    "cfr": lambda: shape("mkv", steady(24)),
    "cfr-90k": lambda: shape("mp4", steady(24)),
    "ntsc": lambda: shape("mp4", steady(24, step=Fraction(1001, 30000))),
    "ntsc-ms": lambda: shape("mkv", steady(24, step=Fraction(1001, 24000))),
    "vfr": lambda: shape("mkv", uneven(24, MS)),
    "vfr-90k": lambda: shape("mp4", uneven(24, 37 * TICK)),
    "long-gap": lambda: shape("mkv", steady(10) + steady(10, Fraction(4))),
    "offset": lambda: shape("mkv", steady(20, Fraction(1, 2))),
    "offset-90k": lambda: shape("mp4", steady(20, Fraction(1, 2)), audio=Fraction(1, 2)),
    "sound-late": lambda: shape("mp4", steady(20), audio=Fraction(3, 10)),
    "picture-late": lambda: shape("mkv", steady(20, Fraction(3, 10))),
    "negative": lambda: shape("mkv", steady(20, -8 * FRAME), shift=8 * FRAME, audio=None),
    "hidden-start": hidden_start,
    "b-frames": lambda: shape("mkv", steady(24), options=B_FRAMES),
    "b-frames-90k": lambda: shape("mp4", uneven(24, 37 * TICK), options=B_FRAMES),
    **{f"frames-{n}": lambda n=n: shape("mp4", steady(n), options=B_FRAMES) for n in (1, 2, 3, 17, 49)},  # type: ignore[misc]
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Shape]]:
    """Each source is made once, when a case first asks for it."""
    folder, known = tmp_path_factory.mktemp("sources"), dict[str, tuple[Path, Shape]]()

    def make(name: str) -> tuple[Path, Shape]:
        if name not in known:
            source = SHAPES[name]()
            known[name] = write_clip(folder / f"{name}.{source.suffix}", source.clip), source
        return known[name]

    return make


def assert_frames(result: Path, expected: Sequence[tuple[Fraction, int]]) -> None:
    """The same pictures in the same order at the same times; Matroska rounds to its millisecond."""
    frames = read_frames(result)
    assert [number for _, number in frames] == [number for _, number in expected]
    allowed = MS / 2 if result.suffix in (".mkv", ".webm") else Fraction(0)
    late = [
        (n, float(got - want)) for n, ((got, _), (want, _)) in enumerate(zip(frames, expected, strict=True)) if abs(got - want) > allowed
    ]
    assert not late, f"frames off their time: {late[:5]}"


def assert_in_sync(source: Path, result: Path) -> None:
    """Sound is copied whole and lies where it lay against the picture, to 1 ms."""
    before, after = read_stream(source, "audio"), read_stream(result, "audio")
    assert [digest for _, digest in before] == [digest for _, digest in after]
    apart = (before[0][0] - read_frames(source)[0][0]) - (after[0][0] - read_frames(result)[0][0])
    assert abs(apart) <= MS


OUTPUTS = [
    *((codec, container) for codec in ("libx264", "libx265", "libsvtav1", "libvpx-vp9") for container in ("mkv", "mp4")),
    ("ffv1", "mkv"),
    ("prores_ks", "mov"),
]


@pytest.mark.parametrize(("codec", "container"), OUTPUTS)
@pytest.mark.parametrize("name", list(SHAPES))
def test_every_frame_comes_at_its_time(name: str, codec: str, container: str, made: Any, tmp_path: Path) -> None:
    source, shape = made(name)
    result = tmp_path / f"out.{container}"
    done = upscale_video(source, result, model="nearest", threads=1, **QUICK[codec])
    assert not done.damage.errors
    assert done.verified.startswith(f"verified: {len(shape.expected)} frame")
    assert_frames(result, shape.expected)
    if shape.sound:
        assert_in_sync(source, result)
