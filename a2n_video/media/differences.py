"""What of a finished picture is not as planned. Pure values: for holding a result against its plan, and an encoder before the work."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from a2n_video.media.final import FinalFile
from a2n_video.media.hdr import hdr_differences
from a2n_video.media.info import VideoInfo
from a2n_video.media.pixfmt import native_pix_fmt

_IDENTITY: Final = (65536, 0, 0, 65536)


def picture_differences(want: FinalFile, got: VideoInfo, width: int | None = None) -> Iterator[str]:
    """Size, format, colour tags, shape, rotation and static HDR metadata, in words such as `matrix is 2, not 6`.

    Pixels' shape may be off by a pixel of the picture's width: of `width`, where this is a small trial of a larger one.
    """
    off = Fraction(1, width or want.width)
    pairs: list[tuple[str, object, object]] = [
        ("size", f"{want.width}x{want.height}", f"{got.width}x{got.height}"),
        ("pixel format", native_pix_fmt(want.pix_fmt or got.pix_fmt), native_pix_fmt(got.pix_fmt.replace("yuvj", "yuv"))),
        ("sample aspect ratio", want.sar, want.sar if abs(got.sar / want.sar - 1) <= off else got.sar),
        ("range", bool(want.color.full_range), _is_full(got)),
    ]
    if want.tagged:
        # Gray has no chroma that a matrix could speak of: PNG says 0 of all that it holds.
        tags = ("primaries", "transfer") if got.planes.family == "gray" else ("matrix", "primaries", "transfer")
        pairs += [(tag, getattr(want.color, tag), getattr(got.color, tag)) for tag in tags]
    if not any(fate.kind == "rotation" for fate in want.plan.losses):
        pairs.append(("display matrix", _turn(want.display_matrix), _turn(got.display_matrix)))
    yield from (f"{what} is {is_so}, not {wanted}" for what, wanted, is_so in pairs if wanted != is_so)
    if want.hdr is not None:
        yield from hdr_differences(want.hdr, got.hdr)


def _is_full(got: VideoInfo) -> bool:
    """What a picture that does not say its range is taken for: RGB is of full range, anything else limited."""
    return got.color.full_range is not False if got.planes.family == "rgb" else bool(got.color.full_range)


def _turn(matrix: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The part of a display matrix that turns and mirrors; the identity is none, its translation is the player's affair."""
    turn = tuple(matrix[i] for i in (0, 1, 3, 4)) if matrix else None
    return None if turn == _IDENTITY else turn
