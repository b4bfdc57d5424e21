"""The Python face: any kind of frame in, the same kind out; lazy, ordered, endless; nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import av
import numpy as np
import pytest
import torch

from a2n_video import Upscaler, upscale_frames
from a2n_video.engine.nearest import NearestEngine
from a2n_video.engine.protocol import Geometry
from a2n_video.errors import DeviceError, OptionError, UnknownModelError, UnsupportedFormatError, WeightsError
from a2n_video.frames import VideoFrameAdapter, frame_planes, rearranged
from a2n_video.media.pixfmt import FOLDED, UNFOLDED
from a2n_video.net.catalog import find_model
from a2n_video.options import ModelOptions
from tests.conftest import ROOT
from tests.io.test_filters import flagged_frame


def arrays(count: int, dtype: type = np.uint8, size: tuple[int, int] = (12, 16)) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, np.iinfo(dtype).max, (*size, 3), endpoint=True).astype(dtype) for _ in range(count)]


def test_after_frames_that_failed_it_goes_on_with_a_new_engine() -> None:
    good = torch.rand(2, 3, 12, 16)
    with Upscaler("nearest") as upscaler:
        right = upscaler(good)
        for _ in range(2):
            with pytest.raises(DeviceError, match="no numbers"):
                upscaler(torch.full((1, 3, 12, 16), 1e38))  # whose sum is infinite
            assert torch.equal(upscaler(good), right)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_an_empty_batch_gives_an_empty_batch(dtype: torch.dtype) -> None:
    with Upscaler("nearest", scale=3) as upscaler:
        result = upscaler(torch.zeros(0, 3, 12, 16, dtype=dtype))
        assert (result.shape, result.dtype) == ((0, 3, 36, 48), dtype)
        with pytest.raises(ValueError, match=r"taken are \(3, h, w\)"):
            upscaler(torch.zeros(0, 4, 12, 16))
    with pytest.raises(OptionError, match="scale"):
        Upscaler("nearest", scale=7)(torch.zeros(0, 3, 12, 16))


def repeated(frame: np.ndarray, scale: int = 2) -> np.ndarray:
    return frame.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_arrays_come_out_as_arrays_in_order(dtype: type, scale: int) -> None:
    frames = arrays(7, dtype)
    results = list(upscale_frames(frames, model="nearest", scale=scale))
    assert len(results) == 7
    for frame, result in zip(frames, results, strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, repeated(frame, scale))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_come_out_as_tensors(dtype: torch.dtype) -> None:
    frame = torch.from_numpy(arrays(1)[0]).permute(2, 0, 1)
    given = frame if dtype == torch.uint8 else (frame.float() / 255).to(dtype)
    (result,) = upscale_frames([given], model="nearest")
    assert result.dtype == dtype
    assert torch.equal(result, given.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_video_frames_keep_time_and_tags() -> None:
    frames = []
    for number in range(5):
        frame = av.VideoFrame.from_ndarray(arrays(1)[0] // 2 + number * 20, "rgb24").reformat(format="yuv420p10le")
        frame.pts, frame.time_base = number * 7, Fraction(1, 90000)
        frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc, frame.chroma_location = 9, 1, 9, 16, 3
        frames.append(frame)
    results = list(upscale_frames(frames, model="nearest"))
    assert [frame.pts for frame in results] == [0, 7, 14, 21, 28]
    for frame in results:
        assert (frame.width, frame.height, frame.format.name, frame.time_base) == (32, 24, "yuv420p10le", Fraction(1, 90000))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc, frame.chroma_location) == (9, 1, 9, 16, 3)


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgra", "gbrp", "rgb48le"])
@pytest.mark.parametrize("tags", [(2, 0, 2, 2), (1, 1, 1, 1), (0, 2, 9, 16)])
def test_the_tags_of_rgb_stay_for_whoever_makes_yuv_of_it(pix_fmt: str, tags: tuple[int, int, int, int]) -> None:
    """FFmpeg leaves those of the YUV that it made RGB of, and makes YUV by them again."""
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), (200, 100, 50), np.uint8), "rgb24").reformat(format=pix_fmt)
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = tags
    (result,) = upscale_frames([frame], model="nearest")
    assert (result.colorspace, result.color_range, result.color_primaries, result.color_trc) == tags
    before, after = (each.reformat(format="yuv444p").to_ndarray()[:, 5, 5].tolist() for each in (frame, result))
    assert after == before


def test_packed_rgb_is_full_range_whatever_its_tag_says() -> None:
    """As FFmpeg makes it: the tag is left from the YUV."""
    (array,) = arrays(1)
    frame = av.VideoFrame.from_ndarray(array, "rgb24")
    frame.color_range = 1
    (result,), (expected,) = (upscale_frames(frames, model="a2n-tiny", device="cpu") for frames in ([frame], [array]))
    np.testing.assert_array_equal(result.to_ndarray(), expected)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
def test_duration_rides_along(pix_fmt: str) -> None:
    frame = av.VideoFrame(16, 16, pix_fmt)
    frame.pts, frame.duration, frame.time_base = 3, 2, Fraction(1, 25)
    (result,) = upscale_frames([frame], model="nearest")
    assert (result.pts, result.duration, result.time_base) == (3, 2, Fraction(1, 25))


def test_interlaced_frames_are_told_once_an_iteration_where_they_are_asked_for() -> None:
    """A job has settled what is done about them, and says so in its plan."""
    woven = flagged_frame(av.VideoFrame(16, 16, "yuv420p"))
    frames = [av.VideoFrame(16, 16, "yuv420p"), *[woven] * 12]
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"interlaced.*deinterlace before") as told:
            assert len(list(upscale_frames(frames, model="nearest"))) == 13
        assert [Path(warning.filename) for warning in told] == [Path(__file__)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(Upscaler.from_options(ModelOptions(model="nearest")).upscale_frames(frames))
        list(upscale_frames(frames[:1], model="nearest"))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
def test_a_frame_without_a_time_stays_without(pix_fmt: str) -> None:
    (result,) = upscale_frames([av.VideoFrame(16, 16, pix_fmt)], model="nearest")
    assert (result.width, result.format.name) == (32, pix_fmt)
    assert result.time_base is None
    assert result.pts is None


@pytest.mark.parametrize("pix_fmt", sorted(FOLDED))
def test_packed_frames_come_out_as_they_came_in(pix_fmt: str) -> None:
    """The same numbers as through the planes that they unfold into."""
    (array,) = arrays(1, np.uint16, (13, 16 if pix_fmt in ("p010le", "p016le") else 15))
    planar = av.VideoFrame.from_ndarray(array, "rgb48le").reformat(format=UNFOLDED[pix_fmt])
    packed = rearranged(planar, pix_fmt)
    packed.pts, packed.time_base, packed.color_primaries = 7, Fraction(1, 25), 9
    (result,) = upscale_frames([packed], model="nearest")
    (expected,) = upscale_frames([planar], model="nearest")
    assert (result.width, result.height, result.format.name) == (2 * array.shape[1], 26, pix_fmt)
    assert (result.pts, result.time_base, result.color_primaries) == (7, Fraction(1, 25), 9)
    fmt, _ = VideoFrameAdapter().describe(expected)
    for got, want in zip(VideoFrameAdapter().planes(result), frame_planes(expected, fmt), strict=True):
        np.testing.assert_array_equal(got, want)


def test_rgb24_is_upscaled_as_its_array_is() -> None:
    (array,) = arrays(1)
    (result,) = upscale_frames([av.VideoFrame.from_ndarray(array, "rgb24")], model="nearest")
    np.testing.assert_array_equal(result.to_ndarray(), repeated(array))


def test_a_format_that_does_not_fold_is_told() -> None:
    with pytest.raises(UnsupportedFormatError, match="16x16 in pixel format yuyv422 is not taken; reformat it to yuv422p"):
        list(upscale_frames([av.VideoFrame(16, 16, "yuyv422")], model="nearest"))
    with pytest.raises(UnsupportedFormatError, match="15x16 in pixel format p010le is not taken; reformat it to yuv420p10le"):
        list(upscale_frames([av.VideoFrame(15, 16, "p010le")], model="nearest"))
    for name in ("bayer_rggb8", "gbrpf32le", "grayf32le"):
        with pytest.raises(UnsupportedFormatError, match="reformat it to a planar one of 8 to 16 bit integers, such as yuv420p"):
            list(upscale_frames([av.VideoFrame(16, 16, name)], model="nearest"))


def test_hints_tell_all_that_is_taken_and_that_results_can_be_closed() -> None:
    for call in (upscale_frames, Upscaler.__init__):
        hints = get_type_hints(call, localns={"torch": torch})
        assert (torch.device in get_args(hints["device"]), os.PathLike[str] in get_args(hints["weights"])) == (True, True)
    for call in (upscale_frames, Upscaler.upscale_frames):
        assert get_origin(get_type_hints(call, localns={"torch": torch})["return"]) is Generator
    path = find_model("a2n-tiny", 2).path
    with contextlib.closing(upscale_frames(arrays(1), weights=path, device=torch.device("cpu"))) as results:
        assert next(results).shape == (24, 32, 3)


def test_lazy_and_endless() -> None:
    taken = itertools.count()
    drawn = []

    def endless() -> Iterator[np.ndarray]:
        for number in taken:
            drawn.append(number)
            yield np.full((12, 16, 3), number % 256, np.uint8)

    results = upscale_frames(endless(), model="nearest", batch_size=2)
    assert drawn == []
    for number in range(20):
        assert next(results)[0, 0, 0] == number
        assert len(drawn) <= number + 2 * 3 + 2
    results.close()


@pytest.mark.parametrize("error", [OSError("unplugged"), "frame.png"])
def test_what_came_before_an_error_of_the_source_comes_out_first(error: object) -> None:
    """A camera that is unplugged, and a frame that is none: 7 frames are two batches and a part of one."""
    frames = arrays(7)

    def source() -> Iterator[np.ndarray]:
        yield from frames
        if isinstance(error, Exception):
            raise error
        yield error

    results = upscale_frames(source(), model="nearest", batch_size=3)
    for frame in frames:
        np.testing.assert_array_equal(next(results), repeated(frame))
    with pytest.raises(OSError if isinstance(error, OSError) else TypeError, match=r"unplugged|str"):
        next(results)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_frame_of_no_numbers_takes_none_of_its_batch_along(value: float) -> None:
    frames = torch.rand(8, 3, 12, 16)
    frames[5, 1, 3, 4] = value
    with Upscaler("nearest", batch_size=8) as upscaler:
        results = upscaler.upscale_frames(frames)
        for frame in frames[:5]:
            assert torch.equal(next(results), frame.repeat_interleave(2, 1).repeat_interleave(2, 2))
        with pytest.raises(ValueError, match="frame 5 holds values that are infinite or no numbers"):
            next(results)
        assert upscaler.stats().frames == 5


def test_a_stop_in_the_source_waits_for_no_result() -> None:
    def source() -> Iterator[np.ndarray]:
        yield from arrays(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(upscale_frames(source(), model="nearest", batch_size=3))


def test_closing_early_leaves_no_thread() -> None:
    before = threading.active_count()
    for model in ("nearest", "a2n"):
        results = upscale_frames(iter(arrays(30)), model=model, device="cpu", dtype="float32", batch_size=2)
        next(results)
        results.close()
    assert threading.active_count() == before


def test_the_callers_buffer_may_be_reused() -> None:
    buffer = np.zeros((12, 16, 3), np.uint8)

    def loop() -> Iterator[np.ndarray]:
        for number in range(9):
            buffer[...] = number
            yield buffer

    assert [int(frame[0, 0, 0]) for frame in upscale_frames(loop(), model="nearest", batch_size=4)] == list(range(9))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24", "nv12"])
def test_a_video_frame_may_be_filled_again(pix_fmt: str) -> None:
    """What is shown, when and in which colours is each one's own."""
    frame = av.VideoFrame(16, 12, pix_fmt)

    def loop() -> Iterator[av.VideoFrame]:
        for number in range(9):
            for plane in frame.planes:
                plane.update(bytes([number]) * plane.buffer_size)
            frame.pts, frame.time_base, frame.color_trc = number, Fraction(1, 25), 1 if number % 2 else 13
            yield frame

    results = list(upscale_frames(loop(), model="nearest", batch_size=4))
    assert [bytes(result.planes[0])[0] for result in results] == list(range(9))
    assert [(result.pts, result.color_trc) for result in results] == [(n, 1 if n % 2 else 13) for n in range(9)]


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p", "yuv422p10le", "rgb24"])
def test_frames_whose_lines_are_counted_backwards(pix_fmt: str) -> None:
    """FFmpeg's vflip moves no sample: it gives the last line's address and a negative step."""
    upright = av.VideoFrame.from_ndarray(arrays(1)[0], format="rgb24").reformat(format=pix_fmt)
    graph = av.filter.Graph()
    ends = graph.add_buffer(width=16, height=12, format=pix_fmt, time_base=Fraction(1, 25)), graph.add("vflip"), graph.add("buffersink")
    ends[0].link_to(ends[1])
    ends[1].link_to(ends[2])
    graph.configure()
    graph.push(upright)
    flipped = graph.pull()
    assert isinstance(flipped, av.VideoFrame)
    assert flipped.planes[0].line_size < 0
    (result,), (right,) = upscale_frames([flipped], model="nearest"), upscale_frames([upright], model="nearest")
    np.testing.assert_array_equal(result.reformat(format="rgb48le").to_ndarray(), right.reformat(format="rgb48le").to_ndarray()[::-1])


def test_a_repeated_frame_is_not_computed_again() -> None:
    a, b = arrays(2)
    given = [a, a, a, b, b, a]
    with Upscaler("nearest", batch_size=1) as upscaler:
        results = list(upscaler.upscale_frames(given))
        assert upscaler.repeated == 3
        assert upscaler.stats().frames == 3
    for frame, result in zip(given, results, strict=True):
        np.testing.assert_array_equal(result, repeated(frame))
    results[0][...] = 0
    np.testing.assert_array_equal(results[1], repeated(a))


def test_sizes_may_change_on_the_way() -> None:
    frames = [*arrays(3), *arrays(2, size=(7, 9)), *arrays(1)]
    shapes = [frame.shape for frame in upscale_frames(frames, model="nearest", batch_size=2)]
    assert shapes == [(24, 32, 3)] * 3 + [(14, 18, 3)] * 2 + [(24, 32, 3)]


@pytest.mark.parametrize(("batch_size", "count"), [(1, 7), (2, 9)])
def test_iterations_of_different_sizes_may_take_turns(batch_size: int, count: int) -> None:
    """Two in step, and a third in the middle of them."""
    large, small = arrays(count), arrays(count, size=(7, 9))
    with Upscaler("nearest", batch_size=batch_size) as upscaler:
        expected = [list(upscaler.upscale_frames(frames)) for frames in (large, small)]
        both = zip(upscaler.upscale_frames(large), upscaler.upscale_frames(small), strict=True)
        for number, pair in enumerate(both):
            if number == 2:
                (between,) = upscaler.upscale_frames([arrays(1, size=(5, 5))[0]])
                assert between.shape == (10, 10, 3)
            np.testing.assert_array_equal(pair[0], expected[0][number])
            np.testing.assert_array_equal(pair[1], expected[1][number])
    assert number == count - 1


def test_an_engine_with_a_thread_finishes_what_it_has_before_another_opens() -> None:
    frames = arrays(6)
    with Upscaler("a2n-tiny", device="cpu", batch_size=1) as upscaler:
        expected = list(upscaler.upscale_frames(frames))
        results = upscaler.upscale_frames(frames)
        taken = [next(results), *upscaler.upscale_frames(arrays(1, size=(5, 5))), *results]
    assert taken.pop(1).shape == (10, 10, 3)
    for result, right in zip(taken, expected, strict=True):
        np.testing.assert_array_equal(result, right)


def test_an_iteration_may_take_its_frames_from_another() -> None:
    with Upscaler("nearest", batch_size=2) as upscaler:
        results = list(upscaler.upscale_frames(upscaler.upscale_frames(arrays(9))))
    for frame, result in zip(arrays(9), results, strict=True):
        np.testing.assert_array_equal(result, repeated(frame, 4))


def test_one_engine_at_a_time_whatever_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[list[str]] = []
    present: set[object] = set()

    class Counted(NearestEngine):
        def __init__(self, geometry: Geometry) -> None:
            super().__init__(geometry, 2)
            present.add(self)
            opened.append([str(engine) for engine in present])

        def close(self) -> None:
            super().close()
            present.discard(self)

    monkeypatch.setattr("a2n_video.upscaler.open_engine", lambda plan, geometry: Counted(geometry))
    with Upscaler("nearest") as upscaler:
        assert len(list(zip(upscaler.upscale_frames(arrays(5)), upscaler.upscale_frames(arrays(5, size=(7, 9))), strict=True))) == 5
    assert len(opened) > 1
    assert all(len(engines) == 1 for engines in opened)


def test_an_upscaler_that_is_let_go_takes_its_threads_along() -> None:
    before = threading.active_count()
    for _ in range(2):
        list(Upscaler("a2n-tiny", device="cpu").upscale_frames(arrays(1)))
    gc.collect()
    soon = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < soon:
        time.sleep(0.01)
    assert threading.active_count() == before


_LEFT_IN_THE_MIDDLE = """
import numpy as np
from a2n_video import Upscaler
from a2n_video.net.catalog import find_model
from a2n_video.options import ModelOptions
upscaler = Upscaler()
upscaler.options = ModelOptions(model="a2n-tiny", engine="torch", batch_size=1)
results = upscaler.upscale_frames(np.full((90, 160, 3), n, np.uint8) for n in range(12))
print(next(results).shape)
"""


def test_a_script_that_leaves_an_iteration_in_the_middle_ends_well() -> None:
    done = subprocess.run([sys.executable, "-c", _LEFT_IN_THE_MIDDLE], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(180, 320, 3)\n", "")


def forked(call: Callable[[], object]) -> int:
    """What the exit status of a process forked off here is, that ends with 0 where the call comes back with something true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 1
        with contextlib.suppress(Exception):
            status = int(not call())
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_in_a_process_forked_off_it_opens_an_engine_of_its_own() -> None:
    (frame,) = arrays(1)
    with Upscaler("a2n-tiny", device="cpu", batch_size=1) as upscaler:
        (expected,) = upscaler.upscale_frames([frame])
        assert forked(lambda: np.array_equal(*upscaler.upscale_frames([frame]), expected)) == 0
        assert forked(lambda: (upscaler.close(), True)) == 0
        assert upscaler.stats().frames == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_an_iteration_goes_on_in_the_process_that_began_it() -> None:
    def told() -> bool:
        try:
            next(results)
        except DeviceError as error:
            return "forked off" in str(error)
        return False

    with Upscaler("a2n-tiny", device="cpu", batch_size=1) as upscaler:
        results = upscaler.upscale_frames(arrays(5))
        next(results)
        assert forked(told) == 0
        assert len(list(results)) == 4
    results = upscale_frames(arrays(5), model="nearest")  # which has no thread
    next(results)
    assert forked(lambda: len(list(results)) == 4) == 0


@pytest.mark.parametrize("model", ["nearest", "a2n-tiny"])
def test_what_was_under_way_at_close_is_told(model: str) -> None:
    upscaler = Upscaler(model, device="cpu", batch_size=4)
    results = upscaler.upscale_frames(arrays(14))
    next(results)
    upscaler.close()
    with pytest.raises(DeviceError, match="was closed"):
        list(results)
    list(upscaler.upscale_frames(arrays(1)))
    upscaler.close()


def test_an_iteration_that_fails_leaves_the_engine_of_the_others() -> None:
    with Upscaler("nearest", batch_size=1) as upscaler:
        bad = upscaler.upscale_frames(torch.full((2, 3, 12, 16), 1e38))
        good = upscaler.upscale_frames(arrays(9))
        next(good)
        with pytest.raises(DeviceError, match="no numbers"):
            next(bad)
        assert len(list(good)) == 8


@pytest.mark.parametrize(
    ("frame", "error", "told"),
    [
        (np.zeros((4, 4), np.uint8), ValueError, r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, "height, width, 3"),
        (np.zeros((4, 4, 3), np.float64), ValueError, "float64"),
        (torch.zeros(4, 4, 3), ValueError, r"\(3, h, w\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), ValueError, "int32"),
        ("frame.png", TypeError, "str"),
    ],
)
def test_what_does_not_fit_is_said(frame: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        list(upscale_frames([frame], model="nearest"))  # type: ignore[type-var]


def test_a_batch_that_is_no_tensor_is_told_before_any_work() -> None:
    with Upscaler("nearest") as upscaler:
        with pytest.raises(TypeError, match="a ndarray came; taken is a tensor, and `upscale_frames` takes arrays"):
            upscaler(np.stack(arrays(2)))  # type: ignore[arg-type]
        assert upscaler.stats().frames == 0


def test_models_and_options_that_do_not_fit(tmp_path: Path) -> None:
    frames = arrays(1)
    with pytest.raises(UnknownModelError, match="a2n"):
        list(upscale_frames(frames, model="a3n"))
    for scale in (-2, 0, 1, 7):
        with pytest.raises(OptionError, match=f"scale {scale}: the scale is 2, 3 or 4"):
            list(upscale_frames(frames, model="nearest", scale=scale))
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        list(upscale_frames(frames, weights=str(tmp_path / "w.safetensors")))


def test_a_batch_tensor_through_the_network() -> None:
    batch = torch.rand(3, 3, 10, 14, generator=torch.Generator().manual_seed(1))
    with Upscaler("a2n", scale=2, device="cpu", dtype="float32") as upscaler:
        result = upscaler(batch)
    assert result.shape == (3, 3, 20, 28)
    assert result.dtype == torch.float32
    bilinear = torch.nn.functional.interpolate(batch, scale_factor=2, mode="bilinear")
    assert (result - bilinear).abs().mean() < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_float_tensors_stay_within_0_and_1(dtype: torch.dtype) -> None:
    """The network overshoots at such edges, and black would be white once it is made uint8."""
    batch = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)).round().to(dtype)
    with Upscaler("a2n-tiny", device="cpu") as upscaler:
        result = upscaler(batch)
        (frame,) = upscaler.upscale_frames(batch)
    assert result.dtype == dtype
    assert (result.min(), result.max()) == (0, 1)
    assert torch.equal(result[0], frame)


@pytest.mark.parametrize("script", ["upscale_file.py", "upscale_arrays.py", "upscale_image.py"])
def test_examples_run(script: str, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    av.VideoFrame.from_ndarray(arrays(1)[0], "rgb24").save(str(picture))
    arguments = {
        "upscale_file.py": [str(ROOT / "examples/clip.mp4"), str(tmp_path / "out.mp4"), "nearest"],
        "upscale_arrays.py": ["nearest"],
        "upscale_image.py": [str(picture), str(tmp_path / "out.png"), "nearest"],
    }[script]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = {"upscale_file.py": done.stderr, "upscale_arrays.py": done.stdout, "upscale_image.py": done.stdout}[script]
    assert {"upscale_file.py": "75 frames", "upscale_arrays.py": "4 (180, 320, 3) uint8", "upscale_image.py": "16x12 -> 32x24"}[
        script
    ] in told
