"""Scenes are decided by their seed, stay inside their pictures, and move in parts."""

from __future__ import annotations

import numpy as np

from a2n_video.training.degrade import CLEAN, degrade, x264_medium
from a2n_video.training.scene import Motion, blob, put_in_front, recode, render, sample_motion, sway

FRAME = (64, 96)
LARGE = (128, 192)


def test_motion_stays_inside_and_moves() -> None:
    moved = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        motion = sample_motion(rng, (160, 240), FRAME, 8)
        for index in range(8):
            x, y, width = motion.box(index, 8)
            assert x >= 0 and y >= 0 and x + width <= 240.001 and y + width * 64 / 96 <= 160.001
        moved += motion.first != motion.last
    assert 30 < moved < 60


def test_rendering_a_still_whole_box_is_a_crop(picture: np.ndarray) -> None:
    still = Motion(first=(10, 20, 96), last=(10, 20, 96))
    shown = render(picture, still, FRAME, 2)
    assert all(np.array_equal(frame, picture[20:84, 10:106]) for frame in shown)


def test_a_pan_shifts_by_its_speed(picture: np.ndarray) -> None:
    shown = render(picture, Motion(first=(10, 20, 96), last=(16, 20, 96)), FRAME, 3)
    assert np.array_equal(shown[1], picture[20:84, 13:109])


def test_an_open_shutter_smears_along_the_motion_alone(picture: np.ndarray) -> None:
    across = Motion(first=(10, 20, 96), last=(30, 20, 96))
    sharp, smeared = (render(picture, across, FRAME, 3, exposures) for exposures in (1, 4))

    def steps(frame: np.ndarray, axis: int) -> float:
        return float(np.abs(np.diff(frame.astype(float), axis=axis)).mean())

    assert steps(smeared[1], 1) < 0.8 * steps(sharp[1], 1)
    still = Motion(first=(10, 20, 96), last=(10, 20, 96))
    assert np.array_equal(render(picture, still, FRAME, 2, 4)[1], render(picture, still, FRAME, 2)[1])


def test_sway_bends_smoothly_and_by_its_seed(picture: np.ndarray) -> None:
    frames = render(picture, Motion(first=(10, 20, 96), last=(10, 20, 96)), FRAME, 5)
    for seed in range(6):
        bent, again = (sway(np.random.default_rng(seed), frames) for _ in range(2))
        assert len(bent) == 5 and all(frame.shape == (*FRAME, 3) and frame.dtype == np.uint8 for frame in bent)
        assert all(np.array_equal(a, b) for a, b in zip(bent, again, strict=True))
    flat = [np.full((*FRAME, 3), 77, np.uint8)] * 3
    assert all((frame == 77).all() for frame in sway(np.random.default_rng(1), flat))
    columns = [np.repeat(np.repeat(np.arange(96, dtype=np.uint8)[None, :, None] * 2, 64, axis=0), 3, axis=2)] * 4
    for seed in range(6):
        shown = np.stack(sway(np.random.default_rng(seed), columns))[:, 8:-8, 16:-16].astype(float)
        assert (np.diff(shown[..., 0], axis=2) >= -0.5).all(), "a fold"
        assert np.abs(np.diff(shown[..., 0], axis=0)).max() > 0, "it stands still"


def test_soft_views_are_as_many_as_asked_for() -> None:
    for share in (0.0, 0.5, 1.0):
        boxes = [sample_motion(np.random.default_rng(seed), (400, 600), FRAME, 1, share).first[2] for seed in range(200)]
        assert abs(np.mean([width < FRAME[1] for width in boxes]) - share) < 0.1


def test_a_mask_covers_about_a_third_and_has_soft_edges() -> None:
    masks = [blob(np.random.default_rng(seed), FRAME) for seed in range(20)]
    assert all(mask.shape == (*FRAME, 3) and mask.dtype == np.uint8 for mask in masks)
    assert 0.28 < np.mean(masks) / 255 < 0.38
    assert all(mask.max() == 255 and mask.min() == 0 and ((mask > 0) & (mask < 255)).any() for mask in masks)


def test_parts_move_over_what_is_behind(picture: np.ndarray) -> None:
    behind = render(picture, Motion(first=(4, 6, 100), last=(4, 6, 100)), FRAME, 6)
    front = np.full_like(picture, 255)
    moving = 0
    for seed in range(8):
        shown, again = (put_in_front(np.random.default_rng(seed), behind, front) for _ in range(2))
        covered = [np.abs(frame.astype(int) - old).max(axis=-1) > 8 for frame, old in zip(shown, behind, strict=True)]
        assert all(0.02 < area.mean() < 0.98 for area in covered)
        assert all(np.array_equal(a, b) for a, b in zip(shown, again, strict=True))
        moving += bool((covered[0] != covered[-1]).any())
    assert 4 <= moving < 8, "one in four stands still"


def test_recoded_footage_lost_detail_and_its_result_is_easier_to_compress(picture: np.ndarray) -> None:
    frames = render(picture, Motion(first=(4, 6, 100), last=(20, 10, 104)), LARGE, 6)
    once = recode(np.random.default_rng(3), frames)
    assert len(once) == 6 and once[0].shape == frames[0].shape
    assert all(np.array_equal(a, b) for a, b in zip(once, recode(np.random.default_rng(3), frames), strict=True))
    assert 0.2 < np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(once, frames, strict=True)]) < 12

    def harm(large: list[np.ndarray]) -> float:
        before = degrade(large, 2, CLEAN, np.random.default_rng(0))
        after = degrade(large, 2, x264_medium(28), np.random.default_rng(0))
        return float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(after, before, strict=True)]))

    noisy = np.random.default_rng(5)
    grained = [np.clip(frame + noisy.normal(0, 12, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
    assert harm(recode(np.random.default_rng(3), grained)) < harm(grained)
