"""What a codec does to frames, and that it does the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from a2n_video.errors import EncodeError
from a2n_video.io.roundtrip import Encoding, through_codec


def blocks(count: int, height: int, width: int) -> list[np.ndarray]:
    """Frames of coarse and fine noise, which leave an encoder no easy choice."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 248, (count, -(-height // 16), -(-width // 16), 3), np.uint8)
    large = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return list(large + rng.integers(0, 8, large.shape, np.uint8))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4", "libvpx-vp9"])
def test_equal_input_gives_equal_output(codec: str) -> None:
    """Memory left dirty between the runs shows an encoder that reads what it was not given."""
    frames, rng, seen = blocks(6, 144, 192), np.random.default_rng(1), set()
    for _ in range(4):
        dirty = [np.full(rng.integers(1_000, 2_000_000), rng.integers(255), np.uint8) for _ in range(5)]
        del dirty
        quality = {"crf": "26"} if codec.startswith("lib") else {"qmin": "4", "qmax": "4"}
        seen.add(np.stack(through_codec(frames, Encoding(codec=codec, options=quality))).tobytes())
    assert len(seen) == 1


def test_an_unknown_option_value_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match=r"libx264.*refused"):
        through_codec(blocks(1, 96, 96), Encoding(codec="libx264", options={"preset": "brisk"}))
