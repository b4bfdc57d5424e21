"""What picture files say in their own bytes: named, counted, and never waited for in a damaged one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from a2n_video.errors import DecodeError, OptionError
from a2n_video.io.chunks import animated_frames, beside, is_jpeg_in_tiff, pages
from a2n_video.io.probe import probe
from a2n_video.io.rgb import read_rgb
from a2n_video.job.incoming import stream_of
from a2n_video.job.streaming import plan_stream
from a2n_video.media.streams import StreamFate
from a2n_video.options import JobOptions
from tests.clips import SIZE
from tests.made import animated


def paged(path: Path, count: int, **given: Any) -> Path:
    first, *others = (Image.new("RGB", SIZE, (40 * number, 0, 0)) for number in range(count))
    first.save(path, save_all=True, append_images=others, **given)
    return path


def unread(source: Path, dest: Path, **changes: Any) -> list[StreamFate]:
    plan = plan_stream(source, dest, JobOptions().with_changes(model="nearest", **changes))
    return [fate for fate in plan.streams.losses if fate.kind == "unread"]


@pytest.mark.parametrize(("count", "told"), [(1, []), (2, ["1 more page"]), (4, ["3 more pages"])])
def test_pages_after_the_first_are_named_as_lost(count: int, told: list[str], tmp_path: Path) -> None:
    made = paged(tmp_path / "a.tif", count)
    for dest in ("b.png", "b.mkv"):
        assert [fate.what for fate in unread(made, tmp_path / dest)] == told
    if told:
        with pytest.raises(OptionError, match=told[0]):
            unread(made, tmp_path / "b.png", keep_all=True)


@pytest.mark.parametrize(("kind", "count"), [(0, 2), (1, 1), (2, 2), (4, 1)])
def test_a_thumbnail_or_a_mask_is_no_page(kind: int, count: int, tmp_path: Path) -> None:
    made = paged(tmp_path / "a.tif", 2)
    data = made.read_bytes()
    width = b"\0\1\4\0\1\0\0\0@\0\0\0"  # the first tag of each page
    assert data.count(width) == 2
    made.write_bytes(data.replace(width, b"\xfe\0\4\0\1\0\0\0" + bytes([kind, 0, 0, 0]), 1))
    assert pages(made) == count


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "L"])
def test_jpeg_in_a_tiff_is_refused_by_name(mode: str, tmp_path: Path) -> None:
    """FFmpeg would make a black picture of it."""
    gray = Image.new(mode, SIZE, 200 if mode == "L" else (200, 100, 90))
    for name, compression in (("a", "jpeg"), ("b", "tiff_lzw")):
        gray.save(tmp_path / f"{name}.tif", compression=compression)
    for reading in (lambda path: next(read_rgb(path)), probe, lambda path: unread(path, tmp_path / "o.png")):
        with pytest.raises(DecodeError, match="compressed as JPEG"):
            reading(tmp_path / "a.tif")
        reading(tmp_path / "b.tif")


def test_a_later_page_is_not_the_picture(tmp_path: Path) -> None:
    made = paged(tmp_path / "a.tif", 2)
    plain, data = b"\3\1\3\0\1\0\0\0\1\0", made.read_bytes()
    assert data.count(plain) == 2
    as_jpeg = plain[:-2] + b"\7\0"
    made.write_bytes(data.replace(plain, as_jpeg, 1))
    assert is_jpeg_in_tiff(made)
    second = data.rindex(plain)
    made.write_bytes(data[:second] + as_jpeg + data[second + len(plain) :])
    assert not is_jpeg_in_tiff(made)


def test_frames_after_the_first_of_an_animated_png_are_named_as_lost(tmp_path: Path) -> None:
    made = animated(tmp_path / "a.png", 4)
    assert animated_frames(made) == 4
    for dest in ("b.png", "b_%d.png"):
        assert [fate.what for fate in unread(made, tmp_path / dest)] == ["3 more frames"]
    assert any(".apng" in note for note in stream_of(made, JobOptions()).notes)
    assert not unread(made, tmp_path / "b.mkv")  # all come
    whole = animated(tmp_path / "a.apng", 4)
    assert (unread(whole, tmp_path / "b_%d.png"), stream_of(whole, JobOptions()).count) == ([], 4)
    assert not unread(animated(tmp_path / "c.png", 1), tmp_path / "b.png")


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_a_damaged_file_is_read_as_far_as_it_goes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.new("RGB", SIZE).save(path, exif=exif.tobytes())
    data = path.read_bytes()
    for size in range(1, min(len(data), 400)):
        path.write_bytes(data[:size])
        beside(path), animated_frames(path), pages(path)
    assert beside(tmp_path / "none") == ()


def test_a_file_of_filling_or_of_a_circle_of_pages_ends(tmp_path: Path) -> None:
    begun = time.monotonic()
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + b"\xff" * 10_000_000)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + (8).to_bytes(4, "little") + b"\0\0" + (8).to_bytes(4, "little"))
    assert beside(tmp_path / "a.jpg") == ()
    assert pages(tmp_path / "a.tif") == 1
    assert time.monotonic() - begun < 10
