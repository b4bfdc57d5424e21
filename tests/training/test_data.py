"""Pairs belong together, are the same for the same seed however many workers, and a tenth is never trained on."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from a2n_video.engine.resize import resize_array
from a2n_video.errors import InputError
from a2n_video.training.data import DataConfig, Job, PairBatches, choose_patch, open_arrays, plan, prepare, read_meta
from a2n_video.training.pictures import Source, list_sources, read_picture
from tests.clips import Clip, write_clip

SMALL = DataConfig(patch=24, frame=(80, 96), clip_frames=3, per_clip=2, clean=4, compressed=6, drawn=0, seed=3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(11):
        image = resize_array(rng.uniform(0, 255, (12, 15, 3)), 90, 120).clip(0, 255).astype(np.uint8)
        with av.open(str(folder / f"p{index:02}.png"), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = 120, 90, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    (folder / "readme.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def pairs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    prepare(pictures, folder, SMALL, workers=1)
    return folder


def test_small_is_the_large_one_made_small(pairs: Path) -> None:
    low, high, kind = open_arrays(pairs, "train")
    assert low.shape == (20, 24, 24, 3) and high.shape == (20, 48, 48, 3)
    assert kind.tolist() == [0] * 8 + [1] * 12
    for index in range(20):
        again = resize_array(high[index].astype(np.float64), 24, 24)[4:-4, 4:-4]
        away = np.abs(again - low[index, 4:-4, 4:-4]).mean()
        assert away < (3 if kind[index] == 0 else 14), f"pair {index}"


def test_held_out_kinds_share_their_large_patches(pairs: Path) -> None:
    _, high, kind = open_arrays(pairs, "held")
    assert kind.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # one picture of eleven is held out
    assert all(np.array_equal(high[0], high[k]) for k in (2, 4, 6))


def test_the_same_bytes_with_more_workers(pictures: Path, pairs: Path, tmp_path: Path) -> None:
    prepare(pictures, tmp_path, SMALL, workers=2)
    for split in ("train", "held"):
        for ours, theirs in zip(open_arrays(pairs, split), open_arrays(tmp_path, split), strict=True):
            assert np.array_equal(ours, theirs)
    assert read_meta(tmp_path) == SMALL


def test_folders_are_taken_together(pictures: Path, pairs: Path, tmp_path: Path) -> None:
    clean, other = tmp_path / "clean", tmp_path / "other"
    prepare(pictures, clean, replace(SMALL, clean=2, compressed=0, seed=9), workers=1)
    prepare(pictures, other, replace(SMALL, clean=1, compressed=0, scale=3), workers=1)
    both = PairBatches(clean, pairs, batch=8, side=24, clean_share=1.0, seed=4)
    assert [len(rows) for rows in both.rows] == [4 + 8, 12]
    sources = [open_arrays(folder, "train")[1] for folder in (clean, pairs)]
    drawn = {number for step in range(4) for high in both[step][1] for number, rows in enumerate(sources) if holds(rows, high.numpy())}
    assert drawn == {0, 1}
    again = pickle.loads(pickle.dumps(both))
    assert len(pickle.dumps(both)) < 1000 and torch.equal(again[3][1], both[3][1])
    with pytest.raises(InputError, match="one size and scale"):
        PairBatches(clean, other, batch=1, side=8, clean_share=1.0, seed=1)


def test_what_another_folder_holds_out_is_not_trained_on(pictures: Path, pairs: Path, tmp_path: Path) -> None:
    """One picture more, before the others, and another one of the old ones is held out."""
    more, folder = tmp_path / "more", tmp_path / "pairs"
    shutil.copytree(pictures, more)
    shutil.copy(pictures / "p00.png", more / "first.png")
    with (more / "first.png").open("ab") as file:
        file.write(b"another one")
    config = replace(SMALL, clean=12, compressed=0)
    prepare(more, folder, config, workers=1)
    plans = [plan(SMALL, list_sources(pictures)), plan(config, list_sources(more))]
    held, trained = (
        [{name for job in jobs if job.split == split for name in names_in(job)} for jobs in plans] for split in ("held", "train")
    )
    assert held == [{"p05.png"}, {"p04.png"}] and held[0] <= trained[1] and held[1] <= trained[0]
    options: dict[str, Any] = {"batch": 1, "side": 24, "clean_share": 0.5, "seed": 4}
    both = PairBatches(pairs, folder, **options)
    kept = [plans[number][row // SMALL.per_clip] for rows in both.rows for number, row in rows]
    assert not {name for job in kept for name in names_in(job)} & (held[0] | held[1])
    leaks = sum(job.split == "train" and bool(names_in(job) & held[1 - n]) for n, jobs in enumerate(plans) for job in jobs)
    assert both.left_out == leaks * SMALL.per_clip
    assert PairBatches(pairs, **options).left_out == 0
    told = json.loads((folder / "pairs.json").read_text())
    older = {name: told["config"][name] for name in ("patch", "frame")}  # as folders were before
    (folder / "pairs.json").write_text(json.dumps({"config": older}))
    assert PairBatches(pairs, folder, **options).left_out == 0


def names_in(job: Job) -> set[str]:
    return {source.path.name for source in (job.source, job.front) if source is not None and source.path is not None}


def holds(rows: NDArray[np.uint8], patch: NDArray[np.uint8]) -> bool:
    """A whole patch (3, H, W), turned and flipped in some way, is one of (N, H, W, 3)."""
    upright = patch.transpose(1, 2, 0)
    turned = [np.rot90(flipped, k).tobytes() for flipped in (upright, upright[:, ::-1]) for k in range(4)]
    return any(row.tobytes() in turned for row in rows)


def test_recoloured_pairs_change_their_channels_alike_and_compressed_ones_stay(pairs: Path) -> None:
    for share, changed in ((1.0, True), (0.0, False)):
        plain, other = (PairBatches(pairs, batch=1, side=24, clean_share=share, seed=5, recoloured=r) for r in (0.0, 1.0))
        orders = set()
        for step in range(12):
            (low, high), (low2, high2) = plain[step], other[step]
            found = {order for order in permutations(range(3)) if torch.equal(low2, low[:, order]) and torch.equal(high2, high[:, order])}
            assert found
            orders |= found
        assert (len(orders) > 2) == changed


def test_a_tenth_is_never_trained_on() -> None:
    sources = [Source(path=Path(f"{index}.png")) for index in range(40)]
    jobs = plan(DataConfig(clean=200, compressed=200), sources)
    trained = {job.source for job in jobs if job.split == "train"}
    held = {job.source for job in jobs if job.split == "held"}
    assert len(held) == 4 and not trained & held
    assert any(source.path is None for source in trained)


def test_no_frame_of_a_held_out_video_is_trained_on() -> None:
    sources = [Source(path=Path(f"{index}.mkv"), frame=30 * k) for index in range(12) for k in range(16)]
    jobs = plan(DataConfig(clean=400, compressed=0), sources)
    files = {split: {job.source.path for job in jobs if job.split == split} - {None} for split in ("train", "held")}
    assert files["held"] == {Path("5.mkv")} and not files["train"] & files["held"]


def test_frames_of_a_video_are_those_it_has(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", Clip(times=[Fraction(k, 25) for k in range(45)]))
    assert [source.frame for source in list_sources(tmp_path)] == [0, 30]


def test_too_few_pictures_and_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture or video"):
        list_sources(tmp_path)
    with pytest.raises(InputError, match="too few"):
        plan(SMALL, [Source(path=Path("a.png"))])


@pytest.mark.parametrize("bad", [{"frame": (48, 96)}, {"frame": (65, 96)}, {"patch": 145}])
def test_frames_that_encoders_choke_on(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="frames"):
        DataConfig(**bad)


def test_pairs_that_are_still_being_made_are_refused(pairs: Path, tmp_path: Path) -> None:
    """The arrays are as large as they will be from the start."""
    unfinished = tmp_path / "pairs"
    shutil.copytree(pairs, unfinished)
    assert len(open_arrays(unfinished, "train")[0])
    (unfinished / "pairs.json").unlink()
    with pytest.raises(InputError, match=r"pairs.json is missing"):
        open_arrays(unfinished, "train")


def test_unfinished_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training data"):
        read_meta(tmp_path)
    with pytest.raises(InputError, match=r"training data"):
        PairBatches(tmp_path, batch=1, side=8, clean_share=0.5, seed=1)


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        read_picture(Source(path=tmp_path / "broken.png"))


def test_a_batch_is_decided_by_its_step(pairs: Path) -> None:
    def batches(seed: int) -> PairBatches:
        return PairBatches(pairs, batch=4, side=16, clean_share=0.5, seed=seed)

    first, again, other = batches(1), batches(1), batches(2)
    low, high = first[7]
    assert low.shape == (4, 3, 16, 16) and high.shape == (4, 3, 32, 32) and low.dtype == torch.uint8
    assert torch.equal(again[7][0], low) and torch.equal(again[7][1], high)
    assert not torch.equal(first[8][0], low)
    assert not torch.equal(other[7][0], low)


def test_flips_and_turns_keep_pairs_together(pairs: Path) -> None:
    batch = PairBatches(pairs, batch=16, side=24, clean_share=1.0, seed=4)
    low, high = batch[0]
    for small, large in zip(low, high, strict=True):
        again = resize_array(large.permute(1, 2, 0).numpy().astype(np.float64), 24, 24)
        assert np.abs(again - small.permute(1, 2, 0).numpy())[4:-4, 4:-4].mean() < 3


def test_the_clean_share_is_kept(pairs: Path) -> None:
    low, _, kind = open_arrays(pairs, "train")
    seen = {image.tobytes() for image in low[kind == 0]}
    for share in (0.0, 1.0):
        batch = PairBatches(pairs, batch=12, side=24, clean_share=share, seed=5)
        turned = [np.rot90(image.permute(1, 2, 0).numpy(), k)[:, ::s] for image in batch[0][0] for k in range(4) for s in (1, -1)]
        assert sum(image.tobytes() in seen for image in turned) == (12 if share else 0)


def test_detail_is_preferred() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 40:] = np.random.default_rng(1).integers(0, 255, (40, 40, 3))
    lefts = [choose_patch(np.random.default_rng(seed), image, 16)[1] for seed in range(60)]
    assert np.mean([left + 8 >= 40 for left in lefts]) > 0.8
