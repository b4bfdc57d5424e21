"""Many files in one go: which they are, what their results are called, and what became of each."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from a2n_video.errors import BATCH_FAILED, InputError, OptionError, OutputError, exit_code
from a2n_video.job.directory import job_path
from a2n_video.media.streams import CONTAINER_OF_SUFFIX
from a2n_video.options import JobOptions

DEFAULT_PATTERN: Final = "{stem}_x{scale}{suffix}"
# Suffixes taken from folders; files named one by one may have any.
VIDEO_SUFFIXES: Final = frozenset(
    {
        *CONTAINER_OF_SUFFIX,
        *(".mpg", ".mpeg", ".m2v", ".vob", ".mts", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogm"),
        *(".3gp", ".3g2", ".qt", ".mxf", ".dv", ".rm", ".rmvb", ".divx", ".ivf", ".gif"),
    }
)
_FALLBACK_SUFFIX: Final = ".mkv"

Fate = Literal["done", "damaged", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """One file of a batch and its result's name."""

    source: Path
    dest: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file; `error` where it failed."""

    item: BatchItem
    fate: Fate
    error: Exception | None = None


def collect(inputs: Sequence[Path], output_dir: Path, pattern: str, options: JobOptions) -> list[BatchItem]:
    """The files to do: those named, and all videos below the folders named, whose own folders are kept below `output_dir`.

    What another file's result is called is no source, unless it was named itself: the same command a second time begins nothing new.
    `pattern` makes a result's name from {stem}, {suffix}, {scale} and {model}. OptionError for a pattern with other fields, for two
    sources with one result; InputError for folders without a video.
    """
    found = [(source, base) for given in inputs for source, base in _sources(given, output_dir)]
    if not found:
        raise InputError(f"no video in {', '.join(map(str, inputs))}; known suffixes are {' '.join(sorted(VIDEO_SUFFIXES))}")
    items = [BatchItem(source=source, dest=output_dir / base / _name(pattern, source, options)) for source, base in found]
    results = {item.dest.resolve() for item in items if item.dest.resolve() != item.source.resolve()}
    items = [item for item in items if item.source in inputs or item.source.resolve() not in results]
    seen: dict[Path, Path] = {}
    for item in items:
        if (other := seen.setdefault(item.dest, item.source)) != item.source:
            raise OptionError(f"{other} and {item.source} would both become {item.dest}; choose another --name-pattern or do them apart")
    return items


def _sources(given: Path, output_dir: Path) -> Iterator[tuple[Path, Path]]:
    """Videos with their folder relative to the one given; job folders and earlier results are no sources."""
    if not given.is_dir():
        yield given, Path()
        return
    results = output_dir.resolve()
    within = given.resolve() in results.parents
    for path in sorted(given.rglob("*")):
        hidden = any(part.startswith(".") or part.endswith(".a2n") for part in path.relative_to(given).parts)
        inside_results = within and path.resolve().is_relative_to(results)
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not hidden and not inside_results:
            yield path, path.parent.relative_to(given)


def _name(pattern: str, source: Path, options: JobOptions) -> str:
    suffix = source.suffix if source.suffix.lower() in CONTAINER_OF_SUFFIX else _FALLBACK_SUFFIX
    fields = {"stem": source.stem, "suffix": suffix, "scale": str(options.model.scale), "model": options.model.model}
    try:
        unknown = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None} - set(fields)
    except ValueError as error:
        raise OptionError(f"--name-pattern {pattern}: {error}") from error
    if unknown:
        raise OptionError(f"--name-pattern {pattern}: no field {{{unknown.pop()}}}; there are {' '.join(f'{{{name}}}' for name in fields)}")
    name = pattern.format(**fields)
    if not name or Path(name).name != name:
        raise OptionError(f"--name-pattern {pattern}: {name!r} is no file name; folders are kept as they are")
    return name


def run_batch(items: Sequence[BatchItem], *, overwrite: bool, one: Callable[[BatchItem], int]) -> list[Outcome]:
    """Do each file with `one`, which returns its exit code or raises; an error costs that file only. A stop ends the batch.

    A result that is there is skipped unless `overwrite`: results get their names only once they are verified.
    """
    outcomes = []
    for item in items:
        if item.dest.exists() and not overwrite and not job_path(item.dest).exists():
            outcomes.append(Outcome(item=item, fate="skipped"))
            continue
        try:
            _make_folder(item.dest.parent)
            outcomes.append(Outcome(item=item, fate="damaged" if one(item) else "done"))
        except Exception as error:  # noqa: BLE001 - kept whole in the outcome: whatever it is, the next file has its turn
            outcomes.append(Outcome(item=item, fate="failed", error=error))
    return outcomes


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made ({error.strerror})") from error


def batch_exit_code(outcomes: Sequence[Outcome]) -> int:
    """8 if some failed, else 4 if some sources were damaged, else 0. One file alone gives its own code."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        return exit_code(failed[0]) if len(outcomes) == 1 else BATCH_FAILED
    return 4 if any(outcome.fate == "damaged" for outcome in outcomes) else 0


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line of counts, then one for each file that failed or was damaged."""
    fates = [outcome.fate for outcome in outcomes]
    counts = ", ".join(f"{fates.count(fate)} {fate}" for fate in ("done", "damaged", "skipped", "failed") if fate in fates)
    lines = [f"{len(outcomes)} files: {counts}"]
    for outcome in outcomes:
        if outcome.error is not None:
            told = " ".join(str(outcome.error).split()) or type(outcome.error).__name__
            lines.append(f"failed   {outcome.item.source}: {told.removeprefix(f'{outcome.item.source}: ')}")
        elif outcome.fate == "damaged":
            lines.append(f"damaged  {outcome.item.source}: kept as {outcome.item.dest}")
    return "\n".join(lines)
