"""What colour tags mean, the rule for untagged video, and the tables that colour conversion is made of. Pure values.

Coefficients: ITU-T H.273 (07/2024), table 4. Ranges: ITU-R BT.2100-2, table 9. Numbers are FFmpeg's (and H.273's).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from a2n_video.errors import UnsupportedFormatError
from a2n_video.media.planes import PlaneFormat

UNSPECIFIED: Final = 2
# Numbers that mean something (H.273, tables 2 and 3); the others are reserved, and a tag that has one was damaged.
PRIMARIES: Final = frozenset({1, *range(4, 13), 22})
TRANSFERS: Final = frozenset({1, *range(4, 19)})
RGB_MATRIX: Final = 0
# Luma coefficients (Kr, Kb) by matrix number.
MATRICES: Final = MappingProxyType(
    {
        1: (0.2126, 0.0722),  # bt709
        4: (0.30, 0.11),  # fcc
        5: (0.299, 0.114),  # bt470bg
        6: (0.299, 0.114),  # smpte170m
        7: (0.212, 0.087),  # smpte240m
        9: (0.2627, 0.0593),  # bt2020nc
    }
)
YCGCO: Final = 8
# Matrices that mean something and are not taken: those that mix light or other primaries are no product with R'G'B'.
UNTAKEN: Final = MappingProxyType(
    {
        10: "bt2020c",
        11: "smpte2085",
        12: "chroma-derived-nc",
        13: "chroma-derived-c",
        14: "ictcp",
        15: "ipt-c2",
        16: "ycgco-re",
        17: "ycgco-ro",
    }
)
# Where a chroma sample sits, by AVChromaLocation: in luma samples right of and below the first luma sample it covers,
# for an axis that is halved. 0 (unspecified) is read as left, as every decoder of MPEG-2 and later does.
CHROMA_SITING: Final = MappingProxyType(
    {0: (0.0, 0.5), 1: (0.0, 0.5), 2: (0.5, 0.5), 3: (0.0, 0.0), 4: (0.5, 0.0), 5: (0.0, 1.0), 6: (0.5, 1.0)}
)


@dataclass(frozen=True, kw_only=True)
class ColorSpec:
    """Colour tags of a stream or frame, as FFmpeg's numbers (AVColorSpace, AVColorPrimaries, ...)."""

    matrix: int = UNSPECIFIED
    full_range: bool | None = None
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    chroma_location: int = 0

    def settled(self, fmt: PlaneFormat) -> ColorSpec:
        """The same with nothing left open, by mpv's rule on the *source's* size: 1280 or wider, or over 576 lines, is BT.709, else BT.601.

        RGB is full range unless it says otherwise; anything else limited. Unknown primaries and transfer are guessed only along
        with the matrix, and never of gray, which needs none to be read. Reserved numbers count as unknown, and so does what a gray
        picture says of its missing chroma.
        UnsupportedFormatError for a matrix of `UNTAKEN`: a guess in its place would change the colours.
        """
        primaries = self.primaries if self.primaries in PRIMARIES else UNSPECIFIED
        transfer = self.transfer if self.transfer in TRANSFERS else UNSPECIFIED
        known = replace(self, primaries=primaries, transfer=transfer)
        if fmt.family == "rgb":
            return replace(known, matrix=RGB_MATRIX, full_range=self.full_range is not False)
        full = bool(self.full_range)
        if self.matrix in MATRICES or (self.matrix == YCGCO and fmt.family == "yuv"):
            return replace(known, full_range=full)
        if self.matrix in UNTAKEN and fmt.family == "yuv":
            raise UnsupportedFormatError(
                f"the colour matrix {UNTAKEN[self.matrix]} ({self.matrix}) is not taken; convert it to bt2020nc or bt709 first "
                "(ffmpeg -vf zscale=matrix=..., VapourSynth resize.Bicubic(matrix=9))"
            )
        hd = fmt.width >= 1280 or fmt.height > 576
        guess = 1 if hd else (5 if fmt.height == 576 else 6)
        if fmt.family == "gray":
            return replace(known, matrix=guess, full_range=full)
        primaries = guess if primaries == UNSPECIFIED else primaries
        transfer = (1 if hd else 6) if transfer == UNSPECIFIED else transfer
        return replace(known, matrix=guess, full_range=full, primaries=primaries, transfer=transfer)

    def or_else(self, said: ColorSpec) -> ColorSpec:
        """The same, with what `said` says of all that is left open here."""
        return ColorSpec(
            matrix=said.matrix if self.matrix == UNSPECIFIED else self.matrix,
            full_range=said.full_range if self.full_range is None else self.full_range,
            primaries=said.primaries if self.primaries == UNSPECIFIED else self.primaries,
            transfer=said.transfer if self.transfer == UNSPECIFIED else self.transfer,
            chroma_location=self.chroma_location or said.chroma_location,
        )

    @property
    def siting(self) -> tuple[float, float]:
        """(x, y) of a chroma sample in luma samples from the first one it covers, for halved axes."""
        return CHROMA_SITING.get(self.chroma_location, CHROMA_SITING[0])
