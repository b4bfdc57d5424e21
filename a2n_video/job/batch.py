"""Many files in one go: which they are, what their results are called, and what became of each."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from a2n_video.engine.select import settled_scale
from a2n_video.errors import BATCH_FAILED, InputError, OptionError, OutputError, UnknownModelError, WeightsError, exit_code
from a2n_video.io.sequences import is_numbered, is_picture, makes_pictures
from a2n_video.job.directory import JobDirectory
from a2n_video.media.size import parse_size
from a2n_video.media.streams import CONTAINER_OF_SUFFIX
from a2n_video.net.catalog import AUTO, NEAREST, resolve_model
from a2n_video.options import JobOptions

DEFAULT_PATTERN: Final = "{stem}_x{scale}{suffix}"
_SIZE_PATTERN: Final = "{stem}_{size}{suffix}"  # the default with --size
# Suffixes taken from folders; files named one by one may have any.
VIDEO_SUFFIXES: Final = frozenset(
    {
        *CONTAINER_OF_SUFFIX,
        *(".mpg", ".mpeg", ".m2v", ".vob", ".mts", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogm"),
        *(".3gp", ".3g2", ".qt", ".mxf", ".dv", ".dif", ".rm", ".rmvb", ".divx", ".ivf", ".gif", ".gxf", ".mk3d", ".ismv", ".wtv"),
        *(".m2t", ".tp", ".trp", ".m2p", ".m1v", ".tod", ".vro", ".evo", ".264", ".h264", ".265", ".h265", ".hevc"),
    }
)
# Suffixes that other files have as well, and what a video of the name has near its beginning: Theora, and a camera's program stream.
_TOLD_BY: Final[Mapping[str, bytes]] = MappingProxyType({".ogg": b"\x80theora", ".mod": b"\0\0\1\xba"})
_NEAR: Final = 4096
_FALLBACK_SUFFIX: Final = ".mkv"
_PICTURE_SUFFIX: Final = ".png"  # of pictures of a kind that is read only

Fate = Literal["done", "damaged", "planned", "skipped", "failed"]


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
    """The files to do: those named, and all videos (no pictures) below the folders named, whose own folders are kept below `output_dir`.

    A file named twice, by itself and by its folder say, is done once, for the place that its first name gives it. What another file's
    result is called is no source, unless it was named itself: the same command a second time begins nothing new.
    `pattern` makes a result's name from {stem}, {suffix}, {model} and {scale}, with --size {size} in its place, as the default does.
    OptionError for a pattern with other fields, for two sources with one result; InputError for folders without a video; WeightsError
    and UnknownModelError where no name can be given to what makes the results.
    """
    if options.fidelity.size is not None:
        parse_size(options.fidelity.size)
        pattern = _SIZE_PATTERN if pattern == DEFAULT_PATTERN else pattern
    found: dict[Path, tuple[Path, Path]] = {}
    for source, base in (each for given in inputs for each in _sources(given, output_dir)):
        found.setdefault(_address(source), (source, base))
    if not found:
        raise InputError(
            f"no video in {', '.join(map(str, inputs))}; of folders the videos are taken ({' '.join(sorted(VIDEO_SUFFIXES))}): "
            "name pictures one by one (*.png), or numbered ones as one video (a_%05d.png)"
        )
    items = [BatchItem(source=source, dest=_place(output_dir / base, pattern, source, options)) for source, base in found.values()]
    results = {item.dest.resolve() for item in items if item.dest.resolve() != item.source.resolve()}
    named = {_address(given) for given in inputs}
    items = [item for item in items if _address(item.source) in named or item.source.resolve() not in results]
    seen: dict[Path, Path] = {}
    for item in items:
        if (other := seen.setdefault(item.dest, item.source)) != item.source:
            raise OptionError(f"{other} and {item.source} would both become {item.dest}; choose another --name-pattern or do them apart")
    return items


def _address(path: Path) -> Path:
    """By whatever way it was named; a link to a file has its own, for its result is called after it."""
    return path.parent.resolve() / path.name


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
        if path.is_file() and not hidden and not inside_results and _is_video(path):
            yield path, path.parent.relative_to(given)


def _is_video(path: Path) -> bool:
    """By its suffix, and where that says little by its beginning; one that cannot be read is no video here."""
    suffix = path.suffix.lower()
    if suffix not in _TOLD_BY:
        return suffix in VIDEO_SUFFIXES
    try:
        with path.open("rb") as file:
            return _TOLD_BY[suffix] in file.read(_NEAR)
    except OSError:
        return False


def _place(folder: Path, pattern: str, source: Path, options: JobOptions) -> Path:
    place = folder / _name(pattern, source, options)
    if is_picture(source) and is_numbered(place) and not is_numbered(source):
        raise OptionError(f"{source}: its result would be called {place.name}, which stands for many pictures; give it another name")
    return place


def _name(pattern: str, source: Path, options: JobOptions) -> str:
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        if unknown := used - set(_FIELDS):
            raise OptionError(f"no field {{{min(unknown)}}}; there are {' '.join(f'{{{name}}}' for name in _FIELDS)}")
        name = pattern.format(**{name: _FIELDS[name](source, options) for name in used})
    except (WeightsError, UnknownModelError):
        raise
    except (OptionError, ValueError, LookupError) as error:  # the latter two: of the pattern's syntax
        raise OptionError(f"--name-pattern {pattern}: {error}") from error
    if not name or Path(name).name != name:
        raise OptionError(f"--name-pattern {pattern}: {name!r} is no file name; folders are kept as they are")
    return name


def _suffix(source: Path, options: JobOptions) -> str:
    """The source's own where that kind is written: a picture becomes a picture, numbered ones, which are a video, one file."""
    picture = is_picture(source) and not is_numbered(source)
    if source.suffix.lower() in CONTAINER_OF_SUFFIX or (picture and makes_pictures(source)):
        return source.suffix
    return _PICTURE_SUFFIX if picture else _FALLBACK_SUFFIX


def _scale(source: Path, options: JobOptions) -> str:
    if options.fidelity.size is not None:
        raise OptionError("with --size the network's scale is each file's own and not that of the result; write {size}")
    return str(settled_scale(options.model))


def _size(source: Path, options: JobOptions) -> str:
    """What --size says, in letters that any file name may have: fit-3840x2160."""
    if options.fidelity.size is None:
        raise OptionError("{size} is what --size says, which was not given; write {scale}")
    return re.sub(r"[^\w.]+", "-", options.fidelity.size.strip().replace("\u00d7", "x"))


def _model(source: Path, options: JobOptions) -> str:
    model = options.model
    if model.weights is not None:
        return Path(model.weights).stem
    if NEAREST in (model.model, model.engine):
        return NEAREST
    if options.fidelity.size is None:
        return resolve_model(model.model, settled_scale(model))
    if model.model == AUTO:
        raise OptionError("with --size, auto takes the model for the scale that a file needs; name one with --model, or leave {model} out")
    return model.model


_FIELDS: Final[Mapping[str, Callable[[Path, JobOptions], str]]] = MappingProxyType(
    {"stem": lambda source, options: source.stem, "suffix": _suffix, "scale": _scale, "size": _size, "model": _model}
)


def run_batch(
    items: Sequence[BatchItem],
    *,
    overwrite: bool,
    one: Callable[[BatchItem], int],
    skip: Callable[[BatchItem], None] = lambda item: None,
    planning: bool = False,
) -> list[Outcome]:
    """Do each file with `one`, which returns its exit code or raises; an error costs that file only. A stop ends the batch.

    A result that is there is skipped unless `overwrite`, and `skip` is told: results get their names only once they are verified.
    The source itself is no result, and one with a journal beside it is not finished: `one` says what to do about them.
    `planning`: `one` only looks, and no folder stays.
    """
    outcomes = []
    for item in items:
        try:
            if not overwrite and _is_done(item):
                if not planning:
                    JobDirectory(item.dest).tidy_up()
                skip(item)
                outcomes.append(Outcome(item=item, fate="skipped"))
                continue
            with _folder(item.dest.parent, stays=not planning):
                damaged = one(item)
            outcomes.append(Outcome(item=item, fate="planned" if planning else "damaged" if damaged else "done"))
        except Exception as error:  # noqa: BLE001 - kept whole in the outcome: whatever it is, the next file has its turn
            outcomes.append(Outcome(item=item, fate="failed", error=error))
    return outcomes


def _is_done(item: BatchItem) -> bool:
    """Whether a result stands that no run has anything more to do with."""
    if not item.dest.exists() or (item.source.exists() and item.source.samefile(item.dest)):
        return False
    return JobDirectory(item.dest).is_empty


@contextmanager
def _folder(folder: Path, *, stays: bool) -> Iterator[None]:
    """A folder that there is meanwhile, with those above it."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made ({error.strerror})") from error
    try:
        yield
    finally:
        for path in [] if stays else new:
            path.rmdir()


def batch_exit_code(outcomes: Sequence[Outcome]) -> int:
    """8 if some failed, else 4 if some sources were damaged, else 0. One file alone gives its own code."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        return exit_code(failed[0]) if len(outcomes) == 1 else BATCH_FAILED
    return 4 if any(outcome.fate == "damaged" for outcome in outcomes) else 0


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line of counts, then one for each file that failed or was damaged."""
    fates = [outcome.fate for outcome in outcomes]
    counts = ", ".join(f"{fates.count(fate)} {fate}" for fate in ("done", "damaged", "planned", "skipped", "failed") if fate in fates)
    lines = [f"{len(outcomes)} file{'s' * (len(outcomes) != 1)}: {counts}"]
    for outcome in outcomes:
        if outcome.error is not None:
            told = " ".join(str(outcome.error).split()) or type(outcome.error).__name__
            lines.append(f"failed   {outcome.item.source}: {told.removeprefix(f'{outcome.item.source}: ')}")
        elif outcome.fate == "damaged":
            lines.append(f"damaged  {outcome.item.source}: kept as {outcome.item.dest}")
    return "\n".join(lines)
