"""Interlace found and undone, sizes that change on the way: made from pictures whose whole form is known."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video.frames import color_of_frame, tag_frame
from a2n_video.io import graphs
from a2n_video.io.filters import deinterlaced, look_for_interlace
from a2n_video.io.packets import scan
from a2n_video.io.probe import probe
from a2n_video.io.reader import VideoReader, repeated_frame
from a2n_video.job.planning.plan import prepare
from a2n_video.job.run import upscale_video
from a2n_video.media.epochs import Epoch
from a2n_video.media.interlace import InterlaceFindings, InterlacePlan, plan_interlace, result_map
from a2n_video.media.pixfmt import plane_format
from a2n_video.media.timemap import TimeMap
from a2n_video.options import JobOptions
from tests.made import PIX_FMTS
from tests.test_picture import DAMAGED, frame_of, planes_in, planes_of, read, source

SIZE = (96, 480)


def moment(time: float) -> np.ndarray[Any, Any]:
    """What a camera sees at a time, in fields: a bar that moves 4 pixels a field before a slope."""
    x = np.arange(SIZE[0])
    bar = np.abs((x - 4 * time) % SIZE[0] - 24) < 12
    return np.broadcast_to(np.where(bar, 220, 60), (SIZE[1], SIZE[0])).astype(np.uint8)


def woven(top: float, bottom: float) -> np.ndarray[Any, Any]:
    luma = moment(top).copy()
    luma[1::2] = moment(bottom)[1::2]
    return luma


def interlaced_file(path: Path, pairs: list[tuple[float, float]], *, flagged: bool = True, order: str = "tff") -> Path:
    """Frames of two moments each. mpeg2video is told that they are interlaced, in which order, or not."""
    with av.open(str(path), "w") as output:
        options = {"flags": "+ilme+ildct", "qmin": "1", "qmax": "1"} if flagged else {"qmin": "1", "qmax": "1"}
        stream: Any = output.add_stream("mpeg2video", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = 4
        for number, (top, bottom) in enumerate(pairs):
            chroma = np.full((SIZE[1] // 2, SIZE[0] // 2), 128, np.uint8)
            frame = frame_of("yuv420p", [woven(top, bottom), chroma, chroma])
            if flagged:
                frame = flagged_frame(frame, order)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def flagged_frame(frame: av.VideoFrame, order: str = "tff") -> av.VideoFrame:
    """The frame, called interlaced, in a field order."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 25))
    field = graph.add("setfield", order)
    sink = graph.add("buffersink")
    source.link_to(field)
    field.link_to(sink)
    graph.configure()
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    graph.push(frame)
    return graph.pull()  # type: ignore[return-value]


VIDEO = [(2.0 * n, 2.0 * n + 1) for n in range(30)]
# 3:2 pulldown, top field first: film frames A B C D as AA AB BC CC DD... in five frames.
FILM = [moments for n in range(0, 24, 4) for moments in ((n, n), (n, n + 1), (n + 1, n + 2), (n + 2, n + 2), (n + 3, n + 3))]
FILM = [(2.5 * a, 2.5 * b) for a, b in FILM]


def combing(luma: np.ndarray[Any, Any]) -> float:
    """Mean difference of neighbouring lines: nothing in these pictures changes from line to line but by weaving."""
    return float(np.abs(np.diff(luma[8:-8].astype(int), axis=0)).mean())


FLAGGED = InterlacePlan(mode="flagged")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interlaced_file(tmp_path_factory.mktemp("video") / "in.mkv", VIDEO)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interlaced_file(tmp_path_factory.mktemp("film") / "in.mkv", FILM)


@pytest.mark.parametrize("flagged", [True, False])
def test_interlace_is_found_flagged_or_not(flagged: bool, tmp_path: Path) -> None:
    made = interlaced_file(tmp_path / "in.mkv", VIDEO, flagged=flagged)
    found = look_for_interlace(made, probe(made))
    assert bool(found.flagged) == flagged
    assert found.woven
    assert not found.telecined
    plan = plan_interlace("auto", found, SIZE[1])
    assert plan.mode == ("flagged" if flagged else "all")
    assert "interlaced" in plan.note


def written(path: Path, codec: str, pairs: list[tuple[float, float]], **options: str) -> Path:
    """Frames of two moments each, of a codec that has no mark for it."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "gray" if codec == "png" else "yuvj420p"
        for number, (top, bottom) in enumerate(pairs):
            frame = av.VideoFrame.from_ndarray(woven(top, bottom), format="gray").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
@pytest.mark.parametrize(("said", "order"), [("tt", "tff"), ("bb", "bff"), ("tb", "tff"), ("bt", "bff")])
def test_interlace_that_only_the_container_names(codec: str, said: str, order: str, tmp_path: Path) -> None:
    pairs = VIDEO[:8] if order == "tff" else [pair[::-1] for pair in VIDEO[:8]]
    made = written(tmp_path / "in.mov", codec, pairs, field_order=said)
    info = probe(made)
    assert info.interlaced
    assert look_for_interlace(made, info).flagged == len(pairs)
    before, after = frames_of(made, "off"), frames_of(made, "auto")
    assert {graphs.field_mark(frame) for frame in before} == {order}
    assert min(combing(planes_in(frame)[0]) for frame in before) > 5
    assert max(combing(planes_in(frame)[0]) for frame in after[1:-1]) < 3
    first, second = frames_of(made, "field")[8:10]
    for number, frame in ((8, first), (9, second)):
        assert np.abs(planes_in(frame)[0][8:-8].astype(int) - moment(number)[8:-8]).mean() < 6


def test_png_that_is_stored_in_passes_is_whole(tmp_path: Path) -> None:
    """Its decoder calls Adam7 interlaced."""
    made = written(tmp_path / "in.mov", "png", VIDEO[:4], flags="+ildct")
    assert not probe(made).interlaced
    for frame, pair in zip(frames_of(made, "auto"), VIDEO, strict=False):
        assert np.array_equal(planes_in(frame)[0], woven(*pair))


def test_progressive_is_left_alone(tmp_path: Path) -> None:
    made = interlaced_file(tmp_path / "in.mkv", [(2 * n, 2 * n) for n in range(30)], flagged=False)
    found = look_for_interlace(made, probe(made))
    assert not found.woven
    assert plan_interlace("auto", found, SIZE[1]).note == ""
    with VideoReader(made, deinterlace="flagged") as auto, VideoReader(made) as off:
        for a, b in zip(auto, off, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(planes_in(a), planes_in(b), strict=True))


def test_telecine_is_found_and_proposed(film: Path) -> None:
    found = look_for_interlace(film, probe(film))
    assert found.telecined
    assert "--deinterlace ivtc" in plan_interlace("auto", found, SIZE[1]).note


def test_the_plan_says_so(video: Path, tmp_path: Path) -> None:
    plan = prepare(video, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest"))
    assert any("deinterlaced" in note for note in plan.notes)
    assert plan.frames == len(VIDEO)


def frames_of(path: Path, mode: Any) -> list[av.VideoFrame]:
    info = probe(path)
    source = scan(path, info).time_map
    plan = plan_interlace(mode, look_for_interlace(path, info), info.height)
    with VideoReader(path, info=info, time_map=result_map(plan, source), source_map=source, deinterlace=plan) as reader:
        return list(reader)


def test_as_many_frames_and_no_weaving(video: Path) -> None:
    before, after = frames_of(video, "off"), frames_of(video, "auto")
    assert [frame.pts for frame in after] == [frame.pts for frame in before]
    assert min(combing(planes_in(frame)[0]) for frame in before) > 5
    assert max(combing(planes_in(frame)[0]) for frame in after[1:-1]) < 3


def test_fields_double_the_frames_between_the_old_ones(video: Path) -> None:
    frames = frames_of(video, "field")
    assert len(frames) == 2 * len(VIDEO)
    assert frames[0].time_base == Fraction(1, 2000)
    assert [frame.pts for frame in frames[:5]] == [0, 40, 80, 120, 160]
    for number in range(4, 50):
        expected = moment(number)
        assert np.abs(planes_in(frames[number])[0][8:-8].astype(int) - expected[8:-8]).mean() < 4


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_come_in_their_order_marked_or_not(order: str, flagged: bool, tmp_path: Path) -> None:
    pairs = VIDEO if order == "tff" else [(late, early) for early, late in VIDEO]
    made = interlaced_file(tmp_path / "in.mkv", pairs, flagged=flagged, order=order)
    frames = frames_of(made, "field")
    for number in range(4, 50):
        assert np.abs(planes_in(frames[number])[0][8:-8].astype(int) - moment(number)[8:-8]).mean() < 4
    found = look_for_interlace(made, probe(made))
    assert plan_interlace("auto", found, SIZE[1]).order == order


def test_a_frame_keeps_the_order_that_it_is_marked_with() -> None:
    """One marked bottom first among unmarked ones that look top first."""
    pairs = [pair if n != 10 else pair[::-1] for n, pair in enumerate(VIDEO)]
    frames = [made_frame(n, pair, flagged=False) for n, pair in enumerate(pairs)]
    frames[10] = flagged_frame(frames[10], "bff")
    frames[10].pts, frames[10].time_base = 10, Fraction(1, 25)
    epochs = (Epoch(first=0, last=29),)
    times = tuple(range(30))
    source = TimeMap(time_base=Fraction(1, 25), step=Fraction(1), times=times, first_pts=0, end_pts=30, origin_pts=0, epochs=epochs)
    out = list(deinterlaced(iter(frames), InterlacePlan(mode="field", order="tff"), source))
    for number in range(16, 26):
        assert np.abs(planes_in(out[number])[0][8:-8].astype(int) - moment(number)[8:-8]).mean() < 4


def test_ivtc_gives_the_film_back(film: Path) -> None:
    frames = frames_of(film, "ivtc")
    assert len(frames) == len(FILM) * 4 // 5
    assert [frame.pts for frame in frames[:6]] == [0, 50, 100, 150, 200, 250]
    assert max(combing(planes_in(frame)[0]) for frame in frames) < 2
    for number in range(4, 20):
        assert np.abs(planes_in(frames[number])[0][8:-8].astype(int) - moment(2.5 * number)[8:-8]).mean() < 4


@pytest.mark.parametrize("phase", range(5))
def test_ivtc_drops_the_frame_that_is_there_twice(phase: int, tmp_path: Path) -> None:
    made = interlaced_file(tmp_path / "in.mkv", FILM[phase:])
    luma = [planes_in(frame)[0].astype(int) for frame in frames_of(made, "ivtc")]
    changes = [np.abs(a - b).mean() for a, b in pairwise(luma[2:20])]
    assert min(changes) > 0.5 * max(changes)


@pytest.mark.parametrize(("mode", "frames"), [("auto", 30), ("frame", 30), ("field", 60), ("ivtc", 24), ("off", 30)])
def test_whole_jobs(mode: str, frames: int, video: Path, tmp_path: Path) -> None:
    result = upscale_video(video, tmp_path / "out.mkv", model="nearest", deinterlace=mode, preset="ultrafast", segment_frames=7)
    assert result.frames == frames
    assert result.verified.startswith(f"verified: {frames} frames")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("mode", ["frame", "field", "ivtc"])
def test_short_clips(count: int, mode: str, tmp_path: Path) -> None:
    made = interlaced_file(tmp_path / "in.mkv", VIDEO[:count])
    assert len(frames_of(made, mode)) == count * (2 if mode == "field" else 1)


@pytest.mark.parametrize("mode", ["frame", "field", "ivtc"])
def test_starting_in_the_middle_gives_the_same_frames(mode: Any, video: Path) -> None:
    info = probe(video)
    source = scan(video, info).time_map
    plan = plan_interlace(mode, InterlaceFindings(), info.height)
    made = result_map(plan, source)
    whole = {frame.pts: planes_in(frame)[0] for frame in frames_of(video, mode)}
    middle = made.times[len(made.times) // 2]
    with VideoReader(video, info=info, time_map=made, source_map=source, deinterlace=plan, start_pts=middle) as reader:
        rest = [(frame.pts, planes_in(frame)[0]) for frame in reader]
    assert [pts for pts, _ in rest] == [pts for pts in whole if pts is not None and pts >= middle]
    assert all(np.array_equal(whole[pts], luma) for pts, luma in rest)


def test_a_cut_of_fields_is_exact(video: Path, tmp_path: Path) -> None:
    options = {"deinterlace": "field", "start": Fraction(1, 5), "frames": 7}
    assert upscale_video(video, tmp_path / "out.mkv", model="nearest", preset="ultrafast", **options).frames == 7


def every_native_format() -> list[str]:
    names = [f"{kind}{chroma}p" for kind in ("yuv", "yuvj", "yuva") for chroma in ("420", "422", "444", "440", "411", "410")]
    names = [f"{name}{depth}" for name in (*names, "gray", "gbrp", "gbrap") for depth in ("", "9le", "10le", "12le", "14le", "16le")]
    return sorted(av.video.format.names & set(names))


def clock(count: int) -> TimeMap:
    times, epochs = tuple(range(count)), (Epoch(first=0, last=count - 1),)
    return TimeMap(time_base=Fraction(1, 25), step=Fraction(1), times=times, first_pts=0, end_pts=count, origin_pts=0, epochs=epochs)


@pytest.mark.parametrize("mode", ["flagged", "all", "field", "ivtc"])
@pytest.mark.parametrize("pix_fmt", every_native_format())
def test_no_format_is_converted_for_a_filter(pix_fmt: str, mode: Any) -> None:
    """Where nothing moves nothing changes: each plane has a level of its own, which eight bits cannot say if it is deeper."""
    fmt = plane_format(pix_fmt, 48, 32)
    assert fmt is not None
    levels = [(1 << fmt.depth) * (n + 1) // 6 + 1 for n in range(len(fmt.planes))]
    planes = [np.full((shape.height, shape.width), level, fmt.dtype) for shape, level in zip(fmt.planes, levels, strict=True)]
    frames = [flagged_frame(frame_of(pix_fmt, planes)) for _ in range(5)]
    for number, frame in enumerate(frames):
        frame.pts = number
    out = list(deinterlaced(iter(frames), InterlacePlan(mode=mode), clock(5)))
    assert len(out) == {"field": 10, "ivtc": 4}.get(mode, 5)
    for frame in out:
        assert frame.format.name == pix_fmt
        assert [np.unique(plane).tolist() for plane in planes_in(frame)] == [[level] for level in levels]


def lifted(frames: list[av.VideoFrame], pix_fmt: str, step: int) -> list[av.VideoFrame]:
    """The frames in a deeper format whose planes are all of luma's size."""
    made = []
    for number, frame in enumerate(frames):
        fmt = plane_format(pix_fmt, *SIZE)
        assert fmt is not None
        luma = planes_in(frame)[0].astype(fmt.dtype)
        deep = frame_of(pix_fmt, [luma * step + plane for plane in range(len(fmt.planes))])
        deep = flagged_frame(deep) if frame.interlaced_frame else deep
        deep.pts, deep.time_base = number, Fraction(1, 25)
        made.append(deep)
    return made


@pytest.mark.parametrize("mode", ["flagged", "all", "field"])
def test_planes_one_by_one_are_what_the_filter_would_make(mode: Any) -> None:
    """gray10le and gbrap12le are not bwdif's, yuv444p10le and 12le are: the same samples come out, moving ones among them."""
    frames = [made_frame(n, pair, flagged=True) for n, pair in enumerate(VIDEO[:6])]
    for own, other, step in (("yuv444p10le", "gray10le", 4), ("yuv444p12le", "gbrap12le", 17)):
        expected, found = (
            [planes_in(out) for out in deinterlaced(iter(lifted(frames, name, step)), InterlacePlan(mode=mode), clock(6))]
            for name in (own, other)
        )
        assert len(expected) == len(found)
        for a, b in zip(expected, found, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=False))


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "yuvj444p", "yuv440p10le", "yuv422p10le", "yuva444p10le", "gbrp10le", "gbrap12le"])
@pytest.mark.parametrize("flagged", [True, False])
def test_ivtc_weaves_the_real_lines_of_any_format(flagged: bool, pix_fmt: str) -> None:
    """The film's frames come back as they were, every bit of every plane."""
    fmt = plane_format(pix_fmt, *SIZE)
    assert fmt is not None
    step = (1 << fmt.depth) // 256

    def frame(number: int, pair: tuple[float, float]) -> av.VideoFrame:
        luma = woven(*pair).astype(fmt.dtype) * step + step // 2
        made = frame_of(pix_fmt, [luma[: shape.height, : shape.width] for shape in fmt.planes])
        made = flagged_frame(made) if flagged else made
        made.pts, made.time_base = number, Fraction(1, 25)
        return made

    film = [pair for n in range(1, 21, 4) for pair in ((n, n), (n, n + 1), (n + 1, n + 2), (n + 2, n + 2), (n + 3, n + 3))]
    frames = [frame(number, (2.5 * top, 2.5 * bottom)) for number, (top, bottom) in enumerate(film)]
    out = list(deinterlaced(iter(frames), InterlacePlan(mode="ivtc", order="tff"), clock(len(film))))
    assert [one.format.name for one in out] == [pix_fmt] * 20
    for number, one in enumerate(out[1:-1], 2):
        for plane, whole in zip(planes_in(one), planes_in(frame(0, (2.5 * number, 2.5 * number))), strict=True):
            assert np.array_equal(plane, whole)


def test_late_flags_are_seen(tmp_path: Path) -> None:
    def frames() -> Iterator[av.VideoFrame]:
        for number, (top, bottom) in enumerate([(2 * n, 2 * n) for n in range(50)] + VIDEO):
            chroma = np.full((SIZE[1] // 2, SIZE[0] // 2), 128, np.uint8)
            frame = frame_of("yuv420p", [woven(top, bottom), chroma, chroma])
            frame = flagged_frame(frame) if number >= 50 else frame
            frame.pts, frame.time_base = number, Fraction(1, 25)
            yield frame

    out = list(deinterlaced(frames(), FLAGGED, None))  # type: ignore[arg-type]
    assert [frame.pts for frame in out] == list(range(80))
    assert max(combing(planes_in(frame)[0]) for frame in out[51:-1]) < 3


def test_late_flags_give_the_same_wherever_decoding_began() -> None:
    """As after a resume: progressive frames, then interlaced ones, which the filter meets with a frame before them either way."""
    noise = np.random.default_rng(1).integers(0, 100, (SIZE[1], SIZE[0]), dtype=np.uint8)

    def outcome(first: int) -> dict[int, bytes]:
        frames = (made_frame(n, VIDEO[n], flagged=not 5 <= n < 15, grain=np.roll(noise, n, axis=0)) for n in range(first, 30))
        return {frame.pts or 0: planes_in(frame)[0].tobytes() for frame in deinterlaced(frames, FLAGGED, None)}  # type: ignore[arg-type]

    whole, resumed = outcome(0), outcome(10)
    assert sorted(resumed) == list(range(10, 30))
    assert [pts for pts in resumed if resumed[pts] != whole[pts]] == []


def test_a_frame_that_was_handed_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next stage reads its tags in another thread while the filter takes it in: not even for a moment may they be others."""
    touched: list[av.VideoFrame] = []
    honest = graphs.unexplained
    monkeypatch.setattr(graphs, "unexplained", lambda frame: (touched.append(frame), honest(frame))[1])
    frames = [made_frame(n, pair, flagged=n > 0) for n, pair in enumerate(VIDEO[:4])]
    tag_frame(frames[0], DAMAGED)
    out = list(deinterlaced(iter(frames), FLAGGED, None))  # type: ignore[arg-type]
    repeated_frame(frames[0], 9)
    assert out[0] is frames[0] and len(out) == 4
    assert touched and not any(frame is frames[0] for frame in touched)


def made_frame(number: int, pair: tuple[float, float], *, flagged: bool, grain: np.ndarray[Any, Any] | None = None) -> av.VideoFrame:
    chroma = np.full((SIZE[1] // 2, SIZE[0] // 2), 128, np.uint8)
    luma = woven(*pair) if grain is None else woven(*pair) // 2 + grain
    frame = frame_of("yuv420p", [luma, chroma, chroma])
    frame = flagged_frame(frame) if flagged else frame
    frame.pts, frame.time_base = number, Fraction(1, 25)
    return frame


@pytest.mark.parametrize("codec", ["mpeg2video", "prores_ks"])
@pytest.mark.parametrize("mode", ["auto", "frame", "ivtc"])
def test_colours_that_nobody_knows_are_no_obstacle(mode: str, codec: str, tmp_path: Path) -> None:
    """A damaged header can say anything of them; FFmpeg's filters refuse what they do not know, and it is not theirs to judge."""
    made = source(tmp_path / "in.mov", PIX_FMTS.get(codec, "yuv420p"), (64, 48), 10, codec=codec, color=DAMAGED)
    result = upscale_video(made, tmp_path / "out.mkv", model="nearest", codec="ffv1", deinterlace=mode)
    assert result.frames == (8 if mode == "ivtc" else 10)
    assert {color_of_frame(frame).transfer for frame in frames_of(made, mode)} == {107}


def changing_file(path: Path, kinds: list[tuple[str, tuple[int, int]]], each: int = 3) -> Path:
    """A nut of raw h264 streams one after the other: the decoder changes its mind on the way."""
    path.write_bytes(b"".join(_h264(pix_fmt, size, each, each * n) for n, (pix_fmt, size) in enumerate(kinds)))
    return path


def _h264(pix_fmt: str, size: tuple[int, int], count: int, first: int) -> bytes:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = *size, pix_fmt
    context.time_base, context.options = Fraction(1, 25), {"preset": "ultrafast", "qp": "0", "bf": "0"}
    data = b""
    for number in range(count):
        frame = frame_of(pix_fmt, [np.full_like(plane, 60 + 10 * (first + number)) for plane in planes_of(pix_fmt, size)])
        frame.pts = number
        data += b"".join(bytes(packet) for packet in context.encode(frame))
    return data + b"".join(bytes(packet) for packet in context.encode(None))


def test_sizes_and_formats_that_change(tmp_path: Path) -> None:
    made = changing_file(tmp_path / "in.h264", [("yuv420p", (64, 48)), ("yuv420p", (96, 64)), ("yuv444p", (64, 48))])
    result = upscale_video(made, tmp_path / "out.mkv", model="nearest", codec="ffv1", fps=Fraction(25))
    frames = read(tmp_path / "out.mkv")
    assert result.frames == len(frames) == 9
    assert {(frame.width, frame.height, frame.format.name) for frame in frames} == {(128, 96, "yuv420p")}
    for number, frame in enumerate(frames):
        for plane in planes_in(frame):
            assert abs(float(plane.mean()) - (60 + 10 * number)) <= 1
    assert any("96x64" in warning for warning in result.warnings)
