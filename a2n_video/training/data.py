"""Pairs of small and large patches in memory-mapped arrays: made once, so that no encoder slows the training loop.

A folder of pairs holds `{train,held}_{low,high,kind}.npy` (uint8; (N, P, P, 3), (N, P*scale, P*scale, 3), (N,)) and
`pairs.json`, which says how they were made, what each kind is, and which files each pair is of.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from a2n_video.errors import InputError, OptionError
from a2n_video.io.rgb import Image
from a2n_video.training.degrade import CLEAN, Degradation, degrade, sample_degradation, x264_medium
from a2n_video.training.draw import draw_picture
from a2n_video.training.pictures import Source, list_sources, read_picture
from a2n_video.training.scene import SOFT, WIDEST, put_in_front, recode, render, sample_motion, sway

CLEAN_KIND: Final = 0
COMPRESSED_KIND: Final = 1
# Held-out pairs are made by these, and their figures are told apart by them.
HELD_KINDS: Final[tuple[tuple[str, Degradation], ...]] = (
    ("clean", CLEAN),
    ("crf23", x264_medium(23)),
    ("crf28", x264_medium(28)),
    ("crf33", x264_medium(33)),
)
EXPOSURES: Final = 3  # of a frame whose shutter is open for long
HELD_OUT_EVERY: Final = 10  # every tenth file is never trained on; all of a video's frames look alike


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How pairs are made. Counts are of clips: a clean one gives `per_clip` patches of one frame, a compressed one of several."""

    scale: int = 2
    patch: int = 96  # side of the small patch
    frame: tuple[int, int] = (144, 192)  # (height, width) of the small frame that is encoded
    clip_frames: int = 16
    per_clip: int = 3
    clean: int = 1400
    compressed: int = 2600
    drawn: int = 24  # pictures drawn here, beside those of the folder
    soft: float = SOFT  # share of views that enlarge their picture, as most video looks
    widest: float = WIDEST  # pixels of a picture at most that become one of a large frame: more are sharper, and less of them is new
    parts: float = 0.35  # share of compressed clips with a second picture in front that moves its own way
    sways: float = 0.35  # share of compressed clips that bend as water and leaves do
    shutter: float = 0.25  # share of compressed clips that are smeared along their motion
    recoded: float = 0.55  # share of clips that an encoder had before they were made small
    seed: int = 1

    def __post_init__(self) -> None:
        # libx265 goes beyond its buffers on frames of one block of 64x64: 48x32 corrupted the heap, 64x64 gave other bytes each time.
        if min(self.frame) <= 64 or any(side % 2 for side in self.frame):
            raise OptionError(f"frames are even and more than 64 on each side, not {self.frame}")
        if self.patch > min(self.frame):
            raise OptionError(f"patches of {self.patch} do not fit into frames of {self.frame}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip to make: where its pictures come from, how it is degraded (None: drawn by the seed), where its patches go."""

    row: int
    split: str
    kind: int
    source: Source
    recipe: Degradation | None
    front: Source | None  # what moves before it
    recoded: bool


def plan(config: DataConfig, sources: list[Source]) -> list[Job]:
    """Every clip of the set, the same for the same config and sources."""
    files = list(dict.fromkeys(source.path for source in sources))
    held_files = set(files[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY])
    held = [source for source in sources if source.path in held_files]
    kept = [source for source in sources if source.path not in held_files]
    if not kept or not held:
        raise InputError(f"{len(files)} files are too few: at least {HELD_OUT_EVERY // 2 + 1} are needed, one of ten is held out")
    kept += [Source(path=None, frame=index) for index in range(config.drawn)]
    rng = np.random.default_rng([config.seed, 0])

    def job(row: int, split: str, kind: int, source: Source, recipe: Degradation | None = None) -> Job:
        others = held if split == "held" else kept
        # A held-out picture looks alike in each of its kinds, so that their figures compare.
        draw = np.random.default_rng([config.seed, 3, row // len(HELD_KINDS)]) if split == "held" else rng
        front = others[draw.integers(len(others))] if draw.random() < config.parts else None
        return Job(row=row, split=split, kind=kind, source=source, recipe=recipe, front=front, recoded=bool(draw.random() < config.recoded))

    jobs = []
    for row in range(config.clean + config.compressed):
        kind = CLEAN_KIND if row < config.clean else COMPRESSED_KIND
        jobs.append(job(row, "train", kind, kept[rng.integers(len(kept))]))
    pairs = [(source, kind) for source in held for kind in range(len(HELD_KINDS))]
    jobs += [job(i, "held", k, s, HELD_KINDS[k][1]) for i, (s, k) in enumerate(pairs)]
    return jobs


def named_files(jobs: Sequence[Job]) -> dict[str, Any]:
    """What of `pairs.json` names files: their names, what tells them apart wherever they lie, and for each clip of a split its two files.

    The second file of a clip is what moves in front; None is a drawn picture, or nothing in front.
    """
    paths = sorted({source.path for job in jobs for source in (job.source, job.front) if source is not None and source.path is not None})
    place = {path: number for number, path in enumerate(paths)}

    def clips(split: str) -> list[list[int | None]]:
        taken = [job for job in jobs if job.split == split]
        return [[place[s.path] if s is not None and s.path is not None else None for s in (job.source, job.front)] for job in taken]

    files = [{"name": path.name, "content": content_of(path)} for path in paths]
    return {"files": files, "clips": {split: clips(split) for split in ("train", "held")}}


def content_of(path: Path) -> str:
    """A file's size and a digest of its first megabyte: enough to know it again under another name."""
    with path.open("rb") as file:
        return f"{path.stat().st_size}-{hashlib.sha256(file.read(1 << 20)).hexdigest()[:16]}"


def files_of(folder: Path, split: str) -> list[set[str]]:
    """The files, as `content_of` knows them, that each pair of a split is of; nothing where the folder does not name them."""
    meta = _read_json(folder)
    if "files" not in meta:
        return []
    names = [file["content"] for file in meta["files"]]
    clips = [{names[number] for number in clip if number is not None} for clip in meta["clips"][split]]
    return [clip for clip in clips for _ in range(meta["config"]["per_clip"])]


def held_elsewhere(folders: Sequence[Path]) -> list[set[int]]:
    """For each folder the rows of its training pairs that show a file which another of the folders holds out."""
    held = [set().union(*files_of(folder, "held")) for folder in folders]
    result = []
    for number, folder in enumerate(folders):
        others = set().union(*(files for other, files in enumerate(held) if other != number))
        result.append({row for row, files in enumerate(files_of(folder, "train")) if files & others} if others else set())
    return result


def gradient(image: Image) -> float:
    """Mean absolute step between neighbouring pixels of the luma, the measure patches are chosen by."""
    grey = image.astype(np.float32).mean(axis=-1)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def choose_patch(rng: np.random.Generator, small: Image, side: int, candidates: int = 4) -> tuple[int, int]:
    """(top, left) of the richest of a few random patches: detail is preferred, soft ones stay in."""
    height, width = small.shape[:2]
    places = [(int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))) for _ in range(candidates)]
    return max(places, key=lambda place: gradient(small[place[0] : place[0] + side, place[1] : place[1] + side]))


def make_clip(config: DataConfig, job: Job) -> list[tuple[Image, Image]]:
    """The pairs of one clip. Everything random comes from (config.seed, split, source or row)."""
    # A held-out picture moves alike in each of its kinds, so that their figures compare.
    salt = [1, job.row // len(HELD_KINDS)] if job.split == "held" else [2, job.row]
    rng = np.random.default_rng([config.seed, *salt])
    if job.split == "train" and job.kind == CLEAN_KIND:
        return [pair for _ in range(config.per_clip) for pair in patches(config, rng, shoot(config, rng, job, 1), None, 1)]
    return patches(config, rng, shoot(config, rng, job, config.clip_frames), job.recipe, config.per_clip)


@lru_cache(maxsize=2)  # the patches of a clean clip come from one picture
def picture_of(source: Source) -> Image:
    return read_picture(source) if source.path else draw_picture(source.frame)


def shoot(config: DataConfig, rng: np.random.Generator, job: Job, count: int) -> list[Image]:
    """`count` large frames of a moving view of the job's picture."""
    picture, size = picture_of(job.source), (config.frame[0] * config.scale, config.frame[1] * config.scale)
    motion, moving = sample_motion(rng, picture.shape[:2], size, count, config.soft, config.widest), count > 1
    exposures = EXPOSURES if moving and rng.random() < config.shutter else 1
    frames = render(picture, motion, size, count, exposures)
    if moving and job.front:
        frames = put_in_front(rng, frames, picture_of(job.front), config.soft)
    if moving and rng.random() < config.sways:
        frames = sway(rng, frames)
    return recode(rng, frames) if job.recoded else frames


def patches(
    config: DataConfig, rng: np.random.Generator, large: list[Image], recipe: Degradation | None, wanted: int
) -> list[tuple[Image, Image]]:
    """`wanted` pairs from large frames. Without a recipe one is drawn, a clean one for a single frame."""
    count = len(large)
    places = [choose_patch(rng, large[0][:: config.scale, :: config.scale], config.patch) for _ in range(wanted)]
    shown = sorted(rng.integers(count, size=wanted))
    small = degrade(large, config.scale, recipe or sample_degradation(rng, compressed=count > 1), rng)
    return [cut(small[k], large[k], place, config) for k, place in zip(shown, places, strict=True)]


def cut(small: Image, large: Image, place: tuple[int, int], config: DataConfig) -> tuple[Image, Image]:
    (top, left), s, p = place, config.scale, config.patch
    return small[top : top + p, left : left + p], large[top * s : (top + p) * s, left * s : (left + p) * s]


def _work(config: DataConfig, folder: Path, job: Job) -> None:
    low, high, kind = open_arrays(folder, job.split, "r+")
    for offset, (small, large) in enumerate(make_clip(config, job)):
        index = job.row * config.per_clip + offset
        low[index], high[index], kind[index] = small, large, job.kind


def open_arrays(folder: Path, split: str, mode: Literal["r", "r+"] = "r") -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The memory-mapped arrays (low, high, kind) of a split. InputError if the folder holds no pairs, or, to read, not all of them yet."""
    if mode == "r":
        read_meta(folder)  # the arrays have their size from the start: what is not made yet would be read as black
    try:
        low, high, kind = (np.load(folder / f"{split}_{name}.npy", mmap_mode=mode) for name in ("low", "high", "kind"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no pairs there ({error}); make them with `python -m a2n_video.training data`") from error
    return low, high, kind


def open_together(folders: Sequence[Path], split: str) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]]:
    """`open_arrays` of several folders. InputError unless their patches have one size and one scale."""
    opened = [open_arrays(folder, split) for folder in folders]
    sides = [(low.shape[1], high.shape[1]) for low, high, _ in opened]
    if len(set(sides)) > 1:
        named = ", ".join(map(str, folders))
        raise InputError(f"{named}: patches are {sides} wide, small and large; only those of one size and scale go together")
    return opened


def _create(config: DataConfig, folder: Path, split: str, count: int) -> None:
    p, s = config.patch, config.scale
    shapes = {"low": (count, p, p, 3), "high": (count, p * s, p * s, 3), "kind": (count,)}
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{split}_{name}.npy", "w+", np.uint8, shape)


def prepare(pictures: Path, folder: Path, config: DataConfig, *, workers: int | None = None) -> None:
    """Make the pairs of a folder of pictures and videos. The same pictures and config give the same bytes, however many workers.

    `pairs.json` is written last: a folder without it is unfinished.
    """
    jobs = plan(config, list_sources(pictures))
    files = named_files(jobs)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.json").unlink(missing_ok=True)
    for split in ("train", "held"):
        _create(config, folder, split, config.per_clip * sum(job.split == split for job in jobs))
    work = partial(_work, config, folder)
    workers = workers or os.cpu_count() or 1
    # One thread of BLAS in each: with a worker a core, more of them wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    spawn = get_context("spawn")  # a fork of a process that has threads can hang
    with ProcessPoolExecutor(workers, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in tqdm(pool.map(work, jobs, chunksize=8), total=len(jobs), unit="clip", disable=None):
            pass
    kinds = {"train": ["clean", "compressed"], "held": [name for name, _ in HELD_KINDS]}
    told = {"config": asdict(config), "kinds": kinds, **files}
    (folder / "pairs.json").write_text("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in told.items()) + "\n}\n")


def read_meta(folder: Path) -> DataConfig:
    """The config a folder of pairs was made with. InputError if it is missing or unfinished."""
    values = _read_json(folder)["config"]
    return DataConfig(**{**values, "frame": tuple(values["frame"])})


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads((folder / "pairs.json").read_text())
        values["config"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: pairs.json is missing or broken; make the pairs with `python -m a2n_video.training data`") from error
    return values


class PairBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of random crops, flipped and turned, from the training pairs of one or more folders.

    Item `step` is decided by (seed, step) alone, so a resumed run and any number of reading processes see the same batches.
    `recoloured` is the share of clean pairs whose channels change places: colours that few pictures do not have. Compressed ones keep
    theirs, since an encoder treats them unlike. It is (low, high), uint8 (N, 3, side, side) and (N, 3, side*scale, side*scale) in
    channels_last memory. `left_out` pairs show what another of the folders holds out, where both name their files.
    """

    def __init__(self, *folders: Path, batch: int, side: int, clean_share: float, seed: int, recoloured: float = 0.0) -> None:
        self.folders, self.arrays = folders, open_together(folders, "train")
        low, high, _ = self.arrays[0]
        self.scale = high.shape[1] // low.shape[1]
        self.batch, self.side, self.clean_share, self.seed, self.recoloured = batch, side, clean_share, seed, recoloured
        left = held_elsewhere(folders)
        self.left_out = sum(map(len, left))
        kinds = [
            (kind, number, row)
            for number, (_, _, rows) in enumerate(self.arrays)
            for row, kind in enumerate(rows.tolist())
            if row not in left[number]
        ]
        self.rows = [[(number, row) for kind, number, row in kinds if kind == wanted] for wanted in (CLEAN_KIND, COMPRESSED_KIND)]
        wanted = [clean_share > 0, clean_share < 1]
        named = ", ".join(map(str, folders))
        if any(want and not len(rows) for want, rows in zip(wanted, self.rows, strict=True)):
            raise InputError(f"{named}: clean_share {clean_share} needs pairs that are not there; counts are {[len(r) for r in self.rows]}")
        if side > low.shape[1]:
            raise InputError(f"{named}: patches are {low.shape[1]} wide, crops of {side} were asked for")

    def __reduce__(self) -> tuple[Any, ...]:
        """A reading process opens the arrays itself: numpy would send it all of their bytes."""
        options = {name: getattr(self, name) for name in ("batch", "side", "clean_share", "seed", "recoloured")}
        return partial(PairBatches, **options), self.folders

    def pair(self, rng: np.random.Generator) -> tuple[Image, Image]:
        kind = CLEAN_KIND if rng.random() < self.clean_share else COMPRESSED_KIND
        number, row = self.rows[kind][rng.integers(len(self.rows[kind]))]
        low, high, _ = self.arrays[number]
        s, side = self.scale, self.side
        top, left = choose_patch(rng, low[row], side, candidates=2)
        small = low[row, top : top + side, left : left + side]
        large = high[row, top * s : (top + side) * s, left * s : (left + side) * s]
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        small, large = np.rot90(small, turns), np.rot90(large, turns)
        if kind == CLEAN_KIND and self.recoloured and rng.random() < self.recoloured:
            order = rng.permutation(3)
            small, large = small[..., order], large[..., order]
        return (small[:, ::-1], large[:, ::-1]) if flip else (small, large)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        small, large = zip(*(self.pair(rng) for _ in range(self.batch)), strict=True)
        return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2)
