"""The picture end to end: layouts, alpha, depth, shape, HDR, sizes that change, --size, interlace. The stand-in network repeats pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from a2n_video.errors import OptionError
from a2n_video.frames import frame_planes, native_frame, tag_frame
from a2n_video.io.decoding import open_decoder
from a2n_video.io.probe import probe
from a2n_video.job.planning.plan import prepare
from a2n_video.job.result import UpscaleResult
from a2n_video.job.run import upscale_video
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.pixfmt import plane_format
from a2n_video.options import JobOptions
from tests.made import BT709, FAST

RATE = Fraction(25)
# Numbers that H.273 keeps for the future.
DAMAGED = ColorSpec(matrix=21, full_range=False, primaries=25, transfer=107)


def planes_of(pix_fmt: str, size: tuple[int, int], number: int = 0) -> list[np.ndarray[Any, Any]]:
    """Planes of noise within the legal range, other ones for each number."""
    fmt = plane_format(pix_fmt, *size)
    assert fmt is not None
    rng = np.random.default_rng(number)
    low, high = (16 << (fmt.depth - 8)), (235 << (fmt.depth - 8))
    return [rng.integers(low, high, (plane.height, plane.width)).astype(fmt.dtype) for plane in fmt.planes]


def frame_of(pix_fmt: str, planes: Sequence[np.ndarray[Any, Any]], color: ColorSpec = BT709) -> av.VideoFrame:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    fmt = plane_format(pix_fmt, width, height)
    assert fmt is not None
    for target, plane in zip(frame_planes(frame, fmt), planes, strict=True):
        target[...] = plane
    tag_frame(frame, color)
    return frame


def write(
    path: Path, frames: Iterable[av.VideoFrame], codec: str = "ffv1", color: ColorSpec = BT709, pix_fmt: str | None = None, **changes: Any
) -> Path:
    """A file with one video stream."""
    frames = list(frames)
    options = dict(FAST.get(codec, {})) | changes.pop("options", {})
    folds = {"gbrp": "bgr0", "gbrap": "bgra"} if codec == "ffv1" else {}
    if frames[0].format.name in folds:
        frames = [frame.reformat(format=folds[frame.format.name]) for frame in frames]
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt or frames[0].format.name
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = color.matrix, color.primaries, color.transfer
        context.color_range = 1 + bool(color.full_range)
        for name, value in changes.items():
            setattr(context, name, value)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, 1 / RATE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def source(path: Path, pix_fmt: str, size: tuple[int, int] = (32, 24), count: int = 2, **more: Any) -> Path:
    return write(path, [frame_of(pix_fmt, planes_of(pix_fmt, size, n), more.get("color", BT709)) for n in range(count)], **more)


def upscaled(path: Path, dest: Path, **options: Any) -> UpscaleResult:
    return upscale_video(path, dest, model="nearest", **options)


def read(path: Path) -> list[av.VideoFrame]:
    """All frames in native planes, alpha included."""
    with av.open(str(path)) as container:
        decoder = open_decoder(container.streams.video[0])
        return [native_frame(frame) for packet in container.demux(video=0) for frame in decoder.decode(packet if packet.size else None)]


def planes_in(frame: av.VideoFrame) -> list[np.ndarray[Any, Any]]:
    fmt = plane_format(frame.format.name, frame.width, frame.height)
    assert fmt is not None
    return [np.array(plane) for plane in frame_planes(frame, fmt)]


def repeated(plane: np.ndarray[Any, Any], times: int = 2) -> np.ndarray[Any, Any]:
    return plane.repeat(times, 0).repeat(times, 1)


@pytest.mark.parametrize("options", [{"size": "48x36"}, {"codec": "mjpeg"}])
def test_colours_beyond_white_keep_their_codes(options: dict[str, Any], tmp_path: Path) -> None:
    """Captures of analogue video hold such, and edges in 4:2:0: as RGB they would be over 1.5."""
    bt601 = ColorSpec(matrix=6, full_range=False, primaries=6, transfer=6)
    planes = [np.full((24, 32), code, np.uint8) for code in (180, 110, 225)]
    clip = write(tmp_path / "hot.mkv", [frame_of("yuv444p", planes, bt601)], color=bt601)
    upscaled(clip, tmp_path / "out.mkv", **{"codec": "ffv1"} | options)
    wanted = (180, 110, 225) if "size" in options else (191, 107, 238)  # of full range
    (frame,) = read(tmp_path / "out.mkv")
    assert [round(float(plane.mean())) for plane in planes_in(frame)] == pytest.approx(wanted, abs=1 if "codec" in options else 0)


# Layouts whose samples are not subsampled come back as they were, each repeated; FFV1 loses nothing.
EXACT = ["gray", "gray10le", "gray12le", "gray16le", "yuv444p", "yuv444p10le", "yuv444p12le", "gbrp", "gbrp10le", "gbrp12le", "gbrp16le"]
EXACT += ["yuva444p", "yuva444p10le", "gbrap", "gbrap10le"]


@pytest.mark.parametrize("pix_fmt", EXACT)
def test_layouts_come_back_exactly(pix_fmt: str, tmp_path: Path) -> None:
    name = "gray" if pix_fmt.startswith("gray") else pix_fmt
    color = ColorSpec(matrix=0, full_range=True, primaries=1, transfer=13) if name.startswith("gb") else BT709
    made = source(tmp_path / "in.mkv", pix_fmt, color=color)
    upscaled(made, tmp_path / "out.mkv", codec="ffv1")
    for before, after in zip(read(made), read(tmp_path / "out.mkv"), strict=True):
        assert after.format.name == pix_fmt
        assert len(planes_in(after)) == len(planes_in(before))
        for a, b in zip(planes_in(before), planes_in(after), strict=True):
            assert np.abs(repeated(a).astype(int) - b).max() <= (0 if not pix_fmt.startswith("yuv") else 1)


PACKED = {
    "rgb24": "gbrp",
    "bgr24": "gbrp",
    "rgba": "gbrap",
    "rgb48le": "gbrp16le",
    "pal8": "gbrap",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
}


@pytest.mark.parametrize("pix_fmt", PACKED)
def test_packed_and_palette_sources(pix_fmt: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    if pix_fmt == "pal8":
        with av.open(str(tmp_path / "in.nut"), "w") as output:
            stream: Any = output.add_stream("rawvideo", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 24, pix_fmt
            palette = np.dstack([np.full((16, 16), 255, np.uint8), rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)]).reshape(256, 4)
            frame = av.VideoFrame.from_ndarray((rng.integers(0, 255, (24, 32), dtype=np.uint8), palette), "pal8")
            frame.pts, frame.time_base = 0, 1 / RATE
            output.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt)
        write(tmp_path / "in.nut", [frame], codec="rawvideo", color=ColorSpec(matrix=2))
    result = upscaled(tmp_path / "in.nut", tmp_path / "out.mkv", codec="ffv1")
    assert result.frames == 1
    (after,) = read(tmp_path / "out.mkv")
    assert after.format.name == PACKED[pix_fmt]
    (before,) = read(tmp_path / "in.nut")
    if pix_fmt not in ("yuyv422", "uyvy422"):
        for a, b in zip(planes_in(before), planes_in(after), strict=True):
            assert np.array_equal(repeated(a), b)


def test_rgb_goes_into_an_rgb_encoder(tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "gbrp", color=ColorSpec(matrix=0, full_range=True))
    upscaled(made, tmp_path / "out.mkv", codec="libx264rgb", crf=0, preset="ultrafast")
    for before, after in zip(read(made), read(tmp_path / "out.mkv"), strict=True):
        for a, b in zip(planes_in(before), planes_in(after), strict=True):
            assert np.array_equal(repeated(a), b)


def test_rgb_becomes_hd_yuv_with_its_own_matrix(tmp_path: Path) -> None:
    red = [np.full((24, 32), value, np.uint8) for value in (255, 0, 0)]
    made = write(
        tmp_path / "in.mkv", [frame_of("gbrp", red, ColorSpec(matrix=0, full_range=True))], color=ColorSpec(matrix=0, full_range=True)
    )
    upscaled(made, tmp_path / "out.mp4", codec="libx264", crf=0, pix_fmt="yuv420p")
    info = probe(tmp_path / "out.mp4")
    assert (info.color.matrix, bool(info.color.full_range)) == (1, False)
    y, u, v = (plane[4, 4] for plane in planes_in(read(tmp_path / "out.mp4")[0]))
    assert (abs(int(y) - 63), abs(int(u) - 102), abs(int(v) - 240)) <= (1, 1, 1)  # BT.709's red


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "coded"),
    [
        ("libvpx-vp9", "webm", "yuva420p", "libvpx-vp9"),
        ("prores_ks", "mov", "yuva444p10le", "prores_ks"),
        ("ffv1", "mkv", "yuva420p", "ffv1"),
    ],
)
def test_alpha_is_upscaled_along(codec: str, suffix: str, pix_fmt: str, coded: str, tmp_path: Path) -> None:
    size = (64, 48)
    planes = planes_of(pix_fmt, size)
    high = 255 if pix_fmt == "yuva420p" else 1023
    planes[:3] = [np.full_like(plane, high // 2) for plane in planes[:3]]
    planes[3][...] = 0
    planes[3][:, 32:] = high
    made = write(tmp_path / f"in.{suffix}", [frame_of(pix_fmt, planes)], codec=codec)
    assert probe(made).alpha
    upscaled(made, tmp_path / f"out.{suffix}")
    info = probe(tmp_path / f"out.{suffix}")
    assert info.alpha
    alpha = planes_in(read(tmp_path / f"out.{suffix}")[0])[-1].astype(float) / ((1 << info.planes.depth) - 1)
    assert alpha.shape == (96, 128)
    assert alpha[:, :60].max() < 0.05
    assert alpha[:, 68:].min() > 0.95


def test_alpha_that_the_encoder_cannot_hold_is_named(tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuva420p")
    plan = prepare(made, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec="libx264"))
    assert [fate.kind for fate in plan.streams.losses] == ["alpha"]
    with pytest.raises(OptionError, match="alpha"):
        prepare(made, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec="libx264", keep_all=True))


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "ffv1"])
def test_colours_that_nobody_knows_count_as_untagged(suffix: str, codec: str, tmp_path: Path) -> None:
    made = source(tmp_path / "in.mov", "yuv420p", (48, 40), codec="mpeg2video", color=DAMAGED)
    upscaled(made, tmp_path / f"out.{suffix}", codec=codec)
    color = probe(tmp_path / f"out.{suffix}").color
    assert (color.matrix, color.primaries, color.transfer) == (6, 6, 6)  # as untagged SD is


@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le", "yuyv422"])
def test_colours_that_nobody_knows_are_unfolded_as_others_are(pix_fmt: str) -> None:
    plain, damaged = (av.VideoFrame(48, 40, pix_fmt) for _ in range(2))
    for plane in (*plain.planes, *damaged.planes):
        plane.update((bytes(range(256)) * (plane.buffer_size // 256 + 1))[: plane.buffer_size])
    tag_frame(damaged, DAMAGED)
    assert all(np.array_equal(a, b) for a, b in zip(planes_in(native_frame(plain)), planes_in(native_frame(damaged)), strict=True))
    assert (int(damaged.colorspace), int(damaged.color_trc)) == (DAMAGED.matrix, DAMAGED.transfer)  # the frame is the caller's


@pytest.mark.parametrize(("codec", "kept"), [("libx264", 2), ("libx265", 2), ("libsvtav1", 22), ("ffv1", 22)])
def test_primaries_that_an_encoder_cannot_say_are_named_before_the_first_frame(codec: str, kept: int, tmp_path: Path) -> None:
    made = source(tmp_path / "in.mov", "yuv420p", (48, 40), codec="mpeg2video", color=ColorSpec(matrix=1, primaries=22, transfer=1))
    plan = prepare(made, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec=codec))
    assert [fate.what for fate in plan.streams.losses] == ["colour primaries (22)"] * (kept == 2)
    upscaled(made, tmp_path / "out.mkv", codec=codec)
    assert probe(tmp_path / "out.mkv").color.primaries == kept


def test_twelve_bits_stay(tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuv420p12le", (48, 40))
    upscaled(made, tmp_path / "out.mkv", preset="ultrafast")
    assert probe(tmp_path / "out.mkv").pix_fmt == "yuv420p12le"
    plan = prepare(made, tmp_path / "out.webm", JobOptions().with_changes(model="nearest"))
    assert [fate.what for fate in plan.streams.losses if fate.kind == "depth"] == ["bit depth (12 to 10)"]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "mjpeg", "prores_ks"])
@pytest.mark.parametrize("size", [(65, 67), (66, 67), (65, 66)])
def test_odd_results(codec: str, size: tuple[int, int], tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuv420p", size)
    options = JobOptions().with_changes(model="nearest", scale=3, codec=codec)
    plan = prepare(made, tmp_path / "out.mkv", options)
    padded = (plan.encoder.width, plan.encoder.height) != (size[0] * 3, size[1] * 3)
    assert any("repeated" in note for note in plan.notes) == padded
    upscale_video(made, tmp_path / "out.mkv", options)
    for frame in read(tmp_path / "out.mkv"):
        assert 0 <= frame.width - 3 * size[0] <= 1
        assert 0 <= frame.height - 3 * size[1] <= 1


def test_the_repeated_edge_is_the_last_row_and_column(tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuv420p", (65, 67), count=1)
    upscaled(made, tmp_path / "out.mkv", scale=3, codec="libx264", crf=0)
    luma = planes_in(read(tmp_path / "out.mkv")[0])[0]
    before = planes_in(read(made)[0])[0]
    assert luma.shape == (202, 196)
    assert np.array_equal(luma[-1], luma[-2])
    assert np.array_equal(luma[:, -1], luma[:, -2])
    assert np.abs(luma[:201, :195].astype(int) - repeated(before, 3)).max() <= 1


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_shape_and_rotation_stay(suffix: str, tmp_path: Path) -> None:
    frames = [frame_of("yuv420p", planes_of("yuv420p", (64, 48), n)) for n in range(3)]
    with av.open(str(tmp_path / f"in.{suffix}"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options=FAST["libx264"])
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        stream.set_display_rotation(90)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, 1 / RATE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    upscaled(tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}")
    before, after = probe(tmp_path / f"in.{suffix}"), probe(tmp_path / f"out.{suffix}")
    assert (after.sar, after.rotation) == (before.sar, before.rotation) == (Fraction(16, 11), before.rotation)
    assert abs(before.rotation) == 90


@pytest.mark.parametrize("sar", [Fraction(32, 27), Fraction(2), Fraction(1001, 1080)])
@pytest.mark.parametrize(
    ("codec", "suffix"), [("ffv1", "mkv"), ("libvpx-vp9", "webm"), ("libvpx-vp9", "mp4"), ("libsvtav1", "mkv"), ("prores_ks", "mov")]
)
def test_shape_stays_where_the_bitstream_does_not_hold_it(codec: str, suffix: str, sar: Fraction, tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuv420p", (72, 48), codec="libx264", sample_aspect_ratio=sar)
    upscaled(made, tmp_path / f"out.{suffix}", codec=codec)
    assert abs(probe(tmp_path / f"out.{suffix}").sar / sar - 1) < Fraction(1, 144)  # Matroska has whole pixels
    assert len(read(tmp_path / f"out.{suffix}")) == 2


def test_full_range_jpeg_sources(tmp_path: Path) -> None:
    full = ColorSpec(matrix=5, full_range=True)
    made = write(tmp_path / "in.mkv", [frame_of("yuvj420p", planes_of("yuvj420p", (32, 24)), full)], codec="mjpeg", color=full)
    assert probe(made).pix_fmt == "yuvj420p"
    upscaled(made, tmp_path / "out.mkv", codec="ffv1")
    after = probe(tmp_path / "out.mkv")
    assert after.color.full_range
    before = planes_in(read(made)[0])[0]
    assert np.abs(planes_in(read(tmp_path / "out.mkv")[0])[0].astype(int) - repeated(before)).max() <= 1


HDR_PARAMS = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


@pytest.fixture(scope="module")
def hdr_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    color = ColorSpec(matrix=9, full_range=False, primaries=9, transfer=16)
    options = {"x265-params": f"log-level=error:info=0:{HDR_PARAMS}"}
    folder = tmp_path_factory.mktemp("hdr")
    frames = [frame_of("yuv420p10le", planes_of("yuv420p10le", (64, 64), n), color) for n in range(3)]
    return write(folder / "in.mkv", frames, codec="libx265", color=color, options=options)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libx264"])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_hdr10_is_kept(codec: str, suffix: str, hdr_source: Path, tmp_path: Path) -> None:
    upscaled(hdr_source, tmp_path / f"out.{suffix}", codec=codec)
    before, after = probe(hdr_source), probe(tmp_path / f"out.{suffix}")
    assert (after.color.matrix, after.color.primaries, after.color.transfer) == (9, 9, 16)
    assert before.hdr is not None
    assert after.hdr is not None
    assert (after.hdr.max_content, after.hdr.max_average) == (1000, 400)
    for name in ("red", "green", "blue", "white"):
        for a, b in zip(getattr(before.hdr, name), getattr(after.hdr, name), strict=True):
            assert abs(a - b) < Fraction(1, 25000)
    assert after.hdr.max_luminance == before.hdr.max_luminance
    assert after.hdr.min_luminance is not None
    assert abs(after.hdr.min_luminance - Fraction(5, 1000)) < Fraction(1, 5000)


def test_hdr10_that_is_lost_is_named(hdr_source: Path, tmp_path: Path) -> None:
    plan = prepare(hdr_source, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec="ffv1"))
    assert [fate.what for fate in plan.streams.losses] == ["HDR10 mastering display and content light level"]
    with pytest.raises(OptionError, match="HDR10"):
        prepare(hdr_source, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec="ffv1", keep_all=True))


UNKNOWN_LIGHT = {"0 and 0": "max-cll=0,0", "no peak": "max-cll=0,400", "0 beside a display": HDR_PARAMS.replace("1000,400", "0,0")}


@pytest.mark.parametrize("light", UNKNOWN_LIGHT.values(), ids=UNKNOWN_LIGHT.keys())
def test_unknown_light_levels_are_no_demand(light: str, tmp_path: Path) -> None:
    """Encoders leave them out: the result would not be what was promised, at the very end."""
    color = ColorSpec(matrix=9, full_range=False, primaries=9, transfer=16)
    frames = [frame_of("yuv420p10le", planes_of("yuv420p10le", (64, 64), n), color) for n in range(2)]
    options = {"x265-params": f"log-level=error:info=0:hdr10=1:{light}"}
    source = write(tmp_path / "in.mkv", frames, codec="libx265", color=color, options=options)
    for codec in ("libx265", "libsvtav1"):
        upscaled(source, tmp_path / f"{codec}.mkv", codec=codec)
    plan = prepare(source, tmp_path / "out.mkv", JobOptions().with_changes(model="nearest", codec="libsvtav1"))
    assert [fate.what for fate in plan.streams.losses] == ["HDR10 content light level"] * (light == "max-cll=0,400")


def test_hlg_tags_stay(tmp_path: Path) -> None:
    color = ColorSpec(matrix=9, full_range=False, primaries=9, transfer=18)
    made = source(tmp_path / "in.mkv", "yuv420p10le", (64, 64), codec="libx265", color=color)
    upscaled(made, tmp_path / "out.mp4", preset="ultrafast")
    after = probe(tmp_path / "out.mp4").color
    assert (after.matrix, after.primaries, after.transfer) == (9, 9, 18)


@pytest.mark.parametrize(
    ("asked", "size", "sar"),
    [
        ("60x40", (60, 40), Fraction(1)),
        ("90p", (120, 90), Fraction(1)),
        ("fit:100x200", (100, 76), Fraction(1)),
        ("60x60", (60, 60), Fraction(3, 2)),
    ],
)
def test_size(asked: str, size: tuple[int, int], sar: Fraction, tmp_path: Path) -> None:
    width, height = (33, 22) if asked.startswith("60") else (32, 24)
    made = source(tmp_path / "in.mkv", "yuv420p", (width, height))
    upscaled(made, tmp_path / "out.mkv", size=asked)
    info = probe(tmp_path / "out.mkv")
    assert (info.width, info.height, info.sar) == (*size, sar)


def test_anamorphic_size_is_shown_alike(tmp_path: Path) -> None:
    made = source(tmp_path / "in.mkv", "yuv420p", (72, 48), codec="libx264", sample_aspect_ratio=Fraction(32, 27))
    assert probe(made).sar == Fraction(32, 27)
    upscaled(made, tmp_path / "out.mkv", size="144p")
    info = probe(tmp_path / "out.mkv")
    assert (info.width, info.height, info.sar) == (256, 144, Fraction(1))


def test_a_flat_picture_keeps_its_codes_through_size(tmp_path: Path) -> None:
    planes = [np.full(shape, value, np.uint16) for shape, value in (((24, 32), 700), ((12, 16), 400), ((12, 16), 600))]
    made = write(tmp_path / "in.mkv", [frame_of("yuv420p10le", planes)])
    upscaled(made, tmp_path / "out.mkv", size="40x30", codec="ffv1")
    for plane, value in zip(planes_in(read(tmp_path / "out.mkv")[0]), (700, 400, 600), strict=True):
        assert np.abs(plane.astype(int) - value).max() <= 1
