"""core.a2n.Upscale inside a core: what it gives, what it costs, what it refuses."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from a2n_video import vs_engine
from a2n_video.engine.nearest import NearestEngine
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.media.colorspec import UNTAKEN, ColorSpec
from a2n_video.media.planes import PlaneFormat

vs = pytest.importorskip("vapoursynth")

FORMATS = [
    "RGB24", "RGB30", "RGB48", "RGBH", "RGBS", "GRAY8", "GRAY16", "GRAYH", "GRAYS", "YUV420P8", "YUV420P10", "YUV420P16", "YUV420PH",
    "YUV420PS", "YUV422P8", "YUV422P10", "YUV422PS", "YUV444P8", "YUV444P12", "YUV444PH", "YUV444PS",
]  # fmt: skip


def digest(frame: Any) -> str:
    return hashlib.md5(b"".join(bytes(frame[p]) for p in range(frame.format.num_planes))).hexdigest()


def digests(clip: Any, order: list[int] | None = None) -> list[str]:
    if order is None:
        return [digest(frame) for frame in clip.frames(close=True)]
    found = {n: digest(clip.get_frame(n)) for n in order}
    return [found[n] for n in sorted(found)]


def noise(core: Any, name: str, **props: int) -> Any:
    """One frame of noise in a format, within the format's range."""
    blank = core.std.BlankClip(width=36, height=20, format=getattr(vs, name), length=1)

    def draw(n: int, f: Any) -> Any:
        frame = f.copy()
        for p in range(frame.format.num_planes):
            samples = np.asarray(frame[p])
            values = np.random.default_rng(p).random(samples.shape)
            is_float = frame.format.sample_type == vs.FLOAT
            chroma = is_float and p > 0 and frame.format.color_family == vs.YUV
            samples[...] = values - 0.5 * chroma if is_float else values * (2**frame.format.bits_per_sample - 1)
        return frame

    clip = core.std.ModifyFrame(blank, blank, draw)
    return clip.std.SetFrameProps(**props) if props else clip


def direct(frame: Any, color: ColorSpec, scale: int) -> list[Any]:
    """The same frame straight through the engine."""
    f = frame.format
    clip = vs_engine.ClipFormat(
        int(f.color_family), int(f.sample_type), f.bits_per_sample, f.subsampling_w, f.subsampling_h, frame.width, frame.height
    )
    fmt: PlaneFormat = clip.plane_format()
    geometry = Geometry(source=fmt, color=color.settled(fmt), scale=scale)
    rows = NearestEngine(geometry).submit([[np.asarray(frame[p]) for p in range(f.num_planes)]]).result()
    return list(geometry.target.unpack(rows[0]))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [2, 3])
def test_every_format_is_what_the_engine_makes_of_it(core: Any, name: str, scale: int) -> None:
    clip = noise(core, name)
    result = clip.a2n.Upscale(scale=scale, model="nearest")
    assert (result.width, result.height, result.format.id) == (36 * scale, 20 * scale, clip.format.id)
    frame = result.get_frame(0)
    for p, right in enumerate(direct(clip.get_frame(0), ColorSpec(), scale)):
        np.testing.assert_array_equal(np.asarray(frame[p]), right)


@pytest.mark.parametrize(
    ("props", "color"),
    [
        ({"_Matrix": 9, "_Range": 1, "_ChromaLocation": 2}, ColorSpec(matrix=9, full_range=True, chroma_location=3)),
        ({"_Matrix": 1, "_Range": 0, "_ChromaLocation": 1}, ColorSpec(matrix=1, full_range=False, chroma_location=2)),
        ({"_Matrix": 2}, ColorSpec()),
        ({"_Matrix": 1, "_ColorRange": 0}, ColorSpec(matrix=1, full_range=True)),  # the older name counts the other way round
        ({"_Matrix": 1, "_ColorRange": 1}, ColorSpec(matrix=1, full_range=False)),
    ],
)
def test_colour_is_read_from_the_frame(core: Any, props: dict[str, int], color: ColorSpec) -> None:
    clip = noise(core, "YUV420P8", **props)
    frame = clip.a2n.Upscale(model="nearest").get_frame(0)
    for p, right in enumerate(direct(clip.get_frame(0), color, 2)):
        np.testing.assert_array_equal(np.asarray(frame[p]), right)


def test_properties_come_out_settled_and_the_others_stay(core: Any) -> None:
    clip = noise(core, "YUV420P8", _SARNum=16, _SARDen=15, _Primaries=9)
    props = dict(clip.a2n.Upscale(model="nearest").get_frame(0).props)
    found = {key: int(props[key]) for key in ("_Matrix", "_Range", "_Primaries", "_Transfer", "_ChromaLocation", "_SARNum", "_SARDen")}
    wanted = {"_Matrix": 6, "_Range": 0, "_Primaries": 9, "_Transfer": 6, "_ChromaLocation": 0, "_SARNum": 16, "_SARDen": 15}
    assert found == wanted
    assert props["_DurationNum"] == clip.get_frame(0).props["_DurationNum"]


@pytest.mark.parametrize("tags", [{"_Matrix": 0}, {"_Matrix": 2}, {}, {"_Matrix": 0, "_Range": 0}])
def test_a_plane_of_rgb_stays_one(core: Any, tags: dict[str, int]) -> None:
    """Joined again, the clip would else be RGB with a matrix, a range or primaries of YUV."""
    clip = core.std.BlankClip(format=vs.RGB24, width=16, height=8, length=1, color=[200, 100, 50]).std.SetFrameProps(**tags)
    planes = [core.std.ShufflePlanes(clip, n, vs.GRAY) for n in range(3)]
    untouched = core.std.ShufflePlanes(planes, [0, 0, 0], vs.RGB)
    joined = core.std.ShufflePlanes([core.a2n.Upscale(plane, model="nearest") for plane in planes], [0, 0, 0], vs.RGB)
    assert dict(joined.get_frame(0).props) == dict(untouched.get_frame(0).props)
    before, after = (each.resize.Bicubic(format=vs.YUV444P8, matrix=1).get_frame(0) for each in (untouched, joined))
    assert [after[p][3, 5] for p in range(3)] == [before[p][3, 5] for p in range(3)]


@pytest.mark.parametrize("threads", [1, 2, 8, 16])
@pytest.mark.parametrize("num_streams", [1, 2])
def test_every_source_frame_is_made_once_and_batches_are_full(
    core: Any, distinct: Callable[..., Any], calls: list[int], threads: int, num_streams: int
) -> None:
    core.num_threads = threads
    made: list[int] = []
    found = digests(distinct(300, made=made).a2n.Upscale(model="nearest", batch_size=8, num_streams=num_streams))
    assert sorted(made) == list(range(300))
    assert 38 <= len(calls) <= 42
    assert found == reference(distinct, 300)


def reference(distinct: Callable[..., Any], length: int) -> list[str]:
    """Digests frame by frame, one frame a batch, straight through the engine."""
    found = []
    for frame in distinct(length).frames(close=True):
        planes = direct(frame, ColorSpec(), 2)
        found.append(hashlib.md5(b"".join(plane.tobytes() for plane in planes)).hexdigest())
    return found


@pytest.mark.parametrize("batch_size", [1, 5, 8])
@pytest.mark.parametrize("num_streams", [1, 3, 8])
def test_random_access_gives_the_same_bytes(core: Any, distinct: Callable[..., Any], batch_size: int, num_streams: int) -> None:
    clip = distinct(60).a2n.Upscale(model="nearest", batch_size=batch_size, num_streams=num_streams)
    order = list(range(60)) * 2
    random.Random(7).shuffle(order)
    assert digests(clip, order) == reference(distinct, 60)


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(("batch_size", "num_streams"), [(1, 8), (4, 4), (4, 8)])
def test_far_more_jumps_than_the_cache_has_groups(core: Any, threads: int, batch_size: int, num_streams: int) -> None:
    core.num_threads = threads
    blank = core.std.BlankClip(width=32, height=32, format=vs.GRAY8, length=40 * batch_size)
    clip = core.std.FrameEval(blank, lambda n: blank.std.SetFrameProps(Number=n))
    up = clip.a2n.Upscale(model="nearest", batch_size=batch_size, num_streams=num_streams)
    rng = random.Random(0)
    for n in (rng.randrange(clip.num_frames) for _ in range(600)):
        assert up.get_frame(n).props["Number"] == n


@pytest.mark.parametrize(("batch_size", "num_streams"), [(1, 8), (4, 5), (4, 8)])
def test_parts_of_a_clip_read_in_turn(core: Any, distinct: Callable[..., Any], batch_size: int, num_streams: int) -> None:
    up = distinct(120).a2n.Upscale(model="nearest", batch_size=batch_size, num_streams=num_streams)
    parts = [up[40 * k : 40 * (k + 1)] for k in range(3)]
    right = reference(distinct, 120)
    assert digests(core.std.Interleave(parts)) == [right[40 * k + n] for n in range(40) for k in range(3)]


def test_two_clips_at_once(core: Any, distinct: Callable[..., Any]) -> None:
    core.num_threads = 4
    one = distinct(60).a2n.Upscale(model="nearest", batch_size=4)
    two = distinct(60).std.Reverse().a2n.Upscale(model="nearest", batch_size=3).std.Reverse()
    both = core.std.StackVertical([one, two])
    right = reference(distinct, 60)
    assert digests(both.std.Crop(bottom=64)) == right
    # Turned round in time, not in space: a picture upside down is added up in another order, and rounds otherwise on some processors.
    assert digests(both.std.Crop(top=64)) == right


@pytest.mark.parametrize(("batch_size", "num_streams"), [(1, 1), (4, 1), (4, 2), (1, 3)])
def test_a_frame_that_repeats_the_one_before_costs_nothing(
    core: Any, distinct: Callable[..., Any], calls: list[int], batch_size: int, num_streams: int
) -> None:
    core.num_threads = 1  # with more, sources may be ready before their predecessors; those are computed
    source = distinct(6)
    held = core.std.Splice([source[n] * 5 for n in range(6)])
    # Real copies, not shared buffers: every frame is written anew.
    held = core.std.ModifyFrame(held, held, lambda n, f: copied(f))
    numbered = core.std.FrameEval(held, lambda n: held.std.SetFrameProps(Number=n))
    result = numbered.a2n.Upscale(model="nearest", batch_size=batch_size, num_streams=num_streams)
    frames = list(result.frames())
    assert sum(calls) == 6
    assert [frame.props["Number"] for frame in frames] == list(range(30))
    assert [digest(frame) for frame in frames] == [right for right in reference(distinct, 6) for _ in range(5)]
    assert all(frame.props["_Matrix"] == 6 for frame in frames)


def copied(f: Any) -> Any:
    frame = f.copy()
    for p in range(frame.format.num_planes):
        np.asarray(frame[p])[...] = np.asarray(f[p])
    return frame


def test_equal_samples_with_another_matrix_are_no_repeat(core: Any, calls: list[int]) -> None:
    clip = noise(core, "YUV420P8")
    clip = core.std.Splice([clip, clip.std.SetFrameProps(_Matrix=9), clip.std.SetFrameProps(_Matrix=9)])
    list(clip.a2n.Upscale(model="nearest", batch_size=3).frames())
    assert calls == [1, 1]


def test_frames_of_one_group_get_their_own_tags(core: Any, distinct: Callable[..., Any]) -> None:
    clip = distinct(4)
    matrices = {0: 9, 1: 1, 3: 9}
    mixed = core.std.FrameEval(clip, lambda n: clip.std.SetFrameProps(_Matrix=matrices[n]) if n in matrices else clip)
    frames = list(mixed.a2n.Upscale(model="nearest", batch_size=4).frames())
    assert [frame.props["_Matrix"] for frame in frames] == [9, 1, 6, 9]
    for n, frame in enumerate(frames):
        right = direct(clip.get_frame(n), ColorSpec(matrix=matrices.get(n, 2)), 2)
        np.testing.assert_array_equal(np.asarray(frame[1]), right[1])


def test_one_changed_sample_is_no_repeat(core: Any, calls: list[int]) -> None:
    core.num_threads = 1  # so that the second frame finds the first
    clip = noise(core, "YUV420P8")

    def touch(n: int, f: Any) -> Any:
        frame = f.copy()
        np.asarray(frame[2])[-1, -1] ^= 1
        return frame

    list(core.std.Splice([clip, core.std.ModifyFrame(clip, clip, touch)]).a2n.Upscale(model="nearest").frames())
    assert sum(calls) == 2


def test_an_interlaced_frame_is_refused_and_its_neighbours_are_not(core: Any, distinct: Callable[..., Any]) -> None:
    clip = distinct(8)
    mixed = core.std.FrameEval(clip, lambda n: clip.std.SetFrameProps(_FieldBased=2 if n == 3 else 0))
    result = mixed.a2n.Upscale(model="nearest", batch_size=8)
    with pytest.raises(vs.Error, match=r"^a2n\.Upscale: frame 3 is interlaced .*deinterlace before upscaling.*SetFieldBased\(0\)"):
        result.get_frame(3)
    right = reference(distinct, 8)
    assert [digest(result.get_frame(n)) for n in range(8) if n != 3] == right[:3] + right[4:]


def test_what_the_engine_raises_is_that_frames_error_and_the_next_one_is_made(
    core: Any, distinct: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [True]

    class Failing(NearestEngine):
        def submit(self, frames: Any) -> Future[Rows]:
            if not failing:
                return super().submit(frames)
            future: Future[Rows] = Future()
            future.set_exception(RuntimeError("the card fell out"))
            return future

    monkeypatch.setattr(vs_engine, "open_engine", lambda plan, geometry: Failing(geometry, plan.batch_size))
    clip = distinct(8).a2n.Upscale(model="nearest", batch_size=4)
    with pytest.raises(vs.Error, match=r"^a2n\.Upscale: RuntimeError: the card fell out"):
        clip.get_frame(0)
    failing.clear()
    assert digests(clip) == reference(distinct, 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 7}, "scale is 7; it must be 2, 3 or 4"),
        ({"model": "a3n"}, "a3n"),
        ({"weights": "gone.safetensors"}, "gone.safetensors"),
        ({"dtype": "fp8", "model": "nearest"}, "no dtype 'fp8'"),
        ({"device": "cuda:63"}, "cuda:63"),
        ({"batch_size": 65, "model": "nearest"}, "batch_size is 65; it must be 1 to 64"),
        ({"num_streams": 0, "model": "nearest"}, "num_streams is 0; it must be 1 to 8"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_for_is_told_when_the_script_is_read(core: Any, changes: dict[str, object], words: str) -> None:
    clip = core.std.BlankClip(width=64, height=48, format=vs.YUV420P8, length=1)
    with pytest.raises(vs.Error) as told:
        clip.a2n.Upscale(**changes)
    assert str(told.value).startswith("a2n.Upscale: ")
    assert words in str(told.value)


@pytest.mark.parametrize("name", ["YUV410P8", "YUV411P8", "YUV440P8", "Gray32"])
def test_formats_that_are_not_taken(core: Any, name: str) -> None:
    clip = core.std.BlankClip(width=64, height=48, format=getattr(vs, name.upper()), length=1)
    with pytest.raises(vs.Error, match=rf"^a2n\.Upscale: {name} is not taken"):
        clip.a2n.Upscale(model="nearest")


@pytest.mark.parametrize("matrix", UNTAKEN)
def test_a_matrix_that_is_not_taken_is_that_frames_error_alone(core: Any, distinct: Callable[..., Any], matrix: int) -> None:
    clip = distinct(4)
    mixed = core.std.FrameEval(clip, lambda n: clip.std.SetFrameProps(_Matrix=matrix) if n == 2 else clip)
    result = mixed.a2n.Upscale(model="nearest", batch_size=4)
    with pytest.raises(vs.Error, match=rf"^a2n\.Upscale: frame 2 has the colour matrix {matrix}, which is not taken: convert it first"):
        result.get_frame(2)
    right = reference(distinct, 4)
    assert [digest(result.get_frame(n)) for n in (0, 1, 3)] == [right[0], right[1], right[3]]


@pytest.mark.parametrize("before", ["", "x"])
def test_a_long_error_keeps_its_reason_and_whole_characters(core: Any, before: str) -> None:
    """Characters of two bytes, cut at an even place or an odd one."""
    path = f"/{before}{'ф' * 600}.pt"
    with pytest.raises(vs.Error) as told:
        core.std.BlankClip(format=vs.GRAY8, width=16, height=16).a2n.Upscale(weights=path)
    text = str(told.value)
    assert re.fullmatch(rf"a2n\.Upscale: /{before}ф+ \.\.\. ф+\.pt: cannot be read: .+", text), text
    assert len(text.encode()) > 900


def test_rgb_has_no_matrix_to_refuse(core: Any, distinct: Callable[..., Any]) -> None:
    core.std.BlankClip(format=vs.RGB24, width=16, height=16, length=1).std.SetFrameProps(_Matrix=10).a2n.Upscale(model="nearest").get_frame(
        0
    )
    assert distinct(1).std.SetFrameProps(_Matrix=8).a2n.Upscale(model="nearest").get_frame(0).props["_Matrix"] == 8


def test_a_clip_of_varying_size_is_refused(core: Any) -> None:
    one = core.std.BlankClip(width=64, height=48, format=vs.YUV420P8, length=1)
    varying = core.std.Splice([one, one.std.Crop(left=32)], mismatch=True)
    with pytest.raises(vs.Error, match=r"^a2n\.Upscale: the clip's format or size varies"):
        varying.a2n.Upscale(model="nearest")


def test_the_version_is_the_packages(core: Any) -> None:
    import a2n_video

    version = core.a2n.Version()
    assert (version.decode() if isinstance(version, bytes) else version) == a2n_video.__version__


def test_the_real_network_runs(core: Any) -> None:
    clip = core.std.BlankClip(width=32, height=24, format=vs.RGBS, length=3, color=[0.25, 0.5, 0.75])
    frame = clip.a2n.Upscale(model="a2n", dtype="float32").get_frame(2)
    assert np.asarray(frame[2])[12:-12, 12:-12] == pytest.approx(0.75, abs=0.02)
