"""Whether the disk has room for a job, asked before its first frame."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from a2n_video.errors import OutputError
from a2n_video.job.planning.plan import JobPlan

# Bits a pixel that an encoder hardly stays below, so that a job is refused only where it would not fit.
_BITS_PER_PIXEL: Final = {"ffv1": 3.0, "prores_ks": 1.5, "dnxhd": 1.5, "mjpeg": 0.4, "libx264rgb": 0.1}
_LOSSY_BITS_PER_PIXEL: Final = 0.05


def needed_bytes(plan: JobPlan) -> int:
    """The least a job will write: its segments and, beside them until it is verified, the result with all that is copied.

    An estimate from pixels and the encoder; for lossy ones never more than the source, grown as its picture grows.
    """
    encoder = plan.encoder
    pixels = plan.frames * encoder.width * encoder.height
    bits = _BITS_PER_PIXEL.get(encoder.codec)
    if bits is not None:
        return 2 * int(pixels * bits / 8)
    grown = plan.info.size_bytes * encoder.width * encoder.height // max(1, plan.info.width * plan.info.height)
    return 2 * min(int(pixels * _LOSSY_BITS_PER_PIXEL / 8), grown)


def check_space(plan: JobPlan, folder: Path) -> None:
    """OutputError if the disk under `folder`, with what this job already wrote there, has less room than the job needs at the least."""
    written = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    needed = needed_bytes(plan)
    if free + written < needed:
        sizes = f"about {_readable(needed)} and the disk has {_readable(free)} left"
        raise OutputError(f"{plan.dest}: the job needs {sizes}; make room or write elsewhere")


def _readable(size: int) -> str:
    """A number of bytes with a unit that suits it."""
    unit, power = next(((unit, power) for unit, power in (("GB", 9), ("MB", 6)) if size >= 10**power), ("kB", 3))
    return f"{size / 10**power:.3g} {unit}"
