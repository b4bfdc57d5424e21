"""What the tests of training share."""

from __future__ import annotations

import numpy as np
import pytest

from a2n_video.engine.resize import resize_array


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(9)
    coarse, fine = rng.uniform(0, 255, (20, 30, 3)), rng.uniform(-60, 60, (80, 120, 3))
    return (resize_array(coarse, 160, 240) + resize_array(fine, 160, 240)).clip(0, 255).astype(np.uint8)
