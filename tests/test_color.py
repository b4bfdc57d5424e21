"""Colour end to end: files with known colours through decoder, network (pixels repeated) and encoder, held against the standards' formulas.

Codes alone would not tell: a wrong matrix used both ways cancels. So results are read as YUV by their own tags, and as RGB.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from a2n_video import upscale_video
from a2n_video.io.chunks import ycbcr_in_tiff
from a2n_video.io.probe import probe
from a2n_video.io.rgb import read_rgb
from a2n_video.job.planning.plan import prepare
from a2n_video.job.streaming import plan_stream
from a2n_video.media.colorspec import ColorSpec
from a2n_video.media.pixfmt import plane_format
from a2n_video.options import JobOptions
from tests.clips import Clip, level, write_clip
from tests.test_picture import frame_of, planes_in, planes_of, read, upscaled, write

# Written down here again, from ITU-T H.273 table 4: the product's own table is what is tested.
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
PATCHES = np.array(
    [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.8, 0.1, 0.1), (0.1, 0.7, 0.2), (0.2, 0.2, 0.9), (0.9, 0.8, 0.1), (0.1, 0.6, 0.8)]
)
SD, HD = (128, 16), (1280, 16)


@dataclass(frozen=True)
class Case:
    matrix: int  # 2: untagged
    full: bool
    pix_fmt: str
    size: tuple[int, int]
    as_rgb: bool

    def __str__(self) -> str:
        size = "hd" if self.size == HD else "sd"
        return f"{self.pix_fmt}-{self.matrix}-{'full' if self.full else 'limited'}-{size}-{'rgb' if self.as_rgb else 'yuv'}"

    @property
    def meant(self) -> int:
        """What the codes mean: the tag, or by the rule for untagged video."""
        return self.matrix if self.matrix != 2 else (1 if self.size == HD else 6)


FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "yuv422p12le")
CASES = [
    Case(*values)
    for values in itertools.product((1, 5, 9, 2), (False, True), FORMATS, (SD, HD), (False, True))
    if values[0] != 9 or values[3] == HD
]
CASES += [Case(7, full, pix_fmt, SD, as_rgb) for full, pix_fmt, as_rgb in itertools.product((False, True), FORMATS, (False, True))]
CASES += [Case(6, full, pix_fmt, SD, True) for full, pix_fmt in itertools.product((False, True), FORMATS)]


def encode(rgb: np.ndarray[Any, Any], matrix: int, full: bool, depth: int) -> np.ndarray[Any, Any]:
    """R'G'B' (n, 3) as codes, H.273 equations 20 to 43, not rounded."""
    kr, kb = KR_KB[matrix]
    y = kr * rgb[:, 0] + (1 - kr - kb) * rgb[:, 1] + kb * rgb[:, 2]
    cb, cr = (rgb[:, 2] - y) / (2 * (1 - kb)), (rgb[:, 0] - y) / (2 * (1 - kr))
    unit = 2 ** (depth - 8)
    if full:
        top, middle = 2**depth - 1, 2 ** (depth - 1)
        return np.stack([top * y, top * cb + middle, top * cr + middle], 1)
    return np.stack([(219 * y + 16) * unit, (224 * cb + 128) * unit, (224 * cr + 128) * unit], 1)


def decode(codes: np.ndarray[Any, Any], matrix: int, full: bool, depth: int) -> np.ndarray[Any, Any]:
    """The inverse, written out from the same equations."""
    kr, kb = KR_KB[matrix]
    unit = 2 ** (depth - 8)
    if full:
        top, middle = 2**depth - 1, 2 ** (depth - 1)
        y, cb, cr = codes[:, 0] / top, (codes[:, 1] - middle) / top, (codes[:, 2] - middle) / top
    else:
        y, cb, cr = (codes[:, 0] / unit - 16) / 219, (codes[:, 1] / unit - 128) / 224, (codes[:, 2] / unit - 128) / 224
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], 1)


def patch_codes(planes: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The codes in the middle of each patch, (patches, planes)."""
    return np.array(
        [[plane[plane.shape[0] // 2, int((n + 0.5) * plane.shape[1] / len(PATCHES))] for plane in planes] for n in range(len(PATCHES))]
    )


def picture_of(case: Case) -> list[np.ndarray[Any, Any]]:
    fmt = plane_format(case.pix_fmt, *case.size)
    assert fmt is not None
    codes = np.rint(encode(PATCHES, case.meant, case.full, fmt.depth)).clip(0, 2**fmt.depth - 1)
    planes = []
    for number, shape in enumerate(fmt.planes):
        of_column = np.arange(shape.width) * len(PATCHES) // shape.width
        planes.append(np.broadcast_to(codes[of_column, number], (shape.height, shape.width)).astype(fmt.dtype))
    return planes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_colours_stay(case: Case, tmp_path: Path) -> None:
    color = ColorSpec(matrix=case.matrix, full_range=case.full)
    made = write(tmp_path / "in.mkv", [frame_of(case.pix_fmt, picture_of(case), color)], color=color)
    wanted = {"codec": "ffv1"} | ({"pix_fmt": "gbrp16le"} if case.as_rgb else {})
    upscaled(made, tmp_path / "out.mkv", **wanted)
    info = probe(tmp_path / "out.mkv")
    codes = patch_codes(planes_in(read(tmp_path / "out.mkv")[0])).astype(float)
    depth = plane_format(case.pix_fmt, 2, 2).depth  # type: ignore[union-attr]
    if case.as_rgb:
        assert info.color.full_range is not False
        rgb = codes / 65535
    else:
        assert (info.color.matrix, bool(info.color.full_range)) == (case.meant, case.full)
        rgb = decode(codes, info.color.matrix, case.full, depth)
    # What the source's rounding costs, and the result's.
    assert np.abs(rgb - PATCHES).max() < (1.6 if case.as_rgb else 3) / (219 * 2 ** (depth - 8))


RGB_SOURCES = [(pix_fmt, matrix) for pix_fmt in ("yuv420p", "yuv444p10le") for matrix in ("gbrp", "gbrp10le")]


@pytest.mark.parametrize(("target", "given"), RGB_SOURCES)
def test_rgb_sources_as_yuv(target: str, given: str, tmp_path: Path) -> None:
    depth = 8 if given == "gbrp" else 10
    codes = np.rint(PATCHES * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)
    planes = [np.broadcast_to(codes[np.arange(128) * 8 // 128, n], (16, 128)) for n in range(3)]
    color = ColorSpec(matrix=0, full_range=True)
    made = write(tmp_path / "in.mkv", [frame_of(given, planes, color)], color=color)
    upscaled(made, tmp_path / "out.mkv", codec="ffv1", pix_fmt=target)
    info = probe(tmp_path / "out.mkv")
    found = patch_codes(planes_in(read(tmp_path / "out.mkv")[0])).astype(float)
    rgb = decode(found, info.color.matrix, bool(info.color.full_range), info.planes.depth)
    assert np.abs(rgb - PATCHES).max() < 3 / (219 if info.planes.depth == 8 else 876)


def test_two_hundred_cases() -> None:
    assert len(CASES) + len(RGB_SOURCES) >= 200
    assert len({str(case) for case in CASES}) == len(CASES)


# Where chroma sits, in luma samples from the first one it covers (H.273 figure 1), by FFmpeg's number.
PLACES = {1: (0.0, 0.5), 2: (0.5, 0.5), 3: (0.0, 0.0)}


@pytest.mark.parametrize("siting", PLACES)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("axis", [0, 1], ids=["down", "across"])
@pytest.mark.parametrize("as_rgb", [False, True], ids=["yuv", "rgb"])
def test_gradients_do_not_shift(siting: int, scale: int, axis: int, as_rgb: bool, tmp_path: Path) -> None:
    side, slope, start = 48, 12.0, 250.0
    place = PLACES[siting][1 - axis]
    ramp = start + slope * (2 * np.arange(side // 2) + place)  # Cb at the places where its samples sit, in luma coordinates
    cb = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, (side // 2, side // 2)).round().astype(np.uint16)
    planes = [np.full((side, side), 500, np.uint16), cb, np.full_like(cb, 512)]
    color = ColorSpec(matrix=1, full_range=False, primaries=1, transfer=1, chroma_location=siting)
    made = write(tmp_path / "in.mkv", [frame_of("yuv420p10le", planes, color)], color=color, chroma_sample_location=siting)
    assert probe(made).color.chroma_location == siting
    upscaled(made, tmp_path / "out.mkv", codec="ffv1", scale=scale, **({"pix_fmt": "gbrp16le"} if as_rgb else {}))
    found = planes_in(read(tmp_path / "out.mkv")[0])
    if as_rgb:
        rgb = np.stack([p.astype(float) / 65535 for p in found], -1).reshape(-1, 3)
        values = encode(rgb, 1, False, 10)[:, 1].reshape(found[0].shape)
        at = np.arange(side * scale, dtype=float)
    else:
        assert probe(tmp_path / "out.mkv").color.chroma_location == siting
        values = found[1].astype(float)
        at = 2 * np.arange(side * scale // 2) + place
    along = values.mean(axis=1 - axis)
    inner = slice(len(along) // 4, -len(along) // 4)
    expected = start + slope * ((at + 0.5) / scale - 0.5)
    shift = (along - expected)[inner].mean() / (slope / scale)  # in the result's luma samples
    assert abs(shift) < 0.1


@pytest.mark.parametrize(
    ("codec", "suffix", "matrix", "full"),
    [("mpeg4", "mp4", 5, True), ("mpeg2video", "mkv", 5, False), ("mpeg4", "avi", 2, False), ("ffv1", "nut", 2, False)],
)
def test_codecs_without_tags_of_their_own(codec: str, suffix: str, matrix: int, full: bool, tmp_path: Path) -> None:
    """JPEG's matrix and full range, its primaries unknown: MP4 says so in its own box; where nobody can, it is named, and range limited.

    Whatever is said, the picture means the same: each frame's gray is as it was.
    """
    made = write_clip(tmp_path / "in.mov", Clip(times=[Fraction(n, 25) for n in range(6)], codec="mjpeg", time_base=Fraction(1, 25)))
    result = tmp_path / f"out.{suffix}"
    plan = prepare(made, result, JobOptions().with_changes(model="nearest", codec=codec))
    assert [fate.what for fate in plan.streams.losses] == ["colour tags"] * (matrix == 2)
    upscale_video(made, result, model="nearest", codec=codec)
    color = probe(result).color
    assert (color.matrix, bool(color.full_range)) == (matrix, full)
    with av.open(str(result)) as container:
        lumas = [float(np.median(np.frombuffer(frame.planes[0], np.uint8)[:64])) for frame in container.decode(video=0)]
    wanted = [level(n) if full else 16 + level(n) * 219 / 255 for n in range(6)]
    assert lumas == pytest.approx(wanted, abs=2)


@pytest.mark.parametrize(("primaries", "transfer"), [(2, 2), (1, 13), (9, 16), (1, 1), (2, 18)])
@pytest.mark.parametrize(("dest", "what"), [("out.tif", "a TIFF"), ("out.jpg", "a JPEG"), ("out.png", None)])
def test_pictures_lose_colour_tags_that_a_source_has(dest: str, what: str | None, primaries: int, transfer: int, tmp_path: Path) -> None:
    """A picture without is taken for sRGB, with full range and JPEG's matrix: what says nothing else loses nothing."""
    color = ColorSpec(matrix=5, full_range=False, primaries=primaries, transfer=transfer)
    made = write(tmp_path / "in.mkv", [frame_of("yuv444p", planes_of("yuv444p", (16, 8)), color)], color=color)
    named = what is not None and (primaries, transfer) not in ((2, 2), (1, 13))
    plan = plan_stream(made, tmp_path / dest, JobOptions().with_changes(model="nearest"))
    lost = [fate.reason for fate in plan.streams.losses if fate.kind == "color"]
    assert lost == ([f"{what} has no place for them; .png has"] if named else [])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_pictures_that_say_nothing_of_colour_become_jpegs_that_keep_all(suffix: str, mode: str, tmp_path: Path) -> None:
    Image.new(mode, (16, 8), 90 if mode == "L" else (200, 90, 30)).save(tmp_path / f"in.{suffix}")
    plan = plan_stream(tmp_path / f"in.{suffix}", tmp_path / "out.jpg", JobOptions().with_changes(model="nearest", keep_all=True))
    assert not plan.streams.losses


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_picture_without_colour_tags_stays_without(suffix: str, mode: str, tmp_path: Path) -> None:
    """A PNG says them in parts of its own: cICP, cHRM, gAMA."""
    values = np.arange(16 * 8).reshape(8, 16)
    image = Image.fromarray((values * 500).astype(np.uint16)) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    image.save(tmp_path / f"in.{suffix}")
    upscaled(tmp_path / f"in.{suffix}", tmp_path / "out.png")
    data = (tmp_path / "out.png").read_bytes()
    assert not [name for name in (b"cICP", b"cHRM", b"gAMA", b"sRGB") if name in data]
    with Image.open(tmp_path / "out.png") as out, Image.open(tmp_path / f"in.{suffix}") as given:
        assert np.array_equal(np.asarray(out.convert("I"))[::2, ::2], np.asarray(given.convert("I")))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [(16, 8), (1280, 8)])
def test_ycbcr_of_a_tiff_is_full_range_bt601_unless_it_says_other(size: tuple[int, int], count: int, tmp_path: Path) -> None:
    """Pillow writes full range, FFmpeg limited, and either says so; both are BT.601 at every size."""
    rgb = np.broadcast_to(np.uint8((20, 200, 110)), (size[1], size[0], 3))
    for number in range(1, 1 + count):
        Image.fromarray(rgb).convert("YCbCr").save(tmp_path / f"full_{number}.tif", compression="tiff_lzw")
        context: Any = av.CodecContext.create("tiff", "w")
        context.width, context.height, context.pix_fmt, context.time_base = *size, "yuv444p", Fraction(1, 25)
        limited = frame_of("yuv444p", [np.full(size[::-1], code, np.uint8) for code in (133, 115, 55)])
        (tmp_path / f"limited_{number}.tif").write_bytes(b"".join(bytes(p) for f in (limited, None) for p in context.encode(f)))
    for name in ("full", "limited"):
        source = f"{name}_1.tif" if count == 1 else f"{name}_%d.tif"
        upscaled(tmp_path / source, tmp_path / f"{name}_out_%d.png")
        found = next(read_rgb(tmp_path / f"{name}_out_{count}.png"))
        assert np.abs(found.astype(int) - (20, 200, 110)).max() <= 3
        assert np.array_equal(next(read_rgb(tmp_path / f"{name}_{count}.tif")), found[::2, ::2])


def test_the_coefficients_in_a_tiff_are_its_matrix() -> None:
    """HDTV's, in the order of bytes that the file says."""
    for order in ("<", ">"):
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
        page = struct.pack(order + "HHHIII", 1, 529, 5, 3, 26, 0)
        kr, kg, kb = (2126, 10000), (7152, 10000), (722, 10000)
        assert ycbcr_in_tiff(head + page + struct.pack(order + "6I", *kr, *kg, *kb)) == (1, True)
        assert ycbcr_in_tiff(head + page) == (5, True)
    assert ycbcr_in_tiff(b"") == (5, True)


@pytest.mark.parametrize("box", ["avi", "nut"])
@pytest.mark.parametrize(("pix_fmt", "primaries", "transfer"), [("gbrp", 2, 2), ("gbrp", 1, 13), ("gbrp", 9, 16), ("gray", 2, 2)])
def test_what_has_no_place_for_tags_takes_pictures_that_need_none(
    pix_fmt: str, primaries: int, transfer: int, box: str, tmp_path: Path
) -> None:
    color = ColorSpec(matrix=0 if pix_fmt == "gbrp" else 2, full_range=True, primaries=primaries, transfer=transfer)
    made = write(tmp_path / "in.mkv", [frame_of(pix_fmt, planes_of(pix_fmt, (16, 8)), color)], color=color)
    plan = prepare(made, tmp_path / f"out.{box}", JobOptions().with_changes(model="nearest", codec="ffv1"))
    assert [fate.kind for fate in plan.streams.losses] == ["color"] * (primaries == 9)
    assert upscale_video(made, tmp_path / f"out.{box}", model="nearest", codec="ffv1").verified == "verified: 1 frame"
