"""What a job comes to, for whoever asked for it: pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DamageReport:
    """What was wrong with the source: decode errors, frames that stood in for lost ones, the first error, a file cut short,
    packets of other streams that were too damaged to be copied or decoded, or whose times were.
    """

    errors: int = 0
    repeated: int = 0
    first: str | None = None
    cut_short: str | None = None
    refused: int = 0
    moved: int = 0
    undecoded: int = 0

    def __bool__(self) -> bool:
        return bool(self.errors or self.cut_short or self.refused or self.moved or self.undecoded)

    @property
    def lines(self) -> list[str]:
        """For people."""
        found = []
        if self.errors:
            where = f", the first at {self.first}" if self.first else ""
            found.append(f"damaged source: {self.errors} decode errors{where}; {self.repeated} frames repeated in place of lost ones")
        if self.cut_short:
            found.append(f"incomplete source: {self.cut_short}")
        if self.refused:
            found.append(f"damaged source: {self.refused} packets of copied streams are left out, which no container takes")
        if self.moved:
            found.append(f"damaged source: {self.moved} packets of other streams come later than they say, for they step back in time")
        if self.undecoded:
            found.append(f"damaged source: {self.undecoded} packets of converted streams cannot be decoded; there is a gap in their place")
        return found


@dataclass(frozen=True, kw_only=True)
class UpscaleResult:
    """What a finished job made. `verified` is the verification's one line; `damage` tells of a source that was not whole.

    `resumed_frames` were encoded by earlier runs of the same job.
    """

    path: Path
    frames: int
    seconds: float
    verified: str
    damage: DamageReport = field(default_factory=DamageReport)
    resumed_frames: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 4 if self.damage else 0

    @property
    def summary(self) -> str:
        """Two or three lines for people."""
        made = self.frames - self.resumed_frames
        rate = f" ({made / self.seconds:.2f} fps)" if made and self.seconds else ""
        earlier = f", {self.resumed_frames if made else 'all'} of them by earlier runs," if self.resumed_frames else ""
        lines = [*(f"note: {warning}" for warning in self.warnings), *self.damage.lines, self.verified]
        return "\n".join([*lines, f"{self.path}: {self.frames} frame{'s' * (self.frames != 1)}{earlier} in {self.seconds:.1f} s{rate}"])
