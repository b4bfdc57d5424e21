"""Compare videos: one self-contained page with a before/after slider, synchronised zoom and curves, and a CSV beside it.

The first file is the reference, of the results' own size, or the smaller source they were made from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from a2n_video.errors import InputError, OptionError
from a2n_video.tools.footage import Footage
from a2n_video.tools.images import pillow
from a2n_video.tools.measuring import Cast, Comparison, Measurement, measure
from a2n_video.tools.metrics import check_measurable
from a2n_video.tools.page import PNG_QUALITY, Page, render
from a2n_video.tools.results import check_output, described, write_file, write_rows
from a2n_video.tools.shell import count, guarded, seconds
from a2n_video.tools.vmaf import vmaf

PROG: Final = "a2n_video.tools.compare"
COLUMNS: Final = MappingProxyType(
    {
        "frame": "number among the compared ones, from 0",
        "time_s": "seconds from the first compared frame",
        "version": "bicubic, or a result's name",
        "psnr_db": "on luma against the reference, dB, at most 99",
        "ssim": "on luma against the reference, up to 1",
        "vmaf": "against the reference, 0 to 100",
        "kept_db": "without a reference: luma of the result shrunk back, PSNR against the source, dB, at most 99",
        "flicker": "mean change of luma since the frame before less that of the first file, 8-bit steps",
    }
)
STILLS: Final = 4
LEAST_QUALITY: Final = 50  # below, a page shows JPEG's own faults


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare and how much of it. `jobs` are texts that a run printed or wrote, shown as they are."""

    base: Path
    results: tuple[Path, ...]
    source: Path | None = None
    start: Fraction | None = None
    frames: int = 300
    at: tuple[Fraction, ...] = ()
    jobs: tuple[Path, ...] = ()
    vmaf: bool = True
    quality: int = 92  # of JPEG; 100 is PNG


def cast_of(options: CompareOptions) -> Cast:
    """Open everything and see that it fits together. OptionError where it does not."""
    results = {name: Footage.open(path) for name, path in zip(names_of(options.results), options.results, strict=True)}
    base = Footage.open(options.base)
    sizes = {(footage.info.width, footage.info.height): name for name, footage in results.items()}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {width}x{height}" for (width, height), name in sizes.items())
        raise OptionError(f"results of one size can be compared, these differ: {told}")
    cast = Cast(base=base, base_name="", results=results, small=None)
    if not cast.has_reference and base.info.width >= cast.width:
        raise OptionError(f"{options.base}: {base.info.width}x{base.info.height} is neither the results' size nor smaller")
    if not cast.has_reference and options.source is not None:
        raise OptionError(f"{options.base} is a source already; --source goes with a reference of the results' size")
    if cast.has_reference:
        check_measurable(options.base, cast.width, cast.height)
    small = Footage.open(options.source) if options.source else None if cast.has_reference else base
    return replace(cast, base_name="reference" if cast.has_reference else "source", small=small)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each result, all different: stems, numbered where two are equal or taken."""
    taken = {"reference", "source", "bicubic"}
    names: list[str] = []
    for number, path in enumerate(paths, 1):
        names.append(path.stem if path.stem not in {*taken, *names} else f"{path.stem} ({number})")
    return names


def compare(options: CompareOptions) -> tuple[Comparison, list[str]]:
    """Measure, VMAF included where it can be had; the comparison, and notes on what to mind."""
    cast = cast_of(options)
    comparison = measure(cast, _times(options, cast), start=options.start, frames=options.frames)
    notes = []
    if comparison.unmatched:
        notes.append(f"{comparison.unmatched} frames of the {cast.base_name} have no frame at their time in every result; left out")
        if options.start is None:
            notes.append("if the results were made with --start, say the same --start here: times are counted from the first frame of each")
    total = cast.base.time_map.frames
    if comparison.frames < total:
        notes.append(f"measured: {comparison.frames} of about {total} frames")
    if cast.has_reference and options.vmaf:
        notes += _add_vmaf(comparison, options)
    return comparison, notes


def _times(options: CompareOptions, cast: Cast) -> list[Fraction]:
    """When stills are taken, from the first compared frame on: as asked, else evenly spread over what is measured."""
    if options.at:
        return _checked(options, cast)
    step = cast.base.time_map.step * cast.base.time_map.time_base
    frames = min([options.frames, cast.base.time_map.frames, *(footage.time_map.frames for footage in cast.results.values())])
    return [step * (frames * (2 * i + 1) // (2 * STILLS)) for i in range(min(STILLS, frames))]


def _checked(options: CompareOptions, cast: Cast) -> list[Fraction]:
    """The times that were asked for. OptionError for one after the last compared frame."""
    begin = cast.base.begin(options.start)
    length = min([cast.base.end(begin, options.frames) - begin, *(footage.seconds for footage in cast.results.values())])
    for at in options.at:
        if at >= length:
            raise OptionError(f"--at {float(at):.3f}: what is compared lasts {float(length):.3f} s; name an earlier time, or more --frames")
    return list(options.at)


def _add_vmaf(comparison: Comparison, options: CompareOptions) -> list[str]:
    if comparison.unmatched:
        return ["VMAF left out: it pairs frames in order, and some are missing"]
    base = comparison.cast.base
    begin = base.begin(options.start)
    seek = base.seek_to(begin) if begin else None
    if begin and seek is None:
        return [f"VMAF left out: ffmpeg cannot begin in the middle of {options.base.name}, whose times say nothing"]
    scores: dict[str, list[float]] = {}
    for name, footage in comparison.cast.results.items():
        values = vmaf(options.base, footage.path, comparison.frames, seek)
        if values is None:
            return ["VMAF left out: no ffmpeg with libvmaf was found (pip install imageio-ffmpeg), or it failed"]
        scores[name] = values
    comparison.rows = [
        replace(row, vmaf=scores[row.version][row.frame])
        if row.version in scores and row.frame < len(scores[row.version]) else row
        for row in comparison.rows
    ]  # fmt: skip
    return ["VMAF is measured on files, so bicubic has none"] if comparison.cast.small else []


def table(rows: list[Measurement]) -> list[tuple[Any, ...]]:
    """Lines of the CSV; see COLUMNS."""
    return [(r.frame, float(r.time), r.version, r.psnr_db, r.ssim, r.vmaf, r.kept_db, r.flicker) for r in rows]


def read_job(path: Path) -> tuple[str, str]:
    """(name, text) of what a run left behind."""
    try:
        return path.name, path.read_text(errors="replace")[:20_000]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def report(options: CompareOptions, out: Path) -> tuple[Comparison, list[str]]:
    """Compare and write the page and its CSV; the comparison, and the page's notes."""
    if not LEAST_QUALITY <= options.quality <= PNG_QUALITY:
        raise OptionError(f"--quality {options.quality}: from {LEAST_QUALITY} to {PNG_QUALITY}, which is PNG")
    check_output(out, (".html", ".htm"), [options.base, *options.results])
    if options.quality < PNG_QUALITY:
        pillow()
    jobs = [read_job(path) for path in options.jobs]
    comparison, notes = compare(options)
    page = Page(title=" and ".join(comparison.cast.results), comparison=comparison, notes=notes, jobs=jobs, quality=options.quality)
    write_file(out, render(page).encode())
    write_rows(out.with_suffix(".csv"), COLUMNS, table(comparison.rows))
    return comparison, notes


def parser() -> argparse.ArgumentParser:
    epilog = f"Columns of the .csv, empty where not measured: {described(COLUMNS)}."
    result = argparse.ArgumentParser(prog=f"python -m {PROG}", description=__doc__, epilog=epilog)
    result.add_argument("base", type=Path, metavar="REFERENCE_OR_SOURCE")
    result.add_argument("results", type=Path, nargs="+", metavar="RESULT")
    result.add_argument("-o", "--output", type=Path, required=True, metavar="HTML", help="the curves' numbers lie beside it as .csv")
    result.add_argument(
        "--source", type=Path, help="beside a reference: the small video, uncut as it is, for a bicubic enlargement to compare with"
    )
    result.add_argument(
        "--start", type=seconds, metavar="TIME", help="the results begin with the first frame of the first file at or after this time"
    )
    result.add_argument("--frames", type=count, default=300, metavar="N", help="measure at most N frames (default 300)")
    result.add_argument(
        "--at",
        type=seconds,
        action="append",
        default=[],
        metavar="TIME",
        help="the frame shown then, from the first compared one on, for the slider; may be repeated",
    )
    result.add_argument(
        "--job", type=Path, action="append", default=[], metavar="FILE", help="what a run printed (plan, verified, speed) or its JSON"
    )
    result.add_argument("--no-vmaf", action="store_true", help="leave VMAF out")
    result.add_argument("--quality", type=int, default=92, metavar="Q", help="of the page's JPEGs, 50 to 99; 100 is PNG (default 92)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    given = parser().parse_args(argv)
    options = CompareOptions(
        base=given.base,
        results=tuple(given.results),
        source=given.source,
        start=given.start,
        frames=given.frames,
        at=tuple(given.at),
        jobs=tuple(given.job),
        vmaf=not given.no_vmaf,
        quality=given.quality,
    )

    def work() -> None:
        comparison, notes = report(options, given.output)
        for note in notes:
            print(f"note: {note}")
        print(
            f"{given.output}: {comparison.frames} frames of {', '.join(comparison.cast.versions)}, {len(comparison.stills)} in the slider"
        )

    return guarded(PROG, work)


if __name__ == "__main__":
    sys.exit(main())
