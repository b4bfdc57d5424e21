"""HDR10 metadata in the encoders' words: the examples of their own documentation."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from a2n_video.media.hdr import given_hdr, hdr_differences, hdr_params, lost_hdr
from a2n_video.media.info import HdrMetadata


def point(x: str, y: str) -> tuple[Fraction, Fraction]:
    return Fraction(x), Fraction(y)


# Display P3, D65, 1000 and 0.0001 cd/m2.
P3 = HdrMetadata(
    red=point("0.68", "0.32"),
    green=point("0.265", "0.69"),
    blue=point("0.15", "0.06"),
    white=point("0.3127", "0.329"),
    max_luminance=Fraction(1000),
    min_luminance=Fraction(1, 10000),
    max_content=1000,
    max_average=400,
)
COUNTED = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def test_words() -> None:
    assert hdr_params("libx265", P3) == f"master-display={COUNTED}:max-cll=1000,400"
    assert hdr_params("libx264", P3) == f"mastering-display={COUNTED}:cll=1000,400"
    plain = "G(0.26500,0.69000)B(0.15000,0.06000)R(0.68000,0.32000)WP(0.31270,0.32900)L(1000.0000,0.0001)"
    assert hdr_params("libsvtav1", P3) == f"mastering-display={plain}:content-light=1000,400"


def test_parts() -> None:
    light = HdrMetadata(max_content=600)
    assert hdr_params("libx265", light) == "max-cll=600,0"
    assert hdr_params("libx265", None) == hdr_params("ffv1", P3) == ""
    half = replace(P3, max_luminance=None)
    assert hdr_params("libx265", half) == "max-cll=1000,400"


def test_losses_are_named() -> None:
    assert lost_hdr("libx265", P3) == lost_hdr("ffv1", None) == ""
    assert lost_hdr("libvpx-vp9", P3) == "mastering display and content light level"
    assert lost_hdr("ffv1", HdrMetadata(max_content=5)) == "content light level"
    assert lost_hdr("libx265", replace(P3, white=None)) == "mastering display (only part of it is known)"


@pytest.mark.parametrize(
    "odd",
    [
        {"max_luminance": Fraction(0), "min_luminance": Fraction(0)},
        {"max_luminance": Fraction(10**7)},
        {"max_luminance": Fraction(4)},
        {"max_luminance": Fraction(5), "min_luminance": Fraction(5)},
        {"min_luminance": Fraction(-1)},
        {"red": point("5", "0.3")},
        {"white": point("0.3", "-0.1")},
    ],
)
def test_numbers_that_h265_calls_unknown_are_named_and_not_asked_for(odd: dict[str, Any]) -> None:
    hdr, light = replace(P3, **odd), HdrMetadata(max_content=1000, max_average=400)
    for codec, boxed in (("libx265", False), ("libx264", True), ("prores_ks", True)):
        assert lost_hdr(codec, hdr, boxed=boxed) == "mastering display (its numbers are beyond those that HDR10 has)"
        assert given_hdr(codec, hdr, {}, boxed=boxed) == light
    assert hdr_params("libx265", hdr) == "max-cll=1000,400"
    assert lost_hdr("ffv1", hdr) == "mastering display and content light level"


def test_a_light_level_of_more_than_16_bits_is_named_and_not_asked_for() -> None:
    bright, dark = replace(P3, max_content=70000), replace(P3, min_luminance=Fraction(0))
    assert lost_hdr("libx265", bright) == "content light level (its numbers are beyond those that HDR10 has)"
    assert hdr_params("libx265", bright) == f"master-display={COUNTED}"
    assert given_hdr("libx265", bright, {}, boxed=True) == replace(P3, max_content=None, max_average=None)
    assert lost_hdr("libx265", dark) == "" and given_hdr("libx265", dark, {}) == dark


def test_a_mean_beside_an_unknown_peak_is_no_light_level_to_svt() -> None:
    mean = HdrMetadata(max_content=0, max_average=400)
    assert hdr_params("libsvtav1", mean) == "" and hdr_params("libx265", mean) == "max-cll=0,400"
    assert lost_hdr("libsvtav1", mean) == "content light level" and lost_hdr("libx265", mean) == ""
    assert given_hdr("libsvtav1", mean, {}) is None and given_hdr("libx265", mean, {}) == mean
    assert lost_hdr("libsvtav1", mean, boxed=True) == "" and given_hdr("libsvtav1", mean, {}, boxed=True) == mean


def test_a_result_must_say_what_its_encoder_was_given() -> None:
    assert given_hdr("libx265", P3, {}) == P3
    assert given_hdr("ffv1", P3, {}) is None and given_hdr("libx265", None, {}) is None
    said_anew = given_hdr("libx265", P3, {"x265-params": "max-cll=500,100"})
    assert said_anew == replace(P3, max_content=None, max_average=None)
    assert given_hdr("libx265", P3, {"x265-params": f"master-display={COUNTED}"}) == HdrMetadata(max_content=1000, max_average=400)
    light = HdrMetadata(max_content=1000)
    assert given_hdr("libx265", light, {}) == HdrMetadata(max_content=1000, max_average=0)


def test_differences_are_named_beyond_what_codecs_round() -> None:
    assert hdr_differences(P3, replace(P3, red=point("0.68001", "0.32"))) == []
    assert hdr_differences(P3, replace(P3, max_luminance=Fraction(999))) == ["HDR10 max luminance is 999, not 1000"]
    assert hdr_differences(P3, replace(P3, blue=None)) == ["HDR10 blue is missing, not 0.15,0.06"]
    assert len(hdr_differences(P3, None)) == 8
    assert hdr_differences(HdrMetadata(max_content=1000), P3) == []


def test_a_container_with_boxes_keeps_what_a_codec_cannot_say() -> None:
    assert lost_hdr("prores_ks", P3) == "mastering display and content light level"
    assert lost_hdr("prores_ks", P3, boxed=True) == ""
    assert given_hdr("prores_ks", P3, {}, boxed=True) == P3
    assert lost_hdr("prores_ks", replace(P3, white=None), boxed=True) == "mastering display (only part of it is known)"
