"""Static HDR10 metadata in each encoder library's own words. Pure values.

Units: SMPTE ST 2086 chromaticities count 0.00002, luminances 0.0001 cd/m2, in x265 and x264; SVT-AV1 takes plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from a2n_video.media.info import HdrMetadata

PQ: Final = 16
HLG: Final = 18
CHROMATICITY: Final = Fraction(1, 50000)
LUMINANCE: Final = Fraction(1, 10000)
# What H.265 (D.3.28) does not call unknown, in its counts, and as FFmpeg reads it: discs do come with a darkest luminance of 0.
_RANGES: Final = {"x": (5, 37000), "y": (5, 42000), "max": (50_000, 100_000_000), "min": (0, 50_000)}
_MOST_LIGHT: Final = 0xFFFF
_DISPLAY, _LIGHT = "mastering display", "content light level"
_NOT_WHOLE: Final = " (only part of it is known)"
_ODD: Final = " (its numbers are beyond those that HDR10 has)"


@dataclass(frozen=True, kw_only=True)
class HdrWords:
    """How a library is told: the names of its two settings, and how it writes a chromaticity and a luminance.

    `unknown_peak`: it writes a mean (MaxFALL) beside a peak (MaxCLL) of 0, which is an unknown one; SVT-AV1 then writes neither.
    """

    mastering: str
    light: str
    chromaticity: Callable[[Fraction], str]
    luminance: Callable[[Fraction], str]
    unknown_peak: bool = True


def _counted(unit: Fraction) -> Callable[[Fraction], str]:
    return lambda value: str(round(value / unit))


def _decimal(digits: int) -> Callable[[Fraction], str]:
    return lambda value: f"{float(value):.{digits}f}"


# Encoders that can be given static metadata; everything else loses it, and the plan says so.
HDR_WORDS: Final[dict[str, HdrWords]] = {
    "libx265": HdrWords(mastering="master-display", light="max-cll", chromaticity=_counted(CHROMATICITY), luminance=_counted(LUMINANCE)),
    "libx264": HdrWords(mastering="mastering-display", light="cll", chromaticity=_counted(CHROMATICITY), luminance=_counted(LUMINANCE)),
    "libsvtav1": HdrWords(
        mastering="mastering-display", light="content-light", chromaticity=_decimal(5), luminance=_decimal(4), unknown_peak=False
    ),
}


def hdr_params(codec: str, hdr: HdrMetadata | None) -> str:
    """`hdr` as key=value pairs for the encoder's own option string; empty where there is none, or the encoder takes none."""
    words = HDR_WORDS.get(codec)
    if hdr is None or words is None:
        return ""
    pairs = []
    if has_mastering(hdr):
        pairs.append(f"{words.mastering}={_mastering(hdr, words)}")
    if _keeps_light(words, hdr, boxed=False):
        pairs.append(f"{words.light}={hdr.max_content},{hdr.max_average or 0}")
    return ":".join(pairs)


def has_mastering(hdr: HdrMetadata) -> bool:
    """Whether the mastering display is known whole: no encoder takes primaries without luminances, or the other way round.

    Numbers that H.265 counts as unknown are not known here either: encoders and boxes have no room for them, or players skip them.
    """
    points, brightest, darkest = (hdr.red, hdr.green, hdr.blue, hdr.white), hdr.max_luminance, hdr.min_luminance
    if brightest is None or darkest is None:
        return False
    placed = all(point is not None and _said(point[0], CHROMATICITY, "x") and _said(point[1], CHROMATICITY, "y") for point in points)
    return placed and darkest < brightest and _said(brightest, LUMINANCE, "max") and _said(darkest, LUMINANCE, "min")


def has_light(hdr: HdrMetadata) -> bool:
    """Whether there is a content light level, and one that 16 bits hold as everywhere."""
    return hdr.max_content is not None and max(hdr.max_content, hdr.max_average or 0) <= _MOST_LIGHT


def _said(value: Fraction, unit: Fraction, kind: str) -> bool:
    least, most = _RANGES[kind]
    return least <= round(value / unit) <= most


def lost_hdr(codec: str, hdr: HdrMetadata | None, *, boxed: bool = False) -> str:
    """What of `hdr` neither the encoder nor the container (`boxed`: it has boxes for it) can be given, in words; empty for nothing."""
    if hdr is None:
        return ""
    words = HDR_WORDS.get(codec)
    display = (hdr.red, hdr.green, hdr.blue, hdr.white, hdr.max_luminance, hdr.min_luminance)
    mastering = [_DISPLAY + (_NOT_WHOLE if None in display else _ODD)] if display.count(None) < len(display) else []
    light = [_LIGHT + ("" if has_light(hdr) else _ODD)] if hdr.max_content is not None else []
    if not boxed and words is None:
        return " and ".join([_DISPLAY] * len(mastering) + [_LIGHT] * len(light))
    kept = _keeps_light(words, hdr, boxed=boxed)
    return " and ".join(([] if has_mastering(hdr) else mastering) + ([] if kept else light))


def _keeps_light(words: HdrWords | None, hdr: HdrMetadata, *, boxed: bool) -> bool:
    """Whether there is a content light level that the container or the encoder's library writes."""
    return has_light(hdr) and (boxed or (words is not None and (bool(hdr.max_content) or words.unknown_peak)))


def given_hdr(codec: str, hdr: HdrMetadata | None, encoder_options: Mapping[str, str], *, boxed: bool = False) -> HdrMetadata | None:
    """What the result must say: `hdr` as far as the encoder or the container (`boxed`) is given it.

    What the user's own options say anew is left out.
    """
    words = HDR_WORDS.get(codec)
    if hdr is None or (words is None and not boxed):
        return None
    said = " ".join(encoder_options.values())
    mastering = has_mastering(hdr) and (words is None or f"{words.mastering}=" not in said)
    light = _keeps_light(words, hdr, boxed=boxed) and (words is None or f"{words.light}=" not in said)
    if not mastering and not light:
        return None
    given = hdr if mastering else HdrMetadata(max_content=hdr.max_content, max_average=hdr.max_average)
    if light:
        return replace(given, max_average=hdr.max_average or 0)
    return replace(given, max_content=None, max_average=None)


def hdr_differences(want: HdrMetadata, got: HdrMetadata | None) -> list[str]:
    """Which fields of static metadata a result does not have as wanted, in words; fields that are None in `want` are open.

    Numbers may differ by their coding: AV1 counts chromaticities in 1/65536 and luminances in 1/256 and 1/16384, HEVC as above.
    """
    found = got or HdrMetadata()
    wrong = []
    for name, allowed in _ALLOWED.items():
        wanted, is_so = getattr(want, name), getattr(found, name)
        if wanted is not None and (is_so is None or any(abs(a - b) > allowed for a, b in zip(_pair(wanted), _pair(is_so), strict=True))):
            wrong.append(f"HDR10 {name.replace('_', ' ')} is {_shown(is_so)}, not {_shown(wanted)}")
    return wrong


_ALLOWED: Final = {
    **dict.fromkeys(("red", "green", "blue", "white"), Fraction(1, 30000)),
    "max_luminance": Fraction(1, 200),
    "min_luminance": Fraction(1, 10000),
    "max_content": Fraction(0),
    "max_average": Fraction(0),
}


def _pair(value: Fraction | int | tuple[Fraction, Fraction]) -> tuple[Fraction, ...]:
    return value if isinstance(value, tuple) else (Fraction(value),)


def _shown(value: Fraction | int | tuple[Fraction, Fraction] | None) -> str:
    return "missing" if value is None else ",".join(f"{float(number):g}" for number in _pair(value))


def _mastering(hdr: HdrMetadata, words: HdrWords) -> str:
    points = {"G": hdr.green, "B": hdr.blue, "R": hdr.red, "WP": hdr.white}
    pairs = "".join(f"{name}({','.join(words.chromaticity(v) for v in point)})" for name, point in points.items() if point is not None)
    assert hdr.max_luminance is not None
    assert hdr.min_luminance is not None
    return f"{pairs}L({words.luminance(hdr.max_luminance)},{words.luminance(hdr.min_luminance)})"
