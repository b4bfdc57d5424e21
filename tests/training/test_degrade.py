"""Degradation is decided by its seed, does what its recipe says, and encoders see motion."""

from __future__ import annotations

import numpy as np
import pytest

from a2n_video.engine.resize import resize_array
from a2n_video.io.roundtrip import Encoding
from a2n_video.training.degrade import (
    CLEAN,
    ENCODERS,
    Degradation,
    degrade,
    gaussian_blur,
    sample_degradation,
    sample_encoding,
    x264_medium,
)
from a2n_video.training.draw import draw_picture
from a2n_video.training.scene import Motion, render

FRAME = (64, 96)


def frames(picture: np.ndarray, count: int = 4, size: tuple[int, int] = FRAME) -> list[np.ndarray]:
    return render(picture, Motion(first=(4, 6, 100), last=(20, 10, 104)), size, count)


def test_equal_seeds_give_equal_recipes_and_others_differ() -> None:
    for compressed in (True, False):
        draws = [[sample_degradation(np.random.default_rng([seed, k]), compressed=compressed) for k in range(40)] for seed in (1, 1, 2)]
        assert draws[0] == draws[1] != draws[2]
        assert all((recipe.encoding is not None) == compressed for recipe in draws[0])
    assert {recipe.subsampled for recipe in draws[0]} == {True, False}


def test_every_encoder_and_scaler_is_drawn_within_its_range() -> None:
    rng = np.random.default_rng(3)
    seen = [sample_encoding(rng) for _ in range(500)]
    assert {encoding.codec for encoding in seen} == {codec for _, codec, *_ in ENCODERS}
    x264 = [int(encoding.options["crf"]) for encoding in seen if encoding.codec == "libx264"]
    assert 16 <= min(x264) < 19 and 33 < max(x264) <= 36
    recipes = [sample_degradation(rng, compressed=True) for _ in range(200)]
    assert {recipe.kernel for recipe in recipes} == {"bicubic", "area", "lanczos"}
    assert any(r.noise for r in recipes) and any(r.blur for r in recipes) and not all(r.noise or r.blur for r in recipes)


@pytest.mark.parametrize("row", ENCODERS, ids=lambda row: f"{row[1]}-{row[2].get('preset', '')}")
def test_every_encoder_is_deterministic_and_loses_something(picture: np.ndarray, row: tuple) -> None:  # type: ignore[type-arg]
    _, codec, fixed, option, (low, high) = row
    damage = []
    for quality in (low, high):
        chosen = {"qmin": str(quality), "qmax": str(quality)} if option == "q" else {option: str(quality)}
        recipe = Degradation(encoding=Encoding(codec=codec, options={**fixed, **chosen}))
        large = frames(picture, size=(128, 192))
        first, again = (degrade(large, 2, recipe, np.random.default_rng(1)) for _ in range(2))
        assert len(first) == 4 and all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        before = degrade(large, 2, Degradation(), np.random.default_rng(1))
        damage.append(np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(first, before, strict=True)]))
    assert 0 < damage[0] < damage[1]


def test_frames_stay_in_step(picture: np.ndarray) -> None:
    large = frames(picture, 8)
    small = degrade(large, 2, x264_medium(18), np.random.default_rng(0))
    clean = degrade(large, 2, CLEAN, np.random.default_rng(0))
    distance = np.array([[np.abs(a.astype(float) - b).mean() for b in clean] for a in small])
    assert distance.argmin(axis=1).tolist() == list(range(8))


def test_clean_is_bicubic_alone(picture: np.ndarray) -> None:
    (large,) = frames(picture, 1)
    (small,) = degrade([large], 2, CLEAN, np.random.default_rng(0))
    assert np.array_equal(small, np.rint(resize_array(large.astype(np.float64), 32, 48)).clip(0, 255).astype(np.uint8))


def test_noise_and_blur_do_what_they_say(picture: np.ndarray) -> None:
    large = [np.full((64, 96, 3), 128, np.uint8)]
    (noisy,) = degrade(large, 2, Degradation(noise=3.0, subsampled=False), np.random.default_rng(0))
    assert noisy.astype(float).std() == pytest.approx(3, rel=0.1)
    point = np.zeros((31, 31, 1), np.float32)
    point[15, 15] = 1
    spread = gaussian_blur(point, 1.2)[..., 0]
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    assert ((np.arange(31) - 15) ** 2 * spread.sum(axis=1)).sum() == pytest.approx(1.2**2, rel=0.03)


def test_drawn_pictures_are_decided_by_their_seed() -> None:
    pytest.importorskip("matplotlib")
    first, again, other = draw_picture(3), draw_picture(3), draw_picture(4)
    assert first.shape == (768, 1024, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
