"""--size: the arithmetic, against figures worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2n_video.errors import OptionError
from a2n_video.media.size import PictureSize, aligned, network_scale, parse_size, target_size

NTSC = PictureSize(width=720, height=480, sar=Fraction(32, 27))
PAL = PictureSize(width=720, height=576, sar=Fraction(16, 15))
HD = PictureSize(width=1280, height=720)
CINEMA = PictureSize(width=1920, height=804)


@pytest.mark.parametrize(
    ("asked", "source", "rotation", "size", "sar"),
    [
        ("1440p", HD, 0, (2560, 1440), 1),
        ("1440p", NTSC, 0, (2560, 1440), 1),
        ("1080p", PAL, 0, (1440, 1080), 1),
        ("1440P", HD, 90, (2560, 1440), 1),
        ("1440p", PictureSize(width=1080, height=1920), 0, (1440, 2560), 1),
        ("fit:3840x2160", CINEMA, 0, (3840, 1608), 1),
        ("fit:3840x2160", PAL, 0, (2880, 2160), 1),
        ("fit:3840x2160", HD, -90, (2160, 1216), 1),
        ("fit:101x99", HD, 0, (100, 56), 1),
        ("2560x1440", HD, 0, (2560, 1440), 1),
        ("2560x1440", NTSC, 0, (2560, 1440), 1),
        ("1920x1080", PAL, 0, (1920, 1080), Fraction(3, 4)),
        ("1080x1920", HD, 90, (1920, 1080), 1),
        ("1366x768", HD, 0, (1366, 768), 1),
    ],
)
def test_sizes(asked: str, source: PictureSize, rotation: int, size: tuple[int, int], sar: Fraction) -> None:
    found = target_size(parse_size(asked), source, rotation)
    assert (found.width, found.height, found.sar) == (*size, sar)


@pytest.mark.parametrize(
    "text", ["", "big", "1440", "0x100", "100x0", "00x100", "100x000", "fit:00x9", "00p", "000p", "fit:100", "-5x5", "1440p60", "fit:1440p"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(OptionError, match="--size"):
        parse_size(text)


@given(
    st.integers(16, 4000),
    st.integers(16, 4000),
    st.fractions(Fraction(1, 2), 2, max_denominator=64),
    st.integers(64, 8000),
    st.integers(64, 8000),
)
def test_a_fit_fits_and_keeps_the_shape(width: int, height: int, sar: Fraction, box_width: int, box_height: int) -> None:
    source = PictureSize(width=width, height=height, sar=sar)
    found = target_size(parse_size(f"fit:{box_width}x{box_height}"), source)
    assert found.width <= box_width
    assert found.height <= box_height
    assert found.width % 2 == found.height % 2 == 0
    if min(found.width, found.height) > 4:
        ideal = found.height * source.display_aspect
        assert abs(found.width - ideal) <= 2 * (1 + source.display_aspect)


@pytest.mark.parametrize(
    ("target", "scale"), [((1280, 720), 2), ((2560, 1440), 2), ((2562, 1440), 3), ((3840, 2160), 3), ((3842, 2160), 4), ((9999, 99), 4)]
)
def test_the_network_enlarges_enough(target: tuple[int, int], scale: int) -> None:
    assert network_scale({2, 3, 4}, HD, PictureSize(width=target[0], height=target[1])) == scale
    assert network_scale({2}, HD, PictureSize(width=target[0], height=target[1])) == 2


def test_whole_chroma_samples() -> None:
    assert aligned(363, 243, 1, 1) == (364, 244)
    assert aligned(363, 243, 1, 0) == (364, 243)
    assert aligned(363, 243, 0, 0) == (363, 243)
    assert aligned(363, 243, 2, 2) == (364, 244)
