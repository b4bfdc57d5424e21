"""The Python side of the filter without VapourSynth: addresses in, addresses out."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from a2n_video import vs_engine
from a2n_video.engine.nearest import NearestEngine
from a2n_video.engine.protocol import Geometry, Rows
from a2n_video.errors import DeviceError, MissingDependencyError, OptionError
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.planes import PlaneFormat, Planes, Samples
from a2n_video.options import ExecutionPlan, ModelOptions

YUV420P8 = vs_engine.ClipFormat(3, 0, 8, 1, 1, 16, 12)
UNTAGGED = (vs_engine.UNSET,) * vs_engine.COLOR_TAGS
BT709_LEFT = (1, 0, 1, 1, 0)


def request(**changes: object) -> vs_engine.Request:
    return vs_engine.Request(2, "nearest", None, None, None, 4, 1)._replace(**changes)


class Frames:
    """Frames in memory of our own, with rows apart, and the table that the native side would send."""

    def __init__(self, fmt: PlaneFormat, tags: Sequence[Sequence[int]], seed: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.padded = [[self._plane(plane.height, plane.width, fmt, rng, seed) for plane in fmt.planes] for _ in tags]
        self.planes = [[plane[:, : shape.width] for plane, shape in zip(frame, fmt.planes, strict=True)] for frame in self.padded]
        self.tags = tags
        self.where = np.zeros((len(tags), 2, vs_engine.MAX_PLANES), np.int64)  # addresses, strides
        for i, frame in enumerate(self.padded):
            for p, plane in enumerate(frame):
                self.where[i, :, p] = plane.ctypes.data, plane.strides[0]

    @staticmethod
    def _plane(height: int, width: int, fmt: PlaneFormat, rng: np.random.Generator, seed: int | None) -> Samples:
        stride = -(-width // 32) * 32 + 32
        values = np.zeros((height, stride)) if seed is None else rng.random((height, stride))
        return values.astype(fmt.dtype) if fmt.floating else (values * (2**fmt.depth - 1)).astype(fmt.dtype)


class Recording(NearestEngine):
    """Nearest, and what it was given; fails where told to."""

    opened: list[Recording]
    broken = False

    def __init__(self, geometry: Geometry, batch_size: int) -> None:
        super().__init__(geometry, batch_size)
        self.batches: list[int] = []
        self.closed = False
        self.opened.append(self)

    def submit(self, frames: Sequence[Planes]) -> Future[Rows]:
        self.batches.append(len(frames))
        if type(self).broken:
            failed: Future[Rows] = Future()
            failed.set_exception(RuntimeError("no more"))
            return failed
        return super().submit(frames)

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Every engine that a filter opens from now on."""
    opened: list[Recording] = []
    monkeypatch.setattr(Recording, "opened", opened, raising=False)
    monkeypatch.setattr(Recording, "broken", False)

    def open_engine(plan: ExecutionPlan, geometry: Geometry) -> Recording:
        return Recording(geometry, plan.batch_size)

    monkeypatch.setattr(vs_engine, "open_engine", open_engine)
    return opened


def upscale(opened: vs_engine.Filter, frames: Frames, *, at_once: bool = False) -> Frames:
    """A group through the filter, as the native side would send it; the result has the tags that were answered."""
    target = Frames(opened.fmt.scaled(opened.scale), [UNTAGGED] * len(frames.planes))
    tags = np.array(frames.tags, np.int64)
    table = np.concatenate([x.reshape(len(tags), -1) for x in (tags, np.full_like(tags, -9), frames.where, target.where)], axis=1)
    if at_once:
        assert opened(table.ctypes.data, len(tags)) > 0
    else:
        assert opened.finish(opened.submit(table.ctypes.data, len(tags))) > 0
    assert table[:, : vs_engine.COLOR_TAGS].tolist() == tags.tolist()
    target.tags = table[:, vs_engine.COLOR_TAGS : 2 * vs_engine.COLOR_TAGS].tolist()
    opened._tables.clear()  # the native side's tables stay where they are; this one goes
    return target


def expected(fmt: PlaneFormat, color: ColorSpec, frame: Planes, scale: int = 2) -> tuple[Samples, ...]:
    geometry = Geometry(source=fmt, color=color, scale=scale)
    return geometry.target.unpack(NearestEngine(geometry).submit([frame]).result()[0])


@pytest.mark.parametrize(
    "clip",
    [
        YUV420P8,
        YUV420P8._replace(bits=10, log2_chroma_h=0),
        YUV420P8._replace(bits=16, log2_chroma_w=0, log2_chroma_h=0),
        vs_engine.ClipFormat(3, 1, 32, 1, 1, 16, 12),
        vs_engine.ClipFormat(1, 0, 8, 0, 0, 15, 11),
        vs_engine.ClipFormat(2, 1, 16, 0, 0, 15, 11),
    ],
    ids=["420P8", "422P10", "444P16", "420PS", "GRAY8", "RGBH"],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_results_land_in_the_planes_addressed_and_nowhere_else(clip: vs_engine.ClipFormat, at_once: bool) -> None:
    fmt = clip.plane_format()
    opened = vs_engine.Filter(fmt, request().options())
    frames = Frames(fmt, [UNTAGGED, UNTAGGED], seed=1)
    target = upscale(opened, frames, at_once=at_once)
    color = ColorSpec().settled(fmt)
    for source, got, padded in zip(frames.planes, target.planes, target.padded, strict=True):
        for plane, right, whole in zip(got, expected(fmt, color, source), padded, strict=True):
            np.testing.assert_array_equal(plane, right)
            assert not whole[:, plane.shape[1] :].any()


def test_strides_may_change_from_frame_to_frame() -> None:
    fmt = vs_engine.ClipFormat(1, 0, 8, 0, 0, 16, 4).plane_format()
    opened = vs_engine.Filter(fmt, request().options())
    for stride in (16, 48, 20):
        frames = Frames(fmt, [UNTAGGED], seed=stride)
        plane = np.random.default_rng(stride).integers(0, 255, (4, stride), np.uint8)
        frames.where[0, :, 0] = plane.ctypes.data, stride
        np.testing.assert_array_equal(upscale(opened, frames).planes[0][0], expected(fmt, ColorSpec().settled(fmt), [plane[:, :16]])[0])


def test_frames_of_one_group_go_to_the_engine_of_their_own_colour(engines: list[Recording]) -> None:
    fmt = YUV420P8.plane_format()
    opened = vs_engine.Filter(fmt, request().options())
    tags = [BT709_LEFT, UNTAGGED, BT709_LEFT]
    frames = Frames(fmt, tags, seed=2)
    target = upscale(opened, frames)
    assert [engine.batches for engine in engines] == [[1], [2]]
    for source, tag, got in zip(frames.planes, tags, target.planes, strict=True):
        right = expected(fmt, vs_engine.color_of(tag).settled(fmt), source)
        for plane, wanted in zip(got, right, strict=True):
            np.testing.assert_array_equal(plane, wanted)


def test_the_answer_has_the_settled_tags() -> None:
    opened = vs_engine.Filter(YUV420P8.plane_format(), request().options())
    target = upscale(opened, Frames(opened.fmt, [UNTAGGED, (9, 1, 9, 16, 2)], seed=3))
    assert target.tags == [[6, 0, 6, 6, 0], [9, 1, 9, 16, 2]]


@pytest.mark.parametrize(
    ("tags", "full"),
    [(UNTAGGED, False), ((0, -1, -1, -1, -1), True), ((0, 0, -1, -1, -1), False), ((2, -1, 2, 2, -1), False), ((1, 1, 1, 1, 0), True)],
)
def test_gray_is_answered_what_it_said(engines: list[Recording], tags: tuple[int, ...], full: bool) -> None:
    """A plane of RGB is full range, as RGB is."""
    opened = vs_engine.Filter(vs_engine.ClipFormat(1, 0, 8, 0, 0, 16, 12).plane_format(), request().options())
    assert upscale(opened, Frames(opened.fmt, [tags], seed=3)).tags == [list(tags)]
    assert engines[-1].geometry.color.full_range is full


def test_tags_that_mean_the_same_arithmetic_share_an_engine(engines: list[Recording]) -> None:
    opened = vs_engine.Filter(YUV420P8.plane_format(), request().options())
    upscale(opened, Frames(opened.fmt, [UNTAGGED, (5, 0, 5, 6, 0), (6, 0, 6, 8, vs_engine.UNSET)], seed=4))
    assert [engine.batches for engine in engines] == [[3]]


def test_engines_for_colours_long_gone_are_closed(engines: list[Recording]) -> None:
    opened = vs_engine.Filter(YUV420P8.plane_format(), request().options())
    for tags in (BT709_LEFT, (9, 0, 9, 16, 0), UNTAGGED):
        upscale(opened, Frames(opened.fmt, [tags], seed=5))
    assert [engine.closed for engine in engines] == [True, True, False, False]
    opened.close()
    assert all(engine.closed for engine in engines)


def test_a_group_of_many_colours_closes_no_engine_before_its_turn(engines: list[Recording]) -> None:
    opened = vs_engine.Filter(YUV420P8.plane_format(), request().options())
    tags = [BT709_LEFT, (9, 0, 9, 16, 0), (1, 1, 1, 1, 2), UNTAGGED]
    frames = Frames(opened.fmt, tags, seed=7)
    target = upscale(opened, frames)
    for source, tag, got in zip(frames.planes, tags, target.planes, strict=True):
        np.testing.assert_array_equal(got[0], expected(opened.fmt, vs_engine.color_of(tag).settled(opened.fmt), source)[0])
    assert sum(not engine.closed for engine in engines) == 2


def test_views_are_found_again_and_do_not_pile_up() -> None:
    fmt = vs_engine.ClipFormat(1, 0, 8, 0, 0, 16, 4).plane_format()
    memory = vs_engine._Memory(fmt)
    buffer = np.zeros((2000, 16), np.uint8)
    where = [vs_engine.PLANES.pack(buffer[n:].ctypes.data, 0, 0, 16, 0, 0) for n in range(1990)]
    assert memory.planes(where[3]) is memory.planes(where[3])
    for n, at in enumerate(where):
        assert memory.planes(at)[0].ctypes.data == buffer[n:].ctypes.data
    assert len(memory._kept) <= 256


def test_what_the_engine_raises_comes_out_and_the_next_group_gets_a_new_engine(engines: list[Recording]) -> None:
    opened = vs_engine.Filter(YUV420P8.plane_format(), request().options())
    Recording.broken = True
    with pytest.raises(RuntimeError, match="no more"):
        upscale(opened, Frames(opened.fmt, [UNTAGGED], seed=6))
    Recording.broken = False
    assert upscale(opened, Frames(opened.fmt, [UNTAGGED], seed=6)).planes[0][0].any()
    assert [engine.closed for engine in engines] == [True, False]


def test_what_the_engine_raises_names_options_as_scripts_do() -> None:
    fmt = vs_engine.ClipFormat(1, 1, 32, 0, 0, 16, 4).plane_format()
    frames = Frames(fmt, [UNTAGGED])
    frames.planes[0][0][:] = np.nan
    with pytest.raises(DeviceError, match=r"try dtype float32 or device cpu$"):
        upscale(vs_engine.Filter(fmt, request().options()), frames)


def test_an_engine_is_not_closed_over_a_batch_that_is_waited_for() -> None:
    class Slow(NearestEngine):
        def close(self) -> None:
            assert future.done()

    future: Future[Rows] = Future()
    engine = Slow(Geometry(source=YUV420P8.plane_format(), color=ColorSpec(), scale=2))
    slot = vs_engine._Slot(engine, future)
    future.set_running_or_notify_cancel()
    threading.Timer(0.05, future.set_result, [np.zeros((1, 1))]).start()
    slot.close()


@pytest.mark.parametrize(("changes", "words"), [({"dtype": "fp8"}, "no dtype 'fp8'"), ({"batch_size": -1}, "batch")])
def test_what_the_script_may_not_ask_for(changes: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        vs_engine.Filter(YUV420P8.plane_format(), request(**changes).options())


@pytest.mark.parametrize("chroma", range(6))
def test_chroma_locations_are_numbered_from_0_there_and_from_1_here(chroma: int) -> None:
    fmt = YUV420P8.plane_format()
    color = vs_engine.color_of((1, 0, 1, 1, chroma))
    assert color.chroma_location == chroma + 1
    assert vs_engine.tags_of(color.settled(fmt), fmt) == [1, 0, 1, 1, chroma]


def test_rgb_is_full_range_and_has_no_chroma_location() -> None:
    fmt = vs_engine.ClipFormat(2, 0, 8, 0, 0, 16, 12).plane_format()
    assert vs_engine.tags_of(vs_engine.color_of(UNTAGGED).settled(fmt), fmt)[:2] == [0, 1]
    assert vs_engine.tags_of(vs_engine.color_of(UNTAGGED).settled(fmt), fmt)[-1] == vs_engine.UNSET


def test_where_openvino_cannot_be_loaded_beside_another_plugin_torch_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planned: list[str] = []

    def resolve_plan(options: ModelOptions, geometry: Geometry) -> ExecutionPlan:
        return ExecutionPlan(model="a2n", engine="openvino" if options.engine == "auto" else options.engine, batch_size=3)

    def open_engine(plan: ExecutionPlan, geometry: Geometry) -> NearestEngine:
        planned.append(plan.engine)
        if plan.engine == "openvino":
            raise MissingDependencyError("no OpenVINO") from ImportError("versions differ")
        return NearestEngine(geometry, plan.batch_size)

    monkeypatch.setattr(vs_engine, "resolve_plan", resolve_plan)
    monkeypatch.setattr(vs_engine, "open_engine", open_engine)
    opened = vs_engine.Filter(YUV420P8.plane_format(), request().options())
    assert planned == ["openvino", "torch"]
    assert opened.batch_size == 3
    assert "versions differ" in caplog.text
    with pytest.raises(MissingDependencyError):
        vs_engine.Filter(YUV420P8.plane_format(), request(dtype="int8").options())


def test_the_filters_state_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vs_engine, "find_spec", lambda name: None)
    assert vs_engine.filter_state() == "VapourSynth is not installed"
    spec = ModuleSpec("vapoursynth", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(vs_engine, "find_spec", lambda name: spec)
    assert vs_engine.filter_state().startswith("core.a2n is missing")
    folder = tmp_path / "plugins" / "a2n"
    folder.mkdir(parents=True)
    (folder / "MISSING.txt").write_text("core.a2n was not built: no C compiler\nMore.\n")
    assert vs_engine.filter_state() == "core.a2n was not built: no C compiler"
    (folder / "liba2n.so").touch()
    assert vs_engine.filter_state() == "core.a2n is installed"


_TWO_FILTERS = """
import ctypes
from a2n_video import vs_engine
from a2n_video.engine.worker import WorkerEngine

stop = WorkerEngine.stop
WorkerEngine.stop = lambda engine: (print("stopped", flush=True), stop(engine))
gate = ctypes.CFUNCTYPE(None)(lambda: print("gate", flush=True))
address = ctypes.cast(gate, ctypes.c_void_p).value
kept = [vs_engine.open_filter((1, 0, 8, 0, 0, 16, 12), (2, model, None, None, None, 1, 1), address) for model in ("nearest", "a2n-tiny")]
"""


def test_no_frame_is_let_in_where_engines_end_with_the_interpreter() -> None:
    """Nor where the first filter had none that has an end."""
    done = subprocess.run([sys.executable, "-c", _TWO_FILTERS], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["gate", "stopped"]), done.stderr
