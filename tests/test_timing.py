"""Time end to end: every frame of the source is in the result once, at its time, and sound keeps its distance from the picture.

What is right is known from how each clip is made, not asked of the product. In MP4 times must be exact, in Matroska to half a
millisecond, its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video import upscale_video
from a2n_video.errors import OptionError, UnsupportedFormatError
from a2n_video.job.planning.plan import prepare
from a2n_video.options import JobOptions
from tests.clips import MS, QUICK, TICK, Clip, Sound, in_pieces, read_frames, read_sound, read_stream, with_gap, with_sound_at, write_clip
from tests.fields import write_fields
from tests.made import picture

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
    ("mpeg4", "mp4"),
    ("mpeg2video", "mkv"),
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


@pytest.mark.parametrize(
    ("codec", "box"), [("libx264", "mp4"), ("libx265", "mov"), ("libx264", "mkv"), ("ffv1", "mkv"), ("prores_ks", "mov")]
)
def test_a_long_last_frame_lasts_as_long(codec: str, box: str, tmp_path: Path) -> None:
    """A screen that no longer changes: its last picture is held until the part that was asked for ends."""
    clip = Clip(times=[*steady(20), Fraction(10)], options=B_FRAMES)
    source, result = write_clip(tmp_path / "source.mkv", clip), tmp_path / f"out.{box}"
    upscale_video(source, result, model="nearest", end=Fraction(6), threads=1, **QUICK[codec])
    with av.open(str(result)) as container:
        assert container.duration == 6_000_000


@pytest.mark.parametrize("late", [1, 2, 3, 4, 5])
def test_a_gap_before_the_last_frames_is_not_added_to_them(late: int, tmp_path: Path) -> None:
    """A packet's length in MP4 is one of decode time: with B-frames that of another frame than the one it shows."""
    held = {"bf": "3", "preset": "veryfast", "b_strategy": "0", "sc_threshold": "0"}
    clip = Clip(times=[*steady(40), *steady(late, Fraction(10))], options=held, time_base=TICK)
    source, result = write_clip(tmp_path / "source.mp4", clip), tmp_path / "out.mkv"
    upscale_video(source, result, model="nearest", threads=1, **QUICK["libx264"])
    with av.open(str(result)) as container:
        assert container.duration == 10_000_000 + 40_000 * late


FROM_ZERO = {"avoid_negative_ts": "make_non_negative"}
# What a source may be stored as; each is read with a video encoder of its own, and written to both containers.
SOURCES: dict[str, tuple[str, Clip]] = {
    "hevc.mkv": ("mkv", Clip(times=steady(17), codec="libx265", options={"x265-params": "log-level=error:pools=1:bframes=3"})),
    "vp9.webm": (
        "webm",
        Clip(times=steady(17), codec="libvpx-vp9", options={"deadline": "realtime", "lag-in-frames": "6", "auto-alt-ref": "1"}),
    ),
    "vp9.mp4": ("mp4", Clip(times=steady(17), codec="libvpx-vp9", options={"deadline": "realtime"}, time_base=TICK)),
    "av1.mkv": ("mkv", Clip(times=steady(17), codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"})),
    "av1.mp4": ("mp4", Clip(times=steady(17), codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}, time_base=TICK)),
    "mpeg2.mkv": ("mkv", Clip(times=steady(17), codec="mpeg2video", options={"bf": "2", "b": "2M"}, time_base=FRAME)),
    "mpeg4.mp4": ("mp4", Clip(times=steady(17), codec="mpeg4", options={"bf": "2", "b": "2M"}, time_base=Fraction(1, 25000))),
    "ffv1.mkv": ("mkv", Clip(times=uneven(17, MS), codec="ffv1")),
    "mjpeg.mov": ("mov", Clip(times=uneven(17, 37 * TICK), codec="mjpeg", time_base=TICK)),
    "h264.nut": (
        "nut",
        Clip(times=uneven(17, 37 * TICK), options=B_FRAMES, time_base=TICK, muxer={"avoid_negative_ts": "make_non_negative"}),
    ),
    "h264.ts": ("ts", Clip(times=uneven(17, 37 * TICK), options=B_FRAMES, time_base=TICK)),
    "mpeg2.ts": ("ts", Clip(times=steady(17), codec="mpeg2video", options={"bf": "2", "b": "2M"}, time_base=FRAME)),
    "mpeg4.avi": ("avi", Clip(times=steady(17), codec="mpeg4", options={"bf": "0", "b": "2M"}, time_base=FRAME)),
    "h264-b.avi": ("avi", Clip(times=steady(17), options=B_FRAMES, time_base=FRAME)),
    "mjpeg.avi": ("avi", Clip(times=steady(17), codec="mjpeg", time_base=FRAME)),
}


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("name", list(SOURCES))
def test_every_kind_of_source_keeps_its_frames_and_times(name: str, container: str, tmp_path: Path) -> None:
    """Against the first frame: some of these containers begin at times of their own."""
    suffix, clip = SOURCES[name]
    source, result = write_clip(tmp_path / f"source.{suffix}", clip), tmp_path / f"out.{container}"
    upscale_video(source, result, model="nearest", threads=1, **QUICK["libx264"])
    found = read_frames(result)
    start = found[0][0] - clip.times[0]
    unit = MS if suffix in ("mkv", "webm") else clip.time_base
    stored = [round(time / unit) * unit for time in clip.times]
    assert [number for _, number in found] == list(range(len(clip.times)))
    allowed = Fraction(0) if container == "mp4" and suffix != "ts" else MS
    assert all(abs(time - start - want) <= allowed for (time, _), want in zip(found, stored, strict=True))


def joined(*parts: Path) -> bytes:
    return b"".join(part.read_bytes() for part in parts)


def test_joined_transport_streams_follow_one_another(tmp_path: Path) -> None:
    """Two recordings in one file: the second one's clock starts anew, and its pictures come after the first one's, sound alike."""
    clip = Clip(times=steady(15), options=B_FRAMES, time_base=TICK, sounds=(Sound(codec="ac3", seconds=Fraction(3, 5)),))
    part = write_clip(tmp_path / "part.ts", clip)
    source, result = tmp_path / "joined.ts", tmp_path / "out.mp4"
    source.write_bytes(joined(part, part))
    done = upscale_video(source, result, model="nearest", **QUICK["libx264"])
    assert any("starts anew" in warning for warning in done.warnings)
    frames, sound, alone = read_frames(result), read_stream(result, "audio"), read_stream(part, "audio")
    assert [number for _, number in frames] == [*range(15), *range(15)]
    times = [time for time, _ in frames]
    assert times == sorted(set(times))
    assert [b - a for part in (times[:15], times[15:]) for a, b in pairwise(part)] == [FRAME] * 28
    half = len(alone)
    assert [digest for _, digest in sound] == [digest for _, digest in alone] * 2
    offsets = [sound[0][0] - times[0], sound[half][0] - times[15], alone[0][0] - read_frames(part)[0][0]]
    assert max(offsets) - min(offsets) <= MS, "each part keeps its own sync"


@pytest.mark.parametrize("reencode", [None, "aac"])
@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_joined_transport_streams_keep_sound_that_lies_several_frames_to_a_packet(codec: str, reencode: str | None, tmp_path: Path) -> None:
    """A parser cuts them apart, and all but the first have no place in the file, by which they are told to be of the second part."""
    clip = Clip(times=steady(49), time_base=TICK, sounds=(Sound(codec=codec, seconds=Fraction(2)),), muxer={"max_delay": "700000"})
    part = write_clip(tmp_path / "part.ts", clip)
    source, result = tmp_path / "joined.ts", tmp_path / "out.mp4"
    source.write_bytes(joined(part, part))
    done = upscale_video(source, result, model="nearest", reencode_audio=reencode, **QUICK["libx264"])
    assert done.damage.moved == 0
    times = [time for time, _ in read_stream(result, "audio")]
    assert all(0 < b - a < Fraction(1, 8) for a, b in pairwise(times)) and times[-1] > Fraction(39, 10)


@pytest.mark.parametrize("frames", [15, 18])
def test_joined_transport_streams_without_sound_keep_their_step(frames: int, tmp_path: Path) -> None:
    clip = Clip(times=steady(frames, Fraction(10)), options=B_FRAMES, time_base=TICK, muxer={"mpegts_copyts": "1"})
    part = write_clip(tmp_path / "part.ts", clip)
    source, result = tmp_path / "joined.ts", tmp_path / "out.mp4"
    source.write_bytes(joined(part, part))
    upscale_video(source, result, model="nearest", threads=1, **QUICK["libx264"])
    assert read_frames(result) == [(n * FRAME, n % frames) for n in range(2 * frames)]


def test_a_counter_that_runs_over_is_unwrapped(tmp_path: Path) -> None:
    """33 bits of 90 kHz: the picture's times pass 2**33 in the middle of the file."""
    start = Fraction(2**33, 90000) - Fraction(2, 5)
    source = write_clip(tmp_path / "wrap.ts", Clip(times=steady(20, start), options=B_FRAMES, time_base=TICK, muxer={"mpegts_copyts": "1"}))
    result = tmp_path / "out.mkv"
    upscale_video(source, result, model="nearest", **QUICK["libx264"])
    found = read_frames(result)
    assert [number for _, number in found] == list(range(20))
    assert all(abs(time - found[0][0] - n * FRAME) <= MS for n, (time, _) in enumerate(found))


IN_MID_GROUP = {
    "libx264": {**B_FRAMES, "g": "24", "sc_threshold": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error:pools=1:bframes=3:keyint=24:min-keyint=24:scenecut=0"},
    "mpeg2video": {"bf": "2", "g": "24", "sc_threshold": "1000000000", "b": "2M"},
}


def in_mid_group(path: Path, codec: str) -> Path:
    """A recording of 49 frames that lacks its first eight packets: no frame can be decoded before number 24."""
    base = FRAME if codec == "mpeg2video" else TICK
    whole = write_clip(
        path.with_name(f"whole{path.suffix}"), Clip(times=steady(49), codec=codec, options=IN_MID_GROUP[codec], time_base=base)
    )
    with av.open(str(whole)) as source, av.open(str(path), "w", format="mpegts") as output:
        target = output.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in [packet for packet in source.demux(video=0) if packet.size][8:]:
            packet.stream = target
            output.mux(packet)
    return path


@pytest.mark.parametrize("codec", list(IN_MID_GROUP))
@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, range(24, 49)),
        ({"frames": 10}, range(24, 34)),
        ({"end": Fraction(2, 5)}, range(24, 34)),
        ({"start": Fraction(2, 5), "frames": 5}, range(34, 39)),
        ({"segment_frames": 6}, range(24, 49)),
    ],
)
def test_a_recording_that_begins_in_mid_group_is_counted_from_its_first_frame(
    changes: dict[str, Any], wanted: range, codec: str, tmp_path: Path
) -> None:
    source, result = in_mid_group(tmp_path / "recording.ts", codec), tmp_path / "out.mp4"
    done = upscale_video(source, result, model="nearest", threads=1, **changes, **QUICK["libx264"])
    assert done.exit_code == 0 and not done.damage.errors
    assert [number for _, number in read_frames(result)] == list(wanted)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"frames": 10}, [(n * FRAME, n) for n in range(10)]),
        ({"start": Fraction(1), "frames": 10}, [(n * FRAME, 25 + n) for n in range(10)]),
        ({"end": Fraction(2, 5), "deinterlace": "field"}, [(n * FRAME / 2, n // 2) for n in range(20)]),
        ({"segment_frames": 9}, [(n * FRAME, n) for n in range(40)]),
    ],
)
def test_a_frame_whose_fields_are_packets_is_one_frame(changes: dict[str, Any], wanted: list[tuple[Fraction, int]], tmp_path: Path) -> None:
    """As 1080i is broadcast. Its fields were counted as frames, and each had half a frame's time."""
    source, result = write_fields(tmp_path / "fields.ts", 40), tmp_path / "out.mp4"
    upscale_video(source, result, model="nearest", threads=1, **changes, **QUICK["libx264"])
    assert read_frames(result) == wanted


def test_a_damaged_field_adds_no_frame(tmp_path: Path) -> None:
    source, result = write_fields(tmp_path / "fields.ts", 40, lost=(20,)), tmp_path / "out.mp4"
    done = upscale_video(source, result, model="nearest", threads=1, **QUICK["libx264"])
    found = read_frames(result)
    assert done.damage.errors and [time for time, _ in found] == steady(40)
    assert [number for number, (_, shown) in enumerate(found) if shown != number] == [20]


@pytest.mark.parametrize(("fps", "step"), [(None, FRAME), (Fraction(24000, 1001), Fraction(1001, 24000)), (Fraction(50), Fraction(1, 50))])
def test_a_source_without_times_is_counted_at_its_rate(fps: Fraction | None, step: Fraction, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "raw.h264", Clip(times=steady(17), options=B_FRAMES, time_base=FRAME))
    result = tmp_path / "out.mp4"
    done = upscale_video(source, result, model="nearest", **({"fps": fps} if fps else {}), **QUICK["libx264"])
    assert any("no times" in warning for warning in done.warnings)
    found = read_frames(result)
    assert [number for _, number in found] == list(range(17))
    assert all(abs(time - found[0][0] - n * step) <= TICK for n, (time, _) in enumerate(found))


@pytest.mark.parametrize("container", ["avi", "y4m", "mkv", "nut"])
@pytest.mark.parametrize(
    ("fps", "deinterlace", "rate"), [("50", "auto", 50), ("30000/1001", "auto", Fraction(30000, 1001)), ("20", "field", 40)]
)
def test_the_rate_of_a_source_without_times_is_also_the_results(
    fps: str, deinterlace: str, rate: Fraction, container: str, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "raw.h264", Clip(times=steady(8), options=B_FRAMES, time_base=FRAME))
    result = tmp_path / f"out.{container}"
    codec = {} if container == "y4m" else QUICK["libx264"]
    upscale_video(source, result, model="nearest", fps=fps, deinterlace=deinterlace, **codec)
    with av.open(str(result)) as file:
        assert abs(float(file.streams.video[0].average_rate) / float(rate) - 1) < 0.02  # nut and mkv say it by a duration of whole ticks


@pytest.mark.parametrize("container", ["avi", "mkv", "mp4"])
@pytest.mark.parametrize("fps", [30, 24, 12])
def test_an_avi_that_is_told_its_rate_plays_at_it(fps: int, container: str, tmp_path: Path) -> None:
    """Its own clock ticks at the rate it claims, 25, which can say no other."""
    source = write_clip(tmp_path / "source.avi", Clip(times=steady(12), codec="mpeg4", time_base=FRAME))
    upscale_video(source, tmp_path / f"out.{container}", model="nearest", fps=fps, **QUICK["libx264"])
    times = [time for time, _ in read_frames(tmp_path / f"out.{container}")]
    assert all(abs(time - times[0] - Fraction(n, fps)) <= MS for n, time in enumerate(times))


@pytest.mark.parametrize("suffix", ["avi", "mov"])
@pytest.mark.parametrize("part", [{}, {"start": "0.4", "end": "0.8"}, {"segment_frames": 3}])
def test_film_from_a_clock_of_frames_is_even(part: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    """Four frames in the time of five fall between its ticks."""
    source = write_clip(tmp_path / f"source.{suffix}", Clip(times=steady(25), codec="mpeg4", time_base=FRAME))
    upscale_video(source, tmp_path / "out.mp4", model="nearest", deinterlace="ivtc", **part, **QUICK["libx264"])
    times = [time for time, _ in read_frames(tmp_path / "out.mp4")]
    assert len(times) == (8 if "start" in part else 20)
    assert [b - a for a, b in pairwise(times)] == [Fraction(1, 20)] * (len(times) - 1)


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("where", [(5,), (5, 6, 7), (1,), (16,)])
def test_doubled_times_are_mended(where: tuple[int, ...], container: str, tmp_path: Path) -> None:
    """A frame with its neighbour's time comes right after it; all others stay where they are."""
    stored = steady(17)
    for place in where:
        stored[place] = stored[where[0] - 1]
    source, result = tmp_path / "doubled.mkv", tmp_path / f"out.{container}"
    write_clip(source, Clip(times=steady(17), stored=stored, codec="mjpeg"))
    done = upscale_video(source, result, model="nearest", **QUICK["libx264"])
    found = read_frames(result)
    assert [number for _, number in found] == list(range(17))
    assert any("the time of another" in warning for warning in done.warnings)
    assert all(b > a for (a, _), (b, _) in pairwise(found))
    assert [time for n, (time, _) in enumerate(found) if n not in where] == [n * FRAME for n in range(17) if n not in where]


@pytest.mark.parametrize(("suffix", "result"), [("mkv", "mkv"), ("mp4", "mkv"), ("mkv", "avi")])
@pytest.mark.parametrize(("codec", "options"), [("libx264", B_FRAMES), ("mpeg4", {"bf": "1", "qscale": "2", "sc_threshold": "1000000000"})])
def test_decode_times_are_given_out_in_turn(codec: str, options: dict[str, str], suffix: str, result: str, tmp_path: Path) -> None:
    """As in MP4s made from AVI: packets say when they are decoded, so that frames have each other's times."""
    stored = steady(24) if result == "avi" else uneven(24, MS)
    clip = Clip(times=steady(24), stored=stored, codec=codec, options=options, time_base=MS)
    source = write_clip(tmp_path / f"in.{suffix}", clip)
    assert [time for time, _ in read_frames(source)] != stored
    done = upscale_video(source, tmp_path / f"out.{result}", model="nearest", **QUICK["libx264"])
    found = read_frames(tmp_path / f"out.{result}")
    assert [number for _, number in found] == [number for _, number in read_frames(source)]
    assert [time - found[0][0] for time, _ in found] == stored
    assert any("when its frames are decoded" in warning for warning in done.warnings) and not done.damage


@pytest.mark.parametrize(
    ("codec", "container", "anew"),
    [
        *((codec, container, None) for codec in ("pcm_s16le", "pcm_u8", "pcm_alaw") for container in ("mov", "avi")),
        ("pcm_s16le", "mp4", None),
        *(("flac", container, "pcm_s16le") for container in ("mov", "avi")),
    ],
)
def test_a_gap_in_sound_stays_one_where_samples_are_counted(codec: str, container: str, anew: str | None, tmp_path: Path) -> None:
    """Silence takes its place, so that what comes after it is not early."""
    clip = Clip(times=steady(25), options=NO_B_FRAMES, sounds=(Sound(codec=codec),))
    suffix = "nut" if codec == "pcm_alaw" else "mkv"
    whole = write_clip(tmp_path / f"whole.{suffix}", clip)
    source = with_gap(whole, tmp_path / f"gap.{suffix}", (Fraction(3, 10), Fraction(7, 10)))
    done = upscale_video(source, tmp_path / f"out.{container}", model="nearest", reencode_audio=anew, **QUICK["libx264"])
    assert done.verified == "verified: 25 frames, 1 audio identical"
    due, found = read_sound(whole), read_sound(tmp_path / f"out.{container}")
    assert len(found) == len(due)
    lost = [time for time, _ in read_stream(whole, "audio") if Fraction(3, 10) <= time < Fraction(7, 10)]
    after = next(time for time, _ in read_stream(whole, "audio") if time >= Fraction(7, 10))
    begin, end = round(lost[0] * 48000), round(after * 48000)
    assert np.abs(found[begin + 48 : end - 48]).max() < 1e-3, "silence, to the millisecond that Matroska knows"
    for part in (slice(begin - 48), slice(end + 48, None)):
        assert np.array_equal(found[part], due[part])


# How times are moved, milliseconds of silence, and what is lost: nothing, some of the times, or all of the sound.
WAVERING: dict[str, tuple[Callable[[Fraction], Fraction], int, str]] = {
    "by some milliseconds": (lambda time: time + int(1000 * time) % 7 * MS, 0, ""),
    "by more": (lambda time: time + int(1000 * time) % 2 * 15 * MS, 15, ""),
    "too slow": (lambda time: time * Fraction(104, 100), 40, ""),
    "too fast": (lambda time: time * Fraction(96, 100), 0, "delay"),
    "much too fast": (lambda time: time * Fraction(85, 100), 0, "audio"),
}


@pytest.mark.parametrize("container", ["mov", "mp4", "avi"])
@pytest.mark.parametrize("name", list(WAVERING))
def test_raw_sound_whose_times_are_not_those_of_its_samples_is_whole(name: str, container: str, tmp_path: Path) -> None:
    """Where its samples are counted: silence makes up for times that run ahead, what runs behind is late, and too much is dropped."""
    moved, silence, lost = WAVERING[name]
    clip = Clip(times=steady(25), options=NO_B_FRAMES, sounds=(Sound(codec="pcm_s16le"),))
    source = with_sound_at(write_clip(tmp_path / "even.mkv", clip), tmp_path / "in.mkv", moved)
    plan = prepare(source, tmp_path / f"plan.{container}", JobOptions().with_changes(model="nearest"))
    assert [fate.kind for fate in plan.streams.losses if fate.kind in ("audio", "delay")] == ([lost] if lost else [])
    done = upscale_video(source, tmp_path / f"out.{container}", model="nearest", **QUICK["libx264"])
    assert done.verified == f"verified: 25 frames{'' if lost == 'audio' else ', 1 audio identical'}" and not done.damage
    if lost != "audio":
        assert abs(len(read_sound(tmp_path / f"out.{container}")) - 48000 - 48 * silence) <= 48 * 11


@pytest.mark.parametrize("gap", [(Fraction(3, 20), Fraction(3, 10)), (Fraction(7, 10), Fraction(17, 20))])
def test_a_gap_in_sound_whose_packets_avi_counts_is_found_when_planning(gap: tuple[Fraction, Fraction], tmp_path: Path) -> None:
    """Also after the packets that are tried; and where the part has none, the sound goes along."""
    clip = Clip(times=steady(25), options=NO_B_FRAMES, sounds=(Sound(codec="aac"),))
    source = with_gap(write_clip(tmp_path / "whole.mkv", clip), tmp_path / "gap.mkv", gap)
    options = JobOptions().with_changes(model="nearest")
    plan = prepare(source, tmp_path / "out.avi", options)
    assert [fate.what for fate in plan.streams.losses if fate.kind == "audio"] == ["audio 1 (aac)"]
    part = prepare(source, tmp_path / "out.avi", options.with_changes(start=Fraction(2, 5), end=Fraction(3, 5)))
    assert not [fate for fate in part.streams.losses if fate.kind == "audio"]


def test_times_that_step_back_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such as decode times that only show as such later in the file than anybody looks."""
    monkeypatch.setattr("a2n_video.io.order._LOOK_AT", 1)
    source = write_clip(tmp_path / "back.mkv", Clip(times=steady(20), stored=steady(20), options=B_FRAMES))
    done = upscale_video(source, tmp_path / "out.mkv", model="nearest", **QUICK["libx264"])
    assert [number for _, number in read_frames(tmp_path / "out.mkv")] == list(range(20))
    assert len([warning for warning in done.warnings if "step back" in warning]) == 1


def test_a_file_whose_edit_list_shows_nothing_gives_what_it_holds(tmp_path: Path) -> None:
    """All frames before zero: FFmpeg shows none. They are upscaled nonetheless, and it is said; sound that is made anew comes too."""
    sound = Sound(start=Fraction(-5), seconds=Fraction(2, 5))
    clip = Clip(times=steady(10, Fraction(-5)), options={**NO_B_FRAMES, "g": "1"}, time_base=TICK, sounds=(sound,))
    source = write_clip(tmp_path / "hidden.mp4", clip)
    assert not read_frames(source)
    for result, how in (("out.mp4", QUICK["libx264"]), ("out.webm", {"reencode_audio": "opus", **QUICK["libvpx-vp9"]})):
        done = upscale_video(source, tmp_path / result, model="nearest", **how)
        assert any("edit list" in warning for warning in done.warnings)
        assert [number for _, number in read_frames(tmp_path / result)] == list(range(10))
        assert read_stream(tmp_path / result, "audio")


def test_sound_beside_an_edit_list_that_shows_nothing_is_made_anew(tmp_path: Path) -> None:
    """It is left aside for all streams alike."""
    sound = Sound(start=Fraction(-5), seconds=Fraction(1))
    clip = Clip(times=steady(25, Fraction(-5)), options={**NO_B_FRAMES, "g": "1"}, time_base=TICK, sounds=(sound,))
    source = write_clip(tmp_path / "hidden.mp4", clip)
    done = upscale_video(source, tmp_path / "out.webm", model="nearest", reencode_audio="opus", **QUICK["libvpx-vp9"])
    assert done.verified == "verified: 25 frames, 1 audio identical"


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP4 as phones and cutters without loss make them: an edit list hides the first second."""
    clip = Clip(
        times=steady(50, Fraction(-1)),
        options={**NO_B_FRAMES, "g": "10"},
        time_base=TICK,
        sounds=(Sound(start=Fraction(-1), seconds=Fraction(2)),),
    )
    return write_clip(tmp_path_factory.mktemp("trimmed") / "in.mp4", clip)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "nut", "avi"])
def test_sound_that_an_edit_list_hides_stays_unheard(container: str, trimmed: Path, tmp_path: Path) -> None:
    """MP4 and Matroska keep it before zero, the others cannot: there it is left out, and nothing waits for it."""
    result = tmp_path / f"out.{container}"
    done = upscale_video(trimmed, result, model="nearest", **QUICK["libx264"])
    assert done.verified == "verified: 25 frames, 1 audio identical"
    with av.open(str(result)) as made:
        heard = sum(frame.samples for frame in made.decode(audio=0))
    assert 0 <= Fraction(heard, 48000) - 1 < Fraction(1, 40)
    whole = container in ("mp4", "mkv")
    assert len(read_stream(result, "audio")) == (94 if whole else 48)
    assert not [warning for warning in done.warnings if "1." in warning], "the picture does not wait a second"


@pytest.mark.parametrize(
    ("codec", "suffix", "container"),
    [*(("aac", "mp4", box) for box in ("mkv", "mp4", "ts", "avi")), *(("pcm_s16le", "mov", box) for box in ("mkv", "mov", "nut", "avi"))],
)
def test_sound_between_two_pieces_stays_unheard(codec: str, suffix: str, container: str, tmp_path: Path) -> None:
    """As editors cut without encoding: what the edit list leaves out in the middle no container could hide."""
    sound = Sound(codec=codec, seconds=Fraction(8, 5))
    clip = Clip(times=steady(40), options={**B_FRAMES, "g": "10", "sc_threshold": "0"}, time_base=TICK, sounds=(sound,))
    whole = write_clip(tmp_path / f"whole.{suffix}", clip)
    source = in_pieces(whole, tmp_path / f"in.{suffix}", ((Fraction(0), Fraction(2, 5)), (Fraction(4, 5), Fraction(8, 5))))
    done = upscale_video(source, tmp_path / f"out.{container}", model="nearest", **QUICK["libx264"])
    assert done.verified == "verified: 30 frames, 1 audio identical" and not done.damage
    assert not [warning for warning in done.warnings if "later" in warning and "0.0" not in warning]
    assert [number for _, number in read_frames(tmp_path / f"out.{container}")] == [*range(10), *range(20, 40)]
    due = [digest for time, digest in read_stream(whole, "audio") if not Fraction(2, 5) <= time < Fraction(4, 5)]
    found = read_stream(tmp_path / f"out.{container}", "audio", strip=7 if container == "ts" else 0)
    assert [digest for _, digest in found] == due or codec != "aac"
    assert len(read_sound(tmp_path / f"out.{container}")) - Fraction(6, 5) * 48000 in range(-1024, 2048)


def test_a_video_that_an_edit_list_trims_begins_with_a_keyframe(tmp_path: Path) -> None:
    """Where its hidden pictures cannot be hidden: 25 of them, with a keyframe every tenth picture."""
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w", options={"avoid_negative_ts": "disabled"}) as output:
        packets = []
        for first in (0, -25):
            video: Any = output.add_stream("libx264", rate=25, options={"g": "10", "bf": "2", "b-adapt": "0", "sc_threshold": "0"})
            video.width, video.height, video.pix_fmt, video.codec_context.time_base = 64, 48, "yuv420p", FRAME
            for number in range(first, 25):
                frame = picture(number - first)
                frame.pts, frame.time_base = number, FRAME
                packets += video.encode(frame)
            packets += video.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * Fraction(packet.time_base)):
            output.mux(packet)
    plan = prepare(source, tmp_path / "out.ts", JobOptions().with_changes(model="nearest"))
    assert [fate.what for fate in plan.streams.losses] == ["the first 0.200 s of video 2 (h264)"]
    done = upscale_video(source, tmp_path / "out.ts", model="nearest", **QUICK["libx264"])
    assert done.verified == "verified: 25 frames, 1 video identical"
    with av.open(str(tmp_path / "out.ts")) as made, av.open(str(source)) as given:
        found = [frame.to_ndarray() for frame in made.decode(video=1)]
        due = [frame.to_ndarray() for frame in given.decode(video=1)]
    assert len(found) == 20 and all((a == b).all() for a, b in zip(found, due[5:], strict=True))


def test_avi_takes_steady_frames_and_names_the_delay_it_loses(tmp_path: Path) -> None:
    """All its streams begin together; sound keeps its distance in all the others."""
    clip = Clip(times=steady(20, Fraction(2, 5)), options=NO_B_FRAMES, sounds=(Sound(codec="pcm_s16le", start=Fraction(9, 20)),))
    source, result = write_clip(tmp_path / "source.mkv", clip), tmp_path / "out.avi"
    plan = prepare(source, result, JobOptions().with_changes(model="nearest"))
    assert [fate.what for fate in plan.streams.losses] == ["delay of audio 1 (pcm_s16le) (+50.0 ms)"]
    done = upscale_video(source, result, model="nearest", **QUICK["libx264"])
    assert done.verified == "verified: 20 frames, 1 audio identical"
    found = read_frames(result)
    assert [number for _, number in found] == list(range(20))
    assert [time - found[0][0] for time, _ in found] == steady(20)
    with av.open(str(result)) as container:
        assert {frame.pict_type for frame in container.decode(video=0)} <= {1, 2}, "a container without times gets no B-frames"


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        (Clip(times=uneven(20, MS), options=NO_B_FRAMES), "one frame rate"),
        (Clip(times=steady(20), options=NO_B_FRAMES, sounds=(Sound(codec="ac3", start=Fraction(3, 10)),)), "0.29. s after the picture"),
    ],
)
def test_what_avi_cannot_hold_is_refused_before_the_first_frame(clip: Clip, told: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mkv", clip)
    with pytest.raises(OptionError, match=told):
        upscale_video(source, tmp_path / "out.avi", model="nearest", **QUICK["libx264"])
    assert [path.name for path in tmp_path.iterdir()] == ["source.mkv"]


def test_avi_and_matroska_are_asked_of_the_part_alone(tmp_path: Path) -> None:
    """An uneven frame, or one too near to its neighbour, in what is cut off is nobody's trouble."""
    times = [Fraction(0), Fraction(1, 10), Fraction(1, 10) + Fraction(1, 4000), *steady(20, Fraction(1, 5))]
    source = write_clip(tmp_path / "source.mp4", Clip(times=times, options=NO_B_FRAMES, time_base=TICK))
    for container in ("avi", "mkv"):
        options = JobOptions().with_changes(model="nearest", start=Fraction(1, 5))
        assert prepare(source, tmp_path / f"out.{container}", options).frames == 20
        with pytest.raises((OptionError, UnsupportedFormatError), match=r"frame [12] "):
            prepare(source, tmp_path / f"out.{container}", options.with_changes(start=None))


@pytest.mark.parametrize(("start", "lost"), [(Fraction(2, 5), "+11.0"), (Fraction(12, 25), "+27.0"), (None, "-5.0")])
def test_sound_that_avi_moves_at_a_cut_is_named(start: Fraction | None, lost: str, tmp_path: Path) -> None:
    """Its first whole packet after the cut begins with the picture: packets of AC-3 last 32 ms, and begin 5 ms early here."""
    clip = Clip(times=steady(25), options=NO_B_FRAMES, sounds=(Sound(codec="ac3"),))
    source, result = write_clip(tmp_path / "source.mkv", clip), tmp_path / "out.avi"
    plan = prepare(source, result, JobOptions().with_changes(model="nearest", start=start))
    assert [fate.what for fate in plan.streams.losses] == [f"delay of audio 1 (ac3) ({lost} ms)"]


def test_sound_that_avi_does_not_take_does_not_keep_the_rest_from_it(tmp_path: Path) -> None:
    """AAC of a transport stream is refused by name; that it begins long before the picture is no matter then."""
    clip = Clip(times=[1 + n * FRAME for n in range(10)], sounds=(Sound(start=Fraction(1, 2)),))
    plan = prepare(write_clip(tmp_path / "in.ts", clip), tmp_path / "out.avi", JobOptions().with_changes(model="nearest"))
    assert [(fate.kind, fate.what) for fate in plan.streams.losses if "audio" in fate.what] == [("audio", "audio 1 (aac)")]


def test_sound_that_begins_after_the_part_does_not_keep_it_from_avi(tmp_path: Path) -> None:
    clip = Clip(times=steady(25), options=NO_B_FRAMES, sounds=(Sound(codec="pcm_s16le", start=Fraction(3, 5), seconds=Fraction(2, 5)),))
    source = write_clip(tmp_path / "source.mkv", clip)
    done = upscale_video(source, tmp_path / "out.avi", model="nearest", end=Fraction(2, 5), **QUICK["libx264"])
    assert done.frames == 10


CUTS: dict[str, tuple[dict[str, Any], range]] = {
    "start": ({"start": Fraction(2, 5)}, range(10, 50)),
    "between frames": ({"start": Fraction(41, 100)}, range(11, 50)),
    "end": ({"end": Fraction(4, 5)}, range(20)),
    "both": ({"start": Fraction(2, 5), "end": Fraction(6, 5)}, range(10, 30)),
    "frames": ({"frames": 7}, range(7)),
    "start and frames": ({"start": Fraction(2, 5), "frames": 7}, range(10, 17)),
    "past the end": ({"start": Fraction(1), "end": Fraction(60)}, range(25, 50)),
}


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("source_kind", ["mkv", "mp4"])
@pytest.mark.parametrize("name", list(CUTS))
def test_a_part_is_cut_frame_exact_with_its_sound(name: str, source_kind: str, container: str, tmp_path: Path) -> None:
    changes, wanted = CUTS[name]
    sound = Sound(codec="ac3", seconds=Fraction(2))
    clip = Clip(times=steady(49), options=B_FRAMES, time_base=MS if source_kind == "mkv" else TICK, sounds=(sound,))
    wanted = range(wanted.start, min(wanted.stop, 49))
    source, result = write_clip(tmp_path / f"source.{source_kind}", clip), tmp_path / f"out.{container}"
    upscale_video(source, result, model="nearest", **changes, **QUICK["libx264"])
    found = read_frames(result)
    assert [number for _, number in found] == list(wanted)
    assert all(abs(time - found[0][0] - n * FRAME) <= MS for n, (time, _) in enumerate(found))
    begin = wanted.start * FRAME
    low = Fraction(0) if "start" in changes else Fraction(-1)
    high = len(wanted) * FRAME if wanted.stop < 49 else Fraction(9)
    before = [(time - begin, digest) for time, digest in read_stream(source, "audio")]
    after = [(time - found[0][0], digest) for time, digest in read_stream(result, "audio")]
    inside = [(time, digest) for time, digest in before if low <= time < high]
    assert [digest for _, digest in after] == [digest for _, digest in inside]
    assert all(abs(a - b) <= MS for (a, _), (b, _) in zip(inside, after, strict=True))


@pytest.mark.parametrize("changes", [{"start": Fraction(9)}, {"end": Fraction(0)}, {"start": Fraction(1), "end": Fraction(1)}])
def test_an_empty_part_is_refused_before_anything_is_written(changes: dict[str, Any], tmp_path: Path) -> None:
    source = write_clip(tmp_path / "source.mkv", Clip(times=steady(10)))
    with pytest.raises(OptionError, match="no frame"):
        upscale_video(source, tmp_path / "out.mkv", model="nearest", **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.mkv"]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "avi"])
def test_a_start_far_into_the_file_is_frame_exact(suffix: str, tmp_path: Path) -> None:
    """Far enough for the reader to seek: wherever that lands, the first frame is the one at the time asked for."""
    base = Fraction(1, 1) if suffix == "avi" else TICK if suffix in ("mp4", "ts") else MS
    clip = Clip(times=steady(49, step=Fraction(1)), options={**B_FRAMES, "g": "7"}, time_base=base)
    source, result = write_clip(tmp_path / f"source.{suffix}", clip), tmp_path / "out.mkv"
    upscale_video(source, result, model="nearest", start=Fraction(37), end=Fraction(45), **QUICK["libx264"])
    found = read_frames(result)
    assert [number for _, number in found] == list(range(37, 45))
    assert all(abs(time - found[0][0] - n) <= MS for n, (time, _) in enumerate(found))


def test_times_that_only_an_overflow_makes_are_none(tmp_path: Path) -> None:
    """As in nut files whose decode times began below zero: pts near -2^63 among others."""
    source, dest = tmp_path / "bad.nut", tmp_path / "out.mkv"
    with av.open(str(source), "w", options={"avoid_negative_ts": "disabled"}) as output:
        video: Any = output.add_stream("libx264", rate=25, options={"bf": "3"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("flac", rate=44100, layout="mono")
        for number in range(30):
            frame = picture(number)
            frame.pts = number
            output.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1764), np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts = 44100, number * 1764
            output.mux(sound.encode(samples))
        output.mux(video.encode())
        output.mux(sound.encode())
    with av.open(str(source)) as written:
        assert any((packet.pts or 0) < -(1 << 62) for packet in written.demux(video=0))
    result = upscale_video(source, dest, model="nearest")
    assert result.frames == 30 and result.exit_code in (0, 4)
    with av.open(str(dest)) as made:
        assert 1 < float((made.duration or 0) / 1_000_000) < 3
