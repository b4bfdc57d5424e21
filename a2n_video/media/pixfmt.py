"""FFmpeg's pixel formats and our planes: which formats are native planes, and into which the others unfold without loss. Pure values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from a2n_video.media.planes import Family, PlaneFormat

_SUBSAMPLING: Final = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}
_CHROMA_NAME: Final = {factors: name for name, factors in _SUBSAMPLING.items()}
_NATIVE: Final = re.compile(r"(?:(yuvj?|yuva)(4\d\d)p|(gray|gbrp|gbrap))(9|10|12|14|16)?(le)?")

# Formats that are not native planes, and the native one that holds each without loss; FFmpeg unfolds them by moving bytes.
UNFOLDED: Final = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "nv24": "yuv444p",
    "nv42": "yuv444p",
    "p010le": "yuv420p10le",
    "p012le": "yuv420p12le",
    "p016le": "yuv420p16le",
    "p210le": "yuv422p10le",
    "p216le": "yuv422p16le",
    "p410le": "yuv444p10le",
    "p416le": "yuv444p16le",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "y210le": "yuv422p10le",
    "uyyvyy411": "yuv411p",
    "ya8": "gbrap",
    "ya16le": "gbrap16le",
    "ya16be": "gbrap16le",
    "pal8": "gbrap",
    "monow": "gray",
    "monob": "gray",
    "gray16be": "gray16le",
    "x2rgb10le": "gbrp10le",
    "x2bgr10le": "gbrp10le",
    "rgb48le": "gbrp16le",
    "rgb48be": "gbrp16le",
    "bgr48le": "gbrp16le",
    "rgba64le": "gbrap16le",
    "rgba64be": "gbrap16le",
    **dict.fromkeys(("rgb24", "bgr24", "rgb0", "bgr0", "0rgb", "0bgr", "rgb8", "bgr8", "rgb565le", "rgb555le"), "gbrp"),
    **dict.fromkeys(("rgba", "bgra", "argb", "abgr"), "gbrap"),
}


# Formats that encoders ask for and that native planes fold into, again by moving bytes only.
FOLDED: Final = frozenset(
    {"nv12", "nv21", "nv16", "p010le", "p012le", "p016le", "p210le", "p216le", "rgb24", "bgr24", "rgb0", "bgr0", "rgba", "bgra", "rgb48le"}
    | {"rgb48be", "rgba64le", "rgba64be", "gray16be", "0rgb", "0bgr", "argb", "abgr"}
)


def native_pix_fmt(pix_fmt: str) -> str | None:
    """The format whose planes we take for `pix_fmt`: itself, the one it unfolds into, or None where there is none."""
    if plane_format(pix_fmt, 2, 2) is not None:
        return pix_fmt
    if pix_fmt.endswith("be"):
        return native_pix_fmt(pix_fmt[:-2] + "le")
    return UNFOLDED.get(pix_fmt)


def plane_format(pix_fmt: str, width: int, height: int) -> PlaneFormat | None:
    """The planes of a native FFmpeg format at a size; None for a format that is not native planes."""
    match = _NATIVE.fullmatch(pix_fmt)
    if match is None or bool(match[4]) != bool(match[5]):
        return None
    depth = int(match[4] or 8)
    if match[3]:
        family: Family = "gray" if match[3] == "gray" else "rgb"
        return PlaneFormat(width=width, height=height, family=family, depth=depth, alpha=match[3] == "gbrap")
    if match[2] not in _SUBSAMPLING:
        return None
    log2_w, log2_h = _SUBSAMPLING[match[2]]
    alpha = match[1] == "yuva"
    return PlaneFormat(width=width, height=height, family="yuv", depth=depth, log2_chroma_w=log2_w, log2_chroma_h=log2_h, alpha=alpha)


def encodable(pix_fmt: str, width: int, height: int) -> PlaneFormat | None:
    """The native planes that are given to an encoder which takes `pix_fmt`; None for a format that cannot be made without loss."""
    native = UNFOLDED[pix_fmt] if pix_fmt in FOLDED else pix_fmt
    return plane_format(native, width, height)


def pix_fmt_of(fmt: PlaneFormat) -> str:
    """FFmpeg's name of native planes; the inverse of `plane_format` (with yuv, never yuvj). A ValueError for float planes."""
    if fmt.floating:
        raise ValueError("FFmpeg's float formats are not written")
    depth = "" if fmt.depth == 8 else f"{fmt.depth}le"
    if fmt.family == "gray":
        return f"gray{depth}"
    if fmt.family == "rgb":
        return f"{'gbrap' if fmt.alpha else 'gbrp'}{depth}"
    return f"yuv{'a' if fmt.alpha else ''}{_CHROMA_NAME[fmt.log2_chroma_w, fmt.log2_chroma_h]}p{depth}"


def closest(wanted: PlaneFormat, offered: Sequence[str]) -> str | None:
    """The offered format that holds `wanted` with the least loss, then the smallest.

    Depth is let go before chroma, chroma before alpha, alpha before colour: a hole that is filled is seen before soft edges of colour.
    """
    candidates = [(name, fmt) for name in offered if (fmt := encodable(name, wanted.width, wanted.height)) and not name.startswith("yuvj")]
    if not candidates:
        return None
    return min(candidates, key=lambda item: _loss(wanted, item[1]))[0]


def _loss(wanted: PlaneFormat, fmt: PlaneFormat) -> tuple[int, ...]:
    chroma_lost = max(0, fmt.log2_chroma_w - wanted.log2_chroma_w) + max(0, fmt.log2_chroma_h - wanted.log2_chroma_h)
    colour_lost = wanted.family != "gray" and fmt.family == "gray"
    return (
        int(colour_lost),
        int(wanted.alpha and not fmt.alpha),
        chroma_lost if wanted.family != "gray" else 0,
        max(0, wanted.depth - fmt.depth),
        int(wanted.family != fmt.family),
        fmt.samples,
        max(0, fmt.depth - wanted.depth),
        int(fmt.alpha),
    )
